//! Responses: a 2xx to INVITE or UPDATE starts a session, or arms, changes or turns off its timer; nothing else does.

use sipwarden_sip::value::CSeq;
use sipwarden_sip::{Edits, HeaderName, Message, Method};

use super::concluding::{Concluded, complete, conclude, note_conclusion, rejection_seen, timer_of};
use super::{Arrival, Dialogs, Verdict};
use crate::bye::Bye;
use crate::identity::{Identity, Party};
use crate::session::{LegState, Session, Timer};
use crate::setup::{contact_uri, join_routes, target_of};
use crate::{EndCause, EventKind, Flow, Leg, LimitKind, SessionId, Time};

/// How many Record-Route values the owner adds to an INVITE: one for each side (RFC 5658).
pub const RECORD_ROUTES: usize = 2;

/// A response and the request it answers.
#[derive(Clone, Copy)]
struct Answer<'a> {
    /// Who answers, and on which flow.
    by: Leg,
    flow: Flow,
    status: u16,
    /// Of the request.
    method: Method,
    cseq: u32,
    /// The requester's.
    from_tag: &'a [u8],
    to_tag: Option<&'a [u8]>,
}

impl Dialogs {
    /// `None`: nothing here concerns it.
    pub(super) fn response(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        status: u16,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        if let Some(slot) = Bye::slot_of(message) {
            self.bye_answered(now, slot, message, status);
            return Some(Verdict::Absorb);
        }
        let CSeq { number, method, .. } = message.cseq().ok()?;
        let answer = Answer {
            by: self.leg_of(arrival.flow),
            flow: arrival.flow,
            status,
            method,
            cseq: number,
            from_tag: message.from_tag()?,
            to_tag: message.to_tag(),
        };
        let call = self.find_call(message.call_id()?)?;
        let requester = answer.by.other();
        let session = answer.to_tag.and_then(|tag| self.find_session(call, requester, answer.from_tag, tag));
        if let Some(slot) = session {
            let session = &mut self.sessions[slot as usize];
            if session.ended.is_none() {
                session.heard(now, answer.by, answer.flow);
                if let Some(position) = session.refresh(requester, method, number) {
                    self.refresh_answered(now, message, slot, position, answer, edits);
                    return None;
                }
                if ends_usage(method, status) && !self.is_setup(call, answer) {
                    self.end(now, slot, EndCause::Response(status));
                }
            }
        }
        if method == Method::Invite {
            self.setup_answered(now, message, call, session, answer, edits);
        }
        None
    }

    fn is_setup(&mut self, call: u32, answer: Answer) -> bool {
        answer.method == Method::Invite
            && self.calls[call as usize].setup(answer.by.other(), answer.from_tag, answer.cseq).is_some()
    }

    fn setup_answered(
        &mut self,
        now: Time,
        message: &Message,
        call: u32,
        session: Option<u32>,
        answer: Answer,
        edits: &mut Edits,
    ) {
        let Some(setup) = self.calls[call as usize].setup(answer.by.other(), answer.from_tag, answer.cseq) else {
            return;
        };
        match answer.status {
            ..200 => setup.touch(now),
            200..300 => {
                let acts = !setup.ruling.observes();
                let conclusion = conclude(setup.offer, setup.ruling.timers().min_se_s(), message.session_expires());
                if acts {
                    complete(message, conclusion, edits);
                }
                // A session that exists means a retransmission: completed again, but nothing starts anew. Without a To
                // tag there is no dialog (RFC 3261 §12.1.1).
                if session.is_none() && answer.to_tag.is_some() {
                    self.start_session(now, message, call, answer, conclusion);
                }
            }
            status => {
                if status == 422 {
                    let kind = rejection_seen(message, answer.by.other());
                    setup.tell(now, kind, &mut self.actions);
                }
                let setups = &mut self.calls[call as usize].setups;
                setups.retain(|setup| setup.answered || !setup.is_of(answer.by.other(), answer.from_tag, answer.cseq));
                self.drop_call_if_over(call);
            }
        }
    }

    /// A 2xx with a new To tag: one session per fork.
    fn start_session(&mut self, now: Time, message: &Message, call: u32, answer: Answer, conclusion: Concluded) {
        let caller = answer.by.other();
        if self.calls[call as usize].sessions.len() >= self.config.limits.per_call {
            return self.limit_reached(LimitKind::Forks);
        }
        let Some(setup) = self.calls[call as usize].setup(caller, answer.from_tag, answer.cseq) else {
            return;
        };
        setup.answer(now);
        let routes = routes_to_callee(message, setup.caller.route_count);
        let callee = Party {
            party: message.first(HeaderName::To).map_or(b"", |header| header.value),
            target: target_of(message, message.to()),
            routes: &routes,
        };
        let mut parties = [callee; 2];
        parties[caller.index()] =
            Party { party: setup.caller.party(), target: setup.caller.target(), routes: setup.caller.routes() };
        let Some(identity) = Identity::new(parties, self.config.limits.identity_len) else {
            return self.limit_reached(LimitKind::IdentitySize);
        };
        let mut legs = [LegState { flow: answer.flow, cseq: None, refresh_cseq: None, rejected_cseq: None }; 2];
        legs[caller.index()].flow = setup.flow;
        for leg in Leg::BOTH {
            legs[leg.index()].cseq = setup.cseqs[leg.index()];
        }
        let slot = self.sessions.vacant_key();
        self.sessions_made = self.sessions_made.wrapping_add(1);
        let session = Session {
            id: SessionId(u64::from(self.sessions_made) << 32 | slot as u64),
            call,
            caller,
            identity,
            ruling: setup.ruling.clone(),
            started: setup.started,
            last_heard: now,
            legs,
            timer: None,
            ended: None,
            dropped_at: now,
            highest_min_se: 0,
            refreshes: Vec::new(),
            wheel_at: None,
            log: std::mem::take(&mut setup.log),
        };
        self.sessions.insert(session);
        self.active += 1;
        let sessions = &mut self.calls[call as usize].sessions;
        sessions.reserve_exact(1);
        sessions.push(slot as u32);
        self.establish(now, slot as u32, caller, conclusion);
        self.schedule_call(call);
    }

