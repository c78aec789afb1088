//! Cuts a byte stream into messages by Content-Length (RFC 3261 §18.3), and answers keep-alives (RFC 5626 §3.5.1).

use crate::HeaderName;
use crate::lex::{self, Lines, NoLine};
use crate::message::MAX_MESSAGE_LEN;

/// Most bytes of start line and headers; also the limit of a whole message ([`MAX_MESSAGE_LEN`]).
pub const MAX_HEAD_LEN: usize = MAX_MESSAGE_LEN;

/// What stands at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message of `len` bytes, `skip` bytes of CRLF before it. Consume `skip + len`.
    Message {
        /// Bytes of line ends before the message.
        skip: usize,
        /// Bytes of the message, body included.
        len: usize,
    },
    /// A double-CRLF ping of `len` bytes: answer a single CRLF. Consume `len`.
    Ping {
        /// 4, or 2 when the first half was consumed as [`Frame::Blank`] because it came alone.
        len: usize,
    },
    /// A single-CRLF pong, or stray line ends. Consume `len`.
    Blank {
        /// Bytes to consume.
        len: usize,
    },
    /// More bytes are needed.
    Incomplete,
}

/// Why a stream cannot be framed any further: the connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// See [`MAX_HEAD_LEN`].
    #[error("the header section is larger than the limit")]
    HeadersTooLong,
    /// See [`MAX_MESSAGE_LEN`].
    #[error("the message is larger than the limit")]
    MessageTooLong,
    /// Missing, not a number, or two that differ (RFC 3261 §18.3, §20.14).
    #[error("no usable Content-Length on a stream")]
    ContentLength,
}

/// Remembers how far a buffer was searched, so that a slow sender costs linear time.
#[derive(Debug, Default)]
pub struct Framer {
    /// Up to here the buffer holds no end of headers.
    searched: usize,
    /// End of the message in the buffer, once its headers are whole.
    end: Option<usize>,
    /// A lone CRLF was consumed: another one makes it a ping.
    half_ping: bool,
}

impl Framer {
    /// Look at the unconsumed bytes of a connection. Call again after consuming or after more bytes came (bytes only
    /// appended in between).
    pub fn next(&mut self, buffer: &[u8]) -> Result<Frame, FrameError> {
        let skip = match buffer {
            [b'\r', b'\n', ..] if self.half_ping => return Ok(self.done(Frame::Ping { len: 2 })),
            [b'\r', b'\n', b'\r', b'\n', ..] => return Ok(self.done(Frame::Ping { len: 4 })),
            [b'\r', b'\n'] => {
                self.half_ping = true;
                return Ok(Frame::Blank { len: 2 });
            }
            [b'\r', b'\n', b'\n', ..] => return Ok(self.done(Frame::Blank { len: 3 })),
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => {
                let len = buffer.iter().take_while(|byte| **byte == b'\n').count();
                return Ok(self.done(Frame::Blank { len }));
            }
            _ => 0,
        };
        let end = match self.end {
            Some(end) => end,
            None => match self.find_end(buffer, skip)? {
                Some(end) => end,
                None => return Ok(Frame::Incomplete),
            },
        };
        if end - skip > MAX_MESSAGE_LEN {
            return Err(FrameError::MessageTooLong);
        }
        self.end = Some(end);
        if buffer.len() < end {
            return Ok(Frame::Incomplete);
        }
        Ok(self.done(Frame::Message { skip, len: end - skip }))
    }

    /// What is to be consumed ends what was known about the buffer.
    fn done(&mut self, frame: Frame) -> Frame {
        *self = Framer::default();
        frame
    }

    /// Where the message ends; `None` while its headers are not whole.
    fn find_end(&mut self, buffer: &[u8], skip: usize) -> Result<Option<usize>, FrameError> {
        let from = self.searched.max(skip);
        for line_end in memchr::memchr_iter(b'\n', &buffer[from..]).map(|at| from + at) {
            let blank = lex::line_end_len(buffer, line_end + 1);
            if blank > 0 && line_end + 1 - skip <= MAX_HEAD_LEN {
                let body_len = content_length(&buffer[skip..line_end + 1])?;
                return Ok(Some((line_end + 1 + blank).saturating_add(body_len)));
            }
            self.searched = line_end;
        }
        // A line end among the last two bytes may be the one before the empty line: it is looked at again.
        if buffer.len() - self.searched > 2 {
            self.searched = buffer.len();
        }
        if buffer.len() - skip > MAX_HEAD_LEN { Err(FrameError::HeadersTooLong) } else { Ok(None) }
    }
}

