//! The operator as a process against a real API server: what it makes of policies, and how it ends.
//!
//! No controllers and kubelets are there; their objects are made by hand.

#[path = "../../support/client.rs"]
mod client;
mod objects;
mod operator;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sipwarden_cluster::{Cluster, Component, product::too_long};
use sipwarden_crds::{ClusterSessionPolicy, Mode, SessionPolicy, SidecarConfigObject};
use sipwarden_operator::{index::PAUSED, inject::names};
use tokio::sync::OnceCell;

use self::{
    objects::{Site, eventually},
    operator::{Operator, chart_roles, client_of, cluster, sidecar},
};

/// From a change to what sidecars would read, with room for other work on the machine: the bench measures how long it takes.
const SOON: Duration = Duration::from_secs(5);

fn interval(text: &str) -> Value {
    json!({ "timers": { "sessionExpires": text } })
}

/// The operator of the revision `default`, which most tests share; each has a namespace of its own.
async fn site(name: &str) -> Site {
    shared_operator().await;
    let client = client_of(cluster()).await;
    Site::new(&client, name, "default").await
}

/// It ends with the API server, whose lease it then loses.
async fn shared_operator() -> &'static Operator {
    static OPERATOR: OnceCell<Operator> = OnceCell::const_new();
    OPERATOR.get_or_init(|| async { Operator::start(cluster(), "default", "shared").until_leading().await }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reaches_pods_workload_and_status_as_it_changes() {
    let site = site("reach").await;
    site.deployment("pbx", 5).await;
    site.policy("carrier", interval("30m")).await;
    let obey = eventually("configs", || async { site.obeyed().await == [Some("carrier".to_owned())] }).await;
    let told = eventually("status", || async { site.condition("carrier", "Ready").await == "True Ready" }).await;
    assert!(obey < SOON && told < SOON, "{obey:?} {told:?}");

    site.policy("carrier", interval("20m")).await;
    let changed = || async { site.config("pbx-4").await.unwrap().timers.session_expires.to_string() == "20m" };
    let obey = eventually("the change", changed).await;
    assert!(obey < SOON, "{obey:?}");

    let config = site.sidecar_config("deployment-pbx").await.unwrap();
    assert_eq!(config.spec, site.config("pbx-0").await.unwrap());
    let owner = &config.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Deployment", "pbx"));
    eventually("counts of the workload", || async {
        let config = site.sidecar_config("deployment-pbx").await.unwrap();
        config.status.is_some_and(|status| status.pods == 5 && status.observed_hash == config.spec.hash)
    })
    .await;
    eventually("counts of the policy", || async {
        let status = site.status("carrier").await;
        status.pods.matched == 5 && status.pods.injected == 5 && status.hash == config.spec.hash
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_comes_later_is_given_its_config() {
    let site = site("later").await;
    site.policy("carrier", interval("30m")).await;
    site.deployment("pbx", 0).await;
    eventually("the workload's config", || async { site.sidecar_config("deployment-pbx").await.is_some() }).await;
    site.pod("pbx", "pbx-late", true).await;
    let took = eventually("a config", || async { site.config("pbx-late").await.is_some() }).await;
    assert!(took < SOON, "{took:?}");
}

/// For the admission policy, while no operator is there.
#[tokio::test(flavor = "multi_thread")]
async fn each_policy_has_a_config_for_pods_that_nobody_knows_yet() {
    let site = site("selecting").await;
    site.deployment("pbx", 2).await;
    site.policy("rest", json!({})).await;
    site.policy("carrier", json!({ "podSelector": { "matchLabels": { "app": "pbx" } }, "priority": 1 })).await;
    let selectors = async |name: &str| {
        let annotations = site.sidecar_config(name).await?.metadata.annotations?;
        annotations.get(names::POD_SELECTORS).cloned()
    };
    let rest = async || selectors("sessionpolicy-rest").await;
    eventually("both", || async { rest().await.as_deref() == Some("\n\nIn app pbx") }).await;
    eventually("its own", || async { selectors("sessionpolicy-carrier").await.is_some() }).await;
    let config = site.sidecar_config("sessionpolicy-carrier").await.unwrap();
    assert_eq!(config.metadata.annotations.as_ref().unwrap()[names::POD_SELECTORS], "In app pbx");
    let owner = &config.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("SessionPolicy", "carrier"));
    eventually("the pods' own", || async { site.config("pbx-0").await.as_ref() == Some(&config.spec) }).await;
    eventually("counts", || async {
        let config = site.sidecar_config("sessionpolicy-carrier").await.unwrap();
        config.status.is_some_and(|status| status.pods == 2)
    })
    .await;
    let printed = cluster().kubectl(&["get", "sidecarconfigs", "--namespace", &site.namespace]).unwrap();
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(rows[0], ["NAME", "FOR", "POLICY"]);
    assert!(rows.contains(&vec!["sessionpolicy-carrier", "selector", "carrier"]), "{printed}");
    assert!(rows.contains(&vec!["deployment-pbx", "workload", "carrier"]), "{printed}");

    site.delete_policy("carrier").await;
    eventually("none", || async { site.sidecar_config("sessionpolicy-carrier").await.is_none() }).await;
    eventually("all pods", || async { rest().await.as_deref() == Some("") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_policies_the_higher_priority_is_obeyed_and_an_equal_one_conflicts() {
    let site = site("conflict").await;
    site.deployment("pbx", 2).await;
    site.policy("low", json!({ "priority": -1 })).await;
    site.policy("high", json!({ "priority": 5 })).await;
    eventually("the higher one", || async { site.obeyed().await == [Some("high".to_owned())] }).await;
    let overridden = || async { site.condition("low", "Programmed").await == "False Overridden" };
    eventually("being overridden", overridden).await;
    assert_eq!(site.condition("low", "Accepted").await, "True Accepted");

    site.policy("same", json!({ "priority": 5 })).await;
    eventually("the conflict", || async { site.condition("same", "Accepted").await == "False Conflicted" }).await;
    assert_eq!(site.obeyed().await, [Some("high".to_owned())], "the older one stays");
    let told = || async { site.events_about("same").await == ["PolicyConflict"] };
    eventually("an Event", told).await;
    site.delete_policy("high").await;
    eventually("the next one", || async { site.obeyed().await == [Some("same".to_owned())] }).await;
    eventually("acceptance", || async { site.condition("same", "Ready").await == "True Ready" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_policy_keeps_what_was_in_force() {
    let site = site("invalid").await;
    site.deployment("pbx", 2).await;
    site.policy("carrier", interval("30m")).await;
    eventually("configs", || async { site.obeyed().await == [Some("carrier".to_owned())] }).await;
    site.policy("carrier", too_long()).await;
    eventually("the verdict", || async { site.condition("carrier", "Accepted").await == "False Invalid" }).await;
    eventually("an Event", || async { site.events_about("carrier").await == ["PolicyInvalid"] }).await;
    assert_eq!(site.config("pbx-0").await.unwrap().generation, 1);
    site.pod("pbx", "pbx-new", true).await;
    eventually("a new pod", || async { site.config("pbx-new").await.is_some() }).await;
    assert_eq!(site.config("pbx-new").await.unwrap().generation, 1);
    site.policy("carrier", json!({ "rules": [], "mode": "Observe" })).await;
    eventually("the next one", || async { site.config("pbx-0").await.unwrap().mode == Mode::Observe }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_policy_is_a_floor_that_is_told() {
    let site = site("bounds").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    let clusters: Api<ClusterSessionPolicy> = Api::all(site.client.clone());
    let floor = json!({
        "apiVersion": "sipwarden.dev/v1alpha1", "kind": "ClusterSessionPolicy", "metadata": { "name": "floor" },
        "spec": {
            "namespaceSelector": { "matchLabels": { "site": "bounds" } },
            "mode": { "atMost": "Observe" },
            "timers": { "minSE": { "atLeast": "5m" } },
        },
    });
    clusters.patch("floor", &PatchParams::apply("test"), &Patch::Apply(floor)).await.unwrap();
    let bound = || async {
        let config = site.config("pbx-0").await;
        config.is_some_and(|config| config.mode == Mode::Observe && config.timers.min_se.to_string() == "5m")
    };
    eventually("the floor", bound).await;
    eventually("what it changed", || async {
        let fields: Vec<String> = site.status("carrier").await.clamped.into_iter().map(|clamp| clamp.field).collect();
        fields == ["spec.mode", "spec.timers.minSE"]
    })
    .await;
    eventually("the floor's own status", || async {
        let status = clusters.get("floor").await.unwrap().status.unwrap_or_default();
        (status.namespaces, status.clamped_policies) == (1, 1)
    })
    .await;
    let faulty = json!({ "matchExpressions": [{ "key": "site", "operator": "In" }] });
    let faulty = Patch::Merge(json!({ "spec": { "namespaceSelector": faulty } }));
    clusters.patch("floor", &PatchParams::default(), &faulty).await.unwrap();
    // Events about what is in no namespace are there.
    let place = Site { client: site.client.clone(), namespace: "default".to_owned() };
    eventually("an Event", || async { place.events_about("floor").await == ["PolicyInvalid"] }).await;
    assert_eq!(site.config("pbx-0").await.unwrap().mode, Mode::Observe, "the bounds stay in force");
    clusters.delete("floor", &DeleteParams::default()).await.unwrap();
    eventually("freedom", || async { site.config("pbx-0").await.unwrap().mode == Mode::Enforce }).await;
    eventually("freedom told", || async { site.status("carrier").await.clamped.is_empty() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_revisions_one_tells_the_status_of_a_cluster_policy_and_its_bounds_hold_under_both() {
    let of_default = site("beside-default").await;
    let next = Operator::start(cluster(), "next", "one").until_leading().await;
    let of_next = Site::new(&of_default.client, "beside-next", "next").await;
    let clusters: Api<ClusterSessionPolicy> = Api::all(of_default.client.clone());
    let apply = async |revision: &str, least: &str| {
        let sites = json!([{ "key": "site", "operator": "In", "values": ["beside-default", "beside-next"] }]);
        let bounds = json!({
            "apiVersion": "sipwarden.dev/v1alpha1", "kind": "ClusterSessionPolicy",
            "metadata": { "name": "beside", "labels": { names::REVISION: revision } },
            "spec": {
                "namespaceSelector": { "matchExpressions": sites }, "timers": { "minSE": { "atLeast": least } },
            },
        });
        clusters.patch("beside", &PatchParams::apply("test"), &Patch::Apply(bounds)).await.unwrap();
    };
    apply("nobody", "5m").await;
    for site in [&of_default, &of_next] {
        site.deployment("pbx", 1).await;
        site.policy("carrier", interval("30m")).await;
        eventually("the floor", || async {
            site.config("pbx-0").await.is_some_and(|config| config.timers.min_se.to_string() == "5m")
        })
        .await;
        eventually("its status", || async { site.status("carrier").await.clamped.len() == 1 }).await;
    }
    let written = async |operator: &Operator| {
        let series = "sipwarden_operator_writes_total{kind=\"clustersessionpolicy-status\",outcome=\"written\"}";
        operator.probe().metric(series).await
    };
    assert_eq!(clusters.get("beside").await.unwrap().status, None, "nobody has been asked to tell it");
    assert_eq!(written(&next).await, Some(0.0));

    apply("next", "6m").await;
    eventually("the status", || async {
        let status = clusters.get("beside").await.unwrap().status.unwrap_or_default();
        (status.namespaces, status.clamped_policies) == (2, 2)
    })
    .await;
    eventually("its count", || async { written(&next).await > Some(0.0) }).await;
    next.kill();
    apply("default", "7m").await;
    eventually("the status by the other", || async {
        let policy = clusters.get("beside").await.unwrap();
        Some(policy.status.unwrap_or_default().observed_generation) == policy.metadata.generation
    })
    .await;
    clusters.delete("beside", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_a_policy_returns_its_pods_to_observe() {
    let site = site("deletion").await;
    site.deployment("pbx", 2).await;
    site.policy("carrier", interval("30m")).await;
    eventually("configs", || async { site.obeyed().await == [Some("carrier".to_owned())] }).await;
    site.delete_policy("carrier").await;
    eventually("the built-in one", || async { site.obeyed().await == [Some("built-in".to_owned())] }).await;
    assert_eq!(site.config("pbx-1").await.unwrap().mode, Mode::Observe);
    eventually("no config", || async { site.sidecar_config("deployment-pbx").await.is_none() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_stays_as_it_is() {
    let site = site("pause").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    eventually("a config", || async { site.config("pbx-0").await.is_some() }).await;
    site.annotate::<SessionPolicy>("carrier", PAUSED, Some("true")).await;
    site.policy("carrier", interval("20m")).await;
    eventually("the pause", || async { site.condition("carrier", "Programmed").await == "False Paused" }).await;
    assert_eq!(site.config("pbx-0").await.unwrap().generation, 1);
    site.annotate::<SessionPolicy>("carrier", PAUSED, None).await;
    eventually("the change", || async { site.config("pbx-0").await.unwrap().generation == 2 }).await;

    let namespaces: Api<Namespace> = Api::all(site.client.clone());
    let pause = Patch::Merge(json!({ "metadata": { "annotations": { PAUSED: "true" } } }));
    namespaces.patch("pause", &PatchParams::default(), &pause).await.unwrap();
    eventually("the pause", || async { site.condition("carrier", "Programmed").await == "False Paused" }).await;
    site.delete_policy("carrier").await;
    site.pod("pbx", "pbx-new", true).await;
    site.policy("other", interval("10m")).await;
    eventually("the verdict", || async { site.condition("other", "Programmed").await == "False Paused" }).await;
    assert_eq!(site.config("pbx-0").await.unwrap().policy, "carrier");
    let resume = Patch::Merge(json!({ "metadata": { "annotations": { PAUSED: null } } }));
    namespaces.patch("pause", &PatchParams::default(), &resume).await.unwrap();
    eventually("the other one", || async { site.obeyed().await == [Some("other".to_owned())] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_the_sidecar_they_asked_for_are_told() {
    let site = site("watchdog").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    site.pod("pbx", "pbx-bare", false).await;
    eventually("the count", || async {
        let pods = site.status("carrier").await.pods;
        (pods.matched, pods.injected) == (2, 1)
    })
    .await;
    assert_eq!(site.condition("carrier", "Programmed").await, "False PartiallyProgrammed");
    eventually("an Event", || async { site.events_about("pbx").await == ["Injected", "InjectionSkipped"] }).await;
    site.object::<Pod>("db", json!({ "spec": { "containers": [{ "name": "db", "image": "db" }] } })).await;
    site.pod_status("db", json!({ "phase": "Running" })).await;
    eventually("the reason", || async {
        let notes = site.notes_about("db").await;
        notes.len() == 1 && notes[0].starts_with("no sidecar (NoSuchPort): ")
    })
    .await;
    site.api::<Pod>().delete("pbx-bare", &DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("nobody lacking", || async { site.condition("carrier", "Programmed").await == "True Programmed" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sidecars_say_is_counted() {
    let site = site("acks").await;
    site.deployment("pbx", 2).await;
    site.policy("carrier", interval("30m")).await;
    eventually("configs", || async { site.obeyed().await == [Some("carrier".to_owned())] }).await;
    let hash = site.config("pbx-0").await.unwrap().hash;
    for (pod, address, says, sessions) in
        [("pbx-0", "::1", hash.as_str(), 7), ("pbx-1", "127.9.0.2", "0000000000000000", 5)]
    {
        sidecar(address.parse().unwrap(), says, sessions);
        let ip = address.to_owned();
        site.pod_status(pod, json!({ "podIP": ip, "podIPs": [{ "ip": ip }] })).await;
    }
    eventually("answers", || async {
        let status = site.status("carrier").await;
        (status.pods.in_step, status.pods.stale, status.sessions) == (1, 1, 12)
    })
    .await;
    assert_eq!(site.condition("carrier", "Programmed").await, "False PartiallyProgrammed");
    eventually("answers in the workload's config", || async {
        let status = site.sidecar_config("deployment-pbx").await.unwrap().status.unwrap_or_default();
        (status.in_step, status.sessions) == (1, 12)
    })
    .await;
    let nudged = |name: &'static str| {
        let site = &site;
        async move { site.api::<Pod>().get(name).await.unwrap().annotations().contains_key(names::NUDGED) }
    };
    eventually("a nudge for the kubelet that shows an old config", || nudged("pbx-1")).await;
    assert!(!nudged("pbx-0").await, "its sidecar is in step");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_under_admission_is_given_the_config_that_would_be_written_later() {
    let site = site("admission").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    eventually("a config", || async { site.config("pbx-0").await.is_some() }).await;
    let mut pod = serde_json::to_value(site.api::<Pod>().get("pbx-0").await.unwrap()).unwrap();
    let known = pod["metadata"]["annotations"]["sipwarden.dev/config"].take();
    pod["metadata"]["annotations"] = json!({});
    pod["metadata"]["labels"].as_object_mut().unwrap().remove("sipwarden.dev/sidecar");
    let answer = shared_operator().await.review(&site.client, "/inject", &admission_of("admission", &pod)).await;
    let patch: Vec<u8> = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    let values = || patch.as_array().unwrap().iter().map(|operation| &operation["value"]);
    assert!(values().any(|value| *value == known), "{patch}");
    assert!(values().any(|value| value["name"] == "sipwarden" || value[0]["name"] == "sipwarden"), "{patch}");
}

/// A question to the webhook about a pod that is about to be created.
fn admission_of(namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": namespace, "userInfo": {}, "object": pod,
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn that_pods_are_injected_is_told_once_for_each_workload_whoever_did_it() {
    let site = site("told").await;
    // By the admission policy, of which the webhook hears nothing, or by which it finds the sidecar there.
    site.deployment("alone", 2).await;
    site.deployment("asked", 0).await;
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "asked-0", "namespace": "told", "labels": { "app": "asked", "pod-template-hash": "7d4f" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "asked-7d4f", "uid": "7d4f",
                "controller": true }] },
        "spec": { "containers": [{ "name": "app", "image": "app", "ports": [{ "name": "sip", "containerPort": 5060 }] }] },
    });
    let operator = shared_operator().await;
    let answer = operator.review(&site.client, "/inject", &admission_of("told", &pod)).await;
    assert!(answer["response"]["patch"].is_array(), "{answer}");
    site.pod("asked", "asked-0", true).await;
    for name in ["alone", "asked"] {
        eventually("an Event", || async { site.events_about(name).await == ["Injected"] }).await;
    }

    site.pod("alone", "alone-later", true).await;
    site.pod("asked", "asked-1", true).await;
    pod["spec"]["hostNetwork"] = json!(true);
    operator.review(&site.client, "/inject", &admission_of("told", &pod)).await;
    eventually("a later Event", || async { site.events_about("asked").await == ["Injected", "InjectionSkipped"] })
        .await;
    for name in ["alone", "asked"] {
        assert_eq!(site.times_told(name, "Injected").await, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_changed_by_hand_is_put_right() {
    let site = site("by-hand").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    eventually("a config", || async { site.sidecar_config("deployment-pbx").await.is_some() }).await;
    let patch = Patch::Merge(json!({ "spec": { "mode": "Observe" } }));
    let configs = site.api::<SidecarConfigObject>();
    configs.patch("deployment-pbx", &PatchParams::default(), &patch).await.unwrap();
    eventually("the right one", || async { configs.get("deployment-pbx").await.unwrap().spec.mode == Mode::Enforce })
        .await;
    eventually("the pod's", || async { site.config("pbx-0").await.is_some() }).await;
    site.annotate::<Pod>("pbx-0", "sipwarden.dev/config", Some("nonsense")).await;
    let right = || async {
        let pod = site.api::<Pod>().get("pbx-0").await.unwrap();
        pod.annotations().get("sipwarden.dev/config").is_some_and(|text| text.contains("carrier"))
    };
    eventually("the right one", right).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roles_of_the_chart_are_enough() {
    let kubeconfig = chart_roles(cluster(), "roles");
    let operator = Operator::start_as(cluster(), &kubeconfig, "roles", "one").until_leading().await.until_ready().await;
    let site = Site::new(&client_of(cluster()).await, "roles", "roles").await;
    site.deployment("pbx", 1).await;
    site.pod("pbx", "pbx-bare", false).await;
    site.policy("carrier", interval("30m")).await;
    site.policy("same", interval("30m")).await;
    eventually("a config", || async { site.config("pbx-0").await.is_some() }).await;
    eventually("the status", || async { site.condition("same", "Accepted").await == "False Conflicted" }).await;
    eventually("an Event", || async { site.events_about("same").await == ["PolicyConflict"] }).await;
    let events = || async { site.events_about("pbx").await == ["Injected", "InjectionSkipped"] };
    eventually("Events about the workload", events).await;
    eventually("the workload's status", || async {
        let config = site.sidecar_config("deployment-pbx").await;
        config.is_some_and(|config| config.status.is_some_and(|status| status.pods == 1))
    })
    .await;
    for policy in ["carrier", "same"] {
        site.delete_policy(policy).await;
    }
    eventually("no config", || async { site.sidecar_config("deployment-pbx").await.is_none() }).await;
    let log = operator.log();
    assert!(operator.terminate().await);
    assert!(!log.contains("forbidden"), "{log}");
}

async fn two_replicas(revision: &str) -> (Client, Site, Operator, Operator) {
    let client = client_of(cluster()).await;
    let site = Site::new(&client, revision, revision).await;
    site.deployment("pbx", 2).await;
    site.policy("carrier", interval("30m")).await;
    let first = Operator::start(cluster(), revision, "first").until_leading().await;
    let second = Operator::start(cluster(), revision, "second").until_ready().await;
    eventually("configs", || async { site.obeyed().await == [Some("carrier".to_owned())] }).await;
    assert_eq!(second.probe().metric("sipwarden_operator_leading").await, Some(0.0));
    assert_eq!(second.probe().metric("sipwarden_operator_queued{queue=\"pods\"}").await, Some(0.0));
    (client, site, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_killed_the_other_takes_over_and_does_what_was_left() {
    let (_, site, first, second) = two_replicas("killed").await;
    first.kill();
    site.policy("carrier", interval("20m")).await;
    let _second = second.until_leading().await;
    eventually("the change", || async { site.config("pbx-1").await.unwrap().generation == 2 }).await;
    eventually("status", || async { site.condition("carrier", "Ready").await == "True Ready" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    let (_, site, first, second) = two_replicas("asked").await;
    assert!(first.terminate().await, "it ends well");
    let handed_over = std::time::Instant::now();
    let _second = second.until_leading().await;
    assert!(handed_over.elapsed() < Duration::from_secs(6), "{:?}", handed_over.elapsed());
    site.policy("carrier", interval("20m")).await;
    eventually("the change", || async { site.config("pbx-1").await.unwrap().generation == 2 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_operator_writes_nothing_that_is_already_so() {
    let client = client_of(cluster()).await;
    let site = Site::new(&client, "again", "again").await;
    site.deployment("pbx", 3).await;
    site.policy("carrier", interval("30m")).await;
    let operator = Operator::start(cluster(), "again", "one").until_leading().await;
    eventually("status", || async { site.condition("carrier", "Ready").await == "True Ready" }).await;
    eventually("the workload's status", || async {
        site.sidecar_config("deployment-pbx").await.unwrap().status.is_some_and(|status| status.pods == 3)
    })
    .await;
    assert!(operator.terminate().await);

    let operator = Operator::start(cluster(), "again", "two").until_leading().await;
    site.pod("pbx", "pbx-9", true).await;
    eventually("the new pod", || async { site.config("pbx-9").await.is_some() }).await;
    let written = |kind: &str| format!("sipwarden_operator_writes_total{{kind=\"{kind}\",outcome=\"written\"}}");
    assert_eq!(operator.probe().metric(&written("pod")).await, Some(1.0));
    assert_eq!(operator.probe().metric(&written("sidecarconfig")).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_api_server_costs_the_lease_and_after_its_return_all_is_made_up_for() {
    let cluster = Cluster::api_only().expect("an API server");
    cluster.prepare_for_operators().expect("definitions and a namespace");
    let client = client_of(&cluster).await;
    let site = Site::new(&client, "voice", "default").await;
    site.deployment("pbx", 1).await;
    site.policy("carrier", interval("30m")).await;
    let mut operator = Operator::start(&cluster, "default", "one").until_leading().await;
    eventually("a config", || async { site.config("pbx-0").await.is_some() }).await;
    cluster.kill(Component::ApiServer).expect("it runs");
    let operator = std::sync::Mutex::new(&mut operator);
    eventually("the exit", || async { operator.lock().unwrap().exit() == Some(false) }).await;
    cluster.start(Component::ApiServer).expect("it starts");
    site.policy("carrier", interval("20m")).await;
    let _operator = Operator::start(&cluster, "default", "one").until_leading().await;
    eventually("the change", || async { site.config("pbx-0").await.unwrap().generation == 2 }).await;
}
