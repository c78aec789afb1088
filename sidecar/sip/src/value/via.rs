//! Via (RFC 3261 §20.42, RFC 3581).

use std::ops::Range;

use super::uri::HostPort;
use super::{Param, ValueError, param, params};
use crate::lex;

/// Transport in a Via or `transport=` parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `UDP`
    Udp,
    /// `TCP`
    Tcp,
    /// `TLS`
    Tls,
    /// `WS` (RFC 7118)
    Ws,
    /// `WSS` (RFC 7118)
    Wss,
    /// Any other token.
    Other,
}

impl Transport {
    /// From the token, any case.
    pub fn from_token(token: &[u8]) -> Transport {
        match token {
            b"UDP" => Transport::Udp,
            b"TCP" => Transport::Tcp,
            _ => [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss]
                .into_iter()
                .find(|transport| token.eq_ignore_ascii_case(transport.as_str().as_bytes()))
                .unwrap_or(Transport::Other),
        }
    }

    /// Upper case, as in Via; `OTHER` for `Other` (only for labels and logs, never for the wire).
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
            Transport::Ws => "WS",
            Transport::Wss => "WSS",
            Transport::Other => "OTHER",
        }
    }
}

/// One Via element (RFC 3261 §20.42, RFC 3581).
#[derive(Clone, Debug)]
pub struct Via<'b> {
    /// The element's raw bytes.
    pub text: &'b [u8],
    /// Byte offset of `text` in the message.
    pub offset: usize,
    /// The transport it was sent over.
    pub transport: Transport,
    /// Host of sent-by; IPv6 without brackets.
    pub host: &'b [u8],
    /// Port of sent-by, when one is written.
    pub port: Option<u16>,
    /// From the first `;`, may be empty.
    pub params: &'b [u8],
    /// The value of the first `branch` among them, empty without one.
    pub branch: Option<&'b [u8]>,
    /// The first `received`, written by who took the request in.
    pub received: Option<ViaParam<'b>>,
    /// The first `rport` (RFC 3581).
    pub rport: Option<ViaParam<'b>>,
}

/// A parameter of a Via.
#[derive(Clone, Debug)]
pub struct ViaParam<'b> {
    /// Byte range in the message, without the semicolon and outer white space.
    pub range: Range<usize>,
    /// Its value, empty without one.
    pub value: &'b [u8],
}

impl<'b> Via<'b> {
    /// `text` one element of a Via list, `offset` where it stands in the message. White space is legal around every
    /// separator; the protocol may be any `name/version`.
    pub fn parse(text: &'b [u8], offset: usize) -> Result<Via<'b>, ValueError> {
        let rest = match text.strip_prefix(b"SIP/2.0/") {
            Some(rest) => lex::trim_start(rest),
            None => behind_protocol(text)?,
        };
        let (transport, rest) = rest.split_at(lex::span(rest, lex::TOKEN));
        let sent_by = lex::trim_start(rest);
        if transport.is_empty() || sent_by.len() == rest.len() {
            return Err(ValueError::Malformed);
        }
        let HostPort { host, port, rest: all } = HostPort::parse(sent_by, lex::trim_start)?;
        if !matches!(all.first(), None | Some(b';')) {
            return Err(ValueError::Malformed);
        }
        let transport = Transport::from_token(transport);
        let mut via =
            Via { text, offset, transport, host, port, params: all, branch: None, received: None, rport: None };
        let params_offset = via.params_offset();
        for param in params(all) {
            match param.name.len() {
                5 if via.rport.is_none() && param.is("rport") => via.rport = Some(ViaParam::at(params_offset, param)),
                6 if via.branch.is_none() && param.is("branch") => via.branch = Some(param.value.unwrap_or_default()),
                8 if via.received.is_none() && param.is("received") => {
                    via.received = Some(ViaParam::at(params_offset, param));
                }
                _ => {}
            }
        }
        Ok(via)
    }

    /// The value of a parameter (`None`: absent; `Some(b"")`: present without value).
    pub fn param(&self, name: &str) -> Option<&'b [u8]> {
        param(self.params, name)
    }

    /// Byte offset of `params` in the message: where `text` goes on behind sent-by.
    pub fn params_offset(&self) -> usize {
        self.offset + self.text.len() - self.params.len()
    }
}

impl<'b> ViaParam<'b> {
    fn at(offset: usize, Param { range, value, .. }: Param<'b>) -> ViaParam<'b> {
        ViaParam { range: offset + range.start..offset + range.end, value: value.unwrap_or_default() }
    }
}

/// What follows behind the two slashes of `name/version/`, without white space at its front.
fn behind_protocol(text: &[u8]) -> Result<&[u8], ValueError> {
    [(); 2].into_iter().try_fold(text, |text, ()| {
        let slash = memchr::memchr(b'/', text).ok_or(ValueError::Malformed)?;
        let part_is_token = lex::is_token(lex::trim(&text[..slash]));
        part_is_token.then(|| lex::trim_start(&text[slash + 1..])).ok_or(ValueError::Malformed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(text: &str) -> Via<'_> {
        Via::parse(text.as_bytes(), 7).unwrap()
    }

    #[test]
    fn an_ordinary_via_is_read() {
        let via = via("SIP/2.0/UDP 192.0.2.1:5062;rport;branch=z9hG4bK1");
        assert_eq!((via.transport, via.host, via.port), (Transport::Udp, &b"192.0.2.1"[..], Some(5062)));
        assert_eq!((via.branch, via.param("RPORT")), (Some(&b"z9hG4bK1"[..]), Some(&b""[..])));
        assert_eq!(via.params_offset(), 7 + 26);
    }

    #[test]
    fn white_space_and_folds_are_legal_around_separators() {
        let via = via("SIP \r\n / 2.0\t/ tcp   spindle.example.com : 5070 \r\n ;\r\n branch  =\r\n z9hG4bK9");
        assert_eq!((via.transport, via.host, via.port), (Transport::Tcp, &b"spindle.example.com"[..], Some(5070)));
        assert_eq!(via.branch, Some(&b"z9hG4bK9"[..]));
    }

    #[test]
    fn ipv6_and_unknown_transports_are_legal() {
        let via = via("SIP/2.0/SCTP [2001:db8::1];branch=x");
        assert_eq!((via.transport, via.host, via.port), (Transport::Other, &b"2001:db8::1"[..], None));
    }

    #[test]
    fn faulty_vias_are_malformed() {
        for bad in [
            "",
            ";",
            "SIP/2.0",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ",
            "SIP/2.0/UDP;x",
            "SIP//UDP a",
            "SIP/2.0/UDP a b",
            "SIP/2.0/UDP ::1",
        ] {
            assert!(Via::parse(bad.as_bytes(), 0).is_err(), "{bad}");
        }
    }
}
