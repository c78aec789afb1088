//! An application without session timers is called: our half answers for it by the response table (RFC 4028 §9).

use sipwarden_session_timer::{ActForApp, AppProbe, EventKind, Leg, RefresherPreference, WithoutPeerSupport};

use crate::support::{ALLOW_UPDATE, Bench, Call, TIMER, Wire, changed, established, refreshed, s, standing_in};

fn called(bench: &mut Bench, asked: &[&str], answered: &[&str]) -> (Wire, Wire) {
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().with_all(asked));
    let ok = bench.pass(Leg::Local, &call.answer(&left, 200).with_all(answered));
    (left, ok)
}

#[test]
fn the_2xx_says_what_a_uas_with_timers_would() {
    let (side, uac, uas) = (RefresherPreference::PeerChoice, "1800;refresher=uac", "1800;refresher=uas");
    for (preference, asked, said, refresher) in [
        (side, "Session-Expires: 1800", uac, Leg::Remote),
        (side, "Session-Expires: 1800;refresher=uas", uas, Leg::Local),
        (side, "Session-Expires: 1800;refresher=uac", uac, Leg::Remote),
        (RefresherPreference::Local, "Session-Expires: 1800", uas, Leg::Local),
        (RefresherPreference::Local, "Session-Expires: 1800;refresher=uac", uac, Leg::Remote),
        (RefresherPreference::Callee, "Session-Expires: 3600", uas, Leg::Local),
        (RefresherPreference::Remote, "Min-SE: 90", uac, Leg::Remote),
    ] {
        let mut bench = Bench::enforcing(changed(standing_in(90), |timers| timers.refresher = preference));
        let (_, ok) = called(&mut bench, &[TIMER, asked], &["Require: 100rel"]);
        assert_eq!(ok.all("Session-Expires"), [said], "{asked}");
        assert_eq!(ok.all("Require"), ["100rel, timer"]);
        assert_eq!(bench.timer(), Some((1800, refresher)));
    }
}

#[test]
fn a_caller_without_timers_is_told_no_more_than_that_we_refresh() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (_, ok) = called(&mut bench, &[], &[]);
    assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec!["1800;refresher=uas"], vec![]));
    assert_eq!(bench.timer(), Some((1800, Leg::Local)));
    let skip = changed(standing_in(90), |timers| timers.without_peer_support = WithoutPeerSupport::Skip);
    let mut bench = Bench::enforcing(skip);
    let (_, ok) = called(&mut bench, &[], &[]);
    assert_eq!((ok.all("Session-Expires"), bench.timer()), (vec![], None));
}

#[test]
fn an_app_with_timers_answers_for_itself() {
    for answered in [&[TIMER][..], &["Session-Expires: 900;refresher=uac", "Require: timer"]] {
        let mut bench = Bench::enforcing(standing_in(90));
        let (_, ok) = called(&mut bench, &[TIMER], answered);
        assert!(bench.session().acting.is_none());
        assert!(ok.all("Session-Expires").len() == 1);
    }
}

#[test]
fn the_app_is_never_required_to_know_timers() {
    let mut bench = Bench::enforcing(standing_in(90));
    let (left, _) = called(&mut bench, &[TIMER, "Require: timer, 100rel", "Session-Expires: 600"], &[]);
    assert_eq!((left.all("Require"), left.all("Session-Expires")), (vec!["100rel"], vec!["600"]));
}

#[test]
fn always_takes_the_apps_own_timer_out_of_both_messages() {
    let mut bench = Bench::enforcing(changed(standing_in(90), |timers| timers.act_for_app = ActForApp::Always));
    let asked = ["Supported: replaces, timer", "Session-Expires: 600;refresher=uac", "Min-SE: 120"];
    let (left, ok) = called(&mut bench, &asked, &["Session-Expires: 500;refresher=uas", "Require: timer"]);
    assert_eq!(left.all("Supported"), ["replaces"]);
    assert_eq!((left.all("Session-Expires"), left.all("Min-SE")), (vec![], vec![]));
    assert_eq!((ok.all("Session-Expires"), ok.all("Require")), (vec!["600;refresher=uac"], vec!["timer"]));
    assert_eq!(bench.timer(), Some((600, Leg::Remote)));
}

