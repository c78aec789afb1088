//! The admin interface: plain HTTP on loopback, on a thread that no call waits for.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::address::transport_name;
use crate::hub::Hub;
use crate::logs::LogFilter;
use crate::policy_file::PolicyFile;
use crate::readiness::Readiness;
use crate::report::mode_name;
use crate::sessions::Presenter;

const DEFAULT_PAGE: usize = 100;

/// What the handlers look at.
#[derive(Clone)]
pub struct Admin {
    /// The running process.
    pub hub: Arc<Hub>,
    /// What is pending.
    pub readiness: Readiness,
    /// The policy in force.
    pub policy: Arc<PolicyFile>,
    /// The log filter.
    pub log_filter: LogFilter,
    /// Session time runs this many times faster.
    pub clock_speed: u32,
}

/// `?limit=&offset=&reveal=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    /// Show the users of SIP URIs.
    #[serde(default)]
    reveal: bool,
}

impl Admin {
    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/sessions", get(sessions))
            .route("/sessions/{id}", get(session))
            .route("/config", get(config))
            .route("/log-filter", put(log_filter))
            .with_state(self)
    }

    fn presenter(&self) -> Presenter {
        Presenter::new(self.hub.clone(), self.clock_speed)
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let pending = admin.readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("pending: {}\n", pending.join(", "))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.hub.metrics.render(admin.hub.active());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn sessions(State(admin): State<Admin>, Query(query): Query<SessionsQuery>) -> Response {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    Json(admin.presenter().page(query.offset, limit, query.reveal)).into_response()
}

async fn session(State(admin): State<Admin>, Path(id): Path<String>, Query(query): Query<SessionsQuery>) -> Response {
    match admin.presenter().find(&id, query.reveal) {
        Some(session) => Json(session).into_response(),
        None => (StatusCode::NOT_FOUND, "no such session\n").into_response(),
    }
}

async fn config(State(admin): State<Admin>) -> Response {
    let in_force = admin.policy.in_force();
    let endpoint = |endpoint: &crate::transport::Endpoint| {
        json!({
            "side": endpoint.leg.as_str(),
            "transport": transport_name(endpoint.transport),
            "address": endpoint.local.to_string(),
        })
    };
    let source = admin.policy.path().map_or_else(|| "built-in".to_owned(), |path| path.display().to_string());
    Json(json!({
        "source": source,
        "policy": in_force.policy.name,
        "generation": in_force.generation,
        "hash": in_force.hash,
        "mode": mode_name(in_force.mode()),
        "age_s": in_force.since.elapsed().as_secs(),
        "clock_speed": admin.clock_speed,
        "workers": admin.hub.shard_count(),
        "listeners": admin.hub.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    }))
    .into_response()
}

async fn log_filter(State(admin): State<Admin>, filter: String) -> Response {
    match admin.log_filter.set(&filter) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}
