//! Client and server transactions of the agents (RFC 3261 §17, RFC 6026), and the retransmission of a 2xx (§13.3.1.4).

use std::net::SocketAddr;

use super::agent::Act;
use super::message::{Sip, Style};

pub const T1: u64 = 500;
pub const T2: u64 = 4_000;
/// Timers B, D, F, H, J, L.
pub const LIFE: u64 = 64 * T1;
/// How long an INVITE may ring.
const RINGS: u64 = 120_000;

/// Bytes on their way to an address.
#[derive(Clone, Debug)]
pub struct Sent {
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// What an agent began a client transaction for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// An initial INVITE.
    Setup,
    /// An INVITE or UPDATE of the session timer.
    Refresh,
    /// An INVITE or UPDATE for another reason: it was told to do this.
    Change(Act),
    Bye,
    /// No answer to it changes anything: INFO, PRACK, CANCEL.
    Other,
}

/// Sends again until an answer stops it.
#[derive(Clone, Debug)]
struct Resend {
    at: Option<u64>,
    pause: u64,
    most: u64,
}

impl Resend {
    fn off() -> Resend {
        Resend { at: None, pause: T1, most: T2 }
    }

    fn from(now: u64, most: u64) -> Resend {
        Resend { at: Some(now + T1), pause: T1, most }
    }

    /// True when it is time; doubles the pause.
    fn is_due(&mut self, now: u64) -> bool {
        let due = self.at.is_some_and(|at| at <= now);
        if due {
            self.pause = (self.pause * 2).min(self.most);
            self.at = Some(now + self.pause);
        }
        due
    }
}

/// What became of a transaction in [`Client::tick`] or [`Server::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    Goes,
    /// The answer, or the ACK or PRACK, that was waited for did not come.
    TimedOut,
    /// Nothing more will come of it.
    Over,
}

/// A request an agent sent.
#[derive(Clone, Debug)]
pub struct Client {
    pub request: Sip,
    pub purpose: Purpose,
    /// Index among the agent's dialogs.
    pub dialog: Option<usize>,
    pub to: SocketAddr,
    pub final_status: Option<u16>,
    pub rings: bool,
    bytes: Vec<u8>,
    /// The ACK of a failed INVITE.
    ack: Option<Vec<u8>>,
    resend: Resend,
    ends_at: u64,
    reliable: bool,
    style: Style,
}

impl Client {
    /// Sends `request`.
    pub fn start(
        now: u64,
        request: Sip,
        purpose: Purpose,
        to: SocketAddr,
        style: Style,
        out: &mut Vec<Sent>,
    ) -> Client {
        let reliable = request.get("Via").is_some_and(|via| via.contains("/TCP"));
        let bytes = request.bytes(style);
        out.push(Sent { to, bytes: bytes.clone() });
        let most = if request.method() == Some("INVITE") { LIFE } else { T2 };
        let resend = if reliable { Resend::off() } else { Resend::from(now, most) };
        let (dialog, final_status, ack, rings) = (None, None, None, false);
        Client {
            request,
            purpose,
            dialog,
            to,
            final_status,
            rings,
            bytes,
            ack,
            resend,
            ends_at: now + LIFE,
            reliable,
            style,
        }
    }

    pub fn is_invite(&self) -> bool {
        self.request.method() == Some("INVITE")
    }

    /// No final response yet.
    pub fn is_open(&self) -> bool {
        self.final_status.is_none()
    }

    pub fn answers_to(&self, response: &Sip) -> bool {
        response.branch() == self.request.branch() && Some(response.cseq().1) == self.request.method()
    }

    /// True when the user of the transaction must see this response.
    pub fn receive(&mut self, now: u64, response: &Sip, out: &mut Vec<Sent>) -> bool {
        let status = response.status().unwrap_or(0);
        match (status, self.final_status) {
            (..200, Some(_)) => false,
            (..200, None) => {
                self.rings = true;
                if self.is_invite() {
                    self.resend = Resend::off();
                    self.ends_at = now + RINGS;
                } else {
                    self.resend.pause = T2;
                }
                true
            }
            (200..300, None | Some(200..300)) if self.is_invite() => {
                self.finish(now, status, LIFE);
                true
            }
            (300.., None) if self.is_invite() => {
                let ack = self.ack_of_failure(response);
                out.push(Sent { to: self.to, bytes: ack.clone() });
                self.ack = Some(ack);
                self.finish(now, status, LIFE);
                true
            }
            (_, None) => {
                self.finish(now, status, if self.reliable { 0 } else { 5_000 });
                true
            }
            _ => {
                if let Some(bytes) = self.ack.clone() {
                    out.push(Sent { to: self.to, bytes });
                }
                false
            }
        }
    }