#[test]
fn a_retransmitted_2xx_says_the_same_and_arms_nothing_anew() {
    let mut bench = Bench::enforcing(standing_in(90));
    let mut call = Call::from(Leg::Remote);
    let left = bench.pass(Leg::Remote, &call.invite().with(TIMER));
    let ok = call.answer(&left, 200);
    let first = bench.pass(Leg::Local, &ok);
    bench.run_for(std::time::Duration::from_secs(3));
    let again = bench.send(Leg::Local, &ok);
    assert_eq!((again.left, again.events.len()), (first, 0));
    assert_eq!(bench.deadline_s(), Some(1797));
}

#[test]
fn what_is_below_the_minimum_is_refused_before_the_app_hears_of_it() {
    let mut bench = Bench::enforcing(standing_in(120));
    let mut call = Call::from(Leg::Remote);
    let passage = bench.send(Leg::Remote, &call.invite().with_all(&[TIMER, "Session-Expires: 100"]));
    assert_eq!(passage.answer().all("Min-SE"), ["120"]);
}

#[test]
fn observe_stands_in_for_nobody() {
    let mut bench = Bench::observing(standing_in(90));
    called(&mut bench, &[TIMER], &[]);
    assert!(bench.session().acting.is_none());
    let mut bench = Bench::enforcing(standing_in(90));
    called(&mut bench, &[TIMER], &[]);
    let events = bench.session().events;
    assert!(events.iter().any(|past| past.event.kind == EventKind::ActsForApp));
}

#[test]
fn the_highest_min_se_of_the_caller_s_requests_stands_in_our_refreshes_and_in_those_of_the_app() {
    let mut timers = standing_in(90);
    (timers.refresher, timers.app_probe) = (RefresherPreference::Local, AppProbe::None);
    let mut bench = Bench::enforcing(timers);
    let mut call = established(&mut bench, Leg::Remote, &[TIMER, ALLOW_UPDATE, "Min-SE: 300"], &[]);
    let min_se = |sent: &Wire| sent.header("Min-SE").map(str::to_owned);
    let update = bench.run_for(s(900)).sent.remove(0).1.wire;
    assert_eq!((update.method(), min_se(&update).as_deref()), ("UPDATE", Some("300")));
    bench.send(Leg::Remote, &call.respond(Leg::Remote, &update, 200).with("Session-Expires: 1800;refresher=uac"));

    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER, "Min-SE: 2400"], &[]);
    refreshed(&mut bench, &mut call, Leg::Remote, "INVITE", &[TIMER, "Min-SE: 600"], &[]);
    let hold = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE"));
    assert_eq!((hold.all("Session-Expires"), min_se(&hold).as_deref()), (vec!["2400;refresher=uac"], Some("2400")));
}

#[test]
fn of_the_caller_s_min_se_no_more_is_followed_than_the_policy_follows() {
    let mut bench = Bench::enforcing(standing_in(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER, "Min-SE: 9000"], &[]);
    let hold = bench.pass(Leg::Local, &call.request(Leg::Local, "INVITE"));
    assert_eq!((hold.all("Session-Expires"), hold.all("Min-SE")), (vec!["7200;refresher=uas"], vec!["7200"]));
}

#[test]
fn an_app_that_speaks_of_timers_says_its_min_se_itself() {
    let mut bench = Bench::enforcing(standing_in(90));
    let mut call = established(&mut bench, Leg::Remote, &[TIMER, "Min-SE: 300"], &[TIMER]);
    let hold = call.request(Leg::Local, "INVITE").with_all(&[TIMER, "Session-Expires: 1800"]);
    assert_eq!(bench.pass(Leg::Local, &hold).all("Min-SE"), [""; 0]);
}
