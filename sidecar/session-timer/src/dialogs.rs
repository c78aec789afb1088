//! The dialog table: what its owner calls, and how messages and time-outs find their session.

mod concluding;
mod expiry;
mod judging;
mod originating;
mod refreshing;
mod requests;
mod responses;
mod retrying;
mod verbs;

pub use responses::RECORD_ROUTES;
pub use verbs::VerbError;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use sipwarden_sip::build::Responder;
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Edits, Message};
use slab::Slab;

use crate::client::Client;
use crate::judgment::Judged;
use crate::session::{Pace, Ruling, Session};
use crate::setup::{Call, Setup};
use crate::wheel::Wheel;
use crate::{Direction, Event, EventKind, Flow, Leg, LimitKind, Policy, SessionId, SessionView, Time};

/// One of our sockets, as the core needs to know it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub leg: Leg,
    pub transport: Transport,
    /// `host:port` for the Via of requests we originate there.
    pub sent_by: String,
}

/// Bounds on what is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls tracked at once; above it calls are forwarded without a timer.
    pub calls: usize,
    /// Open INVITEs and sessions of one call.
    pub per_call: usize,
    /// Bytes of URIs, tags and route sets kept of one session.
    pub identity_len: usize,
    /// A session without a timer, or whose expiry is only reported, is forgotten after this long without a message.
    pub idle: Duration,
}

impl Limits {
    /// Those of [`Limits::default`].
    pub const DEFAULT: Limits =
        Limits { calls: 2_000_000, per_call: 16, identity_len: 8192, idle: Duration::from_secs(12 * 3600) };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

/// What the core is made with.
pub struct Config {
    /// Our sockets; [`Flow::endpoint`] indexes them.
    pub endpoints: Vec<Endpoint>,
    pub limits: Limits,
    /// Session time runs this many times faster; transaction timers do not. 1 but in tests.
    pub clock_speed: u32,
    /// For tags, branches and hashes; unguessable in production.
    pub seed: u64,
    /// The key of the owner's [`sipwarden_sip::build::Responder`], so that both recognise each other's tags.
    pub tag_key: u64,
}

/// With the key, what [`CallKey`] is for: no other hash under that key tells about it.
const CALL: u64 = u64::from_le_bytes(*b"Call-ID:");

/// A keyed hash of a Call-ID, by which its call is found. Made once per message, as others want it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey(u64);

impl CallKey {
    /// `key` is [`Config::tag_key`]. Nobody without it can aim Call-IDs at one bucket.
    pub fn of(key: u64, call_id: &[u8]) -> CallKey {
        CallKey(SipHasher13::new_with_keys(key, CALL).hash(call_id))
    }

    /// The hash.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How a message came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Of its Call-ID; of an empty one, where it has none.
    pub call: CallKey,
    /// Where it came from; the endpoint tells the leg.
    pub flow: Flow,
    /// Where a response to it goes (RFC 3261 §18.2.2, RFC 3581).
    pub reply_to: Flow,
    /// What a response of ours adds to the first Via: `;received=…;rport=…` (RFC 3581 §4), or nothing.
    pub via_suffix: &'a [u8],
    /// The remote side's address, for rules: source of what the remote sends, next hop of what the app sends.
    pub peer: Option<IpAddr>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with the edits. `toward`: the flow on which the leg it goes to was last heard, where known. `cseq`: the
    /// CSeq number that the edits give it, where they do: transactions are named by that one.
    Forward { toward: Option<Flow>, cseq: Option<u32> },
    /// It is a request that was answered here; the response is among the actions.
    Answered(u16),
    /// It ends here: an ACK or a response to something of ours.
    Absorb,
}

/// What is known of the session or the call that an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// By which it was decided; [`Event::rule`] is one of its rules.
    pub policy: &'a Arc<Policy>,
    pub direction: Option<Direction>,
    /// Where the remote side was last heard.
    pub remote: Option<Flow>,
    pub call_id: Option<&'a [u8]>,
    /// From and To values of both sides, once there is a session.
    pub parties: [Option<&'a [u8]>; 2],
}

impl<'a> Context<'a> {
    fn of_session(session: &'a Session, call: &'a Call, judged: Option<&'a Arc<Policy>>) -> Context<'a> {
        Context {
            policy: judged.unwrap_or(&session.ruling.policy),
            direction: Some(session.direction()),
            remote: Some(session.legs[Leg::Remote.index()].flow),
            call_id: Some(&call.call_id),
            parties: Leg::BOTH.map(|leg| Some(session.identity.leg(leg).party)),
        }
    }
}

/// Bytes of ours to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    pub flow: Flow,
    pub bytes: Vec<u8>,
}

/// A request to forward as though it had come in on `flow`, without showing it to the core: the application's INVITE once
/// more after a 422, and the ACK to that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resend {
    /// The application's.
    pub flow: Flow,
    /// Where the 422 came from: the next hop, should a name have to be asked for first.
    pub toward: Flow,
    pub bytes: Vec<u8>,
}

