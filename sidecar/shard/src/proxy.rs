//! The way of one message through a shard: a stateless, record-routing proxy (RFC 3261 §16.11) around the dialogs.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sipwarden_session_timer::{
    Action, Arrival, CallKey, Config, Dialogs, Flow, Leg, Policy, Resend, SessionId, Time, VerbError, Verdict,
};
use sipwarden_sip::build::Responder;
use sipwarden_sip::check::Fault;
use sipwarden_sip::value::{Transport, Via};
use sipwarden_sip::{Decimal, Edits, HeaderName, Message, Method, Slots};

use super::admit::{Refusal, admit, sound, unsupported};
use super::branch::{Identity, response_to};
use super::hop::{NoHop, Router};
use super::intake::Purpose;
use super::route::Way;
use super::via::{Stamp, reply_to};
use super::{DropReason, Lookup, Outbox, Outcome, Resolved, ShardConfig, Target};

/// What a request without Max-Forwards gets (RFC 3261 §16.6 item 3).
const MAX_FORWARDS: &[u8] = b"70";

/// The calls whose Call-IDs hash here, and the proxy around them.
pub struct Shard {
    key: u64,
    branch_key: u64,
    router: Router,
    responder: Responder,
    dialogs: Dialogs,
    edits: Edits,
    /// What the source of the request at hand adds to its top Via.
    stamp: Stamp,
    /// Room for header lines on their way into an answer.
    scratch: Vec<u8>,
    /// What the dialogs want to go out once more, behind the message at hand.
    resends: Vec<Resend>,
}

/// A request on its way.
struct Request<'a, 'b> {
    message: &'a Message<'b>,
    call: CallKey,
    method: Method,
    flow: Flow,
    leg: Leg,
    reply_to: Flow,
    via: &'a Via<'b>,
    /// It has a To tag.
    tagged: bool,
}

/// What was decided about a request that goes on; the dialogs may change hop and identity.
#[derive(Clone, Copy)]
struct Passage<'b> {
    way: Way<'b>,
    hop: Flow,
    identity: Identity,
    max_forwards: Option<u8>,
}

/// Why a request does not go on.
enum Stop {
    Refused(Refusal),
    /// For a name.
    Waits,
    LookupsFull,
}

impl Shard {
    /// Shard number `index` of a process; `index` only makes its seed differ from the others'.
    pub fn new(config: Arc<ShardConfig>, policy: Arc<Policy>, index: u64) -> Shard {
        let key = config.key;
        let mut seed = Purpose::Seed.hasher(key);
        seed.write_u64(index);
        let core = Config {
            endpoints: config.endpoints.clone(),
            limits: config.limits,
            clock_speed: config.clock_speed,
            seed: seed.finish(),
            tag_key: key,
        };
        Shard {
            key,
            branch_key: Identity::key(key),
            router: Router::new(config),
            responder: Responder::new(key),
            dialogs: Dialogs::new(core, policy),
            edits: Edits::new(),
            stamp: Stamp::default(),
            scratch: Vec::new(),
            resends: Vec::new(),
        }
    }

    /// Take one message that came on `flow`: what leaves because of it is appended to `out`.
    pub fn handle_message(&mut self, now: Time, flow: Flow, message: &Message, out: &mut Outbox) -> Outcome {
        let leg = self.router.sockets.of(flow).leg;
        let outcome = match message.method() {
            Some(method) => self.handle_request(now, flow, leg, message, method, out),
            None => self.handle_response(now, flow, leg, message, out),
        };
        for resend in std::mem::take(&mut self.resends) {
            self.resend(now, &resend, out);
        }
        outcome
    }

    /// Run everything due at `now`.
    pub fn handle_timeout(&mut self, now: Time, out: &mut Outbox) {
        self.dialogs.handle_timeout(now);
        self.drain(out);
    }

    /// Refresh a session for the application, by the next [`Self::handle_timeout`].
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn refresh_now(&mut self, now: Time, id: SessionId) -> Result<(), VerbError> {
        self.dialogs.refresh_now(now, id)
    }

