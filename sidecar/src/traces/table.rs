//! What is remembered of calls and sessions until their spans are out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sipwarden_otlp::opentelemetry::KeyValue;
use sipwarden_otlp::opentelemetry::trace::{SpanId, TraceId};
use sipwarden_session_timer::{EndCause, Event, EventKind, Leg, Policy, SessionId, SessionView};
use sipwarden_shard::Shard;

use super::span::Trace;

/// Events of a span: the first ones, and the last; those between are counted only.
const MAX_EVENTS: usize = 64;
const FIRST_EVENTS: usize = 16;
/// As the core: an INVITE that nobody answers, and the INVITE behind one that was.
const UNANSWERED: Duration = Duration::from_secs(300);
const ANSWERED: Duration = Duration::from_secs(32);
/// As long as the core shows most sessions that ended.
const OVER: Duration = Duration::from_secs(37);
/// The BYEs of a session that we ended are answered or given up by then.
const ENDING: Duration = Duration::from_secs(60);

/// Of one shard.
#[derive(Default)]
pub(super) struct Table {
    /// By Call-ID and caller's tag.
    pub(super) setups: HashMap<u64, Setup>,
    pub(super) sessions: HashMap<SessionId, Session>,
    /// Those whose spans are out, while the core still shows them.
    over: HashMap<SessionId, (TraceId, SystemTime)>,
}

/// An INVITE outside a dialog.
pub(super) struct Setup {
    pub(super) trace: Trace,
    pub(super) cseq: u32,
    pub(super) started: SystemTime,
    pub(super) events: Events,
    until: SystemTime,
    refusal: Refusal,
}

/// Whether an INVITE was refused with 422.
enum Refusal {
    None,
    /// By whose policy and rule.
    Told(Decision),
    /// It has its span; what retransmissions cause is not told again.
    Done,
}

/// An INVITE that was refused with 422.
pub(super) struct Refused {
    pub(super) trace: Trace,
    pub(super) started: SystemTime,
    pub(super) events: Events,
    pub(super) decision: Decision,
}

/// A session, until its end and the end of our BYEs.
pub(super) struct Session {
    pub(super) trace: Trace,
    pub(super) span: SpanId,
    pub(super) started: SystemTime,
    pub(super) events: Events,
    /// What does not change.
    pub(super) attributes: Vec<KeyValue>,
    pub(super) decision: Decision,
    pub(super) interval_s: Option<u32>,
    pub(super) refresher: Option<Leg>,
    pub(super) ended: Option<(EndCause, SystemTime)>,
    open_byes: u8,
}

/// A policy and the rule of it that decided.
#[derive(Clone)]
pub(super) struct Decision {
    pub(super) policy: Arc<Policy>,
    pub(super) rule: Option<u16>,
}

/// What was told, and when.
#[derive(Default)]
pub(super) struct Events {
    pub(super) told: Vec<Told>,
    pub(super) left_out: u32,
}

/// As small as can be: there are many.
#[derive(Clone, Copy)]
pub(super) struct Told {
    pub(super) at: SystemTime,
    pub(super) observed: bool,
    pub(super) kind: EventKind,
}

impl Table {
    /// The trace of a session.
    pub(super) fn trace_id(&self, id: SessionId) -> Option<TraceId> {
        let running = self.sessions.get(&id).map(|session| session.trace.id);
        running.or_else(|| self.over.get(&id).map(|(trace, _)| *trace))
    }

    /// Takes a session whose span is due; of up to `limit` of them the trace is remembered.
    pub(super) fn take(&mut self, id: SessionId, now: SystemTime, limit: usize) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        if self.over.len() < limit {
            self.over.insert(id, (session.trace.id, now + OVER));
        }
        Some(session)
    }

    /// Forgets what is over; the sessions whose BYEs were never told of are returned.
    pub(super) fn sweep(&mut self, now: SystemTime) -> Vec<Session> {
        self.setups.retain(|_, setup| setup.until > now);
        self.over.retain(|_, (_, until)| *until > now);
        let silent = |session: &Session| session.ended.is_some_and(|(_, at)| at + ENDING <= now);
        self.sessions.extract_if(|_, session| silent(session)).map(|(_, session)| session).collect()
    }
}

