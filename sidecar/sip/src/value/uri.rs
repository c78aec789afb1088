//! SIP and SIPS URIs (RFC 3261 §19.1), and `host [":" port]`, which Via shares.

use std::net::{IpAddr, Ipv4Addr};

use super::{ValueError, param};
use crate::{lex, scan};

/// A SIP(S) URI taken apart (RFC 3261 §19.1). Of other schemes only `scheme` is read, the rest is empty.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'b> {
    /// The scheme.
    pub scheme: Scheme,
    /// `user[:password]`, undecoded; empty without one.
    pub user: &'b [u8],
    /// Host; IPv6 references without their brackets.
    pub host: &'b [u8],
    /// The port, when one is written.
    pub port: Option<u16>,
    /// From the first `;`, up to `?` or the end.
    pub params: &'b [u8],
    /// From `?`, or empty.
    pub headers: &'b [u8],
}

/// A URI scheme, case-insensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `sip`
    Sip,
    /// `sips`
    Sips,
    /// `tel` (RFC 3966)
    Tel,
    /// Any other.
    Other,
}

impl<'b> Uri<'b> {
    /// From the bytes of an addr-spec. Malformed: no legal scheme, white space or angle brackets anywhere; for SIP(S)
    /// also a bad host or port.
    pub fn parse(uri: &'b [u8]) -> Result<Uri<'b>, ValueError> {
        let (scheme, rest) = match uri.strip_prefix(b"sip:") {
            Some(rest) => (Scheme::Sip, rest),
            None => {
                let colon = scan::find(uri, b':').ok_or(ValueError::Malformed)?;
                (Scheme::parse(&uri[..colon])?, &uri[colon + 1..])
            }
        };
        if !matches!(scheme, Scheme::Sip | Scheme::Sips) {
            if rest.is_empty() || lex::has(rest, lex::NOT_URI) {
                return Err(ValueError::Malformed);
            }
            return Ok(Uri { scheme, user: b"", host: b"", port: None, params: b"", headers: b"" });
        }
        // `;`, `?` and `:` are legal in the user part, so it is cut off first.
        let (user, rest) = match scan::find(rest, b'@') {
            Some(0) => return Err(ValueError::Malformed),
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (&b""[..], rest),
        };
        let HostPort { host, port, rest } = HostPort::parse(rest, |rest| rest)?;
        if rest.is_empty() && !lex::has(user, lex::NOT_URI) {
            return Ok(Uri { scheme, user, host, port, params: b"", headers: b"" });
        }
        let (params, headers) = rest.split_at(scan::find(rest, b'?').unwrap_or(rest.len()));
        if !matches!(params.first(), None | Some(b';')) || [user, rest].iter().any(|part| lex::has(part, lex::NOT_URI))
        {
            return Err(ValueError::Malformed);
        }
        Ok(Uri { scheme, user, host, port, params, headers })
    }

    /// The value of a URI parameter (`None`: absent; `Some(b"")`: present without value).
    pub fn param(&self, name: &str) -> Option<&'b [u8]> {
        param(self.params, name)
    }

    /// The host as an IP address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }
}

impl Scheme {
    /// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`
    fn parse(text: &[u8]) -> Result<Scheme, ValueError> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        match text {
            _ if text.eq_ignore_ascii_case(b"sip") => Ok(Scheme::Sip),
            _ if text.eq_ignore_ascii_case(b"sips") => Ok(Scheme::Sips),
            _ if text.eq_ignore_ascii_case(b"tel") => Ok(Scheme::Tel),
            [first, ..] if first.is_ascii_alphabetic() && text.iter().all(legal) => Ok(Scheme::Other),
            _ => Err(ValueError::Malformed),
        }
    }
}

/// An IP address as std reads it; IPv6 without brackets.
pub fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    // Each message has several IPv4 addresses, and std is made for more than those.
    if !text.contains(&b':') {
        return parse_ipv4(text).map(IpAddr::V4);
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut octets, mut place) = ([0; 4], 0);
    // `None` before the first digit of an octet.
    let mut octet: Option<u16> = None;
    for byte in text {
        octet = match (byte, octet) {
            (b'.', Some(whole)) if place < 3 => {
                octets[place] = u8::try_from(whole).ok()?;
                place += 1;
                None
            }
            (b'0'..=b'9', None) => Some(u16::from(byte - b'0')),
            // A leading zero means octal to some.
            (b'0'..=b'9', Some(before @ 1..=25)) => Some(before * 10 + u16::from(byte - b'0')),
            _ => return None,
        };
    }
    octets[3] = u8::try_from(octet?).ok()?;
    (place == 3).then(|| octets.into())
}

