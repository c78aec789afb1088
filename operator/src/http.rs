//! Probes and metrics, for the cluster only: `/livez`, `/readyz`, `/metrics`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State as Extracted,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{certs::LeafSlot, metrics::Metrics, state::State, watch::Pulse};

/// Many times the length of a watch: then the connection, the process or the API server is beyond what retries mend.
const MAX_WATCH_AGE: Duration = Duration::from_secs(300);

/// What probes look at.
#[derive(Clone)]
pub struct Health {
    /// What is known.
    pub state: Arc<State>,
    /// Whether watches are answered.
    pub pulse: Pulse,
    /// Whether the webhook can be called.
    pub leaf: Arc<LeafSlot>,
    /// What was counted.
    pub metrics: Metrics,
    /// The process is about to end.
    pub ending: Arc<AtomicBool>,
}

impl Health {
    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// What is missing; nothing if the webhook can be called and knows what it answers.
    fn pending(&self) -> Vec<&'static str> {
        let mut pending = self.state.pending();
        if !self.leaf.is_ready() {
            pending.push("certificate");
        }
        if self.ending.load(Ordering::Relaxed) {
            pending.push("ending");
        }
        pending
    }
}

async fn livez(Extracted(health): Extracted<Health>) -> Response {
    let age = health.pulse.age();
    if age <= MAX_WATCH_AGE {
        return "alive\n".into_response();
    }
    let text = format!("no watch was answered for {} s; check the API server and the operator's RBAC\n", age.as_secs());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn readyz(Extracted(health): Extracted<Health>) -> Response {
    let pending = health.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("pending: {}\n", pending.join(", "))).into_response()
}

async fn metrics(Extracted(health): Extracted<Health>) -> Response {
    match health.metrics.render(&health.state, health.pulse.age()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::state::Watched;

    fn health() -> Health {
        Health {
            state: Arc::new(State::new("default")),
            pulse: Pulse::default(),
            leaf: Arc::new(LeafSlot::default()),
            metrics: Metrics::new().unwrap(),
            ending: Arc::new(AtomicBool::new(false)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_watches_are_not_answered_is_not_alive() {
        let health = health();
        assert_eq!(livez(Extracted(health.clone())).await.status(), StatusCode::OK);
        advance(MAX_WATCH_AGE + Duration::from_secs(1)).await;
        assert_eq!(livez(Extracted(health)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_is_who_knows_everything_and_has_a_certificate() {
        let health = health();
        assert!(health.pending().contains(&"sessionpolicies"));
        Watched::ALL.into_iter().for_each(|watched| health.state.synced(watched));
        assert_eq!(health.pending(), ["certificate"]);
        health.ending.store(true, Ordering::Relaxed);
        assert_eq!(health.pending(), ["certificate", "ending"]);
        assert_eq!(readyz(Extracted(health)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
