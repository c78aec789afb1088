//! Who takes part: the agents of each call, where they are, and the proxy that forks.

use std::net::SocketAddr;

use sipwarden_session_timer::Leg;

use super::agent::{Act, Agent, Habits};
use super::proxy::Proxy;
use super::{World, addr};

/// Who calls whom. More than one callee: behind a forking proxy.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Leg,
    pub uac: Habits,
    pub callees: Vec<Habits>,
    /// The remote agent speaks TCP.
    pub tcp: bool,
    pub proxy_cancels: bool,
    pub starts_ms: u64,
}

impl Call {
    /// A call between two that begins at once.
    pub fn between(caller: Leg, uac: Habits, uas: Habits) -> Call {
        Call { caller, uac, callees: vec![uas], tcp: false, proxy_cancels: false, starts_ms: 0 }
    }
}

/// Where the agents of a call stand among [`World::nodes`].
#[derive(Clone, Debug)]
pub struct Parties {
    pub uac: usize,
    pub callees: Vec<usize>,
}

/// Anything with an address.
#[derive(Debug)]
pub enum Node {
    Agent(Box<Agent>),
    Proxy(Box<Proxy>),
}

impl Node {
    pub(super) fn is_at(&self, addr: SocketAddr, call_id: &str) -> bool {
        match self {
            Node::Agent(agent) => agent.addr == addr && agent.call_id == call_id,
            Node::Proxy(proxy) => proxy.addr == addr && proxy.call_id == call_id,
        }
    }

    pub(super) fn due(&self) -> u64 {
        match self {
            Node::Agent(agent) => agent.due(),
            Node::Proxy(proxy) => proxy.due(),
        }
    }
}

impl World {
    /// Adds a call with agents of its own.
    pub fn call(&mut self, call: Call) -> Parties {
        self.calls += 1;
        let number = self.calls;
        let call_id = format!("call{number}@sim");
        let uac = self.add_agent(format!("uac{number}"), call.caller, call.tcp, &call_id, call.uac, None);
        let to = call.caller.other();
        let forks = call.callees.len() > 1;
        let callees: Vec<usize> = call
            .callees
            .into_iter()
            .enumerate()
            .map(|(fork, habits)| {
                let behind = forks.then_some(fork as u16);
                self.add_agent(format!("uas{number}f{fork}"), to, call.tcp && !forks, &call_id, habits, behind)
            })
            .collect();
        let target = match (to, forks) {
            (Leg::Local, _) if self.sidecars.len() > 1 => self.sidecars[0].side(Leg::Remote),
            (Leg::Remote, _) if self.sidecars.len() > 1 => self.sidecars[1].side(Leg::Remote),
            (Leg::Local, _) => self.sidecars[0].app(),
            (Leg::Remote, false) => self.agent(callees[0]).addr,
            (Leg::Remote, true) => SocketAddr::new(addr("198.51.100.1:0").ip(), 6000 + number as u16),
        };
        if forks {
            let targets = callees.iter().map(|&callee| self.agent(callee).addr).collect();
            self.nodes.push(Node::Proxy(Box::new(Proxy::new(target, call_id, targets, call.proxy_cancels))));
        }
        let transport = if call.tcp && to == Leg::Remote && !forks { ";transport=tcp" } else { "" };
        let outbound = match (call.caller, self.sidecars.get(1)) {
            (Leg::Remote, Some(other)) => other.side(Leg::Local),
            (leg, _) => self.sidecars[0].side(leg),
        };
        let agent = self.agent_mut(uac);
        agent.outbound = (outbound, format!("sip:callee@{target}{transport}"));
        agent.acts.push((call.starts_ms, Act::Call));
        Parties { uac, callees }
    }

    pub fn agent(&self, node: usize) -> &Agent {
        match &self.nodes[node] {
            Node::Agent(agent) => agent,
            Node::Proxy(_) => panic!("node {node} is a proxy"),
        }
    }

    pub(super) fn agent_mut(&mut self, node: usize) -> &mut Agent {
        match &mut self.nodes[node] {
            Node::Agent(agent) => agent,
            Node::Proxy(_) => panic!("node {node} is a proxy"),
        }
    }

    fn add_agent(
        &mut self,
        name: String,
        leg: Leg,
        tcp: bool,
        call_id: &str,
        habits: Habits,
        behind_proxy: Option<u16>,
    ) -> usize {
        let port = 10_000 + self.nodes.len() as u16;
        let app = self.sidecars[0].app();
        let at = match (leg, behind_proxy) {
            (Leg::Local, None) => app,
            (Leg::Local, Some(_)) => SocketAddr::new(app.ip(), port),
            (Leg::Remote, _) if self.sidecars.len() > 1 => self.sidecars[1].app(),
            (Leg::Remote, _) => SocketAddr::new(addr("192.0.2.77:0").ip(), port),
        };
        let mut agent = Agent::new(name, at, call_id.to_owned(), habits, self.rng.fork());
        agent.tcp = tcp && leg == Leg::Remote;
        agent.in_order = self.setup.remote_link.keeps_order() && self.setup.local_link.keeps_order();
        self.nodes.push(Node::Agent(Box::new(agent)));
        self.nodes.len() - 1
    }
}
