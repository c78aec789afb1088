//! No dead call is kept alive: before a refresh the application is asked whether it still has the dialog.

use std::time::Duration;

use sipwarden_session_timer::{EndCause, EventKind, Leg, SessionState, Verdict};

use crate::support::{ALLOW_UPDATE, Bench, Call, Wire, s, standing_in};

const OURS: &str = "Session-Expires: 90;refresher=uac";

/// A call of the application, up to the first question to it.
fn asked(bench: &mut Bench) -> (Call, Wire) {
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite());
    bench.pass(Leg::Remote, &call.answer(&left, 200).with_all(&[OURS, ALLOW_UPDATE]));
    let elapsed = bench.run_for(Duration::from_millis(40_516));
    assert_eq!(elapsed.kinds(), [EventKind::ProbeSent]);
    let probe = elapsed.sent[0].1.wire.clone();
    (call, probe)
}

#[test]
fn the_question_is_an_options_in_the_dialog_with_a_number_of_that_leg() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, probe) = asked(&mut bench);
    assert_eq!(probe.start_line(), format!("OPTIONS {} SIP/2.0", call.contacts[0]));
    assert_eq!(probe.all("From"), [call.party(Leg::Remote)]);
    assert_eq!(probe.all("To"), [call.party(Leg::Local)]);
    assert_eq!(probe.cseq(), call.cseqs[0] + 1, "the peer has not spoken: behind the app's own numbers");
}

#[test]
fn an_app_that_answers_as_one_that_is_there_is_alive_and_the_refresh_goes_out() {
    for status in [200, 401, 405, 415, 480, 501] {
        let mut bench = Bench::enforcing(standing_in(90));
        let (call, probe) = asked(&mut bench);
        let passage = bench.send(Leg::Local, &call.respond(Leg::Local, &probe, status));
        assert_eq!(passage.verdict, Verdict::Absorb);
        assert_eq!(passage.sent[0].wire.method(), "UPDATE", "{status}");
        assert_eq!(passage.sent[0].wire.cseq(), call.cseqs[0] + 1, "a space of its own");
    }
}

#[test]
fn an_app_that_denies_the_dialog_ends_both_legs_and_is_not_refreshed() {
    // 404: what a container answers that was started again.
    for status in [481, 404, 410, 604] {
        let mut bench = Bench::enforcing(standing_in(90));
        let (call, probe) = asked(&mut bench);
        let passage = bench.send(Leg::Local, &call.respond(Leg::Local, &probe, status));
        assert_eq!(passage.sent.iter().map(|sent| sent.wire.method()).collect::<Vec<_>>(), ["BYE", "BYE"]);
        assert_eq!(bench.session().state, SessionState::Ended(EndCause::AppGone));
    }
}

#[test]
fn an_app_that_fails_is_asked_once_more_and_does_not_count_as_alive() {
    for status in [408, 500, 503] {
        let mut bench = Bench::enforcing(standing_in(90));
        let (call, probe) = asked(&mut bench);
        let passage = bench.send(Leg::Local, &call.respond(Leg::Local, &probe, status));
        assert!(passage.sent.is_empty(), "it may only be busy");
        let elapsed = bench.run_for(Duration::from_millis(4016));
        let second = &elapsed.sent[0].1.wire;
        assert_eq!(second.method(), "OPTIONS");
        bench.send(Leg::Local, &call.respond(Leg::Local, second, status));
        assert_eq!(bench.session().state, SessionState::Ended(EndCause::AppGone));
    }
}

#[test]
fn an_app_that_says_nothing_twice_ends_both_legs_in_time() {
    let mut bench = Bench::enforcing(standing_in(90));
    asked(&mut bench);
    let elapsed = bench.run_for(s(21));
    elapsed.byes();
    let failed = elapsed.kinds().iter().filter(|kind| matches!(kind, EventKind::ProbeFailed { status: 408 })).count();
    assert_eq!(failed, 2);
    assert!(elapsed.sent.iter().all(|(_, sent)| sent.wire.method() != "UPDATE"));
    bench.run_out();
}

#[test]
fn one_lost_answer_is_forgiven() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (call, _) = asked(&mut bench);
    let elapsed = bench.run_for(s(13));
    let second = elapsed.sent.iter().rev().map(|(_, sent)| &sent.wire).find(|wire| wire.method() == "OPTIONS");
    let second = second.expect("asked again").clone();
    let passage = bench.send(Leg::Local, &call.respond(Leg::Local, &second, 200));
    assert_eq!(passage.sent[0].wire.method(), "UPDATE");
}

#[test]
fn requests_of_the_peer_are_shifted_past_our_questions() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (mut call, probe) = asked(&mut bench);
    let info = call.request(Leg::Remote, "INFO");
    let left = bench.pass(Leg::Remote, &info);
    assert!(left.cseq() > probe.cseq());
    assert_eq!(bench.pass(Leg::Local, &call.answer(&left, 200)).cseq(), info.cseq());
}
