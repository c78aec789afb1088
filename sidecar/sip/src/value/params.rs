//! Parameters: `;name=value;flag`, of headers and of URIs.

use std::ops::Range;

use crate::lex::{self, Split};

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

/// The parameters of `;a=b;c` text, in order; quotes respected, empty ones skipped.
pub fn params(text: &[u8]) -> impl Iterator<Item = Param<'_>> {
    Split::semicolons(text).map(|(start, piece)| {
        let range = start..start + piece.len();
        match piece.iter().position(|byte| *byte == b'=') {
            Some(equal) => {
                let value = Some(lex::trim_start(&piece[equal + 1..]));
                Param { range, name: lex::trim_end(&piece[..equal]), value }
            }
            None => Param { range, name: piece, value: None },
        }
    })
}

/// Looks `name` (case-insensitive) up in `;a=b;c` text; quotes respected. `None`: absent; `Some(b"")`: without value.
pub fn param<'b>(text: &'b [u8], name: &str) -> Option<&'b [u8]> {
    params(text).find(|param| lex::same(param.name, name.as_bytes())).map(|param| param.value.unwrap_or_default())
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
