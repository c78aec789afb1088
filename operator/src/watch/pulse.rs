//! When each watch was last answered: the process is alive as long as they are.
//!
//! kube's watchers tell nothing while nothing happens, so this looks at the requests themselves. Every watch is made anew
//! after [`WATCH_TIMEOUT_S`](super::WATCH_TIMEOUT_S) at the latest.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::Query,
    http::{Method, Request, Response, Uri},
};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// Shared between the client that makes watches and who judges them.
#[derive(Clone)]
pub struct Pulse(Arc<Mutex<Beats>>);

struct Beats {
    started: Instant,
    /// Of watches of the whole cluster: others come and go.
    watches: HashMap<Watch, Instant>,
}

/// What tells a watch apart from others: its path and its label selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watch(String, String);

/// A watch that may end: nobody waits for an answer to it once this is dropped.
pub(super) struct Ending {
    pulse: Pulse,
    watch: Watch,
}

/// Puts a [`Pulse`] around a client.
#[derive(Clone)]
pub struct PulseLayer {
    /// Told of each watch that was answered.
    pub pulse: Pulse,
    /// Told of each request.
    pub metrics: Metrics,
}

/// A client's service with a [`PulseLayer`] around it.
#[derive(Clone)]
pub struct PulseService<S> {
    inner: S,
    layer: PulseLayer,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Beats { started: Instant::now(), watches: HashMap::new() })))
    }
}

impl Pulse {
    /// How long ago the watch that waits longest was answered; the age of the process if there was none.
    pub fn age(&self) -> Duration {
        let beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.watches.values().min().unwrap_or(&beats.started).elapsed()
    }

    /// For a watch of this path and label selector that does not go on for as long as the process.
    pub(super) fn ending(&self, path: &str, labels: &str) -> Ending {
        Ending { pulse: self.clone(), watch: Watch(path.to_owned(), labels.to_owned()) }
    }

    /// A watch that was never answered ages from the first attempt on.
    fn asked(&self, watch: Watch) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.watches.entry(watch).or_insert_with(Instant::now);
    }

    fn answered(&self, watch: Watch) {
        let mut beats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.watches.insert(watch, Instant::now());
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut beats = self.pulse.0.lock().unwrap_or_else(PoisonError::into_inner);
        beats.watches.remove(&self.watch);
    }
}

impl<S> Layer<S> for PulseLayer {
    type Service = PulseService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PulseService { inner, layer: self.clone() }
    }
}

impl<S, A, B> Service<Request<A>> for PulseService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let PulseLayer { pulse, metrics } = self.layer.clone();
        let watch = cluster_watch(request.uri());
        let verb = verb(request.method(), request.uri());
        if let Some(watch) = watch.clone() {
            pulse.asked(watch);
        }
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(|response| response.status());
            metrics.api_request(verb, status);
            if let (Some(watch), Some(true)) = (watch, status.map(|status| status.is_success())) {
                pulse.answered(watch);
            }
            answer
        })
    }
}

/// None for everything but a watch of the whole cluster.
fn cluster_watch(uri: &Uri) -> Option<Watch> {
    is_watch(uri).then_some(())?;
    let path = uri.path();
    if path.contains("/namespaces/") {
        return None;
    }
    let Query(mut parameters) = Query::<HashMap<String, String>>::try_from_uri(uri).ok()?;
    Some(Watch(path.to_owned(), parameters.remove("labelSelector").unwrap_or_default()))
}

fn is_watch(uri: &Uri) -> bool {
    let mut parameters = uri.query().unwrap_or_default().split('&');
    parameters.any(|parameter| matches!(parameter, "watch=true" | "watch=1"))
}

fn verb(method: &Method, uri: &Uri) -> &'static str {
    match *method {
        Method::GET if is_watch(uri) => "watch",
        Method::GET => "read",
        Method::PATCH => "patch",
        Method::POST => "create",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[test]
    fn watches_of_the_whole_cluster_are_told_apart_by_path_and_selector() {
        let watch = |uri: &'static str| cluster_watch(&Uri::from_static(uri));
        let pods = watch("/api/v1/pods?watch=true&timeoutSeconds=45&labelSelector=a%3Db&resourceVersion=7");
        assert_eq!(pods, Some(Watch("/api/v1/pods".to_owned(), "a=b".to_owned())));
        assert_eq!(pods, watch("/api/v1/pods?labelSelector=a%3Db&watch=true&resourceVersion=8"));
        assert_ne!(pods, watch("/api/v1/pods?watch=true&labelSelector=c"));
        assert_eq!(watch("/api/v1/pods?labelSelector=a%3Db"), None);
        assert_eq!(watch("/api/v1/namespaces/voice/pods?watch=true"), None);
        assert!(watch("/api/v1/namespaces?watch=true").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_watch_counts() {
        let [a, b] = ["a", "b"].map(|path| Watch(path.to_owned(), String::new()));
        let pulse = Pulse::default();
        advance(Duration::from_secs(9)).await;
        assert_eq!(pulse.age(), Duration::from_secs(9), "of the process");
        pulse.asked(a.clone());
        pulse.answered(b.clone());
        advance(Duration::from_secs(5)).await;
        pulse.answered(b);
        assert_eq!(pulse.age(), Duration::from_secs(5), "a was never answered");
        pulse.answered(a.clone());
        pulse.asked(a);
        assert_eq!(pulse.age(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ended_does_not_age() {
        let pulse = Pulse::default();
        let ending = pulse.ending("/api/v1/pods", "a=b");
        for uri in ["/api/v1/pods?watch=true&labelSelector=a%3Db", "/api/v1/pods?watch=true"] {
            pulse.answered(cluster_watch(&Uri::from_static(uri)).unwrap());
            advance(Duration::from_secs(2)).await;
        }
        assert_eq!(pulse.age(), Duration::from_secs(4));
        drop(ending);
        assert_eq!(pulse.age(), Duration::from_secs(2), "the other goes on");
    }
}
