//! The charts on a real API server, installed by Helm as a user would: every object they render is valid there, and
//! those that the API server itself obeys (selectors, CEL, RBAC) do what they are for. No operator runs here.

mod network;
mod notes;
mod roles;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use sipwarden_cluster::Cluster;
use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::workspace::charts;

const SYSTEM: &str = "sipwarden-system";

/// For what the API server takes up a moment after it was told.
const LIMIT: Duration = Duration::from_secs(10);

/// Where the definitions of ServiceMonitor, PodMonitor and PrometheusRule come from.
const PROMETHEUS_OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.91.0";

/// One API server for all tests; each works with revisions and namespaces of its own.
fn api() -> &'static Cluster {
    static API: OnceLock<Cluster> = OnceLock::new();
    API.get_or_init(|| {
        let api = Cluster::api_only().expect("an API server");
        installed_definitions(&api);
        api
    })
}

/// Installs the definitions, and makes the namespaces that the operator's chart expects.
fn installed_definitions(api: &Cluster) {
    helm(api, &["install", "sipwarden-crds", &chart("sipwarden-crds")]);
    let security = ["enforce", "warn"].map(|what| (format!("pod-security.kubernetes.io/{what}"), "restricted".into()));
    let mut labels = Value::Object(security.into_iter().collect());
    // None of the revisions that are installed, since no operator answers for them.
    labels["sipwarden.dev/rev"] = json!("none");
    // The other is the one that `helm test` makes.
    for namespace in [SYSTEM, "sipwarden-system-test"] {
        create_namespace(api, namespace, labels.clone());
    }
}

fn chart(name: &str) -> String {
    charts().join(name).display().to_string()
}

fn helm(api: &Cluster, arguments: &[&str]) -> String {
    api.helm(arguments).unwrap_or_else(|error| panic!("{error:#}"))
}

fn kubectl(api: &Cluster, arguments: &[&str]) -> String {
    api.kubectl(arguments).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Installs the operator's chart as the release and revision of this name.
fn install(api: &Cluster, revision: &str, settings: &[&str]) {
    let chart = chart("sipwarden");
    let revision_value = format!("revision={revision}");
    let mut arguments = vec!["install", revision, &chart, "--namespace", SYSTEM, "--set", &revision_value];
    arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    helm(api, &arguments);
}

fn create_namespace(api: &Cluster, name: &str, labels: Value) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    api.apply(&namespace.to_string()).unwrap_or_else(|error| panic!("{error:#}"));
}

fn pod(namespace: &str, labels: Value) -> Value {
    let container = json!({"name": "app", "image": "app", "ports": [{"name": "sip", "containerPort": 5060}]});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "app", "namespace": namespace, "labels": labels},
        "spec": {"containers": [container]}
    })
}

/// What the API server says to an object that it is not asked to keep: the refusal, or nothing.
fn refusal(api: &Cluster, name: &str, object: &Value) -> Option<String> {
    let file = api.scratch().join(format!("{name}.json"));
    fs::write(&file, object.to_string()).expect("a file in the cluster's directory");
    let file = file.display().to_string();
    api.kubectl(&["create", "--dry-run=server", "--filename", &file]).err().map(|error| format!("{error:#}"))
}

#[test]
fn every_object_of_every_case_is_valid() {
    let api = api();
    install_monitoring_definitions(api);
    let mut kinds = BTreeSet::new();
    let cases = fs::read_dir(charts().join("cases/sipwarden")).expect("cases");
    for case in cases.map(|entry| entry.expect("an entry").path()) {
        let values = case.display().to_string();
        let rendered =
            helm(api, &["template", "valid", &chart("sipwarden"), "--namespace", SYSTEM, "--values", &values]);
        kinds.extend(rendered.lines().filter_map(|line| line.strip_prefix("kind: ").map(str::to_owned)));
        let file = api.scratch().join("rendered.yaml");
        fs::write(&file, rendered).expect("a file in the cluster's directory");
        let file = file.display().to_string();
        let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
        // A Deployment whose pods PodSecurity will refuse is taken with a warning.
        let answer = kubectl(api, &[&apply[..], &["--warnings-as-errors", "--filename", &file]].concat());
        assert!(answer.lines().count() > 10, "{values}: {answer}");
    }
    for kind in [
        "Deployment",
        "NetworkPolicy",
        "PodMonitor",
        "ServiceMonitor",
        "PrometheusRule",
        "ConfigMap",
        "MutatingAdmissionPolicy",
        "ValidatingAdmissionPolicy",
    ] {
        assert!(kinds.contains(kind), "no case has a {kind}");
    }
}

