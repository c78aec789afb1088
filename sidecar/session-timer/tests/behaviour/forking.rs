//! One INVITE, several answers: each To tag is a session of its own.

use sipwarden_session_timer::{EndCause, EventKind, Leg, SessionState, SessionView};

use crate::support::{Bench, Call, TIMER, Wire, at_least, both_directions, s};

/// The fork `name` of a call: another callee with the same Call-ID and caller.
fn fork(call: &Call, name: &str) -> Call {
    let mut fork = Call::from(call.caller);
    let callee = call.callee().index();
    fork.tags[callee] = format!("fork-{name}");
    fork.contacts[callee] = format!("sip:{name}@203.0.113.9");
    fork.cseqs = call.cseqs;
    fork
}

/// An INVITE of `caller` as it left, and two forks that got it.
fn forked(caller: Leg) -> (Bench, Wire, [Call; 2]) {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(caller);
    let left = bench.pass(caller, &call.invite().with_all(&[TIMER, "Session-Expires: 1800"]));
    let forks = ["a", "b"].map(|name| fork(&call, name));
    (bench, left, forks)
}

fn session_of(bench: &Bench, fork: &Call) -> SessionView {
    let party = fork.party(fork.callee());
    let mut sessions = bench.dialogs.sessions(0, 10).into_iter();
    sessions.find(|session| session.legs[fork.callee().index()].party == party.as_bytes()).expect("the fork's session")
}

#[test]
fn each_fork_that_answers_is_a_session_with_its_own_timer() {
    both_directions(|caller| {
        let (mut bench, left, [a, b]) = forked(caller);
        bench.pass(caller.other(), &a.answer(&left, 200).with("Session-Expires: 300;refresher=uas"));
        bench.run_for(s(10));
        let completed = bench.pass(caller.other(), &b.answer(&left, 200));
        assert_eq!(completed.header("Session-Expires"), Some("1800;refresher=uac"));
        let (of_a, of_b) = (session_of(&bench, &a), session_of(&bench, &b));
        assert_eq!((of_a.interval, of_a.refresher), (Some(300), Some(caller.other())));
        assert_eq!((of_b.interval, of_b.refresher), (Some(1800), Some(caller)));
        assert_eq!(bench.dialogs.active(), 2);
        assert_ne!(of_a.id, of_b.id);
    });
}

#[test]
fn one_fork_expires_and_the_other_lives() {
    both_directions(|caller| {
        let (mut bench, left, [a, b]) = forked(caller);
        bench.pass(caller.other(), &a.answer(&left, 200).with("Session-Expires: 90;refresher=uas"));
        bench.pass(caller.other(), &b.answer(&left, 200).with("Session-Expires: 900;refresher=uas"));
        let elapsed = bench.run_for(s(61));
        let byes = elapsed.byes();
        assert_eq!(byes[caller.other().index()].wire.request_uri(), "sip:a@203.0.113.9");
        assert!(byes.iter().all(|bye| bye.wire.0.contains("fork-a") && !bye.wire.0.contains("fork-b")));
        assert_eq!(session_of(&bench, &b).state, SessionState::Active);
    });
}

#[test]
fn a_bye_ends_only_its_fork_and_a_refresh_re_arms_only_its_fork() {
    both_directions(|caller| {
        let (mut bench, left, [mut a, mut b]) = forked(caller);
        for fork in [&a, &b] {
            bench.pass(caller.other(), &fork.answer(&left, 200).with("Session-Expires: 900;refresher=uas"));
        }
        bench.run_for(s(100));
        bench.pass(caller, &a.request(caller, "BYE"));
        let update = bench.pass(caller.other(), &b.request(caller.other(), "UPDATE").with(TIMER));
        bench.pass(caller, &b.answer(&update, 200).with("Session-Expires: 700;refresher=uac"));
        assert_eq!(session_of(&bench, &a).state, SessionState::Ended(EndCause::Bye(caller)));
        assert_eq!(session_of(&bench, &b).interval, Some(700));
    });
}

#[test]
fn the_forks_that_lose_leave_nothing_behind() {
    both_directions(|caller| {
        let (mut bench, left, [mut a, b]) = forked(caller);
        bench.pass(caller.other(), &a.answer(&left, 180));
        bench.pass(caller.other(), &b.answer(&left, 183));
        bench.pass(caller.other(), &a.answer(&left, 200));
        assert_eq!((bench.dialogs.known(), bench.dialogs.active()), (1, 1));
        bench.pass(caller, &a.request(caller, "BYE"));
        bench.run_out();
    });
}

