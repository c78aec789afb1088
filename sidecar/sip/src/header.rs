//! Header field names we look at, with their compact forms (RFC 3261 §7.3.3, RFC 4028 §4).

use crate::scan::{self, CHUNK_LEN};

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
    /// `Event`, compact `o` (RFC 6665).
    Event,
    /// Any other name.
    Other,
}

impl HeaderName {
    /// Number of variants; the size of the first-occurrence table.
    pub const COUNT: usize = HeaderName::Other as usize + 1;

    /// Each of them, in the order of the variants.
    pub const ALL: [HeaderName; HeaderName::COUNT] = {
        let mut all = [HeaderName::Other; HeaderName::COUNT];
        let mut at = 0;
        while at < HeaderName::COUNT {
            all[at] = WRITTEN[at].1;
            at += 1;
        }
        all
    };

    /// From the name on the wire, long or compact, any case.
    pub fn from_bytes(name: &[u8]) -> HeaderName {
        let (Some(first), Some(last)) = (name.first(), name.last()) else { return HeaderName::Other };
        let (written, candidate) = WRITTEN[usize::from(PLACES[place(name.len(), *first, *last)])];
        if name.eq_ignore_ascii_case(written.as_bytes()) { candidate } else { HeaderName::Other }
    }

    /// The long form as we write it, for example `Session-Expires`. Empty for `Other`, whose text only the message has.
    pub fn as_str(self) -> &'static str {
        if self == HeaderName::Other { "" } else { WRITTEN[self as usize].0 }
    }

    /// The name that `line` begins with where it is written as in [`WRITTEN`] with a colon right behind, as most senders
    /// do, and its length: names known beforehand compare as numbers do.
    #[inline]
    pub(crate) fn at_front(line: &[u8; CHUNK_LEN]) -> Option<(HeaderName, usize)> {
        let colons = scan::mask(line, [b':']);
        if colons == 0 {
            return None;
        }
        let len = colons.trailing_zeros() as usize % CHUNK_LEN;
        // No name is in vain: that of an empty one ends nowhere, and equals none.
        let last = line[len.wrapping_sub(1) % CHUNK_LEN];
        let at = usize::from(PLACES[place(len, line[0], last)]);
        let name_and_colon = (2 << len) - 1;
        let differing = !scan::equal(line, &CHUNKS[at]) & name_and_colon;
        (differing == 0).then_some((WRITTEN[at].1, len))
    }
}

/// All names as the RFCs write them, the long forms in the order of the variants.
const WRITTEN: [(&str, HeaderName); 40] = [
    ("Via", HeaderName::Via),
    ("From", HeaderName::From),
    ("To", HeaderName::To),
    ("Call-ID", HeaderName::CallId),
    ("CSeq", HeaderName::CSeq),
    ("Max-Forwards", HeaderName::MaxForwards),
    ("Route", HeaderName::Route),
    ("Record-Route", HeaderName::RecordRoute),
    ("Contact", HeaderName::Contact),
    ("Content-Length", HeaderName::ContentLength),
    ("Content-Type", HeaderName::ContentType),
    ("Session-Expires", HeaderName::SessionExpires),
    ("Min-SE", HeaderName::MinSe),
    ("Supported", HeaderName::Supported),
    ("Require", HeaderName::Require),
    ("Proxy-Require", HeaderName::ProxyRequire),
    ("Unsupported", HeaderName::Unsupported),
    ("Allow", HeaderName::Allow),
    ("User-Agent", HeaderName::UserAgent),
    ("Server", HeaderName::Server),
    ("Reason", HeaderName::Reason),
    ("Retry-After", HeaderName::RetryAfter),
    ("RAck", HeaderName::RAck),
    ("RSeq", HeaderName::RSeq),
    ("Content-Encoding", HeaderName::ContentEncoding),
    ("WWW-Authenticate", HeaderName::WwwAuthenticate),
    ("Proxy-Authenticate", HeaderName::ProxyAuthenticate),
    ("Event", HeaderName::Event),
    // Nobody's name, for the places that no name has.
    ("", HeaderName::Other),
    ("v", HeaderName::Via),
    ("f", HeaderName::From),
    ("t", HeaderName::To),
    ("i", HeaderName::CallId),
    ("m", HeaderName::Contact),
    ("l", HeaderName::ContentLength),
    ("c", HeaderName::ContentType),
    ("e", HeaderName::ContentEncoding),
    ("k", HeaderName::Supported),
    ("o", HeaderName::Event),
    ("x", HeaderName::SessionExpires),
];
const NOBODY: usize = HeaderName::Other as usize;

