//! Writes what the index says differs: only on the leader, with bounded concurrency, each object by one task at a time, pods
//! before all others.
//!
//! A failed write is tried again with what is wanted then. The field manager is ours, so that what people and other
//! controllers write into the same objects stays theirs.
//!
//! No finalizers: what we make is owned by workloads and collected with them, and the deletion of a policy is seen by
//! the watch or by the next list, whose absences count.

mod configs;
mod deliveries;
mod events;
mod pods;
mod tell;

use std::{fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration};

use kube::Client;
use tokio::{task::JoinSet, time::timeout};
use tracing::{Instrument, field::Empty, info_span};

pub use self::deliveries::Deliveries;
pub use self::events::{EventSink, Note, spawn as spawn_events};
pub(crate) use self::pods::nudge;
use crate::{
    metrics::{Metrics, WriteOutcome, Written},
    queue::{Outcome, Queue, Task},
    state::{Queues, State},
};

/// In `managedFields`.
pub const FIELD_MANAGER: &str = "sipwarden-operator";

/// Writes at the same time, some milliseconds each: what an API server does beside its other work.
const WORKERS: usize = 32;
/// For one write, on a connection that may have died.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const NOT_FOUND: u16 = 404;

/// What all writers need.
#[derive(Clone)]
pub struct Writer {
    /// To the API server.
    pub client: Client,
    /// Says what to write.
    pub state: Arc<State>,
    /// What they count.
    pub metrics: Metrics,
    /// Where Events go.
    pub events: EventSink,
    /// What sidecars have yet to obey.
    pub deliveries: Deliveries,
}

impl Writer {
    /// Starts all writers. They end with the set.
    pub fn start(&self, tasks: &mut JoinSet<()>) {
        for _ in 0..WORKERS {
            let writer = self.clone();
            tasks.spawn(async move { writer.work_by_rank().await });
        }
        // However many pods change all the time, the others have their turn.
        let writer = self.clone();
        tasks.spawn(async move { work(&writer.state.queues.configs, |task| configs::write(&writer, task)).await });
        let writer = self.clone();
        tasks.spawn(async move { work(&writer.state.queues.told, |task| tell::write(&writer, task)).await });
    }

    /// Pods come first, since calls are judged by what they carry; what people read comes last.
    async fn work_by_rank(&self) {
        let Queues { pods, configs, told, .. } = &self.state.queues;
        loop {
            tokio::select! {
                biased;
                task = pods.next() => work_on(pods, task, |task| pods::write(self, task)).await,
                task = configs.next() => work_on(configs, task, |task| configs::write(self, task)).await,
                task = told.next() => work_on(told, task, |task| tell::write(self, task)).await,
            }
        }
    }