/// The Prometheus operator's definitions, out of its Go module.
fn install_monitoring_definitions(api: &Cluster) {
    let output = Command::new("go").args(["mod", "download", "-json", PROMETHEUS_OPERATOR]).output().expect("go runs");
    let module: Value = serde_json::from_slice(&output.stdout).expect("go mod download prints JSON");
    let directory = module["Dir"].as_str().unwrap_or_else(|| panic!("{module}"));
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let file = format!("{directory}/example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml");
        kubectl(api, &["apply", "--server-side", "--filename", &file]);
        let served = || api.kubectl(&["get", &format!("{kind}.monitoring.coreos.com")]).ok();
        eventually(kind, LIMIT, served).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// The webhooks of two revisions. No operator answers, so what reaches one is refused, and the refusal names its Service.
fn side_by_side(api: &Cluster) -> [Option<&'static str>; 2] {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let settings = ["failurePolicy=Fail", "webhook.validationFailurePolicy=Fail", "webhook.timeoutSeconds=1"];
        ["default", "next"].iter().for_each(|revision| install(api, revision, &settings));
    });
    ["sipwarden-webhook", "sipwarden-webhook-next"].map(Some)
}

/// The Services of the webhooks that the API server could not call, in order.
fn called(refusal: &str) -> Vec<&str> {
    assert!(refusal.contains("failed calling webhook"), "{refusal}");
    let calls = refusal.split("https://").skip(1);
    let mut services: Vec<&str> = calls.filter_map(|url| Some(url.split_once(".sipwarden-system.svc")?.0)).collect();
    services.dedup();
    services
}

#[test]
fn each_policy_is_judged_by_one_revision() {
    let api = api();
    let [default, next] = side_by_side(api);
    let namespaces = [
        ("judged", None, default),
        ("judged-default", Some("default"), default),
        ("judged-next", Some("next"), next),
        ("judged-elsewhere", Some("elsewhere"), None),
    ];
    for (name, revision, service) in namespaces {
        let labels = revision.map_or(json!({}), |revision| json!({"sipwarden.dev/rev": revision}));
        create_namespace(api, name, labels.clone());
        for (kind, metadata) in [
            ("SessionPolicy", json!({"name": "judged", "namespace": name})),
            ("ClusterSessionPolicy", json!({"name": name, "labels": labels})),
        ] {
            let policy =
                json!({"apiVersion": "sipwarden.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": {}});
            let refusal = refusal(api, name, &policy);
            let judges: Vec<&str> = refusal.as_deref().map(called).unwrap_or_default();
            assert_eq!(judges, Vec::from_iter(service), "{kind} {name}: {refusal:?}");
        }
    }
}

#[test]
fn only_opted_in_pods_reach_the_webhook() {
    let api = api();
    let [default, next] = side_by_side(api);
    let enabled = json!({"sipwarden.dev/inject": "enabled"});
    let disabled = json!({"sipwarden.dev/inject": "disabled"});
    let of = |revision: &str| json!({"sipwarden.dev/inject": "enabled", "sipwarden.dev/rev": revision});
    let namespaces = [
        ("plain", json!({}), [None, default, None]),
        ("disabled", disabled.clone(), [None, default, None]),
        ("enabled", enabled.clone(), [default, default, None]),
        ("enabled-default", of("default"), [default, default, None]),
        ("enabled-next", of("next"), [next, next, None]),
        ("plain-next", json!({"sipwarden.dev/rev": "next"}), [None, next, None]),
        ("enabled-elsewhere", of("elsewhere"), [None, None, None]),
        ("kube-system", enabled.clone(), [None, None, None]),
    ];
    for (namespace, labels, services) in namespaces {
        create_namespace(api, namespace, labels);
        for (labels, service) in [json!({}), enabled.clone(), disabled.clone()].into_iter().zip(services) {
            let refusal = refusal(api, "reaches", &pod(namespace, labels.clone()));
            let reached: Vec<&str> = refusal.as_deref().map(called).unwrap_or_default();
            assert_eq!(reached, Vec::from_iter(service), "namespace {namespace}, pod {labels}");
        }
    }
    let mut mirror = pod("enabled", json!({}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "of a file of the kubelet"});
    mirror["spec"]["nodeName"] = json!("node");
    assert_eq!(refusal(api, "reaches", &mirror), None);
}

