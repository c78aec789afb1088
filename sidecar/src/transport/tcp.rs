//! Streams: accepting and making connections, cutting them into messages, and writing without ever waiting for a peer.
//!
//! A connection is a task that reads and writes; the table of connections is shared by all workers. A message goes to
//! the connection it names, else to any connection with its peer, else to a new one.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sipwarden_session_timer::Flow;
use sipwarden_sip::frame::{Frame, Framer};
use sipwarden_sip::value::Transport;
use socket2::{Protocol, SockRef, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use super::Inbound;
use crate::hub::Command;
use crate::metrics::{Limit, Metrics, TransportError};

const BACKLOG: i32 = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Well above the time between two refreshes of a usual session, and the keep-alives of RFC 5626.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// The system probes a silent peer after this long, so that a dead one does not hold its place until the idle time-out.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// After an error of `accept`, usually no file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that may wait for one peer: a BYE for each of 20,000 calls of a trunk fits.
const MAX_QUEUED_LEN: usize = 16 << 20;
/// Connections of all endpoints together.
const MAX_CONNECTIONS: usize = 16_384;
const READ_LEN: usize = 16 << 10;

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
    max_connections: usize,
    idle_timeout: Duration,
}

#[derive(Default)]
struct Table {
    by_id: HashMap<u32, Arc<Connection>>,
    by_peer: HashMap<(u16, SocketAddr), u32>,
    last_id: u32,
    closing: bool,
}

struct Connection {
    flow: Flow,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    closing: bool,
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
    /// No connections yet. Tasks run in `runtime`; messages go into `inbound`.
    pub fn new(runtime: Handle, inbound: mpsc::Sender<Command>, metrics: Arc<Metrics>) -> Streams {
        Streams::with_limits(runtime, inbound, metrics, MAX_CONNECTIONS, IDLE_TIMEOUT)
    }

    fn with_limits(
        runtime: Handle,
        inbound: mpsc::Sender<Command>,
        metrics: Arc<Metrics>,
        max_connections: usize,
        idle_timeout: Duration,
    ) -> Streams {
        let table = Mutex::default();
        let emptied = watch::Sender::new(());
        Streams { inner: Arc::new(Inner { table, emptied, runtime, inbound, metrics, max_connections, idle_timeout }) }
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
        let mut queue = connection.queue();
        if queue.bytes.len() + message.len() > MAX_QUEUED_LEN {
            self.inner.metrics.limit(Limit::WriteQueue);
            return;
        }
        queue.bytes.extend_from_slice(message);
        drop(queue);
        connection.changed.notify_one();
    }

