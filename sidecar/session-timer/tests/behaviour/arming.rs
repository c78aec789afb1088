//! What arms, re-arms, changes and turns off the timer, and what does not.

use sipwarden_session_timer::{EventKind, Leg};
use sipwarden_sip::Method;

use crate::support::{Bench, Call, TIMER, at_least, both_directions, established, refreshed, s};

const METHODS: [&str; 2] = ["INVITE", "UPDATE"];

/// A call with 600 s and the caller as refresher, 200 s ago.
fn running(caller: Leg) -> (Bench, Call) {
    let mut bench = Bench::enforcing(at_least(90));
    let call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
    bench.run_for(s(200));
    assert_eq!(bench.deadline_s(), Some(400));
    (bench, call)
}

#[test]
fn the_timer_counts_from_the_2xx_and_not_from_the_invite() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with_all(&[TIMER, "Session-Expires: 120"]));
        let elapsed = bench.run_for(s(250));
        assert!(elapsed.events.is_empty(), "ringing is no session");
        bench.pass(caller.other(), &call.answer(&left, 200).with("Session-Expires: 120;refresher=uac"));
        assert_eq!(bench.deadline_s(), Some(120));
    });
}

#[test]
fn the_interval_and_refresher_of_the_2xx_are_used_and_not_those_of_the_request() {
    both_directions(|caller| {
        for (said, refresher) in [("uac", caller), ("uas", caller.other())] {
            let mut bench = Bench::enforcing(at_least(90));
            let answer = format!("Session-Expires: 300;refresher={said}");
            established(&mut bench, caller, &[TIMER, "Session-Expires: 1700"], &[&answer]);
            assert_eq!((bench.timer(), bench.deadline_s()), (Some((300, refresher)), Some(300)));
        }
    });
}

#[test]
fn the_2xx_of_a_uas_decides_for_a_uac_without_timer_too() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        established(&mut bench, caller, &[], &["Session-Expires: 300;refresher=uas"]);
        assert_eq!(bench.timer(), Some((300, caller.other())));
    });
}

#[test]
fn a_2xx_to_invite_or_update_from_either_side_re_arms_with_its_own_interval() {
    both_directions(|caller| {
        for (method, from) in METHODS.into_iter().flat_map(|method| Leg::BOTH.map(|from| (method, from))) {
            let (mut bench, mut call) = running(caller);
            let asked = [TIMER, "Session-Expires: 900"];
            refreshed(&mut bench, &mut call, from, method, &asked, &["Session-Expires: 700;refresher=uac"]);
            assert_eq!((bench.timer(), bench.deadline_s()), (Some((700, from)), Some(700)), "{method} from {from:?}");
        }
    });
}

#[test]
fn the_refresher_is_relative_to_each_transaction_and_not_to_the_call() {
    both_directions(|caller| {
        let callee = caller.other();
        for (from, said, refresher) in
            [(caller, "uac", caller), (caller, "uas", callee), (callee, "uac", callee), (callee, "uas", caller)]
        {
            let (mut bench, mut call) = running(caller);
            let answer = format!("Session-Expires: 600;refresher={said}");
            refreshed(&mut bench, &mut call, from, "UPDATE", &[TIMER], &[&answer]);
            assert_eq!(bench.timer(), Some((600, refresher)), "{said} when {from:?} refreshes");
        }
    });
}

#[test]
fn a_refresh_is_told_with_who_sent_it() {
    let (mut bench, mut call) = running(Leg::Remote);
    let left = bench.pass(Leg::Local, &call.request(Leg::Local, "UPDATE").with(TIMER));
    let passage = bench.send(Leg::Remote, &call.answer(&left, 200).with("Session-Expires: 600;refresher=uas"));
    let told = EventKind::Refreshed { by: Leg::Local, method: Method::Update, interval: 600, refresher: Leg::Remote };
    assert_eq!(passage.kinds(), [told]);
}

#[test]
fn requests_that_are_no_refresh_do_not_move_the_deadline() {
    both_directions(|caller| {
        for method in ["INFO", "PRACK", "OPTIONS", "MESSAGE", "NOTIFY", "REFER", "SUBSCRIBE"] {
            for from in Leg::BOTH {
                let (mut bench, mut call) = running(caller);
                let left = bench.pass(from, &call.request(from, method).with(TIMER));
                bench.pass(from.other(), &call.answer(&left, 200).with("Session-Expires: 900;refresher=uac"));
                assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, caller)), Some(400)), "{method}");
            }
        }
    });
}

#[test]
fn an_ack_does_not_move_the_deadline() {
    let (mut bench, mut call) = running(Leg::Remote);
    for from in Leg::BOTH {
        bench.pass(from, &call.request(from, "ACK"));
        assert_eq!(bench.deadline_s(), Some(400));
    }
}

#[test]
fn a_refresh_request_alone_does_not_move_the_deadline() {
    both_directions(|caller| {
        for method in METHODS {
            let (mut bench, mut call) = running(caller);
            bench.pass(caller, &call.request(caller, method).with_all(&[TIMER, "Session-Expires: 900"]));
            assert_eq!(bench.deadline_s(), Some(400));
        }
    });
}

