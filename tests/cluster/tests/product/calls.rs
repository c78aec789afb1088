//! Calls from another pod, through a Service that names its target port.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sipwarden_cluster::product::{App, Site};

use crate::{PATIENCE, SOON, alone, least, site};

const CLIENT: &str = include_str!("client.yaml");

/// The policy is in force in a pod of the application, and a pod that may call it runs.
fn called(namespace: &'static str, least_s: u32, scenario: &str) -> Site<'static> {
    let site = site(namespace);
    site.policy("carrier", &least(least_s)).expect("the API server takes the policy");
    site.run(App::Sip, 1).expect("the pods run");
    site.eventually("the policy in the sidecar", SOON, || site.all_obey("carrier")).expect("it comes true in time");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "client", "namespace": namespace },
        "data": { "scenario.xml": scenario },
    });
    site.cluster
        .apply(&format!("{}\n---\n{map}\n", CLIENT.replace("@NAMESPACE@", namespace)))
        .expect("the API server takes it");
    site.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).expect("kubectl gets an answer");
    // kube-proxy knows the endpoint a moment after the API server does.
    let service = site.service().expect("there is a Service");
    site.eventually("a call through the Service", PATIENCE, || site.cluster.call(service, 1800).ok()?.hang_up().ok())
        .expect("it comes true in time");
    site
}

/// Plays the scenario from the client pod.
fn play(site: &Site) -> Result<String, anyhow::Error> {
    let service = site.service()?.to_string();
    let sipp =
        ["-sf", "/client/scenario.xml", "-m", "1", "-nostdin", "-timeout", "120", "-timeout_error", "-trace_err"];
    let exec = ["exec", "client", "--", "/usr/bin/sipp", service.as_str(), "-key", "target", "callee.example"];
    site.kubectl(&[&exec[..], &sipp].concat())
}

fn sessions(site: &Site) -> Value {
    let forward = site
        .cluster
        .serve(&["-n", site.namespace, "port-forward", "deployment/app", ":8642"])
        .expect("kubectl serves a port");
    site.eventually("the sessions through a port-forward", SOON, || {
        site.cluster.get_json(forward.address, "/sessions").ok()
    })
    .expect("it is there")
}

#[test]
fn a_call_below_the_minimum_is_refused_and_its_second_attempt_is_completed() {
    let _alone = alone();
    let site = called("calls", 120, include_str!("../../../sipp/uac_422_retry.xml"));

    play(&site).unwrap();

    assert_eq!(site.sidecars().unwrap(), ["sipwarden"]);
    let service: SocketAddr = site.service().unwrap();
    let refused = site.cluster.invite(service, 119).unwrap();
    assert_eq!((refused.status, refused.header("Min-SE")), (422, Some("120")));
}

#[test]
fn a_call_that_is_up_shows_its_interval_refresher_and_deadline() {
    let _alone = alone();
    let site = called("shown", 90, "");

    let call = site.cluster.call(site.service().unwrap(), 1200).unwrap();
    let page = sessions(&site);
    let asked = page["sessions"].as_array().unwrap().iter().find(|session| session["state"] == "Active");
    let session = asked.unwrap_or_else(|| panic!("no active session in {page}"));

    assert_eq!(call.answer.header("Require"), Some("timer"), "the application knows no timers; its 200 is completed");
    assert!(call.answer.header("Session-Expires").unwrap().starts_with("1200;refresher=uac"), "{:?}", call.answer);
    assert_eq!((&session["interval_s"], &session["refresher"]), (&json!(1200), &json!("Remote")), "{session}");
    let deadline_s = session["deadline_in_s"].as_f64().unwrap();
    assert!((1100.0..=1200.0).contains(&deadline_s), "{session}");
    assert_eq!(session["policy"], "carrier");
    call.hang_up().unwrap();
}

#[test]
fn a_caller_that_vanishes_is_hung_up_on_at_the_end_of_its_session() {
    let site = called("expiry", 90, include_str!("../../../sipp/uac_vanishes.xml"));

    // It answers the BYE of the sidecar, and fails without one.
    play(&site).unwrap();

    let page = sessions(&site);
    let ended = |session: &&Value| session["ended"] == "Expired";
    assert_eq!(page["sessions"].as_array().unwrap().iter().filter(ended).count(), 1, "{page}");
}
