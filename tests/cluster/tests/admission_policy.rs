//! The two injectors, webhook and admission policy, make the same of the same pods: the real API server judges.
//!
//! A pod goes through the policies in one namespace; what `inject` made of it goes into a namespace without them, so that
//! the API server fills in its defaults. The two must be equal then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use json_patch::patch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use sipwarden_cluster::{Cluster, wait::eventually};
use sipwarden_crds::{SessionPolicy, compile, to_annotation};
use sipwarden_operator::inject::{
    MAX_SELECTORS_TEXT, NamespaceFacts, Settings, inject, names, selector_block, selectors_text,
};

const INJECTOR: &str = include_str!("../../../operator/src/inject/policy/injector.yaml");
const CONFIG: &str = include_str!("../../../operator/src/inject/policy/config.yaml");
const SIDECAR_CONFIGS: &str = include_str!("../../../crds/yaml/sidecarconfigs.sipwarden.dev.yaml");

/// Opted in: namespaces with policies for these settings.
const WITH_DEFAULTS: &str = "voice";
const WITH_SETTINGS: &str = "carrier";
/// Not opted in.
const PLAIN: &str = "plain";

/// Everything at its default.
fn defaults() -> Settings {
    Settings::new("default", "localhost/sipwarden:dev")
}

/// Everything set.
fn settings() -> Settings {
    Settings {
        image_pull_policy: Some("Never".to_owned()),
        cpu_request: "50m".to_owned(),
        memory_request: "32Mi".to_owned(),
        memory_limit: "128Mi".to_owned(),
        log: Some("info,sipwarden=debug".to_owned()),
        next_hop: Some("tcp:[2001:db8::1]:5061".to_owned()),
        otlp: Some("http://[2001:db8::2]:4318".to_owned()),
        otlp_ratio: "0.25".to_owned(),
        ..Settings::new("canary", "localhost/sipwarden:next")
    }
}

/// An API server with both policies for both settings, ready to judge.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::api_only().expect("an API server");
        cluster.apply(SIDECAR_CONFIGS).expect("applied");
        for namespace in [WITH_DEFAULTS, WITH_SETTINGS, PLAIN] {
            let inject = if namespace == PLAIN { names::DISABLED } else { names::ENABLED };
            cluster.apply(&namespace_yaml(namespace, inject)).expect("applied");
        }
        for (namespace, settings) in [(WITH_DEFAULTS, defaults()), (WITH_SETTINGS, settings())] {
            for policy in [INJECTOR, CONFIG] {
                cluster.apply(&filled_in(policy, &settings)).expect("applied");
            }
            cluster.apply(&bindings(namespace, &settings.revision, "workload")).expect("applied");
        }
        await_policies(&cluster);
        cluster
    })
}

fn namespace_yaml(name: &str, inject: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{}: {inject}}}}}\n", names::INJECT)
}

/// As the chart does it.
fn filled_in(policy: &str, settings: &Settings) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        ("@REVISION@", settings.revision.clone()),
        ("@IMAGE@", settings.image.clone()),
        ("@PULL_POLICY@", or_none(&settings.image_pull_policy)),
        ("@CPU_REQUEST@", settings.cpu_request.clone()),
        ("@MEMORY_REQUEST@", settings.memory_request.clone()),
        ("@MEMORY_LIMIT@", settings.memory_limit.clone()),
        ("@LOG@", or_none(&settings.log)),
        ("@NEXT_HOP@", or_none(&settings.next_hop)),
        ("@OTLP@", or_none(&settings.otlp)),
        ("@OTLP_RATIO@", settings.otlp_ratio.clone()),
        ("@FAILURE_POLICY@", "Fail".to_owned()),
    ]
    .iter()
    .fold(policy.to_owned(), |policy, (token, value)| policy.replace(token, value))
}

