//! What time does: sessions expire and are ended, BYEs are retransmitted, what is over is dropped.

use sipwarden_sip::Message;

use super::{Action, Dialogs, Due, Transmit};
use crate::bye::{Bye, Step};
use crate::setup::ANSWERED;
use crate::{ByeOutcome, EndCause, EventKind, Leg, Time};

impl Dialogs {
    /// The session is over, for `cause`. It is kept a while: requests that crossed the end still find it.
    pub(super) fn end(&mut self, now: Time, slot: u32, cause: EndCause) {
        let session = &mut self.sessions[slot as usize];
        let interval_ms = session.timer.take().map_or(0, |timer| u64::from(timer.interval_s) * 1000);
        // A refresher that was only late may try for one more interval; everybody else is done after 64 × T1.
        let late = if cause == EndCause::Expired { self.pace.real(interval_ms) } else { ANSWERED };
        session.ended = Some(cause);
        session.dropped_at = now + late.max(ANSWERED);
        session.refreshes = Vec::new();
        session.tell(now, EventKind::Ended { cause }, &mut self.actions);
        self.active -= 1;
        self.schedule_session(slot);
    }

    pub(super) fn session_due(&mut self, now: Time, slot: u32) {
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        if session.wheel_at.is_some_and(|at| at <= now) {
            session.wheel_at = None;
        }
        if session.due(self.pace) > now {
            return self.schedule_session(slot);
        }
        if session.ended.is_some() {
            return self.drop_session(slot);
        }
        match session.timer {
            None => {
                self.end(now, slot, EndCause::Forgotten);
                self.drop_session(slot);
            }
            Some(timer) => {
                let kind = EventKind::Expired { interval: timer.interval_s, refresher: timer.refresher };
                session.tell(now, kind, &mut self.actions);
                if session.expiry_acts() {
                    self.send_byes(now, slot);
                    self.end(now, slot, EndCause::Expired);
                } else {
                    session.timer = None;
                    self.schedule_session(slot);
                }
            }
        }
    }

    fn drop_session(&mut self, slot: u32) {
        let call = self.sessions.remove(slot as usize).call;
        self.calls[call as usize].sessions.retain(|&other| other != slot);
        self.drop_call_if_over(call);
    }

    pub(super) fn call_due(&mut self, now: Time, slot: u32) {
        let Some(call) = self.calls.get_mut(slot as usize) else { return };
        if call.wheel_at.is_some_and(|at| at <= now) {
            call.wheel_at = None;
        }
        call.setups.retain(|setup| setup.until > now);
        if call.setups.is_empty() {
            call.setups = Vec::new();
        }
        self.schedule_call(slot);
        self.drop_call_if_over(slot);
    }

    // BYE

    /// To both legs at once: one that answers late or never does not hold back the other.
    fn send_byes(&mut self, now: Time, slot: u32) {
        for to in Leg::BOTH {
            let nonce = self.random.next();
            let entry = self.byes.vacant_entry();
            let key = entry.key() as u32;
            let session = &mut self.sessions[slot as usize];
            let call_id = &self.calls[session.call as usize].call_id;
            let endpoint = &self.config.endpoints[usize::from(session.legs[to.index()].flow.endpoint)];
            let bye = Bye::new(now, session, call_id, to, endpoint, key, nonce);
            self.actions.push_back(Action::Transmit(Transmit { flow: bye.flow, bytes: bye.bytes.clone() }));
            self.wheel.insert(bye.due, Due::Bye(key));
            entry.insert(bye);
            session.tell(now, EventKind::ByeSent { to }, &mut self.actions);
        }
    }

    pub(super) fn bye_due(&mut self, now: Time, slot: u32) {
        let Some(bye) = self.byes.get_mut(slot as usize).filter(|bye| bye.due <= now) else { return };
        match bye.step(now) {
            Step::Retransmit => {
                self.wheel.insert(bye.due, Due::Bye(slot));
                self.actions.push_back(Action::Transmit(Transmit { flow: bye.flow, bytes: bye.bytes.clone() }));
            }
            Step::GiveUp => self.bye_done(now, slot, ByeOutcome::TimedOut),
        }
    }

    /// `slot` is what the response's branch claims.
    pub(super) fn bye_answered(&mut self, now: Time, slot: u32, response: &Message, status: u16) {
        let Some(bye) = self.byes.get_mut(slot as usize).filter(|bye| bye.is_answered_by(response)) else { return };
        if status < 200 {
            bye.proceed();
        } else {
            self.bye_done(now, slot, ByeOutcome::Answered(status));
        }
    }

    fn bye_done(&mut self, now: Time, slot: u32, outcome: ByeOutcome) {
        let bye = self.byes.remove(slot as usize);
        let kind = EventKind::ByeDone { to: bye.to, outcome };
        match self.sessions.get_mut(super::slot_of(bye.session)).filter(|session| session.id == bye.session) {
            Some(session) => session.tell(now, kind, &mut self.actions),
            None => self.tell(kind),
        }
    }
}
