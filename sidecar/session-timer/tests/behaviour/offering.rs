//! What an acceptable request offers when it leaves (RFC 4028 §8.1).

use sipwarden_session_timer::{EventKind, Leg, RefresherPreference, Timers};

use crate::support::{Bench, Call, TIMER, Wire, at_least, both_directions, changed, established, s};

fn offered(timers: Timers, caller: Leg, asked: &[&str]) -> Wire {
    Bench::enforcing(timers).pass(caller, &Call::from(caller).invite().with_all(asked))
}

fn preferring(refresher: RefresherPreference) -> Timers {
    changed(at_least(90), |timers| timers.refresher = refresher)
}

#[test]
fn an_interval_is_inserted_where_there_is_none() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let invite = Call::from(caller).invite().with(TIMER);
        let passage = bench.send(caller, &invite);
        assert_eq!(passage.left.added_to(&invite), ["Session-Expires: 1800"], "this and nothing else");
        assert_eq!(passage.kinds(), [EventKind::Inserted { from: caller, interval: 1800 }]);
    });
}

#[test]
fn an_inserted_interval_is_not_below_a_min_se_that_is_present() {
    both_directions(|caller| {
        let left = offered(at_least(90), caller, &[TIMER, "Min-SE: 3600"]);
        assert_eq!((left.all("Session-Expires"), left.all("Min-SE")), (vec!["3600"], vec!["3600"]));
    });
}

#[test]
fn an_interval_is_inserted_for_a_uac_without_timer_too() {
    both_directions(|caller| {
        let left = offered(at_least(90), caller, &[]);
        assert_eq!(left.all("Session-Expires"), ["1800"]);
        assert_eq!((left.header("Supported"), left.header("Require")), (None, None), "nobody speaks for the UAC");
    });
}

#[test]
fn an_interval_above_the_policy_is_lowered() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        let invite = Call::from(caller).invite().with_all(&[TIMER, "Session-Expires: 7200;refresher=uac"]);
        let passage = bench.send(caller, &invite);
        assert_eq!(passage.left.all("Session-Expires"), ["1800;refresher=uac"]);
        assert_eq!(passage.kinds(), [EventKind::Lowered { from: caller, asked: 7200, interval: 1800 }]);
    });
}

#[test]
fn an_interval_is_not_lowered_below_a_min_se_that_is_present() {
    let left = offered(at_least(90), Leg::Remote, &[TIMER, "Session-Expires: 7200", "Min-SE: 2400"]);
    assert_eq!((left.header("Session-Expires"), left.header("Min-SE")), (Some("2400"), Some("2400")));
}

#[test]
fn an_interval_within_the_policy_is_not_touched() {
    both_directions(|caller| {
        for interval in ["90", "1000;refresher=uac", "1800;refresher=uas"] {
            let invite = Call::from(caller).invite().with(TIMER).with(&format!("Session-Expires: {interval}"));
            assert_eq!(Bench::enforcing(at_least(90)).pass(caller, &invite), invite);
        }
    });
}

#[test]
fn a_min_se_below_the_policy_is_raised_and_one_above_is_not_lowered() {
    both_directions(|caller| {
        for (asked, leaves) in [("90", "120"), ("120", "120"), ("600", "600")] {
            let left = offered(at_least(120), caller, &[TIMER, "Session-Expires: 900", &format!("Min-SE: {asked}")]);
            assert_eq!((left.all("Min-SE"), left.header("Session-Expires")), (vec![leaves], Some("900")));
        }
        let left = offered(at_least(120), caller, &[TIMER, "Session-Expires: 900"]);
        assert_eq!(left.all("Min-SE"), ["120"], "without the header 90 are meant");
    });
}

#[test]
fn a_refresher_present_is_never_changed() {
    both_directions(|caller| {
        for preference in [RefresherPreference::Local, RefresherPreference::Remote] {
            for said in ["uac", "uas"] {
                let interval = format!("Session-Expires: 1800;refresher={said}");
                let invite = Call::from(caller).invite().with_all(&[TIMER, &interval]);
                assert_eq!(Bench::enforcing(preferring(preference)).pass(caller, &invite), invite);
            }
        }
    });
}