fn bindings(namespace: &str, revision: &str, config_for: &str) -> String {
    let binding = |policy: &str, params: Value| {
        let selectors = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } } });
        let mut spec = json!({ "policyName": format!("{policy}-{revision}"), "matchResources": selectors });
        if !params.is_null() {
            spec["paramRef"] = json!({ "selector": params, "parameterNotFoundAction": "Allow" });
        }
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingAdmissionPolicyBinding",
            "metadata": { "name": format!("{policy}-{namespace}") },
            "spec": spec,
        })
    };
    let params = json!({ "matchLabels": { "sipwarden.dev/config-for": config_for } });
    let items = [binding("sipwarden-injector", Value::Null), binding("sipwarden-config", params)];
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// Policies are taken up by a watch.
fn await_policies(cluster: &Cluster) {
    let text = "{\"spec\":{}}";
    for namespace in [WITH_DEFAULTS, WITH_SETTINGS] {
        cluster.apply(&sidecar_config(namespace, "pod-first", text, &json!({}))).expect("applied");
        let taken_up = || {
            let mut pod = asterisk();
            pod["metadata"]["name"] = json!("first");
            let pod = created(cluster, namespace, &[pod]).ok()?.pop()?;
            (pod["metadata"]["annotations"][names::CONFIG] == text).then_some(())
        };
        eventually("the policies", Duration::from_secs(30), taken_up).expect("taken up");
    }
}

fn sidecar_config(namespace: &str, name: &str, text: &str, timers: &Value) -> String {
    json!({
        "apiVersion": "sipwarden.dev/v1alpha1",
        "kind": "SidecarConfig",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": { "sipwarden.dev/config-for": "workload" },
            "annotations": { names::CONFIG: text },
        },
        "spec": { "policy": "p", "generation": 1, "hash": "h", "mode": "Observe", "timers": timers, "rules": [] },
    })
    .to_string()
}

/// What the API server would store.
fn created(cluster: &Cluster, namespace: &str, pods: &[Value]) -> anyhow::Result<Vec<Value>> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let file = cluster.scratch().join(format!("pods-{}.json", FILES.fetch_add(1, Ordering::Relaxed)));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods });
    fs::write(&file, list.to_string())?;
    let mut command = cluster.kubectl_command()?;
    command.args(["create", "--dry-run=server", "--output", "json", "--namespace", namespace, "--filename"]);
    let output = command.arg(file).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let created = serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<Vec<Value>, _>>();
    let mut created = created?;
    for pod in &mut created {
        let metadata = pod["metadata"].as_object_mut().expect("a pod has metadata");
        metadata
            .retain(|field, _| !["uid", "creationTimestamp", "namespace", "managedFields"].contains(&field.as_str()));
    }
    Ok(created)
}

fn asterisk() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": { "containers": [
            { "name": "logger", "image": "logger:1" },
            { "name": "asterisk", "image": "asterisk:22", "ports": [
                { "name": "http", "containerPort": 8088 },
                { "name": "sip", "containerPort": 5060, "protocol": "UDP" },
            ] },
        ] },
    })
}

fn annotated(annotations: Value) -> Value {
    let mut pod = asterisk();
    pod["metadata"]["annotations"] = annotations;
    pod
}

fn with(path: &str, value: Value) -> Value {
    let mut pod = asterisk();
    let (parent, key) = path.rsplit_once('/').expect("a path");
    pod.pointer_mut(parent).expect("the parent is there")[key] = value;
    pod
}

fn named(name: &str, pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["name"] = json!(name);
    pod
}

/// Creates pods through the policies, and through `inject`; gives how many came out with a sidecar.
fn compare(namespace: &str, settings: &Settings, config: &BTreeMap<String, String>, mut pods: Vec<Value>) -> usize {
    let facts = NamespaceFacts::selected_for(&settings.revision);
    for (i, pod) in pods.iter_mut().enumerate() {
        let metadata = pod["metadata"].as_object_mut().expect("a map");
        metadata.entry("name").or_insert_with(|| json!(format!("pod-{i}")));
    }
    // A webhook is asked when defaults are filled in.
    let mut expected = created(cluster(), PLAIN, &pods).expect("created");
    for pod in &mut expected {
        pod.as_object_mut().expect("a pod is a map").remove("status");
        let typed = serde_json::from_value(pod.clone()).expect("a pod");
        let config = config.get(pod["metadata"]["name"].as_str().expect("a name")).map(String::as_str);
        if let Ok(injection) = inject(&typed, &facts, settings, config) {
            patch(pod, &injection.patch).expect("the patch applies");
        }
    }
    let by_policy = created(cluster(), namespace, &pods).expect("created");
    let by_inject = created(cluster(), PLAIN, &expected).expect("created");
    assert_eq!((by_policy.len(), by_inject.len()), (pods.len(), pods.len()));
    for ((by_policy, by_inject), pod) in by_policy.iter().zip(&by_inject).zip(&pods) {
        assert_eq!(by_policy, by_inject, "of {pod:#}");
    }
    let has_sidecar = |pod: &&Value| pod["metadata"]["labels"][names::SIDECAR] == names::SIDECAR_INJECTED;
    by_policy.iter().filter(has_sidecar).count()
}

