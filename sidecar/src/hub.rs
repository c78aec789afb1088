//! What the threads of a process share: the shards, the clock, the connections, and where events go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sipwarden_otlp::opentelemetry::trace::TraceId;
use sipwarden_session_timer::{Event, EventKind, Policy, SessionId, SessionView, Time, VerbError};
use sipwarden_shard::{Lookup, Outbox, Resolved, Shard, Target, shard_of_call};
use tokio::sync::mpsc;

use crate::metrics::{Metrics, RuleCounters};
use crate::record::{About, Handled, Recorder};
use crate::report;
use crate::traces::{Cause, Traces};
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
    /// Counts what is remembered.
    recorded: Arc<AtomicU64>,
    /// The policy says that users of SIP URIs are shown.
    users_shown: AtomicBool,
    lookups: mpsc::UnboundedSender<(usize, Lookup)>,
    watcher: Option<mpsc::UnboundedSender<(usize, Event)>>,
    traces: Option<Arc<Traces>>,
    start: Instant,
    started: SystemTime,
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
    /// Bytes for what is remembered of decisions and messages, over all shards; 0 remembers nothing.
    pub record_len: usize,
    /// Names to look up, with the shard that asks. Shards bound how many wait.
    pub lookups: mpsc::UnboundedSender<(usize, Lookup)>,
    /// Gets every event with its shard.
    pub watcher: Option<mpsc::UnboundedSender<(usize, Event)>>,
    /// Where sessions are traced, if anywhere.
    pub traces: Option<Arc<Traces>>,
}

/// A shard, and what is kept of what it did, under one lock.
pub struct Guarded {
    /// The shard.
    pub shard: Shard,
    /// What it remembers, where anything is remembered.
    pub recorder: Option<Recorder>,
    rules: Arc<RuleCounters>,
}

/// One call into a shard: what came of it is in the outbox.
pub struct Step<'a, 'b> {
    /// When it was.
    pub now: Time,
    /// How many packets the outbox had before.
    pub packets: usize,
    /// The message; none for a timer.
    pub handled: Option<Handled<'a, 'b>>,
}

struct Slot {
    guarded: Mutex<Guarded>,
    /// When its worker will look at its timers, in milliseconds.
    armed_ms: AtomicU64,
    worker: mpsc::Sender<Command>,
}

impl Hub {
    /// Later than any timer.
    pub const NEVER: Time = Time::from_millis(100 * 365 * 24 * 3600 * 1000);

    /// Time begins now.
    pub fn new(parts: HubParts) -> Hub {
        let HubParts {
            endpoints,
            metrics,
            streams,
            key,
            log_sip_users,
            shards,
            policy,
            record_len,
            lookups,
            watcher,
            traces,
        } = parts;
        let recorded = Arc::new(AtomicU64::new(0));
        let rules = metrics.rules.in_force(&policy);
        let each_len = record_len / shards.len().max(1);
        let recorder = || (each_len > 0).then(|| Recorder::new(each_len, recorded.clone(), metrics.clone()));
        let slot = |(shard, worker)| Slot {
            guarded: Mutex::new(Guarded { shard, recorder: recorder(), rules: rules.clone() }),
            armed_ms: AtomicU64::new(Hub::NEVER.as_millis()),
            worker,
        };
        Hub {
            shards: shards.into_iter().map(slot).collect(),
            endpoints,
            metrics,
            streams,
            key,
            log_sip_users,
            recorded,
            users_shown: AtomicBool::new(false),
            lookups,
            watcher,
            traces,
            start: Instant::now(),
            started: SystemTime::now(),
            limit_logged_ms: AtomicU64::new(0),
        }
    }

    /// The time of the core.
    pub fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// What the clock said at [`Time::ZERO`].
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Does the policy in force say that users of SIP URIs are shown?
    pub fn shows_users(&self) -> bool {
        self.users_shown.load(Ordering::Relaxed)
    }

    /// What the policy in force says of the users of SIP URIs.
    pub fn show_users(&self, shown: bool) {
        self.users_shown.store(shown, Ordering::Relaxed);
    }

