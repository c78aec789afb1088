//! Real user agents on both sides of the real sidecar: baresip, which has no session timers, is the application, linphonec,
//! which has them, the remote side; in one test a stateful Kamailio stands between. The sidecar refreshes for baresip.

use std::net::SocketAddr;
use std::time::Duration;

use sipwarden_tests::admin::Session;
use sipwarden_tests::agents::baresip::Baresip;
use sipwarden_tests::agents::linphone::Linphone;
use sipwarden_tests::kamailio::Kamailio;
use sipwarden_tests::ports::{LOOPBACK, free};
use sipwarden_tests::sidecar::{Setup, Sidecar};
use sipwarden_tests::wait::eventually;

/// Intervals of 90 s, which last 4.5 s here, refreshed by us wherever that is open.
const OURS: &str = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Local}";
const OURS_BY_REINVITE: &str =
    "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Local, refreshMethod: ReInvite}";

/// Tries to get a port that nobody takes between choosing and using it.
const PORT_TRIES: u32 = 5;

/// What the app sends to hold a call or to resume it: one re-INVITE, which refreshes as well.
const HOLD_OR_RESUME: u32 = 1;

/// With time to spare on a busy machine.
const HALF_OF_90_S: Duration = Duration::from_secs(60);

/// How long the app may leave two probes unanswered, 4 s apart, before it counts as gone.
const TWO_PROBES: Duration = Duration::from_secs(20);

/// How long the sidecar may take for a few refreshes.
const REFRESHES: Duration = Duration::from_secs(40);

/// A sidecar as `setup` makes it before baresip, which is at the address given.
fn before_baresip(setup: impl Fn(SocketAddr) -> Setup) -> (SocketAddr, Sidecar, Baresip) {
    let started = (0..PORT_TRIES).find_map(|_| {
        let addr = free(LOOPBACK);
        let sidecar = setup(addr).start();
        let app = Baresip::start(addr, sidecar.app_side())?;
        Some((addr, sidecar, app))
    });
    started.unwrap_or_else(|| panic!("baresip did not start on any of {PORT_TRIES} free ports"))
}

/// A call from linphonec to baresip, established.
fn called(spec: &str) -> (Sidecar, Baresip, Linphone) {
    let (_, sidecar, app) = before_baresip(|addr| Setup::new(spec, addr));
    let mut remote = Linphone::start();
    remote.call(sidecar.udp());
    assert_eq!(active(&sidecar).direction(), "Inbound");
    (sidecar, app, remote)
}

fn active(sidecar: &Sidecar) -> Session {
    sidecar.admin().session("that is active", Session::is_active)
}

fn ended(sidecar: &Sidecar, cause: &str) -> Session {
    sidecar.admin().session(&format!("that ended with {cause}"), |session| session.ended() == cause)
}

