//! What becomes of running sidecars when policies come, change and go.

use serde_json::json;
use sipwarden_cluster::product::{App, Site, too_long};

use crate::{SOON, alone, least, site};

/// One pod of the application obeys `carrier`, which refuses intervals below 100 s.
fn obeying(namespace: &'static str, app: App) -> Site<'static> {
    let site = site(namespace);
    site.run_under(&least(100), app, 1).expect("its pod obeys the policy");
    site
}

/// Calls at an interval of 90 s are refused with this minimum.
fn judges(site: &Site, least_s: u32) {
    let service = site.service().expect("there is a Service");
    let what = format!("calls to be judged by a minimum of {least_s} s");
    site.eventually(&what, SOON, || site.refuses_below(least_s, service)).expect("it comes true in time");
}

#[test]
fn of_two_policies_the_one_of_higher_priority_is_obeyed_until_it_goes() {
    let _alone = alone();
    let site = obeying("priority", App::Idle);

    let mut urgent = least(200);
    urgent["priority"] = json!(10);
    site.policy("urgent", &urgent).unwrap();
    judges(&site, 200);
    site.becomes("carrier", "Programmed", "False Overridden").unwrap();
    site.becomes("urgent", "Ready", "True Ready").unwrap();

    site.policy("late", &{
        let mut late = least(300);
        late["priority"] = json!(10);
        late
    })
    .unwrap();
    site.becomes("late", "Accepted", "False Conflicted").unwrap();
    judges(&site, 200);

    site.kubectl(&["delete", "sessionpolicy", "urgent", "late"]).unwrap();
    judges(&site, 100);
    site.becomes("carrier", "Ready", "True Ready").unwrap();
}

#[test]
fn a_policy_that_cannot_be_compiled_is_refused_with_the_reason_and_changes_nothing() {
    let _alone = alone();
    let site = obeying("refused", App::Idle);

    let error = site.policy("carrier", &too_long()).unwrap_err().to_string();
    assert!(error.contains("policies.sipwarden.dev") && error.contains("spec.rules: too long by"), "{error}");
    let error = site.policy("carrier", &least(60)).unwrap_err().to_string();
    assert!(error.contains("minSE is below 90s"), "{error}");

    judges(&site, 100);
    site.becomes("carrier", "Ready", "True Ready").unwrap();
}

#[test]
fn a_floor_of_the_cluster_holds_and_is_told_in_the_policys_status() {
    let _alone = alone();
    let site = obeying("floor", App::Idle);
    let floor = json!({
        "apiVersion": "sipwarden.dev/v1alpha1", "kind": "ClusterSessionPolicy", "metadata": { "name": "floor" },
        "spec": {
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "floor" } },
            "timers": { "minSE": { "atLeast": "5m" } },
        },
    });
    site.cluster.apply(&floor.to_string()).unwrap();
    judges(&site, 300);
    site.eventually("the bound in the status", SOON, || {
        let policy = site.get("sessionpolicy", "carrier").ok()?;
        (policy["status"]["clamped"][0]["field"] == "spec.timers.minSE").then_some(())
    })
    .unwrap();

    site.cluster.kubectl(&["delete", "clustersessionpolicy", "floor"]).unwrap();
    judges(&site, 100);
}

#[test]
fn the_deletion_of_a_policy_returns_its_pods_to_observe_and_drops_no_call() {
    let _alone = alone();
    let site = obeying("deletion", App::Sip);
    let service = site.service().unwrap();
    let mut call = site.call(1800).unwrap();

    site.kubectl(&["delete", "sessionpolicy", "carrier"]).unwrap();
    let observes = || {
        let status = site.status(site.pods().ok()?.first()?).ok()?;
        (status["mode"] == "Observe" && status["policy"] == "built-in").then_some(status)
    };
    let status = site.eventually("the built-in policy", SOON, observes).unwrap();
    assert_eq!(status["sessions"], 1, "the call is still known: {status}");
    call.check().unwrap();
    let mut observed = site.cluster.call(service, 90).unwrap();
    observed.check().unwrap();
    assert_eq!(observed.answer.header("Session-Expires"), None, "nothing is changed: {:?}", observed.answer);

    site.policy("carrier", &least(100)).unwrap();
    judges(&site, 100);
    call.check().unwrap();
    call.hang_up().unwrap();
    observed.hang_up().unwrap();
}
