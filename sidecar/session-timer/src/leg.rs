//! The two sides of a call, and the transport flows they are heard on.

use std::net::SocketAddr;

/// A side of the sidecar. Known by the socket a message came in on, never guessed from an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The application in our pod.
    Local,
    /// Whoever is on the other side of the sidecar.
    Remote,
}

impl Leg {
    /// Both, in index order.
    pub const BOTH: [Leg; 2] = [Leg::Local, Leg::Remote];

    /// The other side.
    pub const fn other(self) -> Leg {
        match self {
            Leg::Local => Leg::Remote,
            Leg::Remote => Leg::Local,
        }
    }

    /// 0 for Local, 1 for Remote: an index into per-leg pairs.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// `Local` or `Remote`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Leg::Local => "Local",
            Leg::Remote => "Remote",
        }
    }
}

/// Where a message came from and where an answer to the same party goes. The core stores flows and hands them back; only
/// the owner knows what stands behind the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Index into the endpoints given at start ([`crate::Config::endpoints`]): our socket, and with it side and transport.
    pub endpoint: u16,
    /// The stream connection, or 0 for datagrams and for "connect to `peer`, or reuse a connection to it".
    pub connection: u32,
    /// The other end's address.
    pub peer: SocketAddr,
}
