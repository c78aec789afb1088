//! A real Prometheus scrapes real operators at a real API server: every query of the dashboards about the operator has data
//! after it has worked, and every alert about it fires in the state that it is for.
//!
//! Three revisions run. `default` may do everything. `blind` may only read, so it never leads. `barred` may lead, but may
//! not write what it has to, and finds a CA near its end that it may not rotate.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use sipwarden_cluster::{Cluster, Component, OperatorProcess};
use sipwarden_tests::ports::{LOOPBACK, free};
use sipwarden_tests::process::Process;
use sipwarden_tests::prometheus::server::{Prometheus, Target};
use sipwarden_tests::prometheus::shipped::{queries, rule_file};
use sipwarden_tests::sidecar::binary;
use sipwarden_tests::wait::{eventually, until};
use time::OffsetDateTime;

const VARIABLES: &[(&str, &str)] = &[("namespace", "sipwarden-system"), ("__rate_interval", "1m")];

/// How long data may take to be there, scraped and evaluated, on a busy machine.
const SCRAPED: Duration = Duration::from_secs(40);

/// `SipwardenOperatorWatchStale` is about two minutes of silence.
const SILENCE: Duration = Duration::from_secs(180);

const POLICY: &str = r#"{"apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy", "spec": {}}"#;

#[test]
fn every_query_about_the_operator_has_data_and_every_alert_about_it_fires_when_it_is_caused() {
    let cluster = Cluster::api_only().expect("an API server");
    cluster.prepare_for_operators().expect("definitions and a namespace");
    let sidecar = Sidecar::start(SocketAddr::from(([127, 9, 3, 1], free(LOOPBACK).port())));
    let status_port = sidecar.status.port().to_string();
    let acks = ["--status-port", status_port.as_str(), "--ack-interval-s", "1"];
    let start = |kubeconfig: &Path, revision: &str, more: &[&str]| {
        OperatorProcess::start(&cluster, kubeconfig, revision, "only", more).expect("the operator starts")
    };
    let default = start(&cluster.kubeconfig(), "default", &acks).until_leading().expect("it leads");
    let blind = start(&account(&cluster, "blind", &[]), "blind", &[]);
    store_ca_near_its_end(&cluster);
    let leases = ["leases.coordination.k8s.io"];
    let barred = start(&account(&cluster, "barred", &leases), "barred", &[]).until_leading().expect("it leads");
    let target = |operator: &OperatorProcess, revision| Target::operator(operator.http, revision);
    let targets = [target(&default, "default"), target(&blind, "blind"), target(&barred, "barred")];
    let rules = rule_file("operator.yaml").without_waiting();
    let prometheus = Prometheus::start(&targets, &[rules.text]);

    for revision in ["default", "barred"] {
        site(&cluster, revision, sidecar.status);
    }
    ask_for_a_sidecar_that_cannot_be(&cluster, default.webhook);
    distrust(&cluster, default.webhook);
    let fired = |expected: &[&str], limit| {
        let all = || expected.iter().all(|alert| prometheus.firing().contains_key(*alert)).then_some(());
        assert!(until(limit, all).is_some(), "{expected:?} expected, only {:#?}", prometheus.firing());
        expected.iter().map(|alert| (*alert).trim().to_owned()).collect::<Vec<_>>()
    };
    let mut alerts = fired(
        &[
            "SipwardenInjectionFailing ",
            "SipwardenOperatorNotLeading ",
            "SipwardenOperatorWritesFailing ",
            "SipwardenPodsWithoutSidecar ",
            "SipwardenWebhookCertificateExpiring ",
            "SipwardenWebhookUntrusted ",
        ],
        SCRAPED,
    );
    let told = prometheus.firing();
    for (alert, told) in &told {
        assert!(!told.contains("error") && !told.contains("{{") && !told.contains("<no value>"), "{alert}: {told}");
    }
    assert!(!told.contains_key("SipwardenOperatorAbsent ") && !told.contains_key("SipwardenOperatorWatchStale "));
    let queries = queries(true);
    assert!(queries.len() > 20);
    prometheus.answers(&queries, VARIABLES, SCRAPED);

    // Who leads ends with the API server, by design; who does not goes on waiting for it.
    cluster.kill(Component::ApiServer).expect("an API server to kill");
    alerts.extend(fired(&["SipwardenOperatorWatchStale "], SILENCE));
    for operator in [default, blind, barred] {
        operator.terminate().expect("it ends");
    }
    alerts.extend(fired(&["SipwardenOperatorAbsent "], SCRAPED));

    let all: BTreeSet<_> = rule_file("operator.yaml").alerts().into_iter().map(|alert| alert.name).collect();
    assert_eq!(alerts.into_iter().collect::<BTreeSet<_>>(), all, "an alert that was not seen to fire");
}

fn apply(cluster: &Cluster, object: Value) {
    cluster.apply(&object.to_string()).unwrap_or_else(|error| panic!("{object}: {error:#}"));
}

/// A kubeconfig of somebody who may read everything, and write these.
fn account(cluster: &Cluster, name: &str, may_write: &[&str]) -> PathBuf {
    let rule = |groups: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [groups], "resources": resources, "verbs": verbs });
    let written = may_write.iter().filter_map(|resource| resource.split_once('.'));
    let mut rules: Vec<_> = written.map(|(resource, group)| rule(group, &[resource], &["*"])).collect();
    rules.push(rule("*", &["*"], &["get", "list", "watch"]));
    cluster.account("sipwarden-system", name, "ClusterRole", &rules.into()).expect("an account")
}

