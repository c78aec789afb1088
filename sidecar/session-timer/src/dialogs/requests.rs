//! Requests: initial INVITEs become setups, requests inside a session refresh or end it.

use sipwarden_sip::value::{CSeq, RAck, ReferId};
use sipwarden_sip::{Decimal, Edits, HeaderName, Message, Method};

use super::judging::{Fate, repeat_request};
use super::{Action, Arrival, Dialogs, Transmit, Verdict};
use crate::acting::{Half, UpdateSupport};
use crate::judgment::{Place, RequestFacts};
use crate::media::{Carrier, Content, Media};
use crate::negotiation::Offer;
use crate::numbering::Numbering;
use crate::session::{Refresh, Retry, Session};
use crate::setup::{BranchKey, Caller, Early, Setup, contact_uri};
use crate::{EndCause, EventKind, Flow, Leg, LimitKind, Time};

/// What identifies a request inside its call.
#[derive(Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) from: Leg,
    pub(super) from_tag: &'a [u8],
    pub(super) method: Method,
    pub(super) cseq: u32,
}

impl Sent<'_> {
    pub(super) fn carrier(&self) -> Carrier {
        Carrier { from: self.from, method: self.method, cseq: self.cseq }
    }
}

impl Dialogs {
    /// `None`: nothing here concerns it.
    pub(super) fn request(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let CSeq { number, method, .. } = message.cseq().ok()?;
        let sent = Sent { from: self.leg_of(arrival.flow), from_tag: message.from_tag()?, method, cseq: number };
        match (message.to_tag(), method) {
            (None, Method::Invite) => self.initial_invite(now, arrival, message, sent, edits),
            (None, Method::Cancel) => self.setup_cancelled(arrival, message, sent, edits),
            (None, _) => None,
            (Some(to_tag), _) => {
                let call = self.find_call(arrival.call, message);
                match call.and_then(|call| self.find_session(call, sent.from, sent.from_tag, to_tag)) {
                    Some(slot) => Some(self.in_session(now, arrival, message, slot, sent, edits)),
                    None => self.outside_session(now, call, message, sent, to_tag, edits),
                }
            }
        }
    }

    fn initial_invite(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        sent: Sent,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let call_id = message.call_id()?;
        let known = self.find_call(arrival.call, message);
        let branch = BranchKey::of_request(self.config.tag_key, message);
        if let Some(call) = known
            && let Some(setup) = self.calls[call as usize].setup(sent.from, sent.from_tag, sent.cseq)
        {
            // Retransmitted, or forked before us: the same goes on as the last time, whatever policy was loaded in between.
            setup.touch(now);
            setup.passes_under(branch, self.config.limits.per_call);
            repeat_request(&setup.ruling, setup.half, sent.from, message, setup.offer, edits);
            return Some(forward(None, message, &setup.numbers, sent.cseq, edits));
        }
        if known.is_none() && self.calls.len() >= self.config.limits.calls {
            self.limit_reached(LimitKind::Calls);
            return None;
        }
        if known.is_some_and(|call| self.calls[call as usize].setups.len() >= self.config.limits.per_call) {
            self.limit_reached(LimitKind::Forks);
            return None;
        }
        let Some(caller) = Caller::of(message, self.config.limits.identity_len) else {
            self.limit_reached(LimitKind::IdentitySize);
            return None;
        };
        // One that follows a refused one goes on in its CSeq space, which a retry of ours may have moved.
        let before = known.and_then(|call| self.calls[call as usize].setup_of_caller(sent.from, sent.from_tag));
        let (mut numbers, min_se) = before.map_or((Numbering::default(), 0), |before| (before.numbers, before.min_se));
        let ruling = self.ruling_for(sent.from, arrival.peer, message);
        let facts =
            RequestFacts { call_min_se: min_se, ..RequestFacts::of(message, sent.from, sent.from, Place::Initial) };
        let half = facts.half(ruling.policy.mode, ruling.timers());
        let fate = self.judge(&ruling, half, facts, message, edits);
        let leaving = numbers.pass(sent.cseq);
        let mut setup = Setup {
            from: sent.from,
            cseq: sent.cseq,
            branches: vec![branch],
            offer: Offer { interval: None, refresher: None, min_se: None, uac_supports_timer: false },
            half,
            ruling,
            caller,
            numbers,
            media: None,
            update: UpdateSupport::default(),
            early: Vec::new(),
            min_se,
            own_min_se: facts.came.offer().min_se.unwrap_or(0),
            retry: None,
            cancelled: false,
            flow: arrival.flow,
            started: now,
            until: now,
            answered: false,
            log: Default::default(),
        };
        for kind in self.notes.drain(..) {
            setup.tell(now, kind, &mut self.actions);
        }
        match fate {
            Fate::Refused(status, reason, extra) => Some(self.answer(arrival, message, status, reason, &extra)),
            Fate::Goes(offer) => {
                setup.offer = offer;
                setup.touch(now);
                if half != Half::App {
                    let mut media = Media::default();
                    media.request(sent.carrier(), Content::of(message));
                    setup.media = Some(Box::new(media));
                    setup.update.learn(message);
                }
                if half.is_ours() && sent.from == Leg::Local {
                    setup.retry = Some(Retry { request: message.bytes().into(), first_leaving: leaving, tries: 0 });
                }
                let call = known.unwrap_or_else(|| self.add_call(arrival.call, call_id));
                let setups = &mut self.calls[call as usize].setups;
                setups.reserve_exact(1);
                setups.push(setup);
                self.schedule_call(call);
                Some(forward(None, message, &numbers, sent.cseq, edits))
            }
        }
    }

