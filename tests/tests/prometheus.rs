//! A real Prometheus scrapes real sidecars during real calls: every query of the dashboards has data then, and every alert
//! of a sidecar fires when it is caused. `prometheus_operator` is the same for the operator.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sipwarden_tests::ports::{LOOPBACK, free};
use sipwarden_tests::process::Process;
use sipwarden_tests::prometheus::phones::{Phones, app_socket};
use sipwarden_tests::prometheus::server::{Prometheus, Target};
use sipwarden_tests::prometheus::shipped::{queries, rule_file};
use sipwarden_tests::sidecar::{Setup, Sidecar, binary};
use sipwarden_tests::sipp::{callee, caller};
use sipwarden_tests::wait::{eventually, until};

const POLICY: &str = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s}";

/// The sidecar is to refresh for applications that cannot, without asking them first.
const OURS: &str = "mode: Enforce\ntimers: {sessionExpires: 90s, minSE: 90s, refresher: Local, appProbe: None}";

const WITH_TIMER: &str = "Supported: timer\r\nSession-Expires: 90\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n";
const TIMER_ACCEPTED: &str =
    "Require: timer\r\nSession-Expires: 90;refresher=uac\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n";

const VARIABLES: &[(&str, &str)] =
    &[("namespace", "voice"), ("workload", "pbx"), ("policy", "test"), ("__rate_interval", "1m")];

/// How long data may take to be scraped and evaluated.
const SCRAPED: Duration = Duration::from_secs(20);

