//! The client transactions of requests we originate inside other parties' dialogs (RFC 3261 §17.1): BYE, the refreshes and
//! the probes sent for an application. Transaction timers are real time, whatever the pace of session time.
//!
//! ```text
//!            provisional             2xx to INVITE
//!   Trying ─────────────► Proceeding ─────────────► Answered (its ACK again for each copy of the response)
//!      └── final ─► over      └── other final of INVITE ─┘
//! ```

use std::time::Duration;

use sipwarden_sip::build::{self, RequestParts};
use sipwarden_sip::value::Transport;
use sipwarden_sip::{HeaderName, Message, Method};

use crate::challenge::{Challenges, Signed};
use crate::dialogs::Endpoint;
use crate::session::Session;
use crate::{Flow, Leg, SessionId, Time};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Timers B and F; and how long copies of a final response to INVITE may come (Timers D, L).
const SIXTY_FOUR_T1: Duration = Duration::from_secs(32);
/// An INVITE with a provisional response may take this long: a refresh asks nobody, so that is Timer C's least and more
/// than any timer waits.
const PROCEEDING: Duration = Duration::from_secs(180);
/// How long an application beside us may take to answer a probe.
const PROBE: Duration = Duration::from_secs(8);

/// In front of every branch of ours, behind the magic cookie.
const BRANCH_PREFIX: &str = "z9hG4bKswb";

/// A request of ours under way, or answered and kept for its ACK.
pub(crate) struct Client {
    pub(crate) ours: Ours,
    pub(crate) flow: Flow,
    cseq: u32,
    /// What goes out again: the request, or once answered its ACK.
    pub(crate) bytes: Vec<u8>,
    pub(crate) due: Time,
    /// What earlier tries of it were asked.
    pub(crate) challenges: Challenges,
    /// The header lines that answer them.
    authorization: String,
    branch: String,
    reliable: bool,
    pause: Duration,
    gives_up: Time,
    progress: Progress,
}

/// Which request of ours it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) session: SessionId,
    /// The leg it is sent to, in the name of the other.
    pub(crate) to: Leg,
    pub(crate) purpose: Purpose,
    pub(crate) method: Method,
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    End,
    Refresh,
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Trying,
    Proceeding,
    Answered,
}

/// What a due transaction wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Retransmit,
    Wait,
    /// No final response came.
    GiveUp,
    /// Nothing more can come of it.
    Forget,
}

/// What a response means to its transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// The first final response.
    Final,
    /// A final response came again: the ACK must too.
    Again,
}