/// A CA as the operator would have made it ten months ago.
fn store_ca_near_its_end(cluster: &Cluster) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = OffsetDateTime::now_utc() - Duration::from_secs(305 * 86_400);
    params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(60 * 86_400);
    let certificate = params.self_signed(&key).expect("a certificate");
    let metadata = json!({ "name": "sipwarden-ca-barred", "namespace": "sipwarden-system" });
    let data = json!({ "ca.crt": certificate.pem(), "ca.key": key.serialize_pem() });
    apply(cluster, json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data }));
}

/// A namespace of this revision with a policy, pods that obey it, and one without the sidecar it asked for.
fn site(cluster: &Cluster, revision: &str, status: SocketAddr) {
    let labels = json!({ "sipwarden.dev/inject": "enabled", "sipwarden.dev/rev": revision });
    let metadata = json!({ "name": revision, "labels": labels });
    // The namespace `default` is there already.
    cluster
        .kubectl(&[
            "label",
            "--overwrite",
            "namespace",
            "default",
            "sipwarden.dev/rev=default",
            "sipwarden.dev/inject=enabled",
        ])
        .expect("a label");
    apply(cluster, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }));
    let mut policy: Value = serde_json::from_str(POLICY).expect("JSON");
    policy["metadata"] = json!({ "name": "carrier", "namespace": revision });
    apply(cluster, policy);
    for number in 0..7 {
        let name = format!("pbx-{number}");
        let mut pod = pod(revision, &name);
        if number > 0 {
            pod["metadata"]["labels"]["sipwarden.dev/sidecar"] = json!("injected");
        }
        apply(cluster, pod);
        let ip = status.ip().to_string();
        let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } }).to_string();
        let patch =
            ["patch", "pod", &name, "--namespace", revision, "--subresource", "status", "--type", "merge", "--patch"];
        cluster.kubectl(&[&patch[..], &[&status]].concat()).expect("a status");
    }
}

fn pod(namespace: &str, name: &str) -> Value {
    let ports = json!([{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": "pbx" } },
        "spec": { "containers": [{ "name": "app", "image": "app", "ports": ports }] },
    })
}

/// The API server's question about a pod that has the node's network, put with the CA that the operator made; and its
/// question about a policy.
fn ask_for_a_sidecar_that_cannot_be(cluster: &Cluster, webhook: SocketAddr) {
    let question =
        ["get", "secret", "sipwarden-ca-default", "-n", "sipwarden-system", "-o", r"jsonpath={.data.ca\.crt}"];
    let encoded = cluster.kubectl(&question).expect("a CA");
    let mut decode = Command::new("base64");
    let file = cluster.scratch().join("ca.crt");
    let encoded_file = cluster.scratch().join("ca.crt.base64");
    fs::write(&encoded_file, encoded).expect("the directory is ours");
    let decoded = decode.arg("--decode").arg(&encoded_file).output().expect("base64 of coreutils");
    fs::write(&file, decoded.stdout).expect("the directory is ours");

    let mut host_network = pod("default", "host");
    host_network["spec"]["hostNetwork"] = json!(true);
    let mut policy: Value = serde_json::from_str(POLICY).expect("JSON");
    policy["metadata"] = json!({ "name": "asked", "namespace": "default" });
    for (path, kind, object) in [("inject", "Pod", host_network), ("validate", "SessionPolicy", policy)] {
        let group = if kind == "Pod" { "" } else { "sipwarden.dev" };
        let kind = json!({ "group": group, "version": "v1", "kind": kind });
        let request = json!({
            "uid": "1", "operation": "CREATE", "namespace": "default", "userInfo": {}, "object": object, "kind": kind,
            "resource": { "group": group, "version": "v1", "resource": "pods" },
        });
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let name = "sipwarden-webhook.sipwarden-system.svc";
        let (port, ip) = (webhook.port(), webhook.ip());
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--fail",
            "--show-error",
            "--max-time",
            "10",
            "--header",
            "Content-Type: application/json",
        ]);
        curl.arg("--cacert").arg(&file).args(["--resolve", &format!("{name}:{port}:{ip}")]);
        curl.args(["--data", &review.to_string(), &format!("https://{name}:{port}/{path}")]);
        let output = curl.output().expect("curl runs");
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A webhook configuration with the bundle of another CA, as after a tool has put an old one back; and pods to ask about.
fn distrust(cluster: &Cluster, webhook: SocketAddr) {
    let authority = "jsonpath={.clusters[0].cluster.certificate-authority-data}";
    let bundle = cluster.kubectl(&["config", "view", "--raw", "--flatten", "-o", authority]).expect("a bundle");
    apply(cluster, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "distrusting" } }));
    let hook = json!({
        "name": "inject.sipwarden.dev",
        "clientConfig": { "url": format!("https://{webhook}/inject"), "caBundle": bundle },
        "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "distrusting" } },
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
        "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore", "timeoutSeconds": 5,
    });
    let (version, kind) = ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
    let metadata = json!({ "name": "of-old" });
    apply(cluster, json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "webhooks": [hook] }));
    // A configuration is obeyed a moment after it is there, so pods come one after the other until enough were asked about.
    let mut number = 0;
    eventually("handshakes that fail", SCRAPED, || {
        number += 1;
        apply(cluster, pod("distrusting", &format!("pod-{number}")));
        (number >= 12).then_some(())
    });
}

/// A sidecar that sees no call, and tells the operator what it obeys.
struct Sidecar {
    status: SocketAddr,
    _process: Process,
}

impl Sidecar {
    fn start(status: SocketAddr) -> Sidecar {
        let process = Process::start("sidecar", &binary(), |command, _| {
            command.args(["run", "--listen", "udp:127.0.0.1:0", "--app-listen", "udp:127.0.0.1:0"]);
            command.args(["--app", "udp:127.0.0.1:9", "--admin", "127.0.0.1:0", "--status", &status.to_string()]);
        });
        Sidecar { status, _process: process }
    }
}