    /// The CANCEL of an INVITE goes where that went.
    fn setup_cancelled(
        &mut self,
        arrival: &Arrival,
        message: &Message,
        sent: Sent,
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let call = self.find_call(arrival.call, message)?;
        let setup = self.calls[call as usize].setup(sent.from, sent.from_tag, sent.cseq)?;
        setup.cancelled = true;
        Some(forward(None, message, &setup.numbers, sent.cseq, edits))
    }

    /// In early dialogs, and the ACK to what refused an INVITE.
    fn outside_session(
        &mut self,
        now: Time,
        call: Option<u32>,
        message: &Message,
        sent: Sent,
        to_tag: &[u8],
        edits: &mut Edits,
    ) -> Option<Verdict> {
        let most = self.config.limits.per_call;
        let call = call.map(|slot| &mut self.calls[slot as usize]);
        if matches!(sent.method, Method::Ack | Method::Cancel) {
            let setup = call?.setup(sent.from, sent.from_tag, sent.cseq)?;
            return Some(forward(None, message, &setup.numbers, sent.cseq, edits));
        }
        let mut of_caller = None;
        if let Some(call) = call {
            if let Some(setup) = call.setup_of_caller(sent.from, sent.from_tag) {
                setup.touch(now);
                let mut numbers = setup.numbers;
                if let Some(early) = setup.early(to_tag, most) {
                    early.caller_numbers.pass(sent.cseq);
                    numbers = early.caller_numbers;
                    note_early_media(early, sent, message);
                }
                of_caller = Some(forward(None, message, &numbers, sent.cseq, edits));
            } else if let Some(setup) = call.setup_of_caller(sent.from.other(), to_tag) {
                setup.touch(now);
                if let Some(early) = setup.early(sent.from_tag, most) {
                    early.numbers.pass(sent.cseq);
                    note_early_media(early, sent, message);
                }
                return None;
            }
        }
        if of_caller.is_none() && matches!(sent.method, Method::Invite | Method::Update) {
            self.tell(EventKind::UnknownDialog { from: sent.from });
        }
        of_caller
    }

    fn in_session(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        slot: u32,
        sent: Sent,
        edits: &mut Edits,
    ) -> Verdict {
        let session = &mut self.sessions[slot as usize];
        let toward = session.legs[sent.from.other().index()].flow;
        match session.ended {
            Some(cause) if cause.is_ours() => return self.late_request(now, arrival, message, slot, sent),
            Some(_) => {}
            None => session.heard(now, sent.from, arrival.flow),
        }
        let leg = &mut session.legs[sent.from.index()];
        if !matches!(sent.method, Method::Ack | Method::Cancel) {
            leg.numbers.pass(sent.cseq);
        }
        match sent.method {
            Method::Ack if leg.rejected_cseq == Some(sent.cseq) => return Verdict::Absorb,
            Method::Ack => {
                if let Some(acting) = &mut session.acting {
                    acting.media.ack(Carrier { method: Method::Invite, ..sent.carrier() }, Content::of(message));
                }
            }
            Method::Prack => {
                if let Some(acting) = &mut session.acting {
                    acting.media.request(sent.carrier(), Content::of(message));
                }
            }
            Method::Invite | Method::Update if session.ended.is_none() => {
                return self.refresh_request(now, arrival, message, slot, sent, edits);
            }
            Method::Notify | Method::Subscribe => session.move_refer_id(sent, message, edits),
            Method::Bye if session.ended.is_none() => self.end(now, slot, EndCause::Bye(sent.from)),
            _ => {}
        }
        let numbers = &self.sessions[slot as usize].legs[sent.from.index()].numbers;
        forward(Some(toward), message, numbers, sent.cseq, edits)
    }

