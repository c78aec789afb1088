//! Streams: accepting and making connections, cutting them into messages, and writing without ever waiting for a peer.
//!
//! A connection is a task that reads and writes; the table of connections is shared by all workers. A message goes to
//! the connection it names, else to any connection with its peer, else to a new one.

mod table;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sipwarden_session_timer::Flow;
use sipwarden_sip::frame::{Frame, Framer};
use sipwarden_sip::value::Transport;
use socket2::{Protocol, SockRef, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::table::{Connection, Table};
use super::Inbound;
use crate::hub::Command;
use crate::metrics::{Limit, Metrics, TransportError};

const BACKLOG: i32 = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Well above the time between two refreshes of a usual session, and the keep-alives of RFC 5626.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Timer F (RFC 3261 §17.1.2.2): no transaction waits longer for a peer that takes nothing, or that connects and says nothing.
const PEER_TIMEOUT: Duration = Duration::from_secs(32);
/// The system probes a silent peer after this long, so that a dead one does not hold its place until the idle time-out.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// After an error of `accept`, usually no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections of all endpoints together.
const MAX_CONNECTIONS: usize = 16_384;
/// Read at once, and kept by an idle connection.
const READ_LEN: usize = 4 << 10;

/// All stream connections of a process. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<Table>,
    emptied: watch::Sender<()>,
    runtime: Handle,
    inbound: mpsc::Sender<Command>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
}

#[derive(Clone, Copy)]
struct Bounds {
    connections: usize,
    /// Bytes that may wait for all peers together.
    queued: usize,
    /// How long a connection may be silent.
    idle: Duration,
    /// How long it may take nothing of what is written to it, and how long one that was accepted may be silent at first.
    peer: Duration,
}

