//! Writes what the index says differs: only on the leader, with bounded concurrency, each object by one task at a time.
//!
//! A failed write is tried again with what is wanted then. The field manager is ours, so that what people and other
//! controllers write into the same objects stays theirs.
//!
//! No finalizers: what we make is owned by workloads and collected with them, and the deletion of a policy is seen by
//! the watch or by the next list, whose absences count.

mod configs;
mod events;
mod pods;
mod tell;

use std::{fmt::Debug, future::Future, hash::Hash, sync::Arc, time::Duration};

use kube::Client;
use tokio::{task::JoinSet, time::timeout};
use tracing::{Instrument, field::Empty, info_span};

pub use self::events::{EventSink, Note, spawn as spawn_events};
pub(crate) use self::pods::nudge;
use crate::{
    metrics::{Metrics, WriteOutcome, Written},
    queue::{Outcome, Queue, Task},
    state::State,
};

/// In `managedFields`.
pub const FIELD_MANAGER: &str = "sipwarden-operator";

/// Pods of a policy that changes are patched at the same time; each takes some milliseconds.
const POD_WORKERS: usize = 32;
const CONFIG_WORKERS: usize = 8;
const TELL_WORKERS: usize = 4;
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
}

impl Writer {
    /// Starts all writers. They end with the set.
    pub fn start(&self, tasks: &mut JoinSet<()>) {
        for _ in 0..POD_WORKERS {
            let writer = self.clone();
            tasks.spawn(async move { work(&writer.state.queues.pods, |task| pods::write(&writer, task)).await });
        }
        for _ in 0..CONFIG_WORKERS {
            let writer = self.clone();
            tasks.spawn(async move { work(&writer.state.queues.configs, |task| configs::write(&writer, task)).await });
        }
        for _ in 0..TELL_WORKERS {
            let writer = self.clone();
            tasks.spawn(async move { work(&writer.state.queues.told, |task| tell::write(&writer, task)).await });
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
        let task = queue.next().await;
        let key = task.key.clone();
        let span = info_span!("reconcile", ?key);
        let outcome = write(task).instrument(span).await;
        queue.done(key, outcome);
    }
}