impl Setup {
    pub(super) fn new(trace: Trace, cseq: u32, now: SystemTime) -> Setup {
        let (events, until) = (Events::default(), now + UNANSWERED);
        Setup { trace, cseq, started: now, events, until, refusal: Refusal::None }
    }

    pub(super) fn answered(&mut self, status: u16, now: SystemTime) {
        self.until = now + if status < 200 { UNANSWERED } else { ANSWERED };
    }

    pub(super) fn tell(&mut self, now: SystemTime, event: &Event, policy: impl FnOnce() -> Arc<Policy>) {
        if matches!(self.refusal, Refusal::Done) {
            return;
        }
        self.events.push(now, event);
        match event.kind {
            EventKind::Rejected { .. } | EventKind::RejectionSeen { .. } | EventKind::RejectionWithoutMinSe { .. } => {
                self.refusal = Refusal::Told(Decision { policy: policy(), rule: event.rule });
                self.until = now + ANSWERED;
            }
            // The caller hears nothing of it.
            EventKind::Retried { .. } => self.refusal = Refusal::None,
            _ => {}
        }
    }

    /// Once, after everything was told.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        if !matches!(self.refusal, Refusal::Told(_)) {
            return None;
        }
        let Refusal::Told(decision) = std::mem::replace(&mut self.refusal, Refusal::Done) else { return None };
        let events = std::mem::take(&mut self.events);
        Some(Refused { trace: self.trace.clone(), started: self.started, events, decision })
    }
}

impl Session {
    pub(super) fn new(
        trace: Trace,
        span: SpanId,
        started: SystemTime,
        events: Events,
        attributes: Vec<KeyValue>,
        view: &SessionView,
    ) -> Session {
        Session {
            trace,
            span,
            started,
            events,
            attributes,
            decision: Decision::of(view),
            interval_s: None,
            refresher: None,
            ended: None,
            open_byes: 0,
        }
    }

    pub(super) fn tell(&mut self, now: SystemTime, event: &Event, shard: &Shard, id: SessionId) {
        self.events.push(now, event);
        match event.kind {
            EventKind::Established { interval, refresher } => (self.interval_s, self.refresher) = (interval, refresher),
            EventKind::Refreshed { interval, refresher, .. } => {
                (self.interval_s, self.refresher) = (Some(interval), Some(refresher));
            }
            EventKind::TimerOff { .. } => (self.interval_s, self.refresher) = (None, None),
            EventKind::ByeSent { .. } => self.open_byes += 1,
            EventKind::ByeDone { .. } => self.open_byes = self.open_byes.saturating_sub(1),
            EventKind::Ended { cause } => {
                self.ended = Some((cause, now));
                // A refresh may have brought another policy.
                if let Some(view) = shard.dialogs().session(id) {
                    self.decision = Decision::of(&view);
                }
            }
            _ => {}
        }
    }

    /// It has ended, and so have the BYEs by which we ended it.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some() && self.open_byes == 0
    }
}

impl Decision {
    fn of(view: &SessionView) -> Decision {
        Decision { policy: view.policy.clone(), rule: view.rule }
    }
}

impl Events {
    fn push(&mut self, at: SystemTime, event: &Event) {
        if self.told.len() == MAX_EVENTS {
            self.told.remove(FIRST_EVENTS);
            self.left_out += 1;
        }
        self.told.push(Told { at, observed: event.observed, kind: event.kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_events_the_first_and_the_last_are_kept_and_the_others_counted() {
        let mut events = Events::default();
        for number in 0..1000 {
            let kind = EventKind::ShortInterval { interval: number };
            events.push(SystemTime::now(), &Event { session: None, observed: false, rule: None, kind });
        }
        let number = |told: &Told| match told.kind {
            EventKind::ShortInterval { interval } => interval,
            _ => panic!("nothing else was told"),
        };
        let kept: Vec<u32> = events.told.iter().map(number).collect();
        let last = 1000 - (MAX_EVENTS - FIRST_EVENTS) as u32;
        assert_eq!(kept, (0..FIRST_EVENTS as u32).chain(last..1000).collect::<Vec<_>>());
        assert_eq!(events.left_out as usize, 1000 - MAX_EVENTS);
    }
}
