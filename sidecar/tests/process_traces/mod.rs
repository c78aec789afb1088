//! Sessions as spans at a collector, and collectors that are gone, or slow.

mod collector;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use serde_json::Value;
use sipwarden_otlp::{Otlp, Ratio};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::Instant;

use self::collector::{Collector, Got, text};
use crate::process_harness::{Options, Sidecar, eventually, header, receive, request};
use crate::{POLICY, phone, policy_file, set_up_call};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent(sampled: &str) -> String {
    format!("Supported: timer\r\ntraceparent: 00-{TRACE}-{PARENT}-{sampled}\r\ntracestate: vendor=opaque\r\n")
}

/// The options, and what they need to live as long as the sidecar.
fn traced(url: &str) -> (Options, tempfile::TempDir) {
    let (directory, path): (_, PathBuf) = policy_file(POLICY);
    let otlp = Otlp { endpoint: url.parse().expect("a URL"), ratio: Ratio::ALL };
    (Options { policy: Some(path), otlp: Some(otlp), ..Options::default() }, directory)
}

async fn spans(collector: &Collector, number: usize) -> Vec<Got> {
    eventually(&format!("{number} spans"), async || collector.spans().len() >= number).await;
    let spans = collector.spans();
    assert_eq!(spans.len(), number, "{spans:#?}");
    spans
}

/// A request of the caller inside the dialog that `answered`, a 2xx, made.
fn in_dialog(method: &str, cseq: u32, phone: &UdpSocket, answered: &str, lines: &str) -> String {
    let from = phone.local_addr().expect("an address");
    let (to, call) = (header(answered, "To").expect("a To"), header(answered, "Call-ID").expect("a Call-ID"));
    let contact = header(answered, "Contact").expect("a Contact").trim_matches(['<', '>']);
    let routes: Vec<&str> = answered.lines().filter_map(|line| line.strip_prefix("Record-Route: ")).rev().collect();
    format!(
        "{method} {contact} SIP/2.0\r\nVia: SIP/2.0/UDP {from};rport;branch=z9hG4bK{cseq}{method}\r\nMax-Forwards: 70\r\n\
         Route: {}\r\nFrom: <sip:alice@example.com>;tag=a\r\nTo: {to}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:alice@{from}>\r\n{lines}Content-Length: 0\r\n\r\n",
        routes.join(", ")
    )
}