/// Refreshes from our side that were accepted: the sidecar's, and what the app itself changes.
fn accepted(sidecar: &Sidecar) -> f64 {
    sidecar.admin().metric_where("sipwarden_refreshes_total", r#"by="Local""#)
}

/// Waits for this many more of them.
fn await_accepted(sidecar: &Sidecar, more: u32) {
    let wanted = accepted(sidecar) + f64::from(more);
    eventually("refreshes", REFRESHES, || (accepted(sidecar) >= wanted).then_some(()));
}

/// Waits until this many refreshes of the remote side were accepted.
fn await_theirs(sidecar: &Sidecar, wanted: f64) {
    let theirs = || sidecar.admin().metric_where("sipwarden_refreshes_total", r#"by="Remote""#);
    eventually("refreshes of the remote side", HALF_OF_90_S, || (theirs() >= wanted).then_some(()));
}

/// Keeps the call for twelve refresh periods, two of them on hold.
fn held_and_resumed(sidecar: &Sidecar, app: &mut Baresip) {
    await_accepted(sidecar, 5);
    app.hold();
    await_accepted(sidecar, HOLD_OR_RESUME + 2);
    app.resume();
    await_accepted(sidecar, HOLD_OR_RESUME + 5);
}

/// Expects that the call ended by BYE, that at least ten refreshes by `method` were sent, all were accepted, and that the
/// sidecar refused, ended and changed nothing.
fn nothing_was_amiss(sidecar: &Sidecar, method: &str) {
    ended(sidecar, "Bye");
    let admin = sidecar.admin();
    let sent = admin.metric_where("sipwarden_refreshes_sent_total", &format!(r#"method="{method}""#));
    assert!(sent >= 10.0, "{sent} refreshes");
    assert_eq!(admin.metric("sipwarden_refreshes_sent_total"), sent);
    assert_eq!(accepted(sidecar), sent + 2.0 * f64::from(HOLD_OR_RESUME));
    assert_eq!(admin.metric("sipwarden_sessions_established_total"), 1.0);
    for never in [
        "sipwarden_refresh_failures_total",
        "sipwarden_not_refreshed_total",
        "sipwarden_probe_failures_total",
        "sipwarden_media_changes_total",
        "sipwarden_expiries_total",
        "sipwarden_byes_sent_total",
        "sipwarden_answers_total",
        "sipwarden_drops_total",
    ] {
        assert_eq!(admin.metric(never), 0.0, "{never}");
    }
}

/// Each different one of neighbours that are equal.
fn in_turn(mut bodies: Vec<String>) -> Vec<String> {
    bodies.dedup();
    bodies
}

#[test]
fn an_app_without_timers_is_called_and_its_call_refreshed_by_update() {
    let (sidecar, mut app, mut remote) = called(OURS);

    held_and_resumed(&sidecar, &mut app);
    remote.hang_up();
    app.await_end();

    nothing_was_amiss(&sidecar, "UPDATE");
    assert_eq!(in_turn(remote.heard(sidecar.udp(), "UPDATE")), [""]);
    assert_eq!(in_turn(remote.heard(sidecar.udp(), "INVITE")).len(), 2, "hold and resume");
}

#[test]
fn refreshes_by_reinvite_repeat_the_apps_own_description() {
    let (sidecar, mut app, mut remote) = called(OURS_BY_REINVITE);

    held_and_resumed(&sidecar, &mut app);
    remote.hang_up();
    app.await_end();

    nothing_was_amiss(&sidecar, "INVITE");
    let answer = remote.heard(sidecar.udp(), "SIP/2.0 200").remove(0);
    let descriptions = in_turn(remote.heard(sidecar.udp(), "INVITE"));
    assert_eq!(descriptions.len(), 3, "as answered, on hold, resumed: {descriptions:#?}");
    assert_eq!(descriptions[0], answer);
    assert!(descriptions[1].contains("a=sendonly") && descriptions[2].contains("a=sendrecv"), "{descriptions:#?}");
}

#[test]
fn an_app_without_timers_calls_out_through_a_stateful_proxy() {
    let remote = Linphone::start();
    let kamailio = Kamailio::start(remote.addr());
    let next_hop = format!("udp:{}", kamailio.addr());
    let (_, sidecar, mut app) = before_baresip(|addr| Setup::new(OURS, addr).next_hop(&next_hop));

    app.call(remote.addr());
    let session = active(&sidecar);
    assert_eq!((session.direction(), session.interval_s(), session.refresher()), ("Outbound", Some(90), "Local"));
    held_and_resumed(&sidecar, &mut app);
    app.hang_up();

    remote.await_end();
    nothing_was_amiss(&sidecar, "UPDATE");
    assert_eq!(in_turn(remote.heard(kamailio.addr(), "UPDATE")), [""]);
    assert_eq!(in_turn(remote.heard(kamailio.addr(), "INVITE")).len(), 3, "the call, hold and resume");
}

/// A call from linphonec, which is to refresh it after 45 s of real time: the sidecar is not to.
fn refreshed_by_caller() -> (Sidecar, Baresip, Linphone) {
    let spec = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Remote}";
    let (_, sidecar, app) = before_baresip(|addr| Setup::new(spec, addr).real_time());
    let mut remote = Linphone::start();
    remote.call(sidecar.udp());
    assert_eq!(active(&sidecar).refresher(), "Remote");
    (sidecar, app, remote)
}

#[test]
fn updates_of_a_remote_agent_are_answered_for_an_app_without_update() {
    let (sidecar, mut app, mut remote) = refreshed_by_caller();

    await_theirs(&sidecar, 1.0);
    remote.hang_up();
    app.await_end();

    let session = ended(&sidecar, "Bye");
    assert_eq!((session.refreshers(), session.count("AnsweredForApp")), (vec!["Remote"], 1));
    assert_eq!(session.count("RefreshSent"), 0);
}

#[test]
fn a_remote_agent_may_hold_resume_and_refresh_by_reinvite() {
    let (sidecar, mut app, mut remote) = refreshed_by_caller();

    remote.hold();
    await_theirs(&sidecar, 1.0);
    remote.resume();
    await_theirs(&sidecar, 2.0);
    // Of its own accord; by re-INVITE, once it has sent others.
    await_theirs(&sidecar, 3.0);
    remote.hang_up();
    app.await_end();

    let session = ended(&sidecar, "Bye");
    assert_eq!((session.refreshers(), session.count("Completed")), (vec!["Remote"; 3], 4));
    assert_eq!((session.count("RefreshSent"), session.count("AnsweredForApp")), (0, 0));
}

#[test]
fn when_the_app_is_killed_the_other_side_is_told() {
    let (sidecar, mut app, remote) = called(OURS);
    await_accepted(&sidecar, 1);

    app.kill();

    remote.await_end();
    assert_eq!(ended(&sidecar, "Expired").count("ByeSent"), 2);
}

#[test]
fn when_the_app_is_killed_two_probes_miss_it_before_its_call_would_be_refreshed() {
    let (_, sidecar, mut app) = before_baresip(|addr| Setup::new(OURS, addr).real_time());
    let mut remote = Linphone::start();
    remote.call(sidecar.udp());
    assert_eq!(active(&sidecar).refresher(), "Local");

    app.kill();

    let missed = || sidecar.admin().sessions().iter().any(|session| session.ended() == "AppGone").then_some(());
    eventually("the app to be missed", HALF_OF_90_S + TWO_PROBES, missed);
    remote.await_end();
    assert_eq!(ended(&sidecar, "AppGone").count("RefreshSent"), 0);
}

#[test]
fn when_the_app_is_restarted_its_old_call_is_not_kept_alive() {
    let (addr, sidecar, mut app) = before_baresip(|addr| Setup::new(OURS, addr));
    let mut remote = Linphone::start();
    remote.call(sidecar.udp());
    await_accepted(&sidecar, 1);

    app.kill();
    let _restarted = Baresip::start(addr, sidecar.app_side()).expect("nobody else takes the port so soon");

    remote.await_end();
    ended(&sidecar, "AppGone");
}

#[test]
fn when_the_remote_agent_vanishes_the_app_is_told() {
    let (sidecar, mut app, mut remote) = called(OURS);
    await_accepted(&sidecar, 1);

    remote.kill();

    app.await_end();
    assert_eq!(ended(&sidecar, "Expired").count("ByeSent"), 2);
}
