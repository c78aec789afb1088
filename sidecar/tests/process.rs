//! The whole process on loopback: real sockets, real threads, the real binary.

mod process_call;
mod process_harness;
mod process_pod;
mod process_record;
mod process_traces;
mod process_verbs;
mod process_view;

use process_harness::{Options, Sidecar, answer, eventually, header, http, http_as, read_until, receive, request};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::process_harness::PATIENCE;

const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier}
spec:
  mode: Enforce
  timers: {sessionExpires: 2m, minSE: 90s}
";

fn policy_file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("policy.yaml");
    std::fs::write(&path, text).expect("written");
    (directory, path)
}

async fn phone(sidecar: &Sidecar) -> UdpSocket {
    let phone = UdpSocket::bind((sidecar.udp.ip(), 0)).await.expect("a socket");
    phone.connect(sidecar.udp).await.expect("connected");
    phone
}

/// A call without a caller's timer; returns what the phone got.
async fn set_up_call(sidecar: &Sidecar, phone: &UdpSocket, call: &str, lines: &str) -> String {
    let from = phone.local_addr().expect("an address");
    phone.send(request("INVITE", "UDP", from, call, lines).as_bytes()).await.expect("sent");
    let invite = sidecar.app_gets().await;
    let contact = format!("Contact: <sip:bob@{}>\r\n", sidecar.app.local_addr().expect("an address"));
    sidecar.app_answers(&invite, "200 OK", &contact).await;
    receive(phone).await
}

