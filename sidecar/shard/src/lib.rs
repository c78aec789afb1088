//! One shard: everything between a received packet and the packets that leave because of it, without IO.
//!
//! [`Intake`] turns bytes into an indexed message (one per worker thread, no lock); [`Shard`] owns the dialogs of the
//! Call-IDs that hash to it, routes, asks the session-timer core, and renders into the caller's [`Outbox`].
//!
//! ```text
//! request:  via (whose, from where) → admit → branch (loop?) → route → hop ─► dialogs ─► edits ─► packet
//!                                       └► answer   └► answer            └► lookup  └► answer
//! response: ours? ─► dialogs ─► branch (the way back) ─► packet
//! ```
//!
//! No transaction is kept: endpoints retransmit, and the branch is a function of the request (RFC 3261 §16.11).

mod admit;
mod app;
mod branch;
mod digits;
#[cfg(test)]
mod fixture;
mod hop;
mod intake;
mod mix;
mod proxy;
mod resolved;
mod route;
mod sockets;
#[cfg(test)]
mod tests;
mod via;

use std::net::SocketAddr;
use std::ops::Range;

use sipwarden_session_timer::{Endpoint, Event, Flow, Limits};
use sipwarden_sip::value::{Scheme, Transport, Uri};

use self::sockets::uri_transport;
pub use intake::{Intake, shard_of, shard_of_call};
pub use proxy::Shard;

/// What a shard is made with; the same for all shards of a process.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Our sockets; `Flow::endpoint` indexes them. `advertise` decides what Record-Route and Via say.
    pub endpoints: Vec<Endpoint>,
    /// The address each endpoint's socket is bound to, in the same order: the family it can reach, and what is
    /// ourselves, which an advertised name does not tell.
    pub bound: Vec<SocketAddr>,
    /// Where requests to the application go: endpoint and peer.
    pub app: Flow,
    /// Where requests of the application without a Route go, instead of their request URI.
    pub next_hop: Option<Target>,
    /// Bounds of each shard's dialogs.
    pub limits: Limits,
    /// Session time runs this many times faster; 1 but in tests.
    pub clock_speed: u32,
    /// Key of tags, branches and hashes; random per process.
    pub key: u64,
}

/// A next hop before name resolution (RFC 3263).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Lower case host name, or an IP literal without brackets.
    pub host: String,
    /// The port, when one is asked for; one with a name leaves no choice to SRV.
    pub port: Option<u16>,
    /// Asked for by `transport=`; `None` leaves the choice to NAPTR/SRV (or UDP).
    pub transport: Option<Transport>,
}

impl Target {
    /// What a SIP URI means; none for other schemes.
    pub fn of(uri: &Uri) -> Option<Target> {
        let host = std::str::from_utf8(uri.host).ok().filter(|_| matches!(uri.scheme, Scheme::Sip | Scheme::Sips))?;
        Some(Target { host: host.to_ascii_lowercase(), port: uri.port, transport: uri_transport(uri) })
    }
}

/// What a name came to; `Err` is remembered for a short while too.
pub type Resolved = Result<(Transport, SocketAddr), Unresolvable>;

/// The name has no usable address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address of a transport and family we listen on")]
pub struct Unresolvable;

/// A packet that waits for a name: resolve, tell [`Shard::resolved`] (also of failure), then hand the packet in again.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// What to resolve.
    pub target: Target,
    /// The flow the packet came on, and comes on again.
    pub flow: Flow,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// What leaves: packets as ranges of one reused buffer, events, lookups. The owner sends, reports and clears.
#[derive(Default)]
pub struct Outbox {
    /// All packets, one behind the other.
    pub bytes: Vec<u8>,
    /// What to send, in this order.
    pub packets: Vec<Packet>,
    /// What to report.
    pub events: Vec<Event>,
    /// What to resolve.
    pub lookups: Vec<Lookup>,
    /// The remote side of the message handled last: where it came from, or goes to. `None` when it was not routed.
    pub remote: Option<SocketAddr>,
}

/// One packet of an [`Outbox`].
#[derive(Clone, Debug)]
pub struct Packet {
    /// Where it goes.
    pub flow: Flow,
    /// Where its bytes are in [`Outbox::bytes`].
    pub range: Range<usize>,
    /// It is of the dialogs' own making, and not a message that was sent on or refused.
    pub own: bool,
}

/// Why a packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Not SIP that can be indexed.
    Parse(sipwarden_sip::ParseError),
    /// A faulty response, a faulty ACK (neither may be answered), or a request whose Via cannot be answered to.
    Fault(sipwarden_sip::check::Fault),
    /// A response whose top Via is not ours.
    NotOurVia,
    /// Nowhere to send it: no Via left, or no endpoint of that transport and family.
    NoRoute,
    /// An ACK that, were it another request, would have been answered with this status (482, 483, 500).
    Unanswerable(u16),
    /// Too many packets wait for names.
    LookupsFull,
}

/// What became of a packet, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sent on.
    Forwarded {
        /// With a change to more than the lines that are a proxy's own.
        edited: bool,
    },
    /// A request answered here with this status.
    Answered(u16),
    /// An ACK or response to something of ours.
    Absorbed,
    /// Waits for a name.
    Parked,
    /// Went nowhere.
    Dropped(DropReason),
}

impl Outbox {
    /// Forget everything, keep the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
        self.events.clear();
        self.lookups.clear();
        self.remote = None;
    }

    /// The bytes of one of its packets.
    pub fn packet(&self, packet: &Packet) -> &[u8] {
        &self.bytes[packet.range.clone()]
    }

    /// Lets `write` append a packet for `flow`.
    fn push(&mut self, flow: Flow, own: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.packets.push(Packet { flow, range: start..self.bytes.len(), own });
    }
}
