//! What the sidecar remembers: decisions, messages with what was changed in them, and what another policy would decide.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process_harness::{Options, PATIENCE, Sidecar, eventually, header, http, receive, request};
use crate::{POLICY, phone, policy_file, set_up_call};

const OBSERVE: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: trial}
spec:
  mode: Observe
  timers: {minSE: 2m, sessionExpires: 10m}
  rules: [{name: phones, match: {direction: Inbound}, timers: {minSE: 5m}}]
";

async fn json(sidecar: &Sidecar, path: &str) -> Value {
    let (status, body) = sidecar.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn start(policy: &str, options: Options) -> (tempfile::TempDir, Sidecar) {
    let (directory, path) = policy_file(policy);
    (directory, Sidecar::start(Options { policy: Some(path), ..options }).await)
}

/// A call that asks for `interval` and gets 422.
async fn refused_call(sidecar: &Sidecar, call: &str, interval: u32) {
    let phone = phone(sidecar).await;
    let from = phone.local_addr().expect("an address");
    let lines = format!("Supported: timer\r\nSession-Expires: {interval}\r\n");
    phone.send(request("INVITE", "UDP", from, call, &lines).as_bytes()).await.expect("sent");
    let answer = receive(&phone).await;
    assert!(answer.starts_with("SIP/2.0 422 "), "{answer}");
    let to = format!("To: {}", header(&answer, "To").expect("a To"));
    let ack = request("INVITE", "UDP", from, call, "").replace("INVITE sip", "ACK sip").replace("1 INVITE", "1 ACK");
    phone.send(ack.replace("To: <sip:bob@example.com>", &to).as_bytes()).await.expect("sent");
}

fn kinds(decisions: &Value) -> Vec<&str> {
    let decisions = decisions.as_array().expect("decisions");
    decisions.iter().map(|decision| decision["kind"].as_str().expect("a kind")).collect()
}

#[tokio::test]
async fn a_decision_says_what_was_decided_about_whom_by_which_policy_and_why() {
    let (_directory, sidecar) = start(POLICY, Options::default()).await;
    refused_call(&sidecar, "r1", 60).await;

    let page = json(&sidecar, "/decisions").await;

    let mut decision = page["decisions"][0].clone();
    let at = decision["at"].take();
    let at = at.as_str().expect("text");
    assert_eq!(at.len(), "2026-11-28T05:01:24.120Z".len(), "{at}");
    let at = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339);
    let ago = time::OffsetDateTime::now_utc() - at.expect("RFC 3339");
    assert!(ago.whole_seconds() < 60, "{ago}");
    let peer = decision["peer"].take();
    assert!(peer.as_str().expect("a peer").starts_with("127.0.0.1:"), "{peer}");
    let seq = decision["seq"].take();
    let expected = json!({
        "seq": null, "at": null, "peer": null, "session": null, "call_id": "r1@example.com", "policy": "carrier",
        "rule": null, "mode": "Enforce", "observed": false, "direction": "Inbound", "kind": "Rejected",
        "side": "Remote", "asked_s": 60, "min_se_s": 90, "status": 422,
        "text": "The remote side was answered 422: it asked for 60 s, the least allowed is 90 s (Min-SE).",
        "rfc": "RFC 4028 §6, §8.1", "field": "spec.timers.minSE",
    });
    assert_eq!(decision, expected);
    let rest = json!({"next": page["next"], "oldest": page["oldest"], "held": page["held"], "lost": page["lost"]});
    assert_eq!(rest, json!({"next": null, "oldest": seq, "held": 1, "lost": 0}));
    sidecar.stop().await;
}

