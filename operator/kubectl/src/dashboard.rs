//! `dashboard`: the sidecar's own page for many sidecars, served on this machine's loopback with the user's rights.
//!
//! Other users of this machine reach its loopback too, and so does any page in a browser. So the address holds a secret
//! that only the user is shown, and requests have to name the address they go to (against DNS rebinding). Everything is
//! read-only: no request of the page is passed on but the questions of [`fleet`].

mod fleet;
mod sums;

/// The page's files, which the sidecar serves too.
#[path = "../../../sidecar/src/view/files.rs"]
mod files;

use std::net::{Ipv4Addr, SocketAddr};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{
    cli::DashboardArgs,
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Screen, Tone},
    scope,
};
use fleet::{Filter, Fleet};

/// In bytes: nobody guesses it.
const SECRET_LENGTH: usize = 16;

/// Serves the page until it is stopped.
///
/// # Errors
/// The pods cannot be listed, or the port is taken.
pub async fn dashboard(
    connection: &Connection,
    args: &DashboardArgs,
    screen: &mut Screen<'_>,
) -> Result<Outcome, Failure> {
    // Whoever has no right to see pods is told here, not in a browser.
    let pods = scope::with_sidecar(connection, &args.pods).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.map_err(|error| Failure::Usage(format!("cannot listen on port {}: {error}", args.port)))?;
    let address = listener.local_addr()?;
    let secret = secret()?;
    let fleet = Fleet::new(connection.clone(), args, pods.clone());
    screen.line(&format!("{} sidecars{}: http://{address}/{secret}/", pods.len(), connection.place()))?;
    screen.toned("read-only, for you alone; Ctrl-C ends it", Tone::Dim)?;
    screen.flush()?;
    let served = axum::serve(listener, router(fleet, address, &secret));
    tokio::select! {
        served = served.into_future() => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    Ok(Outcome::Fine)
}

/// The page and what it asks, below `/SECRET/`.
fn router(fleet: Fleet, address: SocketAddr, secret: &str) -> Router {
    let api = Router::new()
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", get(session))
        .route("/sessions/{id}/messages", get(messages))
        .route("/history", get(history))
        .route("/status", get(status))
        .with_state(fleet)
        .merge(files::router())
        .method_not_allowed_fallback(read_only);
    Router::new().nest(&format!("/{secret}/"), api).layer(from_fn_with_state(address, own_name_only))
}

async fn sessions(State(fleet): State<Fleet>, Query(filter): Query<Filter>) -> Response {
    Json(fleet.sessions(&filter).await).into_response()
}

async fn session(State(fleet): State<Fleet>, Path(id): Path<String>) -> Response {
    answered(fleet.session(&id).await)
}

async fn messages(State(fleet): State<Fleet>, Path(id): Path<String>) -> Response {
    answered(fleet.messages(&id).await)
}

async fn history(State(fleet): State<Fleet>) -> Response {
    Json(fleet.history().await).into_response()
}

async fn status(State(fleet): State<Fleet>) -> Response {
    Json(fleet.status().await).into_response()
}

/// In the sidecar's own words where it has said no.
fn answered(answer: Result<Value, (StatusCode, String)>) -> Response {
    match answer {
        Ok(value) => Json(value).into_response(),
        Err((status, text)) => (status, format!("{text}\n")).into_response(),
    }
}

async fn read_only() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, "the dashboard is read-only; act on the sidecar's own page\n").into_response()
}

/// A page of elsewhere whose name was made to lead here still sends that name.
async fn own_name_only(
    State(address): State<SocketAddr>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let port = address.port();
    if [format!("127.0.0.1:{port}"), format!("localhost:{port}")].iter().any(|own| own == host) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "ask for 127.0.0.1\n").into_response()
}

fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_LENGTH];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Failure::Usage("the system has no random numbers".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use clap::Parser;
    use tower::ServiceExt;

    use super::*;

    /// Of no pods, and with an API server that nobody asks.
    fn nobody() -> Fleet {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let args = crate::cli::Cli::parse_from(["kubectl-sipwarden", "dashboard"]);
        let crate::cli::Command::Dashboard(args) = args.command else { panic!("it is dashboard") };
        Fleet::new(Connection { client, namespace: None }, &args, Vec::new())
    }

    async fn asked(uri: &str, host: &str, method: &str) -> (StatusCode, HeaderMap) {
        let address = SocketAddr::from(([127, 0, 0, 1], 8645));
        let router = router(nobody(), address, "abc");
        let request =
            Request::builder().uri(uri).method(method).header(header::HOST, host).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        (response.status(), response.headers().clone())
    }

    #[tokio::test]
    async fn only_who_knows_the_secret_and_asks_by_our_name_is_answered() {
        let own = "127.0.0.1:8645";
        let (status, headers) = asked("/abc/", own, "GET").await;
        assert_eq!(status, StatusCode::OK);
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
        assert_eq!(asked("/abc/page.js", "localhost:8645", "GET").await.0, StatusCode::OK);
        assert_eq!(asked("/abc/status", own, "GET").await.0, StatusCode::OK);
        assert_eq!(asked("/", own, "GET").await.0, StatusCode::NOT_FOUND);
        assert_eq!(asked("/abd/status", own, "GET").await.0, StatusCode::NOT_FOUND);
        for host in ["evil.example:8645", "127.0.0.1", "127.0.0.1:80", ""] {
            assert_eq!(asked("/abc/status", host, "GET").await.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
    }

    #[tokio::test]
    async fn nothing_can_be_done() {
        for path in ["/abc/sessions", "/abc/sessions/voice%2Fpbx-0%2F0-7", "/abc/status"] {
            assert_eq!(asked(path, "127.0.0.1:8645", "POST").await.0, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        let refresh = asked("/abc/sessions/voice%2Fpbx-0%2F0-7/refresh", "127.0.0.1:8645", "POST").await.0;
        assert_eq!(refresh, StatusCode::NOT_FOUND);
    }

    #[test]
    fn secrets_differ() {
        let (a, b) = (secret().unwrap(), secret().unwrap());
        assert!(a != b && a.len() == 32, "{a} {b}");
    }
}