    /// End a session, by the next [`Self::handle_timeout`].
    ///
    /// # Errors
    /// Nothing will be sent.
    pub fn end_now(&mut self, now: Time, id: SessionId) -> Result<(), VerbError> {
        self.dialogs.end_now(now, id)
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.dialogs.next_timeout()
    }

    /// What a name came to, for `ttl`. Owed for each [`Lookup`], failures included, before its packet is handed in again.
    pub fn resolved(&mut self, now: Time, target: &Target, answer: Resolved, ttl: Duration) {
        self.router.learn_name(now, target, answer, ttl);
    }

    /// New calls and refreshes are judged by `policy` from now on.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.dialogs.set_policy(policy);
    }

    /// What was told of the last message is taken down: the next may be one that the dialogs do not see.
    pub fn forget_judged(&mut self) {
        self.dialogs.forget_judged();
    }

    /// What was done to the message that was forwarded last.
    pub fn edits(&self) -> &Edits {
        &self.edits
    }

    /// The dialogs, to look at.
    pub fn dialogs(&self) -> &Dialogs {
        &self.dialogs
    }

    fn handle_request(
        &mut self,
        now: Time,
        flow: Flow,
        leg: Leg,
        message: &Message,
        method: Method,
        out: &mut Outbox,
    ) -> Outcome {
        if method == Method::Ack && self.responder.owns_ack(message) {
            return Outcome::Absorbed;
        }
        // Without a Via nobody can be answered.
        let Some(request) = self.received(flow, leg, message, method) else {
            return Outcome::Dropped(DropReason::Fault(Fault::BadRequest));
        };
        match self.decide(now, &request, None) {
            Ok(mut passage) => self.forward(now, &request, &mut passage, out),
            Err(Stop::Refused(refusal)) => self.refuse(&request, refusal, out),
            Err(Stop::LookupsFull) => Outcome::Dropped(DropReason::LookupsFull),
            Err(Stop::Waits) => {
                let target = self.router.wanted().clone();
                out.lookups.push(Lookup { target, flow, bytes: message.bytes().to_vec() });
                Outcome::Parked
            }
        }
    }

    /// `None` without a Via.
    fn received<'a, 'b>(
        &mut self,
        flow: Flow,
        leg: Leg,
        message: &'a Message<'b>,
        method: Method,
    ) -> Option<Request<'a, 'b>> {
        let via = message.top_via().ok()?;
        self.stamp.write(via, flow.peer);
        let reply_to = reply_to(via, flow, self.router.sockets.of(flow).transport);
        let (call, tagged) = (self.call_of(message), message.to_tag().is_some());
        Some(Request { message, call, method, flow, leg, reply_to, via, tagged })
    }

    fn call_of(&self, message: &Message) -> CallKey {
        CallKey::of(self.key, message.call_id().unwrap_or_default())
    }

    /// Sends on what the dialogs made of a request of the application, as that request went.
    fn resend(&mut self, now: Time, resend: &Resend, out: &mut Outbox) {
        let mut slots = Slots::new();
        let Ok(message) = Message::parse(&resend.bytes, &mut slots) else { return };
        let Some(method) = message.method() else { return };
        let Some(request) = self.received(resend.flow, Leg::Local, &message, method) else { return };
        self.edits.clear();
        // The application will not repeat what it does not know of, so this one cannot wait for a name.
        if let Ok(passage) = self.decide(now, &request, Some(resend.toward)) {
            self.send_on(&request, &passage, true, out);
        }
    }

    /// Does it go on, and where to (RFC 3261 §16.3, §16.4, §16.5)? `nameless`: where to while a name is not known.
    fn decide<'b>(
        &mut self,
        now: Time,
        request: &Request<'_, 'b>,
        nameless: Option<Flow>,
    ) -> Result<Passage<'b>, Stop> {
        let message = request.message;
        let max_forwards = admit(message)?;
        let identity = Identity::of(self.branch_key, request.call, message, request.via, request.leg, None);
        if identity.is_loop(message, request.via, &self.router.sockets) {
            return Err(Refusal::Loop.into());
        }
        let way = Way::of(message, request.tagged, request.leg, &self.router.sockets)
            .ok_or(Refusal::Faulty(Fault::BadRequest))?;
        if request.leg == Leg::Local {
            self.router.learn_app(message);
        }
        let hop = match (self.router.next_hop(now, request.leg, &way), nameless) {
            (Err(NoHop::Unknown | NoHop::LookupsFull), Some(hop)) => hop,
            (hop, _) => hop?,
        };
        Ok(Passage { way, hop, identity, max_forwards })
    }

    /// Shows the request to the dialogs and sends it on, unless they keep it.
    fn forward(&mut self, now: Time, request: &Request, passage: &mut Passage, out: &mut Outbox) -> Outcome {
        self.edits.clear();
        let peer = if request.leg == Leg::Remote { request.flow.peer } else { passage.hop.peer };
        out.remote = Some(peer);
        if concerns_dialogs(request) {
            let arrival = Arrival {
                call: request.call,
                flow: request.flow,
                reply_to: request.reply_to,
                via_suffix: self.stamp.text(),
                peer: Some(peer.ip().to_canonical()),
            };
            let verdict = self.dialogs.handle_message(now, &arrival, request.message, &mut self.edits);
            self.drain(out);
            match verdict {
                Verdict::Forward { toward, cseq } => {
                    passage.hop = self.router.reuse(passage.hop, toward);
                    if cseq.is_some() {
                        passage.identity = Identity::of(
                            self.branch_key,
                            request.call,
                            request.message,
                            request.via,
                            request.leg,
                            cseq,
                        );
                    }
                }
                Verdict::Answered(status) => return Outcome::Answered(status),
                Verdict::Absorb => return Outcome::Absorbed,
            }
        }
        let edited = !self.edits.is_empty();
        self.send_on(request, passage, false, out);
        Outcome::Forwarded { edited }
    }

    fn send_on(&mut self, request: &Request, passage: &Passage, own: bool, out: &mut Outbox) {
        self.edit(request, passage);
        out.push(passage.hop, own, |bytes| self.edits.render(request.message, bytes));
    }

    /// The lines of a request that are a proxy's own (RFC 3261 §16.6).
    fn edit(&mut self, request: &Request, passage: &Passage) {
        let (message, edits) = (request.message, &mut self.edits);
        let (came, leaves) = (self.router.sockets.of(request.flow), self.router.sockets.of(passage.hop));
        let parameters = passage.identity.via_parameters(self.key, request.reply_to);
        edits.prepend_lines(message, HeaderName::Via, &[&leaves.via, &parameters]);
        // Only calls must come back to us; subscriptions are left alone. A re-INVITE is record-routed too, for a peer
        // that lost its route set (§16.6 item 4). Both our sides are named, each as its own can reach us (RFC 5658),
        // the next hop's on top.
        if request.method == Method::Invite {
            edits.prepend_lines(message, HeaderName::RecordRoute, &[&leaves.record_route, &came.record_route]);
        }
        self.stamp.edit(request.via, edits);
        match passage.max_forwards {
            Some(hops) => {
                edits.set_header(message, HeaderName::MaxForwards, &[Decimal::new((hops - 1).into()).text()]);
            }
            None => edits.append_header(message, HeaderName::MaxForwards, &[MAX_FORWARDS]),
        }
        passage.way.edit(message, edits);
        frame(message, leaves.transport, edits);
    }

    /// Answers a request that is not forwarded; an ACK has no answer.
    fn refuse(&mut self, request: &Request, refusal: Refusal, out: &mut Outbox) -> Outcome {
        let (status, reason) = refusal.status();
        if request.method == Method::Ack {
            return Outcome::Dropped(match refusal {
                Refusal::Faulty(fault) => DropReason::Fault(fault),
                _ => DropReason::Unanswerable(status),
            });
        }
        self.scratch.clear();
        if refusal == Refusal::Extension {
            unsupported(request.message, &mut self.scratch);
        }
        out.push(request.reply_to, false, |bytes| {
            self.responder.respond(request.message, status, reason, self.stamp.text(), &self.scratch, bytes);
        });
        Outcome::Answered(status)
    }

    /// RFC 3261 §16.7, as far as a stateless proxy does it (§16.11).
    fn handle_response(&mut self, now: Time, flow: Flow, leg: Leg, message: &Message, out: &mut Outbox) -> Outcome {
        if let Err(fault) = sound(message) {
            return Outcome::Dropped(DropReason::Fault(fault));
        }
        let Some(ours) = message.top_via().ok().filter(|via| self.router.sockets.wrote(via)) else {
            return Outcome::Dropped(DropReason::NotOurVia);
        };
        let next = message.second_via().ok();
        let way = next.and_then(|next| response_to(self.key, ours, next, leg, &self.router.sockets));
        // A stranger may not aim at any port of the pod.
        let way = way.filter(|way| way.sealed || leg == Leg::Local || self.router.is_app(way.flow));
        let hop = way.map(|way| way.flow);
        // What reaches nobody must not change a session either.
        if hop.is_none() && !Dialogs::originated(message) {
            return Outcome::Dropped(DropReason::NoRoute);
        }
        out.remote = if leg == Leg::Remote { Some(flow.peer) } else { hop.map(|hop| hop.peer) };
        if leg == Leg::Local {
            self.router.learn_app(message);
        }

        self.edits.clear();
        let peer = Some(flow.peer.ip().to_canonical()).filter(|_: &IpAddr| leg == Leg::Remote);
        let call = self.call_of(message);
        let arrival = Arrival { call, flow, reply_to: flow, via_suffix: b"", peer };
        let verdict = self.dialogs.handle_message(now, &arrival, message, &mut self.edits);
        self.drain(out);
        if verdict == Verdict::Absorb {
            return Outcome::Absorbed;
        }
        let Some(hop) = hop else { return Outcome::Dropped(DropReason::NoRoute) };
        let edited = !self.edits.is_empty();
        self.edits.remove_first_elements(message, HeaderName::Via, 1);
        frame(message, self.router.sockets.of(hop).transport, &mut self.edits);
        out.push(hop, false, |bytes| self.edits.render(message, bytes));
        Outcome::Forwarded { edited }
    }

    /// Moves what the dialogs want done to `out`.
    fn drain(&mut self, out: &mut Outbox) {
        while let Some(action) = self.dialogs.poll_action() {
            match action {
                Action::Event(event) => out.events.push(event),
                Action::Resend(resend) => self.resends.push(resend),
                Action::Transmit(transmit) => {
                    out.push(transmit.flow, true, |bytes| bytes.extend_from_slice(&transmit.bytes));
                }
            }
        }
    }
}

/// A datagram ends its message; on a stream only Content-Length does (RFC 3261 §18.3, §20.14).
fn frame(message: &Message, transport: Transport, edits: &mut Edits) {
    if transport == Transport::Udp || message.first(HeaderName::ContentLength).is_some() {
        return;
    }
    let len = u32::try_from(message.body().len()).expect("below MAX_MESSAGE_LEN");
    edits.append_header(message, HeaderName::ContentLength, &[Decimal::new(len).text()]);
}

/// Is it of a call, or inside any other dialog, whose CSeq the dialogs may have moved?
fn concerns_dialogs(request: &Request) -> bool {
    use Method::{Ack, Bye, Cancel, Info, Invite, Prack, Update};
    matches!(request.method, Invite | Ack | Bye | Cancel | Update | Prack | Info) || request.tagged
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl From<NoHop> for Stop {
    fn from(reason: NoHop) -> Stop {
        match reason {
            NoHop::Unknown => Stop::Waits,
            NoHop::LookupsFull => Stop::LookupsFull,
            NoHop::Unreachable => Stop::Refused(Refusal::Unreachable),
            NoHop::Scheme => Stop::Refused(Refusal::Faulty(Fault::UnsupportedScheme)),
        }
    }
}
