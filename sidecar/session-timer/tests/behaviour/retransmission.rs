//! What comes twice leaves twice in the same form, and counts once.

use sipwarden_session_timer::{Leg, Mode, Policy, RefresherPreference, Verdict};

use crate::support::{Bench, Call, TIMER, at_least, both_directions, changed, established, policy, s};

/// Another policy in every respect.
fn other_policies() -> [Policy; 3] {
    let mut strict = changed(at_least(900), |timers| timers.refresher = RefresherPreference::Remote);
    strict.below_min_se = sipwarden_session_timer::BelowMinSe::Raise;
    [policy(Mode::Observe, at_least(90)), policy(Mode::Enforce, at_least(1000)), policy(Mode::Enforce, strict)]
}

#[test]
fn a_retransmitted_2xx_is_completed_again_but_arms_nothing() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        let ok = call.answer(&left, 200).with("Require: 100rel");
        let first = bench.send(caller.other(), &ok);
        bench.run_for(s(4));
        let second = bench.send(caller.other(), &ok);
        assert_eq!(first.left, second.left);
        assert_eq!(second.left.header("Require"), Some("100rel, timer"));
        assert_eq!((second.events.len(), bench.deadline_s()), (0, Some(1796)));
    });
}

#[test]
fn a_retransmitted_2xx_with_an_interval_arms_nothing() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with(TIMER));
        let ok = call.answer(&left, 200).with("Session-Expires: 600;refresher=uas");
        bench.pass(caller.other(), &ok);
        for waited in 1..=20 {
            bench.run_for(s(1));
            assert_eq!(bench.pass(caller.other(), &ok), ok);
            assert_eq!(bench.deadline_s(), Some(600 - waited));
        }
    });
}

#[test]
fn a_retransmitted_2xx_to_a_refresh_arms_nothing_either() {
    both_directions(|caller| {
        for (method, from) in [("INVITE", caller), ("INVITE", caller.other()), ("UPDATE", caller.other())] {
            for answer in ["Session-Expires: 700;refresher=uac", "Subject: none"] {
                let mut bench = Bench::enforcing(at_least(90));
                let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
                let request = call.request(from, method).with_all(&[TIMER, "Session-Expires: 700"]);
                let left = bench.pass(from, &request);
                let ok = call.answer(&left, 200).with(answer);
                let first = bench.send(from.other(), &ok);
                bench.run_for(s(5));
                let second = bench.send(from.other(), &ok);
                assert_eq!(first.left, second.left);
                assert_eq!((second.events.len(), bench.deadline_s()), (0, Some(695)));
            }
        }
    });
}

#[test]
fn a_retransmitted_invite_is_judged_once() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(120));
        let invite = Call::from(caller).invite().with_all(&[TIMER, "Session-Expires: 3600", "Min-SE: 90"]);
        let first = bench.send(caller, &invite);
        assert_eq!(first.events.len(), 2);
        let second = bench.send(caller, &invite);
        assert_eq!((first.left, second.events.len()), (second.left, 0));
    });
}

#[test]
fn a_retransmitted_invite_leaves_the_same_after_a_change_of_policy() {
    both_directions(|caller| {
        for other in other_policies() {
            for asked in [&[TIMER][..], &[TIMER, "Session-Expires: 3600"], &[TIMER, "x: 100"], &["x: 60", "Min-SE: 95"]]
            {
                let mut bench = Bench::enforcing(changed(at_least(100), |t| t.refresher = RefresherPreference::Local));
                let invite = Call::from(caller).invite().with_all(asked);
                let first = bench.pass(caller, &invite);
                bench.set_policy(other.clone());
                assert_eq!(bench.pass(caller, &invite), first);
            }
        }
    });
}

#[test]
fn a_2xx_is_completed_as_the_policy_of_its_invite_said() {
    for other in other_policies() {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(Leg::Local);
        let left = bench.pass(Leg::Local, &call.invite().with_all(&[TIMER, "Session-Expires: 600"]));
        bench.set_policy(other);
        let ok = bench.pass(Leg::Remote, &call.answer(&left, 200));
        assert_eq!(ok.header("Session-Expires"), Some("600;refresher=uac"));
    }
}

#[test]
fn a_retransmitted_refresh_leaves_the_same_after_a_change_of_policy() {
    both_directions(|caller| {
        for other in other_policies() {
            for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
                let mut bench = Bench::enforcing(at_least(90));
                let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
                let refresh = call.request(from, method).with_all(&[TIMER, "Session-Expires: 3600"]);
                let first = bench.pass(from, &refresh);
                bench.set_policy(other.clone());
                assert_eq!(bench.pass(from, &refresh), first);
            }
        }
    });
}

#[test]
fn a_late_copy_of_an_older_refresh_and_of_its_answer_arms_nothing() {
    both_directions(|caller| {
        for method in ["INVITE", "UPDATE"] {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            let [(first, first_ok), _] = ["700", "800"].map(|interval| {
                let request = call.request(caller, method).with(TIMER);
                let left = bench.pass(caller, &request);
                let ok = call.answer(&left, 200).with(&format!("Session-Expires: {interval};refresher=uac"));
                bench.pass(caller.other(), &ok);
                (request, ok)
            });
            bench.run_for(s(1));
            bench.pass(caller, &first);
            bench.pass(caller.other(), &first_ok);
            assert_eq!((bench.timer(), bench.deadline_s()), (Some((800, caller)), Some(799)));
        }
    });
}

#[test]
fn observe_does_not_touch_a_retransmission_that_differs_from_the_first() {
    let mut bench = Bench::observing(at_least(90));
    let mut call = Call::from(Leg::Remote);
    let invite = call.invite();
    bench.pass(Leg::Remote, &invite.clone().with(TIMER).with("Session-Expires: 600"));
    bench.pass(Leg::Remote, &invite.with(TIMER));
}

#[test]
fn the_ack_of_a_re_invite_that_passed_after_all_passes_too() {
    // Rejected, and its retransmission judged by a more lenient policy, as the 422 was lost.
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(120));
        let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
        let invite = call.request(caller, "INVITE").with_all(&[TIMER, "Session-Expires: 100"]);
        assert_eq!(bench.send(caller, &invite).verdict, Verdict::Answered(422));
        bench.set_policy(policy(Mode::Enforce, at_least(90)));
        let left = bench.pass(caller, &invite);
        let ok = bench.pass(caller.other(), &call.answer(&left, 200).with("Session-Expires: 100;refresher=uac"));
        bench.pass(caller, &call.ack(&invite, &ok));
    });
}

#[test]
fn after_a_bye_a_retransmitted_2xx_starts_no_session() {
    both_directions(|caller| {
        for ends in Leg::BOTH {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = Call::from(caller);
            let left = bench.pass(caller, &call.invite().with(TIMER));
            let ok = call.answer(&left, 200);
            let first = bench.pass(caller.other(), &ok);
            bench.pass(ends, &call.request(ends, "BYE"));
            for waited in [0, 5, 20] {
                bench.run_for(s(waited));
                let again = bench.send(caller.other(), &ok);
                assert_eq!((again.left, bench.dialogs.active()), (first.clone(), 0));
                assert!(again.events.is_empty());
            }
            bench.run_out();
        }
    });
}
