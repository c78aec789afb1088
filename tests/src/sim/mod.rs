//! Calls through one sidecar, or two, in virtual time: UAC – link – sidecar – link – UAS, everything drawn from one seed.
//!
//! A sidecar that is a proxy is judged by [`reference`], one that stands in for its application by [`watch`]. The shard is the product's own; agents, links, proxy and the model that judges it share no code with it. After every
//! packet and every time-out the invariants hold, or [`World::step`] says which does not.

pub mod agent;
mod cast;
pub mod dialog;
pub mod expected;
pub mod invariants;
pub mod link;
pub mod media;
pub mod message;
pub mod plan;
pub mod proxy;
pub mod reference;
pub mod rng;
mod sidecar;
pub mod stage;
pub mod timer;
pub mod trace;
pub mod transaction;
mod uac;
mod uas;
pub mod watch;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;

use sipwarden_session_timer::{ActForApp, EndCause, Event, Flow, Leg, Mode, Policy, SessionView, Time, VerbError};

use agent::Act;
pub use cast::{Call, Node, Parties};
use invariants::{Branches, Sequences};
use link::Link;
use message::{Sip, Style};
use reference::{Expect, Reference};
use rng::Rng;
use sidecar::{REMOTE_TCP, Sidecar, leg_of};
use trace::Crossing;
use transaction::Sent;
use watch::Watch;

/// What a world is made with.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub policy: Arc<Policy>,
    pub remote_link: Link,
    pub local_link: Link,
    /// Sessions without a timer are forgotten after so many milliseconds of silence.
    pub idle_ms: u64,
    /// One, or two: the second beside the agents of the remote leg.
    pub sidecars: usize,
}

impl Setup {
    /// Links without loss, an hour until a silent session is forgotten.
    pub fn perfect(policy: Policy) -> Setup {
        let (remote_link, local_link) = (Link::PERFECT, Link::PERFECT);
        Setup { seed: 1, policy: Arc::new(policy), remote_link, local_link, idle_ms: 3_600_000, sidecars: 1 }
    }

    /// Does any call of it see a sidecar that stands in?
    fn acts(&self) -> bool {
        let rules = self.policy.rules.iter().map(|rule| &rule.timers);
        let mut all = rules.chain([&self.policy.timers]);
        self.policy.mode == Mode::Enforce && all.any(|timers| timers.act_for_app != ActForApp::Never)
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
    /// The model of a sidecar that is a proxy.
    pub reference: Reference,
    /// Every message that crossed a sidecar's border.
    pub log: Vec<Crossing>,
    /// What the sidecars told, by number of the sidecar.
    pub events: Vec<(u64, usize, Event)>,
    pub tamper: Option<Tamper>,
    setup: Setup,
    rng: Rng,
    sidecars: Vec<Sidecar>,
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
        assert!(setup.sidecars == 1 || setup.acts(), "the model of a proxy is that of one");
        World {
            now: 0,
            nodes: Vec::new(),
            reference: Reference::new(Arc::clone(&setup.policy), setup.idle_ms),
            log: Vec::new(),
            events: Vec::new(),
            tamper: None,
            rng: Rng::new(setup.seed),
            sidecars: (0..setup.sidecars).map(|number| Sidecar::new(number, &setup)).collect(),
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
        let Crossing { sidecar, leg, flow, sip, .. } = &self.log[index];
        let (from, to, bytes) = (flow.peer, self.sidecars[*sidecar].side(*leg), sip.bytes(Style::default()));
        self.sent += 1;
        let flight = Flight { at: self.now + after_ms, order: self.sent, from, to, tcp: false, bytes };
        self.queue.push(Reverse(flight));
    }

    /// New calls and refreshes are judged by `policy` from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
        self.sidecars.iter_mut().for_each(|sidecar| sidecar.set_policy(&policy));
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

    /// What the sidecar beside the application knows of all sessions.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.sessions_of(0)
    }

    /// What a sidecar knows of all sessions.
    pub fn sessions_of(&self, sidecar: usize) -> Vec<SessionView> {
        self.sidecars[sidecar].shard.dialogs().sessions(0, usize::MAX)
    }

    /// The model of a sidecar that stands in.
    pub fn watch(&self, sidecar: usize) -> Option<&Watch> {
        self.sidecars.get(sidecar)?.watch.as_ref()
    }

    /// Asks the sidecar beside the application to refresh its only session now.
    pub fn refresh_now(&mut self) -> Result<(), VerbError> {
        let id = self.sessions()[0].id;
        if let Some(watch) = &mut self.sidecars[0].watch {
            watch.dialogs.iter_mut().for_each(|held| held.stepped_by_request = true);
        }
        self.sidecars[0].shard.refresh_now(Time::from_millis(self.now), id)
    }

