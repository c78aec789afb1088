//! Responses: a 2xx to INVITE or UPDATE starts a session, or arms, changes or turns off its timer; nothing else does.

use sipwarden_sip::value::CSeq;
use sipwarden_sip::{Edits, HeaderName, Message, Method};

use super::concluding::{Asked, Concluded, note_conclusion, rejection_seen};
use super::requests::write_cseq;
use super::{Arrival, Dialogs, Verdict};
use crate::acting::{Acting, Half, speaks_of_timers};
use crate::client::Client;
use crate::identity::{Identity, Party};
use crate::media::{Carrier, Content, Media};
use crate::numbering::Numbering;
use crate::session::{LegState, Session, Timer};
use crate::setup::{BranchKey, Setup, contact_uri, join_routes, target_of};
use crate::{EndCause, EventKind, Flow, Leg, LimitKind, SessionId, Time};

/// How many Record-Route values the owner adds to an INVITE: one for each side (RFC 5658).
pub const RECORD_ROUTES: usize = 2;

/// A response and the request it answers.
#[derive(Clone, Copy)]
pub(super) struct Answer<'a> {
    /// Who answers, and on which flow.
    pub(super) by: Leg,
    pub(super) flow: Flow,
    pub(super) status: u16,
    /// Of the request.
    pub(super) method: Method,
    /// As the requester numbered it.
    pub(super) cseq: u32,
    /// The requester's.
    pub(super) from_tag: &'a [u8],
    pub(super) to_tag: Option<&'a [u8]>,
}

