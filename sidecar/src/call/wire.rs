//! The sockets of a user agent: one transport, datagrams or streams, whole messages in and out.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sipwarden_sip::frame::{Frame, Framer};
use sipwarden_sip::value::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::packet::Packet;
use crate::address::transport_name;
use crate::transport::local_ip;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages nobody looked at yet; a sender of more waits, or its datagrams are lost.
const MAX_WAITING: usize = 64;
/// Connections at once: to a Service, and to each pod behind it.
const MAX_STREAMS: usize = 16;

/// Sends and receives. Everything ends when it is dropped.
pub(super) struct Wire {
    transport: Transport,
    local: SocketAddr,
    udp: Option<Arc<UdpSocket>>,
    streams: HashMap<SocketAddr, OwnedWriteHalf>,
    inbox: mpsc::Receiver<Packet>,
    outlet: mpsc::Sender<Packet>,
    readers: JoinSet<()>,
}

impl Wire {
    /// Opens what is needed to talk to `peer`, from the address this machine has towards it.
    ///
    /// # Errors
    /// There is no way to the peer, or it refuses the connection.
    pub(super) async fn towards(transport: Transport, peer: SocketAddr) -> anyhow::Result<Wire> {
        let (outlet, inbox) = mpsc::channel(MAX_WAITING);
        let mut wire = Wire {
            transport,
            local: SocketAddr::new(local_ip(peer).with_context(|| format!("there is no way from here to {peer}"))?, 0),
            udp: None,
            streams: HashMap::new(),
            inbox,
            outlet,
            readers: JoinSet::new(),
        };
        match transport {
            Transport::Udp => {
                let socket = Arc::new(UdpSocket::bind(wire.local).await.context("cannot open a UDP socket")?);
                wire.local = socket.local_addr()?;
                wire.readers.spawn(read_datagrams(socket.clone(), wire.outlet.clone()));
                wire.udp = Some(socket);
            }
            Transport::Tcp => wire.local = wire.connect(peer).await?,
            other => bail!("{} is not spoken here, only udp and tcp", transport_name(other)),
        }
        Ok(wire)
    }

    /// Where the other side reaches us.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// UDP or TCP.
    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    /// Does the transport itself care for lost messages?
    pub(super) fn is_reliable(&self) -> bool {
        self.udp.is_none()
    }

    /// Sends to `peer`. A datagram that the system refuses counts as lost: what a Service without endpoints refuses
    /// now, it may take a moment later.
    ///
    /// # Errors
    /// The stream cannot be opened or written.
    pub(super) async fn send(&mut self, bytes: &[u8], peer: SocketAddr) -> anyhow::Result<()> {
        if let Some(socket) = &self.udp {
            let _ = socket.send_to(bytes, peer).await;
            return Ok(());
        }
        if let Some(stream) = self.streams.get_mut(&peer) {
            if stream.write_all(bytes).await.is_ok() {
                return Ok(());
            }
            self.streams.remove(&peer);
        }
        self.connect(peer).await?;
        let stream = self.streams.get_mut(&peer).expect("just connected");
        stream.write_all(bytes).await.with_context(|| format!("cannot send to tcp:{peer}"))
    }

    /// The next message, whoever sent it.
    pub(super) async fn receive(&mut self) -> Packet {
        self.inbox.recv().await.expect("the wire keeps a sender of its own")
    }

    async fn connect(&mut self, peer: SocketAddr) -> anyhow::Result<SocketAddr> {
        if self.streams.len() >= MAX_STREAMS {
            bail!("more than {MAX_STREAMS} connections for one call");
        }
        let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(peer)).await;
        let stream = connecting
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .with_context(|| format!("cannot connect to tcp:{peer}"))?;
        // A request is one write, and waits for its answer.
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (reader, writer) = stream.into_split();
        self.readers.spawn(read_stream(reader, peer, self.outlet.clone()));
        self.streams.insert(peer, writer);
        Ok(local)
    }
}

async fn read_datagrams(socket: Arc<UdpSocket>, outlet: mpsc::Sender<Packet>) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error tells of an earlier datagram (ICMP), not of the socket.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if outlet.send(Packet { bytes: buffer[..length].to_vec(), from }).await.is_err() {
            return;
        }
    }
}

/// Reads until the peer closes, or sends what cannot be framed.
async fn read_stream(mut stream: OwnedReadHalf, from: SocketAddr, outlet: mpsc::Sender<Packet>) {
    let (mut buffer, mut framer) = (Vec::new(), Framer::default());
    loop {
        match framer.next(&buffer) {
            Ok(Frame::Message { skip, len }) => {
                let bytes = buffer[skip..skip + len].to_vec();
                buffer.drain(..skip + len);
                if outlet.send(Packet { bytes, from }).await.is_err() {
                    return;
                }
            }
            Ok(Frame::Ping { len } | Frame::Blank { len }) => drop(buffer.drain(..len)),
            Ok(Frame::Incomplete) => {
                if !stream.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
