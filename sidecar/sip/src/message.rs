//! A message on top of its index. Accessors read on demand and never allocate.

pub use crate::index::{MAX_HEADERS, MAX_MESSAGE_LEN, ParseError, Slots, StartLine};

use std::cell::OnceCell;

use crate::index::Slot;
use crate::lex::{self, Elements, Lines};
use crate::value::{CSeq, NameAddr, SessionExpires, ValueError, Via, parse_delta};
use crate::{HeaderName, Method, scan};

/// An indexed message borrowed from its datagram or frame. The body ends where Content-Length says (datagram bytes
/// behind it are ignored, RFC 3261 §18.3) or, without one, with the datagram.
pub struct Message<'b> {
    bytes: &'b [u8],
    slots: &'b Slots,
    start: StartLine,
    headers_end: usize,
    body_start: usize,
    framed: bool,
    read: Read<'b>,
}

/// The values that are asked for again and again on a message's way.
#[derive(Default)]
struct Read<'b> {
    from: OnceCell<Party<'b>>,
    to: OnceCell<Party<'b>>,
    cseq: OnceCell<Result<CSeq<'b>, ValueError>>,
    top_via: OnceCell<Result<Via<'b>, ValueError>>,
    second_via: OnceCell<Result<Via<'b>, ValueError>>,
}

/// A From or To with its tag.
#[derive(Clone, Copy)]
struct Party<'b> {
    address: Result<NameAddr<'b>, ValueError>,
    tag: Option<&'b [u8]>,
}

/// One header field (line). Folding is legal: `value` is the raw bytes between the colon's white space and the final
/// line end and may contain CRLF + white space; accessors in [`crate::value`] treat those as white space.
#[derive(Clone, Copy, Debug)]
pub struct Header<'b> {
    /// The recognised name.
    pub name: HeaderName,
    /// Raw value, outer white space trimmed.
    pub value: &'b [u8],
    /// Byte offset of `value` in the message.
    pub value_start: usize,
    /// Byte offset of the line in the message.
    pub line_start: usize,
    /// End of the line, line end included.
    pub line_end: usize,
}

