//! Byte-range edits over one message. Text lives in one reused buffer, so a forwarded message costs no allocation.

use std::ops::Range;

use crate::{Header, HeaderName, Message};

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
        self.edit(range, &[parts]);
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
        self.edit(range, &[&[gap(message, &header)], value]);
    }

    /// Append `Name: value` behind the last header.
    pub fn append_header(&mut self, message: &Message, name: HeaderName, value: &[&[u8]]) {
        self.insert_line(message.headers_end(), name, value);
    }

    /// Insert `Name: value` before the first header of that name, or before the first header of all.
    pub fn prepend_header(&mut self, message: &Message, name: HeaderName, value: &[&[u8]]) {
        let before = message.first(name).or_else(|| message.headers().next());
        self.insert_line(before.map_or(message.headers_end(), |header| header.line_start), name, value);
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

    /// Remove the first `count` elements of a comma list, dropping lines that become empty.
    pub fn remove_first_elements(&mut self, message: &Message, name: HeaderName, count: usize) {
        let mut left = count;
        for header in message.all(name) {
            if left == 0 {
                return;
            }
            match header.elements().nth(left) {
                Some((kept, _)) => return self.remove(header.value_start..kept),
                None => self.remove(header.line_start..header.line_end),
            }
            left -= header.elements().count();
        }
    }

    /// Append the edited message to `out`.
    pub fn render(&mut self, message: &Message, out: &mut Vec<u8>) {
        let bytes = message.bytes();
        out.reserve(bytes.len() + self.text.len());
        let mut copied = 0;
        for (range, text) in &self.ops {
            let start = (range.start as usize).clamp(copied, bytes.len());
            out.extend_from_slice(&bytes[copied..start]);
            out.extend_from_slice(&self.text[text.start as usize..text.end as usize]);
            copied = (range.end as usize).clamp(start, bytes.len());
        }
        out.extend_from_slice(&bytes[copied..]);
    }

    fn insert_line(&mut self, at: usize, name: HeaderName, value: &[&[u8]]) {
        self.edit(at..at, &[&[name.as_str().as_bytes(), b": "], value, &[b"\r\n"]]);
    }

    /// Files one edit at its place. At one offset inserts stand before a replacement, and in the order of arrival.
    fn edit(&mut self, range: Range<usize>, parts: &[&[&[u8]]]) {
        let start = self.text.len();
        for part in parts.iter().flat_map(|parts| parts.iter()) {
            self.text.extend_from_slice(part);
        }
        let text = span(&(start..self.text.len()));
        let range = span(&range);
        let at = self.ops.partition_point(|(other, _)| (other.start, other.end) <= (range.start, range.end));
        debug_assert!(range.start <= range.end, "an edit ends before it starts");
        debug_assert!(self.ops[..at].last().is_none_or(|(before, _)| before.end <= range.start), "edits overlap");
        debug_assert!(self.ops.get(at).is_none_or(|(after, _)| range.end <= after.start), "edits overlap");
        self.ops.insert(at, (range, text));
    }
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
