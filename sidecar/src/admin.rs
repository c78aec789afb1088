//! The admin interface: the status interface, sessions, and what may be done to them. Plain HTTP on loopback, because
//! it tells who calls whom; whoever acts needs the admin token as well.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use sipwarden_session_timer::{SessionId, VerbError};
use tracing::info;

use crate::history::{Counts, History};
use crate::host;
use crate::hub::Hub;
use crate::logs::LogFilter;
use crate::record::{self, Reader};
use crate::report::parse_session_name;
use crate::sessions::{Filter, Presenter, StateFilter};
use crate::status::Status;
use crate::token::{self, AdminToken};
use crate::view;

const DEFAULT_PAGE: usize = 100;

/// What the handlers look at.
#[derive(Clone)]
pub struct Admin {
    /// What the status interface shows too.
    pub status: Status,
    /// The log filter.
    pub log_filter: LogFilter,
    /// Who may act.
    pub token: AdminToken,
    /// The last hour.
    pub history: Arc<History>,
}

/// `?limit=&offset=&reveal=`, and what to show only: `&state=&peer=&policy=&call_id=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    limit: Option<usize>,
    #[serde(default)]
    offset: usize,
    /// Show the users of SIP URIs.
    #[serde(default)]
    reveal: bool,
    state: Option<StateFilter>,
    peer: Option<String>,
    policy: Option<String>,
    call_id: Option<String>,
}

/// `?reveal=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    /// Show the users of SIP URIs.
    #[serde(default)]
    reveal: bool,
}

impl Admin {
    /// All routes.
    pub fn router(self) -> Router {
        let guard = || from_fn_with_state(self.token.clone(), token::require);
        let verbs = Router::new()
            .route("/sessions/{id}/refresh", post(refresh))
            .route("/sessions/{id}/end", post(end))
            .route_layer(guard());
        let filter = Router::new().route("/log-filter", put(log_filter));
        let filter = if self.token.is_set() { filter.route_layer(guard()) } else { filter };
        let own = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/sessions", get(sessions))
            .route("/sessions/{id}", get(session))
            .route("/history", get(history));
        let status = self.status.clone().router();
        let remembered = record::router(Reader::new(self.status.hub.clone()), self.status.policy.clone());
        own.merge(verbs)
            .merge(filter)
            .with_state(self)
            .merge(status)
            .merge(remembered)
            .merge(view::router())
            .layer(from_fn(host::require_own))
    }

    fn presenter(&self) -> Presenter {
        Presenter::new(self.status.hub.clone(), self.status.clock_speed)
    }

    /// Does `verb` to the session of that name.
    fn act(
        &self,
        name: &str,
        asked: &'static str,
        verb: fn(&Hub, usize, SessionId) -> Result<(), VerbError>,
    ) -> Response {
        let Some((index, id)) = parse_session_name(name) else {
            return refusal(VerbError::NoSuchSession);
        };
        let done = verb(&self.status.hub, index, id);
        let refused = done.err().map(tracing::field::display);
        info!(target: "sipwarden::session", session = name, refused, "{asked} was asked for");
        match done {
            Ok(()) => (StatusCode::ACCEPTED, "asked; the session tells what comes of it\n").into_response(),
            Err(error) => refusal(error),
        }
    }
}

async fn sessions(State(admin): State<Admin>, Query(query): Query<SessionsQuery>) -> Response {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    let SessionsQuery { offset, reveal, state, peer, policy, call_id, .. } = query;
    let filter = Filter::new(state, peer, policy, call_id);
    let reveal = reveal || admin.status.hub.shows_users();
    Json(admin.presenter().page(&filter, offset, limit, reveal)).into_response()
}

async fn session(State(admin): State<Admin>, Path(id): Path<String>, Query(query): Query<SessionQuery>) -> Response {
    match admin.presenter().find(&id, query.reveal || admin.status.hub.shows_users()) {
        Some(session) => Json(session).into_response(),
        None => (StatusCode::NOT_FOUND, "no such session\n").into_response(),
    }
}

async fn history(State(admin): State<Admin>) -> Response {
    let hub = &admin.status.hub;
    Json(admin.history.report(hub.now(), Counts::of(&hub.metrics, hub.active()))).into_response()
}

async fn refresh(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    admin.act(&id, "a refresh", Hub::refresh_now)
}

async fn end(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    admin.act(&id, "the end", Hub::end_now)
}

async fn log_filter(State(admin): State<Admin>, filter: String) -> Response {
    match admin.log_filter.set(&filter) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

fn refusal(error: VerbError) -> Response {
    let status = match error {
        VerbError::NoSuchSession => StatusCode::NOT_FOUND,
        VerbError::NotActing | VerbError::Busy => StatusCode::CONFLICT,
    };
    (status, format!("{error}\n")).into_response()
}