/// A name's place in [`PLACES`], by its length and its outer letters in any case. Each name has its own.
#[inline]
const fn place(len: usize, first: u8, last: u8) -> usize {
    (len + 112 * (first | 0x20) as usize + (last | 0x20) as usize) % 128
}

/// Which of [`WRITTEN`] a name can only be.
const PLACES: [u8; 128] = {
    let mut places = [NOBODY as u8; 128];
    let mut at = 0;
    while at < WRITTEN.len() {
        let name = WRITTEN[at].0.as_bytes();
        if at != NOBODY {
            let place = &mut places[place(name.len(), name[0], name[name.len() - 1])];
            assert!(*place == NOBODY as u8, "two names have one place");
            *place = at as u8;
        }
        at += 1;
    }
    places
};

/// Each of [`WRITTEN`] that is short enough, with a colon behind it.
const CHUNKS: [[u8; CHUNK_LEN]; WRITTEN.len()] = {
    let mut chunks = [[0; CHUNK_LEN]; WRITTEN.len()];
    let mut at = 0;
    while at < WRITTEN.len() {
        let name = WRITTEN[at].0.as_bytes();
        if at != NOBODY && name.len() < CHUNK_LEN {
            let mut letter = 0;
            while letter < name.len() {
                chunks[at][letter] = name[letter];
                letter += 1;
            }
            chunks[at][name.len()] = b':';
        }
        at += 1;
    }
    chunks
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (text, name) in WRITTEN {
            for text in [text.to_owned(), text.to_lowercase(), text.to_uppercase()] {
                assert_eq!(HeaderName::from_bytes(text.as_bytes()), name, "{text}");
            }
        }
    }

    #[test]
    fn long_forms_stand_in_the_order_of_the_variants() {
        for (at, (text, name)) in WRITTEN[..HeaderName::COUNT].iter().enumerate() {
            assert_eq!((*name as usize, name.as_str()), (at, *text));
        }
    }

    #[test]
    fn a_name_at_the_front_of_a_line_is_found_where_it_is_written_as_usual() {
        let at_front = |line: &str| HeaderName::at_front(format!("{line:16}").as_bytes().first_chunk().unwrap());
        for (text, name) in WRITTEN.iter().filter(|(text, _)| (1..CHUNK_LEN).contains(&text.len())) {
            assert_eq!(at_front(&format!("{text}: x")), Some((*name, text.len())), "{text}");
        }
        for line in ["", ":", ": Via:", "Vi: x", "Vias: x", "via: x", "Via : x", "Subject: x", "WWW-Authenticate: x"] {
            assert_eq!(at_front(line), None, "{line}");
        }
    }

    #[test]
    fn compact_forms_map_to_their_long_names() {
        let compact = "vftimlcekox".bytes().map(|letter| HeaderName::from_bytes(&[letter.to_ascii_uppercase()]));
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
                HeaderName::Event,
                HeaderName::SessionExpires,
            ]
        );
    }

    #[test]
    fn unread_names_are_other() {
        for name in ["", "s", "b", "u", "j", "r", "Subject", "Via2", "Rxck", "Record-Rout", "Session-Expirez", "Vié"] {
            assert_eq!(HeaderName::from_bytes(name.as_bytes()), HeaderName::Other, "{name}");
        }
    }
}
