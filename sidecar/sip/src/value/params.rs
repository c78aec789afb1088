//! Parameters: `;name=value;flag`, of headers and of URIs.

use std::ops::Range;

use crate::lex;
use crate::scan::{self, Positions};

/// One parameter of a `;a=b;c` text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param<'b> {
    /// Byte range in the text given, without the semicolon and outer white space.
    pub range: Range<usize>,
    /// Name, white space trimmed.
    pub name: &'b [u8],
    /// Value, white space trimmed, quotes kept; `None` without `=`.
    pub value: Option<&'b [u8]>,
}

impl Param<'_> {
    /// Is that its name, in any case?
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        lex::same(self.name, name.as_bytes())
    }
}

/// The parameters of `;a=b;c` text, in order; quotes respected, empty ones skipped.
#[inline]
pub fn params(text: &[u8]) -> impl Iterator<Item = Param<'_>> {
    let mut separators = Positions::of(text, [b';', b'=', b'"']);
    // The text begins with its first separator: no empty parameter before it.
    let at = usize::from(text.first() == Some(&b';'));
    separators.skip_to(at);
    Params { text, at, separators }
}

struct Params<'b> {
    text: &'b [u8],
    /// Where the next one starts.
    at: usize,
    separators: Positions<'b, 3>,
}

impl Params<'_> {
    /// The next semicolon outside quotes, and the first equals sign before it.
    #[inline(always)]
    fn extent(&mut self) -> (usize, Option<usize>) {
        let mut equal = None;
        while let Some(at) = self.separators.next() {
            match self.text[at] {
                b';' => return (at, equal),
                b'=' => equal = equal.or(Some(at)),
                _ => {
                    let quoted = &self.text[at..];
                    let quoted = &quoted[..lex::quoted_len(quoted).unwrap_or(quoted.len())];
                    equal = equal.or_else(|| scan::find(quoted, b'=').map(|found| at + found));
                    self.separators.skip_to(at + quoted.len());
                }
            }
        }
        (self.text.len(), equal)
    }
}

impl<'b> Iterator for Params<'b> {
    type Item = Param<'b>;

    #[inline(always)]
    fn next(&mut self) -> Option<Param<'b>> {
        while self.at < self.text.len() {
            let (end, equal) = self.extent();
            let piece = lex::trim_start(&self.text[self.at..end]);
            self.at = end + 1;
            let start = end - piece.len();
            let piece = lex::trim_end(piece);
            if !piece.is_empty() {
                let range = start..start + piece.len();
                let Some(equal) = equal else { return Some(Param { range, name: piece, value: None }) };
                let value = lex::trim_start(&self.text[equal + 1..range.end]);
                return Some(Param { range, name: lex::trim_end(&self.text[start..equal]), value: Some(value) });
            }
        }
        None
    }
}

/// Looks `name` (case-insensitive) up in `;a=b;c` text; quotes respected. `None`: absent; `Some(b"")`: without value.
pub fn param<'b>(text: &'b [u8], name: &str) -> Option<&'b [u8]> {
    if text.is_empty() {
        return None;
    }
    // As most write a tag: there is no other parameter, and it needs no quotes.
    if let [b';', alone @ ..] = text
        && let Some([b'=', value @ ..]) = alone.strip_prefix(name.as_bytes())
        && lex::is_token(value)
    {
        return Some(value);
    }
    params(text).find(|param| param.is(name)).map(|param| param.value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_any_case_through_white_space_and_quotes() {
        let text = b" ; a = \"x;tag=no\\\";\" ;; LR ;\r\n TAG\t=\r\n y";
        assert_eq!(param(text, "tag"), Some(&b"y"[..]));
        assert_eq!(param(text, "lr"), Some(&b""[..]));
        assert_eq!(param(text, "A"), Some(&b"\"x;tag=no\\\";\""[..]));
        assert_eq!(param(text, "no"), None);
        assert_eq!(param(b"", "tag"), None);
    }

    #[test]
    fn ranges_point_at_the_parameter() {
        let text = b";a=b; rport ;c";
        let ranges: Vec<_> = params(text).map(|param| &text[param.range]).collect();
        assert_eq!(ranges, [&b"a=b"[..], b"rport", b"c"]);
    }
}
