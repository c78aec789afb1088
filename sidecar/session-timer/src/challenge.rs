//! Answers to 401 and 407 (RFC 3261 §22, RFC 8760): the header lines that prove who we are.

use std::sync::Arc;

use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use sipwarden_sip::{HeaderName, Message, Method};

use crate::Credentials;

/// How often one request may be sent once more with other answers: each proxy on its way may ask, and the UAS.
const MOST_ROUNDS: u8 = 5;

/// What a request of ours was asked, and is answered in each further try of it: a proxy and the UAS behind it each want
/// their own line (RFC 3261 §22.3).
#[derive(Default)]
pub(crate) struct Challenges {
    known: Vec<Challenge>,
    rounds: u8,
}

/// The last one of a realm.
struct Challenge {
    /// Name of the header that answers it; of two servers of one realm only one may be a proxy.
    header: &'static str,
    digest: WwwAuthenticateHeader,
    credentials: Arc<Credentials>,
}

/// What is to be proved for.
#[derive(Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) method: Method,
    /// The Request-URI.
    pub(crate) uri: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Challenges {
    /// Takes up what `response` asks; false when we can answer nothing of it, or were refused: a realm that had its answer
    /// asks again, and not only for a newer nonce. The first challenge of a realm that fits is taken: they stand in the
    /// order of the server's preference (RFC 8760 §2.4).
    pub(crate) fn take_up(&mut self, response: &Message, credentials: &Arc<Credentials>) -> bool {
        let (asks, header) = match response.status() {
            Some(407) => (HeaderName::ProxyAuthenticate, "Proxy-Authorization"),
            _ => (HeaderName::WwwAuthenticate, "Authorization"),
        };
        self.rounds += 1;
        let wanted = |realm: &str| credentials.realm.as_ref().is_none_or(|wanted| wanted == realm);
        let mut taken: Vec<Challenge> = Vec::new();
        for digest in response.all(asks).filter_map(|asked| parse(asked.value)) {
            let same = |known: &Challenge| known.header == header && known.digest.realm == digest.realm;
            if !wanted(&digest.realm) || taken.iter().any(same) {
                continue;
            }
            if self.known.iter().any(same) && !digest.stale {
                return false;
            }
            taken.push(Challenge { header, digest, credentials: Arc::clone(credentials) });
        }
        let asked = !taken.is_empty();
        self.known.retain(|known| {
            !taken.iter().any(|new| new.header == known.header && new.digest.realm == known.digest.realm)
        });
        self.known.append(&mut taken);
        asked && self.rounds <= MOST_ROUNDS
    }

    /// The header lines of the next try.
    pub(crate) fn answers(&mut self, signed: Signed, cnonce: u64) -> String {
        self.known.iter_mut().filter_map(|challenge| challenge.answer(signed, cnonce)).collect()
    }
}

impl Challenge {
    fn answer(&mut self, signed: Signed, cnonce: u64) -> Option<String> {
        let uri = std::str::from_utf8(signed.uri).ok()?;
        let method = HttpMethod::from(signed.method.as_str());
        let (username, password) = (self.credentials.username.as_str(), self.credentials.password.as_str());
        let mut context = AuthContext::new_with_method(username, password, uri, Some(signed.body), method);
        context.set_custom_cnonce(format!("{cnonce:016x}"));
        // It counts how often it was answered: no server takes one count of a nonce twice.
        let answer = self.digest.respond(&context).ok()?;
        Some(format!("{}: {answer}\r\n", self.header))
    }
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

    const UPDATE: Signed = Signed { method: Method::Update, uri: b"sip:phone@192.0.2.7:5060", body: b"" };
    const FRESH: &str = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n1\"\r\n";
    const STALE: &str = "WWW-Authenticate: Digest realm=\"x\", nonce=\"n2\", stale=true\r\n";
    const PROXY: &str = "Proxy-Authenticate: Digest realm=\"x\", nonce=\"p1\", qop=\"auth\"\r\n";

    fn credentials(realm: Option<&str>) -> Arc<Credentials> {
        Arc::new(Credentials { username: "bob".into(), password: "zanzibar".into(), realm: realm.map(str::to_owned) })
    }

