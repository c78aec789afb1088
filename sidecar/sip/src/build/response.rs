//! Responses to a request that no transaction state is kept for.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::{put, put_fmt};
use crate::value::{Param, params};
use crate::{HeaderName, Message, Method};

/// Tells our To tags from those of others in a log.
const TAG_PREFIX: &[u8] = b"sw";
/// The prefix and 16 hexadecimal digits.
const TAG_LEN: usize = 18;

/// Writes responses a stateless UAS would (RFC 3261 §8.2.6, §8.2.7): without state a retransmission gets the same
/// bytes, because the To tag is a keyed hash of the request's Call-ID, From tag and top Via (branch and sent-by).
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
        top_via_suffix: &[u8],
        extra: &[u8],
        out: &mut Vec<u8>,
    ) {
        put_fmt(out, format_args!("SIP/2.0 {status} {reason}\r\n"));
        put_vias(request, top_via_suffix, out);
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
        let might_be_ours = |tag: &&[u8]| tag.len() == TAG_LEN && tag.starts_with(TAG_PREFIX);
        ack.method() == Some(Method::Ack) && ack.to_tag().filter(might_be_ours).is_some_and(|tag| tag == self.tag(ack))
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
            field(via.branch.unwrap_or_default());
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
    param.value.is_none() && param.is("rport")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Slots, check, lex};

    const INVITE: &str = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a:5070 ; rport;branch=z9hG4bK1 , SIP/2.0/TCP c\r\nv: SIP/2.0/UDP d\r\n\
        Max-Forwards: 70\r\nRecord-Route: <sip:r;lr>\r\nf: A <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\ni: 1@a\r\nCSeq: 1\r\n INVITE\r\n\r\n";

    fn parsed<R>(text: &[u8], read: impl FnOnce(&Message) -> R) -> R {
        let mut slots = Slots::new();
        read(&Message::parse(text, &mut slots).unwrap())
    }

    fn response(request: &str, suffix: &str) -> String {
        let mut out = Vec::new();
        parsed(request.as_bytes(), |request| {
            Responder::new(7).respond(
                request,
                422,
                "Session Interval Too Small",
                suffix.as_bytes(),
                b"Min-SE: 90\r\n",
                &mut out,
            );
        });
        String::from_utf8(out).unwrap()
    }

    fn tag(response: &str) -> String {
        parsed(response.as_bytes(), |response| String::from_utf8(response.to_tag().unwrap().to_vec()).unwrap())
    }

    #[test]
    fn a_response_copies_what_it_must_and_nothing_else() {
        let text = response(INVITE, "");
        let tag = tag(&text);
        assert_eq!(
            text,
            format!(
                "SIP/2.0 422 Session Interval Too Small\r\n\
                 Via: SIP/2.0/UDP a:5070 ; rport;branch=z9hG4bK1 , SIP/2.0/TCP c\r\nVia: SIP/2.0/UDP d\r\n\
                 From: A <sip:a@x>;tag=1\r\nTo: <sip:b@x>;tag={tag}\r\nCall-ID: 1@a\r\nCSeq: 1\r\n INVITE\r\n\
                 Min-SE: 90\r\nContent-Length: 0\r\n\r\n"
            )
        );
        assert!(lex::is_token(tag.as_bytes()) && tag.starts_with("sw") && tag.len() == TAG_LEN);
        assert_eq!(parsed(text.as_bytes(), check::check).map(drop), Ok(()));
    }

    #[test]
    fn the_via_suffix_stands_on_the_first_element_in_place_of_a_bare_rport() {
        let text = response(INVITE, ";received=192.0.2.1;rport=9");
        assert!(
            text.contains("Via: SIP/2.0/UDP a:5070 ;branch=z9hG4bK1;received=192.0.2.1;rport=9 , SIP/2.0/TCP c\r\n")
        );
        assert!(text.contains("Via: SIP/2.0/UDP d\r\n"));
        let empty_line_first = INVITE.replace("Via:", "Via: ,\r\nVia:");
        assert!(response(&empty_line_first, ";received=192.0.2.1").contains(";received=192.0.2.1 , SIP/2.0/TCP c\r\n"));
    }

    #[test]
    fn a_to_tag_that_is_there_stays() {
        assert!(
            response(&INVITE.replace("<sip:b@x>", "<sip:b@x>;tag=theirs"), "").contains("To: <sip:b@x>;tag=theirs\r\n")
        );
    }

    #[test]
    fn the_tag_depends_on_the_transaction_and_the_key_only() {
        let tag_of = |request: &str| tag(&response(request, ""));
        let original = tag_of(INVITE);
        assert_eq!(tag_of(&INVITE.replace("Max-Forwards: 70", "Max-Forwards: 69")), original);
        for (from, to) in
            [("1@a", "2@a"), ("tag=1", "tag=2"), ("bK1", "bK2"), ("a:5070", "b:5070"), ("a:5070", "a:5071")]
        {
            assert_ne!(tag_of(&INVITE.replace(from, to)), original, "{to}");
        }
        let shifted = INVITE.replace("1@a", "1@at").replace("tag=1", "tag=a");
        assert_ne!(tag_of(&shifted), tag_of(&INVITE.replace("tag=1", "tag=ta")), "fields are hashed apart");
        let mut other_key = Vec::new();
        parsed(INVITE.as_bytes(), |request| {
            Responder::new(8).respond(request, 400, "Bad Request", b"", b"", &mut other_key)
        });
        assert_ne!(tag(&String::from_utf8(other_key).unwrap()), original);
    }

    #[test]
    fn the_ack_of_our_response_is_known_again() {
        let responder = Responder::new(7);
        let ack =
            |tag: &str| INVITE.replace("INVITE", "ACK").replace("To: <sip:b@x>", &format!("To: <sip:b@x>;tag={tag}"));
        let ours = tag(&response(INVITE, ";received=192.0.2.1"));
        assert!(parsed(ack(&ours).as_bytes(), |ack| responder.owns_ack(ack)));
        assert!(!parsed(ack("sw0123456789abcdef").as_bytes(), |ack| responder.owns_ack(ack)));
        assert!(!parsed(ack(&ours).replace("bK1", "bK2").as_bytes(), |ack| responder.owns_ack(ack)));
        assert!(!parsed(ack(&ours).replace("ACK", "BYE").as_bytes(), |bye| responder.owns_ack(bye)));
    }
}
