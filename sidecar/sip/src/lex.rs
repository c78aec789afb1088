//! The lexical layer (RFC 3261 §25.1): white space with folding, tokens, quoted strings, lists, header lines.

use std::ops::Range;

use memchr::{memchr, memchr2, memchr3};

/// LWS: space, tab, and the line ends that folding leaves inside a raw value.
pub(crate) const LWS: u8 = 1 << 0;
pub(crate) const DIGIT: u8 = 1 << 1;
/// A byte of `token`.
pub(crate) const TOKEN: u8 = 1 << 2;
/// A byte of `gen-value` without quotes: of a token, or the brackets and colons of an IPv6 reference.
pub(crate) const GEN_VALUE: u8 = 1 << 3;
/// A byte of a host name. The underscore is no part of one, but names of machines in use have it.
pub(crate) const HOST_NAME: u8 = 1 << 4;
pub(crate) const IPV6: u8 = 1 << 5;
/// What no URI holds: LWS and angle brackets.
pub(crate) const NOT_URI: u8 = 1 << 6;

/// The classes of each byte: one look-up tells what a chain of comparisons would.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < classes.len() {
        let byte = at as u8;
        classes[at] = match byte {
            b'0'..=b'9' => DIGIT | TOKEN | GEN_VALUE | HOST_NAME | IPV6,
            b'a'..=b'f' | b'A'..=b'F' => TOKEN | GEN_VALUE | HOST_NAME | IPV6,
            b'g'..=b'z' | b'G'..=b'Z' => TOKEN | GEN_VALUE | HOST_NAME,
            b'.' => TOKEN | GEN_VALUE | HOST_NAME | IPV6,
            b'-' | b'_' => TOKEN | GEN_VALUE | HOST_NAME,
            b'!' | b'%' | b'*' | b'+' | b'`' | b'\'' | b'~' => TOKEN | GEN_VALUE,
            b':' => GEN_VALUE | IPV6,
            b'[' | b']' => GEN_VALUE,
            b' ' | b'\t' | b'\r' | b'\n' => LWS | NOT_URI,
            b'<' | b'>' => NOT_URI,
            _ => 0,
        };
        at += 1;
    }
    classes
};

/// Is `byte` of that class?
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Are all bytes of `text` of that class, and is there one?
pub(crate) fn is_all(text: &[u8], class: u8) -> bool {
    !text.is_empty() && span(text, class) == text.len()
}

/// Is any byte of `text` of that class?
pub(crate) fn has(text: &[u8], class: u8) -> bool {
    text.iter().any(|byte| is(*byte, class))
}

/// How many bytes at the front of `text` are of that class.
pub(crate) fn span(text: &[u8], class: u8) -> usize {
    text.iter().position(|byte| !is(*byte, class)).unwrap_or(text.len())
}

/// `text` without LWS at both ends.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

pub(crate) fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is(*first, LWS)
    {
        text = rest;
    }
    text
}

pub(crate) fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is(*last, LWS)
    {
        text = rest;
    }
    text
}

/// A whole, non-empty `token`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    is_all(text, TOKEN)
}

/// Are they equal, whatever the case? Most senders write as the RFCs do, and equal bytes are found faster.
#[inline]
pub(crate) fn same(text: &[u8], other: &[u8]) -> bool {
    text == other || text.eq_ignore_ascii_case(other)
}

/// `gen-value`: a token, a host (brackets and colons of an IPv6 reference included) or a quoted string.
pub(crate) fn is_gen_value(text: &[u8]) -> bool {
    if text.first() == Some(&b'"') { quoted_len(text) == Some(text.len()) } else { is_all(text, GEN_VALUE) }
}

/// Length of the quoted string at the front of `text` (which starts with a quote), both quotes included; `None`
/// when it is not closed.
pub(crate) fn quoted_len(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
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
        // The text begins with its first separator: no need to look for it.
        Split { text, at: usize::from(text.first() == Some(&b';')), separator: b';', angles: false }
    }

    /// Where the piece that starts at `self.at` ends.
    fn piece_end(&self) -> usize {
        let mut at = self.at;
        while let Some(found) = self.next_special(&self.text[at..]) {
            let rest = &self.text[at + found..];
            at += found
                + match rest[0] {
                    b'"' => quoted_len(rest).unwrap_or(rest.len()),
                    b'<' => memchr(b'>', rest).map_or(rest.len(), |end| end + 1),
                    _ => return at + found,
                };
        }
        self.text.len()
    }

    /// The separator, or what may hide one.
    fn next_special(&self, text: &[u8]) -> Option<usize> {
        if self.angles { memchr3(self.separator, b'"', b'<', text) } else { memchr2(self.separator, b'"', text) }
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

/// A header line, folded or not, taken apart. `value` holds byte offsets in the line.
pub(crate) struct Line<'b> {
    pub(crate) name: &'b [u8],
    pub(crate) value: Range<usize>,
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

/// Takes a header line, line end included, apart. `None` without a colon or without a name.
pub(crate) fn header_line(line: &[u8]) -> Option<Line<'_>> {
    // Names are short: a call of memchr would cost more than the loop.
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = trim_end(&line[..colon]);
    if name.is_empty() || is(line[0], LWS) {
        return None;
    }
    let value_end = trim_end(line).len();
    let value_len = trim_start(&line[colon + 1..value_end]).len();
    if value_len == 0 {
        // An empty value stands behind the blanks of its own line, so that text put there reads `Name: text`.
        let blanks = line[value_end..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        return Some(Line { name, value: value_end + blanks..value_end + blanks });
    }
    Some(Line { name, value: value_end - value_len..value_end })
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
            let line = header_line(text.as_bytes())?;
            Some((text[..line.name.len()].to_owned(), line.value.start, text[line.value].to_owned()))
        };
        assert_eq!(line("To \t:\r\n a ;\r\n b \r\n"), Some(("To".into(), 8, "a ;\r\n b".into())));
        assert_eq!(line("x:\r\n"), Some(("x".into(), 2, String::new())));
        assert_eq!(line("x: \r\n \r\n"), Some(("x".into(), 3, String::new())));
        assert_eq!(line("no colon\r\n"), None);
        assert_eq!(line(": a\r\n"), None);
        assert_eq!(line(" To: a\r\n"), None);
    }
}
