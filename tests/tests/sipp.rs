//! The real sidecar between real peers: SIPp on both sides, Kamailio on the far side once. A test passes when both
//! SIPp processes say that their call went as their scenario tells, and `/sessions` says the same of the session.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use sipwarden_tests::admin::Session;
use sipwarden_tests::kamailio::Kamailio;
use sipwarden_tests::ports::{LOOPBACK, free};
use sipwarden_tests::sidecar::{Setup, Sidecar};
use sipwarden_tests::sipp::{Sipp, callee, caller};

const ENFORCE: &str = "mode: Enforce\ntimers: {sessionExpires: 30m, minSE: 90s}";

/// A sidecar before a SIPp callee, both on IPv4 loopback.
fn before_callee(spec: &str, scenario: &'static str) -> (Sidecar, Sipp) {
    let (app, addr) = callee(scenario, LOOPBACK);
    (Setup::new(spec, addr).start(), app)
}

/// One inbound call through an enforcing sidecar.
fn call(caller_scenario: &'static str, callee_scenario: &'static str) -> (Sidecar, Sipp, Sipp) {
    let (sidecar, app) = before_callee(ENFORCE, callee_scenario);
    let remote = caller(caller_scenario, sidecar.udp()).start();
    (sidecar, remote, app)
}

fn active(sidecar: &Sidecar) -> Session {
    sidecar.admin().session("that is active", Session::is_active)
}

fn ended(sidecar: &Sidecar, cause: &str) -> Session {
    sidecar.admin().session(&format!("that ended with {cause}"), |session| session.ended() == cause)
}

/// The session after its expiry, when both sides have answered the BYE.
fn hung_up(sidecar: &Sidecar) -> Session {
    let fits = |session: &Session| session.ended() == "Expired" && session.count("ByeDone") == 2;
    sidecar.admin().session("that expired and whose BYEs were answered", fits)
}

