//! The election, with an API server of one Lease and a clock that the tests move.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use serde_json::json;
use sipwarden_operator::lease::{Election, Leadership, Lost, Timing};
use tokio::time::{Instant, sleep, timeout};

/// The Lease as the API server stores it.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    lease: Option<Lease>,
    version: u64,
    is_down: bool,
}

impl Server {
    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().expect("nobody panics with it")
    }

    fn holder(&self) -> Option<String> {
        self.stored().lease.clone()?.spec?.holder_identity
    }

    fn transitions(&self) -> Option<i32> {
        self.stored().lease.clone()?.spec?.lease_transitions
    }

    /// As another hand would.
    fn change(&self, change: impl FnOnce(&mut Lease)) {
        let mut stored = self.stored();
        stored.version += 1;
        let version = stored.version.to_string();
        let lease = stored.lease.as_mut().expect("a lease");
        change(lease);
        lease.metadata.resource_version = Some(version);
    }

    fn election(&self, identity: &str) -> Election {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Election::new(Client::new(service, "ns"), "ns", "lease".to_owned(), identity.to_owned(), Timing::default())
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.expect("a body in memory");
        let mut stored = self.stored();
        if stored.is_down {
            return refusal(StatusCode::INTERNAL_SERVER_ERROR);
        }
        let known = stored.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if parts.method == Method::GET {
            return stored.lease.as_ref().map_or_else(|| refusal(StatusCode::NOT_FOUND), ok);
        }
        let mut lease: Lease = serde_json::from_slice(&body).expect("a lease");
        if (parts.method == Method::POST) != known.is_none() || lease.metadata.resource_version != known {
            return refusal(StatusCode::CONFLICT);
        }
        stored.version += 1;
        lease.metadata.resource_version = Some(stored.version.to_string());
        stored.lease = Some(lease.clone());
        ok(&lease)
    }
}

fn ok(lease: &Lease) -> Response<Body> {
    Response::new(serde_json::to_vec(lease).expect("JSON").into())
}

fn refusal(code: StatusCode) -> Response<Body> {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason,
        "code": code.as_u16(),
    });
    let response = Response::builder().status(code).body(status.to_string().into());
    response.expect("a response")
}

/// None if it takes longer than `limit`.
async fn won(election: Election, limit: Duration) -> Option<Leadership> {
    timeout(limit, election.win()).await.ok()
}

const AT_ONCE: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn the_first_candidate_wins_and_the_second_waits_as_long_as_it_is_renewed() {
    let server = Server::default();
    let mut first = won(server.election("first"), AT_ONCE).await.unwrap();
    let renewing = tokio::spawn(async move { first.keep().await });
    assert!(won(server.election("second"), MINUTE).await.is_none());
    assert_eq!(server.holder().as_deref(), Some("first"));
    renewing.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_is_taken_after_its_duration() {
    let server = Server::default();
    let _dead = won(server.election("first"), AT_ONCE).await.unwrap();
    let start = Instant::now();
    let second = won(server.election("second"), MINUTE).await;
    assert!(second.is_some());
    let Timing { duration, retry_period, .. } = Timing::default();
    assert!((duration..=duration + retry_period).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!((server.holder().as_deref(), server.transitions()), (Some("second"), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let server = Server::default();
    won(server.election("first"), AT_ONCE).await.unwrap().release().await;
    assert_eq!(server.holder(), None);
    assert!(won(server.election("second"), AT_ONCE).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_restarted_takes_its_own_lease_again() {
    let server = Server::default();
    let _killed = won(server.election("first"), AT_ONCE).await.unwrap();
    assert!(won(server.election("first"), AT_ONCE).await.is_some());
    assert_eq!(server.transitions(), Some(1));
}

#[tokio::test(start_paused = true)]
async fn who_finds_another_holder_has_lost() {
    let server = Server::default();
    let mut first = won(server.election("first"), AT_ONCE).await.unwrap();
    server.change(|lease| lease.spec.as_mut().unwrap().holder_identity = Some("second".to_owned()));
    assert_eq!(timeout(MINUTE, first.keep()).await, Ok(Lost::Taken));
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_annotates_the_lease_takes_nothing() {
    let server = Server::default();
    let mut first = won(server.election("first"), AT_ONCE).await.unwrap();
    server.change(|lease| lease.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into()));
    assert!(timeout(MINUTE, first.keep()).await.is_err(), "it is kept");
    assert!(server.stored().lease.as_ref().unwrap().metadata.annotations.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_has_lost_before_others_may_take_it() {
    let server = Server::default();
    let mut first = won(server.election("first"), AT_ONCE).await.unwrap();
    let start = Instant::now();
    let keeping = tokio::spawn(async move { (first.keep().await, start.elapsed()) });
    sleep(Duration::from_secs(5)).await;
    server.stored().is_down = true;
    let (lost, after) = keeping.await.unwrap();
    assert_eq!(lost, Lost::NotRenewed);
    assert!(after < Duration::from_secs(5) + Timing::default().duration, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_of_the_api_server_costs_nothing() {
    let server = Server::default();
    let mut first = won(server.election("first"), AT_ONCE).await.unwrap();
    let keeping = tokio::spawn(async move { first.keep().await });
    for _ in 0..5 {
        server.stored().is_down = true;
        sleep(Duration::from_secs(6)).await;
        server.stored().is_down = false;
        sleep(Duration::from_secs(6)).await;
    }
    assert!(!keeping.is_finished());
    keeping.abort();
}
