//! Sockets: datagrams ([`udp`]) and streams ([`tcp`]).
//!
//! An endpoint is one of our listening sockets, known to the rest of the process by its index (`Flow::endpoint`). A
//! transport to come has its place here: TLS hands an encrypted stream to the same connection code as TCP
//! ([`tcp::Streams::accepted`]); WebSocket (RFC 7118) also brings its own framing in place of Content-Length.

pub mod tcp;
pub mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use sipwarden_session_timer::{Flow, Leg};
use sipwarden_sip::value::Transport;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A listening socket as it was bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The side it faces.
    pub leg: Leg,
    /// UDP or TCP.
    pub transport: Transport,
    /// Its real address.
    pub local: SocketAddr,
}

/// One message that did not come from a UDP socket: a frame of a stream, or a packet whose next hop is known now.
#[derive(Debug)]
pub struct Inbound {
    /// Where it came from.
    pub flow: Flow,
    /// The whole message.
    pub bytes: Vec<u8>,
}

/// The address of this machine that packets to `peer` leave from. Nothing is sent.
///
/// # Errors
/// There is no way to it.
pub(crate) fn local_ip(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = if peer.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

/// A bound, non-blocking socket. IPv6 sockets do not take IPv4, so that both can listen on one port.
fn bind(kind: Type, protocol: Protocol, addr: SocketAddr, share_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking().cloexec(), Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if share_port {
        socket.set_reuse_port(true)?;
    }
    if kind == Type::STREAM {
        // A restart must not wait for connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(addr))?;
    Ok(socket)
}
