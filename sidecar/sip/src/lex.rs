//! The lexical layer (RFC 3261 §25.1): white space with folding, tokens, quoted strings, lists, header lines.

use std::ops::Range;

use crate::HeaderName;
use crate::scan::{self, Positions};

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

/// The classes of each byte: one look-up tells what a chain of comparisons would. A constant, as the address of a static
/// would be looked up too.
const CLASSES: [u8; 256] = {
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
#[inline]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Are all bytes of `text` of that class, and is there one?
pub(crate) fn is_all(text: &[u8], class: u8) -> bool {
    !text.is_empty() && span(text, class) == text.len()
}

/// Is any byte of `text` of that class?
#[inline]
pub(crate) fn has(text: &[u8], class: u8) -> bool {
    text.iter().any(|byte| is(*byte, class))
}

/// The number at the front of `text`, `1*DIGIT` that fits u32, and what follows it.
#[inline]
pub(crate) fn leading_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let (mut number, mut len) = (0, 0);
    while let Some(digit @ b'0'..=b'9') = text.get(len) {
        number = number * 10 + u64::from(digit - b'0');
        if number > u64::from(u32::MAX) {
            return None;
        }
        len += 1;
    }
    (len > 0).then(|| (number as u32, &text[len..]))
}

/// How many bytes at the front of `text` are of that class.
#[inline]
pub(crate) fn span(text: &[u8], class: u8) -> usize {
    text.iter().position(|byte| !is(*byte, class)).unwrap_or(text.len())
}

/// `text` without LWS at both ends.
#[inline]
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

#[inline]
pub(crate) fn trim_start(text: &[u8]) -> &[u8] {
    match text {
        [first, rest @ ..] if is(*first, LWS) => &rest[span(rest, LWS)..],
        _ => text,
    }
}

#[inline]
pub(crate) fn trim_end(text: &[u8]) -> &[u8] {
    match text {
        [rest @ .., last] if is(*last, LWS) => {
            &rest[..rest.iter().rposition(|byte| !is(*byte, LWS)).map_or(0, |last| last + 1)]
        }
        _ => text,
    }
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
    while let Some(found) = text.get(at..).and_then(|rest| scan::find_any(rest, [b'"', b'\\'])) {
        at += found;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
    None
}

/// `1*DIGIT` that fits u32; leading zeros are legal.
#[inline]
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    leading_number(text).filter(|(_, rest)| rest.is_empty()).map(|(number, _)| number)
}

/// What separates the elements of a list, and what begins something in which it does not.
pub(crate) const ELEMENT_MARKS: [u8; 3] = [b',', b'"', b'<'];

/// The elements of a comma list: cut at commas, but not inside quoted strings and angle brackets. Yields
/// `(offset in text, element)`, trimmed, empty ones skipped.
pub(crate) struct Elements<'b> {
    text: &'b [u8],
    at: usize,
}

impl<'b> Elements<'b> {
    pub(crate) fn of(text: &'b [u8]) -> Elements<'b> {
        Elements { text, at: 0 }
    }

    /// Where the element that starts at `self.at` ends.
    fn element_end(&self) -> usize {
        let mut at = self.at;
        while let Some(found) = scan::find_any(&self.text[at..], ELEMENT_MARKS) {
            let rest = &self.text[at + found..];
            at += found
                + match rest[0] {
                    b'"' => quoted_len(rest).unwrap_or(rest.len()),
                    b'<' => scan::find(rest, b'>').map_or(rest.len(), |end| end + 1),
                    _ => return at + found,
                };
        }
        self.text.len()
    }
}

impl<'b> Iterator for Elements<'b> {
    type Item = (usize, &'b [u8]);

    fn next(&mut self) -> Option<(usize, &'b [u8])> {
        while self.at < self.text.len() {
            let (start, end) = (self.at, self.element_end());
            self.at = end + 1;
            let element = trim_start(&self.text[start..end]);
            if !element.is_empty() {
                return Some((end - element.len(), trim_end(element)));
            }
        }
        None
    }
}

/// A header line, folded or not, taken apart. All offsets are those of the text it was read from.
pub(crate) struct Line {
    pub(crate) name: HeaderName,
    pub(crate) start: usize,
    pub(crate) value: Range<usize>,
    /// Behind its last line end.
    pub(crate) end: usize,
}

/// Why there is no header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// Nothing ends it.
    Unterminated,
    /// No colon or no name.
    Malformed,
}

/// Length of the line end at `at`: 2 for CRLF, 1 for a bare LF, 0 for neither.
#[inline]
pub(crate) fn line_end_len(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..) {
        Some([b'\n', ..]) => 1,
        Some([b'\r', b'\n', ..]) => 2,
        _ => 0,
    }
}

