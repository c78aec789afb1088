//! One pass over a message: the start line, and where each header line lies.

use std::ops::Range;

use crate::lex::{self, Lines, NoLine};
use crate::{HeaderName, Method, scan};

/// Most header fields (lines) a message may have; one more is `ParseError::TooManyHeaders`.
pub const MAX_HEADERS: usize = 192;
/// Most bytes of a message, the largest UDP payload.
pub const MAX_MESSAGE_LEN: usize = 65_535;

/// No line of that name, in the first-occurrence table.
const NONE: u8 = u8::MAX;
const _: () = assert!(MAX_HEADERS < NONE as usize && HeaderName::COUNT <= u32::BITS as usize);

/// Caller-owned room for the header index, reused from message to message.
pub struct Slots {
    lines: Box<[Slot; MAX_HEADERS]>,
    /// How many of these are the message's.
    count: usize,
    /// Index in `lines` of the first line of each name.
    first: [u8; HeaderName::COUNT],
    /// A bit for each name that has more than one line.
    repeated: u32,
}

#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) name: HeaderName,
    pub(crate) line_start: u32,
    pub(crate) value_start: u32,
    pub(crate) value_end: u32,
    pub(crate) line_end: u32,
}

impl Slots {
    /// Room for [`MAX_HEADERS`] header fields.
    pub fn new() -> Slots {
        let unused = Slot { name: HeaderName::Other, line_start: 0, value_start: 0, value_end: 0, line_end: 0 };
        let lines = Box::new([unused; MAX_HEADERS]);
        Slots { lines, count: 0, first: [NONE; HeaderName::COUNT], repeated: 0 }
    }

    /// Indexes the header lines and gives the offset of the empty line behind them.
    pub(crate) fn index(&mut self, mut lines: Lines) -> Result<usize, ParseError> {
        (self.count, self.repeated) = (0, 0);
        self.first = [NONE; HeaderName::COUNT];
        while let Some(line) = lines.next().map_err(|reason| match reason {
            NoLine::Unterminated => ParseError::Unterminated,
            NoLine::Malformed => ParseError::HeaderLine,
        })? {
            let slot = self.lines.get_mut(self.count).ok_or(ParseError::TooManyHeaders)?;
            *slot = Slot {
                name: line.name,
                line_start: line.start as u32,
                value_start: line.value.start as u32,
                value_end: line.value.end as u32,
                line_end: line.end as u32,
            };
            let first = &mut self.first[line.name as usize];
            if *first == NONE {
                *first = self.count as u8;
            } else {
                self.repeated |= 1 << line.name as u8;
            }
            self.count += 1;
        }
        Ok(lines.offset())
    }

    /// The header lines, in order.
    pub(crate) fn lines(&self) -> &[Slot] {
        &self.lines[..self.count]
    }

    /// The first line of that name.
    #[inline]
    pub(crate) fn first(&self, name: HeaderName) -> Option<&Slot> {
        self.lines.get(usize::from(self.first[name as usize]))
    }

    /// The lines among which all of that name are.
    #[inline]
    pub(crate) fn of(&self, name: HeaderName) -> &[Slot] {
        let lines = self.lines().get(usize::from(self.first[name as usize])..).unwrap_or_default();
        if self.is_repeated(name) { lines } else { &lines[..lines.len().min(1)] }
    }

