//! How the headers may be written, and what happens to those that nobody can read.

use sipwarden_session_timer::{EventKind, HeaderKind, Leg, Malformed, Mode, Timers, Verdict};

use crate::support::{Bench, Call, TIMER, at_least, both_directions, changed, established, policy, refreshed, s};

const UNREADABLE: [&str; 9] =
    ["4294967296", "-1", "+1", "abc", "", "18 00", "1800;refresher=both", "1.5", "1800, 1800"];

fn refusing() -> Timers {
    changed(at_least(90), |timers| timers.malformed = Malformed::Reject)
}

#[test]
fn white_space_around_separators_is_legal_in_a_request() {
    both_directions(|caller| {
        for written in
            ["60 ; refresher=uac", "60\t;\trefresher = uac", "60;refresher=uac", "60\r\n ;\r\n refresher=uac"]
        {
            let mut bench = Bench::enforcing(at_least(90));
            let invite = Call::from(caller).invite().with(TIMER).with(&format!("Session-Expires: {written}"));
            let verdict = bench.send(caller, &invite).verdict;
            assert_eq!(verdict, Verdict::Answered(422), "{written} was not read");
        }
    });
}

#[test]
fn white_space_around_separators_is_legal_in_a_2xx() {
    both_directions(|caller| {
        for written in ["600 ; refresher = uas", "600\t;refresher=uas", "600 ;refresher= uas", "600;\r\n refresher=uas"]
        {
            let mut bench = Bench::enforcing(at_least(90));
            let answer = format!("Session-Expires: {written}");
            established(&mut bench, caller, &[TIMER, "Session-Expires: 1800"], &[&answer]);
            assert_eq!(bench.timer(), Some((600, caller.other())), "{written}");
        }
    });
}

#[test]
fn compact_forms_and_upper_case_are_read_in_a_request() {
    both_directions(|caller| {
        for (supported, interval) in
            [("k: timer", "x: 60"), ("K: 100rel,TIMER", "X:60"), ("supported: Timer", "SESSION-EXPIRES: 60")]
        {
            let mut bench = Bench::enforcing(at_least(90));
            let invite = Call::from(caller).invite().with(supported).with(interval);
            assert_eq!(bench.send(caller, &invite).verdict, Verdict::Answered(422), "{supported}, {interval}");
        }
    });
}

#[test]
fn compact_forms_and_upper_case_are_read_in_a_2xx() {
    both_directions(|caller| {
        let mut bench = Bench::enforcing(at_least(90));
        established(&mut bench, caller, &["k: timer", "x: 1800"], &["x: 700;REFRESHER=UAS"]);
        assert_eq!(bench.timer(), Some((700, caller.other())));
    });
}

#[test]
fn a_compact_header_is_changed_in_its_place() {
    let mut bench = Bench::enforcing(at_least(90));
    let left =
        bench.pass(Leg::Remote, &Call::from(Leg::Remote).invite().with("k: timer").with("x: 3600;REFRESHER=UAS"));
    assert_eq!(left.header("x"), Some("1800;REFRESHER=UAS"));
    assert_eq!(left.header("Session-Expires"), None);
}

#[test]
fn a_folded_header_is_changed_in_its_place() {
    let mut bench = Bench::enforcing(at_least(90));
    let invite = Call::from(Leg::Remote).invite().with(TIMER).with("Session-Expires:\r\n  3600\r\n ;refresher=uas");
    let left = bench.pass(Leg::Remote, &invite);
    assert!(left.0.contains("Session-Expires:\r\n  1800\r\n ;refresher=uas\r\n"), "{left}");
}

#[test]
fn unknown_parameters_are_kept_on_every_change() {
    let mut bench = Bench::enforcing(at_least(120));
    let asked = ["Session-Expires: 3600;a=b;c", "Min-SE: 100;d=e"];
    let left = bench.pass(Leg::Remote, &Call::from(Leg::Remote).invite().with(TIMER).with_all(&asked));
    assert_eq!(left.header("Session-Expires"), Some("1800;a=b;c"));
    assert_eq!(left.header("Min-SE"), Some("120;d=e"));
}

#[test]
fn supported_may_be_repeated_or_empty() {
    for (lines, supports) in [
        (["Supported:", "Supported: timer"], true),
        (["Supported: 100rel, ,timer", "Supported: replaces"], true),
        (["Supported: 100rel", "Supported:"], false),
        (["Supported: timers", "Supported: x-timer"], false),
    ] {
        let mut bench = Bench::enforcing(at_least(90));
        let invite = Call::from(Leg::Remote).invite().with_all(&lines).with("Session-Expires: 60");
        let verdict = bench.send(Leg::Remote, &invite).verdict;
        assert_eq!(verdict == Verdict::Answered(422), supports, "{lines:?}");
    }
}

