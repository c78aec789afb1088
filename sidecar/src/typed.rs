//! SIP values for people to look at, with their users hidden unless asked for. The only module that uses rsip's typed
//! model; what rsip cannot read (IPv6 hosts, `tel:`, unusual bytes) is redacted from our own parse.

use std::hash::{DefaultHasher, Hash, Hasher};

use rsip::Uri;
use rsip::common::uri::{Auth, Param};
use sipwarden_sip::value::{self, NameAddr, Scheme};

const HIDDEN: &str = "***";

/// A URI: `sip:***@host:port;transport=TCP`, or as it is with `reveal`.
pub fn shown_uri(uri: &[u8], reveal: bool) -> String {
    if reveal { text(uri) } else { typed_uri(uri).map_or_else(|| redacted_plainly(uri), redacted) }
}

/// A From, To or Contact value: `<sip:***@host>;tag=x`, or as it is with `reveal`.
pub fn shown_party(party: &[u8], reveal: bool) -> String {
    if reveal {
        return text(party);
    }
    let Ok(address) = NameAddr::parse(party) else { return HIDDEN.to_owned() };
    let tag = address.param("tag").map(|tag| format!(";tag={}", text(tag))).unwrap_or_default();
    format!("<{}>{tag}", shown_uri(address.uri, false))
}

/// A Call-ID: with `names_user` its part before the `@` is hidden, and what tells calls apart is a number made of it.
pub fn shown_call_id(call_id: &[u8], names_user: bool) -> String {
    if !names_user {
        return text(call_id);
    }
    let mut hasher = DefaultHasher::new();
    call_id.hash(&mut hasher);
    let host = call_id.iter().rposition(|byte| *byte == b'@').map_or(b"" as &[u8], |at| &call_id[at..]);
    format!("{HIDDEN}-{:08x}{}", hasher.finish() as u32, text(host))
}

/// rsip reads a prefix and drops the rest, so its host must be the one our own parse found.
fn typed_uri(uri: &[u8]) -> Option<Uri> {
    let parts = value::Uri::parse(uri).ok()?;
    let typed = Uri::try_from(std::str::from_utf8(uri).ok()?).ok()?;
    let same_host = typed.host().to_string().as_bytes().eq_ignore_ascii_case(parts.host);
    (same_host && matches!(parts.scheme, Scheme::Sip | Scheme::Sips)).then_some(typed)
}

fn redacted(mut uri: Uri) -> String {
    uri.auth = uri.auth.map(|_| Auth { user: HIDDEN.to_owned(), password: None });
    // Other parameters (gr, user-defined ones) can tell a user as well.
    uri.params.retain(|param| matches!(param, Param::Transport(_) | Param::Lr));
    uri.to_string()
}

fn redacted_plainly(uri: &[u8]) -> String {
    let Ok(parts) = value::Uri::parse(uri) else { return HIDDEN.to_owned() };
    let scheme = match parts.scheme {
        Scheme::Sip => "sip",
        Scheme::Sips => "sips",
        Scheme::Tel => return format!("tel:{HIDDEN}"),
        Scheme::Other => return HIDDEN.to_owned(),
    };
    let user = if parts.user.is_empty() { String::new() } else { format!("{HIDDEN}@") };
    let host = text(parts.host);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = parts.port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}:{user}{host}{port}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_uri_is_hidden_and_the_rest_stays() {
        for (uri, shown) in [
            ("sip:alice@example.com", "sip:***@example.com"),
            ("sips:alice:secret@example.com:5061", "sips:***@example.com:5061"),
            ("sip:alice@example.com;transport=tcp;gr=alices-phone", "sip:***@example.com;transport=TCP"),
            ("sip:192.0.2.1:5060", "sip:192.0.2.1:5060"),
            ("sip:alice@[2001:db8::1]:5060", "sip:***@[2001:db8::1]:5060"),
            ("tel:+15551234", "tel:***"),
            ("urn:service:sos", "***"),
            ("nonsense", "***"),
        ] {
            assert_eq!(shown_uri(uri.as_bytes(), false), shown, "{uri}");
            assert_eq!(shown_uri(uri.as_bytes(), true), uri);
        }
    }

    #[test]
    fn no_part_of_a_hostile_user_survives() {
        for uri in
            ["sip:alice@alice@example.com", "sip:al%20ice;x=alice@example.com", "sip:alice?alice=alice@example.com"]
        {
            assert!(!shown_uri(uri.as_bytes(), false).contains("alice"), "{}", shown_uri(uri.as_bytes(), false));
        }
    }

    #[test]
    fn a_party_keeps_its_tag_and_loses_its_name() {
        let shown = shown_party(br#""Alice" <sip:alice@example.com>;tag=88sja8x"#, false);
        assert_eq!(shown, "<sip:***@example.com>;tag=88sja8x");
        assert_eq!(shown_party(b"sip:alice@example.com;tag=1", false), "<sip:***@example.com>;tag=1");
    }
}