/// The phone asks for something inside the dialog, and the application says yes.
async fn asked(sidecar: &Sidecar, phone: &UdpSocket, request: &str, lines: &str) -> String {
    phone.send(request.as_bytes()).await.expect("sent");
    let forwarded = sidecar.app_gets().await;
    sidecar.app_answers(&forwarded, "200 OK", lines).await;
    receive(phone).await
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

#[tokio::test]
async fn a_session_is_one_span_with_its_events_in_order_below_the_span_of_the_caller() {
    let collector = Collector::start().await;
    let (options, _directory) = traced(&collector.url());
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;

    let began = nanos(SystemTime::now());
    let answered = set_up_call(&sidecar, &phone, "t1", &traceparent("01")).await;
    let page: Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    assert_eq!(page["sessions"][0]["trace_id"], TRACE);
    let update =
        in_dialog("UPDATE", 2, &phone, &answered, "Supported: timer\r\nSession-Expires: 100;refresher=uac\r\n");
    let refreshed = asked(&sidecar, &phone, &update, "Session-Expires: 100;refresher=uac\r\n").await;
    assert!(refreshed.starts_with("SIP/2.0 200 "), "{refreshed}");
    asked(&sidecar, &phone, &in_dialog("BYE", 3, &phone, &answered, ""), "").await;

    let got = spans(&collector, 1).await.remove(0);
    assert_eq!((got.trace_id().as_str(), got.parent().as_str()), (TRACE, PARENT));
    assert_eq!((got.span.name.as_str(), got.span.trace_state.as_str()), ("SIP session", "vendor=opaque"));
    assert_eq!(got.span.kind(), SpanKind::Server);
    assert_eq!(got.span.status.clone().unwrap_or_default().code(), StatusCode::Unset);
    let page: Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    let session = &page["sessions"][0];
    let shown =
        session["events"].as_array().expect("events").iter().map(|event| event["kind"].as_str().expect("a name"));
    assert_eq!(got.events(), shown.collect::<Vec<_>>(), "the span says what the session says");
    let told =
        ["ActsForApp", "Completed", "Established", "AnsweredForApp", "Completed", "Refreshed", "ProbeSent", "Ended"];
    assert_eq!(got.events()[1..], told);
    assert_eq!((&session["state"], &session["trace_id"]), (&"Ended".into(), &TRACE.into()));
    assert!(got.span.events.is_sorted_by_key(|event| event.time_unix_nano));
    let (first, last) = (&got.span.events[0], &got.span.events[got.span.events.len() - 1]);
    assert!(began <= got.span.start_time_unix_nano && got.span.start_time_unix_nano <= first.time_unix_nano);
    assert!(last.time_unix_nano <= got.span.end_time_unix_nano);
    assert_eq!(got.event_text("Refreshed", "sipwarden.method"), "UPDATE");
    assert_eq!(got.event_text("Refreshed", "sipwarden.interval_s"), "100");

    let peer = phone.local_addr().expect("an address");
    for (key, value) in [
        ("network.protocol.name", "sip"),
        ("network.transport", "udp"),
        ("network.peer.address", &peer.ip().to_string()),
        ("network.peer.port", &peer.port().to_string()),
        ("sipwarden.call_id", "t1@example.com"),
        ("sipwarden.session", session["id"].as_str().expect("an id")),
        ("sipwarden.direction", "Inbound"),
        ("sipwarden.local", "<sip:***@example.com>;tag=b"),
        ("sipwarden.remote", "<sip:***@example.com>;tag=a"),
        ("sipwarden.policy", "carrier"),
        ("sipwarden.mode", "Enforce"),
        ("sipwarden.interval_s", "100"),
        ("sipwarden.refresher", "Remote"),
        ("sipwarden.end_cause", "Bye"),
        ("error.type", ""),
    ] {
        assert_eq!(got.text(key), value, "{key}");
    }
    assert_eq!(text(&got.resource, "service.name"), "sipwarden-sidecar");
    assert_eq!(text(&got.resource, "service.version"), env!("CARGO_PKG_VERSION"));
    assert!(!format!("{got:?}").contains("alice"), "{got:#?}");

    let counted = r#"sipwarden_trace_spans_total{fate="Exported"} 1"#;
    eventually("it is counted", async || sidecar.metrics().await.contains(counted)).await;
    sidecar.stop().await;
    assert_eq!(collector.spans().len(), 1, "the session is over, and told once");
}

#[tokio::test]
async fn the_trace_context_of_a_caller_reaches_the_application_as_it_came() {
    let (options, _directory) = traced("http://127.0.0.1:9");
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;
    let lines = traceparent("01");
    let invite = request("INVITE", "UDP", phone.local_addr().expect("an address"), "u1", &lines);
    phone.send(invite.as_bytes()).await.expect("sent");
    let forwarded = sidecar.app_gets().await;
    assert!(forwarded.contains(&lines), "{forwarded}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refused_invite_is_a_short_span_in_the_trace_of_the_call_that_comes_of_it() {
    let collector = Collector::start().await;
    let (options, _directory) = traced(&collector.url());
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;
    let from = phone.local_addr().expect("an address");
    let short = request("INVITE", "UDP", from, "r1", "Supported: timer\r\nSession-Expires: 60\r\n");
    // Its copy is refused again, and is no second span.
    for _ in 0..2 {
        phone.send(short.as_bytes()).await.expect("sent");
        assert!(receive(&phone).await.starts_with("SIP/2.0 422 "));
    }
    let again = short.replace("CSeq: 1", "CSeq: 2").replace("Session-Expires: 60", "Session-Expires: 90");
    let answered = asked(&sidecar, &phone, &again, "Contact: <sip:bob@127.0.0.1>\r\n").await;
    assert!(answered.starts_with("SIP/2.0 200 "), "{answered}");
    sidecar.stop().await;

    let spans = spans(&collector, 2).await;
    let named = |name: &str| spans.iter().find(|got| got.span.name == name).expect(name);
    let (refused, session) = (named("SIP INVITE"), named("SIP session"));
    assert_eq!(refused.events(), ["Rejected"]);
    assert_eq!(refused.event_text("Rejected", "sipwarden.asked_s"), "60");
    assert_eq!(refused.event_text("Rejected", "sipwarden.min_se_s"), "90");
    for (key, value) in [
        ("sipwarden.status", "422"),
        ("sipwarden.policy", "carrier"),
        ("sipwarden.direction", "Inbound"),
        ("sipwarden.remote", "<sip:***@example.com>;tag=a"),
        ("network.peer.port", &from.port().to_string()),
        ("error.type", ""),
    ] {
        assert_eq!(refused.text(key), value, "{key}");
    }
    assert_eq!(refused.trace_id(), session.trace_id());
    assert_eq!((refused.parent(), session.parent()), (String::new(), String::new()));
    assert_eq!(session.text("sipwarden.end_cause"), "SidecarStopped", "the call goes on");
    assert!(!session.events().contains(&"Rejected"), "{session:#?}");
}

#[tokio::test]
async fn users_are_in_spans_where_the_policy_shows_them_and_a_call_id_that_names_one_is_hidden_where_not() {
    for (sip_users, user, call_id) in [("Redact", "***", "***-"), ("Show", "alice", "alice-7@example.com")] {
        let collector = Collector::start().await;
        let (options, _directory) = traced(&collector.url());
        let policy = format!("{POLICY}  privacy: {{sipUsers: {sip_users}}}\n");
        std::fs::write(options.policy.as_ref().expect("a policy"), policy).expect("written");
        let sidecar = Sidecar::start(options).await;
        let phone = phone(&sidecar).await;
        let from = phone.local_addr().expect("an address");
        let short = request("INVITE", "UDP", from, "alice-7", "Supported: timer\r\nSession-Expires: 60\r\n");
        phone.send(short.as_bytes()).await.expect("sent");
        assert!(receive(&phone).await.starts_with("SIP/2.0 422 "));
        let again = short.replace("CSeq: 1", "CSeq: 2").replace("Session-Expires: 60", "Session-Expires: 90");
        asked(&sidecar, &phone, &again, "Contact: <sip:bob@127.0.0.1>\r\n").await;
        sidecar.stop().await;

        for got in spans(&collector, 2).await {
            assert!(got.text("sipwarden.remote").contains(user), "{sip_users}: {got:#?}");
            assert!(got.text("sipwarden.call_id").starts_with(call_id), "{sip_users}: {got:#?}");
            assert_eq!(format!("{got:?}").contains("alice"), sip_users == "Show", "{got:#?}");
        }
    }
}

#[tokio::test]
async fn a_session_that_expires_is_an_error_and_its_span_holds_the_byes() {
    let collector = Collector::start().await;
    let (options, _directory) = traced(&collector.url());
    let sidecar = Sidecar::start(Options { clock_speed: 100, ..options }).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "x1", "Supported: timer\r\n").await;
    for _ in 0..2 {
        let bye = tokio::select! { bye = sidecar.app_gets() => (bye, true), bye = receive(&phone) => (bye, false) };
        assert!(bye.0.starts_with("BYE "), "{}", bye.0);
        match bye {
            (bye, true) => sidecar.app_answers(&bye, "200 OK", "").await,
            (bye, false) => {
                let answer = crate::process_harness::answer(&bye, "200 OK", "");
                phone.send(answer.as_bytes()).await.map(drop).expect("sent");
            }
        }
    }

    let got = spans(&collector, 1).await.remove(0);
    let status = got.span.status.clone().unwrap_or_default();
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "Expired"));
    assert_eq!((got.text("error.type").as_str(), got.text("sipwarden.end_cause").as_str()), ("Expired", "Expired"));
    let end = ["Expired", "ByeSent", "ByeSent", "Ended", "ByeDone", "ByeDone"];
    assert!(got.events().ends_with(&end), "{:?}", got.events());
    sidecar.stop().await;
}

