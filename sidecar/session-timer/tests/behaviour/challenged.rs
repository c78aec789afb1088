//! 401 and 407 to a refresh or BYE of ours: reported, and answered where the policy names credentials (RFC 8760).

use std::sync::Arc;

use sipwarden_session_timer::{
    AppProbe, ByeOutcome, Credentials, EventKind, Leg, NoRefresh, RefreshMethod, SessionState, Timers,
};

use crate::support::{
    ALLOW_UPDATE, Bench, Call, SDP_LOCAL, SDP_REMOTE, TIMER, Wire, changed, established, s, standing_in,
};

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
    let left = bench.pass(Leg::Local, &call.invite().with_sdp(SDP_LOCAL));
    bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW_UPDATE, TIMER]).with_sdp(SDP_REMOTE));
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
fn a_proxy_and_then_the_peer_behind_it_are_both_answered() {
    let mut bench = Bench::enforcing(knowing(true));
    let (call, update) = refresh(&mut bench);
    let proxy = CHALLENGE.replace("WWW", "Proxy");
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 407).with(&proxy));
    let again = passage.sent[0].wire.clone();
    assert_eq!((again.all("Proxy-Authorization").len(), again.all("Authorization").len()), (1, 0));
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &again, 401).with(CHALLENGE));
    let third = &passage.sent[0].wire;
    assert_eq!((third.all("Proxy-Authorization").len(), third.all("Authorization").len()), (1, 1));
    bench.send(Leg::Remote, &call.respond(Leg::Remote, third, 200).with(OURS));
    assert_eq!(bench.deadline_s(), Some(90));
}

#[test]
fn what_was_answered_is_answered_again_after_a_422_and_by_the_method_the_peer_takes() {
    for (status, header, method) in [(422, "Min-SE: 300", "UPDATE"), (405, "Allow: INVITE", "INVITE")] {
        let mut bench = Bench::enforcing(knowing(true));
        let (call, update) = refresh(&mut bench);
        let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 401).with(CHALLENGE));
        let again = passage.sent[0].wire.clone();
        let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &again, status).with(header));
        let third = &passage.sent[0].wire;
        assert_eq!(third.method(), method);
        let digest = |sent: &Wire| sent.header("Authorization").expect("credentials").to_owned();
        assert!(digest(third).contains("nc=00000002"), "{third}");
        assert_ne!(digest(third), digest(&again));
    }
}

#[test]
fn the_ack_to_an_answered_challenge_proves_what_the_invite_did() {
    let mut bench = Bench::enforcing(changed(knowing(true), |timers| timers.refresh_method = RefreshMethod::ReInvite));
    let (call, invite) = refresh(&mut bench);
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &invite, 401).with(CHALLENGE));
    let [ack, again] = [0, 1].map(|at| passage.sent[at].wire.clone());
    assert_eq!((ack.method(), ack.header("Authorization")), ("ACK", None));
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &again, 200).with(OURS));
    let ack = &passage.sent[0].wire;
    assert_eq!((ack.method(), ack.header("Authorization")), ("ACK", again.header("Authorization")));
}

/// A call that nobody refreshed, and our BYE to the remote side.
fn expired(bench: &mut Bench) -> (Call, Wire) {
    let call = established(bench, Leg::Remote, &[TIMER, "Session-Expires: 90;refresher=uac"], &[]);
    let bye = bench.run_for(s(61)).byes()[1].wire.clone();
    (call, bye)
}

#[test]
fn a_challenged_bye_is_sent_once_more_with_credentials_and_only_its_end_is_told() {
    let mut bench = Bench::enforcing(knowing(true));
    let (call, bye) = expired(&mut bench);
    let passage =
        bench.send(Leg::Remote, &call.respond(Leg::Remote, &bye, 407).with(&CHALLENGE.replace("WWW", "Proxy")));
    assert_eq!(passage.kinds(), [EventKind::Challenged { status: 407 }]);
    let again = passage.sent[0].wire.clone();
    assert_eq!((again.method(), again.cseq()), ("BYE", bye.cseq() + 1));
    assert_eq!(again.header("Reason"), bye.header("Reason"));
    assert!(again.header("Proxy-Authorization").is_some_and(|line| line.contains("username=\"pbx\"")));
    let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &again, 200));
    let outcome = ByeOutcome::Answered(200);
    assert_eq!(passage.kinds(), [EventKind::ByeDone { to: Leg::Remote, outcome }]);
    bench.run_out();
}

#[test]
fn a_bye_that_we_cannot_prove_or_whose_proof_is_refused_is_over() {
    let refused = [EventKind::ByeDone { to: Leg::Remote, outcome: ByeOutcome::Answered(401) }];
    for known in [false, true] {
        let mut bench = Bench::enforcing(knowing(known));
        let (call, mut bye) = expired(&mut bench);
        if known {
            let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &bye, 401).with(CHALLENGE));
            bye = passage.sent[0].wire.clone();
        }
        let passage = bench.send(Leg::Remote, &call.respond(Leg::Remote, &bye, 401).with(CHALLENGE));
        assert!(passage.sent.is_empty());
        assert_eq!(passage.kinds()[1..], refused);
    }
}

#[test]
fn the_application_is_told_nothing_of_who_we_are() {
    let mut bench = Bench::enforcing(knowing(true));
    let call = established(&mut bench, Leg::Remote, &[TIMER, "Session-Expires: 90;refresher=uac"], &[]);
    let bye = bench.run_for(s(61)).byes()[0].wire.clone();
    let passage = bench.send(Leg::Local, &call.respond(Leg::Local, &bye, 401).with(CHALLENGE));
    assert!(passage.sent.is_empty());
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
