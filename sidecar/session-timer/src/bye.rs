//! The BYE client transactions of expired sessions (RFC 3261 §17.1.2). Transaction timers are real time, whatever the
//! pace of session time.

use std::time::Duration;

use sipwarden_sip::build::{self, RequestParts};
use sipwarden_sip::value::Transport;
use sipwarden_sip::{HeaderName, Message, Method};

use crate::dialogs::Endpoint;
use crate::session::Session;
use crate::{Flow, Leg, SessionId, Time};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Timer F.
const GIVE_UP: Duration = Duration::from_secs(32);

/// RFC 3326; the text is ours.
const REASON: &[u8] = b"Reason: SIP;cause=408;text=\"Session timer expired\"\r\n";
/// In front of every branch of ours, behind the magic cookie.
const BRANCH_PREFIX: &str = "z9hG4bKswb";

/// One BYE under way.
pub(crate) struct Bye {
    pub(crate) session: SessionId,
    pub(crate) to: Leg,
    pub(crate) flow: Flow,
    pub(crate) bytes: Vec<u8>,
    branch: String,
    reliable: bool,
    pause: Duration,
    pub(crate) due: Time,
    gives_up: Time,
}

/// What a due BYE wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Retransmit,
    GiveUp,
}

impl Bye {
    /// The BYE that ends `session` towards `to`. `slot` and `nonce` make its branch.
    pub(crate) fn new(
        now: Time,
        session: &Session,
        call_id: &[u8],
        to: Leg,
        endpoint: &Endpoint,
        slot: u32,
        nonce: u64,
    ) -> Bye {
        let flow = session.legs[to.index()].flow;
        let branch = format!("{BRANCH_PREFIX}{slot:x}.{nonce:016x}");
        let party = session.identity.leg(to);
        let mut bytes = Vec::with_capacity(512);
        build::request(
            &RequestParts {
                method: Method::Bye,
                target: party.target,
                routes: party.routes,
                transport: endpoint.transport,
                sent_by: &endpoint.sent_by,
                branch: &branch,
                from: session.identity.leg(to.other()).party,
                to: party.party,
                call_id,
                cseq: next_cseq(session, to.other()),
                extra: REASON,
                body: b"",
            },
            &mut bytes,
        );
        let reliable = !matches!(endpoint.transport, Transport::Udp);
        let gives_up = now + GIVE_UP;
        let due = if reliable { gives_up } else { now + T1 };
        Bye { session: session.id, to, flow, bytes, branch, reliable, pause: T1, due, gives_up }
    }

    /// The slot in a response's branch, if it may be one of ours.
    pub(crate) fn slot_of(response: &Message) -> Option<u32> {
        let branch = response.top_via().ok()?.branch()?.strip_prefix(BRANCH_PREFIX.as_bytes())?;
        let slot = branch.split(|&byte| byte == b'.').next()?;
        u32::from_str_radix(std::str::from_utf8(slot).ok()?, 16).ok()
    }

    /// Is `response` an answer to this one? The nonce keeps strangers from ending our retransmissions.
    pub(crate) fn is_answered_by(&self, response: &Message) -> bool {
        response.top_via().is_ok_and(|via| via.branch() == Some(self.branch.as_bytes()))
            && response.first(HeaderName::CSeq).is_some()
            && response.cseq().is_ok_and(|cseq| cseq.method == Method::Bye)
    }

    /// A provisional came: Timer E slows to T2.
    pub(crate) fn proceed(&mut self) {
        self.pause = T2;
    }

    /// Something is due at `now`.
    pub(crate) fn step(&mut self, now: Time) -> Step {
        if now >= self.gives_up {
            return Step::GiveUp;
        }
        if self.reliable {
            self.due = self.gives_up;
        } else {
            self.pause = (self.pause * 2).min(T2);
            self.due = (now + self.pause).min(self.gives_up);
        }
        Step::Retransmit
    }
}

/// The next CSeq in the space of what `from` sends. A side that never sent a request has an empty space (RFC 3261
/// §12.2.1.1): then the other side's numbers are a start that no peer can take for an old one.
fn next_cseq(session: &Session, from: Leg) -> u32 {
    let space = |leg: Leg| session.legs[leg.index()].cseq;
    space(from).or(space(from.other())).unwrap_or(0).saturating_add(1).min((1 << 31) - 1)
}
