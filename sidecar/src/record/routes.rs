//! What is remembered, over the admin interface.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::filter::DecisionsQuery;
use super::reader::Reader;
use super::stream::{MAX_READERS, Readers};
use crate::credentials::CredentialSet;
use crate::metrics::Limit;
use crate::policy;
use crate::policy_file::PolicyFile;

/// A larger body is no config.
const MAX_CONFIG_LEN: usize = 1 << 20;

#[derive(Clone)]
struct Routes {
    reader: Reader,
    readers: Readers,
    policy: Arc<PolicyFile>,
}

impl Routes {
    /// Are users of SIP URIs shown to who asks so?
    fn reveals(&self, asked: bool) -> bool {
        asked || self.reader.hub.shows_users()
    }
}

/// `?reveal=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevealQuery {
    #[serde(default)]
    reveal: bool,
}

/// `?call_id=&reveal=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallQuery {
    call_id: String,
    #[serde(default)]
    reveal: bool,
}

/// `/decisions`, `/decisions/stream`, `/sessions/{id}/messages`, `/messages`, `/what-if`.
pub fn router(reader: Reader, policy: Arc<PolicyFile>) -> Router {
    Router::new()
        .route("/decisions", get(decisions))
        .route("/decisions/stream", get(stream))
        .route("/sessions/{id}/messages", get(session_messages))
        .route("/messages", get(call_messages))
        .route("/what-if", post(what_if).layer(DefaultBodyLimit::max(MAX_CONFIG_LEN)))
        .with_state(Routes { reader, readers: Readers::new(), policy })
}

async fn decisions(State(routes): State<Routes>, Query(query): Query<DecisionsQuery>) -> Response {
    match routes.reader.decisions(&query, routes.reveals(query.reveal)) {
        Ok(page) => Json(page).into_response(),
        Err(told) => bad_request(&told),
    }
}

async fn stream(State(routes): State<Routes>, Query(query): Query<DecisionsQuery>) -> Response {
    if query.limit.is_some() || query.before.is_some() || query.since.is_some() {
        return bad_request("a stream begins now: limit, before and since are for /decisions");
    }
    let filter = match query.filter() {
        Ok(filter) => filter,
        Err(told) => return bad_request(&told),
    };
    let metrics = routes.reader.hub.metrics.clone();
    let reveal = routes.reveals(query.reveal);
    routes.readers.follow(routes.reader, filter, reveal).unwrap_or_else(|| {
        metrics.limit(Limit::DecisionReaders);
        let told = format!("{MAX_READERS} readers follow the decisions already; close one of them\n");
        (StatusCode::SERVICE_UNAVAILABLE, told).into_response()
    })
}

async fn session_messages(
    State(routes): State<Routes>,
    Path(id): Path<String>,
    Query(query): Query<RevealQuery>,
) -> Response {
    match routes.reader.messages_of_session(&id, routes.reveals(query.reveal)) {
        Some(messages) => Json(messages).into_response(),
        None => (StatusCode::NOT_FOUND, "no such session, and nothing is remembered of it\n").into_response(),
    }
}

async fn call_messages(State(routes): State<Routes>, Query(query): Query<CallQuery>) -> Response {
    Json(routes.reader.messages_of_call(&query.call_id, routes.reveals(query.reveal))).into_response()
}

async fn what_if(State(routes): State<Routes>, Query(query): Query<RevealQuery>, body: Bytes) -> Response {
    let config = match serde_json::from_slice(&body) {
        Ok(config) => config,
        Err(error) => return bad_request(&format!("the body is not a SidecarConfig such as /config shows: {error}")),
    };
    // Credentials decide nothing that is judged again.
    match policy::from_config(&config, &CredentialSet::default()) {
        Ok(then) => {
            let now = routes.policy.in_force().policy;
            Json(routes.reader.what_if(&now, &then, routes.reveals(query.reveal))).into_response()
        }
        Err(error) => bad_request(&format!("policy {}: {error}", config.policy)),
    }
}

fn bad_request(told: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{told}\n")).into_response()
}