fn compare_all(pods: Vec<Value>) -> usize {
    let none = BTreeMap::new();
    let injected = compare(WITH_DEFAULTS, &defaults(), &none, pods.clone());
    assert_eq!(compare(WITH_SETTINGS, &settings(), &none, pods), injected);
    injected
}

#[test]
fn both_injectors_take_over_the_same_ports() {
    let udp = json!({ "name": "sip", "containerPort": 5060, "protocol": "UDP" });
    let tcp = json!({ "name": "sip-tcp", "containerPort": 5060, "protocol": "TCP" });
    let other_tcp = json!({ "name": "sip", "containerPort": 5061 });
    let host = json!({ "name": "sip", "containerPort": 5060, "hostPort": 5060, "protocol": "UDP" });
    let sctp = json!({ "name": "sip", "containerPort": 5060, "protocol": "SCTP" });
    let second = json!({ "name": "two", "containerPort": 5062, "protocol": "UDP" });
    let of_ours = json!({ "name": "mine", "containerPort": 15070, "protocol": "UDP" });
    let of_ours_but_udp = json!({ "name": "mine", "containerPort": 8643, "protocol": "UDP" });
    let ports = [
        json!([udp]),
        json!([udp, tcp]),
        json!([tcp, udp]),
        json!([other_tcp]),
        json!([tcp]),
        json!([host]),
        json!([sctp]),
        json!([udp, second]),
        json!([udp, of_ours]),
        json!([udp, of_ours_but_udp]),
        json!([]),
        Value::Null,
    ];
    let mut pods = Vec::new();
    for ports in &ports {
        for port_names in ["", "sip", "sip,sip-tcp", " sip-tcp , sip", "sip-tcp", "sip,two", "sip,,", "SIP", "a,b,c"] {
            let mut pod = asterisk();
            pod["spec"]["containers"][1]["ports"] = ports.clone();
            if !port_names.is_empty() {
                pod["metadata"]["annotations"] = json!({ names::PORT_NAMES: port_names });
            }
            pods.push(pod);
        }
    }
    let mut twice = asterisk();
    twice["spec"]["containers"][0]["ports"] = json!([{ "name": "sip", "containerPort": 5080, "protocol": "UDP" }]);
    pods.push(twice);
    let injected = compare_all(pods);
    assert!(injected > 15, "{injected}");
}

#[test]
fn both_injectors_obey_and_refuse_the_same_annotations() {
    let long = "x".repeat(257);
    let values: &[(&str, &[&str])] = &[
        (names::APP_ADDRESS, &["Loopback", "PodIP", "podip", ""]),
        (names::IMAGE, &["registry.example:5000/a/b@sha256:00", "", "two words", "-a", "a$b", &long]),
        (
            names::LOG,
            &["debug", "sipwarden=nonsense", "info,sipwarden[span{field=\"x\"}]=trace", "", "$(POD_IP)", "a'b", &long],
        ),
        (
            names::NEXT_HOP,
            &[
                "udp:sbc.example:5060",
                "tcp:192.0.2.1",
                "udp:[2001:db8::1]:5060",
                "udp:[2001:db8::1]",
                "udp:[2001:db8::g]",
                "udp:[192.0.2.1]:5060",
                "udp:[::ffff:192.0.2.1]:5060",
                "udp:[::1]x",
                "udp:a:65535",
                "udp:a:65536",
                "udp:a:05",
                "udp:a:+5",
                "udp:2001:db8::1",
                "udp:",
                "tls:a",
                "a",
                &long,
            ],
        ),
        (names::CPU_REQUEST, &["100m", "0.5", "1", "much", "1e3", "0.5m", ""]),
        (names::MEMORY_REQUEST, &["64Mi", "0.1Gi", "1000k", "1Gi", "-1", "1Ti", "12345678901234"]),
        (names::MEMORY_LIMIT, &["1Gi", "10Mi", "300M", "1.5Gi", "1.5555Gi", "all"]),
        (names::DEFAULT_CONTAINER, &["logger"]),
        ("some.example/other", &["kept"]),
    ];
    let pods = values.iter().flat_map(|(name, values)| values.iter().map(|value| annotated(json!({ *name: value }))));
    let injected = compare_all(pods.collect());
    assert!(injected > 15, "{injected}");
}