    /// How many things were remembered so far, in all shards.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// The shard that has the call of that Call-ID.
    pub fn shard_of(&self, call_id: &[u8]) -> usize {
        shard_of_call(call_id, self.key, self.shards.len())
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
    #[inline]
    pub fn lock(&self, index: usize) -> MutexGuard<'_, Guarded> {
        self.shards[index].guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the timers of shard `index` are due; its worker will look then.
    pub fn arm_own(&self, index: usize) -> Option<Time> {
        let guarded = self.lock(index);
        let next = guarded.shard.next_timeout();
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

    /// Remembers what a shard did in a step, and counts, logs, traces and shows its events, which are taken out of the outbox. The
    /// caller holds the shard.
    pub fn report(&self, index: usize, guarded: &mut Guarded, out: &mut Outbox, step: &Step) {
        let Guarded { shard, recorder, rules } = guarded;
        let (now, handled) = (step.now, step.handled.as_ref());
        let remote = handled.and(out.remote);
        let reveal = self.logs_users();
        let shown = handled.map(|handled| Cause { flow: handled.flow, message: handled.message, reveal });
        let mut traced = self.traces.as_ref().and_then(|traces| traces.turn(index, shown, &out.events));
        let mut cause = None;
        if let Some(recorder) = recorder {
            cause = handled.and_then(|handled| recorder.handled(now, handled, shard, remote));
            recorder.sent(now, &out.packets[step.packets..], out, &self.endpoints);
        }
        // Whether the Call-ID names a user is the same for all events of a message.
        let mut names_user = None;
        for event in out.events.drain(..) {
            self.metrics.event(&event);
            let about = || About::of(&event, shard, handled, remote);
            if recorder.is_some() || RuleCounters::counts(&event) {
                let about = about();
                rules.count(&event, about.policy);
                if let Some(recorder) = recorder {
                    let names = names_user.filter(|_| handled.is_some()).unwrap_or_else(|| about.names_user());
                    names_user = Some(names);
                    recorder.decided(now, event, &about, names, cause);
                }
            }
            if let Some(watcher) = &self.watcher {
                let _ = watcher.send((index, event));
            }
            let policy = || Arc::clone(about().policy);
            let trace = traced.as_mut().and_then(|traced| traced.event(&event, shard, policy));
            if !matches!(event.kind, EventKind::LimitReached { .. }) || self.may_log_limit() {
                report::log(index, &event, reveal, trace, about);
            }
        }
        shard.forget_judged();
    }

    /// Asks the resolver.
    pub fn look_up(&self, index: usize, lookup: Lookup) {
        // Without a resolver the process is ending.
        let _ = self.lookups.send((index, lookup));
    }

    /// Tells a shard what a name came to.
    pub fn resolved(&self, index: usize, target: &Target, answer: Resolved, ttl: Duration) {
        self.lock(index).shard.resolved(self.now(), target, answer, ttl);
    }

    /// New calls and refreshes are judged by `policy` from now on.
    pub fn set_policy(&self, policy: &Arc<Policy>) {
        let rules = self.metrics.rules.in_force(policy);
        for index in 0..self.shards.len() {
            let mut guarded = self.lock(index);
            guarded.shard.set_policy(policy.clone());
            guarded.rules = rules.clone();
        }
    }

    /// Sessions with a 2xx and no end.
    pub fn active(&self) -> usize {
        (0..self.shards.len()).map(|index| self.lock(index).shard.dialogs().active()).sum()
    }

    /// The trace of a session, while it is traced.
    pub fn trace_id(&self, index: usize, id: SessionId) -> Option<TraceId> {
        self.traces.as_ref()?.trace_id(index, id)
    }

    /// One session.
    pub fn session(&self, index: usize, id: SessionId) -> Option<SessionView> {
        if index < self.shards.len() { self.lock(index).shard.dialogs().session(id) } else { None }
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
        let shard = &mut self.lock(index).shard;
        verb(shard, self.now())?;
        self.arm(index, shard);
        Ok(())
    }

    /// Do log lines and spans show the users of SIP URIs?
    pub fn logs_users(&self) -> bool {
        self.log_sip_users || self.shows_users()
    }

    fn may_log_limit(&self) -> bool {
        let now = self.now().as_millis();
        let last = self.limit_logged_ms.load(Ordering::Relaxed);
        let due = last == 0 || u128::from(now - last.min(now)) >= LIMIT_LOG_INTERVAL.as_millis();
        due && self.limit_logged_ms.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