    /// The lines of the next try, when there shall be one.
    fn asked(known: &mut Challenges, status: u16, headers: &str, credentials: &Arc<Credentials>) -> Option<String> {
        let text = format!("SIP/2.0 {status} Who\r\n{headers}\r\n");
        let mut slots = Slots::new();
        let response = Message::parse(text.as_bytes(), &mut slots).expect("a response");
        known.take_up(&response, credentials).then(|| known.answers(UPDATE, 7))
    }

    fn first_asked(status: u16, headers: &str, credentials: &Arc<Credentials>) -> Option<String> {
        asked(&mut Challenges::default(), status, headers, credentials)
    }

    #[test]
    fn of_a_realm_the_first_challenge_we_understand_is_answered() {
        let line = first_asked(
            401,
            "WWW-Authenticate: Basic realm=\"x\"\r\n\
             WWW-Authenticate: Digest realm=\"x\", nonce=\"n1\", algorithm=SHA-256,\r\n qop=\"auth\"\r\n\
             WWW-Authenticate: Digest realm=\"x\", nonce=\"n2\", algorithm=MD5\r\n",
            &credentials(None),
        );
        let line = line.expect("answered");
        assert!(line.starts_with("Authorization: Digest username=\"bob\", realm=\"x\", nonce=\"n1\""), "{line}");
        assert!(line.contains("algorithm=SHA-256") && line.contains("cnonce=\"0000000000000007\""), "{line}");
        assert!(!line.contains("zanzibar") && line.ends_with("\r\n") && line.lines().count() == 1, "{line}");
    }

    #[test]
    fn a_proxy_is_answered_in_its_own_header_with_the_known_digest() {
        // The vector: MD5(MD5("bob:biloxi.com:zanzibar"):nonce:MD5("UPDATE:sip:phone@192.0.2.7:5060")), made with md5sum.
        let headers = "Proxy-Authenticate: Digest realm=\"biloxi.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c0\"\r\n";
        let line = first_asked(407, headers, &credentials(Some("biloxi.com"))).expect("answered");
        assert!(line.starts_with("Proxy-Authorization: Digest "), "{line}");
        assert!(line.contains("response=\"3abc6604027532ad91ab759672e4f9d3\""), "{line}");
    }

    #[test]
    fn other_realms_and_second_refusals_are_not_answered_but_stale_nonces_are() {
        assert_eq!(first_asked(401, FRESH, &credentials(Some("y"))), None);
        assert_eq!(first_asked(401, "", &credentials(None)), None);
        let mut known = Challenges::default();
        let credentials = credentials(None);
        assert!(asked(&mut known, 401, FRESH, &credentials).is_some());
        let line = asked(&mut known, 401, STALE, &credentials).expect("answered");
        assert!(line.contains("nonce=\"n2\"") && line.lines().count() == 1, "{line}");
        assert_eq!(asked(&mut known, 401, FRESH, &credentials), None);
    }

    #[test]
    fn a_proxy_and_the_server_behind_it_are_answered_side_by_side_even_in_one_realm() {
        let (mut known, credentials) = (Challenges::default(), credentials(None));
        let first = asked(&mut known, 407, PROXY, &credentials).expect("answered");
        let both = asked(&mut known, 401, FRESH, &credentials).expect("answered");
        let names: Vec<_> = both.lines().filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["Proxy-Authorization", "Authorization"]);
        let counts = [first, both].map(|lines| lines.split("nc=").nth(1).map(|rest| rest[..8].to_owned()));
        assert_eq!(counts, [Some("00000001".into()), Some("00000002".into())], "no count of a nonce is used twice");
    }

    #[test]
    fn who_asks_for_ever_is_not_answered_for_ever() {
        let (mut known, credentials) = (Challenges::default(), credentials(None));
        let rounds = (0..100).take_while(|_| asked(&mut known, 401, STALE, &credentials).is_some());
        assert_eq!(rounds.count(), usize::from(MOST_ROUNDS));
    }

    proptest! {
        #[test]
        fn no_challenge_panics(text in "[dD]igest ([a-z\"=,;\\\\ é%]|realm=|nonce=|qop=|algorithm=){0,40}") {
            let _ = first_asked(401, &format!("WWW-Authenticate: {text}\r\n"), &credentials(None));
        }
    }
}
