//! What holds for every pod.

use json_patch::patch;
use k8s_openapi::api::core::v1::Pod;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use sipwarden_operator::inject::{NamespaceFacts, Settings, Skip, inject, names};

fn settings() -> Settings {
    Settings::new("default", "sipwarden:1")
}

fn run(pod: &Value, config: Option<&str>) -> Result<Value, Skip> {
    let typed: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    let facts = NamespaceFacts { inject: Some(names::ENABLED.to_owned()), revision: None };
    let injection = inject(&typed, &facts, &settings(), config)?;
    let mut pod = pod.clone();
    patch(&mut pod, &injection.patch).expect("the patch applies to what it was made from");
    Ok(pod)
}

/// Pods with whatever injection may meet, and with fields that this version of Kubernetes does not know.
fn pods() -> impl Strategy<Value = Value> {
    let containers = vec(containers(), 1..3);
    let inits = option::of(vec(containers_named("init"), 0..2));
    let volumes = option::of(vec(select(vec!["data", "cache"]), 0..2));
    let labels = option::of(maps(vec!["app", "tier", names::INJECT], vec!["a", "enabled", "disabled"]));
    let annotation_keys =
        vec!["note/x~y", names::PORT_NAMES, names::APP_ADDRESS, names::DEFAULT_CONTAINER, names::CONFIG];
    let annotations = option::of(maps(annotation_keys, vec!["sip", "sip,sip-tcp", "PodIP", "c0", "{}"]));
    (containers, inits, volumes, labels, annotations, prop::bool::weighted(0.1)).prop_map(
        |(mut containers, inits, volumes, labels, annotations, host_network)| {
            for (i, container) in containers.iter_mut().enumerate() {
                container["name"] = json!(format!("c{i}"));
            }
            let mut spec = json!({ "containers": containers, "futureField": { "a": [1] } });
            set(&mut spec, "initContainers", inits.map(|inits| json!(inits)));
            set(&mut spec, "volumes", volumes.map(|all| all.into_iter().map(volume).collect()));
            set(&mut spec, "hostNetwork", host_network.then_some(json!(true)));
            let mut metadata = json!({ "name": "pod" });
            set(&mut metadata, "labels", labels.map(Value::Object));
            set(&mut metadata, "annotations", annotations.map(Value::Object));
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
        },
    )
}

fn volume(name: &str) -> Value {
    json!({ "name": name, "futureSource": {} })
}

fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(value) = value {
        object[field] = value;
    }
}

fn maps(keys: Vec<&'static str>, values: Vec<&'static str>) -> impl Strategy<Value = Map<String, Value>> {
    vec((select(keys), select(values)), 0..4)
        .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect())
}

fn containers() -> impl Strategy<Value = Value> {
    containers_named("c")
}

fn containers_named(name: &'static str) -> impl Strategy<Value = Value> {
    let port = (
        select(vec!["sip", "sip", "sip-tcp", "http"]),
        prop_oneof![9 => Just(5060), 3 => Just(5061), 3 => Just(8080), 1 => Just(15060)],
        select(vec!["UDP", "TCP"]),
    );
    let probe_port = option::of(select(vec![json!("sip"), json!("sip-tcp"), json!("http"), json!(5060)]));
    (option::weighted(0.9, vec(port, 0..3)), probe_port).prop_map(move |(ports, probe_port)| {
        let mut container = json!({ "name": name, "image": "app:1", "futureField": true });
        let ports = ports.map(|ports| {
            ports.into_iter().map(|(name, number, protocol)| {
            json!({ "name": name, "containerPort": number, "protocol": protocol, "futureField": 1 })
        }).collect()
        });
        set(&mut container, "ports", ports);
        set(&mut container, "livenessProbe", probe_port.map(|port| json!({ "tcpSocket": { "port": port } })));
        container
    })
}