impl Answer<'_> {
    fn carrier(&self) -> Carrier {
        Carrier { from: self.by.other(), method: self.method, cseq: self.cseq }
    }

    /// A response that an offer or answer counts in: a final one, or a reliable provisional (RFC 3262 §3).
    fn counts(&self, message: &Message) -> bool {
        self.status >= 200 || message.first(HeaderName::RSeq).is_some()
    }
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
        if let Some(slot) = Client::slot_of(message) {
            self.client_answered(now, slot, message, status);
            return Some(Verdict::Absorb);
        }
        let CSeq { number: leaving, method, .. } = message.cseq().ok()?;
        let mut answer = Answer {
            by: self.leg_of(arrival.flow),
            flow: arrival.flow,
            status,
            method,
            cseq: leaving,
            from_tag: message.from_tag()?,
            to_tag: message.to_tag(),
        };
        let call = self.find_call(arrival.call, message)?;
        let requester = answer.by.other();
        let session = answer.to_tag.and_then(|tag| self.find_session(call, requester, answer.from_tag, tag));
        let numbers = self.numbers_of(call, session, answer);
        match numbers.and_then(|numbers| numbers.came_as(leaving)) {
            Some(own) => answer.cseq = own,
            // Ours have a Via of ours alone; this answers an earlier try of a request that was sent once more.
            None if numbers.is_some() => return Some(self.left_behind(call, session, answer, leaving, message)),
            None => {}
        }
        if answer.cseq != leaving {
            write_cseq(message, answer.cseq, edits);
        }
        if let Some(slot) = session {
            return self.session_answered(now, message, call, slot, answer, edits);
        }
        match method {
            Method::Invite => self.setup_answered(now, message, call, None, answer, edits),
            Method::Prack | Method::Update => {
                self.early_answered(call, message, answer);
                None
            }
            _ => None,
        }
    }

    /// The space of the request that `answer` answers.
    fn numbers_of(&mut self, call: u32, session: Option<u32>, answer: Answer) -> Option<Numbering> {
        let requester = answer.by.other();
        match session {
            Some(slot) => Some(self.sessions[slot as usize].legs[requester.index()].numbers),
            // The callee's space moves with a session only.
            None => {
                let setups = &self.calls[call as usize].setups;
                let of_caller = |setup: &&Setup| setup.from == requester && setup.caller.tag() == answer.from_tag;
                // Another setup's shift would give the number a meaning too.
                let number = |setup: &&Setup| match answer.method {
                    Method::Invite | Method::Cancel => {
                        setup.numbers.came_as(answer.cseq) == Some(setup.cseq)
                            || setup.retried_from(requester, answer.from_tag, answer.cseq)
                    }
                    _ => setup.numbers.came_as(answer.cseq).is_some(),
                };
                let fitting = setups.iter().rev().filter(of_caller).find(number);
                fitting.or(setups.iter().rev().find(of_caller)).map(|setup| setup.numbers)
            }
        }
    }

    fn session_answered(
        &mut self,
        now: Time,
        message: &Message,
        call: u32,
        slot: u32,
        answer: Answer,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let Answer { method, status, .. } = answer;
        let session = &mut self.sessions[slot as usize];
        if session.ended.is_none() {
            session.heard(now, answer.by, answer.flow);
            if let Some(acting) = &mut session.acting
                && matches!(method, Method::Invite | Method::Update | Method::Prack)
                && answer.counts(message)
            {
                acting.media.response(answer.carrier(), status, Content::of(message));
                if matches!(status, 200..300) {
                    acting.learn(answer.by, message);
                }
            }
            if let Some(position) = session.refresh(answer.by.other(), method, answer.cseq) {
                return self.refresh_answered(now, message, slot, position, answer, edits);
            }
            if ends_usage(method, status) && !self.is_setup(call, answer) {
                self.end(now, slot, EndCause::Response(status));
            }
        }
        if method == Method::Invite && self.is_setup(call, answer) {
            return self.setup_answered(now, message, call, Some(slot), answer, edits);
        }
        // A late copy of a 2xx to what others have followed: the application is told of no timer by it either.
        let acts = self.sessions[slot as usize].acting.is_some();
        if acts && answer.by == Leg::Remote && matches!((method, status), (Method::Invite | Method::Update, 200..300)) {
            edits.remove_header(message, HeaderName::SessionExpires);
            edits.remove_token(message, HeaderName::Require, "timer");
        }
        None
    }

    fn is_setup(&mut self, call: u32, answer: Answer) -> bool {
        answer.method == Method::Invite
            && self.calls[call as usize].setup(answer.by.other(), answer.from_tag, answer.cseq).is_some()
    }

    fn early_answered(&mut self, call: u32, message: &Message, answer: Answer) {
        let (requester, most) = (answer.by.other(), self.config.limits.per_call);
        let call = &mut self.calls[call as usize];
        let (setup, callee_tag) = match (call.setup_of_caller(requester, answer.from_tag), answer.to_tag) {
            (Some(setup), Some(to_tag)) => (setup, to_tag),
            (None, Some(to_tag)) => match call.setup_of_caller(answer.by, to_tag) {
                Some(setup) => (setup, answer.from_tag),
                None => return,
            },
            (_, None) => return,
        };
        if setup.media.is_some()
            && let Some(media) = setup.early(callee_tag, most).and_then(|early| early.media.as_mut())
        {
            media.response(answer.carrier(), answer.status, Content::of(message));
        }
    }

    fn setup_answered(
        &mut self,
        now: Time,
        message: &Message,
        call: u32,
        session: Option<u32>,
        answer: Answer,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let most = self.config.limits.per_call;
        let setup = self.calls[call as usize].setup(answer.by.other(), answer.from_tag, answer.cseq)?;
        match answer.status {
            ..200 => {
                setup.touch(now);
                if setup.media.is_some()
                    && answer.counts(message)
                    && let Some(tag) = answer.to_tag
                    && let Some(media) = setup.early(tag, most).and_then(|early| early.media.as_mut())
                {
                    media.response(answer.carrier(), answer.status, Content::of(message));
                }
            }
            200..300 => {
                let half = setup.half.settled(message);
                let asked = Asked {
                    uac: setup.from,
                    offer: setup.offer,
                    half,
                    ruling: &setup.ruling,
                    caller: setup.from,
                    timer: None,
                };
                let conclusion = asked.conclude(message);
                asked.write(message, conclusion, edits);
                let timer = asked.timer_of(conclusion, now);
                // A session that exists means a retransmission: completed again, but nothing starts anew. Without a To
                // tag there is no dialog (RFC 3261 §12.1.1).
                if session.is_none() && answer.to_tag.is_some() {
                    self.start_session(now, message, call, answer, (conclusion, timer));
                }
            }
            status => {
                if status == 422 {
                    let kind = rejection_seen(message, answer.by.other());
                    setup.tell(now, kind, &mut self.actions);
                    if self.retry_setup(now, call, answer, message) {
                        return Some(Verdict::Absorb);
                    }
                }
                self.setup_failed(now, call, answer, message);
            }
        }
        None
    }

    /// One of its copies at least: another may be refused only because it met the first (RFC 3261 §8.2.2.2).
    fn setup_failed(&mut self, now: Time, call: u32, answer: Answer, response: &Message) {
        let from = answer.by.other();
        let branch = BranchKey::of_response(self.config.tag_key, response);
        let found = &mut self.calls[call as usize];
        if found.setup(from, answer.from_tag, answer.cseq).is_some_and(|setup| !setup.fails_under(branch)) {
            return;
        }
        let setups = &mut found.setups;
        for setup in setups.iter_mut().filter(|setup| setup.is_of(from, answer.from_tag, answer.cseq)) {
            // Its ACK and the copies of this response are numbered by it still.
            if setup.numbers.is_shifted() {
                setup.answer(now);
            }
        }
        setups.retain(|setup| setup.answered || !setup.is_of(from, answer.from_tag, answer.cseq));
        self.drop_call_if_over(call);
    }

    /// A 2xx with a new To tag: one session per fork.
    fn start_session(
        &mut self,
        now: Time,
        message: &Message,
        call: u32,
        answer: Answer,
        concluded: (Concluded, Option<Timer>),
    ) {
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
        let early = answer.to_tag.and_then(|tag| setup.early.iter().position(|early| &*early.tag == tag));
        let early = early.map(|position| setup.early.swap_remove(position));
        let mut numbers = [setup.numbers; 2];
        numbers[answer.by.index()] = early.as_ref().map_or(Numbering::default(), |early| early.numbers);
        if let Some(early) = &early {
            numbers[caller.index()] = early.caller_numbers;
        }
        let legs = Leg::BOTH.map(|leg| LegState {
            flow: if leg == caller { setup.flow } else { answer.flow },
            numbers: numbers[leg.index()],
            refresh_cseq: None,
            rejected_cseq: None,
            glare: None,
        });
        let acting = setup.half.settled(message).is_ours().then(|| {
            let media = early.and_then(|early| early.media).or_else(|| setup.media.clone());
            Box::new(acting(setup, media.map_or(Media::default(), |media| *media), message, answer))
        });
        let asked = if acting.is_some() && caller == Leg::Remote { setup.own_min_se } else { 0 };
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
            to_end: None,
            dropped_at: now,
            highest_min_se: setup.min_se.max(asked),
            refreshes: Vec::new(),
            acting,
            wheel_at: None,
            log: std::mem::take(&mut setup.log),
        };
        self.sessions.insert(session);
        self.active += 1;
        let sessions = &mut self.calls[call as usize].sessions;
        sessions.reserve_exact(1);
        sessions.push(slot as u32);
        self.establish(now, slot as u32, caller, concluded);
        self.schedule_call(call);
    }

    fn establish(&mut self, now: Time, slot: u32, caller: Leg, (conclusion, timer): (Concluded, Option<Timer>)) {
        let session = &mut self.sessions[slot as usize];
        if session.acting.is_some() {
            session.tell(now, EventKind::ActsForApp, &mut self.actions);
        }
        note_conclusion(session, now, caller, conclusion, &mut self.actions);
        session.timer = timer;
        let (interval, refresher) = timer.map_or((None, None), |timer| (Some(timer.interval_s), Some(timer.refresher)));
        session.tell(now, EventKind::Established { interval, refresher }, &mut self.actions);
        self.plan(slot);
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
    ) -> Option<Verdict> {
        let session = &mut self.sessions[slot as usize];
        let refresh = &mut session.refreshes[position];
        match answer.status {
            ..200 => {}
            200..300 => {
                let asked = Asked::of(refresh, session.caller, session.timer);
                let conclusion = asked.conclude(message);
                asked.write(message, conclusion, edits);
                let timer = asked.timer_of(conclusion, now);
                if !std::mem::replace(&mut refresh.answered, true) {
                    let target = contact_uri(message);
                    self.renegotiated(now, slot, position, target, (conclusion, timer));
                }
            }
            status => {
                if status == 422 {
                    let kind = rejection_seen(message, answer.by.other());
                    if let EventKind::RejectionSeen { min_se: Some(min_se), .. } = kind {
                        session.highest_min_se = session.highest_min_se.max(min_se);
                    }
                    session.tell(now, kind, &mut self.actions);
                    if self.retry_refresh(now, slot, position, answer, message) {
                        return Some(Verdict::Absorb);
                    }
                }
                let session = &mut self.sessions[slot as usize];
                session.refreshes.remove(position);
                session.tell(now, EventKind::RefreshFailed { by: answer.by.other(), status }, &mut self.actions);
                if ends_usage(answer.method, status) {
                    self.end(now, slot, EndCause::Response(status));
                }
            }
        }
        None
    }

    /// The first 2xx to a re-INVITE or UPDATE: targets are refreshed and the timer is what it concludes. `target` is the
    /// Contact of whoever answered.
    pub(super) fn renegotiated(
        &mut self,
        now: Time,
        slot: u32,
        position: usize,
        target: Option<&[u8]>,
        (conclusion, timer): (Concluded, Option<Timer>),
    ) {
        let limit = self.config.limits.identity_len;
        let session = &mut self.sessions[slot as usize];
        let refresh = &mut session.refreshes[position];
        let (by, method) = (refresh.from, refresh.method);
        session.ruling = refresh.ruling.clone();
        if refresh.half == Half::App {
            // The application spoke for itself, and was answered.
            session.acting = None;
        }
        if let Some(target) = refresh.target.take() {
            session.identity.set_target(by, &target, limit);
        }
        if let Some(target) = target {
            session.identity.set_target(by.other(), target, limit);
        }
        self.rearm(now, slot, by, method, (conclusion, timer));
    }

    /// A 2xx to an INVITE or UPDATE of `by` concludes.
    pub(super) fn rearm(
        &mut self,
        now: Time,
        slot: u32,
        by: Leg,
        method: Method,
        (conclusion, timer): (Concluded, Option<Timer>),
    ) {
        let session = &mut self.sessions[slot as usize];
        note_conclusion(session, now, by, conclusion, &mut self.actions);
        let before = session.timer;
        session.timer = match (conclusion, before) {
            // What it says cannot be read, but it proves that both sides live.
            (Err(_), Some(timer)) => Some(Timer { armed: now, ..timer }),
            _ => timer,
        };
        match (before, session.timer) {
            (_, Some(Timer { interval_s: interval, refresher, .. })) => {
                let kind = EventKind::Refreshed { by, method, interval, refresher };
                session.tell(now, kind, &mut self.actions);
            }
            (Some(_), None) => session.tell(now, EventKind::TimerOff { by }, &mut self.actions),
            (None, None) => {}
        }
        self.plan(slot);
        self.schedule_session(slot);
    }
}