impl<'b> Message<'b> {
    /// Index `bytes`. Leading CRLFs are skipped (RFC 3261 §7.5). Bare LF as a line end is accepted.
    pub fn parse(bytes: &'b [u8], slots: &'b mut Slots) -> Result<Message<'b>, ParseError> {
        let mut message = Message::parse_head(bytes, slots)?;
        if let Some(len) = message.content_length()? {
            let end = message.body_start + len;
            message.bytes = message.bytes.get(..end).ok_or(ParseError::Truncated)?;
        }
        message.framed = true;
        Ok(message)
    }

    /// As [`Self::parse`], but without a look at Content-Length: the body is all that follows. For answering a request
    /// whose Content-Length is unusable (RFC 3261 §18.3).
    #[inline]
    pub fn parse_head(bytes: &'b [u8], slots: &'b mut Slots) -> Result<Message<'b>, ParseError> {
        let leading = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let bytes = &bytes[leading..];
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(ParseError::TooLong);
        }
        let (line_end, lines) = Lines::of(bytes).ok_or(ParseError::Unterminated)?;
        let line = &bytes[..line_end - 1];
        let start = StartLine::parse(line.strip_suffix(b"\r").unwrap_or(line))?;
        let headers_end = slots.index(lines)?;
        let body_start = headers_end + lex::line_end_len(bytes, headers_end);
        Ok(Message { bytes, slots, start, headers_end, body_start, framed: false, read: Read::default() })
    }

    /// All bytes of the message, from start line to end of body (what edits refer to).
    pub fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The start line.
    pub fn start_line(&self) -> &StartLine {
        &self.start
    }

    /// The method of a request; `None` for a response.
    pub fn method(&self) -> Option<Method> {
        match self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The status code of a response; `None` for a request.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { status, .. } => Some(status),
        }
    }

    /// Request-URI text of a request.
    pub fn request_uri(&self) -> Option<&'b [u8]> {
        match &self.start {
            StartLine::Request { uri, .. } => Some(&self.bytes[uri.clone()]),
            StartLine::Response { .. } => None,
        }
    }

    /// The body, may be empty.
    pub fn body(&self) -> &'b [u8] {
        &self.bytes[self.body_start..]
    }

    /// Does its body end where it says? Not known of one that [`Self::parse_head`] indexed.
    pub fn is_framed(&self) -> bool {
        self.framed
    }

    /// Offset of the empty line that ends the headers: where a header is appended.
    pub fn headers_end(&self) -> usize {
        self.headers_end
    }

    /// Every header line, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'b>> + '_ {
        self.slots.lines().iter().map(|slot| self.header(slot))
    }

    /// Every header line of that name, in order.
    #[inline]
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = Header<'b>> + '_ {
        self.slots.of(name).iter().filter(move |slot| slot.name == name).map(|slot| self.header(slot))
    }

    /// The first header line of that name.
    #[inline]
    pub fn first(&self, name: HeaderName) -> Option<Header<'b>> {
        self.slots.first(name).map(|slot| self.header(slot))
    }

    /// How many header lines have that name.
    pub fn count(&self, name: HeaderName) -> usize {
        self.all(name).count()
    }

    /// The elements of a comma list over all lines of that name, in order, trimmed, empty ones skipped. Commas in
    /// quotes and angle brackets do not separate. Each element comes with its byte offset in the message.
    pub fn elements(&self, name: HeaderName) -> impl Iterator<Item = (usize, &'b [u8])> + '_ {
        self.all(name).flat_map(|header| header.elements())
    }

    /// The first of [`Self::elements`].
    pub fn first_element(&self, name: HeaderName) -> Option<(usize, &'b [u8])> {
        let first = self.first(name)?;
        // Most lines have one, in which nothing looks like the border to another.
        if !first.value.is_empty() && scan::find_any(first.value, lex::ELEMENT_MARKS).is_none() {
            return Some((first.value_start, first.value));
        }
        first.elements().next().or_else(|| self.elements(name).next())
    }

    /// Does a comma list of tokens hold `token` (case-insensitive)? For Supported, Require, Allow …
    pub fn has_token(&self, name: HeaderName, token: &str) -> bool {
        let is_token = |(_, element): (usize, &[u8])| lex::same(element, token.as_bytes());
        self.all(name).any(|header| header.elements().any(is_token))
    }

    /// Call-ID, raw.
    #[inline]
    pub fn call_id(&self) -> Option<&'b [u8]> {
        self.first(HeaderName::CallId).map(|header| header.value)
    }

    /// CSeq: number and method.
    pub fn cseq(&self) -> Result<CSeq<'b>, ValueError> {
        *self.read.cseq.get_or_init(|| CSeq::parse(self.required(HeaderName::CSeq)?))
    }

    /// From: the name-addr or addr-spec with its parameters.
    pub fn from(&self) -> Result<&NameAddr<'b>, ValueError> {
        self.sender().address.as_ref().map_err(|error| *error)
    }

    /// To: the name-addr or addr-spec with its parameters.
    pub fn to(&self) -> Result<&NameAddr<'b>, ValueError> {
        self.recipient().address.as_ref().map_err(|error| *error)
    }

    /// The From tag, if any.
    pub fn from_tag(&self) -> Option<&'b [u8]> {
        self.sender().tag
    }

    /// The To tag, if any.
    pub fn to_tag(&self) -> Option<&'b [u8]> {
        self.recipient().tag
    }

    /// The topmost Via element.
    pub fn top_via(&self) -> Result<&Via<'b>, ValueError> {
        let read = self.read.top_via.get_or_init(|| {
            let (offset, text) = self.first_element(HeaderName::Via).ok_or(ValueError::Missing)?;
            Via::parse(text, offset)
        });
        read.as_ref().map_err(|error| *error)
    }

    /// The Via element below that: where a response goes on to.
    pub fn second_via(&self) -> Result<&Via<'b>, ValueError> {
        let read = self.read.second_via.get_or_init(|| {
            let (offset, text) = self.elements(HeaderName::Via).nth(1).ok_or(ValueError::Missing)?;
            Via::parse(text, offset)
        });
        read.as_ref().map_err(|error| *error)
    }

    /// Is the topmost Via the only one? `false` also where that takes a second look: what stands beside it in its line
    /// may be no more than a comma.
    pub fn has_one_via(&self) -> bool {
        let fills_its_line =
            |via: &Via| self.first(HeaderName::Via).is_some_and(|line| line.value.len() == via.text.len());
        !self.slots.is_repeated(HeaderName::Via) && self.top_via().is_ok_and(fills_its_line)
    }

    /// Contact's first element; `None` without Contact or for `*`.
    pub fn contact(&self) -> Option<NameAddr<'b>> {
        let (_, element) = self.first_element(HeaderName::Contact)?;
        if element == b"*" { None } else { NameAddr::parse(element).ok() }
    }

    /// `Ok(None)` when absent; an error when malformed or present twice (RFC 4028 §4).
    pub fn session_expires(&self) -> Result<Option<SessionExpires>, ValueError> {
        self.single(HeaderName::SessionExpires)?.map(|header| SessionExpires::parse(header.value)).transpose()
    }

    /// Min-SE in seconds. `Ok(None)` when absent; an error when malformed or present twice (RFC 4028 §5).
    pub fn min_se(&self) -> Result<Option<u32>, ValueError> {
        self.single(HeaderName::MinSe)?.map(|header| parse_delta(header.value)).transpose()
    }

    /// The header of a name that may stand once: `Repeated` when it stands twice.
    pub(crate) fn single(&self, name: HeaderName) -> Result<Option<Header<'b>>, ValueError> {
        if self.slots.is_repeated(name) { Err(ValueError::Repeated) } else { Ok(self.first(name)) }
    }

    fn sender(&self) -> &Party<'b> {
        self.read.from.get_or_init(|| self.party(HeaderName::From))
    }

    fn recipient(&self) -> &Party<'b> {
        self.read.to.get_or_init(|| self.party(HeaderName::To))
    }

    fn party(&self, name: HeaderName) -> Party<'b> {
        let address = self.required(name).and_then(NameAddr::parse);
        Party { address, tag: address.ok().and_then(|address| address.param("tag")) }
    }

    fn required(&self, name: HeaderName) -> Result<&'b [u8], ValueError> {
        self.first(name).map(|header| header.value).ok_or(ValueError::Missing)
    }

    #[inline]
    fn header(&self, slot: &Slot) -> Header<'b> {
        Header {
            name: slot.name,
            value: &self.bytes[slot.value_start as usize..slot.value_end as usize],
            value_start: slot.value_start as usize,
            line_start: slot.line_start as usize,
            line_end: slot.line_end as usize,
        }
    }

    fn content_length(&self) -> Result<Option<usize>, ParseError> {
        self.all(HeaderName::ContentLength).try_fold(None, |seen, header| match lex::number(header.value) {
            Some(len) if seen.is_none_or(|seen| seen == len as usize) => Ok(Some(len as usize)),
            _ => Err(ParseError::ContentLength),
        })
    }
}

