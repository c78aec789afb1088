//! One pass over a message: start line, header index, body. Accessors read on demand and never allocate.

use std::ops::Range;

use crate::lex::{self, Split};
use crate::value::{CSeq, NameAddr, SessionExpires, ValueError, Via, parse_delta};
use crate::{HeaderName, Method};

/// Most header fields (lines) a message may have; one more is `ParseError::TooManyHeaders`.
pub const MAX_HEADERS: usize = 192;
/// Most bytes of a message, the largest UDP payload.
pub const MAX_MESSAGE_LEN: usize = 65_535;

/// No line of that name, in the first-occurrence table.
const NONE: u8 = u8::MAX;
const _: () = assert!(MAX_HEADERS < NONE as usize);

/// Caller-owned room for the header index, reused from message to message.
pub struct Slots {
    lines: Vec<Slot>,
    /// Index in `lines` of the first line of each name.
    first: [u8; HeaderName::COUNT],
}

#[derive(Clone, Copy)]
struct Slot {
    name: HeaderName,
    line_start: u32,
    value_start: u32,
    value_end: u32,
    line_end: u32,
}

impl Slots {
    /// Room for [`MAX_HEADERS`] header fields.
    pub fn new() -> Slots {
        Slots { lines: Vec::with_capacity(MAX_HEADERS), first: [NONE; HeaderName::COUNT] }
    }
}

impl Default for Slots {
    fn default() -> Slots {
        Slots::new()
    }
}

/// Why bytes are not a SIP message we can index. Carries no input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ParseError {
    /// Not SIP at all, or a status code out of 100..=699.
    #[error("the start line is neither a request line nor a status line")]
    StartLine,
    /// What follows the start line is no header field.
    #[error("a header line has no colon or an empty name")]
    HeaderLine,
    /// The empty line behind the headers is missing.
    #[error("the header section has no end")]
    Unterminated,
    /// See [`MAX_HEADERS`].
    #[error("more than {MAX_HEADERS} header fields")]
    TooManyHeaders,
    /// See [`MAX_MESSAGE_LEN`].
    #[error("longer than {MAX_MESSAGE_LEN} bytes")]
    TooLong,
    /// The body is shorter than announced.
    #[error("Content-Length is larger than what came")]
    Truncated,
    /// The end of the body is unknown.
    #[error("Content-Length is not a number, or two of them differ")]
    ContentLength,
}

/// The start line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// `method SP uri SP version`.
    Request {
        /// The method as far as we know it.
        method: Method,
        /// Byte range of the method.
        method_text: Range<usize>,
        /// Byte range of what stands between the first and the last space; [`crate::check`] judges it.
        uri: Range<usize>,
        /// Is the version `SIP/2.0`?
        version_ok: bool,
    },
    /// `version SP status SP reason`.
    Response {
        /// Status code, 100..=699.
        status: u16,
        /// Byte range of the reason phrase, may be empty.
        reason: Range<usize>,
        /// Is the version `SIP/2.0`?
        version_ok: bool,
    },
}

