//! Pods that do not answer, rights that are missing, servers that are not there.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    calls::{session, sidecar},
    fake::{Fake, Sidecar, World},
};

const PODS: &str = "/api/v1/namespaces/voice/pods";
const CONFIGS: &str = "/apis/sipwarden.dev/v1alpha1/namespaces/voice/sidecarconfigs";

#[tokio::test]
async fn pods_that_do_not_answer_are_told_and_hold_back_nobody() {
    let world = World::default()
        .with("pbx-0", sidecar(vec![session("0-7", "a@192.0.2.1")]))
        .with("pbx-1", Sidecar::Silent)
        .with("pbx-2", Sidecar::Refused)
        .with("pbx-3", Sidecar::Garbage)
        .with("pbx-4", sidecar(vec![session("0-9", "b@192.0.2.1")]));
    let fake = world.serve().await;

    let asked = Instant::now();
    let ran = fake.run(&["sessions", "--timeout", "2"]).await;

    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "the silent one has its own time only");
    ran.says(&[
        "0-7",
        "0-9",
        "2 of 2 sessions",
        "no answer from voice/pbx-1: no answer within 2 s",
        "no answer from voice/pbx-2: its port cannot be forwarded: dial tcp4 127.0.0.1:8642: connect: connection refused",
        "no answer from voice/pbx-3: the connection ended",
    ]);

    let ran = fake.run(&["sessions", "--timeout", "2", "-o", "json"]).await;
    assert_eq!(ran.code, 4);
    let answer = ran.json();
    assert_eq!((answer["sessions"].as_array().unwrap().len(), answer["silent"].as_array().unwrap().len()), (2, 3));
    assert_eq!(answer["silent"][0]["pod"], "pbx-1");
}

#[tokio::test]
async fn more_pods_than_may_be_asked_at_once_are_all_asked() {
    let mut world = World::default();
    for index in 0..20 {
        world = world.with(&format!("pbx-{index}"), sidecar(vec![session("0-1", &format!("call-{index}"))]));
    }
    let ran = world.serve().await.run(&["sessions", "--parallel", "3", "-o", "json"]).await;
    assert_eq!((ran.code, ran.json()["total"].clone()), (0, json!(20)));
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let mut world = World::default().with("pbx-0", Sidecar::Forbidden);
    let ran = world.clone().serve().await.run(&["sessions"]).await;
    assert_eq!(ran.code, 4);
    ran.says(&["no right to forward a port to the pod (create pods/portforward)"]);

    world.forbidden.push(PODS.to_owned());
    let ran = world.serve().await.run(&["sessions"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("cannot list pods in namespace voice"), "{ran:?}");
    assert!(ran.err.contains("User \"eve\" cannot read it"), "the API server's own words: {ran:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_3() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let ran = Fake::of(address).run(&["sessions"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("cannot list pods") && ran.err.contains("refused"), "{ran:?}");
}

#[tokio::test]
async fn where_there_is_no_sidecar_it_is_said_what_tells_why() {
    let mut world = World::default();
    world.objects.insert(PODS.to_owned(), json!({ "metadata": {}, "items": [] }));
    let ran = world.serve().await.run(&["sessions"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("`kubectl sipwarden status` tells why"), "{ran:?}");
}

#[tokio::test]
async fn status_without_the_right_to_read_namespaces_says_so() {
    let mut world = World::default().with("pbx-0", Sidecar::Refused);
    world.objects.insert(CONFIGS.to_owned(), json!({ "metadata": {}, "items": [] }));
    world.forbidden.push("/api/v1/namespaces/voice".to_owned());
    let ran = world.serve().await.run(&["status"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.says(&["statefulset/pbx", "namespaces cannot be read", "no policy selects it; its sidecars observe"]);
}

#[tokio::test]
async fn check_takes_nobody_for_out_of_step_whom_the_user_may_not_ask() {
    let mut world = World::default().with("pbx-0", Sidecar::Forbidden).with_version();
    world.objects.insert(CONFIGS.to_owned(), json!({ "metadata": {}, "items": [] }));
    let ran = world.serve().await.run(&["check"]).await;
    ran.says(&["unknown  sidecars: no answer from voice/pbx-0: no right", "ok       in-step: "]);
}
