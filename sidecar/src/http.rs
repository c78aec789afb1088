//! The HTTP servers: how many connections there may be, and how long one may be silent.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use crate::metrics::{Limit, Metrics};

/// Connections of one server. More wait in the system's queue.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nothing moves for this long makes room for another.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Binds the server of `flag`. `[::]` stands for every address there is, also where the system has no IPv6.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(flag: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match (TcpListener::bind(addr), without_ipv6(addr)) {
        (Err(error), Some(addr)) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(addr),
        (bound, _) => bound,
    };
    let listener = bound.with_context(|| format!("cannot listen on {flag} {addr}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn without_ipv6(addr: SocketAddr) -> Option<SocketAddr> {
    (addr.ip() == Ipv6Addr::UNSPECIFIED).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
}

/// Serves until dropped.
///
/// # Errors
/// The runtime cannot watch the socket.
pub async fn serve(listener: TcpListener, router: Router, metrics: Arc<Metrics>) -> io::Result<()> {
    axum::serve(Bounded::new(listener, MAX_CONNECTIONS, IDLE_TIMEOUT, metrics)?, router).await
}

struct Bounded {
    inner: tokio::net::TcpListener,
    room: Arc<Semaphore>,
    idle_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Bounded {
    fn new(
        listener: TcpListener,
        connections: usize,
        idle_timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> io::Result<Bounded> {
        let inner = tokio::net::TcpListener::from_std(listener)?;
        Ok(Bounded { inner, room: Arc::new(Semaphore::new(connections)), idle_timeout, metrics })
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        if self.room.available_permits() == 0 {
            self.metrics.limit(Limit::HttpConnections);
        }
        let permit = self.room.clone().acquire_owned().await.expect("nobody closes it");
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        let Bounded { idle_timeout, .. } = *self;
        (Connection { stream, idle_timeout, silence: Box::pin(sleep(idle_timeout)), _permit: permit }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

struct Connection {
    stream: TcpStream,
    idle_timeout: Duration,
    /// Ends when nothing has moved for too long.
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// What came of reading or writing, unless it waits for too long already.
    fn timed<T>(&mut self, cx: &mut Context, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            let silent_until = Instant::now() + self.idle_timeout;
            self.silence.as_mut().reset(silent_until);
            return moved;
        }
        self.silence.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.timed(cx, moved)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    fn server(connections: usize, idle_timeout: Duration, metrics: &Arc<Metrics>) -> SocketAddr {
        let listener = bind("--status", SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound");
        let addr = listener.local_addr().expect("an address");
        let bounded = Bounded::new(listener, connections, idle_timeout, metrics.clone()).expect("watched");
        let router = Router::new().route("/", get(|| async { "here\n" }));
        tokio::spawn(async move { axum::serve(bounded, router).await });
        addr
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_and_makes_room() {
        let idle_timeout = Duration::from_millis(300);
        let metrics = Arc::new(Metrics::new());
        let addr = server(2, idle_timeout, &metrics);
        let start = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(addr).await.expect("connected"));
        }
        let mut client = TcpStream::connect(addr).await.expect("in the system's queue");
        client.write_all(REQUEST).await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("here\n"), "{answer}");
        assert!(start.elapsed() >= idle_timeout, "it had to wait for one of the silent");
        let text = metrics.render(0);
        assert!(!text.contains(r#"sipwarden_limits_reached_total{limit="HttpConnections"} 0"#), "{text}");
        assert_eq!(silent[0].read(&mut [0; 16]).await.ok(), Some(0), "closed");
    }

    #[tokio::test]
    async fn a_connection_that_talks_stays() {
        let idle_timeout = Duration::from_millis(300);
        let mut client = TcpStream::connect(server(1, idle_timeout, &Arc::default())).await.expect("connected");
        let start = Instant::now();
        while start.elapsed() < idle_timeout * 2 {
            client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
            let mut answer = Vec::new();
            while !answer.ends_with(b"here\n") {
                assert_ne!(client.read_buf(&mut answer).await.expect("read"), 0, "open");
            }
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_told_with_its_flag() {
        let error = bind("--status", server(1, IDLE_TIMEOUT, &Arc::default())).expect_err("in use");
        assert!(format!("{error:#}").contains("cannot listen on --status 127.0.0.1:"), "{error:#}");
    }
}
