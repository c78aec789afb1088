//! The queue between whoever ends spans and the collector.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::Endpoint;

/// Spans that wait. A span of a long session has up to some ten kilobytes.
const QUEUE: usize = 1024;
/// Most spans of one request.
const BATCH: usize = 256;
/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// What became of spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The collector has them.
    Exported,
    /// Lost: too many were waiting.
    QueueFull,
    /// Lost: the collector refused them, or did not answer in time.
    Failed,
}

impl Fate {
    /// All of them.
    pub const ALL: [Fate; 3] = [Fate::Exported, Fate::QueueFull, Fate::Failed];

    /// As in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fate::Exported => "Exported",
            Fate::QueueFull => "QueueFull",
            Fate::Failed => "Failed",
        }
    }
}

/// Is told what became of how many spans. Must return at once.
pub type Count = Arc<dyn Fn(Fate, u64) + Send + Sync>;

/// Takes finished spans. Cheap to clone.
#[derive(Clone)]
pub struct Spans {
    sender: mpsc::Sender<SpanData>,
    count: Count,
}

/// Sends what [`Spans`] took.
pub struct Exporter {
    inner: SpanExporter,
    endpoint: Endpoint,
    spans: mpsc::Receiver<SpanData>,
    count: Count,
    /// The last batch was lost.
    failing: bool,
}

pub(crate) fn queue(inner: SpanExporter, endpoint: Endpoint, count: Count) -> (Spans, Exporter) {
    let (sender, spans) = mpsc::channel(QUEUE);
    (Spans { sender, count: count.clone() }, Exporter { inner, endpoint, spans, count, failing: false })
}

impl Spans {
    /// Takes `span`, or loses and counts it when too many wait. Never waits.
    pub fn send(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            (self.count)(Fate::QueueFull, 1);
        }
    }

    /// [`Self::send`] for the end of a process: waits for room.
    pub async fn send_when_there_is_room(&self, span: SpanData) {
        if self.sender.send(span).await.is_err() {
            (self.count)(Fate::QueueFull, 1);
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Spans").field("room", &self.sender.capacity()).finish_non_exhaustive()
    }
}

/// For a tracer of the SDK. What waits is sent when the exporter runs out, not by `force_flush`.
impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.send(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Exporter {
    /// Sends spans until `ended`, and then those that wait. Needs a Tokio runtime with IO and time.
    pub async fn run(mut self, ended: impl Future<Output = ()>) {
        let mut ended = pin!(ended);
        let mut open = true;
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                // Cut short when it is full, or when no more can come.
                taken = self.take(&mut batch) => if !taken { return },
                () = &mut ended, if open => {
                    open = false;
                    self.spans.close();
                }
            }
            if !batch.is_empty() {
                self.export(batch).await;
            }
        }
    }

    /// The next batch; false when no more can come.
    async fn take(&mut self, batch: &mut Vec<SpanData>) -> bool {
        if self.spans.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        let _ = timeout(LINGER, self.fill(batch)).await;
        true
    }

    async fn fill(&mut self, batch: &mut Vec<SpanData>) {
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            if self.spans.recv_many(batch, room).await == 0 {
                return;
            }
        }
    }

    /// Tried again for some seconds by the exporter itself; what is lost is told once, until it works again.
    async fn export(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        match self.inner.export(batch).await {
            Ok(()) => {
                (self.count)(Fate::Exported, spans);
                if std::mem::take(&mut self.failing) {
                    info!(target: "sipwarden::otlp", endpoint = %self.endpoint, "the collector takes spans again");
                }
            }
            Err(error) => {
                (self.count)(Fate::Failed, spans);
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        target: "sipwarden::otlp",
                        %error, endpoint = %self.endpoint, spans,
                        "spans are lost: is a collector there, and does it take OTLP over HTTP?"
                    );
                }
            }
        }
    }
}
