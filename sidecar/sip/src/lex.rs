//! The lexical layer (RFC 3261 §25.1): white space with folding, tokens, quoted strings, lists, header lines.

use memchr::memchr;

/// LWS: space, tab, and the line ends that folding leaves inside a raw value.
pub(crate) fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// `text` without LWS at both ends.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    let skip = text.iter().take_while(|byte| is_lws(**byte)).count();
    &text[skip..]
}

pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    let skip = text.iter().rev().take_while(|byte| is_lws(**byte)).count();
    &text[..text.len() - skip]
}

/// A byte of `token`.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
}

/// A whole, non-empty `token`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// `gen-value`: a token, a host (brackets and colons of an IPv6 reference included) or a quoted string.
pub(crate) fn is_gen_value(text: &[u8]) -> bool {
    if text.first() == Some(&b'"') {
        return quoted_len(text) == Some(text.len());
    }
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte) || matches!(byte, b'[' | b']' | b':'))
}

/// Length of the quoted string at the front of `text` (which starts with a quote), both quotes included; `None`
/// when it is not closed.
pub(crate) fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
    None
}

/// `1*DIGIT` that fits u32; leading zeros are legal.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { sum.checked_mul(10)?.checked_add(u32::from(digit)) }
    })
}

/// Cuts `text` at `separator`, but not inside quoted strings and, with `angles`, not inside angle brackets. Yields
/// `(offset in text, piece)`, trimmed, empty pieces skipped.
pub(crate) struct Split<'b> {
    text: &'b [u8],
    at: usize,
    separator: u8,
    angles: bool,
}

impl<'b> Split<'b> {
    /// The elements of a comma list.
    pub(crate) fn commas(text: &'b [u8]) -> Split<'b> {
        Split { text, at: 0, separator: b',', angles: true }
    }

    /// The segments of `;a=b;c`.
    pub(crate) fn semicolons(text: &'b [u8]) -> Split<'b> {
        Split { text, at: 0, separator: b';', angles: false }
    }

    /// Where the piece that starts at `self.at` ends.
    fn piece_end(&self) -> usize {
        let mut at = self.at;
        while let Some(&byte) = self.text.get(at) {
            let rest = &self.text[at..];
            at += match byte {
                _ if byte == self.separator => return at,
                b'"' => quoted_len(rest).unwrap_or(rest.len()),
                b'<' if self.angles => memchr(b'>', rest).map_or(rest.len(), |end| end + 1),
                _ => 1,
            };
        }
        self.text.len()
    }
}

impl<'b> Iterator for Split<'b> {
    type Item = (usize, &'b [u8]);

    fn next(&mut self) -> Option<(usize, &'b [u8])> {
        while self.at < self.text.len() {
            let (start, end) = (self.at, self.piece_end());
            self.at = end + 1;
            let piece = trim_start(&self.text[start..end]);
            if !piece.is_empty() {
                return Some((end - piece.len(), trim_end(piece)));
            }
        }
        None
    }
}

/// Where a header line, folded or not, lies in its message. All are byte offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name_end: usize,
    pub(crate) value_start: usize,
    pub(crate) value_end: usize,
    pub(crate) end: usize,
}

/// Length of the line end at `at`: 2 for CRLF, 1 for a bare LF, 0 for neither.
pub(crate) fn line_end_len(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..) {
        Some([b'\n', ..]) => 1,
        Some([b'\r', b'\n', ..]) => 2,
        _ => 0,
    }
}

/// End of the header line that starts at `start`, over all its folds, last line end included. `None` when no line
/// end is there.
pub(crate) fn folded_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut end = start;
    loop {
        end += memchr(b'\n', &bytes[end..])? + 1;
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            return Some(end);
        }
    }
}

/// Takes the header line `start..end` apart. `None` without a colon or without a name.
pub(crate) fn header_line(bytes: &[u8], start: usize, end: usize) -> Option<Line> {
    let colon = start + memchr(b':', &bytes[start..end])?;
    let name_end = start + trim_end(&bytes[start..colon]).len();
    if name_end == start || is_lws(bytes[start]) {
        return None;
    }
    let value_end = colon + 1 + trim_end(&bytes[colon + 1..end]).len();
    if value_end == colon + 1 {
        // An empty value stands behind the blanks of its own line, so that text put there reads `Name: text`.
        let blanks = bytes[value_end..end].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        return Some(Line { name_end, value_start: value_end + blanks, value_end: value_end + blanks, end });
    }
    let value_start = value_end - trim_start(&bytes[colon + 1..value_end]).len();
    Some(Line { name_end, value_start, value_end, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commas(text: &str) -> Vec<(usize, &str)> {
        Split::commas(text.as_bytes()).map(|(at, piece)| (at, std::str::from_utf8(piece).unwrap())).collect()
    }

    #[test]
    fn commas_in_quotes_and_angles_do_not_separate() {
        assert_eq!(commas(r#""a, \" b" <sip:x,y@z> , *"#), [(0, r#""a, \" b" <sip:x,y@z>"#), (24, "*")]);
    }

    #[test]
    fn empty_elements_are_skipped_and_folds_are_white_space() {
        assert_eq!(commas(" ,a\r\n ,, b,"), [(2, "a"), (9, "b")]);
        assert_eq!(commas(""), []);
    }

    #[test]
    fn an_open_quote_or_bracket_swallows_the_rest() {
        assert_eq!(commas("\"a,b"), [(0, "\"a,b")]);
        assert_eq!(commas("<a,b"), [(0, "<a,b")]);
        assert_eq!(commas("\"a\\"), [(0, "\"a\\")]);
    }

    #[test]
    fn numbers_do_not_wrap() {
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        assert_eq!(number(b"000000000000001800"), Some(1800));
        for bad in ["4294967296", "-1", "+1", "", "abc", "1 ", "0x10"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn header_lines_are_taken_apart() {
        let line = |text: &str| {
            let line = header_line(text.as_bytes(), 0, text.len())?;
            Some((
                text[..line.name_end].to_owned(),
                line.value_start,
                text[line.value_start..line.value_end].to_owned(),
            ))
        };
        assert_eq!(line("To \t:\r\n a ;\r\n b \r\n"), Some(("To".into(), 8, "a ;\r\n b".into())));
        assert_eq!(line("x:\r\n"), Some(("x".into(), 2, String::new())));
        assert_eq!(line("x: \r\n \r\n"), Some(("x".into(), 3, String::new())));
        assert_eq!(line("no colon\r\n"), None);
        assert_eq!(line(": a\r\n"), None);
        assert_eq!(line(" To: a\r\n"), None);
    }
}
