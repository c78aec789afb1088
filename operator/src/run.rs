//! The process: what is started, in which order, and how it ends.
//!
//! ```text
//!  every replica: watches → index ← webhook, probes and metrics, certificates
//!  once the index knows everything: the election
//!  the leader: writers, questions to sidecars, until the lease is lost (exit) or SIGTERM (release, exit)
//! ```

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use kube::{Client, Config, client::ClientBuilder};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    acks::Asker,
    admission::Desk,
    certs::{self, Keeper, KubernetesCluster, LeafSlot, Names},
    cli::RunArgs,
    http::Health,
    lease::{self, Election, Leadership},
    metrics::Metrics,
    state::State,
    watch::{Pulse, PulseLayer, Watcher},
    webhook::{self, Webhook},
    write::{Deliveries, Writer, spawn_events},
};

/// For what is still being served at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(12);
/// The same where the lease was lost: what is under way is answered, and then the process is to be back soon.
const LOST_DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// A process that has its sockets.
pub struct Bound {
    args: RunArgs,
    metrics: Metrics,
    webhook: TcpListener,
    http: TcpListener,
}

/// What most parts of the process share.
struct Process {
    args: RunArgs,
    client: Client,
    state: Arc<State>,
    metrics: Metrics,
    pulse: Pulse,
    leaf: Arc<LeafSlot>,
    ending: Arc<AtomicBool>,
}

/// Takes the sockets.
///
/// # Errors
/// An address that cannot be had.
pub async fn bind(args: RunArgs, metrics: Metrics) -> anyhow::Result<Bound> {
    let (webhook, http) = (listen(args.webhook_listen).await?, listen(args.http).await?);
    Ok(Bound { args, metrics, webhook, http })
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match (TcpListener::bind(address).await, without_ipv6(address)) {
        (Err(error), Some(address)) if error.kind() != ErrorKind::AddrInUse => TcpListener::bind(address).await,
        (bound, _) => bound,
    };
    bound.with_context(|| format!("cannot listen on {address}; is it in use?"))
}

/// What stands for `[::]`, every address there is, on a system without IPv6.
fn without_ipv6(address: SocketAddr) -> Option<SocketAddr> {
    (address.ip() == Ipv6Addr::UNSPECIFIED).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

impl Bound {
    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// What keeps the process from starting, and the lost lease: another replica leads then.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut stop = Stop::new()?;
        let process = Process::new(self.args, self.metrics).await?;
        let (http, webhook) = (self.http.local_addr()?, self.webhook.local_addr()?);
        let RunArgs { revision, identity, shutdown_delay_s, .. } = &process.args;
        tracing::info!(%http, %webhook, revision, identity, "started");

        let writer = process.writer();
        let (end, mut serving) = process.serve(self.http, self.webhook, &writer)?;
        let mut watching = process.watcher().start();
        let led = tokio::select! {
            led = process.lead(&writer, &mut stop) => led,
            Some(_) = watching.join_next() => bail!("a watch ended, which it never should"),
            Some(_) = serving.join_next() => bail!("a server ended, which it never should"),
        };
        process.ending.store(true, Ordering::Relaxed);
        drain(led, Duration::from_secs(u64::from(*shutdown_delay_s)), end, serving).await
    }
}

impl Process {
    async fn new(args: RunArgs, metrics: Metrics) -> anyhow::Result<Self> {
        let pulse = Pulse::default();
        let config =
            Config::infer().await.context("no kubeconfig and no service account to reach the API server with")?;
        let layer = PulseLayer { pulse: pulse.clone(), metrics: metrics.clone() };
        let client = ClientBuilder::try_from(config).context("the client cannot be set up")?.with_layer(&layer).build();
        let state = Arc::new(State::new(&args.revision));
        let (leaf, ending) = (Arc::default(), Arc::default());
        Ok(Self { args, client, state, metrics, pulse, leaf, ending })
    }

    fn writer(&self) -> Writer {
        let events = spawn_events(self.client.clone(), self.args.identity.clone(), self.metrics.clone());
        let Self { client, state, metrics, .. } = self;
        Writer {
            client: client.clone(),
            state: state.clone(),
            metrics: metrics.clone(),
            events,
            deliveries: Deliveries::default(),
        }
    }

    fn watcher(&self) -> Watcher {
        let Self { client, state, metrics, pulse, .. } = self;
        Watcher {
            client: client.clone(),
            state: state.clone(),
            metrics: metrics.clone(),
            pulse: pulse.clone(),
            settings: self.args.settings(),
            namespace: self.args.namespace.clone(),
        }
    }

    /// Starts what every replica serves. It ends after the sender is dropped.
    fn serve(
        &self,
        http: TcpListener,
        listener: TcpListener,
        writer: &Writer,
    ) -> anyhow::Result<(watch::Sender<()>, JoinSet<()>)> {
        let (end, ending) = watch::channel(());
        let ended = move || {
            let mut ending = ending.clone();
            async move { while ending.changed().await.is_ok() {} }
        };
        let mut serving = JoinSet::new();
        let health = Health {
            state: self.state.clone(),
            pulse: self.pulse.clone(),
            leaf: self.leaf.clone(),
            metrics: self.metrics.clone(),
            ending: self.ending.clone(),
        };
        let server = axum::serve(http, health.router()).with_graceful_shutdown(ended());
        serving.spawn(async move { served("probes", server.await) });

        let desk =
            Arc::new(Desk { client: self.client.clone(), state: self.state.clone(), events: writer.events.clone() });
        let metrics = webhook::Metrics::new(self.metrics.registry())?;
        let router = Webhook::new(self.args.settings(), desk.clone(), desk, metrics.clone()).router();
        let (leaf, shutdown) = (self.leaf.clone(), ended());
        serving.spawn(async move {
            served("the webhook", webhook::serve(listener, leaf, router, metrics, shutdown).await);
        });

        serving.spawn(self.keeper()?.run(ended()));
        Ok((end, serving))
    }