    fn refresh_request(
        &mut self,
        now: Time,
        arrival: &Arrival,
        message: &Message,
        slot: u32,
        sent: Sent,
        edits: &mut Edits,
    ) -> Verdict {
        let session = &mut self.sessions[slot as usize];
        let Sent { from, method, cseq, .. } = sent;
        let toward = Some(session.legs[from.other().index()].flow);
        if let Some(position) = session.refresh(from, method, cseq) {
            let first = &session.refreshes[position];
            if first.answered_here {
                return self.answer_for_app(now, arrival, message, slot, position);
            }
            repeat_request(&first.ruling, first.half, from, message, first.offer, edits);
            return forward(toward, message, &session.legs[from.index()].numbers, cseq, edits);
        }
        // A copy gets the same answer when ours is over, too: whoever has it waits for no other.
        let copy = session.legs[from.index()].glare == Some((method, cseq));
        if copy || self.meets_ours(slot, sent, Content::of(message) != Content::Nothing) {
            let session = &mut self.sessions[slot as usize];
            session.reject(sent);
            session.legs[from.index()].glare = Some((method, cseq));
            if !copy {
                session.tell(now, EventKind::Glare { from, method }, &mut self.actions);
            }
            return self.answer(arrival, message, 491, "Request Pending", "");
        }
        let ruling = self.ruling_now(slot, from, Some(message));
        let session = &mut self.sessions[slot as usize];
        if let Some(acting) = &mut session.acting {
            acting.learn(from, message);
        }
        let place = Place::Session { acting: session.acting.is_some() };
        let facts = RequestFacts {
            call_min_se: session.highest_min_se,
            timer: session.timer,
            ..RequestFacts::of(message, from, session.caller, place)
        };
        let half = facts.half(ruling.policy.mode, ruling.timers());
        let fate = self.judge(&ruling, half, facts, message, edits);
        let session = &mut self.sessions[slot as usize];
        if session.acting.is_some() && from == Leg::Remote {
            session.highest_min_se = session.highest_min_se.max(facts.came.offer().min_se.unwrap_or(0));
        }
        for kind in self.notes.drain(..) {
            session.tell_by(&ruling, now, kind, &mut self.actions);
        }
        let offer = match fate {
            Fate::Refused(status, reason, extra) => {
                session.reject(sent);
                return self.answer(arrival, message, status, reason, &extra);
            }
            Fate::Goes(offer) => offer,
        };
        // Its retransmission may pass where the first was rejected, by a policy loaded in between.
        let leg = &mut session.legs[from.index()];
        leg.rejected_cseq.take_if(|rejected| *rejected == cseq);
        // A late copy of one that others have followed is not opened again: its answer, which comes again too, would arm
        // anew what it said then.
        if Some(cseq) < leg.refresh_cseq {
            return forward(toward, message, &leg.numbers, cseq, edits);
        }
        leg.refresh_cseq = Some(cseq);
        let leaving = leg.numbers.leaves_as(cseq);
        let here = half.is_ours() && session.must_answer_here(from, method, message);
        if let Some(acting) = &mut session.acting {
            acting.media.request(sent.carrier(), Content::of(message));
        }
        let retry = (half.is_ours() && from == Leg::Local).then(|| Retry {
            request: message.bytes().into(),
            first_leaving: leaving,
            tries: 0,
        });
        let target = contact_uri(message).filter(|target| *target != session.identity.leg(from).target).map(Box::from);
        let refresh =
            Refresh { from, method, cseq, offer, half, ruling, retry, target, answered: false, answered_here: here };
        session.open_refresh(refresh);
        if here {
            let position = session.refreshes.len() - 1;
            return self.answer_for_app(now, arrival, message, slot, position);
        }
        forward(toward, message, &session.legs[from.index()].numbers, cseq, edits)
    }