    /// Asks it to end that session.
    pub fn end_now(&mut self) -> Result<(), VerbError> {
        let id = self.sessions()[0].id;
        if let Some(watch) = &mut self.sidecars[0].watch {
            watch.ends_on_request = true;
        }
        self.sidecars[0].shard.end_now(Time::from_millis(self.now), id)
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
        } else if let Some(due) = self.sidecars.iter().position(|sidecar| sidecar.due().is_some_and(|due| due <= now)) {
            self.time_out(due)?;
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
        let shards = self.sidecars.iter().filter_map(Sidecar::due).map(Time::as_millis);
        let shard = shards.min().unwrap_or(u64::MAX);
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
        if let Some(sidecar) = self.sidecars.iter().position(|sidecar| sidecar.is_at(flight.to)) {
            return self.cross(sidecar, &flight, sip);
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

    /// A packet reaches a sidecar.
    fn cross(&mut self, number: usize, flight: &Flight, sip: Sip) -> Result<(), String> {
        let (at, flow) = (self.now, self.sidecars[number].flow(flight.from, flight.to, flight.tcp));
        let leg = leg_of(flow);
        self.log.push(Crossing { at, sidecar: number, leg, arrives: true, flow, sip: sip.clone() });
        let stands_in = self.sidecars[number].watch.is_some();
        let expect = if stands_in { Expect::Absorb } else { self.reference.expect(at, leg, &sip) };
        let sidecar = &mut self.sidecars[number];
        let message = sidecar.intake.receive(&flight.bytes).map_err(|error| format!("{error}: {}", sip.start))?;
        sidecar.outbox.clear();
        let outcome = sidecar.shard.handle_message(Time::from_millis(at), flow, &message, &mut sidecar.outbox);
        let left = self.take_outbox(number)?;
        let texts: Vec<(Leg, Sip)> = left.iter().map(|(flow, sip)| (leg_of(*flow), sip.clone())).collect();
        let judged = if stands_in {
            self.sidecars[number].judge_crossing(at, leg, &sip, &texts)
        } else {
            self.judge_transit(leg, &sip, &texts, &expect)
        };
        judged.map_err(|error| format!("{} from {leg:?} was {outcome:?}: {error}", sip.start))?;
        self.emit(number, left);
        self.check_the_dead()
    }

    /// By the model of a proxy.
    fn judge_transit(&mut self, leg: Leg, sip: &Sip, texts: &[(Leg, Sip)], expect: &Expect) -> Result<(), String> {
        invariants::check_transit(leg, sip, texts, expect)?;
        if let [(_, request)] = texts
            && matches!(expect, Expect::Pass(_))
            && request.method().is_some()
        {
            self.sequences.check(request, false)?;
            self.branches.check(sip, request)?;
        }
        self.check_sessions(&[])
    }

    fn time_out(&mut self, number: usize) -> Result<(), String> {
        let now = Time::from_millis(self.now);
        let sidecar = &mut self.sidecars[number];
        sidecar.outbox.clear();
        sidecar.shard.handle_timeout(now, &mut sidecar.outbox);
        if let Some(next) = sidecar.due().filter(|next| *next <= now) {
            return Err(format!("a deadline of {next:?} is in the past"));
        }
        let left = self.take_outbox(number)?;
        let texts: Vec<(Leg, Sip)> = left.iter().map(|(flow, sip)| (leg_of(*flow), sip.clone())).collect();
        if self.sidecars[number].watch.is_some() {
            self.sidecars[number].judge_time_out(self.now, &texts)?;
        } else {
            self.judge_byes(&texts)?;
        }
        self.emit(number, left);
        self.check_the_dead()
    }

    /// By the model of a proxy, which makes nothing but these.
    fn judge_byes(&mut self, left: &[(Leg, Sip)]) -> Result<(), String> {
        let mut begun = Vec::new();
        for (leg, bye) in left {
            if bye.method() != Some("BYE") || !bye.lists("Reason", "SIP;cause=408;text=\"Session timer expired\"") {
                return Err(format!("the sidecar made {bye:?}"));
            }
            self.sequences.check(bye, true)?;
            if !self.reference.own.contains(&bye.branch()) {
                self.reference.own.push(bye.branch());
                begun.push((*leg, bye.clone()));
            }
        }
        self.check_sessions(&begun)
    }

    /// What a sidecar sends, read and noted.
    fn take_outbox(&mut self, number: usize) -> Result<Vec<(Flow, Sip)>, String> {
        let mut left = Vec::new();
        let outbox = &self.sidecars[number].outbox;
        self.events.extend(outbox.events.iter().map(|event| (self.now, number, *event)));
        for packet in &outbox.packets {
            let mut sip = Sip::parse(outbox.packet(packet)).map_err(|error| format!("the sidecar wrote {error}"))?;
            if self.tamper.is_some_and(|tamper| !tamper(&mut sip)) {
                continue;
            }
            let (at, flow) = (self.now, packet.flow);
            let (leg, sip) = (leg_of(flow), sip);
            self.log.push(Crossing { at, sidecar: number, leg, arrives: false, flow, sip: sip.clone() });
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
        let dialogs = self.sidecars[0].shard.dialogs();
        let active = views.iter().filter(|view| view.state == sipwarden_session_timer::SessionState::Active).count();
        if (dialogs.active(), dialogs.known()) == (active, views.len()) {
            Ok(())
        } else {
            Err(format!("{} active of {} known, seen {active} of {}", dialogs.active(), dialogs.known(), views.len()))
        }
    }

    /// A sidecar that asks its application keeps no call of a dead one alive for longer than the call's interval, and the
    /// time its questions take.
    fn check_the_dead(&self) -> Result<(), String> {
        for sidecar in &self.sidecars {
            let Some(watch) = &sidecar.watch else { continue };
            for node in &self.nodes {
                if let Node::Agent(agent) = node
                    && let Some(gone_at) = agent.gone_at
                    && sidecar.is_beside(agent.addr)
                {
                    watch.check_dead(self.now, &agent.call_id, &agent.name, gone_at)?;
                }
            }
        }
        Ok(())
    }

    /// Where nothing is lost and nobody leaves, no call ends but by its parties.
    fn check_healthy(&self) -> Result<(), String> {
        use EndCause::{AppGone, Expired, RefreshFailed};
        if !self.setup.remote_link.keeps_order() || !self.setup.local_link.keeps_order() {
            return Ok(());
        }
        let agents = |call_id: &str| -> Vec<&agent::Agent> {
            let agents = self.nodes.iter().filter_map(|node| match node {
                Node::Agent(agent) if agent.call_id == call_id => Some(&**agent),
                _ => None,
            });
            agents.collect()
        };
        let watches: Vec<&Watch> = self.sidecars.iter().filter_map(|sidecar| sidecar.watch.as_ref()).collect();
        for held in watches.iter().flat_map(|watch| &watch.dialogs).filter(|held| held.acts) {
            let agents = agents(&held.call_id);
            let all = || watches.iter().flat_map(|watch| &watch.dialogs).filter(|other| other.call_id == held.call_id);
            let excused =
                all().any(|held| held.was_excused || !held.acts) || agents.iter().any(|agent| agent.is_unwell());
            let ended = matches!(held.end, Some(AppGone | Expired | RefreshFailed(_)));
            if !excused && (ended || agents.iter().any(|agent| agent.gave_up)) {
                return Err(format!("{} was healthy, and is {:?}", held.call_id, held.end));
            }
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        self.check_healthy()?;
        for sidecar in &self.sidecars {
            let known = sidecar.shard.dialogs().known();
            if known > 0 {
                return Err(format!("{known} sessions have no end"));
            }
        }
        if let Some(dialog) = self.reference.dialogs.iter().find(|dialog| dialog.end.is_none()) {
            return Err(format!("the session of {} has no end", dialog.call_id));
        }
        for agent in self.nodes.iter().filter_map(|node| match node {
            Node::Agent(agent) if agent.is_in_call() => Some(agent),
            _ => None,
        }) {
            let watched = self.sidecars.iter().filter_map(|sidecar| sidecar.watch.as_ref());
            let watched = watched.flat_map(|watch| &watch.dialogs).map(|held| (&held.call_id, held.end));
            let mut all = self.reference.dialogs.iter().map(|dialog| (&dialog.call_id, dialog.end)).chain(watched);
            let forgotten = all.any(|(call_id, end)| *call_id == agent.call_id && end == Some(EndCause::Forgotten));
            if !forgotten {
                return Err(format!("{} of {} still believes in its call", agent.name, agent.call_id));
            }
        }
        Ok(())
    }

    // Packets

    fn emit(&mut self, number: usize, left: Vec<(Flow, Sip)>) {
        for (flow, sip) in left {
            let from = self.sidecars[number].side(leg_of(flow));
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
