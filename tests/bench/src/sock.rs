//! Batched UDP over `recvmmsg` and `sendmmsg`, shared by the load generator and the relay.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg, setsockopt, sockopt,
};

/// Datagrams moved by one system call at most.
pub(crate) const BATCH_LEN: usize = 64;

/// Bytes kept of one datagram; a longer one is cut, which no message of the benchmark is.
const DATAGRAM_BYTES: usize = 4096;

/// Socket buffer asked for, in bytes; without CAP_NET_ADMIN the kernel's `rmem_max` caps it.
const SOCKET_BUFFER_BYTES: usize = 256 << 20;

/// Most bytes of one segmented send; the kernel takes at most one IP datagram's worth.
const SEGMENTED_BYTES: usize = 64_000;

/// A loopback socket on `port` (0: any) with the largest buffers the kernel grants.
pub(crate) fn bind(port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("binding 127.0.0.1:{port}"))?;
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES)?;
    }
    Ok(socket)
}

/// The IPv4 address a socket made by [`bind`] has.
pub(crate) fn address(socket: &UdpSocket) -> Result<SocketAddrV4> {
    match socket.local_addr()? {
        std::net::SocketAddr::V4(address) => Ok(address),
        std::net::SocketAddr::V6(address) => anyhow::bail!("{address} is not IPv4"),
    }
}

/// What one `recvmmsg` brought.
pub(crate) struct Inbox {
    headers: MultiHeaders<SockaddrIn>,
    bytes: Vec<u8>,
    lens: Vec<usize>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: MultiHeaders::preallocate(BATCH_LEN, None),
            bytes: vec![0; BATCH_LEN * DATAGRAM_BYTES],
            lens: Vec::with_capacity(BATCH_LEN),
        }
    }

    /// Takes what is there, up to [`BATCH_LEN`]. With `MSG_DONTWAIT` nothing there is 0; with `MSG_WAITFORONE` the
    /// call blocks until there is something. A refusal that an earlier send met (ICMP) counts as nothing there.
    pub(crate) fn receive(&mut self, socket: &UdpSocket, flags: MsgFlags) -> io::Result<usize> {
        self.lens.clear();
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH_LEN] = {
            let mut chunks = self.bytes.chunks_exact_mut(DATAGRAM_BYTES);
            std::array::from_fn(|_| [IoSliceMut::new(chunks.next().expect("one chunk per slot of the batch"))])
        };
        match recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(messages) => self.lens.extend(messages.map(|message| message.bytes)),
            Err(Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.lens.len())
    }

    /// The `index`th datagram of the last receive.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[index * DATAGRAM_BYTES..][..self.lens[index]]
    }

    /// All datagrams of the last receive, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.lens.len()).map(|index| self.get(index))
    }
}

/// Sends datagrams on, one `sendmmsg` at a time.
pub(crate) struct Forwarder(MultiHeaders<SockaddrIn>);

impl Forwarder {
    pub(crate) fn new() -> Self {
        Self(MultiHeaders::preallocate(BATCH_LEN, None))
    }

    /// Sends all of `inbox` to `peer`; a datagram the kernel refuses is lost, as on any wire.
    pub(crate) fn forward(&mut self, socket: &UdpSocket, peer: SocketAddrV4, inbox: &Inbox) {
        let mut slices = [[IoSlice::new(&[])]; BATCH_LEN];
        for (slice, datagram) in slices.iter_mut().zip(inbox.iter()) {
            *slice = [IoSlice::new(datagram)];
        }
        let mut first = 0;
        while first < inbox.lens.len() {
            let rest = &slices[first..inbox.lens.len()];
            let to = [Some(SockaddrIn::from(peer)); BATCH_LEN];
            let sent = sendmmsg(socket.as_raw_fd(), &mut self.0, rest, &to[..rest.len()], [], MsgFlags::empty());
            first += sent.map_or(1, |sent| sent.count().max(1));
        }
    }
}

/// Datagrams waiting to go out over one connected socket. Neighbours of equal length leave as one segmented send
/// (UDP GSO), which is what lets one core of generator outrun one core of relay.
#[derive(Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Outbox {
    /// Appends the datagram that `render` writes.
    pub(crate) fn push(&mut self, render: impl FnOnce(&mut Vec<u8>)) {
        render(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Sends everything in order; a datagram the kernel refuses is lost, as on any wire.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) {
        let (mut start, mut index) = (0, 0);
        while index < self.ends.len() {
            let len = self.ends[index] - start;
            let most = BATCH_LEN.min(SEGMENTED_BYTES / len.max(1));
            let alike = (1..most)
                .take_while(|ahead| self.ends.get(index + ahead) == Some(&(start + len * (ahead + 1))))
                .count();
            let end = self.ends[index + alike];
            send_segmented(socket, &self.bytes[start..end], len);
            (start, index) = (end, index + alike + 1);
        }
        self.bytes.clear();
        self.ends.clear();
    }
}

fn send_segmented(socket: &UdpSocket, bytes: &[u8], segment_len: usize) {
    let segment = u16::try_from(segment_len).expect("a SIP message over UDP fits in 65,535 bytes");
    let control: &[ControlMessage<'_>] =
        if bytes.len() > segment_len { &[ControlMessage::UdpGsoSegments(&segment)] } else { &[] };
    let sent = sendmsg::<SockaddrIn>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), None);
    if sent.is_err() && !control.is_empty() {
        bytes.chunks(segment_len).for_each(|datagram| drop(socket.send(datagram)));
    }
}
