//! The questions of the page, put to many sidecars.
//!
//! The page asks every two seconds, so connections are kept, one for each pod. A session is called `namespace/pod/id`.
//! Who does not answer is named where the page shows problems.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{Method, StatusCode, body::Bytes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::sums;
use crate::{
    cli::DashboardArgs,
    connection::Connection,
    scope::{self, PodRef},
    sidecar::{AskError, Link, Sidecars, Silent, escaped, query, sorted, with_pod},
    wire::{Page, Status},
};

/// Pods that came or went are noticed after this.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// As the sidecar has it.
const DEFAULT_LIMIT: usize = 100;
const MOST: usize = 1000;

/// All sidecars that are shown.
#[derive(Clone)]
pub(super) struct Fleet(Arc<Inner>);

struct Inner {
    connection: Connection,
    args: DashboardArgs,
    sidecars: Sidecars,
    timeout: Duration,
    pods: Mutex<(Instant, Vec<PodRef>)>,
    /// Connections that nobody uses at the moment.
    idle: Mutex<HashMap<PodRef, Link>>,
}

/// What the page asks `/sessions` for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    offset: usize,
    limit: Option<usize>,
    state: Option<String>,
    peer: Option<String>,
    policy: Option<String>,
    call_id: Option<String>,
}

impl Filter {
    fn path(&self, offset: usize, limit: usize) -> String {
        query(
            "/sessions",
            [
                ("offset", Some(offset.to_string())),
                ("limit", Some(limit.to_string())),
                ("state", self.state.clone()),
                ("peer", self.peer.clone()),
                ("policy", self.policy.clone()),
                ("call_id", self.call_id.clone()),
            ],
        )
    }
}

impl Fleet {
    pub(super) fn new(connection: Connection, args: &DashboardArgs, pods: Vec<PodRef>) -> Self {
        let sidecars = Sidecars::new(connection.client.clone(), &args.pods).quiet();
        Self(Arc::new(Inner {
            connection,
            args: args.clone(),
            sidecars,
            timeout: args.pods.timeout(),
            pods: Mutex::new((Instant::now(), pods)),
            idle: Mutex::default(),
        }))
    }

    /// The page of all sidecars' sessions: those of the first pod first.
    pub(super) async fn sessions(&self, filter: &Filter) -> Value {
        let pods = self.pods().await;
        let counts = Arc::new(filter.clone());
        let (counted, _) = self
            .each(&pods, move |fleet, pod| {
                let filter = counts.clone();
                async move { fleet.json::<Page>(&pod, &filter.path(0, 0)).await }
            })
            .await;
        let totals: Vec<(PodRef, usize)> = counted.iter().map(|(pod, page)| (pod.clone(), page.total)).collect();
        let active: usize = counted.iter().map(|(_, page)| page.active).sum();
        let total: usize = totals.iter().map(|(_, total)| total).sum();
        let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(MOST);
        let parts: HashMap<PodRef, (usize, usize)> = sums::parts(&totals, filter.offset, limit).into_iter().collect();
        let asked: Vec<PodRef> = pods.into_iter().filter(|pod| parts.contains_key(pod)).collect();
        let (parts, wanted) = (Arc::new(parts), Arc::new(filter.clone()));
        let (pages, _) = self
            .each(&asked, move |fleet, pod| {
                let ((offset, limit), filter) = (parts[&pod], wanted.clone());
                async move { fleet.json::<Page>(&pod, &filter.path(offset, limit)).await }
            })
            .await;
        let named = |(pod, page): (PodRef, Page)| page.sessions.into_iter().map(move |session| name(&pod, session));
        let sessions: Vec<Value> = pages.into_iter().flat_map(named).collect();
        json!({ "sessions": sessions, "total": total, "active": active })
    }

    pub(super) async fn session(&self, name: &str) -> Result<Value, (StatusCode, String)> {
        let (pod, id) = self.find(name).await?;
        let session = self.json::<Value>(&pod, &format!("/sessions/{}", escaped(&id))).await.map_err(refusal)?;
        Ok(self::name(&pod, session))
    }

    pub(super) async fn messages(&self, name: &str) -> Result<Value, (StatusCode, String)> {
        let (pod, id) = self.find(name).await?;
        self.json(&pod, &format!("/sessions/{}/messages", escaped(&id))).await.map_err(refusal)
    }

    pub(super) async fn history(&self) -> Value {
        let pods = self.pods().await;
        let (came, _) = self.each(&pods, |fleet, pod| async move { fleet.json(&pod, "/history").await }).await;
        sums::history(came.into_iter().map(|(_, history)| history))
    }

    pub(super) async fn status(&self) -> Value {
        let pods = self.pods().await;
        let (came, silent) =
            self.each(&pods, |fleet, pod| async move { fleet.json::<Status>(&pod, "/status").await }).await;
        sums::status(came, silent.iter().map(ToString::to_string).collect())
    }

    /// A pod that is shown, and what its sidecar calls the session.
    async fn find(&self, name: &str) -> Result<(PodRef, String), (StatusCode, String)> {
        let unknown = || (StatusCode::NOT_FOUND, "no such session".to_owned());
        let mut parts = name.splitn(3, '/');
        let (Some(namespace), Some(pod), Some(id)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unknown());
        };
        // No pod is asked that was not chosen, whatever the page says.
        let pod = self.pods().await.into_iter().find(|it| it.namespace == namespace && it.name == pod);
        Ok((pod.ok_or_else(unknown)?, id.to_owned()))
    }

    /// Those there are; a list that cannot be had anew stays.
    async fn pods(&self) -> Vec<PodRef> {
        let (at, pods) = lock(&self.0.pods).clone();
        if at.elapsed() < LOOK_AGAIN {
            return pods;
        }
        let pods = scope::with_sidecar(&self.0.connection, &self.0.args.pods).await.unwrap_or(pods);
        lock(&self.0.idle).retain(|pod, _| pods.contains(pod));
        *lock(&self.0.pods) = (Instant::now(), pods.clone());
        pods
    }

    async fn each<T, F>(&self, pods: &[PodRef], ask: impl Fn(Self, PodRef) -> F) -> (Vec<(PodRef, T)>, Vec<Silent>)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, AskError>> + Send + 'static,
    {
        sorted(self.0.sidecars.each(pods, |_, pod| ask(self.clone(), pod)).await)
    }

    /// On the connection that is kept, or on a new one where that has ended.
    async fn json<T: serde::de::DeserializeOwned>(&self, pod: &PodRef, path: &str) -> Result<T, AskError> {
        let kept = lock(&self.0.idle).remove(pod);
        if let Some(link) = kept {
            match self.ask(link, pod, path).await {
                Err(AskError::Connection(_) | AskError::Unreachable(_)) => {}
                answer => return answer,
            }
        }
        self.ask(self.0.sidecars.link(pod).await?, pod, path).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        mut link: Link,
        pod: &PodRef,
        path: &str,
    ) -> Result<T, AskError> {
        let body = link.exchange(Method::GET, path, Bytes::new(), self.0.timeout).await?;
        lock(&self.0.idle).insert(pod.clone(), link);
        serde_json::from_slice(&body).map_err(|error| AskError::Form(error.to_string()))
    }
}

fn name(pod: &PodRef, session: Value) -> Value {
    let mut session = with_pod(pod, session);
    if let Some(id) = session["id"].as_str() {
        session["id"] = format!("{pod}/{id}").into();
    }
    session
}

fn refusal(error: AskError) -> (StatusCode, String) {
    match error {
        AskError::Status { status, text } => (status, text),
        other => (StatusCode::BAD_GATEWAY, other.to_string()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
