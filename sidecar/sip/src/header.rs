//! Header field names we look at, with their compact forms (RFC 3261 §7.3.3, RFC 4028 §4).

/// A header field name, case-insensitive on the wire. `Other` for what nothing here reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HeaderName {
    /// `Via`, compact `v`.
    Via,
    /// `From`, compact `f`.
    From,
    /// `To`, compact `t`.
    To,
    /// `Call-ID`, compact `i`.
    CallId,
    /// `CSeq`.
    CSeq,
    /// `Max-Forwards`.
    MaxForwards,
    /// `Route`.
    Route,
    /// `Record-Route`.
    RecordRoute,
    /// `Contact`, compact `m`.
    Contact,
    /// `Content-Length`, compact `l`.
    ContentLength,
    /// `Content-Type`, compact `c`.
    ContentType,
    /// `Session-Expires`, compact `x` (RFC 4028).
    SessionExpires,
    /// `Min-SE` (RFC 4028).
    MinSe,
    /// `Supported`, compact `k`.
    Supported,
    /// `Require`.
    Require,
    /// `Proxy-Require`.
    ProxyRequire,
    /// `Unsupported`.
    Unsupported,
    /// `Allow`.
    Allow,
    /// `User-Agent`.
    UserAgent,
    /// `Server`.
    Server,
    /// `Reason` (RFC 3326).
    Reason,
    /// `Retry-After`.
    RetryAfter,
    /// `RAck` (RFC 3262).
    RAck,
    /// `RSeq` (RFC 3262).
    RSeq,
    /// `Content-Encoding`, compact `e`.
    ContentEncoding,
    /// `WWW-Authenticate`.
    WwwAuthenticate,
    /// `Proxy-Authenticate`.
    ProxyAuthenticate,
    /// Any other name.
    Other,
}

impl HeaderName {
    /// Number of variants; the size of the first-occurrence table.
    pub const COUNT: usize = HeaderName::Other as usize + 1;

    /// From the name on the wire, long or compact, any case.
    pub fn from_bytes(name: &[u8]) -> HeaderName {
        match HeaderName::as_written(name) {
            HeaderName::Other => HeaderName::in_any_case(name),
            found => found,
        }
    }