    /// Counts and tells what became of a write; the answer if it is written.
    async fn attempt<T>(
        &self,
        written: Written,
        name: &str,
        write: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Outcome> {
        let span = info_span!("write", otel.kind = "client", kind = written.as_str(), name, outcome = Empty);
        let (outcome, result) = match timeout(WRITE_TIMEOUT, write).instrument(span.clone()).await {
            Ok(Ok(answer)) => (WriteOutcome::Written, Ok(answer)),
            Ok(Err(kube::Error::Api(status))) if status.code == NOT_FOUND => (WriteOutcome::Gone, Err(Outcome::Done)),
            Ok(Err(error)) => {
                tracing::warn!(%error, name, kind = written.as_str(), "a write failed; trying again");
                (WriteOutcome::Failed, Err(Outcome::Retry))
            }
            Err(_) => {
                tracing::warn!(name, kind = written.as_str(), "a write was not answered; trying again");
                (WriteOutcome::Failed, Err(Outcome::Retry))
            }
        };
        span.record("outcome", outcome.as_str());
        self.metrics.write(written, outcome);
        result
    }
}

/// Works off a queue, for ever.
pub(crate) async fn work<K, F>(queue: &Queue<K>, mut write: impl FnMut(Task<K>) -> F)
where
    K: Clone + Debug + Eq + Hash,
    F: Future<Output = Outcome>,
{
    loop {
        work_on(queue, queue.next().await, &mut write).await;
    }
}

async fn work_on<K, F>(queue: &Queue<K>, task: Task<K>, write: impl FnOnce(Task<K>) -> F)
where
    K: Clone + Debug + Eq + Hash,
    F: Future<Output = Outcome>,
{
    let key = task.key.clone();
    let span = info_span!("reconcile", ?key);
    let outcome = write(task).instrument(span).await;
    queue.done(key, outcome);
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use axum::http::{Request, Response};
    use kube::client::Body;
    use sipwarden_crds::SessionPolicy;
    use tokio::time::sleep;
    use tower::service_fn;

    use super::*;
    use crate::index::{Index, Key, NamespaceState, Owner, PodFacts, WorkloadFacts, WorkloadRef};

    const WORKLOADS: usize = 3;
    /// More than are written at the same time.
    const PODS: usize = WORKERS + 8;

    /// A policy that nobody obeys yet.
    fn tell(index: &mut Index) {
        let labels = [("sipwarden.dev/inject".to_owned(), "enabled".to_owned())].into();
        index.namespace("voice", NamespaceState { labels, paused: false });
        let mut policy = SessionPolicy::new("carrier", Default::default());
        policy.metadata.namespace = Some("voice".to_owned());
        index.policy(policy, None);
        for name in (0..WORKLOADS).map(|number| format!("pbx-{number}")) {
            let (api_version, kind, uid) = ("apps/v1".to_owned(), "Deployment".to_owned(), String::new());
            let owner = Owner { api_version, kind, name, uid };
            index.workload("voice", WorkloadFacts { owner, pod_labels: Default::default() });
        }
        for number in 0..PODS {
            let config_name = format!("deployment-pbx-{}", number % WORKLOADS);
            let facts = PodFacts {
                uid: String::new(),
                labels: Default::default(),
                workload: WorkloadRef { config_name, owner: None },
                created: None,
                annotation: None,
                ip: None,
                terminating: false,
            };
            index.pod(&Key::new("voice", format!("pod-{number}")), facts);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_that_a_change_asks_for_pods_are_written_first() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let server = service_fn({
            let asked = asked.clone();
            move |request: Request<Body>| {
                asked.lock().expect("no panic").push(request.uri().path().to_owned());
                async {
                    sleep(Duration::from_millis(5)).await;
                    let gone = r#"{"kind":"Status","status":"Failure","message":"","reason":"NotFound","code":404}"#;
                    let answer = Response::builder().status(NOT_FOUND).body(Body::from(gone.as_bytes().to_vec()));
                    Ok::<_, Infallible>(answer.expect("a response"))
                }
            }
        });
        let client = Client::new(server, "default");
        let metrics = Metrics::new().expect("metrics");
        let events = spawn_events(client.clone(), "one".to_owned(), metrics.clone());
        let state = Arc::new(State::new("default"));
        state.update(tell);
        state.lead();
        let mut tasks = JoinSet::new();
        Writer { client, state, metrics, events, deliveries: Deliveries::default() }.start(&mut tasks);
        sleep(Duration::from_secs(1)).await;

        let asked = asked.lock().expect("no panic");
        let places = |part: &str| -> Vec<usize> {
            asked.iter().enumerate().filter(|(_, path)| path.contains(part)).map(|(place, _)| place).collect()
        };
        let (pods, configs) = (places("/pods/"), places("/sidecarconfigs/"));
        assert_eq!((pods.len(), configs.len()), (PODS, WORKLOADS + 1), "{asked:?}");
        let before_the_last_pod = configs.iter().filter(|place| Some(*place) < pods.last()).count();
        assert!((1..WORKLOADS).contains(&before_the_last_pod), "{before_the_last_pod}: few but some; {asked:?}");
    }
}
