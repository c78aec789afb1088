//! Byte-range edits over one message. Text lives in one reused buffer, so a forwarded message costs no allocation.

use std::ops::Range;

use crate::{Header, HeaderName, Message, lex};

/// A list of edits against the bytes of one message. Edits may be added in any order; ranges must not overlap; several
/// inserts at one offset keep the order in which they were added. `Content-Length` is never touched: bodies are not
/// edited. Every edit looks at the original message, not at what earlier edits made of it.
#[derive(Default)]
pub struct Edits {
    /// What to replace in the message, and by which range of `text`; sorted by the first.
    ops: Vec<(Range<u32>, Range<u32>)>,
    text: Vec<u8>,
}

impl Edits {
    /// No edits.
    pub fn new() -> Edits {
        Edits::default()
    }

    /// Forget all edits, keep the room.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.text.clear();
    }

    /// Will the message leave as it came?
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Replace `range` of the message by the concatenation of `parts`.
    pub fn replace(&mut self, range: Range<usize>, parts: &[&[u8]]) {
        self.edit(range, |text| parts.iter().for_each(|part| text.extend_from_slice(part)));
    }

    /// Insert the concatenation of `parts` at offset `at` of the message.
    pub fn insert(&mut self, at: usize, parts: &[&[u8]]) {
        self.replace(at..at, parts);
    }

    /// Remove `range` of the message.
    pub fn remove(&mut self, range: Range<usize>) {
        self.replace(range, &[]);
    }

    /// Replace the value of the first header of `name`, or append the header when there is none.
    pub fn set_header(&mut self, message: &Message, name: HeaderName, value: &[&[u8]]) {
        let Some(header) = message.first(name) else { return self.append_header(message, name, value) };
        let range = header.value_start..header.value_start + header.value.len();
        self.edit(range, |text| {
            text.extend_from_slice(gap(message, &header));
            value.iter().for_each(|part| text.extend_from_slice(part));
        });
    }

    /// Append `Name: value` behind the last header.
    pub fn append_header(&mut self, message: &Message, name: HeaderName, value: &[&[u8]]) {
        self.insert_line(message.headers_end(), name, value);
    }

    /// Insert `Name: value` before the first header of that name, or before the first header of all.
    pub fn prepend_header(&mut self, message: &Message, name: HeaderName, value: &[&[u8]]) {
        self.insert_line(front(message, name), name, value);
    }

    /// As [`Self::prepend_header`], of lines that are whole already, each with its line end: their concatenation.
    pub fn prepend_lines(&mut self, message: &Message, name: HeaderName, lines: &[&[u8]]) {
        self.insert(front(message, name), lines);
    }

    /// Add `token` to a comma list unless it is there: at the end of the first header of `name`, or as a new header.
    pub fn add_token(&mut self, message: &Message, name: HeaderName, token: &str) {
        if message.has_token(name, token) {
            return;
        }
        let token = token.as_bytes();
        let Some(header) = message.first(name) else { return self.append_header(message, name, &[token]) };
        let at = header.value_start + header.value.len();
        let follows = !header.value.is_empty() || self.ops.iter().any(|(range, _)| *range == span(&(at..at)));
        self.insert(at, &[if follows { b", " } else { gap(message, &header) }, token]);
    }

    /// Remove every line of `name`.
    pub fn remove_header(&mut self, message: &Message, name: HeaderName) {
        message.all(name).for_each(|header| self.remove(header.line_start..header.line_end));
    }

    /// Remove `token` from a comma list, with the lines that have nothing else.
    pub fn remove_token(&mut self, message: &Message, name: HeaderName, token: &str) {
        let is_token = |element: &[u8]| lex::same(element, token.as_bytes());
        for header in message.all(name) {
            let mut last_kept = None;
            let mut first_dropped = None;
            for (at, element) in header.elements() {
                match (is_token(element), first_dropped) {
                    (true, None) => first_dropped = Some(at),
                    (true, Some(_)) => {}
                    (false, Some(dropped)) => {
                        self.remove(dropped..at);
                        (first_dropped, last_kept) = (None, Some(at + element.len()));
                    }
                    (false, None) => last_kept = Some(at + element.len()),
                }
            }
            match (first_dropped, last_kept) {
                (None, _) => {}
                (Some(_), None) => self.remove(header.line_start..header.line_end),
                // With the comma before it.
                (Some(_), Some(kept)) => self.remove(kept..header.value_start + header.value.len()),
            }
        }
    }

    /// Remove the first `count` elements of a comma list, dropping lines that become empty.
    pub fn remove_first_elements(&mut self, message: &Message, name: HeaderName, count: usize) {
        let mut left = count;
        for header in message.all(name) {
            if left == 0 {
                return;
            }
            let mut elements = header.elements();
            let gone = elements.by_ref().take(left).count();
            match elements.next() {
                Some((kept, _)) => return self.remove(header.value_start..kept),
                None => self.remove(header.line_start..header.line_end),
            }
            left -= gone;
        }
    }

    /// Append the edited message to `out`.
    pub fn render(&mut self, message: &Message, out: &mut Vec<u8>) {
        let bytes = message.bytes();
        out.reserve(bytes.len() + self.text.len());
        let mut copied = 0;
        for (range, text) in &self.ops {
            let start = (range.start as usize).clamp(copied, bytes.len());
            if start > copied {
                out.extend_from_slice(&bytes[copied..start]);
            }
            out.extend_from_slice(&self.text[text.start as usize..text.end as usize]);
            copied = (range.end as usize).clamp(start, bytes.len());
        }
        out.extend_from_slice(&bytes[copied..]);
    }

    /// Append what becomes of `range` of the message: what stands there, edited, and what is inserted there. An insert at
    /// its end belongs to what follows, unless the range is empty.
    pub fn render_range(&self, message: &Message, range: Range<usize>, out: &mut Vec<u8>) {
        let bytes = message.bytes();
        let mut copied = range.start;
        let first = self.ops.partition_point(|(at, _)| (at.start as usize) < range.start);
        for (at, text) in &self.ops[first..] {
            let start = at.start as usize;
            if start >= range.end && start > range.start {
                break;
            }
            out.extend_from_slice(&bytes[copied.min(start)..start]);
            out.extend_from_slice(&self.text[text.start as usize..text.end as usize]);
            copied = at.end as usize;
        }
        out.extend_from_slice(bytes.get(copied..range.end).unwrap_or_default());
    }

    fn insert_line(&mut self, at: usize, name: HeaderName, value: &[&[u8]]) {
        self.edit(at..at, |text| {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            value.iter().for_each(|part| text.extend_from_slice(part));
            text.extend_from_slice(b"\r\n");
        });
    }

    /// Files one edit at its place. At one offset inserts stand before a replacement, and in the order of arrival.
    fn edit(&mut self, range: Range<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        write(&mut self.text);
        let text = span(&(start..self.text.len()));
        let range = span(&range);
        if let Some((last, written)) = self.ops.last_mut()
            && *last == range
            && range.is_empty()
            && written.end == text.start
        {
            // One insert more where the last one is.
            written.end = text.end;
            return;
        }
        let is_before = |(other, _): &(Range<u32>, Range<u32>)| (other.start, other.end) <= (range.start, range.end);
        // Most come in the order of their places.
        let last = self.ops.last().is_none_or(is_before);
        let at = if last { self.ops.len() } else { self.ops.partition_point(is_before) };
        debug_assert!(range.start <= range.end, "an edit ends before it starts");
        debug_assert!(self.ops[..at].last().is_none_or(|(before, _)| before.end <= range.start), "edits overlap");
        debug_assert!(self.ops.get(at).is_none_or(|(after, _)| range.end <= after.start), "edits overlap");
        if last { self.ops.push((range, text)) } else { self.ops.insert(at, (range, text)) }
    }
}