    /// The long form as we write it, for example `Session-Expires`. Empty for `Other`, whose text only the message has.
    pub fn as_str(self) -> &'static str {
        match self {
            HeaderName::Via => "Via",
            HeaderName::From => "From",
            HeaderName::To => "To",
            HeaderName::CallId => "Call-ID",
            HeaderName::CSeq => "CSeq",
            HeaderName::MaxForwards => "Max-Forwards",
            HeaderName::Route => "Route",
            HeaderName::RecordRoute => "Record-Route",
            HeaderName::Contact => "Contact",
            HeaderName::ContentLength => "Content-Length",
            HeaderName::ContentType => "Content-Type",
            HeaderName::SessionExpires => "Session-Expires",
            HeaderName::MinSe => "Min-SE",
            HeaderName::Supported => "Supported",
            HeaderName::Require => "Require",
            HeaderName::ProxyRequire => "Proxy-Require",
            HeaderName::Unsupported => "Unsupported",
            HeaderName::Allow => "Allow",
            HeaderName::UserAgent => "User-Agent",
            HeaderName::Server => "Server",
            HeaderName::Reason => "Reason",
            HeaderName::RetryAfter => "Retry-After",
            HeaderName::RAck => "RAck",
            HeaderName::RSeq => "RSeq",
            HeaderName::ContentEncoding => "Content-Encoding",
            HeaderName::WwwAuthenticate => "WWW-Authenticate",
            HeaderName::ProxyAuthenticate => "Proxy-Authenticate",
            HeaderName::Other => "",
        }
    }

    /// Most senders write the names as the RFCs do, and whole names known beforehand compare as numbers do.
    pub(crate) fn as_written(name: &[u8]) -> HeaderName {
        match name {
            b"Via" => HeaderName::Via,
            b"From" => HeaderName::From,
            b"To" => HeaderName::To,
            b"Call-ID" => HeaderName::CallId,
            b"CSeq" => HeaderName::CSeq,
            b"Max-Forwards" => HeaderName::MaxForwards,
            b"Route" => HeaderName::Route,
            b"Record-Route" => HeaderName::RecordRoute,
            b"Contact" => HeaderName::Contact,
            b"Content-Length" => HeaderName::ContentLength,
            b"Content-Type" => HeaderName::ContentType,
            b"Session-Expires" => HeaderName::SessionExpires,
            b"Min-SE" => HeaderName::MinSe,
            b"Supported" => HeaderName::Supported,
            b"Require" => HeaderName::Require,
            b"Proxy-Require" => HeaderName::ProxyRequire,
            b"Unsupported" => HeaderName::Unsupported,
            b"Allow" => HeaderName::Allow,
            b"User-Agent" => HeaderName::UserAgent,
            b"Server" => HeaderName::Server,
            b"Reason" => HeaderName::Reason,
            b"Retry-After" => HeaderName::RetryAfter,
            b"RAck" => HeaderName::RAck,
            b"RSeq" => HeaderName::RSeq,
            b"Content-Encoding" => HeaderName::ContentEncoding,
            b"WWW-Authenticate" => HeaderName::WwwAuthenticate,
            b"Proxy-Authenticate" => HeaderName::ProxyAuthenticate,
            _ => HeaderName::Other,
        }
    }

    fn in_any_case(name: &[u8]) -> HeaderName {
        let Some(first) = name.first().map(u8::to_ascii_lowercase) else { return HeaderName::Other };
        // Length and first letter leave one candidate; one comparison confirms it.
        let candidate = match (name.len(), first) {
            (1, _) => return HeaderName::from_compact(first),
            (2, b't') => HeaderName::To,
            (3, b'v') => HeaderName::Via,
            (4, b'f') => HeaderName::From,
            (4, b'c') => HeaderName::CSeq,
            (4, b'r') if name[1].eq_ignore_ascii_case(&b'a') => HeaderName::RAck,
            (4, b'r') => HeaderName::RSeq,
            (5, b'r') => HeaderName::Route,
            (5, b'a') => HeaderName::Allow,
            (6, b'm') => HeaderName::MinSe,
            (6, b's') => HeaderName::Server,
            (6, b'r') => HeaderName::Reason,
            (7, b'c') if name[1].eq_ignore_ascii_case(&b'a') => HeaderName::CallId,
            (7, b'c') => HeaderName::Contact,
            (7, b'r') => HeaderName::Require,
            (9, b's') => HeaderName::Supported,
            (10, b'u') => HeaderName::UserAgent,
            (11, b'u') => HeaderName::Unsupported,
            (11, b'r') => HeaderName::RetryAfter,
            (12, b'm') => HeaderName::MaxForwards,
            (12, b'r') => HeaderName::RecordRoute,
            (12, b'c') => HeaderName::ContentType,
            (13, b'p') => HeaderName::ProxyRequire,
            (14, b'c') => HeaderName::ContentLength,
            (15, b's') => HeaderName::SessionExpires,
            (16, b'c') => HeaderName::ContentEncoding,
            (16, b'w') => HeaderName::WwwAuthenticate,
            (18, b'p') => HeaderName::ProxyAuthenticate,
            _ => return HeaderName::Other,
        };
        if name.eq_ignore_ascii_case(candidate.as_str().as_bytes()) { candidate } else { HeaderName::Other }
    }

    fn from_compact(letter: u8) -> HeaderName {
        match letter {
            b'v' => HeaderName::Via,
            b'f' => HeaderName::From,
            b't' => HeaderName::To,
            b'i' => HeaderName::CallId,
            b'm' => HeaderName::Contact,
            b'l' => HeaderName::ContentLength,
            b'c' => HeaderName::ContentType,
            b'e' => HeaderName::ContentEncoding,
            b'k' => HeaderName::Supported,
            b'x' => HeaderName::SessionExpires,
            _ => HeaderName::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: [HeaderName; HeaderName::COUNT - 1] = [
        HeaderName::Via,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
        HeaderName::CSeq,
        HeaderName::MaxForwards,
        HeaderName::Route,
        HeaderName::RecordRoute,
        HeaderName::Contact,
        HeaderName::ContentLength,
        HeaderName::ContentType,
        HeaderName::SessionExpires,
        HeaderName::MinSe,
        HeaderName::Supported,
        HeaderName::Require,
        HeaderName::ProxyRequire,
        HeaderName::Unsupported,
        HeaderName::Allow,
        HeaderName::UserAgent,
        HeaderName::Server,
        HeaderName::Reason,
        HeaderName::RetryAfter,
        HeaderName::RAck,
        HeaderName::RSeq,
        HeaderName::ContentEncoding,
        HeaderName::WwwAuthenticate,
        HeaderName::ProxyAuthenticate,
    ];

    #[test]
    fn every_long_name_is_found_in_any_case() {
        for name in LONG {
            for text in [name.as_str().to_owned(), name.as_str().to_lowercase(), name.as_str().to_uppercase()] {
                assert_eq!(HeaderName::from_bytes(text.as_bytes()), name, "{text}");
            }
        }
    }

    #[test]
    fn compact_forms_map_to_their_long_names() {
        let compact = "vftimlcekx".bytes().map(|letter| HeaderName::from_bytes(&[letter.to_ascii_uppercase()]));
        assert_eq!(
            compact.collect::<Vec<_>>(),
            [
                HeaderName::Via,
                HeaderName::From,
                HeaderName::To,
                HeaderName::CallId,
                HeaderName::Contact,
                HeaderName::ContentLength,
                HeaderName::ContentType,
                HeaderName::ContentEncoding,
                HeaderName::Supported,
                HeaderName::SessionExpires,
            ]
        );
    }

    #[test]
    fn unread_names_are_other() {
        for name in
            ["", "s", "b", "o", "u", "j", "r", "Subject", "Via2", "Rxck", "Record-Rout", "Session-Expirez", "Vié"]
        {
            assert_eq!(HeaderName::from_bytes(name.as_bytes()), HeaderName::Other, "{name}");
        }
    }
}