#[test]
fn a_provisional_or_failed_refresh_does_not_move_the_deadline() {
    both_directions(|caller| {
        for (method, from) in METHODS.into_iter().flat_map(|method| Leg::BOTH.map(|from| (method, from))) {
            for status in [100, 180, 183, 302, 400, 401, 403, 405, 407, 415, 488, 491, 500, 501, 503, 600, 603, 606] {
                let (mut bench, mut call) = running(caller);
                let left = bench.pass(from, &call.request(from, method).with_all(&[TIMER, "Session-Expires: 900"]));
                let answer = call.answer(&left, status).with("Session-Expires: 900;refresher=uac");
                assert_eq!(bench.pass(from.other(), &answer), answer);
                assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, caller)), Some(400)), "{method} {status}");
            }
        }
    });
}

#[test]
fn a_refresh_that_failed_may_be_tried_again() {
    both_directions(|caller| {
        let (mut bench, mut call) = running(caller);
        let left = bench.pass(caller, &call.request(caller, "INVITE").with(TIMER));
        bench.pass(caller.other(), &call.answer(&left, 491));
        refreshed(&mut bench, &mut call, caller, "INVITE", &[TIMER], &["Session-Expires: 500;refresher=uac"]);
        assert_eq!((bench.timer(), bench.deadline_s()), (Some((500, caller)), Some(500)));
    });
}

#[test]
fn refreshes_of_both_sides_at_once_are_told_apart_even_with_equal_cseq() {
    let (mut bench, mut call) = running(Leg::Local);
    call.cseqs = [500, 500];
    let of_local = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE").with(TIMER));
    let of_remote = bench.pass(Leg::Remote, &call.request(Leg::Remote, "INVITE").with(TIMER));
    bench.pass(Leg::Remote, &call.answer(&of_local, 491));
    assert_eq!(bench.deadline_s(), Some(400));
    bench.pass(Leg::Local, &call.answer(&of_remote, 200).with("Session-Expires: 700;refresher=uac"));
    assert_eq!(bench.timer(), Some((700, Leg::Remote)));
}

#[test]
fn a_2xx_without_interval_to_a_uac_without_timer_turns_the_timer_off() {
    both_directions(|caller| {
        for (method, from) in METHODS.into_iter().flat_map(|method| Leg::BOTH.map(|from| (method, from))) {
            let (mut bench, mut call) = running(caller);
            let left = bench.pass(from, &call.request(from, method));
            let passage = bench.send(from.other(), &call.answer(&left, 200));
            assert_eq!(passage.kinds(), [EventKind::TimerOff { by: from }]);
            assert_eq!(bench.timer(), None);
            let elapsed = bench.run_for(s(3600));
            assert!(elapsed.sent.is_empty() && elapsed.events.is_empty(), "a call without a timer goes on");
        }
    });
}

#[test]
fn a_timer_that_was_turned_off_is_turned_on_again_by_a_later_2xx() {
    let (mut bench, mut call) = running(Leg::Local);
    refreshed(&mut bench, &mut call, Leg::Local, "UPDATE", &[], &[]);
    assert_eq!(bench.timer(), None);
    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER], &["Session-Expires: 400;refresher=uac"]);
    assert_eq!((bench.timer(), bench.deadline_s()), (Some((400, Leg::Remote)), Some(400)));
}

#[test]
fn a_2xx_below_our_minimum_is_used_and_told_and_one_below_90_is_used_as_90() {
    both_directions(|caller| {
        for (said, used) in [(119, 119), (100, 100), (90, 90), (89, 90), (0, 90)] {
            let mut bench = Bench::enforcing(at_least(120));
            let mut call = Call::from(caller);
            let left = bench.pass(caller, &call.invite().with(TIMER));
            let ok = call.answer(&left, 200).with(&format!("Session-Expires: {said};refresher=uac"));
            let passage = bench.send(caller.other(), &ok);
            assert_eq!(passage.left, ok, "never changed");
            assert!(passage.kinds().contains(&EventKind::ShortInterval { interval: used }));
            assert_eq!(bench.timer(), Some((used, caller)));
        }
    });
}

#[test]
fn a_2xx_without_refresher_takes_the_one_asked_for_and_is_told() {
    both_directions(|caller| {
        for (asked, taken) in [(";refresher=uac", caller), (";refresher=uas", caller.other()), ("", caller)] {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = Call::from(caller);
            let left = bench.pass(caller, &call.invite().with_all(&[TIMER, &format!("Session-Expires: 600{asked}")]));
            let passage = bench.send(caller.other(), &call.answer(&left, 200).with("Session-Expires: 600"));
            assert!(passage.kinds().contains(&EventKind::RefresherUnclear { taken }));
            assert_eq!(bench.timer(), Some((600, taken)));
        }
    });
}

#[test]
fn a_longer_and_a_shorter_interval_both_take_effect_at_once() {
    both_directions(|caller| {
        for interval in [100, 1800] {
            let (mut bench, mut call) = running(caller);
            let answer = format!("Session-Expires: {interval};refresher=uac");
            refreshed(&mut bench, &mut call, caller, "UPDATE", &[TIMER], &[&answer]);
            let margin = 32.min(interval / 3);
            let quiet = bench.run_for(s(interval - margin - 1));
            assert!(quiet.events.is_empty(), "nothing of the old timer is left");
            let elapsed = bench.run_for(s(2));
            assert!(elapsed.kinds().contains(&EventKind::Expired { interval: interval as u32, refresher: caller }));
        }
    });
}
