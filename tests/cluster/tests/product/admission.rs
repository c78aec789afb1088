//! The webhook while things happen to it: no pod comes out of admission without sidecar.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sipwarden_cluster::Component;
use sipwarden_cluster::http::post_json;
use sipwarden_cluster::product::{App, NAMESPACE, Site};

use crate::{PATIENCE, SOON, alone, cluster, least, site};

const SECRET: &str = "sipwarden-ca-default";

/// What restricted admits.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "load-", "labels": { "app": "load" } },
        "spec": {
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "app", "image": "localhost/busybox:dev", "imagePullPolicy": "Never",
                "ports": [{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

/// Creates pods while `change` is going on, all the way through admission but not into the store; gives how many, and
/// what was wrong with the first that was not as it should be.
fn load_while(site: &Site, change: impl FnOnce()) -> (u32, Option<String>) {
    let proxy = site.cluster.serve(&["proxy", "--port=0"]).expect("kubectl serves a port");
    let (ended, created) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = || {
        while !ended.load(Ordering::Relaxed) {
            let fault = fault_of_one(proxy.address, site.namespace);
            created.fetch_add(1, Ordering::Relaxed);
            if fault.is_some() {
                return fault;
            }
        }
        None
    };
    let fault = thread::scope(|scope| {
        let loading = scope.spawn(|| site.cluster.in_network(load).expect("the network is there"));
        change();
        // The last of it is still on its way.
        thread::sleep(Duration::from_secs(2));
        ended.store(true, Ordering::Relaxed);
        loading.join().expect("the thread does not panic")
    });
    (created.into_inner(), fault)
}

fn fault_of_one(proxy: SocketAddr, namespace: &str) -> Option<String> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let (status, body) = match post_json(proxy, &path, &pod()) {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{error:#}")),
    };
    if status != 201 {
        return Some(format!("{status}: {body}"));
    }
    let pod: Value = serde_json::from_str(&body).expect("the API server answers with JSON");
    let config = pod["metadata"]["annotations"]["sipwarden.dev/config"].as_str().unwrap_or_default();
    let is_whole = pod["spec"]["initContainers"][0]["name"] == "sipwarden" && config.contains(r#""policy":"carrier""#);
    (!is_whole).then(|| format!("without sidecar or its policy: {body}"))
}

fn certificate(site: &Site) -> String {
    let question = ["-n", NAMESPACE, "get", "secret", SECRET, "-o", r"jsonpath={.data.ca\.crt}"];
    site.cluster.kubectl(&question).expect("kubectl gets an answer")
}

/// A namespace whose pods are given `carrier`.
fn ready(namespace: &'static str) -> Site<'static> {
    let site = site(namespace);
    site.policy("carrier", &least(100)).expect("the API server takes the policy");
    site.eventually("the policy's acceptance", SOON, || {
        (site.condition("carrier", "Accepted")? == "True Accepted").then_some(())
    })
    .expect("it is there");
    site
}

#[test]
fn the_webhooks_ca_is_rotated_under_load_and_no_admission_fails() {
    let _alone = alone();
    let site = ready("rotation");
    let before = certificate(&site);

    let (created, fault) = load_while(&site, || {
        let annotate = ["-n", NAMESPACE, "annotate", "secret", SECRET, "sipwarden.dev/rotate=now", "--overwrite"];
        site.cluster.kubectl(&annotate).unwrap();
        site.eventually("another CA", PATIENCE * 3, || (certificate(&site) != before).then_some(())).unwrap();
        // Leaves of the new one are served after that.
        thread::sleep(Duration::from_secs(10));
    });

    assert_eq!(fault, None, "after {created} pods; {}", site.cluster.operator_log());
    println!("{created} pods were admitted while the CA was rotated");
}

#[test]
fn the_other_replica_takes_over_when_the_leader_dies_and_admission_goes_on() {
    let _alone = alone();
    let site = ready("leader");
    site.run(App::Idle, 1).unwrap();
    site.eventually("the policy in the sidecar", SOON, || site.all_obey("carrier")).unwrap();
    let leader = cluster().leader().expect("a leader");

    // With its kubelet gone nobody restarts it, and it does not get to release its lease.
    cluster().kill(Component::Kubelet).unwrap();
    cluster().kill_container(NAMESPACE, &leader, "operator").unwrap();
    let died = Instant::now();
    let other = site.eventually("another leader", PATIENCE, || cluster().leader().filter(|other| *other != leader));
    println!("{} leads {:.1} s after the death of {leader}", other.unwrap(), died.elapsed().as_secs_f64());
    cluster().start(Component::Kubelet).unwrap();

    site.policy("carrier", &least(200)).unwrap();
    let service = site.service().unwrap();
    let judged = || {
        let answer = site.cluster.invite(service, 90).ok()?;
        (answer.header("Min-SE") == Some("200")).then_some(())
    };
    site.eventually("a change made after it", PATIENCE, judged).unwrap();
    let restarted = || {
        let pod = ["-n", NAMESPACE, "get", "pod", &leader, "-o"];
        let status = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        cluster().kubectl(&[&pod[..], &[status]].concat()).is_ok_and(|status| status == "1 true").then_some(())
    };
    site.eventually("the dead one to be back as the other", PATIENCE, restarted).unwrap();
    assert_ne!(cluster().leader(), Some(leader));
    let (created, fault) = load_while(&site, || {});
    assert_eq!(fault, None, "after {created} pods; {}", site.cluster.operator_log());
}