#[tokio::test]
async fn options_passes_with_our_via_on_top_and_its_answer_comes_back() {
    for ip in ["127.0.0.1", "[::1]"] {
        let sidecar = Sidecar::start(Options { ip, ..Options::default() }).await;
        let phone = phone(&sidecar).await;
        let from = phone.local_addr().expect("an address");
        phone.send(request("OPTIONS", "UDP", from, "o1", "").as_bytes()).await.expect("sent");
        let forwarded = sidecar.app_gets().await;
        let via = header(&forwarded, "Via").expect("a Via");
        assert!(via.contains(&sidecar.app_side.to_string()), "{forwarded}");
        assert_eq!(forwarded.matches("Via:").count(), 2, "{forwarded}");
        sidecar.app_answers(&forwarded, "200 OK", "").await;
        let answered = receive(&phone).await;
        assert!(answered.starts_with("SIP/2.0 200 OK"), "{answered}");
        assert_eq!(answered.matches("Via:").count(), 1, "{answered}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_stream_is_cut_into_messages_wherever_its_segments_end() {
    let sidecar = Sidecar::start(Options::default()).await;
    let mut stream = TcpStream::connect(sidecar.tcp).await.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let from = stream.local_addr().expect("an address");
    let first = request("OPTIONS", "TCP", from, "s1", "");
    let both = first.clone() + &request("OPTIONS", "TCP", from, "s2", "");
    let (head, rest) = both.split_at(first.len() / 2);
    let (middle, tail) = rest.split_at(first.len() / 2 + 30);
    for (part, complete) in [(head, 0), (middle, 1), (tail, 1)] {
        stream.write_all(part.as_bytes()).await.expect("written");
        for _ in 0..complete {
            let forwarded = sidecar.app_gets().await;
            sidecar.app_answers(&forwarded, "200 OK", "").await;
            let answered = read_until(&mut stream, "\r\n\r\n").await;
            assert_eq!(header(&answered, "Call-ID"), header(&forwarded, "Call-ID"));
        }
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_keep_alive_ping_is_answered_on_its_stream() {
    let sidecar = Sidecar::start(Options::default()).await;
    let mut stream = TcpStream::connect(sidecar.tcp).await.expect("connected");
    stream.write_all(b"\r\n\r\n").await.expect("written");
    assert_eq!(read_until(&mut stream, "\r\n").await, "\r\n");
    sidecar.stop().await;
}

#[tokio::test]
async fn what_cannot_be_framed_closes_the_stream_and_is_counted() {
    let sidecar = Sidecar::start(Options::default()).await;
    let mut stream = TcpStream::connect(sidecar.tcp).await.expect("connected");
    stream.write_all(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: abc\r\n\r\n").await.expect("written");
    let mut end = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut end);
    timeout(PATIENCE, closed).await.expect("closed").ok();
    let counted = r#"sipwarden_transport_errors_total{error="Framing",transport="tcp"} 1"#;
    eventually("the framing error is counted", async || sidecar.metrics().await.contains(counted)).await;
    eventually("the connection is gone", async || sidecar.metrics().await.contains("sipwarden_connections 0")).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_request_of_the_app_opens_one_connection_and_uses_it_again() {
    let sidecar = Sidecar::start(Options::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let peer = listener.local_addr().expect("an address");
    let from = sidecar.app.local_addr().expect("an address");
    let to_peer = |call: &str| {
        let text = request("OPTIONS", "UDP", from, call, "");
        text.replacen("sip:bob@127.0.0.1", &format!("sip:bob@{peer};transport=tcp"), 1)
    };
    sidecar.app.send_to(to_peer("t1").as_bytes(), sidecar.app_side).await.expect("sent");
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection").expect("accepted");
    let first = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(header(&first, "Call-ID"), Some("t1@example.com"));
    sidecar.app.send_to(to_peer("t2").as_bytes(), sidecar.app_side).await.expect("sent");
    let second = read_until(&mut stream, "\r\n\r\n").await;
    assert_eq!(header(&second, "Call-ID"), Some("t2@example.com"));
    stream.write_all(answer(&second, "200 OK", "").as_bytes()).await.expect("written");
    assert!(sidecar.app_gets().await.starts_with("SIP/2.0 200 OK"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_request_to_a_name_waits_for_its_address() {
    let sidecar = Sidecar::start(Options::default()).await;
    let peer = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let uri = format!("sip:bob@localhost:{}", peer.local_addr().expect("an address").port());
    let text = request("OPTIONS", "UDP", sidecar.app.local_addr().expect("an address"), "n1", "");
    let text = text.replacen("sip:bob@127.0.0.1", &uri, 1);
    sidecar.app.send_to(text.as_bytes(), sidecar.app_side).await.expect("sent");
    assert!(receive(&peer).await.starts_with(&format!("OPTIONS {uri} SIP/2.0")));
    let metrics = sidecar.metrics().await;
    assert!(metrics.contains(r#"sipwarden_lookups_total{result="Resolved"} 1"#), "{metrics}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_good_new_policy_is_taken_and_a_bad_one_leaves_it_in_force() {
    let (_directory, path) = policy_file(POLICY);
    let sidecar = Sidecar::start(Options { policy: Some(path.clone()), ..Options::default() }).await;
    let policy = async || sidecar.get("/config").await.1;
    assert!(policy().await.contains(r#""policy":"carrier""#));

    std::fs::write(&path, POLICY.replace("minSE: 90s", "minSE: 9s")).expect("written");
    let refused = r#"sipwarden_policy_reloads_total{result="Refused"} 1"#;
    eventually("the bad file is refused", async || sidecar.metrics().await.contains(refused)).await;
    assert!(policy().await.contains(r#""mode":"Enforce""#));

    // Our own log may lie in the same directory: what is written there must not make us complain again.
    std::fs::write(path.with_extension("log"), "the policy stays as it was").expect("written");
    let unchanged = r#"sipwarden_policy_reloads_total{result="Unchanged"} 1"#;
    eventually("the neighbour is noticed", async || sidecar.metrics().await.contains(unchanged)).await;
    assert!(sidecar.metrics().await.contains(refused));

    // As a mounted ConfigMap changes: by renaming something else into its place.
    let beside = path.with_extension("new");
    std::fs::write(&beside, POLICY.replace("Enforce", "Observe")).expect("written");
    std::fs::rename(&beside, &path).expect("renamed");
    eventually("the good file is in force", async || policy().await.contains(r#""mode":"Observe""#)).await;
    let applied = r#"sipwarden_policy_reloads_total{result="Applied"} 1"#;
    assert!(sidecar.metrics().await.contains(applied));
    sidecar.stop().await;
}

#[tokio::test]
async fn readyz_names_what_is_pending() {
    let sidecar = Sidecar::start(Options::default()).await;
    assert_eq!(sidecar.get("/readyz").await, (200, "ready\n".to_owned()));
    let pending = sidecar.readiness.guard("certificates");
    assert_eq!(sidecar.get("/readyz").await, (503, "pending: certificates\n".to_owned()));
    drop(pending);
    assert_eq!(sidecar.get("/readyz").await.0, 200);
    assert_eq!(sidecar.get("/healthz").await.0, 200);
    sidecar.stop().await;
}

#[tokio::test]
async fn metrics_are_well_formed_and_all_explained() {
    let sidecar = Sidecar::start(Options::default()).await;
    let text = sidecar.metrics().await;
    let mut explained = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(name.starts_with("sipwarden_") && help.ends_with('.'), "{line}");
            explained.insert(name.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().expect(line);
            let name = series.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(explained.contains(family) || explained.contains(name), "{line}");
        }
    }
    assert!(explained.len() > 25, "{explained:?}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_session_is_shown_with_its_users_hidden_unless_asked_for() {
    let (_directory, path) = policy_file(POLICY);
    let sidecar = Sidecar::start(Options { policy: Some(path), ..Options::default() }).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "v1", "Supported: timer\r\n").await;
    let page: serde_json::Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    let session = &page["sessions"][0];
    assert_eq!(page["total"], 1);
    for (field, value) in
        [("state", "Active"), ("direction", "Inbound"), ("policy", "carrier"), ("refresher", "Remote")]
    {
        assert_eq!(session[field], value, "{session:#}");
    }
    assert_eq!(session["interval_s"], 120, "{session:#}");
    assert!(session["expires_in_s"].as_f64().expect("a number") < session["deadline_in_s"].as_f64().expect("a number"));
    assert_eq!(session["legs"]["remote"]["party"], "<sip:***@example.com>;tag=a", "{session:#}");
    let kinds: Vec<&str> =
        session["events"].as_array().expect("events").iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(kinds.contains(&"Established"), "{session:#}");

    let id = session["id"].as_str().expect("an id");
    let (status, one) = sidecar.get(&format!("/sessions/{id}?reveal=true")).await;
    assert_eq!(status, 200);
    assert!(one.contains("sip:alice@example.com"), "{one}");
    assert_eq!(sidecar.get("/sessions/0-999999").await.0, 404);
    assert_eq!(sidecar.get("/sessions/7-1").await.0, 404);
    assert_eq!(sidecar.get("/sessions?offset=1").await.1, r#"{"sessions":[],"total":1,"active":1}"#);
    assert_eq!(sidecar.get("/sessions?limit=x").await.0, 400);
    sidecar.stop().await;
}

/// Timers of both shards fire, whichever worker took the packets.
#[tokio::test]
async fn with_two_workers_every_call_still_expires_in_time() {
    const CALLS: usize = 12;
    let (_directory, path) = policy_file(POLICY);
    let options = Options { policy: Some(path), workers: 2, clock_speed: 100, ..Options::default() };
    let sidecar = Sidecar::start(options).await;
    let phone = phone(&sidecar).await;
    for call in 0..CALLS {
        let answered = set_up_call(&sidecar, &phone, &format!("w{call}"), "Supported: timer\r\n").await;
        assert!(header(&answered, "Session-Expires").is_some(), "{answered}");
    }
    let mut ended = std::collections::HashSet::new();
    while ended.len() < CALLS {
        let message = sidecar.app_gets().await;
        if message.starts_with("BYE ") {
            ended.insert(header(&message, "Call-ID").expect("a Call-ID").to_owned());
            sidecar.app_answers(&message, "200 OK", "").await;
        }
    }
    let page: serde_json::Value = serde_json::from_str(&sidecar.get("/sessions?limit=1000").await.1).expect("JSON");
    let shards: std::collections::HashSet<&str> = page["sessions"]
        .as_array()
        .expect("sessions")
        .iter()
        .filter_map(|session| session["id"].as_str()?.split('-').next())
        .collect();
    assert_eq!(shards.len(), 2, "{page:#}");
    sidecar.stop().await;
}

#[tokio::test]
async fn datagrams_that_are_no_sip_are_counted_and_keep_alives_are_not() {
    let sidecar = Sidecar::start(Options::default()).await;
    let phone = phone(&sidecar).await;
    phone.send(b"\r\n\r\n").await.expect("sent");
    phone.send(b"not a message\r\n\r\n").await.expect("sent");
    let counted = r#"sipwarden_messages_total{kind="unreadable",side="Remote",verdict="Dropped"} 1"#;
    eventually("one packet is counted", async || sidecar.metrics().await.contains(counted)).await;
    assert!(sidecar.metrics().await.contains(r#"sipwarden_parse_failures_total{reason="StartLine"} 1"#));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_log_filter_that_cannot_be_read_is_refused() {
    let sidecar = Sidecar::start(Options::default()).await;
    let (status, text) = http(sidecar.admin, "PUT", "/log-filter", "sipwarden=loud").await;
    assert_eq!(status, 400);
    assert!(text.contains("not a filter"), "{text}");
    sidecar.stop().await;
}

#[tokio::test]
async fn the_admin_interface_is_not_read_under_a_name_that_another_site_may_own() {
    let sidecar = Sidecar::start(Options::default()).await;
    for (host, path, expected) in [
        ("rebound.example", "/sessions", 421),
        ("rebound.example:8642", "/", 421),
        ("rebound.example", "/status", 421),
        ("localhost", "/sessions", 200),
    ] {
        let (status, text) = http_as(sidecar.admin, host, "GET", path, "", "").await;
        assert_eq!(status, expected, "{host} {path}: {text}");
    }
    sidecar.stop().await;
}