#[test]
fn an_unreadable_interval_is_forwarded_untouched_and_told() {
    both_directions(|caller| {
        for value in UNREADABLE {
            let mut bench = Bench::enforcing(at_least(90));
            let invite = Call::from(caller).invite().with(TIMER).with(&format!("Session-Expires: {value}"));
            let passage = bench.send(caller, &invite);
            assert_eq!(passage.left, invite, "{value}");
            let told = EventKind::Malformed { from: caller, header: HeaderKind::SessionExpires };
            assert_eq!(passage.kinds(), [told], "{value}");
        }
    });
}

#[test]
fn an_unreadable_interval_is_answered_400_where_the_policy_says_so() {
    both_directions(|caller| {
        for value in UNREADABLE {
            let mut bench = Bench::enforcing(refusing());
            let mut call = Call::from(caller);
            let invite = call.invite().with(TIMER).with(&format!("Session-Expires: {value}"));
            let passage = bench.send(caller, &invite);
            assert_eq!(passage.answer().status(), Some(400), "{value}");
            let ack = call.ack(&invite, passage.answer());
            assert_eq!(bench.send(caller, &ack).verdict, Verdict::Absorb);
            assert_eq!(bench.dialogs.next_timeout(), None, "nothing is kept of it");
        }
    });
}

#[test]
fn observe_forwards_what_it_cannot_read() {
    for value in UNREADABLE {
        let mut bench = Bench::with_policy(policy(Mode::Observe, refusing()));
        let invite = Call::from(Leg::Remote).invite().with(TIMER).with(&format!("Session-Expires: {value}"));
        assert_eq!(bench.send(Leg::Remote, &invite).events.len(), 1, "{value}");
    }
}

#[test]
fn an_unreadable_min_se_or_a_header_given_twice_is_malformed_too() {
    for (lines, header) in [
        (vec!["Session-Expires: 1800", "Min-SE: ninety"], HeaderKind::MinSe),
        (vec!["Session-Expires: 1800", "Min-SE: 90", "Min-SE: 90"], HeaderKind::MinSe),
        (vec!["Session-Expires: 1800", "x: 1800"], HeaderKind::SessionExpires),
    ] {
        let mut bench = Bench::enforcing(refusing());
        let passage = bench.send(Leg::Local, &Call::from(Leg::Local).invite().with(TIMER).with_all(&lines));
        assert_eq!(passage.answer().status(), Some(400), "{lines:?}");
        assert_eq!(passage.kinds(), [EventKind::Malformed { from: Leg::Local, header }]);
    }
}

#[test]
fn an_unreadable_refresh_is_refused_without_harm_to_the_running_timer() {
    both_directions(|caller| {
        for (method, from) in [("INVITE", caller), ("UPDATE", caller.other())] {
            let mut bench = Bench::enforcing(refusing());
            let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
            bench.run_for(s(100));
            let refresh = call.request(from, method).with(TIMER).with("Session-Expires: abc");
            let passage = bench.send(from, &refresh);
            assert_eq!(passage.answer().status(), Some(400));
            assert_eq!(bench.deadline_s(), Some(500));
            if method == "INVITE" {
                let ack = call.ack(&refresh, passage.answer());
                assert_eq!(bench.send(from, &ack).verdict, Verdict::Absorb);
            }
        }
    });
}

#[test]
fn a_2xx_nobody_can_read_starts_no_timer() {
    for value in UNREADABLE {
        let mut bench = Bench::enforcing(at_least(90));
        let mut call = Call::from(Leg::Local);
        let left = bench.pass(Leg::Local, &call.invite().with(TIMER));
        let ok = call.answer(&left, 200).with(&format!("Session-Expires: {value}"));
        let passage = bench.send(Leg::Remote, &ok);
        assert_eq!(passage.left, ok);
        let told = EventKind::Malformed { from: Leg::Remote, header: HeaderKind::SessionExpires };
        assert!(passage.kinds().contains(&told), "{value}");
        assert_eq!(bench.timer(), None, "{value}");
    }
}

#[test]
fn a_refreshing_2xx_nobody_can_read_still_proves_that_both_sides_live() {
    let mut bench = Bench::enforcing(at_least(90));
    let mut call = established(&mut bench, Leg::Local, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
    bench.run_for(s(300));
    refreshed(&mut bench, &mut call, Leg::Local, "UPDATE", &[TIMER, "Session-Expires: 600"], &["Session-Expires: abc"]);
    assert_eq!((bench.timer(), bench.deadline_s()), (Some((600, Leg::Local)), Some(600)));
}
