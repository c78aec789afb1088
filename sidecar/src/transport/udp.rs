//! Datagrams in batches: one wake-up is one `recvmmsg`, and what leaves through a socket is one `sendmmsg`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendto};
use sipwarden_sip::value::Transport;
use socket2::{Protocol, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::metrics::{Limit, Metrics, TransportError};

/// Datagrams per system call.
const BATCH: usize = 32;
/// The largest UDP payload, and some cache lines more, so that the slots do not all begin in the same cache set.
const SLOT_LEN: usize = 65_536 + 192;
/// Kernel buffers asked for; the kernel grants what `net.core.{r,w}mem_max` allow.
const KERNEL_BUFFER_LEN: usize = 8 << 20;
/// Datagrams kept while a socket has no room; one more is dropped.
const MAX_QUEUED: usize = 65_536;

/// Room for one batch of received datagrams, shared by the sockets of a worker.
pub struct Arena {
    buffer: Box<[u8]>,
    received: Vec<(SocketAddr, usize)>,
}

/// One UDP socket of one worker.
pub struct Udp {
    /// Its endpoint's index.
    pub endpoint: u16,
    /// Watched for what arrives, not for room to send: the kernel tells of room after each datagram that has left, and
    /// would wake us as often as there is one.
    socket: AsyncFd<StdSocket>,
    /// The same socket watched for room, while something waits for that.
    room: Option<AsyncFd<StdSocket>>,
    receive_headers: MultiHeaders<SockaddrStorage>,
    send_headers: MultiHeaders<SockaddrStorage>,
    queue: VecDeque<(SocketAddr, Box<[u8]>)>,
    metrics: Arc<Metrics>,
}

/// Binds `addr`; with `share_port` several sockets may (SO_REUSEPORT).
///
/// # Errors
/// What the system says about the address.
pub fn bind(addr: SocketAddr, share_port: bool) -> io::Result<StdSocket> {
    let socket = super::bind(Type::DGRAM, Protocol::UDP, addr, share_port)?;
    // Best effort: a smaller buffer only means that a burst is lost earlier.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER_LEN);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER_LEN);
    Ok(socket.into())
}

impl Arena {
    /// About 2 MiB of address space; only the pages that datagrams touch become resident.
    pub fn new() -> Arena {
        Arena { buffer: vec![0; BATCH * SLOT_LEN].into_boxed_slice(), received: Vec::with_capacity(BATCH) }
    }

    /// The datagrams of the last batch.
    pub fn received(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.received.iter().zip(self.buffer.chunks_exact(SLOT_LEN)).map(|((peer, len), slot)| (*peer, &slot[..*len]))
    }
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

impl Udp {
    /// Takes a bound socket into the current runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn new(endpoint: u16, socket: StdSocket, metrics: Arc<Metrics>) -> io::Result<Udp> {
        Ok(Udp {
            endpoint,
            socket: watch(socket, Interest::READABLE)?,
            room: None,
            receive_headers: MultiHeaders::preallocate(BATCH, None),
            send_headers: MultiHeaders::preallocate(BATCH, None),
            queue: VecDeque::new(),
            metrics,
        })
    }

    /// Fills `arena` with what has arrived, at least one datagram unless it is pending. Returns whether more may wait.
    pub fn poll_receive(&mut self, cx: &mut Context, arena: &mut Arena) -> Poll<bool> {
        loop {
            let Ok(mut arrived) = ready!(self.socket.poll_read_ready(cx)) else {
                return Poll::Pending; // the runtime is shutting down
            };
            match receive(self.socket.as_raw_fd(), &mut self.receive_headers, arena) {
                Ok(BATCH) => return Poll::Ready(true),
                // A short batch has drained the socket: no second call to hear EAGAIN from.
                Ok(count) => {
                    arrived.clear_ready();
                    if count > 0 {
                        return Poll::Ready(false);
                    }
                }
                Err(Errno::EAGAIN) => arrived.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNREFUSED) => self.metrics.transport_error(Transport::Udp, TransportError::Refused),
                Err(_) => {
                    self.metrics.transport_error(Transport::Udp, TransportError::Receive);
                    // Datagrams may wait behind the error, so the socket counts as readable; others get their turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends datagrams in order. Those the socket has no room for wait until [`Self::poll_flush`].
    pub fn send<'p>(&mut self, datagrams: impl Iterator<Item = (SocketAddr, &'p [u8])>) {
        let mut datagrams = datagrams.peekable();
        while datagrams.peek().is_some() {
            let mut batch: [(SocketAddr, &[u8]); BATCH] = [(UNUSED, &[]); BATCH];
            let mut count = 0;
            for (slot, datagram) in batch.iter_mut().zip(&mut datagrams) {
                *slot = datagram;
                count += 1;
            }
            let sent = if self.queue.is_empty() { self.send_batch(&batch[..count]) } else { 0 };
            for &(peer, bytes) in &batch[sent..count] {
                if self.queue.len() < MAX_QUEUED {
                    self.queue.push_back((peer, bytes.into()));
                } else {
                    self.metrics.limit(Limit::DatagramQueue);
                }
            }
        }
    }

    /// Sends what waits for room. Pending while something still does.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context) -> Poll<()> {
        while !self.queue.is_empty() {
            let Some(room) = self.watch_room() else { return Poll::Pending };
            let Ok(mut room) = ready!(room.poll_write_ready(cx)) else {
                return Poll::Ready(()); // the runtime is shutting down
            };
            // Before anything is sent, so that room which comes meanwhile is told again.
            room.clear_ready();
            self.send_queued();
        }
        self.room = None;
        Poll::Ready(())
    }

    /// `None`: there is no file descriptor left for it; the next turn tries again.
    fn watch_room(&mut self) -> Option<&AsyncFd<StdSocket>> {
        if self.room.is_none() {
            let socket = self.socket.get_ref().try_clone();
            self.room = socket.and_then(|socket| watch(socket, Interest::WRITABLE)).ok();
        }
        self.room.as_ref()
    }

    fn send_queued(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        let mut sent = 0;
        while sent < queue.len() {
            let mut batch: [(SocketAddr, &[u8]); BATCH] = [(UNUSED, &[]); BATCH];
            let count = batch.len().min(queue.len() - sent);
            for (slot, (peer, bytes)) in batch.iter_mut().zip(queue.range(sent..sent + count)) {
                *slot = (*peer, bytes);
            }
            let done = self.send_batch(&batch[..count]);
            sent += done;
            if done < count {
                break;
            }
        }
        self.queue = queue;
        self.queue.drain(..sent);
    }

    /// How many are done with: sent, or dropped because of an error of their own. Fewer than all: no room.
    fn send_batch(&mut self, batch: &[(SocketAddr, &[u8])]) -> usize {
        let mut done = 0;
        while done < batch.len() {
            match send(self.socket.as_raw_fd(), &mut self.send_headers, &batch[done..]) {
                Ok(sent) => done += sent,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => {
                    self.metrics.transport_error(Transport::Udp, cause(error));
                    done += 1;
                }
            }
        }
        done
    }
}

/// `UdpSocket` of the runtime is always watched for both.
#[expect(
    deprecated,
    reason = "unsound where a type lies about its descriptor, which no socket does; its successor is unsafe"
)]
fn watch(socket: StdSocket, interest: Interest) -> io::Result<AsyncFd<StdSocket>> {
    AsyncFd::with_interest(socket, interest)
}

const UNUSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn receive(fd: i32, headers: &mut MultiHeaders<SockaddrStorage>, arena: &mut Arena) -> nix::Result<usize> {
    arena.received.clear();
    let mut slots = arena.buffer.chunks_exact_mut(SLOT_LEN);
    let mut slices: [[IoSliceMut; 1]; BATCH] =
        std::array::from_fn(|_| [IoSliceMut::new(slots.next().expect("the buffer has BATCH slots"))]);
    for message in recvmmsg(fd, headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)? {
        let peer = message.address.as_ref().and_then(socket_addr).unwrap_or(UNUSED);
        arena.received.push((peer, message.bytes));
    }
    Ok(arena.received.len())
}

fn send(fd: i32, headers: &mut MultiHeaders<SockaddrStorage>, batch: &[(SocketAddr, &[u8])]) -> nix::Result<usize> {
    if let [(peer, bytes)] = batch {
        return sendto(fd, bytes, &SockaddrStorage::from(*peer), MsgFlags::MSG_DONTWAIT).map(|_| 1);
    }
    let slices: [[IoSlice; 1]; BATCH] =
        std::array::from_fn(|index| [IoSlice::new(batch.get(index).map_or(&[][..], |(_, bytes)| bytes))]);
    let peers: [Option<SockaddrStorage>; BATCH] =
        std::array::from_fn(|index| batch.get(index).map(|(peer, _)| SockaddrStorage::from(*peer)));
    let no_control: [ControlMessage; 0] = [];
    let count = batch.len();
    let sent = sendmmsg(fd, headers, &slices[..count], &peers[..count], no_control, MsgFlags::MSG_DONTWAIT)?;
    Ok(sent.count())
}

