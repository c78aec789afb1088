//! One session: a dialog between its 2xx and its end, with at most one timer.

use std::sync::Arc;
use std::time::Duration;

use sipwarden_sip::Method;

use crate::acting::{Acting, Half, NextStep};
use crate::identity::Identity;
use crate::negotiation::Offer;
use crate::numbering::Numbering;
use crate::{Direction, EndCause, EventKind, ExpiryAction, Flow, Leg, Mode, Policy, Seconds, Time, Timers};

/// Names a session within its shard for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Most re-INVITEs and UPDATEs of one session that may wait for their answer.
const OPEN_REFRESHES: usize = 4;

/// Under which policy something was judged. Held until the next refresh, whatever is loaded meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Ruling {
    pub(crate) policy: Arc<Policy>,
    pub(crate) rule: Option<u16>,
}

impl Ruling {
    pub(crate) fn timers(&self) -> &Timers {
        self.policy.timers(self.rule)
    }

    pub(crate) fn observes(&self) -> bool {
        self.policy.mode == Mode::Observe
    }
}

pub(crate) struct Session {
    pub(crate) id: SessionId,
    /// The call it belongs to.
    pub(crate) call: u32,
    pub(crate) caller: Leg,
    pub(crate) identity: Identity,
    pub(crate) ruling: Ruling,
    pub(crate) started: Time,
    pub(crate) last_heard: Time,
    pub(crate) legs: [LegState; 2],
    pub(crate) timer: Option<Timer>,
    pub(crate) ended: Option<EndCause>,
    /// When somebody asked for its end.
    pub(crate) to_end: Option<Time>,
    /// When an ended session is dropped.
    pub(crate) dropped_at: Time,
    /// The highest Min-SE there was: of a 422, and of the remote side's requests where we stand in for the application.
    pub(crate) highest_min_se: Seconds,
    pub(crate) refreshes: Vec<Refresh>,
    /// What we do as the application's half of RFC 4028, when we are.
    pub(crate) acting: Option<Box<Acting>>,
    /// The earliest entry in the wheel.
    pub(crate) wheel_at: Option<Time>,
    pub(crate) log: EventLog,
}

/// What is known of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LegState {
    pub(crate) flow: Flow,
    /// The CSeq space of what is sent in its name.
    pub(crate) numbers: Numbering,
    /// CSeq of its newest re-INVITE or UPDATE that went on.
    pub(crate) refresh_cseq: Option<u32>,
    /// The INVITE of this side that we answered ourselves: its ACK ends here.
    pub(crate) rejected_cseq: Option<u32>,
    /// The request of this side that met one of ours last.
    pub(crate) glare: Option<(Method, u32)>,
}

/// A running session timer. The refresher is a side, never a role: roles change with every transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) interval_s: Seconds,
    pub(crate) refresher: Leg,
    pub(crate) armed: Time,
}

/// A re-INVITE or UPDATE waiting for its answer, or answered last and kept for retransmissions.
pub(crate) struct Refresh {
    pub(crate) from: Leg,
    pub(crate) method: Method,
    pub(crate) cseq: u32,
    /// What left us; nothing, when its headers were malformed and it passed unjudged.
    pub(crate) offer: Offer,
    pub(crate) half: Half,
    pub(crate) ruling: Ruling,
    /// The application's request as it came, where a 422 to it would be answered here.
    pub(crate) retry: Option<Retry>,
    /// The Contact it carried, where that is news: in force once it is answered with a 2xx.
    pub(crate) target: Option<Box<[u8]>>,
    pub(crate) answered: bool,
    /// With a 2xx of ours in the application's place.
    pub(crate) answered_here: bool,
}

/// What it takes to send a request of the application once more (RFC 4028 §7.3).
pub(crate) struct Retry {
    /// As it came.
    pub(crate) request: Box<[u8]>,
    /// The number it left with first; those from here on that are no request's are its earlier tries.
    pub(crate) first_leaving: u32,
    pub(crate) tries: u8,
}

impl Retry {
    /// Did an earlier try of the request numbered `own` leave with that number?
    pub(crate) fn was_left_behind(&self, numbers: &Numbering, leaving: u32, own: u32) -> bool {
        (self.first_leaving..numbers.leaves_as(own)).contains(&leaving) && numbers.came_as(leaving).is_none()
    }
}

/// How session time relates to the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) speed: u32,
    pub(crate) idle: Duration,
}

impl Pace {
    /// `session_ms` of session time on the clock.
    pub(crate) fn real(self, session_ms: u64) -> Duration {
        Duration::from_millis(session_ms / u64::from(self.speed))
    }
}

