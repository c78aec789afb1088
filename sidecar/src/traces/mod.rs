//! Traces for an OpenTelemetry collector: one span for each session, made of what the core tells.
//!
//! ```text
//!          ┌─ Setup: trace, parent, events ─┐ 2xx   ┌─ Session: span, events ─┐ end
//! INVITE ─►│                                ├──────►│                         ├─────► sipwarden_otlp::Spans ─► collector
//!          └────────────────────────────────┘       └─────────────────────────┘
//!                          │ 422: a short span of its own
//! ```
//!
//! A side table beside each shard, with limits; the core knows nothing of it. Where no collector is named none of this
//! exists. A span leaves whole when its session ends: spans cannot be changed once they are out, and what a running
//! session does is in `/sessions` and in the log, with the same trace id.
//!
//! It must not decide anything about calls, nor ever wait.

mod span;
mod table;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use sipwarden_otlp::opentelemetry::trace::{SpanKind, TraceContextExt, TraceId};
use sipwarden_otlp::opentelemetry::{Context, propagation::TextMapPropagator};
use sipwarden_otlp::sdk::propagation::TraceContextPropagator;
use sipwarden_otlp::sdk::trace::{IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample};
use sipwarden_otlp::{Count, Otlp, Service, Spans};
use sipwarden_session_timer::{Event, EventKind, Flow, Policy, SessionId};
use sipwarden_shard::Shard;
use sipwarden_sip::{Message, Method};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use self::span::{Carrier, Names, Trace};
use self::table::{Session, Setup, Table};
use crate::metrics::{Limit, Metrics};
use crate::transport::Endpoint;

/// Sessions, and as many calls being set up, that may be traced at once in a process; others are not, and counted.
/// A session takes about a kilobyte, four at most.
const MAX_TRACED: usize = 16_384;
/// What nothing is heard of any more is looked for this often.
const SWEEP: Duration = Duration::from_secs(10);
/// What is unsent when the process ends gets this long.
const FLUSH: Duration = Duration::from_secs(2);

/// What a shard was shown when it told something; nothing when time did it.
#[derive(Clone, Copy)]
pub struct Cause<'a, 'b> {
    /// Where it came from.
    pub flow: Flow,
    /// The message.
    pub message: &'a Message<'b>,
    /// Whether spans that it begins or makes show the users of SIP URIs.
    pub reveal: bool,
}

/// The traces of all shards.
pub struct Traces {
    tables: Box<[Mutex<Table>]>,
    /// Of one shard's setups, and of its sessions.
    limit: usize,
    keys: RandomState,
    sampler: Sampler,
    ids: RandomIdGenerator,
    names: Names,
    spans: Spans,
    metrics: Arc<Metrics>,
}

/// [`Traces`] with the task that sends them.
pub struct Tracing {
    /// What shards tell.
    pub traces: Arc<Traces>,
    exporting: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

/// What happens to one shard in one go. When it is dropped, what was refused becomes a span.
pub struct Turn<'t, 'a, 'b> {
    traces: &'t Traces,
    table: MutexGuard<'t, Table>,
    shard: usize,
    cause: Option<Cause<'a, 'b>>,
    /// Of the setup that the message belongs to.
    key: Option<u64>,
    now: SystemTime,
}

