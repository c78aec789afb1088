//! The API server alone: it is there, it is the real one, and it goes with its owner.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sipwarden_cluster::wait::eventually;
use sipwarden_cluster::{Cluster, Component};

/// Set for the process that a test starts to be killed.
const VICTIM: &str = "SIPWARDEN_CLUSTER_VICTIM";

#[test]
fn a_namespace_is_created_and_listed_and_the_cluster_leaves_nothing() {
    let started = Instant::now();
    let cluster = Cluster::api_only().unwrap();
    println!("ready after {:.1} s", started.elapsed().as_secs_f64());

    cluster.kubectl(&["create", "namespace", "voice"]).unwrap();

    let names = cluster.kubectl(&["get", "namespaces", "-o", "name"]).unwrap();
    assert!(names.lines().any(|name| name == "namespace/voice"), "{names}");
    let version = cluster.kubectl(&["version", "-o", "json"]).unwrap();
    assert_eq!(version.matches(r#""gitVersion": "v1.36.3""#).count(), 2, "{version}");

    let scratch = cluster.scratch().to_owned();
    drop(cluster);
    assert!(!scratch.exists());
}

#[test]
fn objects_outlive_a_crash_of_the_api_server() {
    let cluster = Cluster::api_only().unwrap();
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: voice}\n").unwrap();

    cluster.kill(Component::ApiServer).unwrap();
    let refused = cluster.kubectl(&["get", "namespaces", "--request-timeout", "2s"]).unwrap_err().to_string();
    assert!(refused.contains("logs of the cluster"), "{refused}");
    cluster.start(Component::ApiServer).unwrap();

    assert_eq!(cluster.kubectl(&["get", "namespace", "voice", "-o", "name"]).unwrap().trim(), "namespace/voice");
}

#[test]
fn a_refused_object_is_an_error_with_the_reason() {
    let cluster = Cluster::api_only().unwrap();

    let error = cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: Not_A_Name}\n").unwrap_err();

    assert!(error.to_string().contains("RFC 1123"), "{error}");
}

#[test]
fn a_cluster_ends_with_its_owner_however_that_ends() {
    if std::env::var_os(VICTIM).is_some() {
        let cluster = Cluster::api_only().unwrap();
        println!(
            "\nserver {}",
            cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).unwrap()
        );
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let me = std::env::current_exe().unwrap();
    let mut owner = Command::new(me)
        .args(["--exact", "a_cluster_ends_with_its_owner_however_that_ends", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("server https://").map(str::to_owned)).unwrap();
    assert!(TcpStream::connect(&address).is_ok());

    owner.kill().unwrap();
    owner.wait().unwrap();

    let refused = || TcpStream::connect(&address).is_err().then_some(());
    eventually("the end of the API server", Duration::from_secs(5), refused).unwrap();
}

#[test]
fn kwok_runs_pods_that_nobody_runs() {
    let cluster = Cluster::api_only().unwrap();
    cluster.start(Component::Kwok).unwrap();

    let node_and_pod = "apiVersion: v1
kind: Node
metadata: {name: fake, annotations: {kwok.x-k8s.io/node: fake}}
---
apiVersion: v1
kind: Pod
metadata: {name: sip, namespace: default}
spec:
  nodeName: fake
  initContainers: [{name: sidecar, image: none, restartPolicy: Always}]
  containers: [{name: app, image: none}]
";
    cluster.apply(node_and_pod).unwrap();

    cluster.kubectl(&["wait", "--for=condition=Ready", "node/fake", "pod/sip", "--timeout=30s"]).unwrap();
    let address = cluster.kubectl(&["get", "pod", "sip", "-o", "jsonpath={.status.podIP}"]).unwrap();
    assert!(address.parse::<IpAddr>().is_ok(), "{address}");
    cluster.kubectl(&["delete", "pod", "sip", "--timeout=10s"]).unwrap();
}

#[test]
fn waiting_is_bounded() {
    let error = eventually("never", Duration::from_millis(100), || None::<()>).unwrap_err();

    assert!(error.to_string().contains("in vain for never"), "{error}");
}
