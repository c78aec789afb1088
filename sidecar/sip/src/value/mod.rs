//! Header values, parsed on demand from raw bytes. Folding counts as white space. Nothing allocates.

mod addr;
mod params;
mod session;
mod uri;
mod via;

pub use addr::NameAddr;
pub use params::{Param, param, params};
pub use session::{RefresherParam, SessionExpires, parse_delta};
pub use uri::{Scheme, Uri, parse_ip};
pub use via::{Transport, Via, ViaParam};

use crate::{Method, lex, scan};

/// A header value that is not what its grammar asks. Carries no input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ValueError {
    /// A header field that must be there is not.
    #[error("the header field is missing")]
    Missing,
    /// The value does not follow its grammar.
    #[error("the header field is malformed")]
    Malformed,
    /// A header field that may stand once stands twice.
    #[error("the header field may be present only once")]
    Repeated,
}

/// `CSeq: number method` (RFC 3261 §20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'b> {
    /// Sequence number, below 2^31 (RFC 3261 §8.1.1.5).
    pub number: u32,
    /// The method as far as we know it.
    pub method: Method,
    /// The method as written.
    pub method_text: &'b [u8],
}

impl<'b> CSeq<'b> {
    /// From a raw value such as `4711 INVITE`. Malformed: no number, one of 2^31 or more, no white space, no token.
    pub fn parse(value: &'b [u8]) -> Result<CSeq<'b>, ValueError> {
        let value = lex::trim(value);
        let (number, rest) = lex::leading_number(value).ok_or(ValueError::Malformed)?;
        let method_text = lex::trim_start(rest);
        let method = Method::from_token(method_text);
        if number >= 1 << 31
            || method_text.len() == rest.len()
            || method == Method::Other && !lex::is_token(method_text)
        {
            return Err(ValueError::Malformed);
        }
        Ok(CSeq { number, method, method_text })
    }
}

/// `RAck: response-number number method` (RFC 3262 §7.2): the reliable provisional a PRACK acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RAck<'b> {
    /// The RSeq acknowledged.
    pub response_number: u32,
    /// The CSeq of the request that the provisional answers.
    pub cseq: CSeq<'b>,
    /// Byte offset in the value of the CSeq's number.
    pub cseq_at: usize,
}

impl<'b> RAck<'b> {
    /// From a raw value such as `776656 1 INVITE`. Malformed: as [`CSeq::parse`], or no response number.
    pub fn parse(value: &'b [u8]) -> Result<RAck<'b>, ValueError> {
        let (response_number, rest) = lex::leading_number(value).ok_or(ValueError::Malformed)?;
        let cseq = lex::trim_start(rest);
        let cseq_at = value.len() - cseq.len();
        if cseq.len() == rest.len() {
            return Err(ValueError::Malformed);
        }
        Ok(RAck { response_number, cseq: CSeq::parse(cseq)?, cseq_at })
    }
}

/// `Event: refer;id=number` (RFC 3515 §2.4.6): the REFER that a subscription came of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReferId {
    /// The CSeq number of the REFER, as its sender and the other side know it.
    pub number: u32,
    /// Byte offset of that number in the value.
    pub number_at: usize,
}

impl ReferId {
    /// From a raw Event value. `None`: another package, whose ids are nobody's numbers, or no number (RFC 6665 §8.2.1).
    pub fn parse(value: &[u8]) -> Option<ReferId> {
        let (package, rest) = value.split_at(scan::find(value, b';')?);
        if lex::trim(package) != b"refer" {
            return None;
        }
        let id = params(rest).find(|param| param.is("id"))?;
        let text = id.value?;
        let number_at = package.len() + id.range.end - text.len();
        Some(ReferId { number: lex::number(text)?, number_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rack_reads_both_numbers_over_a_fold() {
        let value = b"776656\r\n 19 INVITE";
        let rack = RAck::parse(value).unwrap();
        assert_eq!((rack.response_number, rack.cseq.number, rack.cseq.method), (776_656, 19, Method::Invite));
        assert!(value[rack.cseq_at..].starts_with(b"19"));
        for bad in ["", "1", "1 2", "1 INVITE", "x 1 INVITE", "12INVITE"] {
            assert_eq!(RAck::parse(bad.as_bytes()), Err(ValueError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_refer_is_named_by_the_id_of_its_event() {
        for value in ["refer;id=93809824", "refer ; x=\"id=1\" ; ID = 93809824 ;y", "refer\r\n ;id=93809824"] {
            let id = ReferId::parse(value.as_bytes()).expect("a number");
            assert_eq!(id.number, 93_809_824);
            assert!(value[id.number_at..].starts_with("93809824"), "{value}");
        }
        for other in
            ["", "refer", "refer;", "refer;id", "refer;id=", "refer;id=a1", "refer;id=4294967296", "dialog;id=1"]
        {
            assert_eq!(ReferId::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn cseq_reads_number_and_method_over_a_fold() {
        let cseq = CSeq::parse(b"0009\r\n  INVITE").unwrap();
        assert_eq!((cseq.number, cseq.method, cseq.method_text), (9, Method::Invite, &b"INVITE"[..]));
        assert_eq!(CSeq::parse(b"2147483647 X-new").unwrap().method, Method::Other);
    }

    #[test]
    fn faulty_cseq_is_malformed() {
        for bad in ["", "1", "INVITE", "1INVITE", "2147483648 BYE", "-1 BYE", "1 BYE ACK", "1 B(YE", "1 "] {
            assert_eq!(CSeq::parse(bad.as_bytes()), Err(ValueError::Malformed), "{bad}");
        }
    }
}