#[tokio::test]
async fn what_the_caller_does_not_sample_is_no_span_and_a_ratio_of_none_leaves_the_rest_out() {
    let collector = Collector::start().await;
    let (options, _directory) = traced(&collector.url());
    let otlp = Otlp { endpoint: collector.url().parse().expect("a URL"), ratio: "0".parse().expect("a ratio") };
    let sidecar = Sidecar::start(Options { otlp: Some(otlp), ..options }).await;
    let phone = phone(&sidecar).await;
    for (call, lines) in
        [("n1", traceparent("00")), ("n2", "Supported: timer\r\n".to_owned()), ("n3", traceparent("01"))]
    {
        set_up_call(&sidecar, &phone, call, &lines).await;
    }
    let page: Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    let with_trace = |session: &&Value| session.get("trace_id").is_some();
    assert_eq!(page["sessions"].as_array().expect("sessions").iter().filter(with_trace).count(), 1);
    sidecar.stop().await;
    assert_eq!(spans(&collector, 1).await[0].text("sipwarden.call_id"), "n3@example.com");
}

#[tokio::test]
async fn a_collector_that_is_gone_holds_up_no_call_and_the_loss_is_counted() {
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a listener").local_addr().expect("an address");
    let (options, _directory) = traced(&format!("http://{gone}"));
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;
    let answered = set_up_call(&sidecar, &phone, "g1", "Supported: timer\r\n").await;
    asked(&sidecar, &phone, &in_dialog("BYE", 2, &phone, &answered, ""), "").await;
    let counted = r#"sipwarden_trace_spans_total{fate="Failed"} 1"#;
    eventually("the loss is counted", async || sidecar.metrics().await.contains(counted)).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_collector_that_never_answers_fills_the_queue_and_calls_go_on() {
    const REFUSED: usize = 1500;
    // Connections are made, and nothing comes of them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let (options, _directory) = traced(&format!("http://{}", silent.local_addr().expect("an address")));
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;
    let from = phone.local_addr().expect("an address");
    for call in 0..REFUSED {
        let lines = "Supported: timer\r\nSession-Expires: 60\r\n";
        phone.send(request("INVITE", "UDP", from, &format!("q{call}"), lines).as_bytes()).await.expect("sent");
        assert!(receive(&phone).await.starts_with("SIP/2.0 422 "));
    }
    let lost = async || {
        let metrics = sidecar.metrics().await;
        let value =
            metrics.lines().find_map(|line| line.strip_prefix(r#"sipwarden_trace_spans_total{fate="QueueFull"} "#));
        value.expect("it is there from the start").parse::<usize>().expect("a number")
    };
    // What is in the queue and in one batch is not lost yet.
    assert!((100..REFUSED - 1000).contains(&lost().await), "{}", lost().await);
    let answered = set_up_call(&sidecar, &phone, "s1", "Supported: timer\r\n").await;
    assert!(answered.starts_with("SIP/2.0 200 "), "{answered}");

    let stopping = Instant::now();
    sidecar.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(5), "the end does not wait for the collector");
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let (_directory, path) = policy_file(POLICY);
    let sidecar = Sidecar::start(Options { policy: Some(path), ..Options::default() }).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "o1", &traceparent("01")).await;
    let page: Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    assert_eq!((page["total"].as_u64(), page["sessions"][0].get("trace_id")), (Some(1), None));
    sidecar.stop().await;
}