fn socket_addr(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || storage.as_sockaddr_in().map(|addr| SocketAddr::V4(SocketAddrV4::from(*addr)));
    let v6 = || storage.as_sockaddr_in6().map(|addr| SocketAddr::V6(SocketAddrV6::from(*addr)));
    v4().or_else(v6)
}

fn cause(error: Errno) -> TransportError {
    match error {
        Errno::EMSGSIZE => TransportError::TooLarge,
        Errno::ECONNREFUSED => TransportError::Refused,
        _ => TransportError::Send,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn pair(ip: &str) -> (Udp, Udp, SocketAddr, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        let socket = || bind(format!("{ip}:0").parse().expect("an address"), false).expect("a socket");
        let (from, to) = (socket(), socket());
        let to_addr = to.local_addr().expect("an address");
        let udp = |socket| Udp::new(0, socket, metrics.clone()).expect("watched");
        (udp(from), udp(to), to_addr, metrics.clone())
    }

    async fn received(socket: &mut Udp, count: usize) -> Vec<Vec<u8>> {
        let mut arena = Arena::new();
        let mut all = Vec::new();
        while all.len() < count {
            let batch = poll_fn(|cx| socket.poll_receive(cx, &mut arena));
            timeout(Duration::from_secs(10), batch).await.expect("datagrams");
            all.extend(arena.received().map(|(_, bytes)| bytes.to_vec()));
        }
        all
    }

    #[tokio::test]
    async fn more_than_a_batch_arrives_whole_and_in_order() {
        for ip in ["127.0.0.1", "[::1]"] {
            let (mut from, mut to, to_addr, _) = pair(ip);
            let sent: Vec<Vec<u8>> = (0..BATCH * 2 + 1).map(|index| vec![index as u8; index + 1]).collect();
            from.send(sent.iter().map(|bytes| (to_addr, bytes.as_slice())));
            assert_eq!(received(&mut to, sent.len()).await, sent);
        }
    }

    #[tokio::test]
    async fn a_datagram_that_cannot_be_sent_is_counted_and_holds_back_no_other() {
        let (mut from, mut to, to_addr, metrics) = pair("127.0.0.1");
        let too_large = vec![0; 65_536];
        let sent: [&[u8]; 3] = [b"before", &too_large, b"behind"];
        from.send(sent.iter().map(|&bytes| (to_addr, bytes)));
        assert_eq!(received(&mut to, 2).await, [b"before", b"behind"]);
        let counted = r#"sipwarden_transport_errors_total{error="TooLarge",transport="udp"} 1"#;
        assert!(metrics.render(0).contains(counted));
    }

    #[tokio::test]
    async fn what_waits_for_room_is_sent_before_what_comes_later() {
        let (mut from, mut to, to_addr, _) = pair("127.0.0.1");
        from.queue.push_back((to_addr, b"first".as_slice().into()));
        from.send([(to_addr, b"second".as_slice())].into_iter());
        assert_eq!(from.queue.len(), 2, "nothing overtakes the queue");
        timeout(Duration::from_secs(10), poll_fn(|cx| from.poll_flush(cx))).await.expect("flushed");
        assert_eq!(received(&mut to, 2).await, [b"first".as_slice(), b"second"]);
    }

    #[tokio::test]
    async fn two_sockets_can_share_a_port() {
        let first = bind("127.0.0.1:0".parse().expect("an address"), true).expect("a socket");
        let addr = first.local_addr().expect("an address");
        assert_eq!(bind(addr, true).expect("shared").local_addr().expect("an address"), addr);
        assert!(bind(addr, false).is_err(), "not without sharing");
    }
}
