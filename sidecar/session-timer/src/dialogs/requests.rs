//! Requests: initial INVITEs become setups, requests inside a session refresh or end it.

use sipwarden_sip::value::CSeq;
use sipwarden_sip::{Edits, Message, Method};

use super::judging::{Judged, repeat_offer};
use super::{Action, Arrival, Dialogs, Transmit, Verdict};
use crate::negotiation::Offer;
use crate::session::Refresh;
use crate::setup::{Caller, Setup, contact_uri};
use crate::{EndCause, EventKind, Leg, LimitKind, Time};

/// What identifies a request inside its call.
#[derive(Clone, Copy)]
struct Sent<'a> {
    from: Leg,
    from_tag: &'a [u8],
    method: Method,
    cseq: u32,
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
        match message.to_tag() {
            None if method == Method::Invite => self.initial_invite(now, arrival, message, sent, edits),
            None => None,
            Some(to_tag) => {
                let call = self.find_call(message.call_id()?);
                match call.and_then(|call| self.find_session(call, sent.from, sent.from_tag, to_tag)) {
                    Some(slot) => Some(self.in_session(now, arrival, message, slot, sent, edits)),
                    None => self.outside_session(now, call, sent, to_tag),
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
        let known = self.find_call(call_id);
        if let Some(call) = known
            && let Some(setup) = self.calls[call as usize].setup(sent.from, sent.from_tag, sent.cseq)
        {
            // Retransmitted: the same goes on as the first time, whatever policy was loaded in between.
            setup.touch(now);
            repeat_offer(&setup.ruling, message, setup.offer, edits);
            return None;
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
        let ruling = self.ruling_for(sent.from, arrival.peer, message);
        let judged = self.judge(&ruling, sent.from, sent.from, 0, message, edits);
        let mut cseqs = [None; 2];
        cseqs[sent.from.index()] = Some(sent.cseq);
        let mut setup = Setup {
            from: sent.from,
            cseq: sent.cseq,
            offer: Offer { interval: None, refresher: None, min_se: None, uac_supports_timer: false },
            ruling,
            caller,
            cseqs,
            flow: arrival.flow,
            started: now,
            until: now,
            answered: false,
            log: Default::default(),
        };
        for kind in self.notes.drain(..) {
            setup.tell(now, kind, &mut self.actions);
        }
        match judged {
            Judged::Refused(status, reason, extra) => Some(self.answer(arrival, message, status, reason, &extra)),
            Judged::Goes(offer) => {
                setup.offer = offer;
                setup.touch(now);
                let call = known.unwrap_or_else(|| self.add_call(call_id));
                let setups = &mut self.calls[call as usize].setups;
                setups.reserve_exact(1);
                setups.push(setup);
                self.schedule_call(call);
                None
            }
        }
    }

    fn outside_session(&mut self, now: Time, call: Option<u32>, sent: Sent, to_tag: &[u8]) -> Option<Verdict> {
        let early = match (call, sent.method) {
            (_, Method::Ack | Method::Cancel) => true,
            (Some(call), _) => {
                self.calls[call as usize].saw_early_request(now, sent.from, sent.from_tag, to_tag, sent.cseq)
            }
            (None, _) => false,
        };
        if !early && matches!(sent.method, Method::Invite | Method::Update) {
            self.tell(EventKind::UnknownDialog { from: sent.from });
        }
        None
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
            Some(EndCause::Expired) => return self.late_request(now, arrival, message, slot, sent),
            Some(_) => return Verdict::Forward { toward: Some(toward) },
            None => session.heard(now, sent.from, arrival.flow),
        }
        let leg = &mut session.legs[sent.from.index()];
        match sent.method {
            Method::Ack if leg.rejected_cseq == Some(sent.cseq) => return Verdict::Absorb,
            Method::Ack | Method::Cancel => {}
            method => {
                leg.saw_cseq(sent.cseq);
                match method {
                    Method::Bye => self.end(now, slot, EndCause::Bye(sent.from)),
                    Method::Invite | Method::Update => {
                        return self.refresh_request(now, arrival, message, slot, sent, edits);
                    }
                    _ => {}
                }
            }
        }
        Verdict::Forward { toward: Some(toward) }
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
        let forward = Verdict::Forward { toward: Some(session.legs[sent.from.other().index()].flow) };
        if let Some(position) = session.refresh(sent.from, sent.method, sent.cseq) {
            let first = &session.refreshes[position];
            repeat_offer(&first.ruling, message, first.offer, edits);
            return forward;
        }
        let (caller, call_min_se) = (session.caller, session.highest_min_se);
        let ruling = self.ruling_now(slot, sent.from, message);
        let judged = self.judge(&ruling, sent.from, caller, call_min_se, message, edits);
        let session = &mut self.sessions[slot as usize];
        for kind in self.notes.drain(..) {
            session.tell(now, kind, &mut self.actions);
        }
        match judged {
            Judged::Refused(status, reason, extra) => {
                if sent.method == Method::Invite {
                    session.legs[sent.from.index()].rejected_cseq = Some(sent.cseq);
                }
                self.answer(arrival, message, status, reason, &extra)
            }
            Judged::Goes(offer) => {
                let target = contact_uri(message).map(Box::from);
                let Sent { from, method, cseq, .. } = sent;
                // Its retransmission may pass where the first was rejected, by a policy loaded in between.
                let leg = &mut session.legs[from.index()];
                leg.rejected_cseq.take_if(|rejected| *rejected == cseq);
                // A late copy of one that others have followed is not opened again: its answer, which comes again too,
                // would arm anew what it said then.
                if Some(cseq) >= leg.refresh_cseq {
                    leg.refresh_cseq = Some(cseq);
                    session.open_refresh(Refresh { from, method, cseq, offer, ruling, target, answered: false });
                }
                forward
            }
        }
    }

    /// Nothing brings an expired session back (RFC 4028 §10): its requests end here.
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

    fn answer(&mut self, arrival: &Arrival, message: &Message, status: u16, reason: &str, extra: &str) -> Verdict {
        let mut bytes = Vec::with_capacity(512);
        self.responder.respond(message, status, reason, arrival.via_suffix, extra.as_bytes(), &mut bytes);
        self.actions.push_back(Action::Transmit(Transmit { flow: arrival.reply_to, bytes }));
        Verdict::Answered(status)
    }
}