impl Tracing {
    /// Traces of a process with that many shards, on their way to a collector from now on.
    ///
    /// # Errors
    /// The exporter cannot be made as the environment asks.
    pub fn begin(
        otlp: &Otlp,
        shards: usize,
        endpoints: Vec<Endpoint>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Tracing> {
        let service = Service { name: "sipwarden-sidecar", version: env!("CARGO_PKG_VERSION") };
        let count: Count = Arc::new({
            let metrics = metrics.clone();
            move |fate, spans| metrics.spans(fate, spans)
        });
        let (spans, exporter) = sipwarden_otlp::pipeline(&otlp.endpoint, service, count)
            .with_context(|| format!("--otlp {}", otlp.endpoint))?;
        info!(target: "sipwarden::otlp", endpoint = %otlp.endpoint, ratio = %otlp.ratio, "sessions are traced");
        let (end, ended) = oneshot::channel();
        let exporting = tokio::spawn(exporter.run(async {
            let _ = ended.await;
        }));
        let traces = Arc::new(Traces {
            tables: (0..shards).map(|_| Mutex::default()).collect(),
            limit: MAX_TRACED / shards,
            keys: RandomState::new(),
            sampler: Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.ratio.get()))),
            ids: RandomIdGenerator::default(),
            names: Names::new(endpoints),
            spans,
            metrics,
        });
        Ok(Tracing { traces, exporting, end })
    }

    /// The spans of sessions that go on without us leave as they are, and so does what waits, if it can be quickly.
    pub async fn finish(self) {
        let sent = timeout(FLUSH, async {
            self.traces.finish().await;
            drop(self.end);
            self.exporting.await
        });
        if sent.await.is_err() {
            warn!(target: "sipwarden::otlp", "not every span could be sent");
        }
    }
}

impl Traces {
    /// Call it with everything a shard was shown, and before what it told is reported; `None`: it is nothing to us.
    pub fn turn<'t, 'a, 'b>(
        &'t self,
        shard: usize,
        cause: Option<Cause<'a, 'b>>,
        events: &[Event],
    ) -> Option<Turn<'t, 'a, 'b>> {
        let invite = cause.map(|cause| cause.message).filter(|message| is_of_invite(message));
        if invite.is_none() && events.is_empty() {
            return None;
        }
        let key = invite.and_then(|message| self.key(message));
        let mut turn = Turn { traces: self, table: self.table(shard), shard, cause, key, now: SystemTime::now() };
        if let (Some(key), Some(message)) = (key, invite) {
            turn.follow(key, message);
        }
        Some(turn)
    }

    /// The trace of a session.
    pub fn trace_id(&self, shard: usize, id: SessionId) -> Option<TraceId> {
        self.table(shard).trace_id(id)
    }

    /// Drops what nothing is heard of any more, from time to time; never ends.
    pub async fn follow(&self) {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = SystemTime::now();
            for index in 0..self.tables.len() {
                let silent = self.table(index).sweep(now);
                silent.into_iter().for_each(|session| self.spans.send(self.names.session(session, now)));
            }
        }
    }

    async fn finish(&self) {
        let now = SystemTime::now();
        for index in 0..self.tables.len() {
            let sessions = std::mem::take(&mut self.table(index).sessions);
            for session in sessions.into_values() {
                self.spans.send_when_there_is_room(self.names.session(session, now)).await;
            }
        }
    }

    fn table(&self, shard: usize) -> MutexGuard<'_, Table> {
        self.tables[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's tag and the Call-ID, which an INVITE, those that follow a refused one, and their responses share.
    fn key(&self, message: &Message) -> Option<u64> {
        Some(self.keys.hash_one((message.call_id()?, message.from_tag()?)))
    }

    /// The trace that `message` asks to be part of, `before` where it asks for none, else a new one.
    fn trace(&self, message: Option<&Message>, before: Option<Trace>) -> Trace {
        let asked = message.and_then(|message| {
            let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(message));
            context.has_active_span().then_some(context)
        });
        let Some(parent) = asked else {
            return before.unwrap_or_else(|| {
                let id = self.ids.new_trace_id();
                Trace::root(id, self.samples(None, id))
            });
        };
        let span = parent.span().span_context().clone();
        Trace::below(&span, self.samples(Some(&parent), span.trace_id()))
    }

    fn samples(&self, parent: Option<&Context>, id: TraceId) -> bool {
        let result = self.sampler.should_sample(parent, id, span::SESSION, &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }
}

