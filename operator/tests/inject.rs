//! What becomes of pods, rule by rule.

use json_patch::patch;
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use serde_json::{Value, json};
use sipwarden_crds::{SessionPolicy, compile, to_annotation};
use sipwarden_operator::inject::{
    Injection, NamespaceFacts, PortFault, Settings, Skip, SkipReason, inject, names, sidecar_of,
};

const CONFIG: &str = r#"{"apiVersion":"sipwarden.dev/v1alpha1","kind":"SidecarConfig","metadata":{"name":"deployment-asterisk"},"spec":{"mode":"Observe"}}"#;

fn settings() -> Settings {
    Settings::new("default", "localhost/sipwarden:dev")
}

fn opted_in() -> NamespaceFacts {
    NamespaceFacts { inject: Some("enabled".to_owned()), revision: None }
}

fn asterisk() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "asterisk-5d8f-", "labels": { "app": "asterisk" } },
        "spec": { "containers": [
            { "name": "logger", "image": "logger:1" },
            { "name": "asterisk", "image": "asterisk:22", "ports": [
                { "name": "http", "containerPort": 8088 },
                { "name": "sip", "containerPort": 5060, "protocol": "UDP" },
            ] },
        ] },
    })
}

fn try_inject(pod: &Value, config: Option<&str>) -> Result<Injection, Skip> {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
    inject(&pod, &opted_in(), &settings(), config)
}

fn injected_with(pod: &Value, config: Option<&str>) -> Value {
    patched(pod, &try_inject(pod, config).expect("injected"))
}

fn patched(pod: &Value, injection: &Injection) -> Value {
    let mut pod = pod.clone();
    patch(&mut pod, &injection.patch).expect("the patch applies");
    pod
}

fn injected(pod: &Value) -> Value {
    injected_with(pod, Some(CONFIG))
}

fn skipped(pod: &Value) -> Skip {
    try_inject(pod, Some(CONFIG)).expect_err("skipped")
}

fn sidecar(pod: &Value) -> &Value {
    let first = &pod["spec"]["initContainers"][0];
    assert_eq!(first["name"], names::CONTAINER);
    first
}

fn args(pod: &Value) -> String {
    let args = sidecar(pod)["args"].as_array().expect("args").iter();
    args.map(|arg| arg.as_str().expect("text")).collect::<Vec<_>>().join(" ")
}

fn annotated(annotations: Value) -> Value {
    let mut pod = asterisk();
    pod["metadata"]["annotations"] = annotations;
    pod
}

#[test]
fn in_a_pod_with_resources_the_sidecar_asks_for_nothing_and_is_held_to_its_limit_or_the_pods() {
    let mut pod = asterisk();
    assert_eq!(sidecar(&injected(&pod))["resources"]["requests"]["memory"], "24Mi");
    for (of_pod, limit) in [
        (json!({ "requests": { "cpu": "1" } }), "256Mi"),
        (json!({ "limits": { "memory": "1Gi" } }), "256Mi"),
        (json!({ "limits": { "memory": "128Mi" } }), "128Mi"),
    ] {
        pod["spec"]["resources"] = of_pod;
        let resources = sidecar(&injected(&pod))["resources"].clone();
        assert_eq!(resources, json!({ "requests": { "cpu": "0", "memory": "0" }, "limits": { "memory": limit } }));
    }
}

#[test]
fn the_sidecar_is_a_restartable_init_container_before_all_others() {
    let mut pod = asterisk();
    pod["spec"]["initContainers"] = json!([{ "name": "migrate", "image": "migrate:1" }]);
    let pod = injected(&pod);
    assert_eq!(sidecar(&pod)["restartPolicy"], "Always");
    assert_eq!(pod["spec"]["initContainers"][1], json!({ "name": "migrate", "image": "migrate:1" }));
}

#[test]
fn the_port_name_moves_and_the_number_stays() {
    let pod = injected(&asterisk());
    assert_eq!(
        pod["spec"]["containers"][1]["ports"],
        json!([{ "name": "http", "containerPort": 8088 }, { "containerPort": 5060, "protocol": "UDP" }])
    );
    assert_eq!(
        sidecar(&pod)["ports"],
        json!([
            { "name": "sip", "containerPort": 15060, "protocol": "UDP" },
            { "name": "sipwarden-http", "containerPort": 8643, "protocol": "TCP" },
        ])
    );
}

