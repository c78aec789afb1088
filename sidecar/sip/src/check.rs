//! Is an indexed message fit to be handled by a proxy (RFC 3261 §16.3, RFC 4475)?
//!
//! Only what routing and dialogs depend on is judged. What an endpoint must reject (Content-Type, Require, Date …) a
//! proxy passes. Proxy-Require and Max-Forwards 0 are answers of the router; a bad Session-Expires is one of policy.

use crate::value::{NameAddr, Scheme, Uri, ValueError, Via};
use crate::{HeaderName, Message, StartLine, lex, scan};

/// What is wrong, and with which status a request is answered. A faulty response is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// 400
    #[error("a mandatory header field is missing, repeated or malformed")]
    BadRequest,
    /// 416
    #[error("the request URI's scheme is not supported")]
    UnsupportedScheme,
    /// 505
    #[error("the SIP version is not 2.0")]
    Version,
}

impl Fault {
    /// Status code and reason phrase (400, 416, 505).
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Fault::BadRequest => (400, "Bad Request"),
            Fault::UnsupportedScheme => (416, "Unsupported URI Scheme"),
            Fault::Version => (505, "Version Not Supported"),
        }
    }
}

impl From<ValueError> for Fault {
    fn from(_: ValueError) -> Fault {
        Fault::BadRequest
    }
}

/// Checks what a proxy must: mandatory headers once and well-formed (Via, From, To, Call-ID, CSeq, Max-Forwards when
/// present), CSeq method equal to the request's, request URI, version. Content-Length was judged by [`Message::parse`]. Gives
/// the Max-Forwards of a request that has it.
pub fn check(message: &Message) -> Result<Option<u8>, Fault> {
    check_start_line(message)?;
    check_vias(message)?;
    check_address(message, HeaderName::From, message.from())?;
    check_address(message, HeaderName::To, message.to())?;
    check_call_id(message)?;
    check_cseq(message)?;
    match message.start_line() {
        StartLine::Request { .. } => Ok(max_forwards(message)?),
        StartLine::Response { .. } => Ok(None),
    }
}

/// `Max-Forwards` of a request: `Ok(None)` when absent, an error when it is not 0..=255 or stands twice.
pub fn max_forwards(message: &Message) -> Result<Option<u8>, ValueError> {
    let Some(header) = message.single(HeaderName::MaxForwards)? else { return Ok(None) };
    let hops = lex::number(header.value).and_then(|hops| u8::try_from(hops).ok());
    hops.map(Some).ok_or(ValueError::Malformed)
}

fn check_start_line(message: &Message) -> Result<(), Fault> {
    let (uri, version_ok) = match message.start_line() {
        StartLine::Request { uri, version_ok, .. } => (uri, *version_ok),
        StartLine::Response { version_ok: true, .. } => return Ok(()),
        StartLine::Response { version_ok: false, .. } => return Err(Fault::Version),
    };
    // One space on each side of the URI, none behind the version (RFC 3261 §7.1).
    let version = &message.bytes()[uri.end + 1..];
    if !version.starts_with(b"SIP/2.0\r\n") {
        let version_len = version.iter().take_while(|byte| !lex::is(**byte, lex::LWS)).count();
        if lex::line_end_len(version, version_len) == 0 {
            return Err(Fault::BadRequest);
        }
    }
    if !version_ok {
        return Err(Fault::Version);
    }
    let text = &message.bytes()[uri.clone()];
    let uri = Uri::parse(text)?;
    match uri.scheme {
        // No header fields in a Request-URI (RFC 3261 §19.1.1, table 1).
        _ if !uri.headers.is_empty() => Err(Fault::BadRequest),
        // Emergency calls name a service, not a host (RFC 5031): they are routed, not judged.
        Scheme::Other if !text.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"urn:")) => {
            Err(Fault::UnsupportedScheme)
        }
        _ => Ok(()),
    }
}

fn check_vias(message: &Message) -> Result<(), Fault> {
    message.top_via()?;
    if message.has_one_via() {
        return Ok(());
    }
    match message.second_via() {
        Err(ValueError::Missing) => return Ok(()),
        second => second?,
    };
    let mut deeper = message.elements(HeaderName::Via).skip(2);
    deeper.try_for_each(|(offset, text)| Via::parse(text, offset).map(drop)).map_err(Fault::from)
}

/// From or To: once, an address with any URI. A tag is not asked for: RFC 2543 clients send none.
fn check_address(message: &Message, name: HeaderName, address: Result<&NameAddr, ValueError>) -> Result<(), Fault> {
    message.single(name)?;
    address?.parse_uri()?;
    Ok(())
}

fn check_call_id(message: &Message) -> Result<(), Fault> {
    let value = message.single(HeaderName::CallId)?.ok_or(Fault::BadRequest)?.value;
    let has_white_space = scan::find_any(value, [b' ', b'\t', b'\r', b'\n']).is_some();
    if value.is_empty() || has_white_space { Err(Fault::BadRequest) } else { Ok(()) }
}