    /// Serves an accepted stream; the place where TLS comes in.
    pub fn accepted<S: AsyncRead + AsyncWrite + Send + 'static>(&self, endpoint: u16, peer: SocketAddr, stream: S) {
        let connection = self.open(&mut self.inner.table(), endpoint, peer);
        if let Some(connection) = connection {
            self.inner.runtime.spawn(self.clone().serve(connection, stream));
        }
    }

    /// Accepts nothing more, writes what is queued, closes everything; returns when that is done.
    pub async fn close(&self) {
        let mut emptied = self.inner.emptied.subscribe();
        {
            let mut table = self.inner.table();
            table.closing = true;
            for connection in table.by_id.values() {
                connection.queue().closing = true;
                connection.changed.notify_one();
            }
        }
        self.inner.emptied.send_replace(());
        while !self.inner.table().by_id.is_empty() {
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
        if table.by_id.len() >= self.inner.max_connections {
            self.inner.metrics.limit(Limit::Connections);
            return None;
        }
        self.inner.metrics.connections(1);
        Some(table.open(endpoint, peer))
    }

    async fn connect(self, connection: Arc<Connection>, local: SocketAddr) {
        match timeout(CONNECT_TIMEOUT, connect(local, connection.flow.peer)).await {
            Ok(Ok(stream)) => return self.serve(connection, stream).await,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => self.error(TransportError::Refused),
            Ok(Err(_)) => self.error(TransportError::Send),
            Err(_) => self.error(TransportError::ConnectTimeout),
        }
        self.remove(&connection);
    }

    async fn serve<S: AsyncRead + AsyncWrite + Send>(self, connection: Arc<Connection>, stream: S) {
        let (reading, writing) = tokio::io::split(stream);
        tokio::select! {
            () = self.read(&connection, reading) => {}
            result = write(&connection, writing) => if result.is_err() { self.error(TransportError::Send) },
        }
        self.remove(&connection);
    }

    /// Until the peer closes, is silent for too long, or cannot be understood.
    async fn read(&self, connection: &Connection, mut stream: impl AsyncRead + Unpin) {
        let mut framer = Framer::default();
        let mut buffer = Vec::with_capacity(READ_LEN);
        loop {
            buffer.reserve(READ_LEN);
            match timeout(self.inner.idle_timeout, stream.read_buf(&mut buffer)).await {
                Ok(Ok(0)) => return,
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return self.error(TransportError::Receive),
                Err(_) => return self.error(TransportError::Idle),
            }
            match self.take_messages(connection, &mut framer, &buffer).await {
                Some(consumed) => drop(buffer.drain(..consumed)),
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
                    connection.queue().bytes.extend_from_slice(b"\r\n");
                    connection.changed.notify_one();
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

impl Table {
    fn find(&self, flow: Flow) -> Option<Arc<Connection>> {
        let by_peer = || self.by_id.get(self.by_peer.get(&(flow.endpoint, flow.peer))?);
        self.by_id.get(&flow.connection).or_else(by_peer).cloned()
    }

    fn open(&mut self, endpoint: u16, peer: SocketAddr) -> Arc<Connection> {
        let id = self.free_id();
        let flow = Flow { endpoint, connection: id, peer };
        let connection = Arc::new(Connection { flow, queue: Mutex::default(), changed: Notify::new() });
        self.by_id.insert(id, connection.clone());
        self.by_peer.insert((endpoint, peer), id);
        connection
    }

    /// Never 0, which means no connection.
    fn free_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if self.last_id != 0 && !self.by_id.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    fn remove(&mut self, connection: &Connection) {
        let Flow { endpoint, connection: id, peer } = connection.flow;
        self.by_id.remove(&id);
        if self.by_peer.get(&(endpoint, peer)) == Some(&id) {
            self.by_peer.remove(&(endpoint, peer));
        }
    }
}

impl Connection {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is queued, everything there is at once, until it is told to close.
async fn write(connection: &Connection, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut batch = Vec::new();
    loop {
        let closing = {
            let mut queue = connection.queue();
            std::mem::swap(&mut queue.bytes, &mut batch);
            queue.closing
        };
        if batch.is_empty() {
            if closing {
                return stream.shutdown().await;
            }
            connection.changed.notified().await;
        } else {
            stream.write_all(&batch).await?;
            batch.clear();
            batch.shrink_to(READ_LEN);
        }
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
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const MESSAGE: &[u8] = b"OPTIONS sip:x SIP/2.0\r\nContent-Length: 0\r\n\r\n";

    struct Fixture {
        streams: Streams,
        addr: SocketAddr,
        inbound: mpsc::Receiver<Command>,
        metrics: Arc<Metrics>,
    }

    fn fixture(max_connections: usize, idle_timeout: Duration) -> Fixture {
        let metrics = Arc::new(Metrics::new());
        let (sender, inbound) = mpsc::channel(8);
        let streams = Streams::with_limits(Handle::current(), sender, metrics.clone(), max_connections, idle_timeout);
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a listener");
        let addr = listener.local_addr().expect("an address");
        streams.listen(0, listener).expect("listening");
        Fixture { streams, addr, inbound, metrics }
    }

    async fn next(inbound: &mut mpsc::Receiver<Command>) -> Inbound {
        match timeout(PATIENCE, inbound.recv()).await.expect("a message").expect("open") {
            Command::Message(message) => message,
            Command::Rearm => panic!("not a message"),
        }
    }

    async fn closed(stream: &mut TcpStream) {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed").ok();
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn an_answer_goes_to_the_connection_its_request_came_on() {
        let mut f = fixture(8, IDLE_TIMEOUT);
        let mut stream = TcpStream::connect(f.addr).await.expect("connected");
        stream.write_all(MESSAGE).await.expect("written");
        let message = next(&mut f.inbound).await;
        assert_eq!(message.bytes, MESSAGE);
        assert_ne!(message.flow.connection, 0);
        assert_eq!(message.flow.peer, stream.local_addr().expect("an address"));
        f.streams.send(message.flow, f.addr, b"answer");
        let mut answer = [0; 6];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer").expect("read");
        assert_eq!(&answer, b"answer");
    }

    #[tokio::test]
    async fn a_gone_connection_is_made_again_to_its_peer() {
        let f = fixture(8, IDLE_TIMEOUT);
        let peer = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let flow = Flow { endpoint: 0, connection: 77, peer: peer.local_addr().expect("an address") };
        f.streams.send(flow, f.addr, b"hello");
        let (mut stream, from) = timeout(PATIENCE, peer.accept()).await.expect("a connection").expect("accepted");
        assert_eq!(from.ip(), f.addr.ip());
        let mut hello = [0; 5];
        timeout(PATIENCE, stream.read_exact(&mut hello)).await.expect("bytes").expect("read");
        assert_eq!(&hello, b"hello");
    }

    #[tokio::test]
    async fn one_connection_more_than_the_limit_is_closed_and_counted() {
        let mut f = fixture(1, IDLE_TIMEOUT);
        let mut first = TcpStream::connect(f.addr).await.expect("connected");
        first.write_all(MESSAGE).await.expect("written");
        next(&mut f.inbound).await;
        closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
        assert!(f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="Connections"} 1"#));
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_counted() {
        let f = fixture(8, Duration::from_millis(20));
        closed(&mut TcpStream::connect(f.addr).await.expect("connected")).await;
        assert!(f.metrics.render(0).contains(r#"sipwarden_transport_errors_total{error="Idle",transport="tcp"} 1"#));
    }

    #[tokio::test]
    async fn bytes_beyond_the_write_queue_are_dropped_and_counted() {
        let f = fixture(8, IDLE_TIMEOUT);
        let peer = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let flow = Flow { endpoint: 0, connection: 0, peer: peer.local_addr().expect("an address") };
        let half = vec![b'x'; MAX_QUEUED_LEN / 2];
        // Nothing is written in between: the connecting task has had no turn yet.
        for _ in 0..3 {
            f.streams.send(flow, f.addr, &half);
        }
        assert!(f.metrics.render(0).contains(r#"sipwarden_limits_reached_total{limit="WriteQueue"} 1"#));
    }

    #[tokio::test]
    async fn closing_writes_what_is_queued_and_accepts_nothing_more() {
        let mut f = fixture(8, IDLE_TIMEOUT);
        let mut stream = TcpStream::connect(f.addr).await.expect("connected");
        stream.write_all(MESSAGE).await.expect("written");
        let flow = next(&mut f.inbound).await.flow;
        f.streams.send(flow, f.addr, b"last words");
        timeout(PATIENCE, f.streams.close()).await.expect("closed");
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed").expect("read");
        assert_eq!(rest, b"last words");
        assert!(f.metrics.render(0).contains("sipwarden_connections 0"));
    }
}