impl Turn<'_, '_, '_> {
    /// Takes note of an event; returns the trace it is part of. `policy` finds the one that decided.
    pub fn event(&mut self, event: &Event, shard: &Shard, policy: impl FnOnce() -> Arc<Policy>) -> Option<TraceId> {
        match event.session {
            Some(id) => self.session_event(id, event, shard),
            None => self.setup_event(event, policy),
        }
    }

    /// An INVITE outside a dialog, or a response to one.
    fn follow(&mut self, key: u64, message: &Message) {
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        let full = self.table.setups.len() >= self.traces.limit;
        match (message.status(), self.table.setups.get_mut(&key)) {
            (Some(status), Some(setup)) => setup.answered(status, self.now),
            (Some(_), None) => {}
            // Retransmitted.
            (None, Some(setup)) if setup.cseq == cseq => {}
            (None, Some(setup)) => {
                let trace = self.traces.trace(Some(message), Some(setup.trace.clone()));
                *setup = Setup::new(trace, cseq, self.now);
            }
            (None, None) if full => self.traces.metrics.limit(Limit::Traces),
            (None, None) => {
                let trace = self.traces.trace(Some(message), None);
                self.table.setups.insert(key, Setup::new(trace, cseq, self.now));
            }
        }
    }

    fn setup_event(&mut self, event: &Event, policy: impl FnOnce() -> Arc<Policy>) -> Option<TraceId> {
        let setup = self.table.setups.get_mut(&self.key?).filter(|setup| setup.trace.sampled)?;
        setup.tell(self.now, event, policy);
        Some(setup.trace.id)
    }

    fn session_event(&mut self, id: SessionId, event: &Event, shard: &Shard) -> Option<TraceId> {
        if !self.table.sessions.contains_key(&id)
            && let Some(session) = self.begin(id, event, shard)
        {
            self.table.sessions.insert(id, session);
        }
        if let Some(session) = self.table.sessions.get_mut(&id) {
            session.tell(self.now, event, shard, id);
            if session.is_over()
                && let Some(session) = self.table.take(id, self.now, self.traces.limit)
            {
                self.traces.spans.send(self.traces.names.session(session, self.now));
            }
        }
        self.table.trace_id(id)
    }

    /// A session begins with what is told of the 2xx to its INVITE. Where that INVITE is not known, it begins now.
    fn begin(&mut self, id: SessionId, event: &Event, shard: &Shard) -> Option<Session> {
        let answer = self.cause.filter(|cause| cause.message.status().is_some_and(|status| status / 100 == 2))?;
        let established = matches!(event.kind, EventKind::Established { .. });
        let Table { setups, sessions, .. } = &mut *self.table;
        let setup = self.key.and_then(|key| setups.get_mut(&key));
        let (trace, started, events) = match setup {
            Some(setup) => (setup.trace.clone(), setup.started, &mut setup.events),
            None if established => (self.traces.trace(None, None), self.now, &mut Default::default()),
            None => return None,
        };
        if !trace.sampled {
            return None;
        }
        if sessions.len() >= self.traces.limit {
            // Told of it several times, it is counted once.
            if established {
                self.traces.metrics.limit(Limit::Traces);
            }
            return None;
        }
        debug_assert!(is_of_invite(answer.message), "sessions begin with a 2xx to INVITE");
        let view = shard.dialogs().session(id)?;
        let attributes = self.traces.names.attributes(self.shard, &view, answer.reveal);
        // What was told of the INVITE is the first fork's.
        let events = std::mem::take(events);
        Some(Session::new(trace, self.traces.ids.new_span_id(), started, events, attributes, &view))
    }
}

impl Drop for Turn<'_, '_, '_> {
    fn drop(&mut self) {
        let (Some(key), Some(cause)) = (self.key, self.cause) else { return };
        let Some(refused) = self.table.setups.get_mut(&key).and_then(Setup::take_refused) else { return };
        let span = self.traces.ids.new_span_id();
        self.traces.spans.send(self.traces.names.refusal(refused, span, cause, self.now));
    }
}

/// An INVITE outside a dialog, or any response to an INVITE.
fn is_of_invite(message: &Message) -> bool {
    match message.method() {
        Some(method) => method == Method::Invite && message.to_tag().is_none(),
        None => message.cseq().is_ok_and(|cseq| cseq.method == Method::Invite),
    }
}