#[test]
fn the_sidecar_is_told_where_the_application_listens() {
    assert_eq!(
        args(&injected(&asterisk())),
        "run --policy /etc/sipwarden/pod/config --last-good /var/lib/sipwarden/last-good.json \
         --listen udp:$(POD_IP):15060 --listen tcp:$(POD_IP):15060 \
         --app-listen udp:127.0.0.1:15070 --app-listen tcp:127.0.0.1:15070 --app udp:127.0.0.1:5060 \
         --status [::]:8643 --admin 127.0.0.1:8642 --log-format json"
    );
}

#[test]
fn an_application_on_the_pod_address_is_reached_there() {
    let pod = injected(&annotated(json!({ "sipwarden.dev/app-address": "PodIP" })));
    assert!(
        args(&pod)
            .contains("--app-listen udp:$(POD_IP):15070 --app-listen tcp:$(POD_IP):15070 --app udp:$(POD_IP):5060 ")
    );
}

#[test]
fn a_udp_and_a_tcp_port_of_one_number_both_move_and_the_application_is_reached_over_udp() {
    let mut pod = annotated(json!({ "sipwarden.dev/port-names": "sip-tcp, sip" }));
    pod["spec"]["containers"][1]["ports"] = json!([
        { "name": "sip", "containerPort": 5060, "protocol": "UDP" },
        { "name": "sip-tcp", "containerPort": 5060, "protocol": "TCP" },
    ]);
    let pod = injected(&pod);
    assert_eq!(
        pod["spec"]["containers"][1]["ports"],
        json!([{ "containerPort": 5060, "protocol": "UDP" }, { "containerPort": 5060, "protocol": "TCP" }])
    );
    assert_eq!(sidecar(&pod)["ports"][0], json!({ "name": "sip-tcp", "containerPort": 15060, "protocol": "TCP" }));
    assert_eq!(sidecar(&pod)["ports"][1], json!({ "name": "sip", "containerPort": 15060, "protocol": "UDP" }));
    assert!(args(&pod).contains("--app udp:127.0.0.1:5060 "));
}

#[test]
fn an_application_with_tcp_alone_is_reached_over_tcp() {
    let mut pod = asterisk();
    pod["spec"]["containers"][1]["ports"] = json!([{ "name": "sip", "containerPort": 5066 }]);
    let pod = injected(&pod);
    assert!(args(&pod).contains("--app tcp:127.0.0.1:5066 "));
    assert_eq!(sidecar(&pod)["ports"][0]["protocol"], "TCP");
}

#[test]
fn probes_and_hooks_that_name_the_port_go_on_with_its_number() {
    let mut pod = annotated(json!({ "sipwarden.dev/port-names": "sip-tcp" }));
    let app = &mut pod["spec"]["containers"][1];
    app["ports"] = json!([{ "name": "sip-tcp", "containerPort": 5060 }, { "name": "http", "containerPort": 8088 }]);
    app["livenessProbe"] = json!({ "tcpSocket": { "port": "sip-tcp" }, "periodSeconds": 7 });
    app["readinessProbe"] = json!({ "httpGet": { "port": "http", "path": "/" } });
    app["lifecycle"] = json!({ "preStop": { "httpGet": { "port": "sip-tcp", "path": "/bye" } } });
    let app = &injected(&pod)["spec"]["containers"][1];
    assert_eq!(app["livenessProbe"], json!({ "tcpSocket": { "port": 5060 }, "periodSeconds": 7 }));
    assert_eq!(app["readinessProbe"], json!({ "httpGet": { "port": "http", "path": "/" } }));
    assert_eq!(app["lifecycle"], json!({ "preStop": { "httpGet": { "port": 5060, "path": "/bye" } } }));
}

#[test]
fn the_config_is_an_annotation_that_the_sidecar_sees_as_a_file() {
    let pod = injected(&asterisk());
    assert_eq!(pod["metadata"]["annotations"][names::CONFIG], CONFIG);
    assert_eq!(
        pod["spec"]["volumes"],
        json!([
            { "name": "sipwarden-config", "downwardAPI": { "items": [
                { "path": "config", "fieldRef": { "fieldPath": "metadata.annotations['sipwarden.dev/config']" } },
            ] } },
            { "name": "sipwarden-state", "emptyDir": { "sizeLimit": "1Mi" } },
        ])
    );
    assert_eq!(
        sidecar(&pod)["volumeMounts"],
        json!([
            { "name": "sipwarden-config", "mountPath": "/etc/sipwarden/pod", "readOnly": true },
            { "name": "sipwarden-state", "mountPath": "/var/lib/sipwarden" },
        ])
    );
}

