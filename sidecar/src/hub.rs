//! What the threads of a process share: the shards, the clock, the connections, and where events go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sipwarden_otlp::opentelemetry::trace::TraceId;
use sipwarden_session_timer::{Event, EventKind, Policy, SessionId, SessionView, Time, VerbError};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::report;
use crate::shard::{Lookup, Resolved, Shard, Target};
use crate::traces::{Cause, Traces, Turn};
use crate::transport::tcp::Streams;
use crate::transport::{Endpoint, Inbound};

/// Full tables are told this often at most: one line for each call would be a flood of its own.
const LIMIT_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The shared parts of a process.
pub struct Hub {
    /// Our sockets; `Flow::endpoint` indexes them.
    pub endpoints: Vec<Endpoint>,
    /// What Prometheus sees.
    pub metrics: Arc<Metrics>,
    /// Stream connections.
    pub streams: Streams,
    /// Key of the hash that spreads calls over shards.
    pub key: u64,
    /// Log lines show the users of SIP URIs.
    pub log_sip_users: bool,
    shards: Box<[Slot]>,
    policy: RwLock<Arc<Policy>>,
    lookups: mpsc::UnboundedSender<(usize, Lookup)>,
    watcher: Option<mpsc::UnboundedSender<(usize, Event)>>,
    traces: Option<Arc<Traces>>,
    start: Instant,
    limit_logged_ms: AtomicU64,
}

/// What a worker is told by other threads.
#[derive(Debug)]
pub enum Command {
    /// Handle this message.
    Message(Inbound),
    /// Your shard has an earlier timer than you know.
    Rearm,
}

/// The parts of a [`Hub`] that have no default.
pub struct HubParts {
    /// See [`Hub::endpoints`].
    pub endpoints: Vec<Endpoint>,
    /// See [`Hub::metrics`].
    pub metrics: Arc<Metrics>,
    /// See [`Hub::streams`].
    pub streams: Streams,
    /// See [`Hub::key`].
    pub key: u64,
    /// See [`Hub::log_sip_users`].
    pub log_sip_users: bool,
    /// Each shard with the way to the worker that runs its timers.
    pub shards: Vec<(Shard, mpsc::Sender<Command>)>,
    /// The policy they were made with.
    pub policy: Arc<Policy>,
    /// Names to look up, with the shard that asks. Shards bound how many wait.
    pub lookups: mpsc::UnboundedSender<(usize, Lookup)>,
    /// Gets every event with its shard.
    pub watcher: Option<mpsc::UnboundedSender<(usize, Event)>>,
    /// Where sessions are traced, if anywhere.
    pub traces: Option<Arc<Traces>>,
}

struct Slot {
    shard: Mutex<Shard>,
    /// When its worker will look at its timers, in milliseconds.
    armed_ms: AtomicU64,
    worker: mpsc::Sender<Command>,
}

impl Hub {
    /// Later than any timer.
    pub const NEVER: Time = Time::from_millis(100 * 365 * 24 * 3600 * 1000);

    /// Time begins now.
    pub fn new(parts: HubParts) -> Hub {
        let HubParts { endpoints, metrics, streams, key, log_sip_users, shards, policy, lookups, watcher, traces } =
            parts;
        let slot = |(shard, worker)| Slot {
            shard: Mutex::new(shard),
            armed_ms: AtomicU64::new(Hub::NEVER.as_millis()),
            worker,
        };
        Hub {
            endpoints,
            metrics,
            streams,
            key,
            log_sip_users,
            shards: shards.into_iter().map(slot).collect(),
            policy: RwLock::new(policy),
            lookups,
            watcher,
            traces,
            start: Instant::now(),
            limit_logged_ms: AtomicU64::new(0),
        }
    }