fn check_cseq(message: &Message) -> Result<(), Fault> {
    message.single(HeaderName::CSeq)?;
    let cseq = message.cseq()?;
    match message.start_line() {
        StartLine::Request { method_text, .. } if &message.bytes()[method_text.clone()] != cseq.method_text => {
            Err(Fault::BadRequest)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slots;

    const GOOD: &str = "OPTIONS sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
        From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1@a\r\nCSeq: 1 OPTIONS\r\n\r\n";

    fn checked(text: &str) -> Result<(), Fault> {
        let mut slots = Slots::new();
        check(&Message::parse(text.as_bytes(), &mut slots).unwrap()).map(drop)
    }

    fn with(from: &str, to: &str) -> Result<(), Fault> {
        assert!(GOOD.contains(from), "{from}");
        checked(&GOOD.replace(from, to))
    }

    #[test]
    fn an_ordinary_request_passes() {
        assert_eq!(checked(GOOD), Ok(()));
        assert_eq!(with("Max-Forwards: 70\r\n", ""), Ok(()));
        assert_eq!(with("sip:b@x SIP", "tel:+1-201-555-0123 SIP"), Ok(()));
        assert_eq!(with("sip:b@x SIP", "urn:service:sos SIP"), Ok(()));
        assert_eq!(with("To: <sip:b@x>", "To: <isbn:1>"), Ok(()));
    }

    #[test]
    fn a_mandatory_header_that_is_missing_repeated_or_malformed_is_a_bad_request() {
        for line in GOOD.lines().skip(1).filter(|line| !line.is_empty()) {
            let line = format!("{line}\r\n");
            if !line.starts_with("Max-Forwards") {
                assert_eq!(with(&line, ""), Err(Fault::BadRequest), "without {line}");
            }
            if !line.starts_with("Via") {
                assert_eq!(with(&line, &line.repeat(2)), Err(Fault::BadRequest), "twice {line}");
            }
            let name = line.split(':').next().unwrap();
            assert_eq!(with(&line, &format!("{name}: (\r\n")).is_err(), name != "Call-ID", "malformed {line}");
            assert_eq!(with(&line, &format!("{name}:\r\n")), Err(Fault::BadRequest), "empty {line}");
        }
    }

    #[test]
    fn single_faults_are_found() {
        for (from, to) in [
            ("1 OPTIONS", "1 options"),
            ("Forwards: 70", "Forwards: 256"),
            ("Forwards: 70", "Forwards: -1"),
            ("1@a", "1 @a"),
            ("<sip:b@x>", "< sip:b@x>"),
            ("<sip:b@x>", "\"open <sip:b@x>"),
            ("branch=z9hG4bK1", "branch=z9hG4bK1, ;"),
            ("sip:b@x SIP", "sip:b@x?a=b SIP"),
            ("sip:b@x SIP", "sip:b@x;a b SIP"),
            ("sip:b@x SIP", " sip:b@x SIP"),
            ("sip:b@x SIP", "sip:b@x  SIP"),
            ("sip:b@x SIP", "<sip:b@x> SIP"),
            ("SIP/2.0\r\nVia", "SIP/2.0 \r\nVia"),
        ] {
            assert_eq!(with(from, to), Err(Fault::BadRequest), "{to}");
        }
        assert_eq!(with("sip:b@x SIP", "http://x SIP"), Err(Fault::UnsupportedScheme));
        assert_eq!(with("sip:b@x SIP", "a:b SIP"), Err(Fault::UnsupportedScheme));
        assert_eq!(with("SIP/2.0\r\nVia", "SIP/3.0\r\nVia"), Err(Fault::Version));
    }

    #[test]
    fn responses_need_their_mandatory_headers_but_no_matching_method() {
        let response = GOOD.replace("OPTIONS sip:b@x SIP/2.0", "SIP/2.0 200 OK").replace("1 OPTIONS", "1 INVITE");
        assert_eq!(checked(&response), Ok(()));
        assert_eq!(checked(&response.replace("Call-ID", "X-ID")), Err(Fault::BadRequest));
        assert_eq!(checked(&response.replace("SIP/2.0 200", "SIP/1.0 200")), Err(Fault::Version));
    }

    #[test]
    fn faults_name_their_status() {
        assert_eq!(Fault::BadRequest.status().0, 400);
        assert_eq!(Fault::UnsupportedScheme.status().0, 416);
        assert_eq!(Fault::Version.status().0, 505);
    }

    #[test]
    fn max_forwards_is_read_or_absent() {
        let read = |text: &str| {
            let mut slots = Slots::new();
            max_forwards(&Message::parse(text.as_bytes(), &mut slots).unwrap())
        };
        assert_eq!(read(GOOD), Ok(Some(70)));
        assert_eq!(read(&GOOD.replace(": 70", ": 0000")), Ok(Some(0)));
        assert_eq!(read(&GOOD.replace("Max-Forwards: 70\r\n", "")), Ok(None));
    }
}