#[test]
fn opted_in_pods_without_sidecar_are_refused_where_one_is_required() {
    let api = api();
    install(api, "guarded", &["requireSidecar=Deny", "webhook.timeoutSeconds=1"]);
    create_namespace(api, "guarded", json!({"sipwarden.dev/inject": "enabled", "sipwarden.dev/rev": "guarded"}));
    create_namespace(api, "half-guarded", json!({"sipwarden.dev/rev": "guarded"}));
    create_namespace(api, "unguarded", json!({"sipwarden.dev/inject": "enabled", "sipwarden.dev/rev": "unguarded"}));
    let enabled = json!({"sipwarden.dev/inject": "enabled"});
    let disabled = json!({"sipwarden.dev/inject": "disabled"});
    let with_init = |name: &str, policy: Option<&str>| {
        let mut pod = pod("guarded", json!({}));
        pod["spec"]["initContainers"] = json!([{"name": name, "image": "sidecar", "restartPolicy": policy}]);
        pod
    };
    let refused = [
        pod("guarded", json!({})),
        pod("guarded", enabled.clone()),
        pod("half-guarded", enabled.clone()),
        with_init("sipwarden", None),
        with_init("other", Some("Always")),
    ];
    let admitted = [
        with_init("sipwarden", Some("Always")),
        pod("guarded", disabled),
        pod("half-guarded", json!({})),
        pod("unguarded", enabled),
    ];
    // A policy is in force a moment after it is there.
    let first = || refusal(api, "guarded", &refused[0]).map(drop);
    eventually("the policy to be in force", LIMIT, first).unwrap_or_else(|error| panic!("{error:#}"));
    for pod in refused {
        let text = refusal(api, "guarded", &pod).unwrap_or_else(|| panic!("admitted: {pod}"));
        assert!(text.contains("opted in by the label sipwarden.dev/inject, but without the sidecar"), "{text}");
    }
    for pod in admitted {
        assert_eq!(refusal(api, "guarded", &pod), None, "{pod}");
    }
}

#[test]
fn the_policies_inject_and_configure_without_an_operator() {
    let api = api();
    install(
        api,
        "alone",
        &["injector=policy", "requireSidecar=Deny", "image.repository=registry.example.com/sipwarden"],
    );
    create_namespace(api, "alone", json!({"sipwarden.dev/inject": "enabled", "sipwarden.dev/rev": "alone"}));
    let metadata = json!({
        "name": "sessionpolicy-carrier",
        "namespace": "alone",
        "labels": {"sipwarden.dev/config-for": "selector"},
        "annotations": {
            "sipwarden.dev/config": "what the operator compiled",
            "sipwarden.dev/pod-selectors": "DoesNotExist some.example/label",
        }
    });
    let spec = json!({
        "policy": "carrier", "generation": 1, "hash": "0123456789abcdef", "mode": "Observe", "timers": {}, "rules": []
    });
    let config =
        json!({"apiVersion": "sipwarden.dev/v1alpha1", "kind": "SidecarConfig", "metadata": metadata, "spec": spec});
    api.apply(&config.to_string()).unwrap_or_else(|error| panic!("{error:#}"));
    let file = api.scratch().join("alone.json");
    fs::write(&file, pod("alone", json!({})).to_string()).expect("a file in the cluster's directory");
    let file = file.display().to_string();

    // A policy is in force a moment after it is there, and so are its parameters.
    let configured = || {
        let pod = api.kubectl(&["create", "--dry-run=server", "--filename", &file, "--output", "json"]).ok()?;
        let pod: Value = serde_json::from_str(&pod).expect("kubectl prints JSON");
        let configured = pod["metadata"]["annotations"]["sipwarden.dev/config"].is_string();
        configured.then_some(pod)
    };
    let pod =
        eventually("an injected and configured pod", LIMIT, configured).unwrap_or_else(|error| panic!("{error:#}"));

    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["name"], "sipwarden");
    assert_eq!(sidecar["image"], concat!("registry.example.com/sipwarden:", env!("CARGO_PKG_VERSION")));
    assert_eq!(sidecar["resources"]["limits"]["memory"], "256Mi");
    assert_eq!(sidecar["ports"][0]["name"], "sip");
    assert_eq!(pod["metadata"]["annotations"]["sipwarden.dev/injected"], "alone");
    assert_eq!(pod["metadata"]["annotations"]["sipwarden.dev/config"], "what the operator compiled");
}