/// What we know of a call at its 2xx, as the application's half from then on.
fn acting(setup: &Setup, mut media: Media, message: &Message, answer: Answer) -> Acting {
    media.response(answer.carrier(), answer.status, Content::of(message));
    let peer_has_timers = setup.from == Leg::Remote && setup.offer.uac_supports_timer;
    let mut acting = Acting::new(media, peer_has_timers || (answer.by == Leg::Remote && speaks_of_timers(message)));
    acting.app_update = setup.caller_update(Leg::Local);
    acting.remote_update = setup.caller_update(Leg::Remote);
    acting.learn(answer.by, message);
    acting
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
pub(super) fn ends_usage(method: Method, status: u16) -> bool {
    match method {
        Method::Invite | Method::Update => matches!(status, 404 | 408 | 410 | 416 | 480..=485 | 604),
        Method::Info | Method::Prack => matches!(status, 408 | 481),
        _ => false,
    }
}

/// Failures that refuse what was asked, as against those that tell of a peer out of reach: a proxy answers with a 5xx
/// (RFC 3261 §16.7 item 6, §16.9) or 430 (RFC 5626 §5.3) for one that may be dead. A UA that answers so cannot be told from it.
pub(super) fn shows_life(status: u16) -> bool {
    matches!(status, 300..=429 | 431..=499 | 600..)
}
