//! The little that the generator reads of a message: which call it belongs to, what it is, and the lines to copy.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Hexadecimal digits of a call's serial.
pub(crate) const SERIAL_LEN: usize = 16;

/// What a message is, as far as the simulated call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Invite,
    Ack,
    Bye,
    Update,
    Options,
    /// Response to an INVITE, with its status code.
    InviteResponse(u16),
    /// Response to a BYE, with its status code.
    ByeResponse(u16),
    Other,
}

static CALL_ID: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\r\nCall-ID: "));
static CSEQ: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\r\nCSeq: "));

/// The serial in the Call-ID; `None` for a message that is not of the generator's making.
pub(crate) fn serial(message: &[u8]) -> Option<u64> {
    let digits = message.get(CALL_ID.find(message)? + CALL_ID.needle().len()..)?.get(..SERIAL_LEN)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// What `message` is.
pub(crate) fn kind(message: &[u8]) -> Kind {
    match message {
        [b'I', b'N', b'V', ..] => Kind::Invite,
        [b'A', b'C', b'K', ..] => Kind::Ack,
        [b'B', b'Y', b'E', ..] => Kind::Bye,
        [b'U', b'P', b'D', ..] => Kind::Update,
        [b'O', b'P', b'T', ..] => Kind::Options,
        [b'S', b'I', b'P', b'/', ..] => response_kind(message).unwrap_or(Kind::Other),
        _ => Kind::Other,
    }
}

/// The number in the CSeq.
pub(crate) fn cseq(message: &[u8]) -> Option<u32> {
    let value = message.get(CSEQ.find(message)? + CSEQ.needle().len()..)?;
    std::str::from_utf8(&value[..memchr::memchr(b' ', value)?]).ok()?.parse().ok()
}

/// Appends what a response copies from its request: Via, Record-Route, From, Call-ID, CSeq and, last and without its
/// line end, To.
pub(crate) fn response_head(request: &[u8], out: &mut Vec<u8>) {
    let mut to: &[u8] = b"";
    for line in header_lines(request) {
        if named(line, b"To:") {
            to = line;
        } else if [&b"Via:"[..], b"Record-Route:", b"From:", b"Call-ID:", b"CSeq:"].iter().any(|name| named(line, name))
        {
            out.extend_from_slice(line);
        }
    }
    out.extend_from_slice(to.trim_ascii_end());
}

/// The Route lines of the caller's in-dialog requests: the Record-Route values of `response` in reverse (RFC 3261
/// §12.1.2), one per line.
pub(crate) fn route_lines(response: &[u8]) -> Vec<u8> {
    let mut values: Vec<&[u8]> = Vec::new();
    for line in header_lines(response).filter(|line| named(line, b"Record-Route:")) {
        values.extend(line["Record-Route:".len()..].split(|&byte| byte == b',').map(<[u8]>::trim_ascii));
    }
    let mut lines = Vec::with_capacity(128);
    for value in values.iter().rev() {
        lines.extend_from_slice(b"Route: ");
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

/// The To line with its line end; empty when there is none.
pub(crate) fn to_line(message: &[u8]) -> &[u8] {
    line(message, b"To:")
}

/// The Session-Expires line with its line end; empty when there is none.
pub(crate) fn session_expires_line(message: &[u8]) -> &[u8] {
    line(message, b"Session-Expires:")
}

fn line<'a>(message: &'a [u8], name: &[u8]) -> &'a [u8] {
    header_lines(message).find(|line| named(line, name)).unwrap_or_default()
}

fn response_kind(message: &[u8]) -> Option<Kind> {
    let status = std::str::from_utf8(message.get(8..11)?).ok()?.parse().ok()?;
    let cseq = message.get(CSEQ.find(message)? + CSEQ.needle().len()..)?;
    let method = cseq.get(memchr::memchr(b' ', cseq)? + 1..)?;
    match method {
        [b'I', ..] => Some(Kind::InviteResponse(status)),
        [b'B', ..] => Some(Kind::ByeResponse(status)),
        _ => None,
    }
}

/// The header lines, each with its line end; the start line is skipped, the empty line ends them.
fn header_lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    let lines = memchr::memchr_iter(b'\n', message).map(move |end| {
        let line = &message[start..=end];
        start = end + 1;
        line
    });
    lines.skip(1).take_while(|line| line.len() > 2)
}

fn named(line: &[u8], name: &[u8]) -> bool {
    line.len() > name.len() && line[0] | 32 == name[0] | 32 && line[..name.len()].eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_from_start_line_and_cseq() {
        assert_eq!(kind(b"BYE sip:a SIP/2.0\r\n\r\n"), Kind::Bye);
        assert_eq!(kind(b"SIP/2.0 422 Small\r\nCSeq: 1 INVITE\r\n\r\n"), Kind::InviteResponse(422));
        assert_eq!(kind(b"SIP/2.0 200 OK\r\nCSeq: 2 BYE\r\n\r\n"), Kind::ByeResponse(200));
        assert_eq!(kind(b"OPTIONS sip:a SIP/2.0\r\n\r\n"), Kind::Options);
        assert_eq!(kind(b"INFO sip:a SIP/2.0\r\n\r\n"), Kind::Other);
    }

    #[test]
    fn number_and_interval_of_a_refresh_are_found() {
        let update = b"UPDATE sip:a SIP/2.0\r\nCSeq: 12 UPDATE\r\nSession-Expires: 90;refresher=uac\r\n\r\n";
        assert_eq!(cseq(update), Some(12));
        assert_eq!(session_expires_line(update), b"Session-Expires: 90;refresher=uac\r\n");
    }

    #[test]
    fn a_response_head_ends_in_to_without_its_line_end() {
        let mut head = Vec::new();
        response_head(
            b"BYE sip:a SIP/2.0\r\nVia: 1\r\nTo: <sip:b>\r\nRoute: x\r\nvia: 2\r\n\r\nVia: body\r\n",
            &mut head,
        );
        assert_eq!(head, b"Via: 1\r\nvia: 2\r\nTo: <sip:b>");
    }

    #[test]
    fn the_serial_is_found_behind_any_headers() {
        assert_eq!(serial(b"BYE sip:a SIP/2.0\r\nVia: x\r\nCall-ID: 00000000000000ff@example.com\r\n\r\n"), Some(255));
        assert_eq!(serial(b"BYE sip:a SIP/2.0\r\nCall-ID: else\r\n\r\n"), None);
    }
}