/// Binds `addr`.
///
/// # Errors
/// What the system says about the address.
pub fn bind(addr: SocketAddr) -> io::Result<StdListener> {
    let socket = super::bind(Type::STREAM, Protocol::TCP, addr, false)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Streams {
    /// No connections yet. Tasks run in `runtime`; messages go into `inbound`; no more than `max_queued` bytes wait to be
    /// written.
    pub fn new(runtime: Handle, inbound: mpsc::Sender<Command>, metrics: Arc<Metrics>, max_queued: usize) -> Streams {
        let bounds =
            Bounds { connections: MAX_CONNECTIONS, queued: max_queued, idle: IDLE_TIMEOUT, peer: PEER_TIMEOUT };
        Streams::with_bounds(runtime, inbound, metrics, bounds)
    }

    fn with_bounds(runtime: Handle, inbound: mpsc::Sender<Command>, metrics: Arc<Metrics>, bounds: Bounds) -> Streams {
        let table = Mutex::new(Table::new(bounds.queued));
        let emptied = watch::Sender::new(());
        Streams { inner: Arc::new(Inner { table, emptied, runtime, inbound, metrics, bounds }) }
    }

    /// Accepts connections of `endpoint` until [`Self::close`].
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn listen(&self, endpoint: u16, listener: StdListener) -> io::Result<()> {
        let _context = self.inner.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let streams = self.clone();
        let mut closing = self.inner.emptied.subscribe();
        self.inner.runtime.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => streams.accept(endpoint, accepted).await,
                    _ = closing.changed() => if streams.inner.table().closing { return },
                }
            }
        });
        Ok(())
    }

    /// Queues `message` for the connection `flow` names, else for one with its peer, else for a new one from `local`.
    pub fn send(&self, flow: Flow, local: SocketAddr, message: &[u8]) {
        let mut table = self.inner.table();
        let connection = match table.find(flow) {
            Some(connection) => connection,
            None => {
                let Some(connection) = self.open(&mut table, flow.endpoint, flow.peer) else { return };
                self.inner.runtime.spawn(self.clone().connect(connection.clone(), local));
                connection
            }
        };
        drop(table);
        if !connection.send(message) {
            self.inner.metrics.limit(Limit::WriteQueue);
        }
    }

    /// Serves an accepted stream; the place where TLS comes in.
    pub fn accepted<S: AsyncRead + AsyncWrite + Send + 'static>(&self, endpoint: u16, peer: SocketAddr, stream: S) {
        let connection = self.open(&mut self.inner.table(), endpoint, peer);
        if let Some(connection) = connection {
            let silence = self.inner.bounds.peer;
            self.inner.runtime.spawn(self.clone().serve(connection, stream, silence));
        }
    }

    /// Accepts nothing more, writes what is queued, closes everything; returns when that is done.
    pub async fn close(&self) {
        let mut emptied = self.inner.emptied.subscribe();
        self.inner.table().close();
        self.inner.emptied.send_replace(());
        while self.inner.table().len() > 0 {
            emptied.changed().await.expect("the sender is in `self`");
        }
    }

    async fn accept(&self, endpoint: u16, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                configure(&stream);
                self.accepted(endpoint, peer, stream);
            }
            Err(_) => {
                self.inner.metrics.transport_error(Transport::Tcp, TransportError::Accept);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    /// A place in the table, if there is one.
    fn open(&self, table: &mut Table, endpoint: u16, peer: SocketAddr) -> Option<Arc<Connection>> {
        if table.closing {
            return None;
        }
        if table.len() >= self.inner.bounds.connections {
            self.inner.metrics.limit(Limit::Connections);
            return None;
        }
        self.inner.metrics.connections(1);
        Some(table.open(endpoint, peer))
    }

    async fn connect(self, connection: Arc<Connection>, local: SocketAddr) {
        match timeout(CONNECT_TIMEOUT, connect(local, connection.flow.peer)).await {
            Ok(Ok(stream)) => {
                let idle = self.inner.bounds.idle;
                return self.serve(connection, stream, idle).await;
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => self.error(TransportError::Refused),
            Ok(Err(_)) => self.error(TransportError::Send),
            Err(_) => self.error(TransportError::ConnectTimeout),
        }
        self.remove(&connection);
    }

    /// `silence`: how long the peer may take until it says something.
    async fn serve<S: AsyncRead + AsyncWrite + Send>(self, connection: Arc<Connection>, stream: S, silence: Duration) {
        let (reading, writing) = tokio::io::split(stream);
        tokio::select! {
            () = self.read(&connection, reading, silence) => {}
            result = connection.write(writing, self.inner.bounds.peer) => if result.is_err() { self.error(TransportError::Send) },
        }
        self.remove(&connection);
    }

    /// Until the peer closes, is silent for too long, or cannot be understood.
    async fn read(&self, connection: &Connection, mut stream: impl AsyncRead + Unpin, mut silence: Duration) {
        let mut framer = Framer::default();
        let mut buffer = Vec::with_capacity(READ_LEN);
        loop {
            connection.is_read().await;
            buffer.reserve(READ_LEN);
            match timeout(silence, stream.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return self.error(TransportError::Receive),
                Err(_) => return self.error(TransportError::Idle),
            }
            match self.take_messages(connection, &mut framer, &buffer).await {
                Some(0) => {}
                Some(consumed) => {
                    buffer.drain(..consumed);
                    silence = self.inner.bounds.idle;
                }
                None => return self.error(TransportError::Framing),
            }
        }
    }

    /// Hands on every whole message; how many bytes they were, or `None` when the stream has lost its frame.
    async fn take_messages(&self, connection: &Connection, framer: &mut Framer, buffer: &[u8]) -> Option<usize> {
        let mut consumed = 0;
        loop {
            match framer.next(&buffer[consumed..]).ok()? {
                Frame::Message { skip, len } => {
                    let start = consumed + skip;
                    consumed = start + len;
                    let bytes = buffer[start..consumed].to_vec();
                    let message = Command::Message(Inbound { flow: connection.flow, bytes });
                    // Waiting here is what slows a peer that sends faster than we work.
                    if self.inner.inbound.send(message).await.is_err() {
                        return Some(buffer.len());
                    }
                }
                Frame::Ping { len } => {
                    consumed += len;
                    connection.send(b"\r\n");
                }
                Frame::Blank { len } => consumed += len,
                Frame::Incomplete => return Some(consumed),
            }
        }
    }

    fn remove(&self, connection: &Connection) {
        self.inner.table().remove(connection);
        self.inner.metrics.connections(-1);
        self.inner.emptied.send_replace(());
    }

    fn error(&self, error: TransportError) {
        self.inner.metrics.transport_error(Transport::Tcp, error);
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peer sees the address we listen on, with a port of its own.
async fn connect(local: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !local.ip().is_unspecified() {
        socket.bind(SocketAddr::new(local.ip(), 0))?;
    }
    let stream = socket.connect(peer).await?;
    configure(&stream);
    Ok(stream)
}

fn configure(stream: &TcpStream) {
    // Best effort: without them a connection is slower, or its end seen later.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_TIME));
}

#[cfg(test)]
mod tests;
