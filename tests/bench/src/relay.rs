//! The floor: a UDP relay that parses nothing.

use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::MsgFlags;

use crate::sock::{self, Forwarder, Inbox};

/// Relays between `remote` and `app` until killed; prints the same ready line as the sidecar.
///
/// Both peers are fixed and both sockets connected, so the kernel looks up no route per datagram: no relay of plain
/// Rust does less.
///
/// # Errors
/// A socket that cannot be bound or connected, or a receive that fails for good.
pub(crate) fn run(remote: SocketAddrV4, app: SocketAddrV4) -> Result<String> {
    let sides = [connected(remote)?, connected(app)?];
    println!("sipwarden ready listen=udp:{} app-listen=udp:{}", sock::address(&sides[0])?, sock::address(&sides[1])?);
    let mut inbox = Inbox::new();
    let mut forwarder = Forwarder::new();
    let mut ready = [0, 1].map(|side: usize| PollFd::new(sides[side].as_fd(), PollFlags::POLLIN));
    loop {
        poll(&mut ready, PollTimeout::NONE).context("waiting for datagrams")?;
        for (from, to) in [(0, 1), (1, 0)] {
            if ready[from].any() == Some(true) && inbox.receive(&sides[from], MsgFlags::MSG_DONTWAIT)? > 0 {
                forwarder.forward(&sides[to], &inbox);
            }
        }
    }
}

fn connected(peer: SocketAddrV4) -> Result<UdpSocket> {
    let socket = sock::bind(0)?;
    socket.connect(peer).with_context(|| format!("connecting to {peer}"))?;
    Ok(socket)
}
