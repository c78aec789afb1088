//! Cuts a byte stream into messages by Content-Length (RFC 3261 §18.3), and answers keep-alives (RFC 5626 §3.5.1).

use crate::message::MAX_MESSAGE_LEN;
use crate::{HeaderName, lex};

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
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => return Ok(self.done(Frame::Blank { len: 1 })),
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
    let mut at = memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1);
    let mut seen = None;
    while let Some(end) = lex::folded_end(head, at) {
        if let Some(line) = lex::header_line(head, at, end)
            && HeaderName::from_bytes(&head[at..line.name_end]) == HeaderName::ContentLength
        {
            let len = lex::number(&head[line.value_start..line.value_end]).ok_or(FrameError::ContentLength)?;
            if seen.replace(len).is_some_and(|before| before != len) {
                return Err(FrameError::ContentLength);
            }
        }
        at = end;
    }
    seen.map(|len| len as usize).ok_or(FrameError::ContentLength)
}