    pub(crate) fn is_repeated(&self, name: HeaderName) -> bool {
        self.repeated & 1 << name as u8 != 0
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

impl StartLine {
    /// `line` without its line end.
    pub(crate) fn parse(line: &[u8]) -> Result<StartLine, ParseError> {
        if is_sip(line) { status_line(line) } else { request_line(line) }.ok_or(ParseError::StartLine)
    }
}

fn status_line(line: &[u8]) -> Option<StartLine> {
    let space = scan::find(line, b' ')?;
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
    let method_end = lex::span(line, lex::TOKEN);
    let written = lex::trim_end(line);
    let version_start = match written.strip_suffix(b" SIP/2.0") {
        Some(before) => before.len() + 1,
        None => written.iter().rposition(|byte| *byte == b' ')? + 1,
    };
    let (method_text, version) = (&line[..method_end], &written[version_start..]);
    let framed = method_end > 0 && line[method_end] == b' ' && version_start > method_end + 2;
    if !framed || !is_sip(version) {
        return None;
    }
    Some(StartLine::Request {
        method: Method::from_token(method_text),
        method_text: 0..method_end,
        uri: method_end + 1..version_start - 1,
        version_ok: is_version_2(version),
    })
}

fn is_sip(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|start| lex::same(start, b"SIP/"))
}

fn is_version_2(version: &[u8]) -> bool {
    lex::same(version, b"SIP/2.0")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    fn with<R>(bytes: &[u8], check: impl FnOnce(Result<Message<'_>, ParseError>) -> R) -> R {
        let mut slots = Slots::new();
        check(Message::parse(bytes, &mut slots))
    }

    #[test]
    fn a_response_is_indexed_with_and_without_a_reason() {
        for (line, reason) in [("SIP/2.0 180 Ring ing", "Ring ing"), ("SIP/2.0 180 ", ""), ("sip/2.0 180", "")] {
            with(format!("{line}\r\n\r\n").as_bytes(), |message| {
                let message = message.unwrap();
                assert_eq!((message.status(), message.method()), (Some(180), None));
                let StartLine::Response { reason: range, version_ok: true, .. } = message.start_line().clone() else {
                    panic!("{line}: {:?}", message.start_line());
                };
                assert_eq!(&message.bytes()[range], reason.as_bytes());
            });
        }
    }

    #[test]
    fn other_versions_and_methods_are_kept_for_the_caller_to_judge() {
        with(b"FOO sip:a SIP/7.0\r\n\r\n", |message| {
            let message = message.unwrap();
            let StartLine::Request { method: Method::Other, method_text, version_ok: false, .. } =
                message.start_line().clone()
            else {
                panic!("{:?}", message.start_line());
            };
            assert_eq!(&message.bytes()[method_text], b"FOO");
        });
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_with_the_reason() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", ParseError::StartLine),
            ("INVITE SIP/2.0\r\n\r\n", ParseError::StartLine),
            ("INVITE  SIP/2.0\r\n\r\n", ParseError::StartLine),
            ("IN(VITE sip:a SIP/2.0\r\n\r\n", ParseError::StartLine),
            ("SIP/2.0 4294967301 big\r\n\r\n", ParseError::StartLine),
            ("SIP/2.0 099 low\r\n\r\n", ParseError::StartLine),
            ("SIP/2.0 700 high\r\n\r\n", ParseError::StartLine),
            ("BYE sip:a SIP/2.0\r\n folded: x\r\n\r\n", ParseError::HeaderLine),
            ("BYE sip:a SIP/2.0\r\nno colon\r\n\r\n", ParseError::HeaderLine),
            ("BYE sip:a SIP/2.0\r\n: x\r\n\r\n", ParseError::HeaderLine),
            ("", ParseError::Unterminated),
            ("BYE sip:a SIP/2.0", ParseError::Unterminated),
            ("BYE sip:a SIP/2.0\r\n", ParseError::Unterminated),
            ("BYE sip:a SIP/2.0\r\nTo: x\r\n", ParseError::Unterminated),
            ("BYE sip:a SIP/2.0\r\nl: 2\r\n\r\nb", ParseError::Truncated),
            ("BYE sip:a SIP/2.0\r\nl: 4294967295\r\n\r\nb", ParseError::Truncated),
            ("BYE sip:a SIP/2.0\r\nl: -1\r\n\r\nb", ParseError::ContentLength),
            ("BYE sip:a SIP/2.0\r\nl:\r\n\r\nb", ParseError::ContentLength),
            ("BYE sip:a SIP/2.0\r\nl: 1\r\nContent-Length: 0\r\n\r\nb", ParseError::ContentLength),
        ] {
            assert_eq!(with(bytes.as_bytes(), |message| message.err()), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn limits_hold_at_their_edge() {
        let message = |headers: usize| format!("BYE sip:a SIP/2.0\r\n{}\r\n", "A: b\r\n".repeat(headers));
        with(message(MAX_HEADERS).as_bytes(), |message| assert_eq!(message.unwrap().headers().count(), MAX_HEADERS));
        let error = with(message(MAX_HEADERS + 1).as_bytes(), |message| message.err());
        assert_eq!(error, Some(ParseError::TooManyHeaders));

        let mut bytes = message(1).into_bytes();
        bytes.resize(MAX_MESSAGE_LEN, b'x');
        assert!(with(&bytes, |message| message.is_ok()));
        bytes.push(b'x');
        assert_eq!(with(&bytes, |message| message.err()), Some(ParseError::TooLong));
    }

    #[test]
    fn slots_forget_the_message_before() {
        let mut slots = Slots::new();
        assert!(Message::parse(b"BYE sip:a SIP/2.0\r\nVia: x\r\n\r\n", &mut slots).is_ok());
        let message = Message::parse(b"BYE sip:a SIP/2.0\r\n\r\n", &mut slots).unwrap();
        assert!(message.first(HeaderName::Via).is_none());
        assert_eq!(message.headers().count(), 0);
    }
}