/// What the owner must do. Drain after every call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Transmit(Transmit),
    Resend(Resend),
    Event(Event),
}

/// The dialogs of one shard, with their timers.
pub struct Dialogs {
    config: Config,
    pace: Pace,
    responder: Responder,
    policy: Arc<Policy>,
    /// Slots of `calls` by Call-ID.
    index: HashTable<u32>,
    calls: Slab<Call>,
    sessions: Slab<Session>,
    /// Requests of ours under way.
    clients: Slab<Client>,
    wheel: Wheel<Due>,
    /// Sessions that have not ended.
    active: usize,
    sessions_made: u32,
    random: SplitMix,
    actions: VecDeque<Action>,
    /// Reused by [`Self::handle_timeout`].
    due: Vec<Due>,
    /// Reused while a request is judged: what to tell once it is known of which session.
    notes: Vec<EventKind>,
    /// The message at hand, when it is a request that was judged.
    judged: Option<Judged>,
}

/// Whose time has come: a slot that may have been reused since, so every handler looks before it acts.
#[derive(Clone, Copy, Debug)]
enum Due {
    Call(u32),
    Session(u32),
    Client(u32),
}

impl Dialogs {
    /// An empty table judging by `policy`.
    pub fn new(config: Config, policy: Arc<Policy>) -> Dialogs {
        Dialogs {
            pace: Pace { speed: config.clock_speed.max(1), idle: config.limits.idle },
            responder: Responder::new(config.tag_key),
            random: SplitMix(config.seed),
            config,
            policy,
            index: HashTable::new(),
            calls: Slab::new(),
            sessions: Slab::new(),
            clients: Slab::new(),
            wheel: Wheel::new(),
            active: 0,
            sessions_made: 0,
            actions: VecDeque::new(),
            due: Vec::new(),
            notes: Vec::new(),
            judged: None,
        }
    }

