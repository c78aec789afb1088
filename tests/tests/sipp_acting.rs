//! The real sidecar as the session-timer half of an application that has none, between SIPp as that application and SIPp as
//! a remote side that has timers. Like `sipp.rs`: both SIPp processes have to see what their scenarios say.

use sipwarden_tests::admin::Session;
use sipwarden_tests::ports::{LOOPBACK, free};
use sipwarden_tests::sidecar::{Setup, Sidecar};
use sipwarden_tests::sipp::{Sipp, callee, caller};

/// Whoever calls may leave open who refreshes: then we do.
const OURS: &str = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Local}";
const THEIRS: &str = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Remote}";

/// One call from the remote side to the app.
fn call(spec: &str, remote_scenario: &'static str, app_scenario: &'static str) -> (Sidecar, Sipp, Sipp) {
    let (app, addr) = callee(app_scenario, LOOPBACK);
    let sidecar = Setup::new(spec, addr).start();
    let remote = caller(remote_scenario, sidecar.udp()).start();
    (sidecar, remote, app)
}

fn ended(sidecar: &Sidecar, cause: &str) -> Session {
    sidecar.admin().session(&format!("that ended with {cause}"), |session| session.ended() == cause)
}

/// The session after we ended it with this cause, when both sides have answered the BYE.
fn hung_up(sidecar: &Sidecar, cause: &str) -> Session {
    let fits = |session: &Session| session.ended() == cause && session.count("ByeDone") == 2;
    sidecar.admin().session(&format!("that ended with {cause} and whose BYEs were answered"), fits)
}

fn sent(sidecar: &Sidecar, method: &str) -> f64 {
    sidecar.admin().metric_where("sipwarden_refreshes_sent_total", &format!(r#"method="{method}""#))
}

/// The remote side refreshes twice by a `method` of its own.
fn remote_refreshes(remote_scenario: &'static str) -> Sidecar {
    let (sidecar, mut remote, mut app) = call(THEIRS, remote_scenario, "uas_knows_no_timers");

    remote.passes();
    app.passes();
    let session = ended(&sidecar, "Bye");
    assert_eq!((session.refreshers(), session.count("RefreshSent")), (vec!["Remote", "Remote"], 0));
    sidecar
}

#[test]
fn updates_of_the_remote_side_are_answered_for_an_app_without_update() {
    let sidecar = remote_refreshes("uac_refreshes_update");

    assert_eq!(sidecar.admin().metric("sipwarden_refreshes_answered_total"), 2.0);
}

#[test]
fn reinvites_of_the_remote_side_reach_the_app_and_its_2xx_is_completed() {
    let sidecar = remote_refreshes("uac_refreshes_reinvite");

    assert_eq!(sidecar.admin().metric("sipwarden_refreshes_answered_total"), 0.0);
    assert_eq!(sidecar.admin().metric("sipwarden_completions_total"), 3.0);
}

/// The sidecar refreshes twice by `method`, then the app hangs up.
fn we_refresh(method: &str, remote_scenario: &'static str) {
    let (sidecar, mut remote, mut app) = call(OURS, remote_scenario, "uas_hangs_up_when_refreshed");

    remote.passes();
    app.passes();
    assert_eq!(ended(&sidecar, "Bye").refreshers(), ["Local", "Local"]);
    assert_eq!(sent(&sidecar, method), 2.0);
    assert_eq!(sidecar.admin().metric("sipwarden_refresh_failures_total"), 0.0);
}

#[test]
fn a_remote_side_with_update_is_refreshed_by_it_and_the_apps_bye_comes_behind() {
    we_refresh("UPDATE", "uac_is_refreshed_by_update");
}

#[test]
fn a_remote_side_without_update_is_refreshed_by_reinvite_and_the_apps_bye_comes_behind() {
    we_refresh("INVITE", "uac_is_refreshed_by_reinvite");
}

#[test]
fn a_remote_side_that_refuses_the_update_it_lists_is_refreshed_by_reinvite_from_then_on() {
    let (sidecar, mut remote, mut app) = call(OURS, "uac_refuses_update", "uas_knows_no_timers");

    remote.passes();
    app.passes();
    assert_eq!(ended(&sidecar, "Bye").refreshers(), ["Local", "Local"]);
    assert_eq!((sent(&sidecar, "UPDATE"), sent(&sidecar, "INVITE")), (1.0, 2.0));
}

#[test]
fn an_app_that_calls_sees_nothing_of_two_422_with_rising_min_se() {
    let (mut remote, addr) = callee("uas_refuses_twice", LOOPBACK);
    let sidecar = Setup::new(OURS, free(LOOPBACK)).start();

    let mut app = caller("uac_knows_no_timers", sidecar.app_side()).target(addr).start();

    app.passes();
    remote.passes();
    let session = ended(&sidecar, "Bye");
    assert_eq!((session.direction(), session.count("Retried")), ("Outbound", 2));
}

#[test]
fn without_an_answer_to_our_refresh_both_sides_get_bye() {
    let (sidecar, mut remote, mut app) = call(OURS, "uac_ignores_refreshes", "uas_knows_no_timers");

    remote.passes();
    app.passes();
    let session = hung_up(&sidecar, "Expired");
    assert_eq!((session.count("RefreshSent"), session.count("Refreshed")), (1, 0));
}

#[test]
fn a_call_the_app_no_longer_has_is_not_kept_alive() {
    let (sidecar, mut remote, mut app) = call(OURS, "uac_loses_its_peer", "uas_forgets");

    remote.passes();
    app.passes();
    assert_eq!(hung_up(&sidecar, "AppGone").count("RefreshSent"), 0);
}