    fn establish(&mut self, now: Time, slot: u32, caller: Leg, conclusion: Concluded) {
        let session = &mut self.sessions[slot as usize];
        let acts = !session.ruling.observes();
        note_conclusion(session, now, caller, conclusion, &mut self.actions);
        session.timer = timer_of(conclusion, caller, now, acts);
        let (interval, refresher) =
            session.timer.map_or((None, None), |timer| (Some(timer.interval_s), Some(timer.refresher)));
        session.tell(now, EventKind::Established { interval, refresher }, &mut self.actions);
        self.schedule_session(slot);
    }

    fn refresh_answered(
        &mut self,
        now: Time,
        message: &Message,
        slot: u32,
        position: usize,
        answer: Answer,
        edits: &mut Edits,
    ) {
        let session = &mut self.sessions[slot as usize];
        let refresh = &mut session.refreshes[position];
        match answer.status {
            ..200 => {}
            200..300 => {
                let conclusion = conclude(refresh.offer, refresh.ruling.timers().min_se_s(), message.session_expires());
                if !refresh.ruling.observes() {
                    complete(message, conclusion, edits);
                }
                if !std::mem::replace(&mut refresh.answered, true) {
                    self.renegotiated(now, message, slot, position, answer, conclusion);
                }
            }
            status => {
                session.refreshes.remove(position);
                if status == 422 {
                    let kind = rejection_seen(message, answer.by.other());
                    if let EventKind::RejectionSeen { min_se: Some(min_se), .. } = kind {
                        session.highest_min_se = session.highest_min_se.max(min_se);
                    }
                    session.tell(now, kind, &mut self.actions);
                }
                session.tell(now, EventKind::RefreshFailed { by: answer.by.other(), status }, &mut self.actions);
                if ends_usage(answer.method, status) {
                    self.end(now, slot, EndCause::Response(status));
                }
            }
        }
    }

    /// The first 2xx to a re-INVITE or UPDATE: targets are refreshed and the timer is what it concludes.
    fn renegotiated(
        &mut self,
        now: Time,
        message: &Message,
        slot: u32,
        position: usize,
        answer: Answer,
        conclusion: Concluded,
    ) {
        let limit = self.config.limits.identity_len;
        let session = &mut self.sessions[slot as usize];
        let by = answer.by.other();
        let refresh = &mut session.refreshes[position];
        session.ruling = refresh.ruling.clone();
        if let Some(target) = refresh.target.take() {
            session.identity.set_target(by, &target, limit);
        }
        if let Some(target) = contact_uri(message) {
            session.identity.set_target(answer.by, target, limit);
        }
        let acts = !session.ruling.observes();
        note_conclusion(session, now, by, conclusion, &mut self.actions);
        let before = session.timer;
        session.timer = match (conclusion, before) {
            // What it says cannot be read, but it proves that both sides live.
            (Err(_), Some(timer)) => Some(Timer { armed: now, ..timer }),
            _ => timer_of(conclusion, by, now, acts),
        };
        match (before, session.timer) {
            (_, Some(Timer { interval_s: interval, refresher, .. })) => {
                let kind = EventKind::Refreshed { by, method: answer.method, interval, refresher };
                session.tell(now, kind, &mut self.actions);
            }
            (Some(_), None) => session.tell(now, EventKind::TimerOff { by }, &mut self.actions),
            (None, None) => {}
        }
        self.schedule_session(slot);
    }
}

/// The Record-Route values that came on top of ours, nearest to us first (RFC 3261 §12.1.2). Counted from below: values
/// of ours may stand among them when a call passes the sidecar twice.
fn routes_to_callee(message: &Message, below_ours: usize) -> Vec<u8> {
    let below = below_ours + RECORD_ROUTES;
    let all: Vec<&[u8]> = message.elements(HeaderName::RecordRoute).map(|(_, route)| route).collect();
    let mut routes = Vec::new();
    join_routes(all[..all.len().saturating_sub(below)].iter().rev().copied(), &mut routes);
    routes
}

/// Responses that end the INVITE usage of a dialog (RFC 5057 §5.1), by the method they answer. 405 and 501 say that a
/// method is unknown, not that the call is.
fn ends_usage(method: Method, status: u16) -> bool {
    match method {
        Method::Invite | Method::Update => matches!(status, 404 | 408 | 410 | 416 | 480..=485 | 604),
        Method::Info | Method::Prack => matches!(status, 408 | 481),
        _ => false,
    }
}