    fn keeper(&self) -> anyhow::Result<Keeper<KubernetesCluster>> {
        let RunArgs { namespace, webhook_service, revision, .. } = &self.args;
        let names = Names::new(namespace, webhook_service, revision);
        let dns_names = names.dns_names();
        let cluster = KubernetesCluster::new(self.client.clone(), names);
        let metrics = certs::Metrics::new(self.metrics.registry())?;
        Ok(Keeper::new(cluster, revision, dns_names, certs::Timing::default(), self.leaf.clone(), metrics))
    }

    /// Waits for the lease, and writes while it is ours. Returns after a signal.
    async fn lead(&self, writer: &Writer, stop: &mut Stop) -> anyhow::Result<()> {
        let mut leadership = tokio::select! {
            leadership = self.win() => leadership,
            () = stop.wait() => return Ok(()),
        };
        self.state.lead();
        let mut writing = JoinSet::new();
        writer.start(&mut writing);
        self.asker(writer).start(&mut writing);
        tokio::select! {
            lost = leadership.keep() => bail!(lost),
            Some(_) = writing.join_next() => bail!("a writer ended, which it never should"),
            () = stop.wait() => {}
        }
        writing.shutdown().await;
        leadership.release().await;
        Ok(())
    }

    async fn win(&self) -> Leadership {
        self.state.wait_synced().await;
        tracing::info!("everything is known");
        let leadership = self.election().win().await;
        tracing::info!("this replica leads");
        leadership
    }

    fn election(&self) -> Election {
        let RunArgs { namespace, revision, identity, .. } = &self.args;
        let name = format!("sipwarden-operator-{revision}");
        Election::new(self.client.clone(), namespace, name, identity.clone(), lease::Timing::default())
    }

    fn asker(&self, writer: &Writer) -> Asker {
        Asker {
            writer: writer.clone(),
            port: self.args.status_port,
            interval: Duration::from_secs(u64::from(self.args.ack_interval_s)),
        }
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("signals cannot be handled");
        Ok(Self { terminate: handler(SignalKind::terminate())?, interrupt: handler(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("asked to end");
    }
}

/// Ends what is served once all under way is answered, or it takes too long. Gives back why the process ends.
async fn drain(
    led: anyhow::Result<()>,
    delay: Duration,
    end: watch::Sender<()>,
    mut serving: JoinSet<()>,
) -> anyhow::Result<()> {
    let patience = match led {
        Ok(()) => {
            // Until everyone knows that this replica is not ready, admission reviews still come.
            sleep(delay).await;
            DRAIN_TIMEOUT
        }
        Err(_) => LOST_DRAIN_TIMEOUT,
    };
    drop(end);
    let drained = timeout(patience, async { while serving.join_next().await.is_some() {} }).await;
    tracing::info!(in_time = drained.is_ok(), "ended");
    led
}

fn served<E: std::fmt::Display>(what: &str, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::error!(%error, what, "a server failed");
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpStream, time::Instant};

    use super::*;

    #[tokio::test]
    async fn every_address_is_listened_on_ipv4_or_ipv6() {
        let listener = listen("[::]:0".parse().expect("an address")).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        for ip in ["127.0.0.1", "::1"] {
            TcpStream::connect((ip, port)).await.unwrap_or_else(|error| panic!("{ip}: {error}"));
        }
        let taken = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
        assert!(taken.is_err_and(|error| error.to_string().starts_with("cannot listen on [::]:")));
    }

    #[test]
    fn without_ipv6_every_address_is_every_ipv4_address() {
        let stands_in = |text: &str| without_ipv6(text.parse().expect("an address")).map(|address| address.to_string());
        assert_eq!(stands_in("[::]:9443").as_deref(), Some("0.0.0.0:9443"));
        for text in ["[::1]:9443", "0.0.0.0:9443", "192.0.2.1:9443"] {
            assert_eq!(stands_in(text), None, "{text}");
        }
    }

    /// How long the end takes where what is under way takes so long.
    async fn end_after(led: anyhow::Result<()>, under_way: Duration) -> (anyhow::Result<()>, Duration) {
        let (end, mut ending) = watch::channel(());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            ending.changed().await.expect_err("the sender is dropped");
            sleep(under_way).await;
        });
        let start = Instant::now();
        (drain(led, Duration::from_secs(5), end, serving).await, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_answered_after_a_lost_lease_too() {
        let [quick, slow] = [Duration::from_secs(1), Duration::from_secs(60)];
        let (ended, took) = end_after(Ok(()), quick).await;
        assert!(ended.is_ok() && took == Duration::from_secs(5) + quick, "{took:?}");
        let lost = || Err(anyhow::anyhow!("the lease is lost"));
        let (ended, took) = end_after(lost(), quick).await;
        assert!(ended.is_err() && took == quick, "{took:?}");
        assert_eq!(end_after(lost(), slow).await.1, LOST_DRAIN_TIMEOUT);
    }
}
