//! Messages of our own: responses to a request, and requests inside a dialog.

use std::fmt::Arguments;
use std::hash::Hasher;
use std::io::Write;

use siphasher::sip::SipHasher24;

use crate::value::{NameAddr, Param, Transport, Uri, params};
use crate::{HeaderName, Message, Method, lex};

/// Tells our To tags from those of others in a log.
const TAG_PREFIX: &[u8] = b"sw";
/// The prefix and 16 hexadecimal digits.
const TAG_LEN: usize = 18;

/// Writes responses a stateless UAS would (RFC 3261 §8.2.6, §8.2.7): without state a retransmission gets the same
/// bytes, because the To tag is a keyed hash of the request's Call-ID, From tag and top Via branch.
pub struct Responder {
    key: u64,
}

impl Responder {
    /// `key` must be drawn at random once per process: who knows it can forge our tags.
    pub fn new(key: u64) -> Responder {
        Responder { key }
    }

    /// Append a response to `out`: all Via, From, To (with our tag when it has none), Call-ID, CSeq copied, then `extra`
    /// (whole header lines, each with CRLF), then `Content-Length: 0`. `top_via_suffix` is appended to the first Via
    /// element (`;received=…;rport=…`, may be empty) and takes the place of a bare `rport` in it (RFC 3581 §4). A
    /// header that the request lacks is left out.
    pub fn respond(
        &self,
        request: &Message,
        status: u16,
        reason: &str,
        top_via_suffix: &str,
        extra: &[u8],
        out: &mut Vec<u8>,
    ) {
        put_fmt(out, format_args!("SIP/2.0 {status} {reason}\r\n"));
        put_vias(request, top_via_suffix.as_bytes(), out);
        for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
            let Some(header) = request.first(name) else { continue };
            put(out, &[name.as_str().as_bytes(), b": ", header.value]);
            if name == HeaderName::To && request.to_tag().is_none() {
                put(out, &[b";tag=", &self.tag(request)]);
            }
            out.extend_from_slice(b"\r\n");
        }
        put(out, &[extra, b"Content-Length: 0\r\n\r\n"]);
    }

    /// Is this ACK the answer to a final response that [`Self::respond`] wrote with a tag of ours?
    pub fn owns_ack(&self, ack: &Message) -> bool {
        ack.method() == Some(Method::Ack) && ack.to_tag() == Some(&self.tag(ack))
    }

    /// A hash of what a request shares with its retransmissions and with the ACK of its failure (RFC 3261 §17.1.1.3).
    fn tag(&self, request: &Message) -> [u8; TAG_LEN] {
        let mut hasher = SipHasher24::new_with_keys(self.key, !self.key);
        let mut field = |bytes: &[u8]| {
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        };
        field(request.call_id().unwrap_or_default());
        field(request.from_tag().unwrap_or_default());
        if let Ok(via) = request.top_via() {
            field(via.branch().unwrap_or_default());
            field(via.host);
            field(&via.port.unwrap_or(0).to_be_bytes());
        }
        let mut tag = [0; TAG_LEN];
        tag[..TAG_PREFIX.len()].copy_from_slice(TAG_PREFIX);
        let hash = hasher.finish();
        for (at, byte) in tag[TAG_PREFIX.len()..].iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(hash >> (4 * at)) as usize & 15];
        }
        tag
    }
}

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
    let mut elements = lex::Split::commas(routes);
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

/// All Via lines of the request, with `suffix` on the first element.
fn put_vias(request: &Message, suffix: &[u8], out: &mut Vec<u8>) {
    let top = request.top_via().ok().filter(|_| !suffix.is_empty());
    for header in request.all(HeaderName::Via) {
        out.extend_from_slice(b"Via: ");
        let range = header.value_start..header.value_start + header.value.len();
        match top.filter(|via| range.contains(&via.offset)) {
            Some(via) => {
                out.extend_from_slice(&request.bytes()[range.start..via.params_offset()]);
                for param in params(via.params).filter(|param| !is_bare_rport(param)) {
                    put(out, &[b";", &via.params[param.range]]);
                }
                put(out, &[suffix, &request.bytes()[via.offset + via.text.len()..range.end]]);
            }
            None => out.extend_from_slice(header.value),
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn is_bare_rport(param: &Param) -> bool {
    param.value.is_none() && param.name.eq_ignore_ascii_case(b"rport")
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_fmt(out: &mut Vec<u8>, text: Arguments) {
    out.write_fmt(text).expect("a Vec takes every write");
}