impl Timer {
    pub(crate) fn deadline(&self, pace: Pace) -> Time {
        self.armed + pace.real(u64::from(self.interval_s) * 1000)
    }

    /// When the session ends unless it is refreshed before.
    pub(crate) fn expires_at(&self, timers: &Timers, pace: Pace) -> Time {
        let interval_ms = u64::from(self.interval_s) * 1000;
        self.armed + pace.real(interval_ms - timers.margin.before_ms(self.interval_s))
    }
}

impl Session {
    pub(crate) fn direction(&self) -> Direction {
        Direction::of_caller(self.caller)
    }

    /// Is it the dialog of a request from `from` with these tags (the sender's first)?
    pub(crate) fn is_dialog(&self, from: Leg, from_tag: &[u8], to_tag: &[u8]) -> bool {
        self.identity.tag(from) == from_tag && self.identity.tag(from.other()) == to_tag
    }

    pub(crate) fn heard(&mut self, now: Time, leg: Leg, flow: Flow) {
        self.last_heard = now;
        self.legs[leg.index()].flow = flow;
    }

    /// When something must be done about it: a step of ours, expiry, or being forgotten.
    pub(crate) fn due(&self, pace: Pace) -> Time {
        if self.ended.is_some() {
            return self.dropped_at;
        }
        if let Some(at) = self.to_end {
            return at;
        }
        let over = self.expires_at(pace).unwrap_or(self.last_heard + pace.idle);
        self.next_step().map_or(over, |(at, _)| at.min(over))
    }

    /// When it ends unless it is refreshed: the margin before the deadline, where another refreshes; at the deadline,
    /// where we do (RFC 4028 §10).
    pub(crate) fn expires_at(&self, pace: Pace) -> Option<Time> {
        let timer = self.timer.as_ref()?;
        if self.acting.is_some() && timer.refresher == Leg::Local {
            return Some(timer.deadline(pace));
        }
        Some(timer.expires_at(self.ruling.timers(), pace))
    }

    /// What we do next of ourselves as the application's half.
    pub(crate) fn next_step(&self) -> Option<(Time, NextStep)> {
        self.acting.as_ref().and_then(|acting| acting.next)
    }

    /// An INVITE or UPDATE of either side that still waits for its answer.
    pub(crate) fn has_open(&self, method: Method) -> bool {
        self.refreshes.iter().any(|open| open.method == method && !open.answered)
    }

    /// Expiry sends BYEs; otherwise it is only told.
    pub(crate) fn expiry_acts(&self) -> bool {
        !self.ruling.observes() && self.ruling.timers().expiry == ExpiryAction::Bye
    }

    /// The open or last answered refresh of that CSeq.
    pub(crate) fn refresh(&mut self, from: Leg, method: Method, cseq: u32) -> Option<usize> {
        self.refreshes.iter().position(|open| open.from == from && open.method == method && open.cseq == cseq)
    }

    /// Remember a refresh; what the same side had answered before is no longer needed, and of too many the oldest goes.
    pub(crate) fn open_refresh(&mut self, refresh: Refresh) {
        self.refreshes.retain(|open| !(open.answered && open.from == refresh.from));
        if self.refreshes.len() == OPEN_REFRESHES {
            self.refreshes.remove(0);
        }
        self.refreshes.reserve_exact(1);
        self.refreshes.push(refresh);
    }
}

/// The last events of a session, oldest first.
#[derive(Default)]
pub(crate) struct EventLog {
    entries: Vec<LogEntry>,
}

/// Twenty bytes: there are many sessions.
#[derive(Clone, Copy)]
struct LogEntry {
    /// Since the log's reference time; 49 days fit.
    after_ms: u32,
    observed: bool,
    kind: EventKind,
}

impl EventLog {
    const CAPACITY: usize = 12;

    pub(crate) fn push(&mut self, reference: Time, now: Time, observed: bool, kind: EventKind) {
        if self.entries.len() == EventLog::CAPACITY {
            self.entries.remove(0);
        }
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(2);
        }
        let after_ms = u32::try_from(now.since(reference).as_millis()).unwrap_or(u32::MAX);
        self.entries.push(LogEntry { after_ms, observed, kind });
    }

    /// Time, observed, kind.
    pub(crate) fn iter(&self, reference: Time) -> impl Iterator<Item = (Time, bool, EventKind)> + '_ {
        self.entries
            .iter()
            .map(move |entry| (reference + Duration::from_millis(entry.after_ms.into()), entry.observed, entry.kind))
    }
}