    pub fn due(&self) -> u64 {
        self.resend.at.unwrap_or(u64::MAX).min(self.ends_at)
    }

    pub fn tick(&mut self, now: u64, out: &mut Vec<Sent>) -> Tick {
        if self.ends_at <= now {
            return if self.is_open() { Tick::TimedOut } else { Tick::Over };
        }
        if self.resend.is_due(now) {
            out.push(Sent { to: self.to, bytes: self.bytes.clone() });
        }
        Tick::Goes
    }

    fn finish(&mut self, now: u64, status: u16, lingers: u64) {
        if self.final_status.replace(status).is_none() {
            self.ends_at = now + lingers;
        }
        self.resend = Resend::off();
    }

    /// Same branch, same Route, To of the response (RFC 3261 §17.1.1.3).
    fn ack_of_failure(&self, response: &Sip) -> Vec<u8> {
        let mut ack = Sip::request("ACK", self.request.uri());
        let vias = self.request.list("Via");
        ack.push("Via", vias.first().map_or("", String::as_str));
        for name in ["Route", "From", "Call-ID"] {
            self.request.all(name).for_each(|value| ack.push(name, value));
        }
        ack.push("To", response.get("To").unwrap_or_default());
        ack.push("CSeq", &format!("{} ACK", self.request.cseq().0));
        ack.push("Max-Forwards", "70");
        ack.bytes(self.style)
    }
}

/// A request an agent received.
#[derive(Clone, Debug)]
pub struct Server {
    pub request: Sip,
    pub from: SocketAddr,
    /// Of the last response, 0 before the first.
    pub status: u16,
    /// RSeq of a provisional that waits for its PRACK.
    pub rseq: Option<u32>,
    /// A final answer has its ACK, or needs none.
    pub settled: bool,
    branch: String,
    last: Option<Vec<u8>>,
    resend: Resend,
    ends_at: u64,
    style: Style,
}

impl Server {
    pub fn new(now: u64, request: &Sip, from: SocketAddr, style: Style) -> Server {
        let (branch, request) = (request.branch(), request.clone());
        let (status, rseq, settled, last) = (0, None, false, None);
        Server {
            request,
            from,
            status,
            rseq,
            settled,
            branch,
            last,
            resend: Resend::off(),
            ends_at: now + RINGS,
            style,
        }
    }

    pub fn is_invite(&self) -> bool {
        self.request.method() == Some("INVITE")
    }

    /// Is it this request again, or the ACK of its failure?
    pub fn is_of(&self, request: &Sip) -> bool {
        let same = request.method() == self.request.method();
        let acks = request.method() == Some("ACK") && self.is_invite() && self.status >= 300;
        request.branch() == self.branch && (same || acks)
    }

    /// Sends `response`; a 2xx of INVITE, a failed INVITE and a reliable provisional go again until they are settled.
    pub fn respond(&mut self, now: u64, response: &Sip, out: &mut Vec<Sent>) {
        let status = response.status().unwrap_or(0);
        let bytes = response.bytes(self.style);
        out.push(Sent { to: self.from, bytes: bytes.clone() });
        self.last = Some(bytes);
        self.status = status;
        self.rseq = response.get("RSeq").and_then(|number| number.parse().ok());
        self.resend = Resend::off();
        if status >= 200 || self.rseq.is_some() {
            self.ends_at = now + LIFE;
        }
        if self.rseq.is_some() {
            self.resend = Resend::from(now, LIFE);
        } else if status >= 200 && self.is_invite() {
            self.resend = Resend::from(now, T2);
        } else {
            self.settled = status >= 200;
        }
    }

    /// The request came again.
    pub fn repeat(&self, out: &mut Vec<Sent>) {
        if let Some(bytes) = self.last.clone() {
            out.push(Sent { to: self.from, bytes });
        }
    }

    /// Its ACK came.
    pub fn acked(&mut self) {
        self.settled = true;
        self.resend = Resend::off();
    }

    /// The PRACK of its provisional came.
    pub fn pracked(&mut self, now: u64) {
        self.rseq = None;
        self.resend = Resend::off();
        self.ends_at = now + RINGS;
    }

    pub fn due(&self) -> u64 {
        self.resend.at.unwrap_or(u64::MAX).min(self.ends_at)
    }

    pub fn tick(&mut self, now: u64, out: &mut Vec<Sent>) -> Tick {
        if self.ends_at <= now {
            return if self.settled { Tick::Over } else { Tick::TimedOut };
        }
        if self.resend.is_due(now) {
            self.repeat(out);
        }
        Tick::Goes
    }
}
