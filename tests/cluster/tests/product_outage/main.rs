//! sipwarden on a real node while its operator, and then the API server, are gone. Installed with both injectors, so that
//! new pods need neither the webhook nor the operator.
//!
//! One story in steps: each outage begins in the one before, and recovery ends them all.

use std::time::Instant;

use serde_json::{Value, json};
use sipwarden_cluster::product::{App, NAMESPACE, Pod, Site, least, too_long};
use sipwarden_cluster::wait::{PATIENCE, SOON, eventually};
use sipwarden_cluster::{Call, Cluster, Component, images};

const OPERATOR: &str = "deployment/sipwarden-operator";

fn installed() -> Cluster {
    let cluster = Cluster::node().expect("a node starts");
    for image in [images::busybox(), images::sipp()] {
        cluster.import(&image.expect("its programs are installed")).expect("containerd takes an OCI archive");
    }
    cluster.install_sipwarden(&["injector=both"]).expect("the charts install");
    cluster
}

fn scale_operator(cluster: &Cluster, replicas: u32) {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["-n", NAMESPACE, "scale", OPERATOR, &replicas]).expect("kubectl gets an answer");
}

#[test]
fn calls_injection_and_policies_outlive_the_operator_and_the_api_server() {
    let cluster = installed();
    let voice = Site::create(&cluster, "voice").unwrap();
    let other = Site::create(&cluster, "other").unwrap();
    for site in [&voice, &other] {
        site.run_under(&least(100), App::Sip, 1).unwrap();
    }
    let mut call = voice.call(1800).unwrap();

    without_operator(&cluster, &voice, &other, &mut call);
    without_api_server(&cluster, &voice, &mut call);
    recovered(&cluster, &voice, &other);

    call.check().unwrap();
    call.hang_up().unwrap();
}

/// Calls go on, and new pods come up with sidecar and policy, those of a new workload too. Changes are made that nobody takes up.
fn without_operator(cluster: &Cluster, voice: &Site, other: &Site, call: &mut Call) {
    scale_operator(cluster, 0);
    let pods = ["-n", NAMESPACE, "get", "pods", "-o", "name"];
    let gone = || cluster.kubectl(&pods).is_ok_and(|names| names.is_empty()).then_some(());
    voice.eventually("the operator's end", PATIENCE, gone).expect("it comes true in time");

    call.check().expect("the call is up");
    voice.call(1800).and_then(Call::hang_up).expect("another call is up and ends");
    let started = Instant::now();
    voice.kubectl(&["scale", "deployment/app", "--replicas=3"]).expect("kubectl gets an answer");
    voice.rolled_out().expect("the pods run");
    println!("two more pods without the operator after {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(voice.sidecars().expect("there are pods"), ["sipwarden"; 3], "{}", voice.look());
    voice
        .eventually("the policy in the new sidecars", SOON, || voice.all_obey("carrier"))
        .expect("it comes true in time");
    for pod in voice.pods().expect("there are pods") {
        voice
            .eventually("the policy in calls", SOON, || voice.refuses_below(100, pod.sip_address()))
            .expect("it comes true in time");
    }

    // Nobody has heard of this workload: what its pods get is their policy's config.
    voice.run_as("late", App::Idle, 1).expect("the pods run");
    let late = &voice.pods_of("late").expect("there are pods")[0];
    let obeys = || voice.status(late).ok().filter(|status| status["policy"] == "carrier" && status["source"] == "File");
    voice.eventually("the policy in a new workload", SOON, obeys).expect("it comes true in time");
    voice
        .eventually("the policy in its calls", SOON, || voice.refuses_below(100, late.sip_address()))
        .expect("it comes true in time");

    lose_config(voice, &voice.pods().expect("there are pods")[0]);
    voice.policy("carrier", &least(200)).expect("the API server takes the policy");
    other.policy("carrier", &too_long()).expect("the API server takes the policy");
}

/// Takes the config out of a pod's file, which no operator puts back. Its sidecar goes on with what it had.
fn lose_config(site: &Site, pod: &Pod) {
    site.kubectl(&["annotate", "pod", &pod.name, "sipwarden.dev/config-"]).expect("the API server obeys");
    let noticed = || site.status(pod).ok().filter(|status| status["source"] == "LastGood");
    let status = site.eventually("the loss to be noticed", PATIENCE, noticed).expect("it comes true in time");
    assert_eq!(status["policy"], "carrier", "{status}");
}

/// Calls go on, and sidecars that die are back with their policy, one of them without its file. What they knew of calls is
/// gone, their routes are not.
fn without_api_server(cluster: &Cluster, voice: &Site, call: &mut Call) {
    let pods = voice.pods().expect("there are pods");
    let service = voice.service().expect("there is a Service");
    cluster.kill(Component::ApiServer).expect("it runs");

    call.check().expect("the call is up");
    cluster.call(service, 1800).expect("the call is accepted").hang_up().expect("the call is up");
    for (pod, source) in pods.iter().zip(["LastGood", "File"]) {
        let before = voice.status(pod).expect("the sidecar answers");
        assert_eq!(before["source"], source, "{before}");
        cluster.kill_container("voice", &pod.name, "sipwarden").expect("it runs");
        let killed = Instant::now();
        // A younger policy is a new process's. Nothing of the API server's can be looked at now.
        let is_new = |status: &Value| status["ageS"].as_f64() < before["ageS"].as_f64();
        let back = || voice.status(pod).ok().filter(|status| status["hash"] == before["hash"] && is_new(status));
        let status = eventually("the killed sidecar with its policy", PATIENCE, back).expect("it comes true in time");
        println!("a killed sidecar is back {:.1} s after its death: {status}", killed.elapsed().as_secs_f64());
        assert_eq!(status["source"], source, "{status}");
        eventually("its judgement of calls", SOON, || voice.refuses_below(100, pod.sip_address()))
            .expect("it comes true in time");
    }
    call.check().expect("the call is up");
}

/// What was changed meanwhile arrives, and what is told is true again, without anybody's help.
fn recovered(cluster: &Cluster, voice: &Site, other: &Site) {
    cluster.start(Component::ApiServer).expect("the component starts");
    scale_operator(cluster, 2);
    let started = Instant::now();
    for pod in voice.pods().expect("there are pods") {
        voice
            .eventually("the change made meanwhile", PATIENCE, || voice.refuses_below(200, pod.sip_address()))
            .expect("it comes true in time");
    }
    voice.eventually("every sidecar's file", SOON, || voice.all_obey("carrier")).expect("it comes true in time");
    println!("changes made meanwhile obeyed {:.1} s after recovery", started.elapsed().as_secs_f64());
    voice
        .eventually("a true status", PATIENCE, || {
            let counts = &voice.get("sessionpolicy", "carrier").ok()?["status"]["pods"];
            let is_ready = voice.condition("carrier", "Ready")? == "True Ready";
            (is_ready && counts["inStep"] == 4 && counts["matched"] == 4).then_some(())
        })
        .expect("it is there");

    other.becomes("carrier", "Accepted", "False Invalid").expect("it comes true in time");
    let pod = &other.pods().expect("there are pods")[0];
    assert!(
        other.refuses_below(100, pod.sip_address()).is_some(),
        "the last good policy is in force; {}",
        other.look()
    );
    other
        .policy("carrier", &json!({ "rules": [], "timers": { "minSE": "300s" } }))
        .expect("the API server takes the policy");
    other
        .eventually("the next valid one", SOON, || other.refuses_below(300, pod.sip_address()))
        .expect("it comes true in time");
}
