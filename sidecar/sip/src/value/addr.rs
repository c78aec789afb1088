//! Addresses: From, To, Contact, Route, Record-Route.

use super::{Uri, ValueError, param};
use crate::{lex, scan};

/// A name-addr or addr-spec with header parameters (From, To, Contact, Route, Record-Route).
#[derive(Clone, Copy, Debug)]
pub struct NameAddr<'b> {
    /// Display name with its quotes, may be empty.
    pub display: &'b [u8],
    /// The URI without angle brackets.
    pub uri: &'b [u8],
    /// Parameters behind the URI, from the first `;`, may be empty.
    pub params: &'b [u8],
}

impl<'b> NameAddr<'b> {
    /// From one list element or a single value. Without angle brackets every `;` begins a header parameter, and the
    /// URI may hold no comma or question mark (RFC 3261 §20). Unquoted display names are taken as they are.
    pub fn parse(value: &'b [u8]) -> Result<NameAddr<'b>, ValueError> {
        let value = lex::trim(value);
        let quoted =
            if value.first() == Some(&b'"') { lex::quoted_len(value).ok_or(ValueError::Malformed)? } else { 0 };
        let special = scan::find_any(&value[quoted..], [b'<', b';']).map(|at| quoted + at);
        match special {
            Some(open) if value[open] == b'<' => Self::bracketed(value, open),
            _ if quoted > 0 => Err(ValueError::Malformed),
            _ => Self::bare(value, special.unwrap_or(value.len())),
        }
    }

    /// The value of a header parameter (`None`: absent; `Some(b"")`: present without value).
    pub fn param(&self, name: &str) -> Option<&'b [u8]> {
        param(self.params, name)
    }

    /// The URI taken apart.
    pub fn parse_uri(&self) -> Result<Uri<'b>, ValueError> {
        Uri::parse(self.uri)
    }

    fn bracketed(value: &'b [u8], open: usize) -> Result<NameAddr<'b>, ValueError> {
        let close = open + scan::find(&value[open..], b'>').ok_or(ValueError::Malformed)?;
        let params = lex::trim_start(&value[close + 1..]);
        if close == open + 1 || !matches!(params.first(), None | Some(b';')) {
            return Err(ValueError::Malformed);
        }
        Ok(NameAddr { display: lex::trim_end(&value[..open]), uri: &value[open + 1..close], params })
    }

    fn bare(value: &'b [u8], uri_end: usize) -> Result<NameAddr<'b>, ValueError> {
        let (uri, params) = value.split_at(uri_end);
        let uri = lex::trim_end(uri);
        if uri.is_empty() || uri.iter().any(|byte| lex::is(*byte, lex::LWS) || matches!(byte, b',' | b'?')) {
            return Err(ValueError::Malformed);
        }
        Ok(NameAddr { display: b"", uri, params })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (&str, &str, &str) {
        let addr = NameAddr::parse(text.as_bytes()).unwrap();
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        (text(addr.display), text(addr.uri), text(addr.params))
    }

    #[test]
    fn name_addr_and_addr_spec_are_told_apart() {
        assert_eq!(parse("<sip:a@b;lr>;tag=1"), ("", "sip:a@b;lr", ";tag=1"));
        assert_eq!(parse("sip:a@b;tag=1"), ("", "sip:a@b", ";tag=1"));
        assert_eq!(parse("sip:a@b ;\r\n tag = \"<\""), ("", "sip:a@b", ";\r\n tag = \"<\""));
        assert_eq!(parse("caller<sip:a@b?c=d>"), ("caller", "sip:a@b?c=d", ""));
        assert_eq!(parse(r#""J \"<\\" <sip:a@b> ; x"#), (r#""J \"<\\""#, "sip:a@b", "; x"));
        assert_eq!(parse("Bell, Alexander <sip:a@b>"), ("Bell, Alexander", "sip:a@b", ""));
        assert_eq!(parse("<sip:[::1]:5060>"), ("", "sip:[::1]:5060", ""));
    }

    #[test]
    fn faulty_addresses_are_malformed() {
        for bad in [
            "",
            " ",
            "\"open <sip:a@b>",
            "\"x\" sip:a@b",
            "<sip:a@b",
            "<>",
            "<sip:a@b> x",
            "sip:a@b?c=d",
            "a b",
            ";tag=1",
        ] {
            assert!(NameAddr::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_of_the_header_are_not_those_of_the_uri() {
        let addr = NameAddr::parse(b"<sip:a@b;user=phone>;Tag=x").unwrap();
        assert_eq!((addr.param("tag"), addr.param("user")), (Some(&b"x"[..]), None));
        assert_eq!(addr.parse_uri().unwrap().param("user"), Some(&b"phone"[..]));
    }
}
