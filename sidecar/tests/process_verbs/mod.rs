//! Acting through the admin interface, and who may.

use std::path::PathBuf;

use serde_json::Value;

use crate::process_harness::{Options, Sidecar, header, http, http_with, receive};
use crate::{phone, policy_file, set_up_call};

const TOKEN: &str = "Authorization: Bearer 0a1b2c\r\n";
const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier}
spec: {mode: Enforce, timers: {sessionExpires: 10m, refresher: Local, appProbe: None}}
";

struct Files {
    policy: (tempfile::TempDir, PathBuf),
    token: PathBuf,
}

fn files() -> Files {
    let policy = policy_file(POLICY);
    let token = policy.0.path().join("token");
    std::fs::write(&token, "0a1b2c\n").expect("written");
    Files { policy, token }
}

async fn start(files: &Files) -> Sidecar {
    let (policy, token) = (files.policy.1.clone(), files.token.clone());
    Sidecar::start(Options { policy: Some(policy), admin_token_file: Some(token), ..Options::default() }).await
}

async fn only_session(sidecar: &Sidecar) -> String {
    let page: Value = serde_json::from_str(&sidecar.get("/sessions").await.1).expect("JSON");
    page["sessions"][0]["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn without_a_token_file_nobody_acts_on_sessions_and_the_text_says_what_to_do() {
    let sidecar = Sidecar::start(Options::default()).await;
    for verb in ["refresh", "end"] {
        let path = format!("/sessions/0-1/{verb}");
        let (code, text) = http_with(sidecar.admin, "POST", &path, TOKEN, "").await;
        assert_eq!(code, 403);
        assert!(text.contains("--admin-token-file"), "{text}");
    }
    let (code, text) = http(sidecar.admin, "PUT", "/log-filter", "info").await;
    assert_eq!(code, 400, "it needs no token here, but these logs are not the sidecar's: {text}");
    sidecar.stop().await;
}

#[tokio::test]
async fn with_a_token_file_only_the_token_acts() {
    let files = files();
    let sidecar = start(&files).await;
    let ask =
        async |method: &str, path: &str, lines: &str| http_with(sidecar.admin, method, path, lines, "info").await.0;
    for (method, path, allowed) in
        [("POST", "/sessions/0-1/refresh", 404), ("POST", "/sessions/0-1/end", 404), ("PUT", "/log-filter", 400)]
    {
        assert_eq!(ask(method, path, "").await, 401, "{path}");
        assert_eq!(ask(method, path, "Authorization: Bearer 0a1b2d\r\n").await, 401, "{path}");
        assert_eq!(ask(method, path, TOKEN).await, allowed, "{path}");
    }
    assert_eq!(ask("GET", "/sessions", "").await, 200, "looking needs none");
    assert_eq!(ask("POST", "/sessions/7-1/end", TOKEN).await, 404);
    assert_eq!(ask("POST", "/sessions/nonsense/end", TOKEN).await, 404);

    std::fs::write(&files.token, "another\n").expect("written");
    assert_eq!(ask("POST", "/sessions/0-1/end", TOKEN).await, 401, "the new token counts at once");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_session_that_is_to_end_gets_a_bye_on_both_sides() {
    let files = files();
    let sidecar = start(&files).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "e1", "Supported: timer\r\n").await;
    let path = format!("/sessions/{}/end", only_session(&sidecar).await);
    let (code, text) = http_with(sidecar.admin, "POST", &path, TOKEN, "").await;
    assert_eq!(code, 202, "{text}");
    let at_app = sidecar.app_gets().await;
    assert!(at_app.starts_with("BYE "), "{at_app}");
    let at_phone = receive(&phone).await;
    assert!(at_phone.starts_with("BYE "), "{at_phone}");
    assert_eq!(header(&at_app, "Call-ID"), header(&at_phone, "Call-ID"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_session_is_refreshed_when_asked_where_the_sidecar_refreshes() {
    let files = files();
    let sidecar = start(&files).await;
    let phone = phone(&sidecar).await;
    set_up_call(&sidecar, &phone, "r1", "Supported: timer\r\nAllow: INVITE, ACK, BYE, UPDATE\r\n").await;
    let path = format!("/sessions/{}/refresh", only_session(&sidecar).await);
    let (code, text) = http_with(sidecar.admin, "POST", &path, TOKEN, "").await;
    assert_eq!(code, 202, "{text}");
    let refresh = receive(&phone).await;
    assert!(refresh.starts_with("UPDATE "), "{refresh}");
    assert_eq!(header(&refresh, "Session-Expires"), Some("600;refresher=uac"), "{refresh}");
    assert_eq!(http_with(sidecar.admin, "POST", &path, TOKEN, "").await.0, 409, "one is under way");
    sidecar.stop().await;
}
