//! What anybody may know of a sidecar: whether it lives and is ready, its metrics, and the policy in force. Plain HTTP,
//! read-only, nothing of any call, and on a thread that no call waits for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sipwarden_crds::SidecarConfig;

use crate::address::transport_name;
use crate::hub::Hub;
use crate::policy_file::PolicyFile;
use crate::readiness::Readiness;
use crate::report::mode_name;

/// What the handlers look at.
#[derive(Clone)]
pub struct Status {
    /// The running process.
    pub hub: Arc<Hub>,
    /// What is pending.
    pub readiness: Readiness,
    /// The policy in force.
    pub policy: Arc<PolicyFile>,
    /// Session time runs this many times faster.
    pub clock_speed: u32,
}

/// `/status`: what the operator compares with what it wants.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    policy: String,
    generation: i64,
    hash: String,
    source: &'static str,
    /// Since the policy came into force.
    age_s: f64,
    mode: &'static str,
    /// With a 2xx and no end.
    sessions: usize,
    /// What is wrong with the policy file and what it names.
    error: Option<String>,
}

/// `/config`: how it is set up, and the whole of what it obeys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Setup {
    #[serde(flatten)]
    report: Report,
    policy_file: Option<String>,
    last_good: Option<String>,
    clock_speed: u32,
    workers: usize,
    listeners: Vec<Listener>,
    config: SidecarConfig,
}

#[derive(Debug, Serialize)]
struct Listener {
    side: &'static str,
    transport: &'static str,
    address: String,
}

impl Status {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .route("/config", get(config))
            .with_state(self)
    }

    fn report(&self) -> Report {
        let in_force = self.policy.in_force();
        let problems = self.policy.problems();
        Report {
            policy: in_force.policy.name.clone(),
            generation: in_force.config.generation,
            hash: in_force.config.hash.clone(),
            source: in_force.source.as_str(),
            age_s: (in_force.since.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            mode: mode_name(in_force.mode()),
            sessions: self.hub.active(),
            error: (!problems.is_empty()).then(|| problems.join("\n")),
        }
    }

    fn setup(&self) -> Setup {
        let sources = self.policy.sources();
        let shown = |path: &std::path::PathBuf| path.display().to_string();
        let listener = |endpoint: &crate::transport::Endpoint| Listener {
            side: endpoint.leg.as_str(),
            transport: transport_name(endpoint.transport),
            address: endpoint.local.to_string(),
        };
        Setup {
            report: self.report(),
            policy_file: sources.file.as_ref().map(shown),
            last_good: sources.last_good.as_ref().map(shown),
            clock_speed: self.clock_speed,
            workers: self.hub.shard_count(),
            listeners: self.hub.endpoints.iter().map(listener).collect(),
            config: Arc::unwrap_or_clone(self.policy.in_force().config),
        }
    }
}

async fn readyz(State(status): State<Status>) -> Response {
    let pending = status.readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("pending: {}\n", pending.join(", "))).into_response()
}

async fn metrics(State(status): State<Status>) -> Response {
    let text = status.hub.metrics.render(status.hub.active());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn status(State(status): State<Status>) -> Response {
    Json(status.report()).into_response()
}

async fn config(State(status): State<Status>) -> Response {
    Json(status.setup()).into_response()
}
