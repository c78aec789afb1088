//! The two commands that leave something: a pod for some seconds, an archive.

use std::io::Read;

use axum::{Router, routing::get};
use serde_json::json;

use crate::fake::{Fake, Sidecar, World};

const SERVICE: &str = "/api/v1/namespaces/voice/services/pbx";
const PODS: &str = "/api/v1/namespaces/voice/pods";

/// A Service in front of a pod with a sidecar, and a calling pod that is in this phase.
fn callable(phase: &str) -> World {
    let mut world = World::default().with("pbx-0", Sidecar::Refused);
    let service = json!({
        "metadata": { "name": "pbx", "namespace": "voice" },
        "spec": { "clusterIP": "10.96.0.7", "selector": { "app": "pbx" }, "ports": [{ "port": 5060, "protocol": "UDP" }] },
    });
    world.objects.insert(SERVICE.to_owned(), service);
    world.caller =
        Some(json!({ "metadata": { "name": "caller", "namespace": "voice" }, "status": { "phase": phase } }));
    world
}

#[tokio::test]
async fn a_call_is_placed_by_a_pod_that_is_deleted_whatever_comes_of_it() {
    for (phase, log, code, told) in [
        ("Succeeded", r#"{"verdict":"Passed","text":"the call works","steps":[]}"#, 0, "Passed: the call works"),
        (
            "Failed",
            r#"{"verdict":"NoTimer","text":"nobody keeps a timer","steps":[]}"#,
            1,
            "NoTimer: nobody keeps a timer",
        ),
        ("Failed", "exec /sipwarden-sidecar: no such file", 1, "the caller said something else than a report"),
        ("Pending", "", 1, "the calling pod did not end within 1 s: Pending"),
    ] {
        let mut world = callable(phase);
        world.log = log.to_owned();
        let written = world.clone();
        let ran = world.serve().await.run(&["call-test", "pbx", "--yes", "--timeout", "1"]).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.out.contains(told) || ran.err.contains(told), "{told} in {ran:?}");
        let [made, deleted] = &written.written()[..] else { panic!("{:?}", written.written()) };
        assert_eq!(made, &format!("POST {PODS}"));
        assert!(deleted.starts_with(&format!("DELETE {PODS}/sipwarden-call-test-")), "{deleted}");
    }
}

#[tokio::test]
async fn nothing_is_made_without_a_yes_or_without_a_sidecar() {
    let world = callable("Succeeded");
    let written = world.clone();
    let fake = world.serve().await;
    let ran = fake.run(&["call-test", "pbx"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("agree by --yes"), "{ran:?}");
    assert_eq!(fake.run(&["call-test", "pbx", "--yes", "--port", "rtp"]).await.code, 2);

    let mut bare = callable("Succeeded");
    bare.objects.insert(PODS.to_owned(), json!({ "metadata": {}, "items": [] }));
    let ran = bare.serve().await.run(&["call-test", "pbx", "--yes"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no pod behind the Service has a sidecar"), "{ran:?}");
    assert_eq!(written.written(), [""; 0]);
}

/// All files of the archive as one text, and their names.
fn unpacked(fake: &Fake, file: &str) -> (String, Vec<String>) {
    let archive = std::fs::File::open(fake.folder().join(file)).expect("it is there");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let (mut text, mut names) = (String::new(), Vec::new());
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("a file");
        let name = entry.path().expect("a name").display().to_string();
        names.push(name.split_once('/').expect("a folder").1.to_owned());
        entry.read_to_string(&mut text).expect("text");
    }
    (text, names)
}

#[tokio::test]
async fn a_report_has_what_helps_and_nothing_secret() {
    const SECRET: &str = "hunter2";
    let sidecar = Router::new()
        .route("/status", get(|| async { r#"{"policy":"carrier","sessions":1}"# }))
        .route("/config", get(|| async { "{}" }))
        .route("/metrics", get(|| async { "sipwarden_sessions_active 1\n" }))
        .route("/history", get(|| async { "{}" }))
        .route("/sessions", get(|| async { r#"{"sessions":[{"id":"0-7","party":"<sip:hunter2@phones.example>"}]}"# }))
        .route("/decisions", get(|| async { r#"{"decisions":[{"kind":"Rejected"}]}"# }));
    let mut world = World::default().with("pbx-0", Sidecar::Answers(sidecar)).with("pbx-1", Sidecar::Refused);
    let pod = &mut world.objects.get_mut(PODS).unwrap()["items"][0];
    pod["spec"]["containers"][0]["env"] = json!([{ "name": "PASSWORD", "value": SECRET }]);
    pod["metadata"]["annotations"]["vendor.example/token"] = json!(SECRET);
    let events = "/apis/events.k8s.io/v1/namespaces/voice/events";
    world.add(events, json!({ "reportingController": "kubelet", "note": SECRET }));
    world.add(events, json!({ "reportingController": "sipwarden.dev/operator", "reason": "InjectionSkipped" }));
    let policies = "/apis/sipwarden.dev/v1alpha1/namespaces/voice/sessionpolicies";
    world.add(
        policies,
        json!({ "metadata": { "name": "carrier", "managedFields": [{ "manager": SECRET }] }, "spec": { "mode": "Enforce" } }),
    );
    let fake = world.with_version().serve().await;

    let ran = fake.run(&["report", "--file", "out.tar.gz"]).await;

    assert_eq!(ran.code, 4, "some could not be had: {ran:?}");
    ran.says(&["voice/pbx-1", "clustersessionpolicies: "]);
    let (text, names) = unpacked(&fake, "out.tar.gz");
    for name in [
        "report.json",
        "check.json",
        "objects/pods.json",
        "objects/events.json",
        "sidecars/voice/pbx-0/decisions.json",
        "sidecars/voice/pbx-0/metrics.txt",
    ] {
        assert!(names.iter().any(|there| there == name), "{name} in {names:?}");
    }
    for part in
        ["InjectionSkipped", "\"Enforce\"", "sip:…@phones.example", "\"Rejected\"", "sipwarden_sessions_active 1"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains(SECRET), "{text}");

    let again = fake.run(&["report", "--file", "out.tar.gz"]).await;
    assert_eq!(again.code, 2, "a file that is there is not written over");
}