#[test]
fn both_injectors_leave_the_same_pods_alone() {
    let volume = |name: &str| json!([{ "name": name, "emptyDir": {} }]);
    let pods = vec![
        with("/spec/hostNetwork", json!(true)),
        with("/spec/hostNetwork", json!(false)),
        with("/spec/os", json!({ "name": "windows" })),
        with("/spec/os", json!({ "name": "linux" })),
        with("/spec/containers/0/name", json!(names::CONTAINER)),
        with("/spec/initContainers", json!([{ "name": names::CONTAINER, "image": "i:1" }])),
        with("/spec/initContainers", json!([{ "name": "migrate", "image": "i:1" }])),
        with("/spec/initContainers", json!([])),
        with("/spec/volumes", volume("sipwarden-mine")),
        with("/spec/volumes", volume("data")),
        with("/metadata/labels", json!({ "app": "asterisk" })),
        with("/metadata/labels", json!({})),
        with("/metadata/annotations", json!({})),
    ];
    assert_eq!(compare_all(pods), 8);
}

#[test]
fn in_a_pod_with_resources_both_injectors_hold_the_sidecar_to_its_limit_or_the_pods_without_asking_for_more() {
    let of_containers = json!({ "requests": { "cpu": "100m", "memory": "64Mi" } });
    let pods = [
        json!({ "limits": { "cpu": "1", "memory": "1Gi" } }),
        json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "64Mi" } }),
        json!({ "requests": { "memory": "64Mi" } }),
        json!({}),
        json!({ "limits": { "memory": "1Ti" } }),
    ];
    let mut pods: Vec<Value> = pods.into_iter().map(|of_pod| with("/spec/resources", of_pod)).collect();
    // With what its containers ask for, and nothing left.
    for pod in pods.clone().iter_mut().take(2) {
        pod["spec"]["containers"][1]["resources"] = of_containers.clone();
        pods.push(pod.take());
    }
    assert_eq!(compare_all(pods.clone()), pods.len());
    let cases = [named("whole", &pods[0]), named("small", &pods[1]), named("empty", &pods[3])];
    let by_policy = created(cluster(), WITH_DEFAULTS, &cases).unwrap();
    let sidecar = |pod: &Value| pod["spec"]["initContainers"][0]["resources"].clone();
    let nothing = json!({ "cpu": "0", "memory": "0" });
    for (pod, limit) in by_policy.iter().zip(["256Mi", "64Mi"]) {
        assert_eq!(sidecar(pod), json!({ "requests": nothing, "limits": { "memory": limit } }));
    }
    assert_eq!(sidecar(&by_policy[2])["requests"]["memory"], defaults().memory_request, "what is empty sets nothing");
}

#[test]
fn both_injectors_let_probes_and_hooks_go_on_with_the_number() {
    let ports = json!([{ "name": "sip", "containerPort": 5060 }, { "name": "http", "containerPort": 8088 }]);
    let mut pods = Vec::new();
    for port in [json!("sip"), json!("http"), json!(5060)] {
        for field in ["startupProbe", "readinessProbe", "livenessProbe"] {
            for action in [json!({ "tcpSocket": { "port": port } }), json!({ "httpGet": { "port": port } })] {
                let mut pod = with("/spec/containers/1/ports", ports.clone());
                pod["spec"]["containers"][1][field] = action;
                pods.push(pod);
            }
        }
        for hook in ["postStart", "preStop"] {
            let mut pod = with("/spec/containers/1/ports", ports.clone());
            pod["spec"]["containers"][1]["lifecycle"] = json!({ hook: { "httpGet": { "port": port, "path": "/" } } });
            pods.push(pod);
        }
    }
    let all = pods.len();
    assert_eq!(compare_all(pods), all);
}

