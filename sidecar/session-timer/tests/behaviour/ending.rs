//! The ways a call ends without us, and that nothing stays behind.

use sipwarden_session_timer::{EndCause, EventKind, Leg, SessionState, Verdict};

use crate::support::{Bench, Call, TIMER, at_least, both_directions, established, refreshed, s};

const ANSWER: &str = "Session-Expires: 600;refresher=uac";

fn running(caller: Leg) -> (Bench, Call) {
    let mut bench = Bench::enforcing(at_least(90));
    let call = established(&mut bench, caller, &[TIMER], &[ANSWER]);
    (bench, call)
}

/// Nothing of ours is sent any more, and in the end nothing is left.
fn is_over(mut bench: Bench) {
    assert_eq!(bench.dialogs.active(), 0);
    let elapsed = bench.run_out();
    assert!(elapsed.sent.is_empty() && elapsed.events.is_empty());
}

#[test]
fn a_bye_from_either_side_ends_the_timer_at_once() {
    both_directions(|caller| {
        for from in Leg::BOTH {
            let (mut bench, mut call) = running(caller);
            let bye = call.request(from, "BYE");
            let passage = bench.send(from, &bye);
            assert_eq!(passage.left, bye);
            assert_eq!(passage.kinds(), [EventKind::Ended { cause: EndCause::Bye(from) }]);
            assert_eq!(bench.session().state, SessionState::Ended(EndCause::Bye(from)));
            let ok = call.answer(&bye, 200);
            assert_eq!(bench.pass(from.other(), &ok), ok);
            is_over(bench);
        }
    });
}

#[test]
fn what_crosses_a_bye_passes_and_revives_nothing() {
    both_directions(|caller| {
        let (mut bench, mut call) = running(caller);
        let left = bench.pass(caller, &call.request(caller, "INVITE").with(TIMER));
        bench.pass(caller.other(), &call.request(caller.other(), "BYE"));
        let ok = call.answer(&left, 200).with(ANSWER);
        assert_eq!(bench.pass(caller.other(), &ok), ok);
        for (from, method) in [(caller, "ACK"), (caller, "UPDATE"), (caller, "BYE"), (caller.other(), "BYE")] {
            let request = call.request(from, method);
            assert_eq!(bench.pass(from, &request), request, "the other side answers that itself");
        }
        is_over(bench);
    });
}

#[test]
fn a_response_that_ends_the_dialog_ends_the_timer() {
    both_directions(|caller| {
        for status in [404, 408, 410, 416, 480, 481, 482, 483, 484, 485, 604] {
            for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
                let (mut bench, mut call) = running(caller);
                let left = bench.pass(from, &call.request(from, method).with(TIMER));
                let answer = call.answer(&left, status);
                let passage = bench.send(from.other(), &answer);
                assert_eq!(passage.left, answer);
                assert_eq!(
                    passage.kinds(),
                    [
                        EventKind::RefreshFailed { by: from, status },
                        EventKind::Ended { cause: EndCause::Response(status) }
                    ]
                );
                is_over(bench);
            }
        }
    });
}

#[test]
fn a_dialog_unknown_to_an_info_or_prack_ends_the_timer_too() {
    both_directions(|caller| {
        for (method, status) in [("INFO", 481), ("INFO", 408), ("PRACK", 481)] {
            let (mut bench, mut call) = running(caller);
            let left = bench.pass(caller, &call.request(caller, method));
            bench.pass(caller.other(), &call.answer(&left, status));
            is_over(bench);
        }
    });
}

#[test]
fn failures_of_other_requests_end_nothing() {
    both_directions(|caller| {
        for (method, status) in [("INFO", 501), ("INFO", 415), ("NOTIFY", 481), ("MESSAGE", 404), ("REFER", 603)] {
            let (mut bench, mut call) = running(caller);
            let left = bench.pass(caller, &call.request(caller, method));
            bench.pass(caller.other(), &call.answer(&left, status));
            assert_eq!((bench.dialogs.active(), bench.deadline_s()), (1, Some(600)), "{method} {status}");
        }
    });
}

#[test]
fn a_call_that_is_refused_leaves_nothing_behind() {
    both_directions(|caller| {
        for status in [302, 401, 404, 422, 486, 487, 503, 603] {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = Call::from(caller);
            let invite = call.invite().with(TIMER);
            let left = bench.pass(caller, &invite);
            bench.pass(caller.other(), &call.answer(&left, 180));
            let refused = bench.pass(caller.other(), &call.answer(&left, status));
            bench.pass(caller, &call.ack(&invite, &refused));
            let late = call.answer(&left, 200);
            assert_eq!(bench.pass(caller.other(), &late), late, "nobody waits for a 2xx any more");
            is_over(bench);
        }
    });
}