/// Where a header of that name is put to be its first.
fn front(message: &Message, name: HeaderName) -> usize {
    let before = message.first(name).or_else(|| message.headers().next());
    before.map_or(message.headers_end(), |header| header.line_start)
}

/// The space an empty value needs when it stands right behind its colon.
fn gap(message: &Message, header: &Header) -> &'static [u8] {
    let behind_colon = message.bytes()[..header.value_start].ends_with(b":");
    if header.value.is_empty() && behind_colon { b" " } else { b"" }
}

/// Offsets fit: a message has at most [`crate::message::MAX_MESSAGE_LEN`] bytes, and so has what is put into it.
fn span(range: &Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slots;

    fn edited(headers: &str, edit: impl FnOnce(&Message, &mut Edits)) -> String {
        let text = format!("BYE sip:a SIP/2.0\r\n{headers}\r\nbody");
        let mut slots = Slots::new();
        let message = Message::parse(text.as_bytes(), &mut slots).unwrap();
        let (mut edits, mut out) = (Edits::new(), Vec::new());
        edit(&message, &mut edits);
        edits.render(&message, &mut out);
        let out = String::from_utf8(out).unwrap();
        let head = out.strip_prefix("BYE sip:a SIP/2.0\r\n").unwrap();
        head.strip_suffix("\r\nbody").unwrap().to_owned()
    }

    fn with_token(headers: &str, token: &str) -> String {
        edited(headers, |message, edits| edits.add_token(message, HeaderName::Require, token))
    }

    #[test]
    fn no_edits_leave_every_byte() {
        let headers = "To : x\r\n\t;tag=1\nk:\r\nX: \x7f\u{e9}\r\n";
        assert_eq!(edited(headers, |_, edits| assert!(edits.is_empty())), headers);
    }

    #[test]
    fn edits_apply_by_position_whatever_their_order() {
        let out = edited("A: 1\r\nB: 2\r\n", |message, edits| {
            let lines: Vec<_> = message.headers().collect();
            edits.replace(lines[1].value_start..lines[1].value_start + 1, &[b"tw", b"o"]);
            edits.insert(lines[1].line_start, &[b"N: 1\r\n"]);
            edits.remove(lines[0].line_start..lines[0].line_end);
            edits.insert(lines[1].line_start, &[b"N: 2\r\n"]);
            edits.insert(lines[0].line_start, &[b"M: 0\r\n"]);
        });
        assert_eq!(out, "M: 0\r\nN: 1\r\nN: 2\r\nB: two\r\n");
    }

    #[test]
    fn a_token_is_removed_wherever_it_stands_and_nothing_else() {
        let without =
            |headers: &str| edited(headers, |message, edits| edits.remove_token(message, HeaderName::Require, "timer"));
        for (headers, expected) in [
            ("Require: timer\r\n", ""),
            ("Require: TIMER, timer\r\nA: 1\r\n", "A: 1\r\n"),
            ("Require: timer , 100rel\r\n", "Require: 100rel\r\n"),
            ("Require: 100rel,\r\n timer\r\n", "Require: 100rel\r\n"),
            ("Require: 100rel, timer, timer,precondition\r\n", "Require: 100rel, precondition\r\n"),
            ("Require: timer, a, timer, b, timer\r\n", "Require: a, b\r\n"),
            ("Require: timers, x-timer\r\n", "Require: timers, x-timer\r\n"),
            ("Require: timer\r\nRequire: path\r\n", "Require: path\r\n"),
            ("Supported: timer\r\n", "Supported: timer\r\n"),
            ("Require:\r\n", "Require:\r\n"),
        ] {
            assert_eq!(without(headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn all_lines_of_a_header_are_removed() {
        let out = edited("Min-SE: 90\r\nA: 1\r\nmin-se:\r\n 120\r\n", |message, edits| {
            edits.remove_header(message, HeaderName::MinSe);
        });
        assert_eq!(out, "A: 1\r\n");
    }

    #[test]
    fn clear_forgets_the_edits() {
        let out = edited("A: 1\r\n", |message, edits| {
            edits.append_header(message, HeaderName::Require, &[b"x"]);
            edits.clear();
        });
        assert_eq!(out, "A: 1\r\n");
    }

    #[test]
    fn set_header_replaces_the_value_only_or_appends() {
        let set = |headers: &str| {
            edited(headers, |message, edits| {
                edits.set_header(message, HeaderName::SessionExpires, &[b"90", b";refresher=uac"])
            })
        };
        assert_eq!(set("A: 1\r\n"), "A: 1\r\nSession-Expires: 90;refresher=uac\r\n");
        assert_eq!(
            set("X : 1800\r\n ;refresher=uas \r\nB: 2\r\nx: 3\r\n"),
            "X : 90;refresher=uac \r\nB: 2\r\nx: 3\r\n"
        );
        assert_eq!(set("x:\r\nB: 2\r\n"), "x: 90;refresher=uac\r\nB: 2\r\n");
        assert_eq!(set("x: \r\n"), "x: 90;refresher=uac\r\n");
    }

    #[test]
    fn append_and_prepend_stand_where_they_say() {
        let out = edited("A: 1\r\nVia: x\r\nv: y\r\n", |message, edits| {
            edits.prepend_header(message, HeaderName::Via, &[b"z"]);
            edits.prepend_lines(message, HeaderName::RecordRoute, &[b"Record-Route: ", b"<sip:r>\r\n"]);
            edits.append_header(message, HeaderName::Require, &[b"timer"]);
            edits.append_header(message, HeaderName::Supported, &[]);
        });
        assert_eq!(
            out,
            "Record-Route: <sip:r>\r\nA: 1\r\nVia: z\r\nVia: x\r\nv: y\r\nRequire: timer\r\nSupported: \r\n"
        );
        let none = edited("", |message, edits| edits.prepend_header(message, HeaderName::Via, &[b"z"]));
        assert_eq!(none, "Via: z\r\n");
    }

    #[test]
    fn a_token_joins_the_first_list_and_is_never_doubled() {
        assert_eq!(with_token("Require: 100rel\r\n", "timer"), "Require: 100rel, timer\r\n");
        assert_eq!(with_token("A: 1\r\n", "timer"), "A: 1\r\nRequire: timer\r\n");
        assert_eq!(with_token("Require:\r\n", "timer"), "Require: timer\r\n");
        assert_eq!(with_token("Require: \r\n", "timer"), "Require: timer\r\n");
        assert_eq!(
            with_token("Require: a,\r\n  b \r\nRequire: c\r\n", "timer"),
            "Require: a,\r\n  b, timer \r\nRequire: c\r\n"
        );
        let there = "Require: a\r\nrequire: x ,\r\n TIMER\r\n";
        assert_eq!(with_token(there, "timer"), there);
    }

    #[test]
    fn two_tokens_for_an_empty_list_are_separated() {
        let out = edited("Require:\r\n", |message, edits| {
            edits.add_token(message, HeaderName::Require, "a");
            edits.add_token(message, HeaderName::Require, "b");
        });
        assert_eq!(out, "Require: a, b\r\n");
    }

    #[test]
    fn first_elements_go_over_lines_and_commas() {
        let headers =
            "Route: <sip:1,1>, <sip:2>\r\nA: 1\r\nRoute: <sip:3>,\r\n <sip:4> , <sip:5>\r\nRoute: <sip:6>\r\n";
        for (count, expected) in [
            (0, headers),
            (1, "Route: <sip:2>\r\nA: 1\r\nRoute: <sip:3>,\r\n <sip:4> , <sip:5>\r\nRoute: <sip:6>\r\n"),
            (2, "A: 1\r\nRoute: <sip:3>,\r\n <sip:4> , <sip:5>\r\nRoute: <sip:6>\r\n"),
            (3, "A: 1\r\nRoute: <sip:4> , <sip:5>\r\nRoute: <sip:6>\r\n"),
            (5, "A: 1\r\nRoute: <sip:6>\r\n"),
            (6, "A: 1\r\n"),
            (9, "A: 1\r\n"),
        ] {
            let out = edited(headers, |message, edits| edits.remove_first_elements(message, HeaderName::Route, count));
            assert_eq!(out, expected, "{count}");
        }
    }

    #[test]
    fn a_range_is_rendered_with_what_was_done_to_it_alone() {
        let text = b"BYE sip:a SIP/2.0\r\nA: 1\r\nMin-SE: 90\r\nB: 2\r\n\r\nbody";
        let mut slots = Slots::new();
        let message = Message::parse(text, &mut slots).unwrap();
        let mut edits = Edits::new();
        edits.prepend_header(&message, HeaderName::Via, &[b"z"]);
        edits.set_header(&message, HeaderName::MinSe, &[b"120"]);
        edits.append_header(&message, HeaderName::SessionExpires, &[b"1800"]);
        let lines: Vec<_> = message.headers().map(|header| header.line_start..header.line_end).collect();
        edits.remove(lines[2].clone());
        let rendered = |range| {
            let mut out = Vec::new();
            edits.render_range(&message, range, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(rendered(lines[0].clone()), "Via: z\r\nA: 1\r\n");
        assert_eq!(rendered(lines[1].clone()), "Min-SE: 120\r\n");
        assert_eq!(rendered(lines[2].clone()), "");
        assert_eq!(rendered(message.headers_end()..message.headers_end()), "Session-Expires: 1800\r\n");
        assert_eq!(rendered(lines[1].start..lines[1].start), "", "an insert nobody made");
        edits.clear();
        let mut whole = Vec::new();
        edits.render_range(&message, 0..text.len(), &mut whole);
        assert_eq!(whole, text);
    }

    #[test]
    #[should_panic(expected = "edits overlap")]
    fn overlapping_edits_are_a_mistake_of_the_caller() {
        let mut edits = Edits::new();
        edits.remove(4..8);
        edits.remove(6..9);
    }
}