    /// The time of the core.
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// When the core's `time` is, on the runtime's clock.
    pub fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.start + time.since(Time::ZERO)).into()
    }

    /// How many shards there are.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Locks a shard, for as short as can be.
    pub fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the timers of shard `index` are due; its worker will look then.
    pub fn arm_own(&self, index: usize) -> Option<Time> {
        let shard = self.shard(index);
        let next = shard.next_timeout();
        self.shards[index].armed_ms.store(next.unwrap_or(Hub::NEVER).as_millis(), Ordering::Relaxed);
        next
    }

    /// Tells the worker of shard `index` when the shard, which the caller holds, has an earlier timer than it knows.
    pub fn arm(&self, index: usize, shard: &Shard) {
        let slot = &self.shards[index];
        let Some(next) = shard.next_timeout() else { return };
        if next.as_millis() < slot.armed_ms.load(Ordering::Relaxed) {
            slot.armed_ms.store(next.as_millis(), Ordering::Relaxed);
            // A full queue means that it is about to look anyway.
            let _ = slot.worker.try_send(Command::Rearm);
        }
    }

    /// Counts, logs, traces and shows the events of a shard, which the caller holds, and clears them. `cause` is what the
    /// shard was shown.
    pub fn report(&self, index: usize, shard: &Shard, cause: Option<Cause>, events: &mut Vec<Event>) {
        let mut turn = self.traces.as_ref().and_then(|traces| traces.turn(index, cause, events));
        for event in events.drain(..) {
            self.metrics.event(&event);
            if let Some(watcher) = &self.watcher {
                let _ = watcher.send((index, event));
            }
            let policy = || self.policy_of(shard, &event);
            let trace = turn.as_mut().and_then(|turn: &mut Turn| turn.event(&event, shard, policy));
            if !matches!(event.kind, EventKind::LimitReached { .. }) || self.may_log_limit() {
                report::log(index, &event, trace, policy);
            }
        }
    }

    /// Asks the resolver.
    pub fn look_up(&self, index: usize, lookup: Lookup) {
        // Without a resolver the process is ending.
        let _ = self.lookups.send((index, lookup));
    }

    /// Tells a shard what a name came to.
    pub fn resolved(&self, index: usize, target: &Target, answer: Resolved, ttl: Duration) {
        self.shard(index).resolved(self.now(), target, answer, ttl);
    }

    /// New calls and refreshes are judged by `policy` from now on.
    pub fn set_policy(&self, policy: &Arc<Policy>) {
        for index in 0..self.shards.len() {
            self.shard(index).set_policy(policy.clone());
        }
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy.clone();
    }

    /// Sessions with a 2xx and no end.
    pub fn active(&self) -> usize {
        (0..self.shards.len()).map(|index| self.shard(index).dialogs().active()).sum()
    }

    /// The trace of a session, while it is traced.
    pub fn trace_id(&self, index: usize, id: SessionId) -> Option<TraceId> {
        self.traces.as_ref()?.trace_id(index, id)
    }

    /// One session.
    pub fn session(&self, index: usize, id: SessionId) -> Option<SessionView> {
        if index < self.shards.len() { self.shard(index).dialogs().session(id) } else { None }
    }

    /// Has a session refreshed for the application now.
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn refresh_now(&self, index: usize, id: SessionId) -> Result<(), VerbError> {
        self.ask(index, |shard, now| shard.refresh_now(now, id))
    }

    /// Has a session ended now, by BYE to both sides.
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn end_now(&self, index: usize, id: SessionId) -> Result<(), VerbError> {
        self.ask(index, |shard, now| shard.end_now(now, id))
    }

    /// Its worker does what is asked of a shard.
    fn ask(&self, index: usize, verb: impl FnOnce(&mut Shard, Time) -> Result<(), VerbError>) -> Result<(), VerbError> {
        if index >= self.shards.len() {
            return Err(VerbError::NoSuchSession);
        }
        let mut shard = self.shard(index);
        verb(&mut shard, self.now())?;
        self.arm(index, &shard);
        Ok(())
    }

    /// A session keeps the policy it was negotiated by; before there is one, it is the policy in force.
    fn policy_of(&self, shard: &Shard, event: &Event) -> Arc<Policy> {
        match event.session.and_then(|id| shard.dialogs().session(id)) {
            Some(view) => view.policy,
            None => self.policy.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn may_log_limit(&self) -> bool {
        let now = self.now().as_millis();
        let last = self.limit_logged_ms.load(Ordering::Relaxed);
        let due = last == 0 || u128::from(now - last.min(now)) >= LIMIT_LOG_INTERVAL.as_millis();
        due && self.limit_logged_ms.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