#[test]
fn a_preferred_side_is_named_relative_to_the_caller() {
    both_directions(|caller| {
        for (preference, side) in [
            (RefresherPreference::Local, Some(Leg::Local)),
            (RefresherPreference::Remote, Some(Leg::Remote)),
            (RefresherPreference::Caller, Some(caller)),
            (RefresherPreference::Callee, Some(caller.other())),
            (RefresherPreference::PeerChoice, None),
        ] {
            let refresher = match side {
                Some(side) if side == caller => ";refresher=uac",
                Some(_) => ";refresher=uas",
                None => "",
            };
            let left = offered(preferring(preference), caller, &[TIMER]);
            assert_eq!(left.all("Session-Expires"), [format!("1800{refresher}")], "inserted, {preference:?}");
            let left = offered(preferring(preference), caller, &[TIMER, "Session-Expires: 900;x=y"]);
            assert_eq!(left.all("Session-Expires"), [format!("900;x=y{refresher}")], "completed, {preference:?}");
            let left = offered(preferring(preference), caller, &[TIMER, "Session-Expires: 9000;x=y"]);
            assert_eq!(left.all("Session-Expires"), [format!("1800;x=y{refresher}")], "lowered, {preference:?}");
        }
    });
}

#[test]
fn the_choice_of_a_refresher_is_told_as_a_side() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(preferring(RefresherPreference::Remote));
        let passage = bench.send(caller, &Call::from(caller).invite().with_all(&[TIMER, "Session-Expires: 900"]));
        assert_eq!(passage.kinds(), [EventKind::RefresherChosen { side: Leg::Remote }]);
    });
}

#[test]
fn mid_call_the_preferred_side_is_named_relative_to_who_sends_then() {
    both_directions(|caller| {
        for (preference, side) in [
            (RefresherPreference::Local, Leg::Local),
            (RefresherPreference::Remote, Leg::Remote),
            (RefresherPreference::Caller, caller),
            (RefresherPreference::Callee, caller.other()),
        ] {
            for (from, method) in [(caller, "UPDATE"), (caller.other(), "UPDATE"), (caller.other(), "INVITE")] {
                let mut bench = Bench::enforcing(preferring(preference));
                let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
                let refresh = call.request(from, method).with_all(&[TIMER, "Session-Expires: 600"]);
                let expected = if side == from { "600;refresher=uac" } else { "600;refresher=uas" };
                assert_eq!(bench.pass(from, &refresh).all("Session-Expires"), [expected], "{preference:?} by {from:?}");
            }
        }
    });
}

#[test]
fn a_uac_without_timer_is_not_made_the_refresher() {
    both_directions(|caller| {
        let left = offered(preferring(RefresherPreference::Caller), caller, &["Session-Expires: 900"]);
        assert_eq!(left.all("Session-Expires"), ["900"]);
        let left = offered(preferring(RefresherPreference::Callee), caller, &["Session-Expires: 900"]);
        assert_eq!(left.all("Session-Expires"), ["900;refresher=uas"], "a UAS may still be");
    });
}

#[test]
fn refreshes_are_offered_the_same_way() {
    both_directions(|caller| {
        for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
            let mut bench = Bench::enforcing(at_least(120));
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            let mut left = |asked: &[&str]| bench.pass(from, &call.request(from, method).with_all(asked));
            assert_eq!(left(&[TIMER]).header("Session-Expires"), Some("1800"), "inserted");
            let lowered = left(&[TIMER, "Session-Expires: 9000", "Min-SE: 90"]);
            assert_eq!((lowered.header("Session-Expires"), lowered.header("Min-SE")), (Some("1800"), Some("120")));
            let raised = left(&["Session-Expires: 60"]);
            assert_eq!((raised.header("Session-Expires"), raised.header("Min-SE")), (Some("120"), Some("120")));
        }
    });
}

#[test]
fn other_methods_never_get_a_header_of_ours() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(120));
        let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
        for method in ["INFO", "OPTIONS", "MESSAGE", "NOTIFY", "REFER", "PRACK", "BYE"] {
            for from in Leg::BOTH {
                let request = call.request(from, method).with(TIMER);
                let left = bench.pass(from, &request);
                assert_eq!(left, request);
                let ok = call.answer(&left, 200);
                assert_eq!(bench.pass(from.other(), &ok), ok, "{method}");
            }
        }
        let elapsed = bench.run_for(s(10));
        assert!(elapsed.sent.is_empty());
    });
}