/// What is particular to a request of ours.
#[derive(Clone, Copy)]
pub(crate) struct Order<'a> {
    pub(crate) to: Leg,
    pub(crate) purpose: Purpose,
    pub(crate) method: Method,
    pub(crate) cseq: u32,
    /// Header lines.
    pub(crate) extra: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Client {
    /// A request in `session` that answers `challenges`. `slot` and `nonce` make its branch.
    pub(crate) fn new(
        now: Time,
        session: &Session,
        call_id: &[u8],
        order: Order,
        endpoint: &Endpoint,
        (slot, nonce): (u32, u64),
        mut challenges: Challenges,
    ) -> Client {
        let branch = branch(slot, nonce);
        let uri = session.identity.leg(order.to).target;
        let authorization = challenges.answers(Signed { method: order.method, uri, body: order.body }, nonce);
        let bytes = written(session, call_id, order, endpoint, &branch, &authorization);
        let reliable = !matches!(endpoint.transport, Transport::Udp);
        let gives_up = now + if order.purpose == Purpose::Probe { PROBE } else { SIXTY_FOUR_T1 };
        Client {
            ours: Ours { session: session.id, to: order.to, purpose: order.purpose, method: order.method },
            cseq: order.cseq,
            flow: session.legs[order.to.index()].flow,
            bytes,
            due: if reliable { gives_up } else { now + T1 },
            challenges,
            authorization,
            branch,
            reliable,
            pause: T1,
            gives_up,
            progress: Progress::Trying,
        }
    }

    /// The slot in a response's branch, if it may be one of ours.
    pub(crate) fn slot_of(response: &Message) -> Option<u32> {
        let branch = response.top_via().ok()?.branch?.strip_prefix(BRANCH_PREFIX.as_bytes())?;
        let slot = branch.split(|&byte| byte == b'.').next()?;
        u32::from_str_radix(std::str::from_utf8(slot).ok()?, 16).ok()
    }

    /// Is `response` an answer to this one? The nonce keeps strangers from ending our transactions.
    pub(crate) fn is_answered_by(&self, response: &Message) -> bool {
        response.top_via().is_ok_and(|via| via.branch == Some(self.branch.as_bytes()))
            && response.cseq().is_ok_and(|cseq| cseq.method == self.ours.method)
    }

    /// A response with this status came.
    pub(crate) fn heard(&mut self, now: Time, status: u16) -> Heard {
        match (self.progress, status) {
            (Progress::Trying | Progress::Proceeding, 200..) => return Heard::Final,
            (Progress::Answered, 200..) => return Heard::Again,
            (Progress::Trying, _) => {
                self.progress = Progress::Proceeding;
                if self.ours.method == Method::Invite {
                    self.gives_up = now + PROCEEDING;
                }
                // Timer E slows to T2; Timer A ends.
                self.pause = T2;
            }
            _ => {}
        }
        Heard::Nothing
    }

    /// Its final response to an INVITE came: from now on it is `ack` that goes out, once for each copy.
    pub(crate) fn acknowledged(&mut self, now: Time, ack: Vec<u8>) {
        self.bytes = ack;
        self.progress = Progress::Answered;
        self.gives_up = now + SIXTY_FOUR_T1;
        self.due = self.gives_up;
    }

    /// Something is due at `now`.
    pub(crate) fn step(&mut self, now: Time) -> Step {
        if now >= self.gives_up {
            return if self.progress == Progress::Answered { Step::Forget } else { Step::GiveUp };
        }
        if self.reliable || (self.ours.method == Method::Invite && self.progress != Progress::Trying) {
            self.due = self.gives_up;
            return Step::Wait;
        }
        // Timer A has no cap but Timer B.
        let cap = if self.ours.method == Method::Invite { SIXTY_FOUR_T1 } else { T2 };
        self.pause = (self.pause * 2).min(cap);
        self.due = (now + self.pause).min(self.gives_up);
        Step::Retransmit
    }

    /// The ACK to a final response of this INVITE: to a failure it belongs to the same transaction (RFC 3261 §17.1.1.3), to
    /// a 2xx it is a request of its own along the dialog (§13.2.2.4). It proves what the INVITE proved (§22.1).
    pub(crate) fn ack(
        &self,
        session: &Session,
        call_id: &[u8],
        endpoint: &Endpoint,
        status: u16,
        (slot, nonce): (u32, u64),
    ) -> Vec<u8> {
        let order = Order {
            to: self.ours.to,
            purpose: self.ours.purpose,
            method: Method::Ack,
            cseq: self.cseq,
            extra: b"",
            body: b"",
        };
        let own = branch(slot, nonce);
        let branch = if status < 300 { &own } else { &self.branch };
        written(session, call_id, order, endpoint, branch, &self.authorization)
    }
}

fn branch(slot: u32, nonce: u64) -> String {
    format!("{BRANCH_PREFIX}{slot:x}.{nonce:016x}")
}

fn written(
    session: &Session,
    call_id: &[u8],
    order: Order,
    endpoint: &Endpoint,
    branch: &str,
    authorization: &str,
) -> Vec<u8> {
    let party = session.identity.leg(order.to);
    let mut bytes = Vec::with_capacity(512 + order.body.len());
    build::request(
        &RequestParts {
            method: order.method,
            target: party.target,
            routes: party.routes,
            transport: endpoint.transport,
            sent_by: &endpoint.sent_by,
            branch,
            from: session.identity.leg(order.to.other()).party,
            to: party.party,
            call_id,
            cseq: order.cseq,
            extra: &[order.extra, authorization.as_bytes()].concat(),
            body: order.body,
        },
        &mut bytes,
    );
    bytes
}

/// Seconds of Retry-After (RFC 3261 §20.33), if it says.
pub(crate) fn retry_after_s(response: &Message) -> Option<u32> {
    let value = response.first(HeaderName::RetryAfter)?.value;
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}
