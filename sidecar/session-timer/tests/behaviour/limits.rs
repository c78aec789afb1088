//! At a limit calls go on untouched, and it is told.

use sipwarden_session_timer::{EventKind, Leg, LimitKind, Limits, Mode, SdpUnusable};

use crate::support::{Bench, Call, SDP_REMOTE, TIMER, at_least, both_directions, policy, s, standing_in};

fn limited(limits: Limits) -> Bench {
    Bench::with_limits(policy(Mode::Enforce, at_least(120)), limits, 1)
}

#[test]
fn a_call_too_many_is_forwarded_untouched_and_told() {
    both_directions(|caller| {
        let mut bench = limited(Limits { calls: 2, ..Limits::default() });
        for id in ["a", "b"] {
            bench.pass(caller, &Call::named(id, caller).invite().with(TIMER));
        }
        let mut third = Call::named("c", caller);
        let invite = third.invite().with_all(&[TIMER, "Session-Expires: 60"]);
        let passage = bench.send(caller, &invite);
        assert_eq!(passage.left, invite);
        assert_eq!(passage.kinds(), [EventKind::LimitReached { limit: LimitKind::Calls }]);
        assert!(!passage.events[0].observed, "a limit is real in every mode");
        let ok = third.answer(&invite, 200);
        assert_eq!(bench.pass(caller.other(), &ok), ok);
        assert_eq!(bench.dialogs.known(), 0);
    });
}

#[test]
fn room_is_free_again_when_a_call_is_over() {
    let mut bench = limited(Limits { calls: 1, ..Limits::default() });
    for id in ["a", "b", "c"] {
        let mut call = Call::named(id, Leg::Local);
        let left = bench.pass(Leg::Local, &call.invite().with(TIMER));
        assert!(left.header("Session-Expires").is_some(), "{id}");
        bench.pass(Leg::Remote, &call.answer(&left, 200));
        bench.pass(Leg::Local, &call.request(Leg::Local, "BYE"));
        bench.run_for(s(38));
    }
}

#[test]
fn an_invite_too_many_of_one_call_is_forwarded_untouched_and_told() {
    let mut bench = limited(Limits { per_call: 3, ..Limits::default() });
    let mut call = Call::from(Leg::Remote);
    for _ in 0..3 {
        bench.pass(Leg::Remote, &call.invite().with(TIMER));
    }
    let invite = call.invite().with(TIMER);
    let passage = bench.send(Leg::Remote, &invite);
    assert_eq!(passage.left, invite);
    assert_eq!(passage.kinds(), [EventKind::LimitReached { limit: LimitKind::Forks }]);
    bench.run_out();
}

#[test]
fn a_fork_too_many_gets_no_session_and_is_told() {
    both_directions(|caller| {
        let mut bench = limited(Limits { per_call: 2, ..Limits::default() });
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        for number in 0..4 {
            call.tags[caller.other().index()] = format!("fork-{number}");
            let passage = bench.send(caller.other(), &call.answer(&left, 200));
            let is_told = passage.kinds().contains(&EventKind::LimitReached { limit: LimitKind::Forks });
            assert_eq!(is_told, number >= 2);
            assert!(passage.left.header("Require").is_some(), "its UAC learns its refresher all the same");
        }
        assert_eq!(bench.dialogs.active(), 2);
    });
}

#[test]
fn a_caller_too_long_to_keep_is_forwarded_untouched_and_told() {
    let mut bench = limited(Limits { identity_len: 300, ..Limits::default() });
    let route = format!("Record-Route: <sip:{}.example;lr>", "x".repeat(300));
    let invite = Call::from(Leg::Remote).invite().with(TIMER).with(&route);
    let passage = bench.send(Leg::Remote, &invite);
    assert_eq!(passage.left, invite);
    assert_eq!(passage.kinds(), [EventKind::LimitReached { limit: LimitKind::IdentitySize }]);
    assert_eq!(bench.dialogs.next_timeout(), None);
}

#[test]
fn a_callee_too_long_to_keep_gets_no_session_and_is_told() {
    let mut bench = limited(Limits { identity_len: 300, ..Limits::default() });
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().with(TIMER));
    let route = format!("<sip:{}.example;lr>", "x".repeat(300));
    let passage = bench.send(Leg::Local, &call.answer_through(&left, 200, &[&route]));
    assert_eq!(passage.kinds(), [EventKind::LimitReached { limit: LimitKind::IdentitySize }]);
    assert_eq!(bench.dialogs.known(), 0);
    bench.run_out();
}

#[test]
fn a_flood_of_refreshes_keeps_the_latest() {
    both_directions(|caller| {
        let mut bench = limited(Limits::default());
        let mut call = crate::support::established(&mut bench, caller, &[TIMER], &["x: 600;refresher=uac"]);
        let mut last = call.request(caller, "INVITE");
        for _ in 0..50 {
            last = bench.pass(caller, &call.request(caller, "UPDATE").with(TIMER));
        }
        bench.pass(caller.other(), &call.answer(&last, 200).with("x: 700;refresher=uac"));
        assert_eq!(bench.timer(), Some((700, caller)));
    });
}

#[test]
fn early_dialogs_beyond_the_limit_are_forwarded_but_not_kept() {
    let mut bench =
        Bench::with_limits(policy(Mode::Enforce, standing_in(90)), Limits { per_call: 2, ..Limits::default() }, 1);
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite());
    for fork in ["one", "two", "three"] {
        call.tags[1] = fork.into();
        bench
            .pass(Leg::Remote, &call.answer(&left, 183).with_all(&["Require: 100rel", "RSeq: 1"]).with_sdp(SDP_REMOTE));
        let prack = call.request(Leg::Local, "PRACK").with("RAck: 1 101 INVITE");
        assert_eq!(bench.pass(Leg::Local, &prack), prack);
    }
    bench.pass(Leg::Remote, &call.answer(&left, 200));
    assert_eq!(bench.session().acting.expect("we act").sdp, Err(SdpUnusable::Unknown), "the third was not followed");
}
