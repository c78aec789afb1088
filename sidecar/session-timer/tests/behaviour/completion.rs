//! Completing a 2xx of a UAS that knows no timers (RFC 4028 §8.2).

use sipwarden_session_timer::{EventKind, Leg, RefresherPreference, Timers};

use crate::support::{Bench, Call, TIMER, Wire, at_least, both_directions, changed, established};

/// The 200 with the `answered` headers to an INVITE with the `asked` ones: as it came, as it left, what was told.
fn answered(timers: Timers, caller: Leg, asked: &[&str], answered: &[&str]) -> (Wire, Wire, Vec<EventKind>) {
    let mut bench = Bench::enforcing(timers);
    let mut call = Call::from(caller);
    let left = bench.pass(caller, &call.invite().with_all(asked));
    let ok = call.answer(&left, 200).with_all(answered);
    let passage = bench.send(caller.other(), &ok);
    passage.left.assert_well_formed();
    let kinds = passage.kinds();
    (ok, passage.left, kinds)
}

#[test]
fn a_2xx_without_timer_is_completed_for_a_uac_with_one() {
    both_directions(|caller| {
        let (ok, left, kinds) = answered(at_least(90), caller, &[TIMER, "Session-Expires: 900"], &[]);
        assert_eq!(left.added_to(&ok), ["Session-Expires: 900;refresher=uac", "Require: timer"]);
        assert_eq!(
            kinds,
            [
                EventKind::Completed { to: caller, interval: 900 },
                EventKind::Established { interval: Some(900), refresher: Some(caller) }
            ]
        );
    });
}

#[test]
fn the_interval_is_the_one_with_which_the_request_left() {
    both_directions(|caller| {
        let (_, left, _) = answered(at_least(90), caller, &[TIMER], &[]);
        assert_eq!(left.all("Session-Expires"), ["1800;refresher=uac"], "inserted");
        let (_, left, _) = answered(at_least(90), caller, &[TIMER, "Session-Expires: 7200"], &[]);
        assert_eq!(left.all("Session-Expires"), ["1800;refresher=uac"], "lowered");
    });
}

#[test]
fn require_keeps_its_other_tags_and_gets_timer_once() {
    both_directions(|caller| {
        for (required, leaves) in [
            (vec!["Require: 100rel"], vec!["100rel, timer"]),
            (vec!["Require: timer"], vec!["timer"]),
            (vec!["Require: 100rel, TIMER"], vec!["100rel, TIMER"]),
            (vec!["Require: 100rel", "Require: timer"], vec!["100rel", "timer"]),
            (vec!["Require: 100rel", "Require: precondition"], vec!["100rel, timer", "precondition"]),
            (vec!["Require:"], vec!["timer"]),
            (vec![], vec!["timer"]),
        ] {
            let (_, left, _) = answered(at_least(90), caller, &[TIMER], &required);
            assert_eq!(left.all("Require"), leaves, "{required:?}");
        }
    });
}

#[test]
fn uas_is_never_written_for_a_uas_without_timer() {
    // The request asked for the UAS, but who does not answer cannot refresh.
    let (_, left, _) = answered(at_least(90), Leg::Remote, &[TIMER, "Session-Expires: 900;refresher=uas"], &[]);
    assert_eq!(left.all("Session-Expires"), ["900;refresher=uac"]);
    let timers = changed(at_least(90), |timers| timers.refresher = RefresherPreference::Callee);
    let (_, left, _) = answered(timers, Leg::Remote, &[TIMER], &[]);
    assert_eq!(left.all("Session-Expires"), ["1800;refresher=uac"]);
}

#[test]
fn nothing_is_completed_for_a_uac_without_timer() {
    both_directions(|caller| {
        for asked in [&["Supported: 100rel"][..], &["Session-Expires: 900"], &[]] {
            let (ok, left, kinds) = answered(at_least(90), caller, asked, &["Require: 100rel"]);
            assert_eq!(left, ok);
            assert_eq!(kinds, [EventKind::Established { interval: None, refresher: None }]);
        }
    });
}

#[test]
fn uac_without_timer_gets_no_require() {
    both_directions(|caller| {
        let (ok, left, _) = answered(at_least(90), caller, &[], &["Session-Expires: 900;refresher=uas"]);
        assert_eq!(left, ok);
    });
}

#[test]
fn nothing_is_added_where_the_request_left_us_without_interval() {
    // Unreadable and forwarded: nothing was offered.
    let (ok, left, _) = answered(at_least(90), Leg::Local, &[TIMER, "Session-Expires: abc"], &[]);
    assert_eq!(left, ok);
}

#[test]
fn what_a_2xx_says_is_never_changed() {
    both_directions(|caller| {
        for said in [
            "1800;refresher=uac",
            "1000 ; refresher=uas",
            "90;refresher=uas",
            "60;refresher=uas",
            "3600;refresher=uas",
            "700",
        ] {
            let said = format!("Session-Expires: {said}");
            let (ok, left, _) = answered(at_least(120), caller, &[TIMER], &[&said, "Require: timer"]);
            assert_eq!(left, ok);
        }
    });
}

#[test]
fn the_2xx_to_a_refresh_is_completed_for_who_sent_the_refresh() {
    both_directions(|caller| {
        for (method, from) in
            [("INVITE", caller), ("INVITE", caller.other()), ("UPDATE", caller), ("UPDATE", caller.other())]
        {
            let mut bench = Bench::enforcing(at_least(90));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            let left = bench.pass(from, &call.request(from, method).with_all(&[TIMER, "Session-Expires: 700"]));
            let ok = call.answer(&left, 200).with("Require: 100rel");
            let left = bench.pass(from.other(), &ok);
            assert_eq!(left.all("Session-Expires"), ["700;refresher=uac"]);
            assert_eq!(left.all("Require"), ["100rel, timer"]);
            assert_eq!(bench.timer(), Some((700, from)), "uac of this transaction is {from:?}");
        }
    });
}

#[test]
fn provisional_responses_and_failures_are_not_completed() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = Call::from(Leg::Local);
    let left = bench.pass(Leg::Local, &call.invite().with(TIMER));
    for status in [100, 180, 183, 486] {
        let response = call.answer(&left, status);
        assert_eq!(bench.pass(Leg::Remote, &response), response);
    }
}
