//! Calls from another pod, through a Service that names its target port.

use std::time::Duration;

use serde_json::{Value, json};
use sipwarden_cluster::Call;
use sipwarden_cluster::product::{App, Site};

use crate::{PATIENCE, SOON, alone, least, site};

const CALLER: &str = include_str!("caller.yaml");

/// The policy is in force in a pod of this application, and the Service leads to it.
pub(crate) fn called(namespace: &'static str, app: App, least_s: u32) -> Site<'static> {
    let site = site(namespace);
    site.run_under(&least(least_s), app, 1).expect("its pod obeys the policy");
    site.call(1800).and_then(Call::hang_up).expect("the call is up and ends");
    site
}

/// Runs a pod that plays this scenario of SIPp once, and waits for its end.
pub(crate) fn play(site: &Site, scenario: &str, limit: Duration) {
    let files = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "caller", "namespace": site.namespace },
        "data": { "scenario.xml": scenario },
    });
    let target = site.service().expect("there is a Service").to_string();
    let pod = CALLER.replace("@NAMESPACE@", site.namespace).replace("@TARGET@", &target);
    site.cluster.apply(&format!("{files}\n---\n{pod}")).expect("the API server takes it");
    let phase = || site.kubectl(&["get", "pod", "caller", "-o", "jsonpath={.status.phase}"]).ok();
    let ended = || phase().filter(|phase| phase == "Succeeded" || phase == "Failed");
    let phase = site.eventually("the end of the caller", limit, ended).expect("it comes true in time");
    let log = || site.kubectl(&["logs", "caller"]).unwrap_or_else(|error| error.to_string());
    assert_eq!(phase, "Succeeded", "{}\n{}", log(), site.look());
}

pub(crate) fn sessions(site: &Site) -> Value {
    let forward = site
        .cluster
        .serve(&["-n", site.namespace, "port-forward", "deployment/app", ":8642"])
        .expect("kubectl serves a port");
    site.eventually("the sessions through a port-forward", SOON, || {
        site.cluster.get_json(forward.address, "/sessions").ok()
    })
    .expect("it is there")
}

/// The one session that is up.
fn active(page: &Value) -> &Value {
    let active = page["sessions"].as_array().expect("a list").iter().find(|session| session["state"] == "Active");
    active.unwrap_or_else(|| panic!("no active session in {page}"))
}

#[test]
fn a_call_below_the_minimum_is_refused_and_its_second_attempt_is_completed() {
    let _alone = alone();
    let site = called("calls", App::Sip, 120);

    play(&site, include_str!("../../../sipp/uac_422_retry.xml"), PATIENCE);

    assert_eq!(site.sidecars().unwrap(), ["sipwarden"]);
    let refused = site.cluster.invite(site.service().unwrap(), 119).unwrap();
    assert_eq!((refused.status, refused.header("Min-SE")), (422, Some("120")));
}

#[test]
fn a_call_that_is_up_shows_its_interval_refresher_and_deadline() {
    let _alone = alone();
    let site = called("shown", App::Sip, 90);

    let call = site.cluster.call(site.service().unwrap(), 1200).unwrap();
    let page = sessions(&site);
    let session = active(&page);

    assert_eq!(call.answer.header("Require"), Some("timer"), "the application knows no timers; its 200 is completed");
    assert!(call.answer.header("Session-Expires").unwrap().starts_with("1200;refresher=uac"), "{:?}", call.answer);
    assert_eq!((&session["interval_s"], &session["refresher"]), (&json!(1200), &json!("Remote")), "{session}");
    let deadline_s = session["deadline_in_s"].as_f64().unwrap();
    assert!((1100.0..=1200.0).contains(&deadline_s), "{session}");
    assert_eq!(session["policy"], "carrier");
    call.hang_up().unwrap();
}

/// What is asked within the call shows that both directions of its route are whole.
#[test]
fn calls_that_kamailio_routes_on_are_judged_and_completed_as_well() {
    let _alone = alone();
    let site = called("kamailio", App::Kamailio, 120);
    let service = site.service().unwrap();

    let refused = site.cluster.invite(service, 119).unwrap();
    let mut call = site.cluster.call(service, 1200).unwrap();
    call.check().unwrap();
    let page = sessions(&site);
    let session = active(&page);

    assert_eq!((refused.status, refused.header("Min-SE")), (422, Some("120")));
    assert_eq!(call.answer.header("Require"), Some("timer"), "the callee knows no timers; its 200 is completed");
    assert!(call.answer.header("Session-Expires").unwrap().starts_with("1200;refresher=uac"), "{:?}", call.answer);
    assert_eq!((&session["interval_s"], &session["refresher"]), (&json!(1200), &json!("Remote")), "{session}");
    let sidecars =
        site.kubectl(&["get", "pods", "--selector=app=callee", "-o", "jsonpath={.items[*].spec.initContainers}"]);
    assert_eq!(sidecars.unwrap(), "", "the callee is another party");
    call.hang_up().unwrap();
}