/// `head`: start line and header lines, without the empty line. Lines that are no header fields are left to the parser.
fn content_length(head: &[u8]) -> Result<usize, FrameError> {
    let (_, mut lines) = Lines::of(head).ok_or(FrameError::ContentLength)?;
    let mut seen = None;
    loop {
        match lines.next() {
            Ok(Some(line)) if line.name == HeaderName::ContentLength => {
                let len = lex::number(&head[line.value]).ok_or(FrameError::ContentLength)?;
                if seen.replace(len).is_some_and(|before| before != len) {
                    return Err(FrameError::ContentLength);
                }
            }
            Ok(Some(_)) | Err(NoLine::Malformed) => {}
            Ok(None) | Err(NoLine::Unterminated) => break,
        }
    }
    seen.map(|len| len as usize).ok_or(FrameError::ContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYE: &[u8] = b"BYE sip:a SIP/2.0\r\nl : 4\r\n\r\nbody";

    fn first(buffer: &[u8]) -> Result<Frame, FrameError> {
        Framer::default().next(buffer)
    }

    #[test]
    fn a_message_ends_with_its_body() {
        let whole = Frame::Message { skip: 0, len: BYE.len() };
        assert_eq!(first(BYE), Ok(whole));
        assert_eq!(first(&[BYE, b"INVITE"].concat()), Ok(whole));
        assert_eq!(first(&[b"\r\n", BYE].concat()), Ok(Frame::Message { skip: 2, len: BYE.len() }));
        assert_eq!(first(b"A b SIP/2.0\nContent-length:\n 1\nx\n\nb"), Ok(Frame::Message { skip: 0, len: 35 }));
    }

    #[test]
    fn a_message_that_comes_byte_by_byte_is_whole_only_at_its_end() {
        let mut framer = Framer::default();
        for len in 0..BYE.len() {
            assert_eq!(framer.next(&BYE[..len]), Ok(Frame::Incomplete), "{len}");
        }
        assert_eq!(framer.next(BYE), Ok(Frame::Message { skip: 0, len: BYE.len() }));
        assert_eq!(framer.next(BYE), Ok(Frame::Message { skip: 0, len: BYE.len() }), "the next message starts afresh");
    }

    #[test]
    fn keep_alives_are_told_apart() {
        assert_eq!(first(b"\r\n\r\n"), Ok(Frame::Ping { len: 4 }));
        assert_eq!(first(&[b"\r\n\r\n", BYE].concat()), Ok(Frame::Ping { len: 4 }));
        assert_eq!(first(b"\r\n"), Ok(Frame::Blank { len: 2 }));
        assert_eq!(first(b"\n\n\nA"), Ok(Frame::Blank { len: 3 }));
        assert_eq!(first(b"\r\n\nA"), Ok(Frame::Blank { len: 3 }));
        assert_eq!(first(b"\r"), Ok(Frame::Incomplete));
        assert_eq!(first(b""), Ok(Frame::Incomplete));
    }

    #[test]
    fn a_ping_cut_in_two_is_still_answered() {
        let mut framer = Framer::default();
        assert_eq!(framer.next(b"\r\n"), Ok(Frame::Blank { len: 2 }));
        assert_eq!(framer.next(b"\r\n"), Ok(Frame::Ping { len: 2 }));
        assert_eq!(framer.next(b"\r\n"), Ok(Frame::Blank { len: 2 }));
        assert_eq!(framer.next(BYE), Ok(Frame::Message { skip: 0, len: BYE.len() }));
        assert_eq!(framer.next(b"\r\n"), Ok(Frame::Blank { len: 2 }));
    }

    #[test]
    fn a_stream_without_a_usable_content_length_is_at_its_end() {
        for headers in ["", "l: x\r\n", "l:\r\n", "l: -1\r\n", "l: 4294967296\r\n", "l: 1\r\nContent-Length: 2\r\n"] {
            let message = format!("BYE sip:a SIP/2.0\r\n{headers}\r\n");
            assert_eq!(first(message.as_bytes()), Err(FrameError::ContentLength), "{headers}");
        }
        assert!(first(b"BYE sip:a SIP/2.0\r\nl: 0\r\nL: 0\r\n\r\n").is_ok());
    }

    #[test]
    fn limits_hold_at_their_edge() {
        let head = "BYE sip:a SIP/2.0\r\nContent-Length: 65490\r\n\r\n";
        let body_len = MAX_MESSAGE_LEN - head.len();
        let fits = head.replace("65490", &body_len.to_string());
        assert_eq!(first(fits.as_bytes()), Ok(Frame::Incomplete));
        let too_long = head.replace("65490", &(body_len + 1).to_string());
        assert_eq!(first(too_long.as_bytes()), Err(FrameError::MessageTooLong));
        assert_eq!(first(b"BYE sip:a SIP/2.0\r\nl: 4294967295\r\n\r\n"), Err(FrameError::MessageTooLong));
        assert_eq!(first(&vec![b'x'; MAX_HEAD_LEN]), Ok(Frame::Incomplete));
        assert_eq!(first(&vec![b'x'; MAX_HEAD_LEN + 1]), Err(FrameError::HeadersTooLong));
        let whole = format!("BYE sip:a SIP/2.0\r\nX: {}\r\nl: 0\r\n\r\n", "x".repeat(MAX_HEAD_LEN));
        assert_eq!(first(whole.as_bytes()), Err(FrameError::HeadersTooLong));
    }

    #[test]
    fn a_slow_sender_is_searched_in_linear_time() {
        let head = format!("BYE sip:a SIP/2.0\r\n{}l: 60000\r\n\r\n", "X: y\r\n".repeat(20));
        let mut framer = Framer::default();
        for len in 0..head.len() {
            assert_eq!(framer.next(&head.as_bytes()[..len]), Ok(Frame::Incomplete));
            assert!(framer.searched + 3 >= len, "searched {} of {len}", framer.searched);
        }
        assert_eq!(framer.next(head.as_bytes()), Ok(Frame::Incomplete));
        assert_eq!(framer.end, Some(head.len() + 60_000));
    }
}