#[test]
fn without_a_known_config_the_sidecar_comes_all_the_same_and_what_was_written_stays() {
    let pod = injected_with(&asterisk(), None);
    assert_eq!(pod["metadata"]["annotations"].get(names::CONFIG), None);
    let pod = injected_with(&annotated(json!({ names::CONFIG: "earlier" })), None);
    assert_eq!(pod["metadata"]["annotations"][names::CONFIG], "earlier");
}

/// A config whose timers and rules name Secrets.
fn config_with_credentials() -> String {
    let policy = json!({
        "metadata": { "name": "carrier" },
        "spec": {
            "timers": { "credentials": { "secretName": "trunk" } },
            "rules": [
                {
                    "name": "other",
                    "match": { "direction": "Inbound" },
                    "timers": { "credentials": { "secretName": "other.trunk" } },
                },
                { "name": "same", "match": { "direction": "Outbound" } },
            ],
        },
    });
    let policy: SessionPolicy = serde_json::from_value(policy).expect("a policy");
    to_annotation("deployment-asterisk", &compile(&policy).expect("it compiles"))
}

#[test]
fn where_no_policy_is_in_force_a_config_from_elsewhere_does_not_stay() {
    let pod = injected_with(&asterisk(), Some(""));
    assert_eq!(pod["metadata"]["annotations"].get(names::CONFIG), None);
    let pod = injected_with(&annotated(json!({ names::CONFIG: CONFIG })), Some(""));
    assert_eq!(pod["metadata"]["annotations"][names::CONFIG], "");
}

#[test]
fn secrets_with_credentials_are_mounted_once_each_and_optional() {
    let pod = injected_with(&asterisk(), Some(&config_with_credentials()));
    let secrets = &pod["spec"]["volumes"].as_array().unwrap()[2..];
    assert_eq!(
        secrets,
        [
            json!({ "name": "sipwarden-credentials-0", "secret": { "secretName": "other.trunk", "optional": true } }),
            json!({ "name": "sipwarden-credentials-1", "secret": { "secretName": "trunk", "optional": true } }),
        ]
    );
    let mounts = &sidecar(&pod)["volumeMounts"].as_array().unwrap()[2..];
    let paths: Vec<_> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/etc/sipwarden/credentials/other.trunk", "/etc/sipwarden/credentials/trunk"]);
}

#[test]
fn a_pod_that_was_injected_without_its_config_gets_config_and_credentials() {
    let config = config_with_credentials();
    let earlier = injected_with(&asterisk(), None);
    let update = try_inject(&earlier, Some(&config)).expect("an update");
    assert!(!update.fresh);
    let at_once = injected_with(&asterisk(), Some(&config));
    let in_two_steps = injected_with(&earlier, Some(&config));
    assert_eq!(in_two_steps, at_once);
}

#[test]
fn another_injector_may_put_its_container_before_ours() {
    let mut pod = injected(&asterisk());
    let inits = pod["spec"]["initContainers"].as_array_mut().unwrap();
    inits.insert(0, json!({ "name": "mesh", "image": "mesh:1", "restartPolicy": "Always" }));
    assert_eq!(skipped(&pod), Skip::AlreadyInjected);
}

#[test]
fn the_pod_is_labelled_and_kubectl_still_means_the_application() {
    let pod = injected(&asterisk());
    assert_eq!(pod["metadata"]["labels"], json!({ "app": "asterisk", "sipwarden.dev/sidecar": "injected" }));
    assert_eq!(pod["metadata"]["annotations"][names::INJECTED], "default");
    assert_eq!(pod["metadata"]["annotations"][names::DEFAULT_CONTAINER], "asterisk");
    let pod = injected(&annotated(json!({ names::DEFAULT_CONTAINER: "logger" })));
    assert_eq!(pod["metadata"]["annotations"][names::DEFAULT_CONTAINER], "logger");
}

