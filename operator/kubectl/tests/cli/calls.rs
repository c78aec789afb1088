//! Calls, as sidecars tell them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::fake::{Sidecar, World};

type Fields = Query<std::collections::HashMap<String, String>>;

/// A session as sidecars show it.
pub(crate) fn session(id: &str, call_id: &str) -> Value {
    json!({
        "id": id, "call_id": call_id, "direction": "Inbound", "state": "Active", "ended": null, "mode": "Enforce",
        "policy": "carrier", "rule": null, "interval_s": 1800, "refresher": "Remote", "deadline_in_s": 1000.0,
        "expires_in_s": 968.0, "next": { "step": "Expire", "in_s": 968.0 }, "acting": null, "age_s": 800.0,
        "legs": { "local": { "party": "sip:…@pbx", "flow": "127.0.0.1:5060", "transport": "udp" },
                  "remote": { "party": "sip:…@phones", "flow": "192.0.2.7:5060", "transport": "udp" } },
        "events": [],
    })
}

/// A decision as sidecars tell it.
fn decision(seq: u64, call_id: &str, kind: &str, session: Option<&str>) -> Value {
    json!({
        "seq": seq, "at": format!("2026-01-01T00:00:{seq:02}.000Z"), "session": session, "call_id": call_id,
        "policy": "carrier", "rule": null, "mode": "Enforce", "observed": false, "direction": "Inbound",
        "peer": "192.0.2.7:5060", "kind": kind, "text": format!("It was {kind}."), "rfc": "RFC 4028 §9",
        "field": "spec.timers.minSE",
    })
}

