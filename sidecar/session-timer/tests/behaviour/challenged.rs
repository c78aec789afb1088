//! 401 and 407 to a refresh of ours: reported, and answered where the policy names credentials (RFC 8760).

use std::sync::Arc;

use sipwarden_session_timer::{AppProbe, Credentials, EventKind, Leg, NoRefresh, SessionState, Timers};

use crate::support::{ALLOW_UPDATE, Bench, Call, TIMER, Wire, changed, s, standing_in};

const OURS: &str = "Session-Expires: 90;refresher=uac";
const CHALLENGE: &str = "WWW-Authenticate: Digest realm=\"trunk\", nonce=\"n1\", algorithm=SHA-256, qop=\"auth\"";

fn knowing(known: bool) -> Timers {
    changed(standing_in(90), |timers| {
        timers.app_probe = AppProbe::None;
        let credentials =
            Credentials { username: "pbx".into(), password: "secret".into(), realm: Some("trunk".into()) };
        timers.credentials = known.then(|| Arc::new(credentials));
    })
}

fn refresh(bench: &mut Bench) -> (Call, Wire) {
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite());
    bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW_UPDATE, TIMER]));
    let elapsed = bench.run_for(s(41));
    (call, elapsed.sent[0].1.wire.clone())
}

#[test]
fn a_challenge_is_answered_with_the_credentials_of_the_policy() {
    let mut bench = Bench::enforcing(knowing(true));
    let (call, update) = refresh(&mut bench);
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 401).with(CHALLENGE));
    let again = &passage.sent[0].wire;
    assert_eq!((again.method(), again.cseq()), ("UPDATE", update.cseq() + 1));
    let line = again.header("Authorization").expect("credentials");
    assert!(line.starts_with("Digest username=\"pbx\", realm=\"trunk\", nonce=\"n1\""), "{line}");
    assert!(!again.0.contains("secret"));
    assert!(passage.kinds().contains(&EventKind::Challenged { status: 401 }));
    bench.send(Leg::Remote, &call.respond(Leg::Remote, again, 200).with(OURS));
    assert_eq!(bench.deadline_s(), Some(90));
}

#[test]
fn credentials_that_are_refused_are_not_tried_for_ever() {
    let mut bench = Bench::enforcing(knowing(true));
    let (call, update) = refresh(&mut bench);
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 401).with(CHALLENGE));
    let again = passage.sent[0].wire.clone();
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &again, 401).with(CHALLENGE));
    assert!(passage.sent.is_empty());
    assert!(passage.kinds().contains(&EventKind::NotRefreshed { reason: NoRefresh::Unauthorized }));
}

#[test]
fn without_credentials_it_is_reported_and_no_reason_to_end_the_call() {
    let mut bench = Bench::enforcing(knowing(false));
    let (call, update) = refresh(&mut bench);
    let passage =
        bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 407).with("Proxy-Authenticate: Digest x"));
    assert!(passage.kinds().contains(&EventKind::Challenged { status: 407 }));
    assert!(passage.sent.is_empty());
    assert_eq!(bench.session().state, SessionState::Active);
    assert!(bench.session().next_step.is_some());
}