impl<'b> Header<'b> {
    /// The elements of this line's comma list, as [`Message::elements`].
    pub fn elements(&self) -> impl Iterator<Item = (usize, &'b [u8])> + use<'b> {
        let base = self.value_start;
        Elements::of(self.value).map(move |(at, element)| (base + at, element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::RefresherParam;

    const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a:5060;branch=z9hG4bK1, SIP/2.0/TCP b\r\n\
        v : SIP/2.0/UDP c\r\nf: \"A\" <sip:a@x>;tag=1\r\nTo:\r\n <sip:b@y>\r\nCall-ID: id@a\r\nCSeq: 7\r\n\tINVITE\r\n\
        Supported: 100rel,\r\n replaces\r\nk: TIMER\r\nx: 1800 ; refresher = uas\r\nMin-SE: 90\r\nm: <sip:a@a>, <sip:c@c>\r\n\
        Subject:\r\nContent-Length: 4\r\n\r\nbodytrailing";

    fn with<R>(bytes: &[u8], check: impl FnOnce(Result<Message<'_>, ParseError>) -> R) -> R {
        let mut slots = Slots::new();
        check(Message::parse(bytes, &mut slots))
    }

    fn with_headers<R>(headers: &str, check: impl FnOnce(Message<'_>) -> R) -> R {
        with(format!("OPTIONS sip:a@b SIP/2.0\r\n{headers}\r\n").as_bytes(), |message| check(message.unwrap()))
    }

    #[test]
    fn a_request_is_indexed_and_its_values_are_read() {
        with(INVITE, |message| {
            let message = message.unwrap();
            assert_eq!((message.method(), message.status()), (Some(Method::Invite), None));
            assert_eq!(message.request_uri(), Some(&b"sip:bob@example.com"[..]));
            assert_eq!(message.body(), b"body");
            assert_eq!(message.bytes(), &INVITE[..INVITE.len() - "trailing".len()]);
            assert_eq!(&message.bytes()[message.headers_end()..], b"\r\nbody");
            assert_eq!(message.call_id(), Some(&b"id@a"[..]));
            assert_eq!(message.cseq().unwrap().number, 7);
            assert_eq!((message.from_tag(), message.to_tag()), (Some(&b"1"[..]), None));
            assert_eq!(message.to().unwrap().uri, b"sip:b@y");
            assert_eq!(message.contact().unwrap().uri, b"sip:a@a");
            let session = message.session_expires().unwrap().unwrap();
            assert_eq!((session.delta, session.refresher), (1800, Some(RefresherParam::Uas)));
            assert_eq!(message.min_se(), Ok(Some(90)));
        });
    }

    #[test]
    fn elements_run_over_lines_and_tell_their_offsets() {
        with(INVITE, |message| {
            let message = message.unwrap();
            let vias: Vec<_> = message.elements(HeaderName::Via).collect();
            assert_eq!(vias.len(), 3);
            assert_eq!(message.count(HeaderName::Via), 2);
            for (offset, via) in vias {
                assert_eq!(&message.bytes()[offset..offset + via.len()], via);
            }
            assert_eq!(message.top_via().unwrap().branch, Some(&b"z9hG4bK1"[..]));
            for token in ["100rel", "replaces", "timer"] {
                assert!(message.has_token(HeaderName::Supported, token), "{token}");
            }
            assert!(!message.has_token(HeaderName::Supported, "time"));
            assert!(!message.has_token(HeaderName::Require, "timer"));
        });
    }

    #[test]
    fn header_lines_cover_the_header_section_without_gaps() {
        with(INVITE, |message| {
            let message = message.unwrap();
            let mut at = "INVITE sip:bob@example.com SIP/2.0\r\n".len();
            for header in message.headers() {
                assert_eq!(header.line_start, at);
                assert_eq!(&message.bytes()[header.value_start..header.value_start + header.value.len()], header.value);
                at = header.line_end;
            }
            assert_eq!(at, message.headers_end());
            assert_eq!(message.headers().count(), 13);
        });
    }

    #[test]
    fn bare_line_feeds_and_leading_line_ends_are_accepted() {
        with(b"\r\n\n\r\nBYE sip:a SIP/2.0\nTo: x\n ;tag=1\nl: 1\n\nb", |message| {
            let message = message.unwrap();
            assert_eq!(
                (message.method(), message.to_tag(), message.body()),
                (Some(Method::Bye), Some(&b"1"[..]), &b"b"[..])
            );
            assert!(message.bytes().starts_with(b"BYE"));
        });
    }

    #[test]
    fn a_head_with_an_unusable_content_length_can_still_be_read() {
        let mut slots = Slots::new();
        let message = Message::parse_head(b"BYE sip:a SIP/2.0\r\nl: -1\r\ni: x\r\n\r\nb", &mut slots).unwrap();
        assert_eq!((message.call_id(), message.body()), (Some(&b"x"[..]), &b"b"[..]));
    }

    #[test]
    fn session_timer_headers_may_stand_once() {
        let session =
            |headers: &str| with_headers(headers, |message| message.session_expires().map(|found| found.is_some()));
        assert_eq!(session(""), Ok(false));
        assert_eq!(session("Session-Expires: 90\r\n"), Ok(true));
        assert_eq!(session("x: 90\r\nSession-Expires: 90\r\n"), Err(ValueError::Repeated));
        assert_eq!(session("x:\r\n"), Err(ValueError::Malformed));
        assert_eq!(with_headers("Min-SE: 90\r\nMIN-SE: 90\r\n", |message| message.min_se()), Err(ValueError::Repeated));
    }

    #[test]
    fn missing_headers_say_so() {
        with_headers("", |message| {
            assert_eq!(message.cseq(), Err(ValueError::Missing));
            assert_eq!(message.top_via().err(), Some(ValueError::Missing));
            assert_eq!(message.from().err(), Some(ValueError::Missing));
            assert!(message.contact().is_none() && message.call_id().is_none());
        });
        with_headers("Contact: *\r\n", |message| assert!(message.contact().is_none()));
    }
}
