//! The BYEs of an expired session are client transactions (RFC 3261 §17.1.2).

use std::time::Duration;

use sipwarden_session_timer::{ByeOutcome, EventKind, Leg, Limits, Mode, Verdict};

use crate::support::{
    Bench, Call, Elapsed, LOCAL_TCP, REMOTE_TCP, Sent, TIMER, Wire, at_least, established, policy, s,
};

const ANSWER: &str = "Session-Expires: 90;refresher=uac";

fn expired(bench: &mut Bench) -> (Call, [Sent; 2]) {
    let call = established(bench, Leg::Remote, &[TIMER], &[ANSWER]);
    let elapsed = bench.run_for(s(60));
    let byes = elapsed.byes().map(Clone::clone);
    (call, byes)
}

fn response(call: &Call, bye: &Sent, status: u16) -> Wire {
    call.answer(&bye.wire, status).unrouted()
}

/// Pauses between what is sent on the flow of `bye`, in seconds; exact to a tick of the wheel.
fn pauses(elapsed: &Elapsed, bye: &Sent, from: sipwarden_session_timer::Time) -> Vec<f64> {
    let times = elapsed.sent.iter().filter(|(_, sent)| sent == bye).map(|(at, _)| *at);
    let mut last = from;
    times
        .map(|at| {
            let pause = at.since(std::mem::replace(&mut last, at));
            let tenths = pause.as_millis() / 100;
            assert!(pause - Duration::from_millis(tenths as u64 * 100) <= Duration::from_millis(16), "{pause:?}");
            tenths as f64 / 10.0
        })
        .collect()
}