/// `host [":" port]` off the front of a text.
pub(super) struct HostPort<'b> {
    /// IPv6 references have lost their brackets.
    pub(super) host: &'b [u8],
    pub(super) port: Option<u16>,
    /// What follows.
    pub(super) rest: &'b [u8],
}

impl<'b> HostPort<'b> {
    /// `skip` takes off the front of a text what may stand around the colon: white space in Via's sent-by.
    pub(super) fn parse(text: &'b [u8], skip: impl Fn(&'b [u8]) -> &'b [u8]) -> Result<HostPort<'b>, ValueError> {
        let (host, rest) = host(text).ok_or(ValueError::Malformed)?;
        let rest = skip(rest);
        let Some(after_colon) = rest.strip_prefix(b":") else { return Ok(HostPort { host, port: None, rest }) };
        let (port, rest) = lex::leading_number(skip(after_colon)).ok_or(ValueError::Malformed)?;
        let port = u16::try_from(port).map_err(|_| ValueError::Malformed)?;
        Ok(HostPort { host, port: Some(port), rest: skip(rest) })
    }
}

/// The host at the front of `text`, and what follows it.
fn host(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.first() == Some(&b'[') {
        let close = memchr::memchr(b']', text)?;
        return lex::is_all(&text[1..close], lex::IPV6).then_some((&text[1..close], &text[close + 1..]));
    }
    let (host, rest) = text.split_at(lex::span(text, lex::HOST_NAME));
    (!host.is_empty()).then_some((host, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn all_parts_of_a_sip_uri_are_read() {
        let uri = uri("SIPS:bob:pw@biloxi.example.com:5070;transport=TCP;lr?Subject=a%20b");
        assert_eq!(uri.scheme, Scheme::Sips);
        assert_eq!((uri.user, uri.host, uri.port), (&b"bob:pw"[..], &b"biloxi.example.com"[..], Some(5070)));
        assert_eq!((uri.param("Transport"), uri.param("LR")), (Some(&b"TCP"[..]), Some(&b""[..])));
        assert_eq!(uri.headers, b"?Subject=a%20b");
        assert_eq!(uri.ip(), None);
    }

    #[test]
    fn semicolons_and_question_marks_before_the_at_sign_belong_to_the_user() {
        let uri = uri("sip:user;par=u%40example.net?x@example.com;a?b");
        assert_eq!((uri.user, uri.host), (&b"user;par=u%40example.net?x"[..], &b"example.com"[..]));
        assert_eq!((uri.params, uri.headers), (&b";a"[..], &b"?b"[..]));
    }

    #[test]
    fn hosts_may_be_addresses() {
        let six = uri("sip:[2001:db8::9:1]:5061;x");
        assert_eq!((six.host, six.port, six.params), (&b"2001:db8::9:1"[..], Some(5061), &b";x"[..]));
        assert_eq!(six.ip(), "2001:db8::9:1".parse().ok());
        assert_eq!(uri("sip:192.0.2.1").ip(), "192.0.2.1".parse().ok());
    }

    #[test]
    fn addresses_are_read_as_std_reads_them() {
        for text in [
            "192.0.2.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "2001:db8::9:1",
            "::ffff:192.0.2.1",
            "",
            ".",
            "1.2.3",
            "1.2.3.4.",
            ".1.2.3.4",
            "1.2.3.4.5",
            "1..2.3",
            "01.2.3.4",
            "00.0.0.0",
            "256.0.0.1",
            "1.2.3.1000",
            "1.2.3.-4",
            "1.2.3.+4",
            "1.2.3.4 ",
            "a.b.c.d",
            "example.com",
            "[::1]",
            "1.2.3.4:5060",
        ] {
            assert_eq!(parse_ip(text.as_bytes()), text.parse().ok(), "{text}");
        }
        assert_eq!(parse_ip(b"1.2.3.\xff"), None);
    }

    #[test]
    fn other_schemes_are_only_named() {
        assert_eq!(uri("tel:+1-201-555-0123").scheme, Scheme::Tel);
        assert_eq!(uri("soap.beep://192.0.2.103:3002").scheme, Scheme::Other);
    }

    #[test]
    fn faulty_uris_are_malformed() {
        for bad in [
            "",
            "sip",
            "sip:",
            ":a@b",
            "<sip:a@b>",
            "sip:@b",
            "sip:a@",
            "sip:a@b@c",
            "sip:a@b:",
            "sip:a@b:65536",
            "sip:a@b c",
            "sip:a@b; lr",
            "sip:a@[::1",
            "sip:a@[g]",
            "sip:a@b,c",
            "sip:a@b:50x",
            "si/p:a",
            "1a:b",
        ] {
            assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
