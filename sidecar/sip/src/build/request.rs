//! Requests inside a dialog.

use super::{put, put_fmt};
use crate::value::{NameAddr, Transport, Uri, params};
use crate::{Method, lex};

/// A request inside a dialog, in pieces. All bytes are written as they are.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'a> {
    /// Any method but `Other`.
    pub method: Method,
    /// The remote target's URI.
    pub target: &'a [u8],
    /// The route set as a raw comma list of Route values, nearest first; may be empty.
    pub routes: &'a [u8],
    /// Transport of our Via.
    pub transport: Transport,
    /// `host[:port]` of our Via, IPv6 in brackets.
    pub sent_by: &'a str,
    /// Branch of our Via, `z9hG4bK` included.
    pub branch: &'a str,
    /// From value with our leg's tag.
    pub from: &'a [u8],
    /// To value with the other tag.
    pub to: &'a [u8],
    /// Call-ID value.
    pub call_id: &'a [u8],
    /// Sequence number; the method is added.
    pub cseq: u32,
    /// Further header lines, each with its CRLF; Content-Type when there is a body.
    pub extra: &'a [u8],
    /// The body, may be empty.
    pub body: &'a [u8],
}

/// Append a request inside a dialog to `out` (RFC 3261 §12.2.1.1). When the first route is a strict router (its URI
/// has no `lr`), that URI becomes the Request-URI and the remote target goes last in Route.
pub fn request(parts: &RequestParts, out: &mut Vec<u8>) {
    debug_assert!(parts.method != Method::Other, "the method's text is unknown");
    let method = parts.method.as_str();
    let strict = strict_router(parts.routes);
    put_fmt(out, format_args!("{method} "));
    match &strict {
        Some((uri, _)) => put_request_uri(uri, out),
        None => out.extend_from_slice(parts.target),
    }
    let transport = parts.transport.as_str();
    let rport = if parts.transport == Transport::Udp { ";rport" } else { "" };
    put_fmt(
        out,
        format_args!(" SIP/2.0\r\nVia: SIP/2.0/{transport} {}{rport};branch={}\r\n", parts.sent_by, parts.branch),
    );
    out.extend_from_slice(b"Max-Forwards: 70\r\n");
    match strict {
        Some((_, b"")) => put(out, &[b"Route: <", parts.target, b">\r\n"]),
        Some((_, rest)) => put(out, &[b"Route: ", rest, b", <", parts.target, b">\r\n"]),
        None if parts.routes.is_empty() => {}
        None => put(out, &[b"Route: ", parts.routes, b"\r\n"]),
    }
    put(out, &[b"From: ", parts.from, b"\r\nTo: ", parts.to, b"\r\nCall-ID: ", parts.call_id]);
    put_fmt(out, format_args!("\r\nCSeq: {} {method}\r\n", parts.cseq));
    out.extend_from_slice(parts.extra);
    put_fmt(out, format_args!("Content-Length: {}\r\n\r\n", parts.body.len()));
    out.extend_from_slice(parts.body);
}

/// URI of the first route and the routes behind it, when that first one is a strict router.
fn strict_router(routes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut elements = lex::Elements::of(routes);
    let (_, first) = elements.next()?;
    let uri = NameAddr::parse(first).ok()?.uri;
    if Uri::parse(uri).ok()?.param("lr").is_some() {
        return None;
    }
    Some((uri, elements.next().map_or(b"", |(at, _)| lex::trim_end(&routes[at..]))))
}

/// A route's URI without what a Request-URI may not have: header fields and `method` (RFC 3261 §19.1.1, table 1).
fn put_request_uri(uri: &[u8], out: &mut Vec<u8>) {
    let Ok(parsed) = Uri::parse(uri) else { return out.extend_from_slice(uri) };
    let bare = uri.len() - parsed.params.len() - parsed.headers.len();
    out.extend_from_slice(&uri[..bare]);
    for param in params(parsed.params).filter(|param| !param.name.eq_ignore_ascii_case(b"method")) {
        put(out, &[b";", &parsed.params[param.range]]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Slots, check};

    fn parsed<R>(text: &[u8], read: impl FnOnce(&Message) -> R) -> R {
        let mut slots = Slots::new();
        read(&Message::parse(text, &mut slots).unwrap())
    }

    fn bye<'a>() -> RequestParts<'a> {
        RequestParts {
            method: Method::Bye,
            target: b"sip:b@192.0.2.2:5060",
            routes: b"",
            transport: Transport::Udp,
            sent_by: "192.0.2.1:5060",
            branch: "z9hG4bK1",
            from: b"<sip:a@x>;tag=1",
            to: b"<sip:b@x>;tag=2",
            call_id: b"1@a",
            cseq: u32::MAX,
            extra: b"Reason: SIP;cause=408\r\n",
            body: b"",
        }
    }

    fn built(parts: &RequestParts) -> String {
        let mut out = Vec::new();
        request(parts, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_without_routes_goes_to_the_target() {
        assert_eq!(
            built(&bye()),
            "BYE sip:b@192.0.2.2:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
             From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag=2\r\nCall-ID: 1@a\r\nCSeq: 4294967295 BYE\r\nReason: SIP;cause=408\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn loose_routes_are_written_as_they_are() {
        let text = built(&RequestParts { routes: b"<sip:r;lr>, <sip:s>", transport: Transport::Tcp, cseq: 2, ..bye() });
        assert!(
            text.starts_with("BYE sip:b@192.0.2.2:5060 SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1:5060;branch=z9hG4bK1\r\n")
        );
        assert!(text.contains("\r\nRoute: <sip:r;lr>, <sip:s>\r\n"));
        assert_eq!(parsed(text.as_bytes(), check::check).map(drop), Ok(()));
    }

    #[test]
    fn a_strict_router_takes_the_request_uri() {
        let text = built(&RequestParts { routes: b"<sip:r;method=INVITE;a=b?c=d>;x, <sip:s;lr>", ..bye() });
        assert!(text.starts_with("BYE sip:r;a=b SIP/2.0\r\n"), "{text}");
        assert!(text.contains("\r\nRoute: <sip:s;lr>, <sip:b@192.0.2.2:5060>\r\n"), "{text}");
        let alone = built(&RequestParts { routes: b"<sip:r>", ..bye() });
        assert!(alone.contains("\r\nRoute: <sip:b@192.0.2.2:5060>\r\n"), "{alone}");
    }

    #[test]
    fn a_body_has_its_length() {
        let extra = b"Content-Type: application/sdp\r\n";
        let text = built(&RequestParts { method: Method::Invite, extra, body: b"v=0\r\n", cseq: 3, ..bye() });
        assert!(text.ends_with("CSeq: 3 INVITE\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"));
    }
}
