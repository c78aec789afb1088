//! Requests of our own: sent, retransmitted, answered, given up.

use sipwarden_sip::{Message, Method};

use super::{Action, Dialogs, Due, Transmit};
use crate::challenge::Challenges;
use crate::client::{Client, Heard, Order, Ours, Purpose, Step};
use crate::setup::contact_uri;
use crate::{ByeOutcome, EndCause, EventKind, Leg, Time};

/// The end of every CSeq space: a BYE is sent even there.
const LAST_CSEQ: u32 = (1 << 31) - 1;

impl Dialogs {
    /// To both legs at once: one that answers late or never does not hold back the other.
    pub(super) fn send_byes(&mut self, now: Time, slot: u32, cause: EndCause) {
        for to in Leg::BOTH {
            self.send_bye(now, slot, to, cause, Challenges::default());
            self.sessions[slot as usize].tell(now, EventKind::ByeSent { to }, &mut self.actions);
        }
    }

    fn send_bye(&mut self, now: Time, slot: u32, to: Leg, cause: EndCause, challenges: Challenges) {
        let cseq = self.reserve_cseq(slot, to).unwrap_or(LAST_CSEQ);
        let extra = &reason_of(cause);
        let order = Order { to, purpose: Purpose::End, method: Method::Bye, cseq, extra: extra.as_bytes(), body: b"" };
        self.originate(now, slot, order, challenges);
    }

    /// A BYE of ours to the remote side was challenged: it goes out once more with what the policy says of who we are (RFC
    /// 3261 §22.2). False when there is nothing to say.
    fn repeat_bye(
        &mut self,
        now: Time,
        slot: u32,
        status: u16,
        response: &Message,
        mut challenges: Challenges,
    ) -> bool {
        let session = &mut self.sessions[slot as usize];
        session.tell(now, EventKind::Challenged { status }, &mut self.actions);
        let credentials = session.ruling.timers().credentials.as_ref();
        let Some(cause) = session.ended.filter(|_| credentials.is_some_and(|own| challenges.take_up(response, own)))
        else {
            return false;
        };
        self.send_bye(now, slot, Leg::Remote, cause, challenges);
        true
    }

    /// A CSeq number for a request to `to`, in the space of the other side.
    pub(super) fn reserve_cseq(&mut self, slot: u32, to: Leg) -> Option<u32> {
        let legs = &mut self.sessions[slot as usize].legs;
        let others = legs[to.index()].numbers.highest();
        legs[to.other().index()].numbers.reserve(others)
    }

    /// Sends a request of ours; returns its slot.
    pub(super) fn originate(&mut self, now: Time, slot: u32, order: Order, challenges: Challenges) -> u32 {
        let nonce = self.random.next();
        let entry = self.clients.vacant_entry();
        let key = entry.key() as u32;
        let session = &self.sessions[slot as usize];
        let call_id = &self.calls[session.call as usize].call_id;
        let endpoint = &self.config.endpoints[usize::from(session.legs[order.to.index()].flow.endpoint)];
        let client = Client::new(now, session, call_id, order, endpoint, (key, nonce), challenges);
        self.actions.push_back(Action::Transmit(Transmit { flow: client.flow, bytes: client.bytes.clone() }));
        self.wheel.insert(client.due, Due::Client(key));
        entry.insert(client);
        key
    }

    pub(super) fn client_due(&mut self, now: Time, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).filter(|client| client.due <= now) else { return };
        match client.step(now) {
            Step::Retransmit => {
                self.wheel.insert(client.due, Due::Client(slot));
                self.actions.push_back(Action::Transmit(Transmit { flow: client.flow, bytes: client.bytes.clone() }));
            }
            Step::Wait => self.wheel.insert(client.due, Due::Client(slot)),
            Step::Forget => drop(self.clients.remove(slot as usize)),
            Step::GiveUp => {
                let client = self.clients.remove(slot as usize);
                self.concluded(now, client.ours, None, Challenges::default());
            }
        }
    }

    /// `slot` is what the response's branch claims.
    pub(super) fn client_answered(&mut self, now: Time, slot: u32, response: &Message, status: u16) {
        let Some(client) = self.clients.get_mut(slot as usize).filter(|client| client.is_answered_by(response)) else {
            return;
        };
        let ours = client.ours;
        match client.heard(now, status) {
            Heard::Nothing => {}
            Heard::Again => {
                self.actions.push_back(Action::Transmit(Transmit { flow: client.flow, bytes: client.bytes.clone() }));
            }
            Heard::Final => {
                let challenges = std::mem::take(&mut client.challenges);
                if ours.method == Method::Invite {
                    self.acknowledge(now, slot, response, status);
                } else {
                    self.clients.remove(slot as usize);
                }
                self.concluded(now, ours, Some((status, response)), challenges);
            }
        }
    }

    /// Every final response to an INVITE is acknowledged, whatever has become of the session meanwhile.
    fn acknowledge(&mut self, now: Time, slot: u32, response: &Message, status: u16) {
        let nonce = self.random.next();
        let client = &mut self.clients[slot as usize];
        let Some(session) = self.sessions.get_mut(super::slot_of(client.ours.session)) else { return };
        if session.id != client.ours.session {
            return;
        }
        // Along the dialog as the 2xx leaves it (RFC 3261 §12.2.1.2).
        if let Some(target) = contact_uri(response).filter(|_| status < 300) {
            session.identity.set_target(client.ours.to, target, self.config.limits.identity_len);
        }
        let call_id = &self.calls[session.call as usize].call_id;
        let endpoint = &self.config.endpoints[usize::from(client.flow.endpoint)];
        let ack = client.ack(session, call_id, endpoint, status, (slot, nonce));
        self.actions.push_back(Action::Transmit(Transmit { flow: client.flow, bytes: ack.clone() }));
        client.acknowledged(now, ack);
        self.wheel.insert(client.due, Due::Client(slot));
    }

    /// A request of ours has its final answer, or will have none. `challenges`: those it answered.
    fn concluded(&mut self, now: Time, ours: Ours, answer: Option<(u16, &Message)>, challenges: Challenges) {
        let session = super::slot_of(ours.session);
        let known = self.sessions.get(session).is_some_and(|known| known.id == ours.session);
        match ours.purpose {
            Purpose::End => {
                if let Some((status @ (401 | 407), response)) = answer
                    && (known && ours.to == Leg::Remote)
                    && self.repeat_bye(now, session as u32, status, response, challenges)
                {
                    return;
                }
                let outcome = answer.map_or(ByeOutcome::TimedOut, |(status, _)| ByeOutcome::Answered(status));
                let kind = EventKind::ByeDone { to: ours.to, outcome };
                match self.sessions.get_mut(session).filter(|_| known) {
                    Some(session) => session.tell(now, kind, &mut self.actions),
                    None => self.tell(kind),
                }
            }
            Purpose::Refresh if known => self.refresh_concluded(now, session as u32, ours.method, answer, challenges),
            Purpose::Probe if known => self.probe_concluded(now, session as u32, answer.map(|(status, _)| status)),
            Purpose::Refresh | Purpose::Probe => {}
        }
    }
}

/// RFC 3326; the texts are ours.
fn reason_of(cause: EndCause) -> String {
    let (status, text) = match cause {
        EndCause::RefreshFailed(status) => (status, "Session refresh failed"),
        EndCause::AppGone => (481, "Application has no such call"),
        EndCause::Requested => (487, "Ended on request"),
        _ => (408, "Session timer expired"),
    };
    format!("Reason: SIP;cause={status};text=\"{text}\"\r\n")
}