    /// Nothing brings a session back that we ended (RFC 4028 §10): its requests end here.
    fn late_request(&mut self, now: Time, arrival: &Arrival, message: &Message, slot: u32, sent: Sent) -> Verdict {
        if sent.method == Method::Ack {
            return Verdict::Absorb;
        }
        let kind = EventKind::LateRequest { from: sent.from, method: sent.method };
        self.sessions[slot as usize].tell(now, kind, &mut self.actions);
        match sent.method {
            // Its BYE crossed ours: both sides agree, so it may hear that.
            Method::Bye => self.answer(arrival, message, 200, "OK", ""),
            _ => self.answer(arrival, message, 481, "Call/Transaction Does Not Exist", ""),
        }
    }

    pub(super) fn answer(
        &mut self,
        arrival: &Arrival,
        message: &Message,
        status: u16,
        reason: &str,
        extra: &str,
    ) -> Verdict {
        let mut bytes = Vec::with_capacity(512);
        self.responder.respond(message, status, reason, arrival.via_suffix, extra.as_bytes(), &mut bytes);
        self.actions.push_back(Action::Transmit(Transmit { flow: arrival.reply_to, bytes }));
        Verdict::Answered(status)
    }
}

impl Session {
    /// The request is answered here with a failure.
    fn reject(&mut self, sent: Sent) {
        if sent.method == Method::Invite {
            self.legs[sent.from.index()].rejected_cseq = Some(sent.cseq);
        }
    }

    /// A subscription is named by the number of the REFER it came of (RFC 3515 §2.4.6), which we may have moved: to who
    /// referred goes its own number, from it the one that left.
    fn move_refer_id(&self, sent: Sent, message: &Message, edits: &mut Edits) {
        let notifies = sent.method == Method::Notify;
        let referrer = if notifies { sent.from.other() } else { sent.from };
        let numbers = &self.legs[referrer.index()].numbers;
        if !numbers.is_shifted() {
            return;
        }
        let Some(event) = message.first(HeaderName::Event) else { return };
        let Some(ReferId { number, number_at }) = ReferId::parse(event.value) else { return };
        let moved = if notifies { numbers.came_as(number) } else { Some(numbers.leaves_as(number)) };
        if let Some(moved) = moved.filter(|moved| *moved != number) {
            write_number(message, event.value_start + number_at, moved, edits);
        }
    }

    /// A refresh that the application could only refuse: an UPDATE of the other side, with nothing to say but that, where
    /// the application does not list the method.
    fn must_answer_here(&self, from: Leg, method: Method, message: &Message) -> bool {
        let listed = self.acting.as_ref().is_some_and(|acting| acting.app_update == UpdateSupport::Listed);
        from == Leg::Remote && method == Method::Update && !listed && Content::of(message) == Content::Nothing
    }
}

/// The verdict that sends a request on with the number it leaves with.
pub(super) fn forward(
    toward: Option<Flow>,
    message: &Message,
    numbers: &Numbering,
    cseq: u32,
    edits: &mut Edits,
) -> Verdict {
    let leaving = numbers.leaves_as(cseq);
    if let Some(rack) = message.first(HeaderName::RAck)
        && let Ok(RAck { cseq: acknowledged, cseq_at, .. }) = RAck::parse(rack.value)
        && let leaving = numbers.leaves_as(acknowledged.number)
        && leaving != acknowledged.number
    {
        write_number(message, rack.value_start + cseq_at, leaving, edits);
    }
    if leaving == cseq {
        return Verdict::Forward { toward, cseq: None };
    }
    write_cseq(message, leaving, edits);
    Verdict::Forward { toward, cseq: Some(leaving) }
}

/// Puts another number into CSeq.
pub(super) fn write_cseq(message: &Message, number: u32, edits: &mut Edits) {
    if let Some(header) = message.first(HeaderName::CSeq) {
        write_number(message, header.value_start, number, edits);
    }
}

fn write_number(message: &Message, at: usize, number: u32, edits: &mut Edits) {
    let written = message.bytes()[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    edits.replace(at..at + written, &[Decimal::new(number).text()]);
}

fn note_early_media(early: &mut Early, sent: Sent, message: &Message) {
    let content = Content::of(message);
    if content != Content::Nothing
        && let Some(media) = &mut early.media
    {
        media.request(sent.carrier(), content);
    }
}
