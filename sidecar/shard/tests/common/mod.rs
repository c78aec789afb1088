//! A sidecar of one shard: `192.0.2.1:5060` towards the world, `127.0.0.1:5070` towards an application on port 5080.

use std::net::SocketAddr;
use std::sync::Arc;

use sipwarden_session_timer::{Endpoint, Flow, Leg, Limits, Policy};
use sipwarden_shard::{Shard, ShardConfig};
use sipwarden_sip::value::Transport;

/// Where the remote party is.
pub(crate) const PEER: &str = "198.51.100.7:5062";

/// Of tags, branches and hashes.
pub(crate) const KEY: u64 = 7;

/// A shard under a policy.
pub(crate) fn shard(policy: Policy) -> Shard {
    let config = ShardConfig {
        endpoints: endpoints(),
        bound: vec![address("0.0.0.0:5060"), address("127.0.0.1:5070")],
        app: app(),
        next_hop: None,
        limits: Limits::default(),
        clock_speed: 1,
        key: KEY,
    };
    Shard::new(Arc::new(config), Arc::new(policy), 0)
}

/// Its two sides.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    let endpoint = |leg, sent_by: &str| Endpoint { leg, transport: Transport::Udp, sent_by: sent_by.into() };
    vec![endpoint(Leg::Remote, "192.0.2.1:5060"), endpoint(Leg::Local, "127.0.0.1:5070")]
}

/// The flow of the remote party.
pub(crate) fn peer() -> Flow {
    Flow { endpoint: 0, connection: 0, peer: address(PEER) }
}

/// The flow of the application.
pub(crate) fn app() -> Flow {
    Flow { endpoint: 1, connection: 0, peer: address("127.0.0.1:5080") }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
