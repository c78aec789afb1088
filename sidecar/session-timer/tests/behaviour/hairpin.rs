//! A call that passes twice, as when the application is itself a proxy: one dialog, two sessions with the legs swapped.

use sipwarden_session_timer::{EndCause, Leg, SessionState, SessionView, Verdict};

use crate::support::{Bench, Call, TIMER, Wire, at_least, s};

/// A request of one phone goes to the application and on to the other phone: as it arrives there.
fn there_and_back(bench: &mut Bench, request: &Wire) -> Wire {
    let inward = bench.pass(Leg::Remote, request);
    let outward = bench.pass(Leg::Local, &inward.routed(Leg::Local));
    outward.routed(Leg::Remote)
}

/// Its response, the other way.
fn answered(bench: &mut Bench, response: &Wire) -> Wire {
    let inward = bench.pass(Leg::Remote, response);
    bench.pass(Leg::Local, &inward.unrouted())
}

/// Caller and callee are both phones on the remote side; the callee has the name and tag of a call's local party.
fn established(answer: &[&str]) -> (Bench, Call) {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let left = there_and_back(&mut bench, &call.invite().with(TIMER));
    let ok = call.respond(Leg::Local, &left, 200).with_all(answer);
    answered(&mut bench, &ok);
    (bench, call)
}

/// The pass on which the caller is remote, and the one on which it is local.
fn passes(bench: &Bench) -> [SessionView; 2] {
    let sessions = bench.dialogs.sessions(0, 10);
    assert_eq!(sessions.len(), 2);
    let caller_on = |leg: Leg| {
        let is = |session: &&SessionView| session.legs[leg.index()].party.ends_with(b"remote-one");
        sessions.iter().find(is).expect("a session of this pass").clone()
    };
    [caller_on(Leg::Remote), caller_on(Leg::Local)]
}

#[test]
fn each_pass_is_a_session_with_its_own_refresher_side() {
    let (bench, _) = established(&["Session-Expires: 600;refresher=uac"]);
    let [first, second] = passes(&bench);
    assert_eq!((first.interval, first.refresher), (Some(600), Some(Leg::Remote)));
    assert_eq!((second.interval, second.refresher), (Some(600), Some(Leg::Local)));
}

#[test]
fn the_2xx_is_completed_once() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let left = there_and_back(&mut bench, &call.invite().with(TIMER));
    let ok = answered(&mut bench, &call.respond(Leg::Local, &left, 200));
    assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec!["1800;refresher=uac"], vec!["timer"]));
}

#[test]
fn a_refresh_re_arms_both_passes_and_a_bye_ends_both() {
    for by_caller in [true, false] {
        let (mut bench, mut call) = established(&["Session-Expires: 600;refresher=uac"]);
        let writes = if by_caller { Leg::Remote } else { Leg::Local };
        let update = there_and_back(&mut bench, &call.request(writes, "UPDATE").with(TIMER));
        answered(&mut bench, &call.respond(writes.other(), &update, 200).with("Session-Expires: 700;refresher=uac"));
        let refreshers = passes(&bench).map(|session| (session.interval, session.refresher));
        let [first, second] = if by_caller { [Leg::Remote, Leg::Local] } else { [Leg::Local, Leg::Remote] };
        assert_eq!(refreshers, [(Some(700), Some(first)), (Some(700), Some(second))]);
        there_and_back(&mut bench, &call.request(writes, "BYE"));
        assert!(passes(&bench).iter().all(|session| matches!(session.state, SessionState::Ended(EndCause::Bye(_)))));
        bench.run_out();
    }
}

#[test]
fn both_passes_expire_and_answer_each_others_bye() {
    let (mut bench, call) = established(&["Session-Expires: 90;refresher=uac"]);
    let elapsed = bench.run_for(s(60));
    assert_eq!(elapsed.sent.len(), 4);
    let inward: Vec<_> = elapsed.sent.iter().map(|(_, sent)| sent).filter(|sent| sent.flow.endpoint == 0).collect();
    assert_eq!(inward.len(), 2, "one of each pass goes to the application");
    for bye in inward {
        let late = bench.send(Leg::Local, &bye.wire.routed(Leg::Remote));
        assert_eq!(late.verdict, Verdict::Answered(200), "the application sent it back to us");
        let answer = bench.send(Leg::Local, &late.answer().unrouted());
        assert_eq!(answer.verdict, Verdict::Absorb);
    }
    for (_, bye) in elapsed.sent.iter().filter(|(_, sent)| sent.flow.endpoint == 1) {
        bench.send(Leg::Remote, &call.answer(&bye.wire, 200).unrouted());
    }
    assert!(bench.run_out().sent.is_empty());
}

#[test]
fn the_bye_into_the_second_pass_goes_by_our_own_routes() {
    let (mut bench, _) = established(&["Session-Expires: 90;refresher=uac"]);
    let elapsed = bench.run_for(s(60));
    let routes: Vec<_> = elapsed.sent.iter().map(|(_, sent)| sent.wire.header("Route").unwrap_or_default()).collect();
    let ours = |order: [&str; 2]| order.map(|host| format!("<sip:{host};lr>")).join(",");
    // To the phones directly; to the application with the way through the other pass.
    assert_eq!(routes.iter().filter(|route| route.is_empty()).count(), 2);
    let through: Vec<_> = routes.iter().filter(|route| !route.is_empty()).collect();
    assert_eq!(through, [&ours(["127.0.0.1:5070", "192.0.2.1"]); 2]);
}