    /// New calls and refreshes are judged by it from now on; running timers stay as they are.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
    }

    /// Judge one message before it is forwarded. Edits of RFC 4028 headers are added to `edits`. Messages outside any
    /// call (REGISTER, OPTIONS …) may be shown too and pass. Drain the actions afterwards.
    pub fn handle_message(&mut self, now: Time, arrival: &Arrival, message: &Message, edits: &mut Edits) -> Verdict {
        debug_assert!(self.actions.is_empty(), "actions are drained after every call");
        debug_assert_eq!(arrival.call, self.call_key(message.call_id().unwrap_or_default()), "of this message");
        self.judged = None;
        match message.status() {
            Some(status) => self.response(now, arrival, message, status, edits),
            None => self.request(now, arrival, message, edits),
        }
        .unwrap_or(Verdict::Forward { toward: None, cseq: None })
    }

    /// Does a response claim to answer a request that the core originated? Others have a Via below the owner's.
    pub fn originated(response: &Message) -> bool {
        Client::slot_of(response).is_some()
    }

    /// Run everything due at `now`. Drain the actions afterwards.
    pub fn handle_timeout(&mut self, now: Time) {
        self.judged = None;
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        for due in due.drain(..) {
            match due {
                Due::Call(slot) => self.call_due(now, slot),
                Due::Session(slot) => self.session_due(now, slot),
                Due::Client(slot) => self.client_due(now, slot),
            }
        }
        self.due = due;
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn next_timeout(&self) -> Option<Time> {
        self.wheel.next()
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sessions with a 2xx and no end.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Sessions that [`Self::sessions`] can show: active ones and those that ended a short while ago.
    pub fn known(&self) -> usize {
        self.sessions.len()
    }

    /// Pictures of up to `limit` sessions, from the `skip`th.
    pub fn sessions(&self, skip: usize, limit: usize) -> Vec<SessionView> {
        self.sessions.iter().skip(skip).take(limit).map(|(_, session)| self.view(session)).collect()
    }

    /// A picture of one session.
    pub fn session(&self, id: SessionId) -> Option<SessionView> {
        let session = self.sessions.get(slot_of(id))?;
        (session.id == id).then(|| self.view(session))
    }

    /// The request of the last message, when it was judged: it begins a call or would refresh a session, and is no
    /// retransmission.
    pub fn judged(&self) -> Option<&Judged> {
        self.judged.as_ref()
    }

    /// The owner has seen [`Self::judged`]: what comes next may be no message of ours.
    pub fn forget_judged(&mut self) {
        self.judged = None;
    }

    /// What an event that was told last is about, so far as it is still known.
    pub fn context(&self, session: Option<SessionId>, call_id: Option<&[u8]>) -> Context<'_> {
        let session = session.and_then(|id| self.sessions.get(slot_of(id)).filter(|session| session.id == id));
        if let Some(session) = session {
            let judged = self.judged.as_ref().map(|judged| &judged.policy);
            return Context::of_session(session, &self.calls[session.call as usize], judged);
        }
        if let Some(Judged { facts, policy, .. }) = &self.judged {
            return Context {
                policy,
                direction: Some(facts.direction()),
                remote: None,
                call_id: None,
                parties: [None; 2],
            };
        }
        let call = call_id.and_then(|call_id| self.find_call_id(self.call_key(call_id), call_id));
        let call = call.map(|slot| &self.calls[slot as usize]);
        let setup = call.and_then(|call| call.setups.last());
        Context {
            policy: setup.map_or(&self.policy, |setup| &setup.ruling.policy),
            direction: setup.map(|setup| Direction::of_caller(setup.from)),
            remote: setup.filter(|setup| setup.from == Leg::Remote).map(|setup| setup.flow),
            call_id: call.map(|call| &*call.call_id),
            parties: [None; 2],
        }
    }

    fn view(&self, session: &Session) -> SessionView {
        SessionView::of(session, &self.calls[session.call as usize].call_id, self.pace)
    }

    fn leg_of(&self, flow: Flow) -> Leg {
        self.config.endpoints[usize::from(flow.endpoint)].leg
    }

    // Calls

    fn call_key(&self, call_id: &[u8]) -> CallKey {
        CallKey::of(self.config.tag_key, call_id)
    }

    fn find_call(&self, key: CallKey, message: &Message) -> Option<u32> {
        self.find_call_id(key, message.call_id()?)
    }

    fn find_call_id(&self, key: CallKey, call_id: &[u8]) -> Option<u32> {
        self.index.find(key.0, |&slot| &*self.calls[slot as usize].call_id == call_id).copied()
    }

    /// `call_id` must be that of no call.
    fn add_call(&mut self, key: CallKey, call_id: &[u8]) -> u32 {
        let slot = self.calls.insert(Call::new(call_id)) as u32;
        let (calls, tag_key) = (&self.calls, self.config.tag_key);
        let rehash = |&slot: &u32| CallKey::of(tag_key, &calls[slot as usize].call_id).0;
        self.index.insert_unique(key.0, slot, rehash);
        slot
    }

    fn drop_call_if_over(&mut self, slot: u32) {
        if !self.calls.get(slot as usize).is_some_and(Call::is_over) {
            return;
        }
        let key = self.call_key(&self.calls[slot as usize].call_id);
        if let Ok(entry) = self.index.find_entry(key.0, |&found| found == slot) {
            entry.remove();
        }
        self.calls.remove(slot as usize);
    }

    /// The session of a request from `from`, or of a response to one, with these tags (the requester's first).
    fn find_session(&self, call: u32, from: Leg, from_tag: &[u8], to_tag: &[u8]) -> Option<u32> {
        let slots = &self.calls[call as usize].sessions;
        slots.iter().copied().find(|&slot| self.sessions[slot as usize].is_dialog(from, from_tag, to_tag))
    }

    // Timers: what is in the wheel may be earlier than what is due, never later.

    fn schedule_call(&mut self, slot: u32) {
        let call = &mut self.calls[slot as usize];
        if let Some(due) = call.due()
            && call.wheel_at.is_none_or(|at| due < at)
        {
            call.wheel_at = Some(due);
            self.wheel.insert(due, Due::Call(slot));
        }
    }

    fn schedule_session(&mut self, slot: u32) {
        let session = &mut self.sessions[slot as usize];
        let due = session.due(self.pace);
        if session.wheel_at.is_none_or(|at| due < at) {
            session.wheel_at = Some(due);
            self.wheel.insert(due, Due::Session(slot));
        }
    }

    // Telling

    fn tell(&mut self, kind: EventKind) {
        self.actions.push_back(Action::Event(Event { session: None, observed: false, rule: None, kind }));
    }

    fn limit_reached(&mut self, limit: LimitKind) {
        self.tell(EventKind::LimitReached { limit });
    }
}

impl Session {
    fn tell(&mut self, now: Time, kind: EventKind, actions: &mut VecDeque<Action>) {
        let (observed, rule) = (self.ruling.observes(), self.ruling.rule);
        self.tell_as(now, kind, observed, rule, actions);
    }

    /// Tells what was decided by a ruling that is not the session's yet.
    fn tell_by(&mut self, ruling: &Ruling, now: Time, kind: EventKind, actions: &mut VecDeque<Action>) {
        self.tell_as(now, kind, ruling.observes(), ruling.rule, actions);
    }

    fn tell_as(
        &mut self,
        now: Time,
        kind: EventKind,
        observed: bool,
        rule: Option<u16>,
        actions: &mut VecDeque<Action>,
    ) {
        self.log.push(self.started, now, observed, kind);
        actions.push_back(Action::Event(Event { session: Some(self.id), observed, rule, kind }));
    }
}

impl Setup {
    fn tell(&mut self, now: Time, kind: EventKind, actions: &mut VecDeque<Action>) {
        let observed = self.ruling.observes();
        self.log.push(self.started, now, observed, kind);
        actions.push_back(Action::Event(Event { session: None, observed, rule: self.ruling.rule, kind }));
    }
}

fn slot_of(id: SessionId) -> usize {
    (id.0 & u64::from(u32::MAX)) as usize
}

/// Random numbers from the seed, for branches and jitter.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
