//! 422 Session Interval Too Small (RFC 4028 §6, §8.1, §9).

use sipwarden_session_timer::{BelowMinSe, EventKind, Leg, Timers, Verdict};

use crate::support::{Bench, Call, TIMER, at_least, both_directions, changed, established, refreshed, s};

#[test]
fn an_interval_below_the_minimum_is_answered_422_with_min_se() {
    both_directions(|caller| {
        for asked in [0, 60, 119] {
            let mut bench = Bench::enforcing(at_least(120));
            let invite = Call::from(caller).invite().with(TIMER).with(&format!("Session-Expires: {asked}"));
            let passage = bench.send(caller, &invite);
            let answer = passage.answer();
            assert_eq!(answer.start_line(), "SIP/2.0 422 Session Interval Too Small");
            assert_eq!(answer.all("Min-SE"), ["120"]);
            for copied in ["Via", "From", "Call-ID", "CSeq"] {
                assert_eq!(answer.all(copied), invite.all(copied));
            }
            assert!(answer.tag("To").is_some());
            assert_eq!(passage.sent[0].flow, bench.flows[caller.index()]);
            assert_eq!(passage.kinds(), [EventKind::Rejected { to: caller, asked, min_se: 120 }]);
        }
    });
}

#[test]
fn below_90_is_below_the_minimum_even_of_the_default_policy() {
    let mut bench = Bench::enforcing(Timers::default());
    let passage = bench.send(Leg::Remote, &Call::from(Leg::Remote).invite().with(TIMER).with("Session-Expires: 89"));
    assert_eq!(passage.answer().all("Min-SE"), ["90"]);
}

#[test]
fn exactly_the_minimum_passes() {
    let mut bench = Bench::enforcing(at_least(120));
    let invite = Call::from(Leg::Remote).invite().with_all(&[TIMER, "Session-Expires: 120", "Min-SE: 120"]);
    assert_eq!(bench.pass(Leg::Remote, &invite), invite);
}

#[test]
fn every_422_of_ours_carries_min_se_in_refreshes_too() {
    both_directions(|caller| {
        for (method, from) in
            [("INVITE", caller), ("INVITE", caller.other()), ("UPDATE", caller), ("UPDATE", caller.other())]
        {
            let mut bench = Bench::enforcing(at_least(120));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            let refresh = call.request(from, method).with(TIMER).with("Session-Expires: 90");
            let passage = bench.send(from, &refresh);
            assert_eq!(passage.answer().status(), Some(422));
            assert_eq!(passage.answer().all("Min-SE"), ["120"]);
            assert_eq!(passage.answer().header("To"), refresh.header("To"), "the tag of the dialog stays");
        }
    });
}

#[test]
fn who_does_not_support_timer_never_gets_a_422() {
    both_directions(|caller| {
        for supported in ["Supported: 100rel", "Supported:", "Allow: INVITE"] {
            let mut bench = Bench::enforcing(at_least(120));
            let invite = Call::from(caller).invite().with(supported).with("Session-Expires: 60");
            let passage = bench.send(caller, &invite);
            assert!(matches!(passage.verdict, Verdict::Forward { .. }));
            assert!(passage.sent.is_empty());
            assert_eq!(passage.left.all("Session-Expires"), ["120"], "raised");
            assert_eq!(passage.left.all("Min-SE"), ["120"], "raised together with the interval");
            assert!(passage.kinds().contains(&EventKind::Raised { from: caller, asked: 60, interval: 120 }));
            assert!(passage.kinds().contains(&EventKind::MinSeRaised { from: caller, min_se: 120 }));
        }
    });
}

#[test]
fn a_raised_interval_respects_a_higher_min_se_of_the_request() {
    let mut bench = Bench::enforcing(at_least(120));
    let left =
        bench.pass(Leg::Remote, &Call::from(Leg::Remote).invite().with_all(&["Session-Expires: 60", "Min-SE: 200"]));
    assert_eq!((left.header("Session-Expires"), left.header("Min-SE")), (Some("200"), Some("200")));
}

#[test]
fn the_policy_may_raise_instead_of_rejecting() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(changed(at_least(120), |timers| timers.below_min_se = BelowMinSe::Raise));
        let left =
            bench.pass(caller, &Call::from(caller).invite().with_all(&[TIMER, "Session-Expires: 60;refresher=uac"]));
        assert_eq!(left.all("Session-Expires"), ["120;refresher=uac"]);
        assert_eq!(left.all("Min-SE"), ["120"]);
    });
}

