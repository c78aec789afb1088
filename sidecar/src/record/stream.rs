//! Decisions as they happen, one JSON object a line. A reader has no queue: it reads on in what is remembered anyway, and
//! is told what was pushed out before it came to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::Recorder;
use super::decisions::DecisionView;
use super::filter::Filter;
use super::reader::{LOCKED, Reader};

/// Readers at once.
pub(super) const MAX_READERS: usize = 16;
/// New decisions are looked for this often: soon enough for a person, and no work for calls.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A line comes at least this often: the connection is seen to live, and a reader that has gone is noticed.
const KEEPALIVE: Duration = Duration::from_secs(4);

/// Who may read.
#[derive(Clone)]
pub(super) struct Readers(Arc<Semaphore>);

/// A reader, with how far it has read each shard.
struct Following {
    reader: Reader,
    filter: Filter,
    reveal: bool,
    /// Counted as each shard's ring counts.
    next: Vec<u64>,
    /// How many entries of any kind there were when it looked.
    seen: u64,
    _permit: OwnedSemaphorePermit,
}

impl Readers {
    pub(super) fn new() -> Readers {
        Readers(Arc::new(Semaphore::new(MAX_READERS)))
    }

    /// `None` when there are too many.
    pub(super) fn follow(&self, reader: Reader, filter: Filter, reveal: bool) -> Option<Response> {
        let permit = self.0.clone().try_acquire_owned().ok()?;
        let seen = reader.hub.recorded();
        let end = |shard| reader.look(shard, |recorder| recorder.decisions.pushed()).unwrap_or_default();
        let next = reader.shards().map(end).collect();
        let following = Following { reader, filter, reveal, next, seen, _permit: permit };
        let lines = stream::unfold(following, |mut following| async move {
            let lines = following.lines().await;
            Some((Ok::<_, Infallible>(Bytes::from(lines)), following))
        });
        Some(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
    }
}

impl Following {
    /// The next lines, at least one.
    async fn lines(&mut self) -> String {
        let begun = Instant::now();
        loop {
            let recorded = self.reader.hub.recorded();
            if recorded != self.seen {
                let (lines, all) = self.read();
                if all {
                    self.seen = recorded;
                }
                if !lines.is_empty() {
                    return lines;
                }
                if !all {
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            if begun.elapsed() >= KEEPALIVE {
                return line(&json!({"lost": 0}));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// What has come in each shard, a little of it at a time; and whether that was all.
    fn read(&mut self) -> (String, bool) {
        let (mut views, mut lost, mut all) = (Vec::new(), 0, true);
        for shard in self.reader.shards() {
            let next = self.next[shard];
            let look = |recorder: &Recorder| recorder.decisions.read_from(next, LOCKED);
            let Some((missed, some)) = self.reader.look(shard, look) else { continue };
            lost += missed;
            self.next[shard] = next + missed + some.len() as u64;
            all &= some.len() < LOCKED;
            let fitting = some.iter().map(|read| (self.reader.view(shard, read, self.reveal), &read.text));
            views.extend(fitting.filter(|(view, raw)| self.filter.fits(view, raw)).map(|(view, _)| view));
        }
        views.sort_unstable_by_key(|view: &DecisionView| view.seq);
        let mut lines = if lost > 0 { line(&json!({ "lost": lost })) } else { String::new() };
        views.iter().for_each(|view| lines += &line(&json!(view)));
        (lines, all)
    }
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}
