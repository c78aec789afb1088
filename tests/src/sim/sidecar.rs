//! A sidecar of the world: the product's own shard, where it stands, and the judge of one that stands in for its
//! application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sipwarden_session_timer::{Endpoint, Flow, Leg, Limits, Policy, Time};
use sipwarden_shard::{Intake, Outbox, Shard, ShardConfig};
use sipwarden_sip::value::Transport;

use super::message::Sip;
use super::watch::Watch;
use super::{Setup, addr};

const REMOTE_UDP: u16 = 0;
const LOCAL_UDP: u16 = 1;
pub(super) const REMOTE_TCP: u16 = 2;

/// One shard and what is around it.
pub(super) struct Sidecar {
    number: usize,
    pub(super) shard: Shard,
    pub(super) intake: Intake,
    pub(super) outbox: Outbox,
    pub(super) watch: Option<Watch>,
}

impl Sidecar {
    pub(super) fn new(number: usize, setup: &Setup) -> Sidecar {
        let limits = Limits { idle: Duration::from_millis(setup.idle_ms), ..Limits::default() };
        let sides = [place(number, Leg::Remote), place(number, Leg::Local), place(number, Leg::Remote)];
        let endpoint = |(index, leg, transport): (usize, Leg, Transport)| Endpoint {
            leg,
            transport,
            sent_by: sides[index].to_string(),
        };
        let endpoints =
            [(0, Leg::Remote, Transport::Udp), (1, Leg::Local, Transport::Udp), (2, Leg::Remote, Transport::Tcp)];
        let config = ShardConfig {
            endpoints: endpoints.map(endpoint).into(),
            bound: sides.into(),
            app: Flow { endpoint: LOCAL_UDP, connection: 0, peer: app(number) },
            next_hop: None,
            limits,
            clock_speed: 1,
            key: setup.seed ^ 0x5197_aaaa ^ ((number as u64) << 40),
        };
        let watch = setup.acts().then(|| Watch::new(Arc::clone(&setup.policy), setup.idle_ms));
        Sidecar {
            number,
            shard: Shard::new(Arc::new(config), Arc::clone(&setup.policy), 0),
            intake: Intake::new(),
            outbox: Outbox::default(),
            watch,
        }
    }

    /// Its address on a leg, UDP and TCP.
    pub(super) fn side(&self, leg: Leg) -> SocketAddr {
        place(self.number, leg)
    }

    /// Its application, whichever agent plays it in a call.
    pub(super) fn app(&self) -> SocketAddr {
        app(self.number)
    }

    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        Leg::BOTH.iter().any(|leg| self.side(*leg) == address)
    }

    /// Is that an agent of its pod?
    pub(super) fn is_beside(&self, address: SocketAddr) -> bool {
        address.ip() == self.app().ip()
    }

    pub(super) fn flow(&self, from: SocketAddr, to: SocketAddr, tcp: bool) -> Flow {
        let endpoint = match (to == self.side(Leg::Local), tcp) {
            (true, _) => LOCAL_UDP,
            (false, false) => REMOTE_UDP,
            (false, true) => REMOTE_TCP,
        };
        Flow { endpoint, connection: if tcp { u32::from(from.port()) } else { 0 }, peer: from }
    }

    pub(super) fn due(&self) -> Option<Time> {
        self.shard.next_timeout()
    }

    pub(super) fn set_policy(&mut self, policy: &Arc<Policy>) {
        self.shard.set_policy(Arc::clone(policy));
        if let Some(watch) = &mut self.watch {
            watch.set_policy(Arc::clone(policy));
        }
    }

    /// `came` from `leg`, and `left` left because of it.
    pub(super) fn judge_crossing(&mut self, now: u64, leg: Leg, came: &Sip, left: &[(Leg, Sip)]) -> Result<(), String> {
        let views = self.shard.dialogs().sessions(0, usize::MAX);
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.crossed(now, leg, came, left)?;
        watch.compare(now, &views, left, &self.outbox.events)
    }

    /// Time passed, and `left` left because of it.
    pub(super) fn judge_time_out(&mut self, now: u64, left: &[(Leg, Sip)]) -> Result<(), String> {
        let views = self.shard.dialogs().sessions(0, usize::MAX);
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.acted(now, left)?;
        watch.compare(now, &views, left, &self.outbox.events)
    }
}

pub(super) fn leg_of(flow: Flow) -> Leg {
    if flow.endpoint == LOCAL_UDP { Leg::Local } else { Leg::Remote }
}

fn place(number: usize, leg: Leg) -> SocketAddr {
    match leg {
        Leg::Local => addr(&format!("127.0.{number}.1:5062")),
        Leg::Remote => addr(&format!("192.0.2.{}:5060", number + 1)),
    }
}

fn app(number: usize) -> SocketAddr {
    addr(&format!("127.0.{number}.1:5070"))
}