#[test]
fn the_ack_of_our_422_goes_no_further_and_nothing_is_kept() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(120));
        let call = &mut Call::from(caller);
        let invite = call.invite().with_all(&[TIMER, "Session-Expires: 60"]);
        let rejected = bench.send(caller, &invite);
        let ack = call.ack(&invite, rejected.answer());
        assert_eq!(bench.send(caller, &ack).verdict, Verdict::Absorb);
        assert_eq!((bench.dialogs.known(), bench.dialogs.next_timeout()), (0, None));
    });
}

#[test]
fn the_ack_of_a_422_to_a_re_invite_goes_no_further() {
    both_directions(|caller| {
        for from in Leg::BOTH {
            let mut bench = Bench::enforcing(at_least(120));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            let invite = call.request(from, "INVITE").with_all(&[TIMER, "Session-Expires: 90"]);
            let rejected = bench.send(from, &invite);
            let ack = call.ack(&invite, rejected.answer());
            assert_eq!(bench.send(from, &ack).verdict, Verdict::Absorb);
            assert_eq!(bench.send(from, &ack).verdict, Verdict::Absorb, "its retransmission too");
            refreshed(&mut bench, &mut call, from, "INVITE", &[TIMER], &["Session-Expires: 600;refresher=uac"]);
        }
    });
}

#[test]
fn a_retransmission_gets_the_same_422() {
    let mut bench = Bench::enforcing(at_least(120));
    let invite = Call::from(Leg::Remote).invite().with_all(&[TIMER, "Session-Expires: 60"]);
    let first = bench.send(Leg::Remote, &invite);
    bench.run_for(s(1));
    let second = bench.send(Leg::Remote, &invite);
    assert_eq!(first.answer(), second.answer(), "To tag included");
}

#[test]
fn a_422d_refresh_leaves_the_running_timer_as_it_was() {
    both_directions(|caller| {
        for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
            let mut bench = Bench::enforcing(at_least(120));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            bench.run_for(s(200));
            let refresh = call.request(from, method).with_all(&[TIMER, "Session-Expires: 90;refresher=uas"]);
            assert_eq!(bench.send(from, &refresh).verdict, Verdict::Answered(422));
            assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, caller)), Some(400)));
        }
    });
}

#[test]
fn a_422_of_somebody_else_passes_and_leaves_the_running_timer_as_it_was() {
    both_directions(|caller| {
        for method in ["INVITE", "UPDATE"] {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            bench.run_for(s(200));
            let left = bench.pass(caller, &call.request(caller, method).with_all(&[TIMER, "Session-Expires: 600"]));
            let refusal = call.answer(&left, 422).with("Min-SE: 900");
            let passage = bench.send(caller.other(), &refusal);
            assert_eq!(passage.left, refusal);
            assert_eq!(
                passage.kinds(),
                [
                    EventKind::RejectionSeen { to: caller, min_se: Some(900) },
                    EventKind::RefreshFailed { by: caller, status: 422 }
                ]
            );
            assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, caller)), Some(400)));
        }
    });
}

#[test]
fn an_interval_inserted_after_a_422_in_the_dialog_keeps_its_min_se() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Local, &[TIMER], &["Session-Expires: 1800;refresher=uac"]);
    let left = bench.pass(Leg::Local, &call.request(Leg::Local, "UPDATE").with(TIMER));
    assert_eq!(left.header("Session-Expires"), Some("1800"));
    bench.pass(Leg::Remote, &call.answer(&left, 422).with("Min-SE: 2400"));
    let left = bench.pass(Leg::Local, &call.request(Leg::Local, "UPDATE").with(TIMER));
    assert_eq!(left.header("Session-Expires"), Some("2400"));
}

#[test]
fn a_422_without_min_se_is_told_apart() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite().with(TIMER));
    let passage = bench.send(Leg::Remote, &call.answer(&left, 422));
    assert_eq!(passage.kinds(), [EventKind::RejectionWithoutMinSe { to: Leg::Local }]);
}

#[test]
fn the_retry_after_our_422_is_a_call_like_any_other() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(120));
        let mut call = Call::from(caller);
        let first = call.invite().with_all(&[TIMER, "Session-Expires: 60"]);
        let rejected = bench.send(caller, &first);
        bench.send(caller, &call.ack(&first, rejected.answer()));
        let retry = call.invite().with_all(&[TIMER, "Session-Expires: 120", "Min-SE: 120"]);
        let left = bench.pass(caller, &retry);
        assert_eq!(left, retry);
        bench.pass(caller.other(), &call.answer(&left, 200).with("Session-Expires: 120;refresher=uas"));
        assert_eq!(bench.timer(), Some((120, caller.other())));
    });
}
