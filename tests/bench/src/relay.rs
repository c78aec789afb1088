//! The floor: a UDP relay that parses nothing.

use std::net::SocketAddrV4;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::sock::{self, Forwarder, Inbox};

/// Relays between `remote` and `app` until killed; prints the same ready line as the sidecar.
///
/// Both sockets hear anyone, as a server's have to, so each datagram leaves with its destination; that is fixed, and the
/// source of what comes is not even looked at.
///
/// # Errors
/// A socket that cannot be bound, or a receive that fails for good.
pub(crate) fn run(remote: SocketAddrV4, app: SocketAddrV4) -> Result<()> {
    let (sides, peers) = ([sock::bind(0)?, sock::bind(0)?], [remote, app]);
    println!("sipwarden ready listen=udp:{} app-listen=udp:{}", sock::address(&sides[0])?, sock::address(&sides[1])?);
    let mut inbox = Inbox::new();
    let mut forwarder = Forwarder::new();
    let mut ready = [0, 1].map(|side: usize| PollFd::new(sides[side].as_fd(), PollFlags::POLLIN));
    loop {
        poll(&mut ready, PollTimeout::NONE).context("waiting for datagrams")?;
        for (from, to) in [(0, 1), (1, 0)] {
            if ready[from].any() == Some(true) && inbox.receive(&sides[from], MsgFlags::MSG_DONTWAIT)? > 0 {
                forwarder.forward(&sides[to], peers[to], &inbox);
            }
        }
    }
}