#[test]
fn annotations_change_image_resources_log_and_next_hop() {
    let pod = injected(&annotated(json!({
        "sipwarden.dev/image": "registry.example:5000/sipwarden@sha256:00",
        "sipwarden.dev/log": "info,sipwarden=debug",
        "sipwarden.dev/cpu-request": "100m",
        "sipwarden.dev/memory-request": "64Mi",
        "sipwarden.dev/memory-limit": "1Gi",
        "sipwarden.dev/next-hop": "udp:sbc.example:5060",
    })));
    assert_eq!(sidecar(&pod)["image"], "registry.example:5000/sipwarden@sha256:00");
    assert_eq!(
        sidecar(&pod)["resources"],
        json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "memory": "1Gi" } })
    );
    assert!(args(&pod).ends_with("--log-format json --next-hop udp:sbc.example:5060 --log info,sipwarden=debug"));
}

#[test]
fn sessions_are_traced_where_the_operator_says() {
    assert!(!args(&injected(&asterisk())).contains("--otlp"), "off unless asked for");
    let otlp = Some("http://collector:4318".to_owned());
    let settings = Settings { otlp, otlp_ratio: "0.1".to_owned(), ..settings() };
    let pod: Pod = serde_json::from_value(asterisk()).expect("a pod");
    let injection = inject(&pod, &opted_in(), &settings, Some(CONFIG)).expect("injected");
    let args = args(&patched(&asterisk(), &injection));
    assert!(args.ends_with(" --log-format json --otlp http://collector:4318 --otlp-ratio 0.1"), "{args}");
}

#[test]
fn an_annotation_that_cannot_be_obeyed_is_named_and_no_sidecar_comes() {
    for (name, value) in [
        (names::PORT_NAMES, ""),
        (names::PORT_NAMES, "sip,,"),
        (names::PORT_NAMES, "SIP"),
        (names::PORT_NAMES, "sip,sip-tcp,third"),
        (names::APP_ADDRESS, "loopback"),
        (names::IMAGE, "two words"),
        (names::IMAGE, ""),
        (names::LOG, "$(POD_IP)"),
        (names::CPU_REQUEST, "much"),
        (names::MEMORY_REQUEST, "1Ti"),
        (names::MEMORY_REQUEST, "257Mi"),
        (names::MEMORY_LIMIT, "23Mi"),
        (names::NEXT_HOP, "sbc.example"),
    ] {
        match skipped(&annotated(json!({ name: value }))) {
            Skip::BadAnnotation { name: blamed, message } => {
                assert_eq!(blamed, name);
                assert!(message.contains("use ") || message.contains("above the limit"), "{message}");
            }
            other => panic!("{name}={value}: {other:?}"),
        }
    }
}