/// The header lines of a message, one after the other.
pub(crate) struct Lines<'b> {
    /// From the next line on.
    rest: &'b [u8],
    /// Where that is in the text.
    at: usize,
    feeds: Positions<'b, 1>,
}

impl<'b> Lines<'b> {
    /// Those behind the start line of `text`, and where that ends, its line end included. `None`: nothing ends it.
    #[inline]
    pub(crate) fn of(text: &'b [u8]) -> Option<(usize, Lines<'b>)> {
        let mut feeds = Positions::of(text, [b'\n']);
        let at = feeds.next()? + 1;
        Some((at, Lines { rest: text.get(at..)?, at, feeds }))
    }

    /// Where the next line starts.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// Takes the next header line apart, over all its folds. `Ok(None)`: an empty line, at which this stays.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Line>, NoLine> {
        let (mut line, mut behind) = self.up_to_feed()?;
        if matches!(line, b"\n" | b"\r\n") {
            return Ok(None);
        }
        while let [b' ' | b'\t', ..] = behind {
            (line, behind) = self.up_to_feed()?;
        }
        let (start, written) = (self.at, self.rest.first_chunk().and_then(HeaderName::at_front));
        (self.at, self.rest) = (start + line.len(), behind);
        let (name, colon) = written.or_else(|| any_name(line)).ok_or(NoLine::Malformed)?;
        let value = value_range(line.get(colon + 1..).ok_or(NoLine::Malformed)?);
        let value_at = start + colon + 1;
        Ok(Some(Line { name, start, value: value_at + value.start..value_at + value.end, end: self.at }))
    }

    /// What is left, cut behind the next line feed.
    #[inline(always)]
    fn up_to_feed(&mut self) -> Result<(&'b [u8], &'b [u8]), NoLine> {
        let feed = self.feeds.next().ok_or(NoLine::Unterminated)?;
        self.rest.split_at_checked(feed + 1 - self.at).ok_or(NoLine::Unterminated)
    }
}

/// The name at the front of `line`, however it is written, and where its colon is.
#[inline(never)]
fn any_name(line: &[u8]) -> Option<(HeaderName, usize)> {
    let colon = scan::find(line, b':')?;
    let name = trim_end(&line[..colon]);
    let is_name = name.first().is_some_and(|first| !is(*first, LWS));
    is_name.then(|| (HeaderName::from_bytes(name), colon))
}

/// Where in `text`, which stands behind a colon, the value is.
#[inline]
fn value_range(text: &[u8]) -> Range<usize> {
    // As most write it: one space, the value, CRLF. No white space is above the space.
    if let [b' ', first, .., last, b'\r', b'\n'] = text
        && *first > b' '
        && *last > b' '
    {
        return 1..text.len() - 2;
    }
    let end = trim_end(text).len();
    let start = end - trim_start(&text[..end]).len();
    // An empty value stands behind the blanks of its own line, so that text put there reads `Name: text`.
    let blanks = if start == end { span_of_blanks(&text[end..]) } else { 0 };
    start + blanks..end + blanks
}

fn span_of_blanks(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commas(text: &str) -> Vec<(usize, &str)> {
        Elements::of(text.as_bytes()).map(|(at, piece)| (at, std::str::from_utf8(piece).unwrap())).collect()
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
            let text = format!("\n{text}");
            let (_, mut lines) = Lines::of(text.as_bytes())?;
            let line = lines.next().ok()??;
            Some((line.name, line.value.start - 1, text[line.value].to_owned()))
        };
        assert_eq!(line("To \t:\r\n a ;\r\n b \r\n"), Some((HeaderName::To, 8, "a ;\r\n b".into())));
        assert_eq!(line("x:\r\n"), Some((HeaderName::SessionExpires, 2, String::new())));
        assert_eq!(line("x: \r\n \r\n"), Some((HeaderName::SessionExpires, 3, String::new())));
        assert_eq!(line("A-name-of-more-than-a-chunk: v\r\n"), Some((HeaderName::Other, 29, "v".into())));
        assert_eq!(line("no colon\r\n"), None);
        assert_eq!(line("none\r\nTo: of this line\r\n"), None);
        assert_eq!(line(": a\r\n"), None);
        assert_eq!(line(" To: a\r\n"), None);
        assert_eq!(line("To: a"), None);
    }
}
