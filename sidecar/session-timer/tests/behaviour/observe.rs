//! Observe changes nothing, answers nothing and sends nothing (the bench checks that for every message), but tells what
//! it would have done.

use sipwarden_session_timer::{EndCause, EventKind, Leg, RefresherPreference, SessionState, Timers};

use crate::support::{Bench, Call, TIMER, at_least, both_directions, changed, established, refreshed, s};

fn told(timers: Timers, caller: Leg, asked: &[&str]) -> Vec<EventKind> {
    let passage = Bench::observing(timers).send(caller, &Call::from(caller).invite().with_all(asked));
    assert!(passage.events.iter().all(|event| event.observed));
    passage.kinds()
}

#[test]
fn what_enforce_would_do_to_a_request_is_told() {
    both_directions(|caller| {
        let strict = at_least(120);
        assert_eq!(
            told(strict.clone(), caller, &[TIMER, "Session-Expires: 60"]),
            [EventKind::Rejected { to: caller, asked: 60, min_se: 120 }]
        );
        assert_eq!(
            told(strict.clone(), caller, &["Session-Expires: 60"]),
            [
                EventKind::Raised { from: caller, asked: 60, interval: 120 },
                EventKind::MinSeRaised { from: caller, min_se: 120 }
            ]
        );
        assert_eq!(told(at_least(90), caller, &[TIMER]), [EventKind::Inserted { from: caller, interval: 1800 }]);
        let choosing = changed(at_least(90), |timers| timers.refresher = RefresherPreference::Local);
        assert_eq!(
            told(choosing, caller, &[TIMER, "Session-Expires: 3600"]),
            [
                EventKind::Lowered { from: caller, asked: 3600, interval: 1800 },
                EventKind::RefresherChosen { side: Leg::Local }
            ]
        );
    });
}

#[test]
fn what_the_endpoints_negotiate_is_followed() {
    both_directions(|caller| {
        let mut bench = Bench::observing(at_least(120));
        let mut call =
            established(&mut bench, caller, &[TIMER, "Session-Expires: 100"], &["Session-Expires: 100;refresher=uac"]);
        assert_eq!(bench.timer(), Some((100, caller)));
        bench.run_for(s(50));
        refreshed(&mut bench, &mut call, caller.other(), "UPDATE", &[TIMER, "x: 95"], &["x: 95;refresher=uac"]);
        assert_eq!((bench.timer(), bench.deadline_s()), (Some((95, caller.other())), Some(95)));
    });
}

#[test]
fn a_2xx_that_is_not_completed_arms_nothing() {
    both_directions(|caller| {
        let mut bench = Bench::observing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with_all(&[TIMER, "Session-Expires: 600"]));
        let passage = bench.send(caller.other(), &call.answer(&left, 200));
        let would = EventKind::Completed { to: caller, interval: 600 };
        assert_eq!(passage.kinds(), [would, EventKind::Established { interval: None, refresher: None }]);
        assert_eq!(bench.timer(), None);
    });
}

#[test]
fn expiry_is_told_and_nobody_is_hung_up_on() {
    both_directions(|caller| {
        let mut bench = Bench::observing(at_least(90));
        let mut call = established(&mut bench, caller, &[TIMER], &["Session-Expires: 600;refresher=uas"]);
        let elapsed = bench.run_for(s(3600));
        assert_eq!(elapsed.kinds(), [EventKind::Expired { interval: 600, refresher: caller.other() }]);
        assert!(elapsed.sent.is_empty() && elapsed.events[0].1.observed);
        assert_eq!(bench.session().state, SessionState::Active);
        refreshed(&mut bench, &mut call, caller, "INVITE", &[TIMER], &["Session-Expires: 600;refresher=uac"]);
        assert_eq!(bench.deadline_s(), Some(600), "the endpoints think that it lives");
        bench.pass(caller, &call.request(caller, "BYE"));
        assert_eq!(bench.session().state, SessionState::Ended(EndCause::Bye(caller)));
        bench.run_out();
    });
}

#[test]
fn a_422_of_somebody_else_is_told() {
    both_directions(|caller| {
        let mut bench = Bench::observing(at_least(90));
        let mut call = Call::from(caller);
        let left = bench.pass(caller, &call.invite().with_all(&[TIMER, "Session-Expires: 100"]));
        let passage = bench.send(caller.other(), &call.answer(&left, 422).with("Min-SE: 200"));
        assert_eq!(passage.kinds(), [EventKind::RejectionSeen { to: caller, min_se: Some(200) }]);
        bench.run_out();
    });
}

#[test]
fn a_timer_that_turns_off_is_told() {
    let mut bench = Bench::observing(at_least(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER], &["Session-Expires: 600;refresher=uac"]);
    let left = bench.pass(Leg::Remote, &call.request(Leg::Remote, "INVITE").with(TIMER));
    let passage = bench.send(Leg::Local, &call.answer(&left, 200));
    assert!(passage.kinds().contains(&EventKind::TimerOff { by: Leg::Remote }), "{:?}", passage.kinds());
    assert_eq!(bench.timer(), None);
}