#[tokio::test]
async fn decisions_are_paged_and_filtered() {
    let (_directory, sidecar) = start(POLICY, Options { workers: 2, ..Options::default() }).await;
    for call in 0..5 {
        refused_call(&sidecar, &format!("p{call}"), 60).await;
    }
    let caller = phone(&sidecar).await;
    set_up_call(&sidecar, &caller, "p5", "Supported: timer\r\n").await;
    let all = json(&sidecar, "/decisions?limit=1000").await;
    let total = all["decisions"].as_array().expect("decisions").len();

    let mut paged = Vec::new();
    let mut path = "/decisions?limit=2".to_owned();
    loop {
        let page = json(&sidecar, &path).await;
        let mut some = page["decisions"].as_array().expect("decisions").clone();
        some.append(&mut paged);
        paged = some;
        let Some(next) = page["next"].as_u64() else { break };
        path = format!("/decisions?limit=2&before={next}");
    }
    assert_eq!((paged.len(), Value::Array(paged)), (total, all["decisions"].clone()), "all of them, oldest first");

    let found = async |query: &str| json(&sidecar, &format!("/decisions?{query}")).await["decisions"].clone();
    assert_eq!(kinds(&found("call_id=P3").await), ["Rejected"]);
    assert_eq!(found("kind=Rejected").await.as_array().expect("decisions").len(), 5);
    assert_eq!(kinds(&found("kind=Established,Inserted&side=Remote").await), ["Inserted"]);
    let session = json(&sidecar, "/sessions").await["sessions"][0]["id"].clone();
    let of_session = found(&format!("session={}", session.as_str().expect("an id"))).await;
    assert!(kinds(&of_session).contains(&"Established"), "{of_session}");
    let port = caller.local_addr().expect("an address").port();
    assert_eq!(found(&format!("peer=127.0.0.1:{port}&kind=Rejected")).await, json!([]));
    let last = &all["decisions"][total - 2];
    assert_eq!(found(&format!("since={}", last["seq"])).await.as_array().expect("decisions").len(), 1);
    assert!(
        !found(&format!("since={}", last["at"].as_str().expect("a time"))).await.as_array().expect("some").is_empty()
    );
    assert_eq!(found("since=2126-01-01T00:00:00Z").await, json!([]));
    for (query, told) in [("kind=Rejectd", "Rejected, "), ("side=left", "Local or Remote"), ("since=soon", "such as")] {
        let (status, text) = sidecar.get(&format!("/decisions?{query}")).await;
        assert!(status == 400 && text.contains(told), "{query}: {status} {text}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn the_messages_of_a_call_show_what_was_changed_and_why() {
    let (_directory, sidecar) = start(POLICY, Options { clock_speed: 100, ..Options::default() }).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "m1", "Supported: timer\r\n").await;
    let id = json(&sidecar, "/sessions").await["sessions"][0]["id"].as_str().expect("an id").to_owned();
    assert!(receive(&phone).await.starts_with("BYE "), "nobody refreshes it");
    let path = format!("/sessions/{id}/messages");
    eventually("the BYEs are remembered", async || {
        json(&sidecar, &path).await["messages"].as_array().is_some_and(|all| all.len() >= 4)
    })
    .await;

    let told = json(&sidecar, &path).await;

    assert_eq!(told["lost"], false);
    let messages = told["messages"].as_array().expect("messages");
    let invite = &messages[0];
    let said = |message: &Value| {
        json!([message["from"], message["to"], message["outcome"], message["status"], message["cseq"]])
    };
    assert_eq!(said(invite), json!(["Remote", "Local", "Forwarded", null, "1 INVITE"]));
    assert_eq!(invite["start"], "INVITE sip:***@127.0.0.1 SIP/2.0");
    assert_eq!(invite["headers"], json!([{"header": "Supported", "value": "timer"}]));
    assert_eq!(invite["changes"], json!([{"header": "Session-Expires", "before": null, "after": "120"}]));
    assert_eq!(kinds(&invite["decisions"]), ["Inserted"]);
    assert_eq!(invite["decisions"][0]["field"], "spec.timers.sessionExpires");
    let answer = &messages[1];
    assert_eq!(said(answer), json!(["Local", "Remote", "Forwarded", null, "1 INVITE"]));
    let added = |header: &str, after: &str| json!({"header": header, "before": null, "after": after});
    let changed = answer["changes"].as_array().expect("changes");
    assert_eq!(changed[1], added("Require", "timer"), "{changed:?}");
    assert!(changed[0]["after"].as_str().expect("a value").starts_with("120;refresher="), "{changed:?}");
    assert!(kinds(&answer["decisions"]).contains(&"Established"), "{answer}");
    for (message, side) in messages[2..4].iter().zip(["Local", "Remote"]) {
        assert!(message["start"].as_str().expect("a line").starts_with("BYE sip:"), "{message}");
        assert_eq!(json!([message["from"], message["outcome"]]), json!(["Sidecar", "Sent"]));
        let own = message["decisions"].as_array().expect("decisions").iter().find(|told| told["kind"] == "ByeSent");
        assert_eq!(own.expect("it says why")["side"], message["to"], "{side}");
        let reason = message["headers"].as_array().expect("headers").iter().find(|line| line["header"] == "Reason");
        assert!(reason.expect("a Reason")["value"].as_str().expect("text").contains("cause=408"), "{message}");
    }
    assert!(messages[2..4].iter().any(|message| kinds(&message["decisions"]).contains(&"Expired")), "{told}");
    let revealed = json(&sidecar, &format!("{path}?reveal=true")).await;
    assert_eq!(revealed["messages"][0]["start"], "INVITE sip:bob@127.0.0.1 SIP/2.0");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_that_was_refused_is_found_by_its_call_id() {
    let (_directory, sidecar) = start(POLICY, Options { workers: 2, ..Options::default() }).await;
    refused_call(&sidecar, "n1", 60).await;

    let told = json(&sidecar, "/messages?call_id=n1%40example.com").await;

    let messages = told["messages"].as_array().expect("messages");
    assert_eq!(json!([messages[0]["outcome"], messages[0]["status"]]), json!(["Answered", 422]));
    assert_eq!(kinds(&messages[0]["decisions"]), ["Rejected"]);
    assert_eq!(messages[1]["start"], "SIP/2.0 422 Session Interval Too Small");
    assert_eq!(json!([messages[1]["from"], messages[1]["to"]]), json!(["Sidecar", "Remote"]));
    assert_eq!(messages[1]["headers"], json!([{"header": "Min-SE", "value": "90"}]));
    assert_eq!(json(&sidecar, "/messages?call_id=n2%40example.com").await, json!({"messages": [], "lost": true}));
    assert_eq!(sidecar.get("/sessions/0-77/messages").await.0, 404);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_id_with_a_user_in_it_is_hidden_and_its_owner_finds_it() {
    let (_directory, sidecar) = start(POLICY, Options::default()).await;
    refused_call(&sidecar, "alice-17", 60).await;

    let (_, hidden) = sidecar.get("/decisions").await;

    assert!(!hidden.contains("alice"), "{hidden}");
    assert!(hidden.contains("\"call_id\":\"***-"), "{hidden}");
    assert_eq!(json(&sidecar, "/decisions?call_id=alice").await["decisions"], json!([]), "a filter tells no user");
    let found = json(&sidecar, "/decisions?call_id=alice-17%40example.com").await;
    assert_eq!(kinds(&found["decisions"]), ["Rejected"]);
    let revealed = json(&sidecar, "/decisions?reveal=true").await;
    assert_eq!(revealed["decisions"][0]["call_id"], "alice-17@example.com");
    sidecar.stop().await;
}

async fn follow(sidecar: &Sidecar, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.admin).await.expect("connected");
    let request = format!("GET /decisions/stream?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", sidecar.admin);
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

/// Reads on until `end`.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(end) {
        let read = timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("in time").expect("read");
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn decisions_are_streamed_as_they_happen_to_a_bounded_number_of_readers() {
    let (_directory, sidecar) = start(POLICY, Options::default()).await;
    let mut first = follow(&sidecar, "kind=Rejected").await;
    let head = read_to(&mut first, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/x-ndjson"), "{head}");
    let caller = phone(&sidecar).await;
    set_up_call(&sidecar, &caller, "s1", "").await;

    refused_call(&sidecar, "s2", 60).await;

    let streamed = read_to(&mut first, "}\n").await;
    let line = streamed.lines().find(|line| line.starts_with('{')).expect("a line");
    let decision: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(json!([decision["kind"], decision["call_id"]]), json!(["Rejected", "s2@example.com"]));
    assert_eq!(json(&sidecar, "/decisions?kind=Rejected").await["decisions"], json!([decision]));

    let mut others = Vec::new();
    for _ in 1..16 {
        let mut other = follow(&sidecar, "").await;
        assert!(read_to(&mut other, "\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        others.push(other);
    }
    let (status, text) = sidecar.get("/decisions/stream").await;
    assert!(status == 503 && text.contains("16 readers"), "{status} {text}");
    assert!(sidecar.metrics().await.contains(r#"sipwarden_limits_reached_total{limit="DecisionReaders"} 1"#));
    others.pop();
    // One that has gone is noticed with the next line.
    refused_call(&sidecar, "s3", 60).await;
    eventually("there is room for another", async || {
        let mut again = follow(&sidecar, "").await;
        read_to(&mut again, "\r\n\r\n").await.starts_with("HTTP/1.1 200 ")
    })
    .await;
    drop((first, others));
    sidecar.stop().await;
}

#[tokio::test]
async fn what_another_policy_would_decide_is_judged_on_the_requests_there_were() {
    let (_directory, sidecar) = start(OBSERVE, Options { workers: 2, ..Options::default() }).await;
    let caller = phone(&sidecar).await;
    for (call, lines) in [
        ("w1", "Supported: timer\r\nSession-Expires: 200\r\n"),
        ("w2", "Supported: timer\r\nSession-Expires: 600\r\n"),
        ("w3", "Supported: timer\r\n"),
    ] {
        set_up_call(&sidecar, &caller, call, lines).await;
    }
    let mut config = json(&sidecar, "/config").await["config"].clone();
    let what_if = async |config: &Value| {
        let (status, body) = http(sidecar.admin, "POST", "/what-if", &config.to_string()).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")
    };

    let same = what_if(&config).await;
    assert_eq!(json!([same["judged"], same["changed"], same["truncated"]]), json!([3, 0, false]));
    let rejected = |result: &Value| {
        result["by_kind"].as_array().expect("kinds").iter().find(|kind| kind["kind"] == "Rejected").cloned()
    };
    let expected = json!({"kind": "Rejected", "now": 1, "then": 1, "now_observed": 1, "then_observed": 1});
    assert_eq!(rejected(&same), Some(expected));

    // The rule that holds them is dropped: 200 s are enough for the policy's own 120 s.
    config["rules"] = json!([]);
    let without_rule = what_if(&config).await;
    assert_eq!(rejected(&without_rule).expect("still now")["then"], 0);
    assert_eq!(without_rule["changed"], 3, "Min-SE differs for all");
    let example = &without_rule["examples"][0];
    assert_eq!(json!([example["call_id"], example["now"][0]["rule"]]), json!(["w1@example.com", "phones"]));
    assert_eq!(example["now"][0]["kind"], "Rejected");
    assert!(example["then"].as_array().expect("decisions").iter().all(|told| told["kind"] != "Rejected"), "{example}");

    config["mode"] = json!("Enforce");
    let enforced = what_if(&config).await;
    assert!(enforced["by_kind"].as_array().expect("kinds").iter().all(|kind| kind["then_observed"] == 0), "{enforced}");
    assert_eq!(json(&sidecar, "/config").await["config"]["mode"], "Observe", "nothing is changed");

    for (body, told) in [
        ("{", "SidecarConfig such as /config shows"),
        ("{\"policy\": \"x\"}", "missing field"),
        (&config.to_string().replace("\"minSE\":\"2m\"", "\"minSE\":\"1m\""), "below 90 s"),
    ] {
        let (status, text) = http(sidecar.admin, "POST", "/what-if", body).await;
        assert!(status == 400 && text.contains(told), "{body}: {status} {text}");
    }
    let (status, _) = http(sidecar.admin, "POST", "/what-if", &" ".repeat((1 << 20) + 1)).await;
    assert_eq!(status, 413);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refused_call_is_judged_once_whatever_follows_it() {
    let (_directory, sidecar) = start(POLICY, Options::default()).await;
    refused_call(&sidecar, "once", 60).await;
    eventually("the ACK is remembered", async || {
        let told = json(&sidecar, "/messages?call_id=once%40example.com").await;
        told["messages"].as_array().is_some_and(|messages| messages.iter().any(|m| m["outcome"] == "Absorbed"))
    })
    .await;
    let config = json(&sidecar, "/config").await["config"].clone();
    let (status, body) = http(sidecar.admin, "POST", "/what-if", &config.to_string()).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["judged"], 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn rules_are_counted_by_what_they_decided_and_those_of_a_replaced_policy_are_gone() {
    let (_directory, path) = policy_file(OBSERVE);
    let sidecar = Sidecar::start(Options { policy: Some(path.clone()), ..Options::default() }).await;
    let caller = phone(&sidecar).await;
    set_up_call(&sidecar, &caller, "c1", "Supported: timer\r\nSession-Expires: 200\r\n").await;
    let observed = r#"{decision="Rejected",mode="Observe",policy="trial",rule="phones"} 1"#;
    assert!(sidecar.metrics().await.contains(&format!("sipwarden_rule_decisions_total{observed}")));

    std::fs::write(&path, POLICY).expect("written");

    eventually("the series of the old policy are gone", async || {
        let metrics = sidecar.metrics().await;
        metrics.contains("policy=\"carrier\",rule=\"-\"") && !metrics.contains("policy=\"trial\"")
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn without_room_nothing_is_remembered_and_calls_go_on() {
    let (_directory, sidecar) = start(POLICY, Options { record_mib: 0, ..Options::default() }).await;
    refused_call(&sidecar, "z1", 60).await;
    let nothing = json!({"decisions": [], "next": null, "oldest": null, "held": 0, "lost": 0});
    assert_eq!(json(&sidecar, "/decisions").await, nothing);
    assert_eq!(json(&sidecar, "/messages?call_id=z1%40example.com").await, json!({"messages": [], "lost": true}));
    sidecar.stop().await;
}
