//! The session view as HTTP sees it: its files and their headers, the history, the filters of `/sessions`.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process_harness::{Options, PATIENCE, Sidecar, header, receive, request};
use crate::{POLICY, phone, policy_file, set_up_call};

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                              base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Head and body of what `GET path` is answered with.
async fn whole(sidecar: &Sidecar, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(sidecar.admin).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", sidecar.admin);
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer").expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

async fn json(sidecar: &Sidecar, path: &str) -> Value {
    let (status, body) = sidecar.get(path).await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The values of `name="…"` in markup, and of `from "…"` in scripts.
fn named<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
}

#[tokio::test]
async fn the_page_and_all_it_loads_come_from_the_sidecar_with_a_strict_policy() {
    let sidecar = Sidecar::start(Options::default()).await;
    let mut wanted = vec!["/".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = wanted.pop() {
        let (head, body) = whole(&sidecar, &path).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
        let kind = match path.rsplit_once('.').map(|(_, end)| end) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            _ => "text/html; charset=utf-8",
        };
        for (name, value) in [
            ("Content-Type", kind),
            ("Content-Security-Policy", CONTENT_POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ] {
            assert_eq!(header(&head, name), Some(value), "{path}");
        }
        let elsewhere: Vec<_> = body.split("//").filter(|before| before.ends_with(':')).collect();
        assert_eq!(elsewhere.len(), usize::from(path == "/dom.js"), "{path}: only the name of SVG is a URL");
        seen.push(path);
        let files = named(&body, "src=\"").chain(named(&body, "href=\"")).chain(named(&body, "from \""));
        for file in files.filter(|file| *file != "data:,") {
            let file = format!("/{}", file.trim_start_matches("./"));
            if !seen.contains(&file) && !wanted.contains(&file) {
                wanted.push(file);
            }
        }
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    sidecar.stop().await;
}

#[tokio::test]
async fn the_history_ends_with_the_counts_as_they_are_now() {
    let (_directory, path) = policy_file(POLICY);
    let sidecar = Sidecar::start(Options { policy: Some(path), ..Options::default() }).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "h1", "Supported: timer\r\n").await;
    let from = phone.local_addr().expect("an address");
    let short = request("INVITE", "UDP", from, "h2", "Supported: timer\r\nSession-Expires: 60\r\n");
    phone.send(short.as_bytes()).await.expect("sent");
    assert!(receive(&phone).await.starts_with("SIP/2.0 422 "));

    let history = json(&sidecar, "/history").await;

    assert_eq!((&history["interval_s"], &history["capacity"]), (&10.into(), &360.into()));
    let samples = history["samples"].as_array().expect("samples");
    let now = samples.last().expect("one of now");
    let expected = serde_json::json!({"ago_s": 0.0, "active": 1, "refreshes": 0, "rejections": 1, "expiries": 0});
    assert_eq!(now, &expected);
    // The one of the start was kept before anybody called.
    assert_eq!((samples.len(), &samples[0]["active"], &samples[0]["rejections"]), (2, &0.into(), &0.into()));
    sidecar.stop().await;
}

#[tokio::test]
async fn sessions_are_filtered_by_state_peer_policy_and_call_id() {
    let (_directory, path) = policy_file(POLICY);
    let sidecar = Sidecar::start(Options { policy: Some(path), workers: 2, ..Options::default() }).await;
    let (one, other) = (phone(&sidecar).await, phone(&sidecar).await);
    for call in 0..5 {
        set_up_call(&sidecar, &one, &format!("One{call}"), "").await;
    }
    set_up_call(&sidecar, &other, "other", "").await;
    let found = async |query: &str| {
        let page = json(&sidecar, &format!("/sessions?{query}")).await;
        (page["total"].as_u64().expect("a number"), page["sessions"].as_array().expect("sessions").len())
    };

    assert_eq!(found("").await, (6, 6));
    assert_eq!(found("call_id=one").await, (5, 5));
    assert_eq!(found("call_id=ONE3%40example").await, (1, 1));
    assert_eq!(found("call_id=one&limit=2&offset=2").await, (5, 2));
    assert_eq!(found("call_id=one&limit=2&offset=4").await, (5, 1));
    let port = other.local_addr().expect("an address").port();
    assert_eq!(found(&format!("peer=127.0.0.1:{port}")).await, (1, 1));
    assert_eq!(found(&format!("peer=127.0.0.1:{port}&call_id=one")).await, (0, 0));
    assert_eq!(found("policy=CARR").await, (6, 6));
    assert_eq!(found("policy=trunk").await, (0, 0));
    assert_eq!((found("state=Active").await, found("state=Ended").await), ((6, 6), (0, 0)));
    assert_eq!(found("peer=&policy=%20&call_id=").await, (6, 6), "empty filters fit all");
    assert_eq!(sidecar.get("/sessions?state=Asleep").await.0, 400);
    assert_eq!(found("peer=example.com").await, (6, 6), "the host of a user is shown");
    assert_eq!(found("peer=alice&reveal=true").await, (0, 0), "a filter tells no user");
    sidecar.stop().await;
}