#[test]
fn an_upgrade_leaves_what_the_operator_wrote_into_the_webhooks() {
    let api = api();
    install(api, "upgraded", &[]);
    let authority = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let bundle = kubectl(api, &["config", "view", "--raw", "--flatten", "-o", authority]);
    let webhook = ["mutatingwebhookconfiguration", "sipwarden-injector-upgraded"];
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]).to_string();
    let by = ["--type", "json", "--field-manager", "sipwarden-operator", "--patch", &patch];
    kubectl(api, &[&["patch"], &webhook[..], &by[..]].concat());

    let upgrade = ["upgrade", "upgraded", &chart("sipwarden"), "--namespace", SYSTEM, "--reuse-values"];
    helm(api, &[&upgrade[..], &["--set", "webhook.timeoutSeconds=7"]].concat());

    let fields = "jsonpath={.webhooks[0].timeoutSeconds} {.webhooks[0].clientConfig.caBundle}";
    assert_eq!(kubectl(api, &[&["get"], &webhook[..], &["-o", fields]].concat()), format!("7 {bundle}"));
}

#[test]
fn the_operator_may_do_what_it_does_and_little_else() {
    let api = api();
    install(api, "limited", &[]);
    create_namespace(api, "of-users", json!({}));
    let account = format!("system:serviceaccount:{SYSTEM}:sipwarden-operator-limited");
    let may = |question: &[&str]| {
        let can_i = [&["auth", "can-i", "--quiet", "--as", &account], question].concat();
        api.kubectl(&can_i).is_ok()
    };
    let mine = ["--namespace", SYSTEM];
    let theirs = ["--namespace", "of-users"];
    let allowed: [&[&str]; 9] = [
        &["watch", "sessionpolicies.sipwarden.dev", "--all-namespaces"],
        &["patch", "sessionpolicies.sipwarden.dev", "--subresource=status", theirs[0], theirs[1]],
        &["create", "sidecarconfigs.sipwarden.dev", theirs[0], theirs[1]],
        &["patch", "pods", theirs[0], theirs[1]],
        &["create", "events.events.k8s.io", theirs[0], theirs[1]],
        &["get", "secrets/sipwarden-ca-limited", mine[0], mine[1]],
        &["update", "leases.coordination.k8s.io/sipwarden-operator-limited", mine[0], mine[1]],
        &["patch", "mutatingwebhookconfigurations/sipwarden-injector-limited"],
        &["patch", "validatingwebhookconfigurations/sipwarden-validator-limited"],
    ];
    let denied: [&[&str]; 12] = [
        &["patch", "sessionpolicies.sipwarden.dev", theirs[0], theirs[1]],
        &["create", "pods", theirs[0], theirs[1]],
        &["delete", "pods", theirs[0], theirs[1]],
        &["create", "pods/exec", theirs[0], theirs[1]],
        &["get", "secrets/sipwarden-ca-limited", theirs[0], theirs[1]],
        &["get", "secrets/sipwarden-ca-default", mine[0], mine[1]],
        &["list", "secrets", mine[0], mine[1]],
        &["get", "configmaps", theirs[0], theirs[1]],
        &["patch", "deployments.apps", theirs[0], theirs[1]],
        &["update", "namespaces"],
        &["patch", "mutatingwebhookconfigurations/sipwarden-injector-default"],
        &["create", "clusterrolebindings"],
    ];
    for question in allowed {
        assert!(may(question), "refused: {question:?}");
    }
    for question in denied {
        assert!(!may(question), "allowed: {question:?}");
    }
}

#[test]
fn definitions_outlive_their_release_and_are_taken_up_by_the_next() {
    let api = api();
    let names = || kubectl(api, &["get", "customresourcedefinitions", "-o", "name"]);
    let ours = |names: String| names.lines().filter(|name| name.ends_with(".sipwarden.dev")).count();
    assert_eq!(ours(names()), 3);
    helm(api, &["uninstall", "sipwarden-crds"]);
    assert_eq!(ours(names()), 3);
    helm(api, &["install", "sipwarden-crds", &chart("sipwarden-crds")]);
    assert_eq!(ours(names()), 3);
}