#[test]
fn a_failure_after_the_first_2xx_does_not_touch_the_session() {
    let (mut bench, left, [a, b]) = forked(Leg::Local);
    bench.pass(Leg::Remote, &a.answer(&left, 200));
    for (fork, status) in [(&b, 404), (&b, 481), (&a, 481), (&b, 487), (&b, 603)] {
        bench.pass(Leg::Remote, &fork.answer(&left, status));
    }
    assert_eq!(session_of(&bench, &a).state, SessionState::Active);
    bench.pass(Leg::Remote, &b.answer(&left, 200));
    assert_eq!(bench.dialogs.active(), 2, "another fork may still answer");
}

/// An INVITE that a proxy before us forked, or that came by two ways: its copies as they left.
fn forked_before_us(bench: &mut Bench, caller: Leg) -> (Call, [Wire; 2]) {
    let mut call = Call::from(caller);
    let invite = call.invite().with_all(&[TIMER, "Session-Expires: 1800"]);
    let copies =
        ["one", "two"].map(|branch| Wire(invite.0.replace("branch=z9hG4bK", &format!("branch=z9hG4bK-{branch}"))));
    (call, copies.map(|copy| bench.pass(caller, &copy)))
}

#[test]
fn a_copy_that_is_refused_takes_no_timer_from_the_other() {
    both_directions(|caller| {
        for refused in [0, 1] {
            let mut bench = Bench::enforcing(at_least(90));
            let (call, copies) = forked_before_us(&mut bench, caller);
            let failure = call.answer(&copies[refused], 482);
            for _ in 0..2 {
                bench.pass(caller.other(), &failure);
            }
            let ok = bench.pass(caller.other(), &call.answer(&copies[1 - refused], 200));
            assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec!["1800;refresher=uac"], vec!["timer"]));
            assert_eq!(bench.timer(), Some((1800, caller)));
        }
    });
}

#[test]
fn when_all_copies_have_failed_nothing_is_left_of_their_invite() {
    let mut bench = Bench::enforcing(at_least(90));
    let (call, copies) = forked_before_us(&mut bench, Leg::Remote);
    for copy in &copies {
        bench.pass(Leg::Local, &call.answer(copy, 486));
    }
    let late = call.answer(&copies[0], 200);
    assert_eq!(bench.pass(Leg::Local, &late), late);
    assert_eq!(bench.dialogs.known(), 0);
}

#[test]
fn a_fork_that_answers_too_late_is_not_tracked() {
    let (mut bench, left, [a, b]) = forked(Leg::Local);
    bench.pass(Leg::Remote, &a.answer(&left, 200));
    bench.run_for(s(33));
    let late = b.answer(&left, 200);
    assert_eq!(bench.pass(Leg::Remote, &late), late);
    assert_eq!(bench.dialogs.active(), 1);
}

#[test]
fn ringing_of_a_fork_does_not_keep_an_answered_invite() {
    let (mut bench, left, [a, b]) = forked(Leg::Local);
    bench.pass(Leg::Remote, &a.answer(&left, 200));
    bench.run_for(s(20));
    bench.pass(Leg::Remote, &b.answer(&left, 180));
    bench.run_for(s(20));
    bench.pass(Leg::Remote, &b.answer(&left, 200));
    assert_eq!(bench.dialogs.active(), 1);
}

#[test]
fn each_fork_has_the_route_set_of_its_own_answer() {
    let (mut bench, left, [a, b]) = forked(Leg::Local);
    for (fork, route) in [(&a, "<sip:via-a;lr>"), (&b, "<sip:via-b;lr>")] {
        let ok = fork.answer_through(&left, 200, &[route]).with("Session-Expires: 90;refresher=uas");
        bench.pass(Leg::Remote, &ok);
    }
    let elapsed = bench.run_for(s(60));
    let routes: Vec<_> = elapsed.sent.iter().filter_map(|(_, sent)| sent.wire.header("Route")).collect();
    assert_eq!(routes, ["<sip:via-a;lr>", "<sip:via-b;lr>"]);
}

#[test]
fn every_established_fork_is_told() {
    let (mut bench, left, forks) = forked(Leg::Remote);
    for fork in &forks {
        let passage = bench.send(Leg::Local, &fork.answer(&left, 200).with("Session-Expires: 90;refresher=uas"));
        let told = EventKind::Established { interval: Some(90), refresher: Some(Leg::Local) };
        assert_eq!(passage.kinds(), [told]);
        assert_eq!(passage.events[0].session, Some(session_of(&bench, fork).id));
    }
}