#[test]
fn an_unanswered_bye_is_sent_again_ever_more_slowly_until_32_s() {
    let mut bench = Bench::enforcing(at_least(90));
    let (_, byes) = expired(&mut bench);
    let start = bench.now;
    let elapsed = bench.run_for(s(33));
    for bye in &byes {
        assert_eq!(pauses(&elapsed, bye, start), [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
    }
    assert_eq!(
        elapsed.kinds(),
        Leg::BOTH.map(|to| EventKind::ByeDone { to, outcome: ByeOutcome::TimedOut }),
        "both give up"
    );
    let given_up = elapsed.events[0].0.since(start);
    assert!((s(32)..s(32) + Duration::from_millis(17)).contains(&given_up), "{given_up:?}");
    let later = bench.run_for(s(300));
    assert!(later.sent.is_empty());
}

#[test]
fn a_final_response_ends_the_retransmissions_and_goes_no_further() {
    for status in [200, 404, 481, 500, 603] {
        let mut bench = Bench::enforcing(at_least(90));
        let (call, byes) = expired(&mut bench);
        for (bye, to) in byes.iter().zip(Leg::BOTH) {
            let passage = bench.send(to, &response(&call, bye, status));
            assert_eq!(passage.verdict, Verdict::Absorb);
            assert_eq!(passage.kinds(), [EventKind::ByeDone { to, outcome: ByeOutcome::Answered(status) }]);
            assert!(passage.sent.is_empty(), "whatever it says: the call is over");
        }
        assert!(bench.run_for(s(60)).sent.is_empty());
    }
}

#[test]
fn a_leg_that_never_answers_does_not_hold_back_the_other() {
    let mut bench = Bench::enforcing(at_least(90));
    let (call, [to_local, to_remote]) = expired(&mut bench);
    bench.send(Leg::Remote, &response(&call, &to_remote, 200));
    let start = bench.now;
    let elapsed = bench.run_for(s(40));
    assert_eq!(pauses(&elapsed, &to_remote, start), [0.0; 0]);
    assert_eq!(pauses(&elapsed, &to_local, start).len(), 10);
}

#[test]
fn a_provisional_response_slows_the_retransmissions_down() {
    let mut bench = Bench::enforcing(at_least(90));
    let (call, [to_local, _]) = expired(&mut bench);
    let start = bench.now;
    assert_eq!(bench.send(Leg::Local, &response(&call, &to_local, 100)).verdict, Verdict::Absorb);
    let elapsed = bench.run_for(s(33));
    assert_eq!(pauses(&elapsed, &to_local, start), [0.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
}

#[test]
fn on_a_stream_nothing_is_sent_twice() {
    let mut bench = Bench::enforcing(at_least(90));
    bench.flows = [LOCAL_TCP, REMOTE_TCP];
    let (_, byes) = expired(&mut bench);
    for bye in &byes {
        let via = bye.wire.header("Via").expect("a Via");
        assert!(via.starts_with("SIP/2.0/TCP ") && !via.contains("rport"), "{via}");
    }
    let elapsed = bench.run_for(s(31));
    assert!(elapsed.sent.is_empty() && elapsed.events.is_empty());
    assert_eq!(bench.run_for(s(2)).kinds().len(), 2, "but it is given up all the same");
}

#[test]
fn over_udp_the_response_port_is_asked_for() {
    let mut bench = Bench::enforcing(at_least(90));
    let (_, byes) = expired(&mut bench);
    for (bye, sent_by) in byes.iter().zip(["127.0.0.1:5070", "192.0.2.1:5060"]) {
        let via = bye.wire.header("Via").expect("a Via");
        assert!(via.starts_with(&format!("SIP/2.0/UDP {sent_by};rport;branch=z9hG4bK")), "{via}");
    }
}

#[test]
fn a_stranger_cannot_answer_for_a_leg() {
    let mut bench = Bench::enforcing(at_least(90));
    let (call, [to_local, to_remote]) = expired(&mut bench);
    let genuine = response(&call, &to_remote, 200);
    let branch = genuine.header("Via").and_then(|via| via.split_once("branch=")).expect("a branch").1.to_owned();
    let (slot, nonce) = branch.split_once('.').expect("slot and nonce");
    let guessed = Wire(genuine.0.replace(nonce, "0123456789abcdef"));
    let no_nonce = Wire(genuine.0.replace(&branch, slot));
    let wild_slot = Wire(genuine.0.replace(&branch, "z9hG4bKswbffffffff.0123456789abcdef"));
    let other_method = Wire(genuine.0.replace(" BYE", " INFO"));
    for forged in [guessed, no_nonce, wild_slot, other_method] {
        let passage = bench.send(Leg::Remote, &forged);
        assert_eq!((passage.verdict, passage.kinds()), (Verdict::Absorb, vec![]), "{forged}");
    }
    let start = bench.now;
    let elapsed = bench.run_for(s(4));
    assert_eq!(pauses(&elapsed, &to_remote, start), [0.5, 1.0, 2.0]);
    assert_eq!(pauses(&elapsed, &to_local, start), [0.5, 1.0, 2.0]);
}

#[test]
fn a_response_is_told_once() {
    let mut bench = Bench::enforcing(at_least(90));
    let (call, [to_local, _]) = expired(&mut bench);
    let ok = response(&call, &to_local, 200);
    assert_eq!(bench.send(Leg::Local, &ok).kinds().len(), 1);
    let again = bench.send(Leg::Local, &ok);
    assert_eq!((again.verdict, again.kinds()), (Verdict::Absorb, vec![]));
}

#[test]
fn two_expired_sessions_do_not_take_each_others_responses() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut calls = ["a", "b"].map(|id| Call::named(id, Leg::Local));
    for call in &mut calls {
        let left = bench.pass(Leg::Local, &call.invite().with(TIMER));
        bench.pass(Leg::Remote, &call.answer(&left, 200).with(ANSWER));
    }
    let elapsed = bench.run_for(s(60));
    assert_eq!(elapsed.sent.len(), 4);
    let ids =
        |sent: &[Sent]| sent.iter().map(|sent| sent.wire.header("Call-ID").map(str::to_owned)).collect::<Vec<_>>();
    for (_, bye) in elapsed.sent.iter().filter(|(_, sent)| sent.wire.header("Call-ID") == Some("a@call.example")) {
        bench.send(Leg::Local, &response(&calls[0], bye, 200));
    }
    let again: Vec<Sent> = bench.run_for(Duration::from_millis(600)).sent.into_iter().map(|(_, sent)| sent).collect();
    assert_eq!(ids(&again), vec![Some("b@call.example".to_owned()); 2]);
}

#[test]
fn session_time_runs_faster_on_a_fast_clock_but_transactions_do_not() {
    let mut bench = Bench::with_limits(policy(Mode::Enforce, at_least(90)), Limits::default(), 100);
    established(&mut bench, Leg::Remote, &[TIMER], &["Session-Expires: 1800;refresher=uac"]);
    let start = bench.now;
    assert_eq!(bench.session().deadline.map(|deadline| deadline.since(start)), Some(s(18)));
    let before = bench.run_for(Duration::from_millis(17_679));
    assert!(before.events.is_empty());
    let elapsed = bench.run_for(Duration::from_millis(17));
    let byes = elapsed.byes().map(Clone::clone);
    let start = elapsed.sent[0].0;
    let elapsed = bench.run_for(s(33));
    for bye in &byes {
        assert_eq!(pauses(&elapsed, bye, start), [0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]);
    }
}
