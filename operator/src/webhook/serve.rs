//! The TLS server around the routes, with a bound on everything a stranger can do to it.
//!
//! It speaks HTTP/1.1 only: over HTTP/2 an API server keeps to one connection and so to one replica, and a replica that
//! dies takes all requests under way with it.

use std::{
    future::{Future, pending},
    io,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::Metrics;

/// An API server keeps 25 idle ones at most, and has as many as it has pods to admit at once.
const MAX_CONNECTIONS: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of the first request. A client that opens a connection has something to ask.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Also how long an idle connection is kept; longer than the 90 s after which the API server drops it.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Of what has arrived and is not read yet, a request's head among it.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For requests under way at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The server cannot start.
#[derive(Debug, Error)]
pub enum ServeError {
    /// No protocol version fits the cryptography.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Serves until `shutdown`, then finishes what is under way. The certificate is looked up anew for each connection.
///
/// # Errors
/// [`ServeError`], before anything is accepted.
pub async fn serve(
    listener: TcpListener,
    certificates: Arc<dyn ResolvesServerCert>,
    app: Router,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let acceptor = TlsAcceptor::from(Arc::new(tls_config(certificates)?));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (end, ending) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
            accepted = accept(&listener, &places) => {
                let Some((stream, place)) = accepted else { continue };
                let connection = Connection { acceptor: acceptor.clone(), app: app.clone(), metrics: metrics.clone() };
                connections.spawn(connection.run(stream, place, ending.clone()));
            }
        }
    }
    drop((listener, end));
    let drained = timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("webhook connections were still busy when the time to drain was over");
    }
    Ok(())
}

fn tls_config(certificates: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// None after an error that passes.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::warn!(%error, "a webhook connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

struct Connection {
    acceptor: TlsAcceptor,
    app: Router,
    metrics: Metrics,
}

impl Connection {
    async fn run(self, stream: TcpStream, place: OwnedSemaphorePermit, mut ending: watch::Receiver<()>) {
        let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        let stream = match handshake.unwrap_or_else(|elapsed| Err(io::Error::from(elapsed))) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return self.metrics.handshake_failures.inc();
            }
        };
        self.metrics.connections.inc();
        let (first_request, app) = (Notify::new(), TowerToHyperService::new(self.app));
        let service = service_fn(|request| {
            first_request.notify_one();
            app.call(request)
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let silent = async {
            if timeout(FIRST_REQUEST_TIMEOUT, first_request.notified()).await.is_ok() {
                pending::<()>().await;
            }
        };
        tokio::pin!(serving);
        let served = tokio::select! {
            served = &mut serving => served,
            () = silent => Ok(()),
            _ = ending.changed() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a webhook connection ended early");
        }
        self.metrics.connections.dec();
        drop(place);
    }
}
