//! Label values and how enums index them.

use sipwarden_otlp::Fate;
use sipwarden_session_timer::LimitKind;
use sipwarden_sip::ParseError;

use super::Limit;

pub(super) const KINDS: &[&str] = &["request", "response", "unreadable"];
pub(super) const VERDICTS: &[&str] = &["Forwarded", "Edited", "Answered", "Absorbed", "Parked", "Dropped"];
pub(super) const DROPS: &[&str] =
    &["BadRequest", "UnsupportedScheme", "Version", "NotOurVia", "NoRoute", "Unanswerable", "LookupsFull"];
pub(super) const LIMITS: &[&str] = &[
    "Calls",
    "Forks",
    "IdentitySize",
    "Connections",
    "WriteQueue",
    "DatagramQueue",
    "Lookups",
    "HttpConnections",
    "Traces",
    "DecisionReaders",
];
pub(super) const FATES: &[&str] = &[Fate::ALL[0].as_str(), Fate::ALL[1].as_str(), Fate::ALL[2].as_str()];
pub(super) const RECORDS: &[&str] = &["decision", "message", "request"];
pub(super) const TRANSPORT_ERRORS: &[&str] =
    &["Receive", "Send", "TooLarge", "Refused", "ConnectTimeout", "Accept", "Framing", "Idle"];
pub(super) const PARSE_FAILURES: &[&str] =
    &["StartLine", "HeaderLine", "Unterminated", "TooManyHeaders", "TooLong", "Truncated", "ContentLength"];
pub(super) const STATUSES: &[&str] =
    &["200", "400", "416", "420", "422", "481", "482", "483", "491", "500", "503", "505", "other"];

pub(super) fn status_label(status: u16) -> usize {
    match status {
        200 => 0,
        400 => 1,
        416 => 2,
        420 => 3,
        422 => 4,
        481 => 5,
        482 => 6,
        483 => 7,
        491 => 8,
        500 => 9,
        503 => 10,
        505 => 11,
        _ => 12,
    }
}

pub(super) fn parse_label(error: ParseError) -> usize {
    match error {
        ParseError::StartLine => 0,
        ParseError::HeaderLine => 1,
        ParseError::Unterminated => 2,
        ParseError::TooManyHeaders => 3,
        ParseError::TooLong => 4,
        ParseError::Truncated => 5,
        ParseError::ContentLength => 6,
    }
}

pub(super) fn limit_label(limit: Limit) -> usize {
    match limit {
        Limit::Core(LimitKind::Calls) => 0,
        Limit::Core(LimitKind::Forks) => 1,
        Limit::Core(LimitKind::IdentitySize) => 2,
        Limit::Connections => 3,
        Limit::WriteQueue => 4,
        Limit::DatagramQueue => 5,
        Limit::Lookups => 6,
        Limit::HttpConnections => 7,
        Limit::Traces => 8,
        Limit::DecisionReaders => 9,
    }
}