#[test]
fn every_query_about_sidecars_has_data_after_calls() {
    let (mut app, addr) = callee("uas_answers", LOOPBACK);
    let sidecar = Setup::new(POLICY, addr).start();
    let prometheus = Prometheus::start(&[Target::new(sidecar.admin().addr(), "pbx")], &[]);

    caller("uac_refreshes_update", sidecar.udp()).start().passes();
    app.passes();
    vanishing_call(&sidecar);
    // One message of 64 is measured.
    let mut phones = Phones::new(app_socket(), sidecar.udp());
    (0..64).for_each(|_| phones.refused_at_once("Supported: timer\r\nSession-Expires: 60\r\n", 422));

    let queries = queries(false);
    assert!(queries.len() > 50);
    prometheus.answers(&queries, VARIABLES, SCRAPED);
    let count = |expr: &str| prometheus.ask(expr).unwrap().iter().map(|sample| sample.value).sum::<f64>();
    assert_eq!(
        count(r#"sipwarden_rejections_total{namespace="voice",workload="pbx",side="Remote",mode="Enforce"}"#),
        64.0
    );
    assert_eq!(count("sum(sipwarden_refreshes_total)"), 2.0);
}

#[test]
fn every_alert_of_a_sidecar_fires_when_it_is_caused() {
    let policies = tempfile::tempdir().unwrap();
    let path = |name: &str| policies.path().join(name);
    let app = app_socket();
    let pbx = Setup::new(POLICY, app.local_addr().unwrap()).start();
    let old_app = app_socket();
    let old_pbx = Setup::new(OURS, old_app.local_addr().unwrap()).start();
    let lost = Setup::new(POLICY, free(LOOPBACK)).start();
    let unconfigured = Bare::start(&[]);
    let full_app = app_socket();
    let full = Setup::new(POLICY, full_app.local_addr().unwrap()).max_calls(5).real_time().start();
    let rolled_out = [Setup::new(POLICY, free(LOOPBACK)).start(), Setup::new(OURS, free(LOOPBACK)).start()];
    let (good, kept) = (path("good.yaml"), path("kept.json"));
    write_policy(&good, "mode: Observe");
    let refused = Bare::start(&["--policy", good.to_str().unwrap(), "--last-good", kept.to_str().unwrap()]);
    let stale = Bare::start(&["--policy", path("missing").to_str().unwrap(), "--last-good", kept.to_str().unwrap()]);
    let targets = [
        Target::new(pbx.admin().addr(), "pbx"),
        Target::new(old_pbx.admin().addr(), "old-pbx"),
        Target::new(lost.admin().addr(), "lost"),
        Target::new(unconfigured.admin, "unconfigured"),
        Target::new(refused.admin, "refused"),
        Target::new(stale.admin, "stale"),
        Target::new(full.admin().addr(), "full"),
        Target::new(rolled_out[0].admin().addr(), "rolled-out"),
        Target::second(rolled_out[1].admin().addr(), "rolled-out"),
    ];
    let prometheus = Prometheus::start(&targets, &[rule_file("sidecar.yaml").without_waiting().text]);
    let before: Vec<_> = prometheus.firing().into_keys().collect();
    let expected_before =
        ["SipwardenPolicyStale rolled-out", "SipwardenPolicyStale stale", "SipwardenSidecarUnconfigured unconfigured"];
    assert!(before.iter().all(|alert| expected_before.contains(&alert.as_str())), "{before:?}");

    misbehave(&mut Phones::new(app, pbx.udp()));
    let mut phones = Phones::new(old_app, old_pbx.udp());
    (0..6).for_each(|_| drop(phones.call("phone", "Supported: timer\r\nAllow: INVITE, ACK, BYE\r\n", "")));
    let mut phones = Phones::new(full_app, full.udp());
    (0..5).for_each(|_| drop(phones.call("phone", WITH_TIMER, TIMER_ACCEPTED)));
    lost.stop();
    write_policy(&good, "mode: Sometimes");

    let expected = [
        "SipwardenExpiriesAboveNormal old-pbx",
        "SipwardenLimitReached pbx",
        "SipwardenPolicyRefused refused",
        "SipwardenPolicyStale rolled-out",
        "SipwardenPolicyStale stale",
        "SipwardenRefreshFailures pbx",
        "SipwardenRefreshesNotSent old-pbx",
        "SipwardenRejectionStorm pbx",
        "SipwardenRejectionsWithoutMinSE pbx",
        "SipwardenSidecarDown lost",
        "SipwardenSidecarUnconfigured unconfigured",
        "SipwardenStateNearFull full",
    ];
    for alert in rule_file("sidecar.yaml").alerts() {
        assert!(
            expected.iter().any(|expected| expected.starts_with(&alert.name)),
            "{} is not seen to fire",
            alert.name
        );
    }
    let firing = || prometheus.firing();
    let all = || expected.iter().all(|alert| firing().contains_key(*alert)).then_some(());
    let all_fired = until(SCRAPED * 2, all).is_some();
    let firing = firing();
    let missing: Vec<_> = expected.iter().filter(|alert| !firing.contains_key(**alert)).collect();
    assert!(all_fired, "{missing:?} do not fire, only {firing:#?}");
    for (alert, told) in firing {
        assert!(!told.contains("error") && !told.contains("{{") && !told.contains("<no value>"), "{alert}: {told}");
    }
}

/// A call that the remote side makes through the sidecar's app side and then forgets, so that it expires.
fn vanishing_call(sidecar: &Sidecar) {
    let (mut remote, addr) = callee("uas_vanishes", LOOPBACK);
    let mut app = caller("uac_vanishes", sidecar.app_side()).target(addr).start();
    app.passes();
    remote.passes();
}

/// Too short an interval again and again, refreshes that fail, 422 without Min-SE, and an identity too large to keep.
fn misbehave(phones: &mut Phones) {
    (0..40).for_each(|_| phones.refused_at_once("Supported: timer\r\nSession-Expires: 60\r\n", 422));
    let mut call = phones.call("phone", WITH_TIMER, TIMER_ACCEPTED);
    (0..6).for_each(|_| phones.refresh_fails(&mut call, 500));
    (0..6).for_each(|_| phones.refused(WITH_TIMER, 422));
    phones.call(&"x".repeat(9000), WITH_TIMER, TIMER_ACCEPTED);
}

fn write_policy(path: &Path, spec: &str) {
    let head = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: test}\nspec:\n  ";
    fs::write(path, format!("{head}{spec}\n")).expect("the directory is ours");
}

/// A sidecar that sees no call, with these arguments about its policy.
struct Bare {
    admin: SocketAddr,
    _process: Process,
}

impl Bare {
    fn start(policy: &[&str]) -> Bare {
        let process = Process::start("sidecar", &binary(), |command, _| {
            command.args(["run", "--listen", "udp:127.0.0.1:0", "--app-listen", "udp:127.0.0.1:0"]);
            command.args(["--app", "udp:127.0.0.1:9", "--admin", "127.0.0.1:0"]).args(policy);
        });
        let admin = eventually("the sidecar's ready line", SCRAPED, || {
            let ready = process.stdout();
            let word = ready.split_whitespace().find_map(|word| word.strip_prefix("admin="))?;
            Some(word.parse().expect("an address"))
        });
        Bare { admin, _process: process }
    }
}
