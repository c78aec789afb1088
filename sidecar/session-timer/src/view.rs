//! Read-only pictures of sessions for the admin interface. Made on request, never on the packet path.

use std::sync::Arc;

use sipwarden_sip::Method;

use crate::session::{Pace, Session};
use crate::{Direction, EndCause, Event, Flow, Leg, NextStep, Policy, SdpUnusable, Seconds, SessionId, Time};

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// A 2xx was seen.
    Active,
    /// Over; kept for a while to answer what comes late.
    Ended(EndCause),
}

/// One side of a session.
#[derive(Clone, Debug)]
pub struct LegView {
    /// From/To value of this side, with its tag.
    pub party: Vec<u8>,
    /// Where requests to this side are addressed (its Contact).
    pub target: Vec<u8>,
    /// The flow it was last heard on.
    pub flow: Flow,
    /// Highest CSeq of requests sent in the name of this side, ours included.
    pub cseq: Option<u32>,
}

/// What we do as the application's half of RFC 4028.
#[derive(Clone, Copy, Debug)]
pub struct ActingView {
    /// How the next refresh would be sent; `None`: it cannot be.
    pub method: Option<Method>,
    /// The application's SDP in force, by its length in bytes.
    pub sdp: Result<usize, SdpUnusable>,
    /// The remote side knows timers.
    pub peer_has_timers: bool,
    /// When a refresh of ours was last answered with a 2xx.
    pub last_refresh: Option<Time>,
    /// A refresh or a probe of ours waits for its answer.
    pub under_way: bool,
}

/// One remembered event.
#[derive(Clone, Copy, Debug)]
pub struct TimedEvent {
    pub at: Time,
    pub event: Event,
}

/// A session as it stands.
#[derive(Clone, Debug)]
pub struct SessionView {
    pub id: SessionId,
    pub call_id: Vec<u8>,
    pub direction: Direction,
    pub state: SessionState,
    pub started: Time,
    pub interval: Option<Seconds>,
    pub refresher: Option<Leg>,
    /// When the session interval ends.
    pub deadline: Option<Time>,
    /// When we end it unless it is refreshed: the deadline less the margin.
    pub expires_at: Option<Time>,
    /// The highest Min-SE somebody asked for; 0 for none.
    pub min_se: Seconds,
    /// What we do next of ourselves, and when.
    pub next_step: Option<(Time, NextStep)>,
    /// When we stand in for the application.
    pub acting: Option<ActingView>,
    pub policy: Arc<Policy>,
    pub rule: Option<u16>,
    pub legs: [LegView; 2],
    /// The last events, oldest first.
    pub events: Vec<TimedEvent>,
}

impl SessionView {
    pub(crate) fn of(session: &Session, call_id: &[u8], pace: Pace) -> SessionView {
        let rule = session.ruling.rule;
        SessionView {
            id: session.id,
            call_id: call_id.to_vec(),
            direction: session.direction(),
            state: session.ended.map_or(SessionState::Active, SessionState::Ended),
            started: session.started,
            interval: session.timer.map(|timer| timer.interval_s),
            refresher: session.timer.map(|timer| timer.refresher),
            deadline: session.timer.map(|timer| timer.deadline(pace)),
            expires_at: session.expires_at(pace),
            min_se: session.highest_min_se,
            next_step: session.next_step().or(session.expires_at(pace).map(|at| (at, NextStep::Expire))),
            acting: session.acting.as_ref().map(|acting| ActingView {
                method: session.refresh_method().ok(),
                sdp: acting.media.in_force().map(<[u8]>::len),
                peer_has_timers: acting.peer_has_timers,
                last_refresh: acting.last_refresh,
                under_way: acting.under_way.is_some(),
            }),
            policy: Arc::clone(&session.ruling.policy),
            rule,
            legs: Leg::BOTH.map(|leg| {
                let (party, state) = (session.identity.leg(leg), session.legs[leg.index()]);
                LegView {
                    party: party.party.to_vec(),
                    target: party.target.to_vec(),
                    flow: state.flow,
                    cseq: state.numbers.highest(),
                }
            }),
            events: session
                .log
                .iter(session.started)
                .map(|(at, observed, kind)| TimedEvent {
                    at,
                    event: Event { session: Some(session.id), observed, rule, kind },
                })
                .collect(),
        }
    }
}