/// Takes out of an injected pod what the contract names, so that the rest can be compared.
fn without_ours(mut pod: Value, original: &Value) -> Value {
    for (field, keys) in [
        ("labels", vec![names::SIDECAR]),
        ("annotations", vec![names::INJECTED, names::CONFIG, names::DEFAULT_CONTAINER]),
    ] {
        let restore = original["metadata"].get(field).cloned();
        let map = pod["metadata"][field].as_object_mut().expect("ours are there");
        for key in keys {
            map.remove(key);
            if let Some(value) = restore.as_ref().and_then(|all| all.get(key)) {
                map.insert(key.to_owned(), value.clone());
            }
        }
        if restore.is_none() && map.is_empty() {
            pod["metadata"].as_object_mut().expect("a map").remove(field);
        }
    }
    for (field, ours) in [("initContainers", names::CONTAINER), ("volumes", names::VOLUME_PREFIX)] {
        let list = pod["spec"][field].as_array_mut().expect("ours are there");
        list.retain(|item| !item["name"].as_str().is_some_and(|name| name.starts_with(ours)));
        if list.is_empty() && original["spec"].get(field).is_none() {
            pod["spec"].as_object_mut().expect("a map").remove(field);
        }
    }
    pod
}

/// Gives taken ports their name back, and probes that use them.
fn with_names_back(mut pod: Value, original: &Value) -> Value {
    let containers = pod["spec"]["containers"].as_array_mut().expect("containers");
    for (container, original) in containers.iter_mut().zip(original["spec"]["containers"].as_array().expect("a list")) {
        let ports = container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        let mut lost = Vec::new();
        for (port, original) in ports.zip(original["ports"].as_array().into_iter().flatten()) {
            if port.get("name").is_none() {
                port["name"] = original["name"].clone();
                lost.push((original["name"].clone(), original["containerPort"].clone()));
            }
        }
        let Some(probe) = container.pointer_mut("/livenessProbe/tcpSocket/port") else { continue };
        let original = &original["livenessProbe"]["tcpSocket"]["port"];
        if lost.iter().any(|(name, number)| name == original && number == probe) {
            *probe = original.clone();
        }
    }
    pod
}

/// Each name a Service may use, with protocol.
fn named_ports(pod: &Value) -> Vec<(String, String)> {
    let inits = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let restartable = inits.filter(|init| init["restartPolicy"] == "Always");
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten().chain(restartable);
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let named = ports.filter_map(|port| Some((port["name"].as_str()?.to_owned(), port["protocol"].to_string())));
    named.filter(|(name, _)| name != names::STATUS_PORT_NAME).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn injecting_twice_is_injecting_once(pod in pods(), config in option::of(select(vec!["", "{\"spec\":{}}"]))) {
        if let Ok(once) = run(&pod, config) {
            prop_assert_eq!(run(&once, config), Err(Skip::AlreadyInjected));
        }
    }

    #[test]
    fn what_the_contract_does_not_name_stays_as_it_was(pod in pods()) {
        if let Ok(injected) = run(&pod, Some("{}")) {
            let rest = with_names_back(without_ours(injected, &pod), &pod);
            prop_assert_eq!(rest, pod);
        }
    }

    #[test]
    fn every_name_a_service_may_use_still_leads_somewhere(pod in pods()) {
        if let Ok(injected) = run(&pod, None) {
            let (mut before, mut after) = (named_ports(&pod), named_ports(&injected));
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn no_probe_names_a_port_that_its_container_lost(pod in pods()) {
        let dangling = |pod: &Value| {
            let containers = pod["spec"]["containers"].as_array().unwrap().clone();
            containers.into_iter().filter(|container| {
                let port = &container["livenessProbe"]["tcpSocket"]["port"];
                let mut ports = container["ports"].as_array().into_iter().flatten();
                port.is_string() && !ports.any(|own| own["name"] == *port)
            }).count()
        };
        if let Ok(injected) = run(&pod, None) {
            prop_assert_eq!(dangling(&pod), dangling(&injected));
        }
    }
}

#[test]
fn the_pods_of_these_tests_are_injected_often_enough() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut injected = 0;
    for _ in 0..500 {
        let pod = pods().new_tree(&mut runner).expect("a pod");
        injected += usize::from(run(&proptest::strategy::ValueTree::current(&pod), None).is_ok());
    }
    assert!(injected > 50, "{injected} of 500");
}
