//! Calls through one sidecar in virtual time: UAC – link – sidecar – link – UAS, everything drawn from one seed.
//!
//! The shard is the product's own; agents, links, proxy and the model that judges it share no code with it. After every
//! packet and every time-out the invariants hold, or [`World::step`] says which does not.

pub mod agent;
mod cast;
pub mod dialog;
pub mod expected;
pub mod invariants;
pub mod link;
pub mod message;
pub mod plan;
pub mod proxy;
pub mod reference;
pub mod rng;
pub mod timer;
pub mod trace;
pub mod transaction;
mod uac;
mod uas;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;

use sipwarden_session_timer::{Endpoint, Flow, Leg, Limits, Policy, SessionView, Time};
use sipwarden_sidecar::shard::{Intake, Outbox, Shard, ShardConfig};
use sipwarden_sip::value::Transport;

use agent::Act;
pub use cast::{Call, Node, Parties};
use invariants::{Branches, Sequences};
use link::Link;
use message::{Sip, Style};
use reference::{Expect, Reference};
use rng::Rng;
use trace::Crossing;
use transaction::Sent;

/// The sidecar's remote-facing address, UDP and TCP.
pub const REMOTE_SIDE: &str = "192.0.2.1:5060";
/// Its app-facing address.
pub const LOCAL_SIDE: &str = "127.0.0.1:5062";
/// The application, whichever agent plays it in a call.
pub const APP: &str = "127.0.0.1:5070";
const REMOTE_UDP: u16 = 0;
const LOCAL_UDP: u16 = 1;
const REMOTE_TCP: u16 = 2;

/// What a world is made with.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub policy: Arc<Policy>,
    pub remote_link: Link,
    pub local_link: Link,
    /// Sessions without a timer are forgotten after so many milliseconds of silence.
    pub idle_ms: u64,
}

impl Setup {
    /// Links without loss, an hour until a silent session is forgotten.
    pub fn perfect(policy: Policy) -> Setup {
        let (remote_link, local_link) = (Link::PERFECT, Link::PERFECT);
        Setup { seed: 1, policy: Arc::new(policy), remote_link, local_link, idle_ms: 3_600_000 }
    }
}

/// A packet under way, soonest first, then in the order of sending.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: u64,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    tcp: bool,
    bytes: Vec<u8>,
}

/// Changes what the sidecar sends, to see whether that is noticed; false drops it.
pub type Tamper = fn(&mut Sip) -> bool;

/// Everything.
pub struct World {
    pub now: u64,
    pub nodes: Vec<Node>,
    pub reference: Reference,
    /// Every message that crossed the sidecar's border.
    pub log: Vec<Crossing>,
    pub tamper: Option<Tamper>,
    setup: Setup,
    rng: Rng,
    shard: Shard,
    intake: Intake,
    outbox: Outbox,
    queue: BinaryHeap<Reverse<Flight>>,
    /// Policies still to come.
    policies: Vec<(u64, Policy)>,
    sent: u64,
    calls: u64,
    sequences: Sequences,
    branches: Branches,
}

impl World {
    pub fn new(setup: Setup) -> World {
        let limits = Limits { idle: std::time::Duration::from_millis(setup.idle_ms), ..Limits::default() };
        let endpoint = |leg, transport, sent_by: &str| Endpoint { leg, transport, sent_by: sent_by.into() };
        let config = ShardConfig {
            endpoints: vec![
                endpoint(Leg::Remote, Transport::Udp, REMOTE_SIDE),
                endpoint(Leg::Local, Transport::Udp, LOCAL_SIDE),
                endpoint(Leg::Remote, Transport::Tcp, REMOTE_SIDE),
            ],
            bound: vec![addr(REMOTE_SIDE), addr(LOCAL_SIDE), addr(REMOTE_SIDE)],
            app: Flow { endpoint: LOCAL_UDP, connection: 0, peer: addr(APP) },
            next_hop: None,
            limits,
            clock_speed: 1,
            key: setup.seed ^ 0x5197_aaaa,
        };
        World {
            now: 0,
            nodes: Vec::new(),
            reference: Reference::new(Arc::clone(&setup.policy), setup.idle_ms),
            log: Vec::new(),
            tamper: None,
            rng: Rng::new(setup.seed),
            shard: Shard::new(Arc::new(config), Arc::clone(&setup.policy), 0),
            intake: Intake::new(),
            outbox: Outbox::default(),
            queue: BinaryHeap::new(),
            policies: Vec::new(),
            sent: 0,
            calls: 0,
            sequences: Sequences::default(),
            branches: Branches::default(),
            setup,
        }
    }