/// Refreshes counted for one side and method.
fn refreshes(sidecar: &Sidecar, by: &str, method: &str) -> f64 {
    sidecar.admin().metric_where("sipwarden_refreshes_total", &format!(r#"by="{by}",method="{method}""#))
}

/// BYEs of the sidecar that this side answered with 2xx.
fn byes_accepted(sidecar: &Sidecar, to: &str) -> f64 {
    sidecar.admin().metric_where("sipwarden_byes_total", &format!(r#"outcome="Accepted",to="{to}""#))
}

#[test]
fn a_call_has_a_timer_from_its_2xx_until_its_bye() {
    let (sidecar, mut remote, mut app) = call("uac_hangs_up", "uas_answers");

    let session = active(&sidecar);
    assert_eq!((session.direction(), session.interval_s(), session.refresher()), ("Inbound", Some(90), "Remote"));
    assert_eq!(sidecar.admin().metric("sipwarden_sessions_active"), 1.0);

    remote.passes();
    app.passes();
    assert_eq!(ended(&sidecar, "Bye").count("ByeSent"), 0);
    assert_eq!(sidecar.admin().metric("sipwarden_sessions_active"), 0.0);
    sidecar.stop();
}

#[test]
fn an_offer_below_the_minimum_gets_422_and_its_retry_succeeds() {
    let spec = "mode: Enforce\ntimers: {minSE: 2m}";
    let (sidecar, mut app) = before_callee(spec, "uas_is_offered_120");

    let mut remote = caller("uac_422_retry", sidecar.udp()).start();

    let session = active(&sidecar);
    assert_eq!((session.interval_s(), session.refresher()), (Some(120), "Remote"));
    remote.passes();
    app.passes();
    assert_eq!(sidecar.admin().metric("sipwarden_rejections_total"), 1.0);
}

#[test]
fn a_retransmitted_invite_gets_the_same_422_and_never_reaches_the_app() {
    let app = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    app.set_nonblocking(true).unwrap();
    let sidecar = Setup::new(ENFORCE, app.local_addr().unwrap()).start();

    let mut remote = caller("uac_422_retransmits", sidecar.udp()).option(&["-nr"]).start();

    remote.passes();
    // Both INVITEs and the ACK have been dealt with.
    sidecar.admin().await_metric("sipwarden_messages_total", r#"kind="request",side="Remote""#, 3.0);
    assert_eq!(app.recv(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(sidecar.admin().sessions().len(), 0);
    assert_eq!(sidecar.admin().metric("sipwarden_rejections_total"), 2.0);
}

#[test]
fn an_offer_below_the_minimum_without_timer_support_is_raised() {
    let (sidecar, mut remote, mut app) = call("uac_60_without_timer", "uas_is_offered_90");

    let session = active(&sidecar);

    assert_eq!((session.interval_s(), session.refresher()), (Some(90), "Local"));
    remote.passes();
    app.passes();
}

#[test]
fn a_caller_without_timer_gets_no_require() {
    let (sidecar, mut remote, mut app) = call("uac_without_timer", "uas_is_offered_1800");

    let session = active(&sidecar);

    assert_eq!((session.interval_s(), session.refresher()), (Some(1800), "Local"));
    remote.passes();
    app.passes();
}

#[test]
fn a_callee_without_timer_gets_its_2xx_completed() {
    let (sidecar, mut remote, mut app) = call("uac_hangs_up", "uas_without_timer");

    let session = active(&sidecar);

    assert_eq!((session.interval_s(), session.refresher()), (Some(90), "Remote"));
    remote.passes();
    app.passes();
}

/// The caller refreshes twice by `method` and outlives the interval.
fn remote_refreshes(method: &str, caller_scenario: &'static str) {
    let (sidecar, mut remote, mut app) = call(caller_scenario, "uas_answers");

    remote.passes();
    app.passes();
    assert_eq!(ended(&sidecar, "Bye").refreshers(), ["Remote", "Remote"]);
    assert_eq!(refreshes(&sidecar, "Remote", method), 2.0);
}

#[test]
fn an_update_of_the_remote_side_refreshes() {
    remote_refreshes("UPDATE", "uac_refreshes_update");
}

#[test]
fn a_reinvite_of_the_remote_side_refreshes() {
    remote_refreshes("INVITE", "uac_refreshes_reinvite");
}

/// The callee, our app, refreshes twice by `method` and outlives the interval.
fn app_refreshes(method: &str, callee_scenario: &'static str) {
    let (sidecar, mut remote, mut app) = call("uac_answers", callee_scenario);

    assert_eq!(active(&sidecar).refresher(), "Local");

    remote.passes();
    app.passes();
    assert_eq!(ended(&sidecar, "Bye").refreshers(), ["Local", "Local"]);
    assert_eq!(refreshes(&sidecar, "Local", method), 2.0);
}

#[test]
fn an_update_of_the_app_refreshes() {
    app_refreshes("UPDATE", "uas_refreshes_update");
}

#[test]
fn a_reinvite_of_the_app_refreshes() {
    app_refreshes("INVITE", "uas_refreshes_reinvite");
}

#[test]
fn without_a_refresh_both_sides_get_bye() {
    let (sidecar, mut remote, mut app) = call("uac_vanishes", "uas_vanishes");

    remote.passes();
    app.passes();
    hung_up(&sidecar);
    assert_eq!((byes_accepted(&sidecar, "Local"), byes_accepted(&sidecar, "Remote")), (1.0, 1.0));
}

#[test]
fn a_late_refresh_gets_481_and_revives_nothing() {
    let (sidecar, mut remote, mut app) = call("uac_refreshes_late", "uas_vanishes");

    remote.passes();
    app.passes();
    let session = hung_up(&sidecar);
    assert_eq!((session.count("LateRequest"), session.count("Refreshed")), (1, 0));
}

#[test]
fn compact_forms_are_understood_and_kept() {
    let (sidecar, mut remote, mut app) = call("uac_compact", "uas_compact");

    let session = active(&sidecar);

    assert_eq!((session.interval_s(), session.refresher()), (Some(90), "Remote"));
    remote.passes();
    app.passes();
    hung_up(&sidecar);
}

#[test]
fn each_fork_is_a_session_of_its_own() {
    let (sidecar, mut remote, mut app) = call("uac_forked", "uas_forks");

    ended(&sidecar, "Bye");
    active(&sidecar);

    remote.passes();
    app.passes();
    hung_up(&sidecar);
    assert_eq!(sidecar.admin().sessions().len(), 2);
}

#[test]
fn a_retransmitted_200_does_not_rearm() {
    let (sidecar, mut remote, mut app) = call("uac_slow_ack", "uas_vanishes");

    remote.passes();

    assert!(app.passes().retransmissions >= 2);
    let lived_s = hung_up(&sidecar).between_s("Established", "Expired");
    assert!((60.0..61.0).contains(&lived_s), "the BYE is due 60 s after the first 200, not {lived_s} s");
}

#[test]
fn the_apps_own_calls_are_kept_to_the_policy_too() {
    let spec = "mode: Enforce\nrules:\n- name: out\n  match: {direction: Outbound}\n  timers: {sessionExpires: 90s}";
    let (mut remote, addr) = callee("uas_vanishes", LOOPBACK);
    let sidecar = Setup::new(spec, free(LOOPBACK)).start();

    let mut app = caller("uac_vanishes", sidecar.app_side()).target(addr).start();

    let session = active(&sidecar);
    assert_eq!((session.direction(), session.rule(), session.refresher()), ("Outbound", Some("out"), "Local"));
    remote.passes();
    app.passes();
    hung_up(&sidecar);
}

#[test]
fn the_apps_calls_go_to_the_next_hop_wherever_their_uri_points() {
    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 5060));
    let (mut remote, addr) = callee("uas_answers", LOOPBACK);
    let sidecar = Setup::new(ENFORCE, free(LOOPBACK)).next_hop(&format!("udp:{addr}")).start();

    let mut app = caller("uac_hangs_up", sidecar.app_side()).target(elsewhere).start();

    assert_eq!(active(&sidecar).direction(), "Outbound");
    remote.passes();
    app.passes();
    ended(&sidecar, "Bye");
}

#[test]
fn a_call_may_come_by_tcp_and_reach_the_app_by_udp() {
    let (sidecar, mut app) = before_callee(ENFORCE, "uas_vanishes");

    let mut remote = caller("uac_vanishes", sidecar.tcp()).option(&["-t", "t1"]).start();

    assert_eq!(active(&sidecar).interval_s(), Some(90));
    remote.passes();
    app.passes();
    hung_up(&sidecar);
}

#[test]
fn calls_run_over_ipv6_on_both_sides() {
    let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let (mut app, addr) = callee("uas_vanishes", ip);
    let sidecar = Setup::new(ENFORCE, addr).ip(ip).start();

    let mut remote = caller("uac_vanishes", sidecar.udp()).start();

    assert_eq!(active(&sidecar).interval_s(), Some(90));
    remote.passes();
    app.passes();
    hung_up(&sidecar);
}

#[test]
fn observing_changes_nothing_and_tells_what_it_would_do() {
    let (sidecar, mut app) = before_callee("mode: Observe", "uas_is_observed");

    let mut remote = caller("uac_is_observed", sidecar.udp()).start();

    remote.passes();
    app.passes();
    let session = ended(&sidecar, "Bye");
    assert_eq!((session.count("Expired"), session.count("ByeSent")), (1, 0));
}

#[test]
fn behind_a_record_routing_proxy_the_bye_takes_the_route_set() {
    let (sidecar, mut app) = before_callee(ENFORCE, "uas_refreshes_then_vanishes");
    let kamailio = Kamailio::start(sidecar.udp());

    let mut remote = caller("uac_refreshes_then_vanishes", kamailio.addr()).start();

    remote.passes();
    app.passes();
    assert_eq!(hung_up(&sidecar).refreshers(), ["Remote", "Remote"]);
}