#[test]
fn the_policy_takes_the_config_from_the_workloads_sidecar_config() {
    let policy = json!({
        "metadata": { "name": "carrier" },
        "spec": { "timers": { "credentials": { "secretName": "trunk" } }, "rules": [
            {
                "name": "other",
                "match": { "direction": "Inbound" },
                "timers": { "credentials": { "secretName": "other.trunk" } },
            },
            { "name": "same", "match": { "direction": "Outbound" } },
        ] },
    });
    let policy: SessionPolicy = serde_json::from_value(policy).unwrap();
    let compiled = compile(&policy).unwrap();
    let mut configs = BTreeMap::new();
    for name in ["deployment-asterisk", "statefulset-asterisk", "replicaset-lonely", "pod-bare"] {
        let text = to_annotation(name, &compiled);
        let mut object: Value = serde_json::from_str(&sidecar_config(WITH_DEFAULTS, name, &text, &json!({}))).unwrap();
        object["spec"] = serde_json::to_value(&compiled).unwrap();
        cluster().apply(&object.to_string()).unwrap();
        configs.insert(name, text);
    }
    let owned = |name: &str, kind: &str, owner: &str, hash: Option<&str>| {
        let mut pod = with("/metadata/name", json!(name));
        let owner = json!({ "apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u", "controller": true });
        pod["metadata"]["ownerReferences"] = json!([owner]);
        if let Some(hash) = hash {
            pod["metadata"]["labels"] = json!({ "pod-template-hash": hash });
        }
        pod
    };
    let mut of_copy = owned("of-copy", "StatefulSet", "asterisk", None);
    of_copy["metadata"]["annotations"] = json!({ names::CONFIG: "copied" });
    let pods = vec![
        of_copy,
        owned("of-deployment", "ReplicaSet", "asterisk-5d8f", Some("5d8f")),
        owned("of-other-deployment", "ReplicaSet", "kamailio-5d8f", Some("5d8f")),
        owned("of-statefulset", "StatefulSet", "asterisk", None),
        owned("of-replicaset", "ReplicaSet", "lonely", None),
        owned("of-nothing-known", "Job", "asterisk", None),
        with("/metadata/name", json!("bare")),
    ];
    let of = |name: &str| configs[name].clone();
    let expected = BTreeMap::from([
        ("of-deployment".to_owned(), of("deployment-asterisk")),
        ("of-statefulset".to_owned(), of("statefulset-asterisk")),
        ("of-copy".to_owned(), of("statefulset-asterisk")),
        ("of-replicaset".to_owned(), of("replicaset-lonely")),
        ("bare".to_owned(), of("pod-bare")),
    ]);
    // What the policy takes as parameters comes by a watch as well.
    let known = || {
        let pod = created(cluster(), WITH_DEFAULTS, &[with("/metadata/name", json!("bare"))]).ok()?.pop()?;
        pod["metadata"]["annotations"].get(names::CONFIG).map(|_| ())
    };
    eventually("the SidecarConfigs", Duration::from_secs(30), known).unwrap();
    assert_eq!(compare(WITH_DEFAULTS, &defaults(), &expected, pods), 7);
}

#[test]
fn both_injectors_empty_a_config_that_was_copied_where_no_policy_is() {
    let mut pod = annotated(json!({ names::CONFIG: "copied" }));
    pod["metadata"]["name"] = json!("copy");
    let config = BTreeMap::from([("copy".to_owned(), String::new())]);
    assert_eq!(compare(WITH_DEFAULTS, &defaults(), &config, vec![pod]), 1);
}