/// One that knows these sessions, in pages of at most 1,000, and nothing else.
pub(crate) fn sidecar(sessions: Vec<Value>) -> Sidecar {
    let page = move |Query(fields): Fields| async move {
        let number = |name: &str| fields.get(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or_default();
        let holds = |session: &&Value| {
            fields.get("call_id").is_none_or(|part| session["call_id"].as_str().unwrap_or_default().contains(part))
        };
        let fit: Vec<&Value> = sessions.iter().filter(holds).collect();
        let limit = if fields.contains_key("limit") { number("limit").min(1000) } else { 100 };
        let page: Vec<&&Value> = fit.iter().skip(number("offset")).take(limit).collect();
        Json(json!({ "sessions": page, "total": fit.len(), "active": fit.len() }))
    };
    Sidecar::Answers(Router::new().route("/sessions", get(page)))
}

/// One that decided these things, and knows this session.
fn deciding(decisions: Vec<Value>, known: Option<Value>) -> Router {
    let sessions = known.clone();
    let page = move |Query(fields): Fields| async move {
        let fits = |field: &str, decision: &Value| {
            fields.get(field).is_none_or(|wanted| decision[field].as_str().is_some_and(|text| text.contains(wanted)))
        };
        let limit = fields.get("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
        let since: u64 = fields.get("since").and_then(|text| text.parse().ok()).unwrap_or_default();
        let is_new = |decision: &Value| decision["seq"].as_u64() > Some(since);
        let fit: Vec<&Value> =
            decisions.iter().filter(|it| is_new(it) && fits("call_id", it) && fits("session", it)).collect();
        let newest: Vec<&Value> = fit.iter().skip(fit.len().saturating_sub(limit)).copied().collect();
        Json(json!({ "decisions": newest, "next": null, "oldest": 1, "held": fit.len(), "lost": 0 }))
    };
    let one = move |Path(id): Path<String>| async move {
        match known.filter(|session| session["id"] == id) {
            Some(session) => Json(session).into_response(),
            None => (StatusCode::NOT_FOUND, "no such session\n").into_response(),
        }
    };
    let list = move |Query(fields): Fields| async move {
        let asked = fields.get("call_id").cloned().unwrap_or_default();
        let fit: Vec<Value> = sessions.into_iter().filter(|session| session["call_id"] == asked).collect();
        Json(json!({ "total": fit.len(), "active": fit.len(), "sessions": fit }))
    };
    let messages = |Query(fields): Fields| async move {
        let message = json!({ "at": "2026-01-01T00:00:01.000Z", "from": "Remote", "to": null, "cseq": "1 INVITE",
            "start": format!("INVITE sip:{} SIP/2.0", fields["call_id"]), "outcome": "Answered", "status": 422, "changes": [] });
        Json(json!({ "messages": [message], "lost": false }))
    };
    let of_session = |Path(id): Path<String>| async move {
        let message = json!({ "at": "2026-01-01T00:00:01.000Z", "from": "Remote", "to": "Local", "cseq": "1 INVITE",
            "start": format!("INVITE of {id}"), "outcome": "Forwarded", "status": null, "changes": [] });
        Json(json!({ "messages": [message], "lost": false }))
    };
    Router::new()
        .route("/decisions", get(page))
        .route("/sessions", get(list))
        .route("/sessions/{id}", get(one))
        .route("/messages", get(messages))
        .route("/sessions/{id}/messages", get(of_session))
}

#[tokio::test]
async fn sessions_of_all_pods_are_one_list_and_pages_are_put_together() {
    let many = (0..2500).map(|id| session(&format!("0-{id}"), &format!("call-{id}"))).collect();
    let world = World::default().with("pbx-0", sidecar(many)).with("pbx-1", sidecar(vec![session("0-1", "x")]));
    let fake = world.serve().await;

    let ran = fake.run(&["sessions", "--limit", "2200", "-o", "json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let answer = ran.json();
    let sessions = answer["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &answer["total"]), (2201, &json!(2501)));
    let ids: std::collections::HashSet<&str> =
        sessions.iter().filter(|it| it["pod"] == "pbx-0").map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2200, "none twice");

    let ran = fake.run(&["sessions", "pbx-1"]).await;
    ran.says(&["Expire in 16m8s", "1 of 1 sessions, 1 active"]);
    assert!(!ran.out.contains('\x1b'), "no colours in a pipe");
    let yaml = fake.run(&["sessions", "statefulset/pbx", "--call-id", "x", "-o", "yaml"]).await;
    yaml.says(&["call_id: x"]);
}

#[tokio::test]
async fn a_call_that_was_refused_is_explained_by_its_call_id() {
    let refused = vec![decision(1, "a@192.0.2.7", "Rejected", None), decision(2, "other", "Rejected", None)];
    let world = World::default()
        .with("pbx-0", Sidecar::Answers(deciding(refused, None)))
        .with("pbx-1", Sidecar::Answers(deciding(vec![], None)));
    let fake = world.serve().await;

    let ran = fake.run(&["explain", "a@192.0.2.7", "--messages"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.says(&[
        "voice/pbx-0: call a@192.0.2.7",
        "no session",
        "It was Rejected.",
        "RFC 4028 §9 · spec.timers.minSE of policy carrier",
        "INVITE sip:a@192.0.2.7 SIP/2.0  [Answered 422]",
    ]);
    assert!(!ran.out.contains("other") && !ran.out.contains("pbx-1"), "{ran:?}");

    let ran = fake.run(&["explain", "nobody"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("none of 2 sidecars knows a session or Call-ID nobody"), "{ran:?}");
}

#[tokio::test]
async fn a_session_is_explained_with_what_happened_before_it_was_one() {
    let call = "a@192.0.2.7";
    let past = vec![
        decision(1, call, "Rejected", None),
        decision(2, call, "Established", Some("0-7")),
        decision(3, "other", "Established", Some("0-8")),
    ];
    let router = deciding(past, Some(session("0-7", call)));
    let fake = World::default().with("pbx-0", Sidecar::Answers(router)).serve().await;

    for subject in ["0-7", "pbx-0/0-7", "voice/pbx-0/0-7", call] {
        let ran = fake.run(&["explain", subject, "-o", "json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let calls = ran.json();
        let kinds: Vec<&str> = calls["calls"][0]["story"]["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|decision| decision["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["Rejected", "Established"], "{subject}");
        assert_eq!(calls["calls"][0]["story"]["sessions"][0]["id"], "0-7");
    }
    assert_eq!(fake.run(&["explain", "pbx-1/0-7"]).await.code, 1, "another pod was meant");
}

#[tokio::test]
async fn a_stream_that_breaks_is_taken_up_where_it_stopped_and_at_the_start_of_a_new_process() {
    // Each stream tells two decisions and breaks; two more are made before the next one begins. After the second stream
    // the sidecar is started again, and has made two.
    let newest = Arc::new(AtomicU64::new(4));
    let known = newest.clone();
    let page = move |Query(fields): Fields| async move {
        let newest = known.load(Ordering::SeqCst);
        let since = fields.get("since").map_or(newest - 1, |text| text.parse().unwrap());
        let decisions: Vec<Value> = (since + 1..=newest).map(|seq| decision(seq, "a", "Rejected", None)).collect();
        Json(json!({ "decisions": decisions, "lost": 0 }))
    };
    let streams = Arc::new(AtomicU64::new(0));
    let stream = move |Query(fields): Fields| async move {
        assert_eq!((fields["kind"].as_str(), fields.len()), ("Rejected", 1), "the sidecar filters, and begins now");
        let before = newest.load(Ordering::SeqCst);
        let restarts = streams.fetch_add(1, Ordering::SeqCst) == 1;
        newest.store(if restarts { 2 } else { before + 4 }, Ordering::SeqCst);
        let line = |seq| format!("{}\n", decision(seq, "a", "Rejected", None));
        let (first, second) = if restarts { (1, 2) } else { (before + 1, before + 2) };
        Body::from(format!("{{\"lost\":0}}\n{}{}{}\n", line(first), line(second), json!({ "lost": 3 })))
    };
    let router = Router::new().route("/decisions", get(page)).route("/decisions/stream", get(stream));
    let fake = World::default().with("pbx-0", Sidecar::Answers(router)).serve().await;

    let ran = fake.run(&["tap", "--kind", "Rejected", "--count", "8", "-o", "json"]).await;

    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seqs: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert_eq!(seqs, [5, 6, 1, 2, 3, 4, 5, 6], "each once");
    assert_eq!(lines[0]["pod"], "pbx-0");
    let lost: Vec<&Value> = lines.iter().filter_map(|line| line.get("lost")).collect();
    assert!(!lost.is_empty() && lost.iter().all(|lost| **lost == 3), "{lines:?}");
}

#[tokio::test]
async fn tap_begins_with_the_past_if_asked_and_says_whom_it_does_not_hear() {
    let router = deciding((1..=4).map(|seq| decision(seq, "a", "Rejected", None)).collect(), None);
    let stream = || async { Body::from("") };
    let world = World::default()
        .with("pbx-0", Sidecar::Answers(router.route("/decisions/stream", get(stream))))
        .with("pbx-1", Sidecar::Refused);
    let ran = world.serve().await.run(&["tap", "--last", "3", "--for", "3"]).await;
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(ran.out.matches("It was Rejected.").count(), 3, "{ran:?}");
    ran.says(&["voice/pbx-1: its port cannot be forwarded"]);
}

#[tokio::test]
async fn what_a_policy_would_change_is_asked_of_the_pods_it_would_be_in_force_for() {
    let judging = |now: u64, then: u64| {
        let judge = move |Json(config): Json<Value>| async move {
            assert_eq!(config["timers"]["minSE"], "5m", "it is the compiled config");
            let example = json!({ "at": "2026-01-01T00:00:01Z", "call_id": "a", "peer": "192.0.2.7:5060", "now": [],
                "then": [{ "kind": "Rejected", "text": "422 to the remote side.", "policy": "carrier", "field": "spec.timers.minSE" }] });
            Json(json!({ "judged": 10, "since": "2026-01-01T00:00:00Z", "changed": then - now, "truncated": false,
                "by_kind": [{ "kind": "Rejected", "now": now, "then": then }], "examples": [example] }))
        };
        Sidecar::Answers(Router::new().route("/what-if", post(judge)))
    };
    let world = World::default().with("pbx-0", judging(1, 4)).with("pbx-1", judging(0, 2));
    let fake = world.serve().await;
    let policy = |selector: &str| {
        format!(
            "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {{name: carrier}}\nspec:\n  podSelector: \
             {{matchLabels: {{app: {selector}}}}}\n  timers: {{minSE: 5m}}\n"
        )
    };
    fake.file("policy.yaml", &policy("pbx"));
    fake.file("none.yaml", &policy("sbc"));
    fake.file("bad.yaml", &policy("pbx").replace("5m", "5"));

    let ran = fake.run(&["diff", "policy.yaml"]).await;
    assert_eq!(ran.code, 1, "something would change: {ran:?}");
    ran.says(&[
        "2 sidecars: of 20 requests since 2026-01-01T00:00:00Z, 5 would be decided otherwise",
        "Rejected   1     6      +5",
        "now   passed as it came",
        "then  422 to the remote side.  (spec.timers.minSE of policy carrier)",
        "it is taken to be the one in force",
    ]);
    let ran = fake.run(&["diff", "policy.yaml", "-o", "json"]).await;
    assert_eq!(ran.json()["sums"]["byKind"][0]["then"], 6, "{ran:?}");

    let ran = fake.run(&["diff", "none.yaml"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("would be in force for no pod in namespace voice"), "{ran:?}");
    let ran = fake.run(&["diff", "bad.yaml"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("bad.yaml: line 6, spec.timers.minSE"), "{ran:?}");
}
