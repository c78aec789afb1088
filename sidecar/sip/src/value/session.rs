//! Session-Expires and Min-SE (RFC 4028 §4, §5).

use super::{Param, ValueError, params};
use crate::{lex, scan};

/// `refresher=uac|uas`, relative to the transaction that carries it (RFC 4028 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefresherParam {
    /// The sender of the request refreshes.
    Uac,
    /// The sender of the response refreshes.
    Uas,
}

impl RefresherParam {
    /// `uac` or `uas`.
    pub fn as_str(self) -> &'static str {
        match self {
            RefresherParam::Uac => "uac",
            RefresherParam::Uas => "uas",
        }
    }

    fn from_token(token: &[u8]) -> Option<RefresherParam> {
        [RefresherParam::Uac, RefresherParam::Uas].into_iter().find(|param| lex::same(token, param.as_str().as_bytes()))
    }
}

/// Session-Expires (RFC 4028 §4). `delta` in seconds; any value that fits u32, also below 90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The session interval in seconds.
    pub delta: u32,
    /// Who refreshes, when the header says.
    pub refresher: Option<RefresherParam>,
}

impl SessionExpires {
    /// White space around `;` and `=`, any case, unknown parameters are legal; a sign, letters, nothing, or more than
    /// 2^32-1 is not. A refresher other than uac/uas, or given twice, is malformed.
    pub fn parse(value: &[u8]) -> Result<SessionExpires, ValueError> {
        match lex::leading_number(value) {
            // As most write it.
            Some((delta, b"")) => return Ok(SessionExpires { delta, refresher: None }),
            Some((delta, b";refresher=uac")) => {
                return Ok(SessionExpires { delta, refresher: Some(RefresherParam::Uac) });
            }
            Some((delta, b";refresher=uas")) => {
                return Ok(SessionExpires { delta, refresher: Some(RefresherParam::Uas) });
            }
            _ => {}
        }
        let (delta, params) = delta_and_params(value)?;
        let mut refresher = None;
        for param in params {
            let param = param?;
            if lex::same(param.name, b"refresher") {
                let said = param.value.and_then(RefresherParam::from_token).ok_or(ValueError::Malformed)?;
                if refresher.replace(said).is_some() {
                    return Err(ValueError::Malformed);
                }
            }
        }
        Ok(SessionExpires { delta, refresher })
    }
}

/// `delta-seconds` with generic parameters, as in Min-SE (RFC 4028 §5). Seconds.
pub fn parse_delta(value: &[u8]) -> Result<u32, ValueError> {
    if let Some(delta) = lex::number(value) {
        return Ok(delta);
    }
    let (delta, mut params) = delta_and_params(value)?;
    params.try_for_each(|param| param.map(drop))?;
    Ok(delta)
}

/// The number and the parameters behind it, each held against `generic-param`.
fn delta_and_params(value: &[u8]) -> Result<(u32, impl Iterator<Item = Result<Param<'_>, ValueError>>), ValueError> {
    let digits_end = scan::find(value, b';').unwrap_or(value.len());
    let (delta, rest) = value.split_at(digits_end);
    let delta = lex::number(lex::trim(delta)).ok_or(ValueError::Malformed)?;
    let params = params(rest).map(|param| {
        let well_formed = lex::is_token(param.name) && param.value.is_none_or(lex::is_gen_value);
        if well_formed { Ok(param) } else { Err(ValueError::Malformed) }
    });
    Ok((delta, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(u32, Option<RefresherParam>), ValueError> {
        SessionExpires::parse(text.as_bytes()).map(|value| (value.delta, value.refresher))
    }

    #[test]
    fn legal_session_expires_are_read() {
        let uas = Some(RefresherParam::Uas);
        for (text, expected) in [
            ("1800", (1800, None)),
            (" 90\t", (90, None)),
            ("0", (0, None)),
            ("4294967295", (u32::MAX, None)),
            ("1800 ; refresher = uas", (1800, uas)),
            ("1800;REFRESHER=UAS", (1800, uas)),
            ("1800\r\n ;\r\n\trefresher\r\n = uas", (1800, uas)),
            ("1800;a;b=c;d=\"; refresher=uac\";e=[::1]:5;refresher=uas;f", (1800, uas)),
            ("1800;refresher=uac", (1800, Some(RefresherParam::Uac))),
            ("1800;", (1800, None)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn illegal_session_expires_are_malformed() {
        for text in [
            "",
            " ",
            "abc",
            "-1",
            "+1",
            "1.5",
            "4294967296",
            "99999999999999999999",
            "18 00",
            "1800 refresher=uas",
            "1800, 1800",
            "1800;a=1, 90",
            ";refresher=uas",
            "1800;refresher",
            "1800;refresher=",
            "1800;refresher=both",
            "1800;refresher=\"uas\"",
            "1800;refresher=uas;refresher=uas",
            "1800;refresher=uac;Refresher=uas",
            "1800;a=\"open",
            "1800;=b",
        ] {
            assert_eq!(parse(text), Err(ValueError::Malformed), "{text}");
        }
    }

    #[test]
    fn min_se_takes_generic_parameters_only() {
        assert_eq!(parse_delta(b"90"), Ok(90));
        assert_eq!(parse_delta(b"120 ; a = b;c"), Ok(120));
        for bad in ["", "x", "90 91", "90,91", "90;a=\"", "4294967296"] {
            assert_eq!(parse_delta(bad.as_bytes()), Err(ValueError::Malformed), "{bad}");
        }
    }
}