#[test]
fn the_pod_has_the_last_word_over_its_namespace() {
    let facts = |inject: Option<&str>| NamespaceFacts { inject: inject.map(str::to_owned), revision: None };
    let outcome = |of_pod: Option<&str>, of_namespace: Option<&str>| {
        let mut pod = asterisk();
        if let Some(value) = of_pod {
            pod["metadata"]["labels"][names::INJECT] = json!(value);
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        inject(&pod, &facts(of_namespace), &settings(), None).map(|_| ()).map_err(|skip| skip.reason())
    };
    assert_eq!(outcome(Some("enabled"), None), Ok(()));
    assert_eq!(outcome(Some("enabled"), Some("disabled")), Ok(()));
    assert_eq!(outcome(Some("true"), Some("enabled")), Ok(()));
    assert_eq!(outcome(None, Some("enabled")), Ok(()));
    assert_eq!(outcome(Some("disabled"), Some("enabled")), Err(SkipReason::Disabled));
    assert_eq!(outcome(None, Some("disabled")), Err(SkipReason::Disabled));
    assert_eq!(outcome(Some("true"), None), Err(SkipReason::NotOptedIn));
    assert_eq!(outcome(None, None), Err(SkipReason::NotOptedIn));
}

#[test]
fn a_namespace_of_another_revision_is_left_to_it() {
    let pod: Pod = serde_json::from_value(asterisk()).expect("a pod");
    let facts = NamespaceFacts { revision: Some("canary".to_owned()), ..opted_in() };
    assert_eq!(inject(&pod, &facts, &settings(), None), Err(Skip::OtherRevision));
    let canary = Settings { revision: "canary".to_owned(), ..settings() };
    assert!(inject(&pod, &facts, &canary, None).is_ok());
    assert_eq!(inject(&pod, &opted_in(), &canary, None), Err(Skip::OtherRevision));
}

#[test]
fn pods_that_cannot_have_a_sidecar_say_why() {
    let with = |path: &str, value: Value| {
        let mut pod = asterisk();
        let (parent, key) = path.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("the parent is there")[key] = value;
        skipped(&pod)
    };
    assert_eq!(with("/spec/hostNetwork", json!(true)), Skip::HostNetwork);
    assert_eq!(with("/spec/os", json!({ "name": "windows" })), Skip::OtherOs);
    assert_eq!(with("/metadata/annotations", json!({ "kubernetes.io/config.mirror": "x" })), Skip::MirrorPod);
    assert_eq!(with("/spec/containers/0/name", json!("sipwarden")), Skip::NameTaken { what: "container" });
    assert_eq!(
        with("/spec/volumes", json!([{ "name": "sipwarden-state", "emptyDir": {} }])),
        Skip::NameTaken { what: "volume" }
    );
    assert_eq!(with("/spec/containers/1/ports", json!([])), Skip::NoSuchPort { name: "sip".to_owned() });
    for (port, protocol) in [(15060, "UDP"), (15060, "TCP"), (15070, "UDP"), (8642, "TCP"), (8643, "TCP")] {
        let ports = json!([{ "containerPort": port, "protocol": protocol }]);
        assert_eq!(with("/spec/containers/0/ports", ports), Skip::PortTaken { port });
    }
}

#[test]
fn a_udp_port_of_the_number_of_a_tcp_port_of_ours_is_in_nobodys_way() {
    let mut pod = asterisk();
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8643, "protocol": "UDP" }]);
    injected(&pod);
}

#[test]
fn ports_that_cannot_be_taken_over_say_why() {
    let fault = |ports: Value, port_names: &str| {
        let mut pod = annotated(json!({ names::PORT_NAMES: port_names }));
        pod["spec"]["containers"][1]["ports"] = ports;
        pod["spec"]["containers"][0]["ports"] = json!([{ "name": "twice", "containerPort": 1 }]);
        match skipped(&pod) {
            Skip::UnusablePort { fault, .. } => fault,
            other => panic!("{other:?}"),
        }
    };
    let sip = |protocol: &str| json!({ "name": "sip", "containerPort": 5060, "protocol": protocol });
    assert_eq!(fault(json!([sip("SCTP")]), "sip"), PortFault::Protocol);
    assert_eq!(fault(json!([{ "name": "sip", "containerPort": 5060, "hostPort": 5060 }]), "sip"), PortFault::HostPort);
    let second = json!({ "name": "two", "containerPort": 5061, "protocol": "UDP" });
    assert_eq!(fault(json!([sip("UDP"), second]), "sip,two"), PortFault::SecondOfProtocol);
    assert_eq!(fault(json!([{ "name": "twice", "containerPort": 2 }]), "twice"), PortFault::TwoContainers);
}

#[test]
fn refusals_are_told_apart_from_pods_that_never_asked() {
    let silent: Vec<_> = SkipReason::ALL.into_iter().filter(|reason| !reason.is_refusal()).collect();
    assert_eq!(
        silent,
        [SkipReason::NotOptedIn, SkipReason::Disabled, SkipReason::OtherRevision, SkipReason::AlreadyInjected]
    );
}

#[test]
fn the_sidecar_is_something_kubernetes_knows_to_the_last_field() {
    let pod = injected_with(&asterisk(), Some(&config_with_credentials()));
    let read: Container = serde_json::from_value(sidecar(&pod).clone()).expect("a container");
    assert_eq!(serde_json::to_value(&read).unwrap(), *sidecar(&pod));
    for volume in pod["spec"]["volumes"].as_array().unwrap() {
        let read: Volume = serde_json::from_value(volume.clone()).expect("a volume");
        assert_eq!(serde_json::to_value(&read).unwrap(), *volume);
    }
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    assert_eq!(sidecar_of(&pod), Some(&read));
}

#[test]
fn the_security_context_is_what_restricted_asks_for() {
    assert_eq!(
        sidecar(&injected(&asterisk()))["securityContext"],
        json!({
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        })
    );
}