#[test]
fn the_policy_takes_the_config_of_the_one_session_policy_in_force() {
    const NAMESPACE: &str = "selected";
    let selector = |text: &str| -> LabelSelector { serde_json::from_str(text).expect("a selector") };
    let requirement = |key: &str, operator: &str, values: &str| {
        selector(&format!(r#"{{"matchExpressions":[{{"key":"{key}","operator":"{operator}","values":[{values}]}}]}}"#))
    };
    // The strongest first.
    let policies = [
        selector(r#"{"matchLabels":{"app":"asterisk","tier":"edge"}}"#),
        requirement("app", "In", r#""kamailio","asterisk""#),
        requirement("x.example/y", "Exists", ""),
        requirement("app", "NotIn", r#""freeswitch","""#),
        requirement("tier", "DoesNotExist", ""),
        selector("{}"),
    ];
    cluster().apply(&namespace_yaml(NAMESPACE, names::ENABLED)).unwrap();
    for (i, own) in policies.iter().enumerate() {
        let text = format!("{{\"metadata\":{{\"name\":\"{i}\"}}}}");
        let object = sidecar_config(NAMESPACE, &format!("sessionpolicy-{i}"), &text, &json!({}));
        let mut object: Value = serde_json::from_str(&object).unwrap();
        object["metadata"]["labels"]["sipwarden.dev/config-for"] = json!("selector");
        let stronger: Vec<String> = policies[..i].iter().map(|stronger| selector_block(Some(stronger))).collect();
        let mut selectors = selectors_text(&selector_block(Some(own)), stronger.iter().map(String::as_str));
        if i + 1 == policies.len() {
            // As long as it may be, with requirements that each pod meets and CEL has to look at.
            let line = format!("\nNotIn app {}", ["x".repeat(63), "y".repeat(63), "z".repeat(63)].join(" "));
            let first = selectors.find("\n\n").expect("it has stronger ones");
            let lines = line.repeat((MAX_SELECTORS_TEXT - selectors.len()) / line.len());
            selectors.insert_str(first, lines.trim_start_matches('\n'));
        }
        object["metadata"]["annotations"][names::POD_SELECTORS] = json!(selectors);
        cluster().apply(&object.to_string()).unwrap();
    }
    cluster().apply(&bindings(NAMESPACE, "default", "selector")).unwrap();
    let mut pods = Vec::new();
    for app in [None, Some("asterisk"), Some("kamailio"), Some("freeswitch"), Some("")] {
        for tier in [None, Some("edge"), Some("core")] {
            for y in [None, Some("z")] {
                let labels = [("app", app), ("tier", tier), ("x.example/y", y)];
                let labels = labels.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
                let mut pod = with("/metadata/name", json!(format!("pod-{}", pods.len())));
                pod["metadata"]["labels"] = json!(labels.collect::<BTreeMap<_, _>>());
                pods.push(pod);
            }
        }
    }
    let chosen = |pod: &Value| {
        let labels: BTreeMap<String, String> = serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap();
        let selects = |policy: &&LabelSelector| Selector::try_from((**policy).clone()).unwrap().matches(&labels);
        policies.iter().position(|policy| selects(&policy)).expect("the last selects all")
    };
    let taken_up = || {
        let pod = created(cluster(), NAMESPACE, &pods[..1]).ok()?.pop()?;
        pod["metadata"]["annotations"].get(names::CONFIG).map(|_| ())
    };
    eventually("the policies", Duration::from_secs(30), taken_up).unwrap();

    let by_policy = created(cluster(), NAMESPACE, &pods).unwrap();
    let mut all = BTreeSet::new();
    for (pod, by_policy) in pods.iter().zip(&by_policy) {
        let text = by_policy["metadata"]["annotations"][names::CONFIG].as_str().expect("a config");
        let config: Value = serde_json::from_str(text).unwrap();
        assert_eq!(config["metadata"]["name"], chosen(pod).to_string(), "of {pod:#}");
        all.insert(chosen(pod));
    }
    assert_eq!(all.len(), policies.len(), "each is somebody's");
}

#[test]
fn a_namespace_that_enforces_restricted_admits_the_sidecar() {
    let labels = format!("{{{}: {}, pod-security.kubernetes.io/enforce: restricted}}", names::INJECT, names::DISABLED);
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: restricted, labels: {labels}}}\n");
    cluster().apply(&namespace).unwrap();
    let mut pod = asterisk();
    pod["metadata"]["name"] = json!("asterisk");
    pod["spec"]["securityContext"] = json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["securityContext"] =
            json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    }
    let typed = serde_json::from_value(pod.clone()).unwrap();
    let injection = inject(&typed, &NamespaceFacts::selected_for("default"), &defaults(), None).unwrap();
    patch(&mut pod, &injection.patch).unwrap();
    assert_eq!(created(cluster(), "restricted", &[pod.clone()]).unwrap().len(), 1);

    pod["spec"]["initContainers"][0]["securityContext"]["capabilities"] = json!({});
    let refused = created(cluster(), "restricted", &[pod]).unwrap_err().to_string();
    assert!(refused.contains("restricted"), "{refused}");
}