#[test]
fn a_challenged_invite_is_tried_again_with_credentials() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        bench.pass(caller.other(), &call.answer(&left, 407));
        let left = bench.pass(caller, &call.invite().with(TIMER).with("Proxy-Authorization: Digest x=y"));
        bench.pass(caller.other(), &call.answer(&left, 200).with(ANSWER));
        assert_eq!(bench.timer(), Some((600, caller)));
    });
}

#[test]
fn a_cancelled_call_leaves_nothing_behind() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let invite = call.invite().with(TIMER);
    let left = bench.pass(Leg::Remote, &invite);
    let cancel = crate::support::Wire(invite.without("Contact").without("Supported").0.replace("INVITE", "CANCEL"));
    assert_eq!(bench.pass(Leg::Remote, &cancel), cancel);
    bench.pass(Leg::Local, &call.answer(&cancel, 200));
    assert!(bench.dialogs.next_timeout().is_some(), "the INVITE still waits for its own answer");
    bench.pass(Leg::Local, &call.answer(&left, 487));
    is_over(bench);
}

#[test]
fn an_invite_nobody_answers_is_forgotten() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        bench.run_for(s(301));
        assert_eq!(bench.dialogs.next_timeout(), None);
        let late = call.answer(&left, 200);
        assert_eq!(bench.pass(caller.other(), &late), late);
        is_over(bench);
    });
}

#[test]
fn ringing_keeps_an_invite() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        for _ in 0..10 {
            bench.run_for(s(180));
            bench.pass(caller.other(), &call.answer(&left, 180));
        }
        bench.pass(caller.other(), &call.answer(&left, 200).with(ANSWER));
        assert_eq!(bench.deadline_s(), Some(600));
    });
}

#[test]
fn a_session_without_timer_is_forgotten_after_a_long_silence() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = established(&mut bench, caller, &[], &[]);
        bench.run_for(s(11 * 3600));
        bench.pass(caller, &call.request(caller, "INFO"));
        bench.run_for(s(11 * 3600));
        assert_eq!(bench.dialogs.active(), 1, "it was heard of");
        let elapsed = bench.run_for(s(3601));
        assert_eq!(elapsed.kinds(), [EventKind::Ended { cause: EndCause::Forgotten }]);
        assert!(elapsed.sent.is_empty());
        is_over(bench);
    });
}

#[test]
fn a_refresh_of_a_dialog_nobody_saw_start_passes_and_is_told() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        for (method, told) in [("INVITE", 1), ("UPDATE", 1), ("INFO", 0), ("BYE", 0), ("ACK", 0)] {
            let request = call.request(caller, method).with(TIMER);
            let passage = bench.send(caller, &request);
            assert_eq!(passage.verdict, Verdict::Forward { toward: None, cseq: None });
            assert_eq!(passage.left, request);
            assert_eq!(passage.kinds(), vec![EventKind::UnknownDialog { from: caller }; told]);
        }
        is_over(bench);
    });
}

#[test]
fn messages_outside_any_call_pass() {
    for method in ["REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "PUBLISH"] {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(Leg::Remote);
        let mut invite = call.invite().with(TIMER).with("Session-Expires: 60");
        invite.0 = invite.0.replace("INVITE", method);
        assert_eq!(bench.pass(Leg::Remote, &invite), invite);
        let ok = call.answer(&invite, 200);
        assert_eq!(bench.pass(Leg::Local, &ok), ok);
        is_over(bench);
    }
}

#[test]
fn many_calls_of_every_fate_leave_nothing_behind() {
    let mut bench = Bench::enforcing(at_least(90));
    for number in 0..60 {
        let caller = Leg::BOTH[number % 2];
        let mut call = Call::named(&number.to_string(), caller);
        let left = bench.pass(caller, &call.invite().with_all(&[TIMER, &format!("x: {}", 90 + number * 7)]));
        bench.run_for(s(1));
        match number % 6 {
            0 => bench.pass(caller.other(), &call.answer(&left, 486)),
            1 => left,
            2 => bench.pass(caller.other(), &call.answer(&left, 200)),
            3 => {
                bench.pass(caller.other(), &call.answer(&left, 200));
                bench.pass(caller, &call.request(caller, "BYE"))
            }
            4 => {
                bench.pass(caller.other(), &call.answer(&left, 200).with("x: 90;refresher=uas"));
                refreshed(&mut bench, &mut call, caller, "UPDATE", &[TIMER], &[]);
                left
            }
            _ => {
                bench.pass(caller.other(), &call.answer(&left, 200));
                let update = bench.pass(caller, &call.request(caller, "UPDATE"));
                bench.pass(caller.other(), &call.answer(&update, 481))
            }
        };
    }
    let elapsed = bench.run_out();
    let expired = elapsed.kinds().iter().filter(|kind| matches!(kind, EventKind::Expired { .. })).count();
    assert_eq!(expired, 20, "every session with a timer that nobody ended");
}