/// An indexed message borrowed from its datagram or frame. The body ends where Content-Length says (datagram bytes
/// behind it are ignored, RFC 3261 §18.3) or, without one, with the datagram.
pub struct Message<'b> {
    bytes: &'b [u8],
    slots: &'b Slots,
    start: StartLine,
    headers_end: usize,
    body_start: usize,
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
        Ok(message)
    }

    /// As [`Self::parse`], but without a look at Content-Length: the body is all that follows. For answering a request
    /// whose Content-Length is unusable (RFC 3261 §18.3).
    pub fn parse_head(bytes: &'b [u8], slots: &'b mut Slots) -> Result<Message<'b>, ParseError> {
        let leading = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let bytes = &bytes[leading..];
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(ParseError::TooLong);
        }
        let line_end = memchr::memchr(b'\n', bytes).ok_or(ParseError::Unterminated)?;
        let start = start_line(bytes[..line_end].strip_suffix(b"\r").unwrap_or(&bytes[..line_end]))?;
        let headers_end = index_headers(bytes, line_end + 1, slots)?;
        let body_start = headers_end + lex::line_end_len(bytes, headers_end);
        Ok(Message { bytes, slots, start, headers_end, body_start })
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

    /// Offset of the empty line that ends the headers: where a header is appended.
    pub fn headers_end(&self) -> usize {
        self.headers_end
    }

    /// Every header line, in order.
    pub fn headers(&self) -> impl Iterator<Item = Header<'b>> + '_ {
        self.slots.lines.iter().map(|slot| self.header(slot))
    }

    /// Every header line of that name, in order.
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = Header<'b>> + '_ {
        let from = usize::from(self.slots.first[name as usize]).min(self.slots.lines.len());
        self.slots.lines[from..].iter().filter(move |slot| slot.name == name).map(|slot| self.header(slot))
    }

    /// The first header line of that name.
    pub fn first(&self, name: HeaderName) -> Option<Header<'b>> {
        self.slots.lines.get(usize::from(self.slots.first[name as usize])).map(|slot| self.header(slot))
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

    /// Does a comma list of tokens hold `token` (case-insensitive)? For Supported, Require, Allow …
    pub fn has_token(&self, name: HeaderName, token: &str) -> bool {
        self.elements(name).any(|(_, element)| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Call-ID, raw.
    pub fn call_id(&self) -> Option<&'b [u8]> {
        self.first(HeaderName::CallId).map(|header| header.value)
    }

    /// CSeq: number and method.
    pub fn cseq(&self) -> Result<CSeq<'b>, ValueError> {
        CSeq::parse(self.required(HeaderName::CSeq)?)
    }

    /// From: the name-addr or addr-spec with its parameters.
    pub fn from(&self) -> Result<NameAddr<'b>, ValueError> {
        NameAddr::parse(self.required(HeaderName::From)?)
    }

    /// To: the name-addr or addr-spec with its parameters.
    pub fn to(&self) -> Result<NameAddr<'b>, ValueError> {
        NameAddr::parse(self.required(HeaderName::To)?)
    }

    /// The From tag, if any.
    pub fn from_tag(&self) -> Option<&'b [u8]> {
        self.from().ok()?.param("tag")
    }

    /// The To tag, if any.
    pub fn to_tag(&self) -> Option<&'b [u8]> {
        self.to().ok()?.param("tag")
    }

    /// The topmost Via element.
    pub fn top_via(&self) -> Result<Via<'b>, ValueError> {
        let (offset, text) = self.elements(HeaderName::Via).next().ok_or(ValueError::Missing)?;
        Via::parse(text, offset)
    }

    /// Contact's first element; `None` without Contact or for `*`.
    pub fn contact(&self) -> Option<NameAddr<'b>> {
        let (_, element) = self.elements(HeaderName::Contact).next()?;
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
        let mut lines = self.all(name);
        let first = lines.next();
        if lines.next().is_some() { Err(ValueError::Repeated) } else { Ok(first) }
    }

    fn required(&self, name: HeaderName) -> Result<&'b [u8], ValueError> {
        self.first(name).map(|header| header.value).ok_or(ValueError::Missing)
    }

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
        Split::commas(self.value).map(move |(at, element)| (base + at, element))
    }
}

/// Fills `slots` with the header lines from `at` on and gives the offset of the empty line behind them.
fn index_headers(bytes: &[u8], mut at: usize, slots: &mut Slots) -> Result<usize, ParseError> {
    slots.lines.clear();
    slots.first = [NONE; HeaderName::COUNT];
    while lex::line_end_len(bytes, at) == 0 {
        let end = lex::folded_end(bytes, at).ok_or(ParseError::Unterminated)?;
        let line = lex::header_line(bytes, at, end).ok_or(ParseError::HeaderLine)?;
        if slots.lines.len() == MAX_HEADERS {
            return Err(ParseError::TooManyHeaders);
        }
        let name = HeaderName::from_bytes(&bytes[at..line.name_end]);
        let first = &mut slots.first[name as usize];
        if *first == NONE {
            *first = slots.lines.len() as u8;
        }
        slots.lines.push(Slot {
            name,
            line_start: at as u32,
            value_start: line.value_start as u32,
            value_end: line.value_end as u32,
            line_end: end as u32,
        });
        at = end;
    }
    Ok(at)
}

/// `line` without its line end.
fn start_line(line: &[u8]) -> Result<StartLine, ParseError> {
    if is_sip(line) { status_line(line) } else { request_line(line) }.ok_or(ParseError::StartLine)
}

fn status_line(line: &[u8]) -> Option<StartLine> {
    let space = memchr::memchr(b' ', line)?;
    let code = line.get(space + 1..space + 4)?;
    if !matches!(line.get(space + 4), None | Some(b' ')) {
        return None;
    }
    let status = u16::try_from(lex::number(code)?).ok().filter(|status| (100..700).contains(status))?;
    let reason = (space + 5).min(line.len())..line.len();
    Some(StartLine::Response { status, reason, version_ok: is_version_2(&line[..space]) })
}

/// Only the frame is read here: whoever answers 400 to a faulty Request-URI needs the message indexed.
fn request_line(line: &[u8]) -> Option<StartLine> {
    let method_end = memchr::memchr(b' ', line)?;
    let written = lex::trim_end(line);
    let version_start = memchr::memrchr(b' ', written)? + 1;
    let method_text = &line[..method_end];
    if version_start <= method_end + 2 || !lex::is_token(method_text) || !is_sip(&written[version_start..]) {
        return None;
    }
    Some(StartLine::Request {
        method: Method::from_token(method_text),
        method_text: 0..method_end,
        uri: method_end + 1..version_start - 1,
        version_ok: is_version_2(&written[version_start..]),
    })
}

fn is_sip(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}

fn is_version_2(version: &[u8]) -> bool {
    version.eq_ignore_ascii_case(b"SIP/2.0")
}
