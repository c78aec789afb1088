//! REFER inside a dialog whose numbers we moved: its subscription is named by its number (RFC 3515 §2.4.6).

use sipwarden_session_timer::{AppProbe, Leg, RefresherPreference};

use crate::support::{ALLOW_UPDATE, Bench, Call, TIMER, Wire, changed, established, s, standing_in};

/// A call of the remote side, which we have refreshed once: the application's later numbers are moved by one.
fn moved() -> (Bench, Call) {
    let timers = changed(standing_in(90), |timers| {
        (timers.refresher, timers.app_probe) = (RefresherPreference::Local, AppProbe::None);
    });
    let mut bench = Bench::enforcing(timers);
    let mut call = established(&mut bench, Leg::Remote, &[TIMER, ALLOW_UPDATE], &[]);
    bench.pass(Leg::Local, &call.request(Leg::Local, "INFO"));
    let update = bench.run_for(s(900)).sent.remove(0).1.wire;
    bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 200).with("Session-Expires: 1800;refresher=uac"));
    (bench, call)
}

/// The Event that `method` from `from` leaves with when it came with `event`.
fn event(bench: &mut Bench, call: &mut Call, from: Leg, method: &str, event: &str) -> String {
    let left = bench.pass(from, &call.request(from, method).with(event));
    left.header(event.split(':').next().expect("a name")).expect("an Event").to_owned()
}

/// The application's REFER: its number, and the one it leaves with.
fn refer(bench: &mut Bench, call: &mut Call) -> (u32, u32) {
    let refer = call.request(Leg::Local, "REFER").with("Refer-To: <sip:third@example.com>");
    let left = bench.pass(Leg::Local, &refer);
    assert_ne!(left.cseq(), refer.cseq());
    (refer.cseq(), left.cseq())
}

#[test]
fn who_referred_is_notified_of_its_own_number() {
    let (mut bench, mut call) = moved();
    let (own, leaving) = refer(&mut bench, &mut call);
    for name in ["Event", "o"] {
        let came = format!("{name}: refer;x;id={leaving};y");
        assert_eq!(event(&mut bench, &mut call, Leg::Remote, "NOTIFY", &came), format!("refer;x;id={own};y"));
    }
}

#[test]
fn who_referred_subscribes_to_the_number_that_left() {
    let (mut bench, mut call) = moved();
    let (own, leaving) = refer(&mut bench, &mut call);
    let came = format!("Event: refer;id={own}");
    assert_eq!(event(&mut bench, &mut call, Leg::Local, "SUBSCRIBE", &came), format!("refer;id={leaving}"));
}

#[test]
fn the_subscription_may_outlive_the_call() {
    let (mut bench, mut call) = moved();
    let (own, leaving) = refer(&mut bench, &mut call);
    bench.pass(Leg::Local, &call.request(Leg::Local, "BYE"));
    bench.run_for(s(5));
    let came = format!("Event: refer;id={leaving}");
    assert_eq!(event(&mut bench, &mut call, Leg::Remote, "NOTIFY", &came), format!("refer;id={own}"));
}

#[test]
fn other_ids_are_nobody_s_numbers() {
    let (mut bench, mut call) = moved();
    let (_, leaving) = refer(&mut bench, &mut call);
    for came in [format!("dialog;id={leaving}"), "refer".into(), "refer;id=x".into(), format!("refer;ix={leaving}")] {
        assert_eq!(event(&mut bench, &mut call, Leg::Remote, "NOTIFY", &format!("Event: {came}")), came);
    }
}

#[test]
fn the_numbers_of_the_side_that_was_not_moved_stay() {
    let (mut bench, mut call) = moved();
    let refer = call.request(Leg::Remote, "REFER").with("Refer-To: <sip:third@example.com>");
    let left: Wire = bench.pass(Leg::Remote, &refer);
    assert_eq!(left.cseq(), refer.cseq());
    let came = format!("Event: refer;id={}", refer.cseq());
    assert_eq!(event(&mut bench, &mut call, Leg::Local, "NOTIFY", &came), came[7..]);
    assert_eq!(event(&mut bench, &mut call, Leg::Remote, "SUBSCRIBE", &came), came[7..]);
}