    /// Tells an agent what to do `after_ms` from now.
    pub fn act(&mut self, agent: usize, after_ms: u64, act: Act) {
        let at = self.now + after_ms;
        self.agent_mut(agent).acts.push((at, act));
    }

    /// A copy of what arrived as the `index`th of the log arrives `after_ms` from now.
    pub fn repeat(&mut self, index: usize, after_ms: u64) {
        let Crossing { leg, flow, sip, .. } = &self.log[index];
        let (from, to, bytes) = (flow.peer, addr(side(*leg)), sip.bytes(Style::default()));
        self.sent += 1;
        let flight = Flight { at: self.now + after_ms, order: self.sent, from, to, tcp: false, bytes };
        self.queue.push(Reverse(flight));
    }

    /// New calls and refreshes are judged by `policy` from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
        self.shard.set_policy(Arc::clone(&policy));
        self.reference.set_policy(policy);
    }

    /// Does [`Self::set_policy`] `after_ms` from now.
    pub fn set_policy_after(&mut self, after_ms: u64, policy: Policy) {
        self.policies.push((self.now + after_ms, policy));
    }

    /// Replaces the links; what is under way arrives.
    pub fn set_links(&mut self, remote: Link, local: Link) {
        (self.setup.remote_link, self.setup.local_link) = (remote, local);
    }

    /// What the sidecar knows of all sessions.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.shard.dialogs().sessions(0, usize::MAX)
    }

    /// Lets `ms` pass.
    pub fn run_for(&mut self, ms: u64) -> Result<(), String> {
        let until = self.now + ms;
        while self.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.now = until;
        Ok(())
    }

    /// Runs until nothing is left to happen, at most `most_steps`; then nobody may be left in a call.
    pub fn finish(&mut self, most_steps: u64) -> Result<(), String> {
        for _ in 0..most_steps {
            if !self.step()? {
                return self.check_end();
            }
        }
        Err(format!("no end after {most_steps} steps"))
    }

    /// The next thing that happens, and whether all holds afterwards. False: nothing is left.
    pub fn step(&mut self) -> Result<bool, String> {
        let Some(at) = self.next_at() else { return Ok(false) };
        self.now = self.now.max(at);
        let now = Time::from_millis(self.now);
        if let Some(due) = self.policies.iter().position(|(at, _)| *at <= self.now) {
            let (_, policy) = self.policies.swap_remove(due);
            self.set_policy(policy);
        } else if self.shard.next_timeout().is_some_and(|due| due <= now) {
            self.time_out()?;
        } else if self.queue.peek().is_some_and(|Reverse(flight)| flight.at <= self.now) {
            let Some(Reverse(flight)) = self.queue.pop() else { return Ok(false) };
            self.arrive(flight)?;
        } else {
            self.tick();
        }
        Ok(true)
    }

    fn next_at(&self) -> Option<u64> {
        let packet = self.queue.peek().map_or(u64::MAX, |Reverse(flight)| flight.at);
        let shard = self.shard.next_timeout().map_or(u64::MAX, Time::as_millis);
        let nodes = self.nodes.iter().map(Node::due).min().unwrap_or(u64::MAX);
        let policy = self.policies.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        Some(packet.min(shard).min(nodes).min(policy)).filter(|at| *at < u64::MAX)
    }

    fn tick(&mut self) {
        for index in 0..self.nodes.len() {
            let mut out = Vec::new();
            match &mut self.nodes[index] {
                Node::Agent(agent) if agent.due() <= self.now => agent.tick(self.now, &mut out),
                Node::Proxy(proxy) if proxy.due() <= self.now => proxy.tick(self.now, &mut out),
                _ => {}
            }
            self.post(index, out);
        }
    }

    fn arrive(&mut self, flight: Flight) -> Result<(), String> {
        let sip = Sip::parse(&flight.bytes).map_err(|error| format!("{} was sent {error}", flight.to))?;
        if flight.to == addr(REMOTE_SIDE) || flight.to == addr(LOCAL_SIDE) {
            return self.cross(&flight, sip);
        }
        let found = self.nodes.iter().position(|node| node.is_at(flight.to, sip.call_id()));
        let index = found.ok_or_else(|| format!("nobody of {} is at {}: {}", sip.call_id(), flight.to, sip.start))?;
        let mut out = Vec::new();
        let problem = match &mut self.nodes[index] {
            Node::Agent(agent) => {
                agent.receive(self.now, flight.from, &sip, &mut out);
                agent.problem.take()
            }
            Node::Proxy(proxy) => {
                proxy.receive(self.now, flight.from, &sip, &mut out);
                proxy.problem.take()
            }
        };
        self.post(index, out);
        problem.map_or(Ok(()), |problem| Err(format!("{} of {}: {problem}", sip.start, sip.call_id())))
    }

    /// A packet reaches the sidecar.
    fn cross(&mut self, flight: &Flight, sip: Sip) -> Result<(), String> {
        let endpoint = match (flight.to == addr(LOCAL_SIDE), flight.tcp) {
            (true, _) => LOCAL_UDP,
            (false, false) => REMOTE_UDP,
            (false, true) => REMOTE_TCP,
        };
        let connection = if flight.tcp { u32::from(flight.from.port()) } else { 0 };
        let flow = Flow { endpoint, connection, peer: flight.from };
        let leg = leg_of(flow);
        self.log.push(Crossing { at: self.now, leg, arrives: true, flow, sip: sip.clone() });
        let expect = self.reference.expect(self.now, leg, &sip);
        let message = self.intake.receive(&flight.bytes).map_err(|error| format!("{error}: {}", sip.start))?;
        self.outbox.clear();
        let outcome = self.shard.handle_message(Time::from_millis(self.now), flow, &message, &mut self.outbox);
        let left = self.take_outbox()?;
        let texts: Vec<(Leg, Sip)> = left.iter().map(|(flow, sip)| (leg_of(*flow), sip.clone())).collect();
        invariants::check_transit(leg, &sip, &texts, &expect)
            .map_err(|error| format!("{} from {leg:?} was {outcome:?}: {error}", sip.start))?;
        if let [(_, request)] = &texts[..]
            && matches!(expect, Expect::Pass(_))
            && request.method().is_some()
        {
            self.sequences.check(request, false)?;
            self.branches.check(&sip, request)?;
        }
        self.check_sessions(&[])?;
        self.emit(left);
        Ok(())
    }

    fn time_out(&mut self) -> Result<(), String> {
        let now = Time::from_millis(self.now);
        self.outbox.clear();
        self.shard.handle_timeout(now, &mut self.outbox);
        if let Some(next) = self.shard.next_timeout().filter(|next| *next <= now) {
            return Err(format!("a deadline of {next:?} is in the past"));
        }
        let left = self.take_outbox()?;
        let mut begun = Vec::new();
        for (flow, bye) in &left {
            let leg = leg_of(*flow);
            if bye.method() != Some("BYE") || !bye.lists("Reason", "SIP;cause=408;text=\"Session timer expired\"") {
                return Err(format!("the sidecar made {:?}", bye));
            }
            self.sequences.check(bye, true)?;
            if !self.reference.own.contains(&bye.branch()) {
                self.reference.own.push(bye.branch());
                begun.push((leg, bye.clone()));
            }
        }
        self.check_sessions(&begun)?;
        self.emit(left);
        Ok(())
    }

    /// What the sidecar sends, read and noted.
    fn take_outbox(&mut self) -> Result<Vec<(Flow, Sip)>, String> {
        let mut left = Vec::new();
        for packet in &self.outbox.packets {
            let mut sip =
                Sip::parse(self.outbox.packet(packet)).map_err(|error| format!("the sidecar wrote {error}"))?;
            if self.tamper.is_some_and(|tamper| !tamper(&mut sip)) {
                continue;
            }
            let (at, flow) = (self.now, packet.flow);
            self.log.push(Crossing { at, leg: leg_of(flow), arrives: false, flow, sip: sip.clone() });
            left.push((flow, sip));
        }
        Ok(left)
    }

    /// The sidecar's sessions are the model's; who expired now has a BYE for each leg among `byes`.
    fn check_sessions(&mut self, byes: &[(Leg, Sip)]) -> Result<(), String> {
        let views = self.sessions();
        let expired = self.reference.compare(self.now, &views)?;
        let mut unexplained = byes.len();
        for dialog in expired.iter().map(|index| &self.reference.dialogs[*index]) {
            for leg in Leg::BOTH {
                let tags = [leg.other(), leg].map(|leg| Some(dialog.tags[leg.index()].as_str()));
                let fits = |(to, bye): &&(Leg, Sip)| {
                    *to == leg && bye.call_id() == dialog.call_id && [bye.tag("From"), bye.tag("To")] == tags
                };
                if byes.iter().filter(fits).count() != 1 {
                    return Err(format!("{} expired without one BYE to {leg:?}", dialog.call_id));
                }
                unexplained -= 1;
            }
        }
        if unexplained > 0 {
            return Err("a BYE of the sidecar for no expiry".into());
        }
        let dialogs = self.shard.dialogs();
        let active = views.iter().filter(|view| view.state == sipwarden_session_timer::SessionState::Active).count();
        if (dialogs.active(), dialogs.known()) == (active, views.len()) {
            Ok(())
        } else {
            Err(format!("{} active of {} known, seen {active} of {}", dialogs.active(), dialogs.known(), views.len()))
        }
    }

    fn check_end(&self) -> Result<(), String> {
        if self.shard.dialogs().known() > 0 {
            return Err(format!("{} sessions have no end", self.shard.dialogs().known()));
        }
        if let Some(dialog) = self.reference.dialogs.iter().find(|dialog| dialog.end.is_none()) {
            return Err(format!("the session of {} has no end", dialog.call_id));
        }
        for agent in self.nodes.iter().filter_map(|node| match node {
            Node::Agent(agent) if agent.is_in_call() => Some(agent),
            _ => None,
        }) {
            let forgotten = self.reference.dialogs.iter().any(|dialog| {
                dialog.call_id == agent.call_id && dialog.end == Some(sipwarden_session_timer::EndCause::Forgotten)
            });
            if !forgotten {
                return Err(format!("{} of {} still believes in its call", agent.name, agent.call_id));
            }
        }
        Ok(())
    }

    // Packets

    fn emit(&mut self, left: Vec<(Flow, Sip)>) {
        for (flow, sip) in left {
            let from = addr(side(leg_of(flow)));
            self.fly(from, flow.peer, flow.endpoint == REMOTE_TCP, sip.bytes(Style::default()));
        }
    }

    fn post(&mut self, node: usize, out: Vec<Sent>) {
        let (from, tcp) = match &self.nodes[node] {
            Node::Agent(agent) => (agent.addr, agent.tcp),
            Node::Proxy(proxy) => (proxy.addr, false),
        };
        for sent in out {
            self.fly(from, sent.to, tcp, sent.bytes);
        }
    }

    fn fly(&mut self, from: SocketAddr, to: SocketAddr, tcp: bool, bytes: Vec<u8>) {
        let local = from.ip().is_loopback();
        let link = if local { &self.setup.local_link } else { &self.setup.remote_link };
        let link = if tcp { link.reliable() } else { link.clone() };
        let mut arrivals = link.arrivals(self.now, &mut self.rng);
        if tcp {
            // A stream keeps the order.
            let same_way = |flight: &&Reverse<Flight>| flight.0.tcp && flight.0.from == from && flight.0.to == to;
            let last = self.queue.iter().filter(same_way).map(|Reverse(flight)| flight.at).max().unwrap_or(0);
            arrivals.iter_mut().for_each(|at| *at = last.max(*at));
        }
        for at in arrivals {
            self.sent += 1;
            self.queue.push(Reverse(Flight { at, order: self.sent, from, to, tcp, bytes: bytes.clone() }));
        }
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address of this module")
}

fn side(leg: Leg) -> &'static str {
    match leg {
        Leg::Local => LOCAL_SIDE,
        Leg::Remote => REMOTE_SIDE,
    }
}

fn leg_of(flow: Flow) -> Leg {
    if flow.endpoint == LOCAL_UDP { Leg::Local } else { Leg::Remote }
}
