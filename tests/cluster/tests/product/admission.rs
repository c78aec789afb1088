//! The webhook while things happen to it: no pod comes out of admission without sidecar.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use sipwarden_cluster::Component;
use sipwarden_cluster::http::post_json;
use sipwarden_cluster::product::{App, NAMESPACE, Site};

use crate::{PATIENCE, alone, cluster, least, site};

const SECRET: &str = "sipwarden-ca-default";
const CA_EXPIRY: &str = "sipwarden_operator_webhook_ca_expiry_timestamp_seconds ";

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

/// So many pods show that admission goes on.
const PODS: u32 = 100;

/// Creates pods all the time, all the way through admission but not into the store, until it is dropped.
struct Load {
    created: AtomicU32,
    fault: OnceLock<String>,
    is_over: AtomicBool,
}

impl Load {
    fn create(&self, site: &Site, proxy: SocketAddr) {
        while !self.is_over.load(Ordering::Relaxed) && self.fault.get().is_none() {
            match fault_of_one(proxy, site.namespace) {
                Some(fault) => self.fault.set(fault).expect("the loop ends with the first"),
                None => drop(self.created.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Waits until some more are through.
    fn goes_on(&self, site: &Site) {
        let before = self.created.load(Ordering::Relaxed);
        let more = || self.created.load(Ordering::Relaxed) >= before + PODS || self.fault.get().is_some();
        site.eventually("pods to be admitted", PATIENCE, || more().then_some(())).expect("it comes true in time");
    }
}

/// Creates pods while `change` is going on, before and after it; gives how many, and what was wrong with the first that
/// was not as it should be.
fn load_while(site: &Site, change: impl FnOnce()) -> (u32, Option<String>) {
    let proxy = site.cluster.serve(&["proxy", "--port=0"]).expect("kubectl serves a port");
    let load = Load { created: AtomicU32::new(0), fault: OnceLock::new(), is_over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let creating = scope.spawn(|| site.cluster.in_network(|| load.create(site, proxy.address)));
        let _over = OnDrop(|| load.is_over.store(true, Ordering::Relaxed));
        load.goes_on(site);
        change();
        load.goes_on(site);
        load.is_over.store(true, Ordering::Relaxed);
        creating.join().expect("the thread does not panic").expect("the network is there");
    });
    (load.created.into_inner(), load.fault.into_inner())
}

/// A test that fails must not wait for its threads for ever.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
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

/// When the CA expires whose leaf each replica serves with.
fn ca_expiries() -> Option<Vec<String>> {
    let addresses = cluster().operators().ok()?;
    let expiry = |address: &SocketAddr| {
        let metrics = cluster().get_text(*address, "/metrics").ok()?;
        metrics.lines().find_map(|line| line.strip_prefix(CA_EXPIRY)).map(str::to_owned)
    };
    addresses.iter().map(expiry).collect()
}

/// A namespace whose pods are given `carrier`.
fn ready(namespace: &'static str) -> Site<'static> {
    let site = site(namespace);
    site.policy("carrier", &least(100)).expect("the API server takes the policy");
    site.becomes("carrier", "Accepted", "True Accepted").expect("it is there");
    site
}

#[test]
fn the_webhooks_ca_is_rotated_under_load_and_no_admission_fails() {
    let _alone = alone();
    let site = ready("rotation");
    let before = ca_expiries().expect("every replica tells it");

    let (created, fault) = load_while(&site, || {
        let annotate = ["-n", NAMESPACE, "annotate", "secret", SECRET, "sipwarden.dev/rotate=now", "--overwrite"];
        site.cluster.kubectl(&annotate).unwrap();
        // It signs when it was trusted for a minute; each replica looks for it every half of one.
        let rotated = || ca_expiries()?.iter().all(|expiry| !before.contains(expiry)).then_some(());
        site.eventually("leaves of another CA", PATIENCE * 4, rotated).unwrap();
    });

    assert_eq!(fault, None, "after {created} pods; {}", site.cluster.operator_log());
    println!("{created} pods were admitted while the CA was rotated");
}

#[test]
fn the_other_replica_takes_over_when_the_leader_dies_and_admission_goes_on() {
    let _alone = alone();
    let site = site("leader");
    site.run_under(&least(100), App::Idle, 1).unwrap();
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
    site.eventually("a change made after it", PATIENCE, || site.refuses_below(200, service)).unwrap();
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
