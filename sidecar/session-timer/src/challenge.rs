//! Answers to 401 and 407 (RFC 3261 §22, RFC 8760): the header line that proves who we are.

use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use sipwarden_sip::{HeaderName, Message, Method};

use crate::Credentials;

/// The Authorization or Proxy-Authorization line for a request with `method`, `uri` and `body`; `None` when no challenge
/// in `response` is one we can answer, or when it was answered (`again`) and refused. The first that fits is taken: they
/// stand in the order of the server's preference (RFC 8760 §2.4).
pub(crate) fn answer(
    response: &Message,
    credentials: &Credentials,
    method: Method,
    uri: &[u8],
    body: &[u8],
    nonce: u64,
    again: bool,
) -> Option<String> {
    let (asks, answers) = match response.status() {
        Some(407) => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
        _ => (HeaderName::WwwAuthenticate, "Authorization"),
    };
    let uri = std::str::from_utf8(uri).ok()?;
    response.all(asks).find_map(|header| {
        let mut challenge = parse(header.value)?;
        let realm = challenge.realm.clone();
        if credentials.realm.as_ref().is_some_and(|wanted| *wanted != realm) || (again && !challenge.stale) {
            return None;
        }
        let method = HttpMethod::from(method.as_str());
        let (username, password) = (credentials.username.as_str(), credentials.password.as_str());
        let mut context = AuthContext::new_with_method(username, password, uri, Some(body), method);
        context.set_custom_cnonce(format!("{nonce:016x}"));
        let answer = challenge.respond(&context).ok()?;
        Some(format!("{answers}: {answer}\r\n"))
    })
}

fn parse(value: &[u8]) -> Option<WwwAuthenticateHeader> {
    // The library cuts between bytes.
    let value = std::str::from_utf8(value).ok().filter(|value| value.is_ascii())?.replace(['\r', '\n'], " ");
    let (scheme, parameters) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("digest") { digest_auth::parse(parameters).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sipwarden_sip::Slots;

    use super::*;

    const URI: &[u8] = b"sip:phone@192.0.2.7:5060";

    fn credentials(realm: Option<&str>) -> Credentials {
        Credentials { username: "bob".into(), password: "zanzibar".into(), realm: realm.map(str::to_owned) }
    }

    fn answered(status: u16, headers: &str, credentials: &Credentials, again: bool) -> Option<String> {
        let text = format!("SIP/2.0 {status} Who\r\n{headers}\r\n");
        let mut slots = Slots::new();
        let response = Message::parse(text.as_bytes(), &mut slots).expect("a response");
        answer(&response, credentials, Method::Update, URI, b"", 7, again)
    }

    #[test]
    fn the_first_challenge_we_understand_is_answered() {
        let line = answered(
            401,
            "WWW-Authenticate: Basic realm=\"x\"\r\n\
             WWW-Authenticate: Digest realm=\"x\", nonce=\"n1\", algorithm=SHA-256,\r\n qop=\"auth\"\r\n\
             WWW-Authenticate: Digest realm=\"x\", nonce=\"n2\", algorithm=MD5\r\n",
            &credentials(None),
            false,
        );
        let line = line.expect("answered");
        assert!(line.starts_with("Authorization: Digest username=\"bob\", realm=\"x\", nonce=\"n1\""), "{line}");
        assert!(line.contains("algorithm=SHA-256") && line.contains("cnonce=\"0000000000000007\""), "{line}");
        assert!(!line.contains("zanzibar") && line.ends_with("\r\n"));
    }

    #[test]
    fn a_proxy_is_answered_in_its_own_header_with_the_known_digest() {
        // The vector: MD5(MD5("bob:biloxi.com:zanzibar"):nonce:MD5("UPDATE:sip:phone@192.0.2.7:5060")), made with md5sum.
        let headers = "Proxy-Authenticate: Digest realm=\"biloxi.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c0\"\r\n";
        let line = answered(407, headers, &credentials(Some("biloxi.com")), false).expect("answered");
        assert!(line.starts_with("Proxy-Authorization: Digest "), "{line}");
        assert!(line.contains("response=\"3abc6604027532ad91ab759672e4f9d3\""), "{line}");
    }

    #[test]
    fn other_realms_and_second_refusals_are_not_answered_but_stale_nonces_are() {
        let fresh = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\"\r\n";
        let stale = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\", stale=true\r\n";
        assert_eq!(answered(401, fresh, &credentials(Some("y")), false), None);
        assert_eq!(answered(401, fresh, &credentials(None), true), None);
        assert!(answered(401, stale, &credentials(None), true).is_some());
        assert_eq!(answered(401, "", &credentials(None), false), None);
    }

    proptest! {
        #[test]
        fn no_challenge_panics(text in "[dD]igest ([a-z\"=,;\\\\ é%]|realm=|nonce=|qop=|algorithm=){0,40}") {
            let _ = answered(401, &format!("WWW-Authenticate: {text}\r\n"), &credentials(None), false);
        }
    }
}
