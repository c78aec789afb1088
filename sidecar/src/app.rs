//! The process: sockets are bound first ([`build`]), so that their real addresses are known; then it runs until told to
//! stop ([`Bound::run`]).

use std::future::Future;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use sipwarden_session_timer::{Endpoint as CoreEndpoint, Event, Flow, Leg, Limits};
use sipwarden_sip::value::Transport;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::address::{ListenAddress, transport_name};
use crate::admin::Admin;
use crate::hub::{Command, Hub, HubParts};
use crate::logs::LogFilter;
use crate::metrics::Metrics;
use crate::policy_file::PolicyFile;
use crate::readiness::{Pending, Readiness};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::shard::{Shard, ShardConfig};
use crate::transport::{Endpoint, tcp, udp};
use crate::worker::Worker;

/// Messages of streams and resolved names that wait for a worker; what sends them waits when it is full.
const MAX_COMMANDS: usize = 1024;
/// What is queued gets this long to leave when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// A sidecar whose sockets are bound.
pub struct Bound {
    settings: Settings,
    endpoints: Vec<Endpoint>,
    /// For each worker its UDP sockets with their endpoint's index.
    datagrams: Vec<Vec<(u16, UdpSocket)>>,
    streams: Vec<(u16, TcpListener)>,
    admin: TcpListener,
    admin_addr: SocketAddr,
    policy: Arc<PolicyFile>,
    readiness: Readiness,
    listeners_pending: Pending,
    log_filter: LogFilter,
    watcher: Option<mpsc::UnboundedSender<(usize, Event)>>,
}

/// Reads the policy and binds every socket.
///
/// # Errors
/// A bad policy, or an address that cannot be bound.
pub fn build(settings: Settings, log_filter: LogFilter) -> anyhow::Result<Bound> {
    let policy = PolicyFile::open(settings.policy.clone())?;
    if policy.path().is_none() {
        warn!("no --policy: the built-in one only observes");
    }
    build_with(settings, policy, log_filter)
}

/// [`build`] with a policy that was read before.
///
/// # Errors
/// An address that cannot be bound.
pub fn build_with(settings: Settings, policy: PolicyFile, log_filter: LogFilter) -> anyhow::Result<Bound> {
    let readiness = Readiness::new();
    let listeners_pending = readiness.guard("listeners");
    let policy = Arc::new(policy);
    let mut bound = Bound {
        endpoints: Vec::new(),
        datagrams: (0..settings.workers).map(|_| Vec::new()).collect(),
        streams: Vec::new(),
        admin: TcpListener::bind(settings.admin).with_context(|| format!("cannot listen on --admin {}", settings.admin))?,
        admin_addr: settings.admin,
        policy,
        readiness,
        listeners_pending,
        log_filter,
        watcher: None,
        settings,
    };
    bound.admin_addr = bound.admin.local_addr()?;
    bound.admin.set_nonblocking(true)?;
    for (leg, listeners) in [(Leg::Remote, bound.settings.listen.clone()), (Leg::Local, bound.settings.app_listen.clone())] {
        for listen in listeners {
            bound.bind(leg, listen).with_context(|| format!("cannot listen on {listen}"))?;
        }
    }
    if bound.settings.clock_speed > 1 {
        warn!("session time runs {} times faster: calls end early", bound.settings.clock_speed);
    }
    Ok(bound)
}

impl Bound {
    /// Our sockets with their real addresses, in the order of `Flow::endpoint`.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Where the admin interface is.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// What is pending.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// The policy file, to be read again on SIGHUP.
    pub fn policy(&self) -> Arc<PolicyFile> {
        self.policy.clone()
    }

    /// Every event goes to `watcher` too, with its shard.
    pub fn watch_events(&mut self, watcher: mpsc::UnboundedSender<(usize, Event)>) {
        self.watcher = Some(watcher);
    }

    /// The line for standard output once nothing is pending.
    pub fn ready_line(&self) -> String {
        let mut line = String::from("sipwarden ready");
        for Endpoint { leg, transport, local } in &self.endpoints {
            let flag = if *leg == Leg::Remote { "listen" } else { "app-listen" };
            line += &format!(" {flag}={}:{local}", transport_name(*transport));
        }
        line + &format!(" admin={}", self.admin_addr)
    }

    /// Works until `shutdown`, then stops accepting, sends what is queued, and returns. Running calls live on in their
    /// endpoints.
    ///
    /// # Errors
    /// A worker or the admin interface ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Bound { settings, endpoints, datagrams, streams, admin, policy, readiness, log_filter, watcher, .. } = self;
        let (stop, stopped) = watch::channel(false);
        let workers_pending = readiness.guard("workers");
        let mut workers = JoinSet::new();
        let mut commands = Vec::new();
        let mut waiting = Vec::new();
        for (index, sockets) in datagrams.into_iter().enumerate() {
            let (sender, receiver) = mpsc::channel(MAX_COMMANDS);
            let (runtime_sender, runtime) = oneshot::channel();
            let (hub_sender, hub) = oneshot::channel();
            let thread = WorkerThread { index, sockets, commands: receiver, stop: stopped.clone(), hub };
            workers.spawn_blocking(move || thread.run(runtime_sender));
            commands.push(sender);
            waiting.push((runtime, hub_sender));
        }

        let metrics = Arc::new(Metrics::new());
        let mut runtimes = Vec::new();
        let mut hub_senders = Vec::new();
        for (runtime, hub_sender) in waiting {
            runtimes.push(runtime.await.context("a worker thread did not start")?);
            hub_senders.push(hub_sender);
        }
        let connections = tcp::Streams::new(runtimes[0].clone(), commands[0].clone(), metrics.clone());
        let (lookups, lookups_asked) = mpsc::unbounded_channel();
        let config = Arc::new(shard_config(&settings, &endpoints)?);
        let in_force = policy.in_force().policy;
        let shards = commands.iter().enumerate().map(|(index, commands)| {
            (Shard::new(config.clone(), in_force.clone(), index as u64), commands.clone())
        });
        let hub = Arc::new(Hub::new(HubParts {
            endpoints: endpoints.clone(),
            metrics,
            streams: connections,
            key: config.key,
            log_sip_users: settings.log_sip_users,
            shards: shards.collect(),
            lookups,
            watcher,
        }));
        for (endpoint, listener) in streams {
            hub.streams.listen(endpoint, listener)?;
        }
        for sender in hub_senders {
            sender.send(hub.clone()).map_err(|_| anyhow!("a worker thread ended at once"))?;
        }
        drop((workers_pending, self.listeners_pending));

        let resolver = Arc::new(Resolver::new(&endpoints));
        let resolving = async {
            if settings.next_hop.as_ref().is_some_and(|hop| hop.host.parse::<std::net::IpAddr>().is_err()) {
                let _pending = readiness.guard("resolver");
                if let Err(error) = resolver.prepare().await {
                    warn!(%error, "--next-hop is a name, and DNS is not configured");
                    return std::future::pending().await;
                }
            }
            resolver.clone().run(lookups_asked, hub.clone(), commands[0].clone()).await;
        };
        let router = Admin {
            hub: hub.clone(),
            readiness: readiness.clone(),
            policy: policy.clone(),
            log_filter,
            clock_speed: settings.clock_speed,
        }
        .router();
        let serving = axum::serve(tokio::net::TcpListener::from_std(admin)?, router);

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            ended = workers.join_next() => Err(anyhow!("a worker ended by itself: {ended:?}")),
            served = async { serving.await } => Err(anyhow!("the admin interface ended by itself: {served:?}")),
            () = policy.follow(&hub) => Err(anyhow!("the policy watch ended by itself")),
            () = resolving => Err(anyhow!("the resolver ended by itself")),
        };
        info!("stopping");
        stop.send_replace(true);
        while let Some(worker) = workers.join_next().await {
            worker.context("a worker panicked")??;
        }
        ended
    }

    /// With several workers each gets a socket of its own on the same port; the first one chooses port 0's real port.
    fn bind(&mut self, leg: Leg, listen: ListenAddress) -> anyhow::Result<()> {
        let index = u16::try_from(self.endpoints.len()).context("too many listeners")?;
        let mut local = listen.addr;
        match listen.transport {
            Transport::Udp => {
                let share_port = self.datagrams.len() > 1;
                for sockets in &mut self.datagrams {
                    let socket = udp::bind(local, share_port)?;
                    local = socket.local_addr()?;
                    sockets.push((index, socket));
                }
            }
            Transport::Tcp => {
                let listener = tcp::bind(local)?;
                local = listener.local_addr()?;
                self.streams.push((index, listener));
            }
            other => bail!("{} is not served yet", transport_name(other)),
        }
        self.endpoints.push(Endpoint { leg, transport: listen.transport, local });
        Ok(())
    }
}

/// One worker's thread: it makes its runtime, and works when it gets the hub.
struct WorkerThread {
    index: usize,
    sockets: Vec<(u16, UdpSocket)>,
    commands: mpsc::Receiver<Command>,
    stop: watch::Receiver<bool>,
    hub: oneshot::Receiver<Arc<Hub>>,
}

impl WorkerThread {
    fn run(self, started: oneshot::Sender<tokio::runtime::Handle>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        started.send(runtime.handle().clone()).map_err(|_| anyhow!("the process is ending"))?;
        runtime.block_on(async {
            let hub = self.hub.await.context("the process is ending")?;
            let mut worker = Worker::new(self.index, hub.clone(), self.sockets, self.commands, self.stop)?;
            worker.run().await;
            let flushing = async {
                worker.flush().await;
                if self.index == 0 {
                    hub.streams.close().await;
                }
            };
            if timeout(FLUSH_TIMEOUT, flushing).await.is_err() {
                warn!("not everything queued could be sent");
            }
            Ok(())
        })
    }
}

fn shard_config(settings: &Settings, endpoints: &[Endpoint]) -> anyhow::Result<ShardConfig> {
    let app = settings.app;
    let is_app_facing = |endpoint: &Endpoint| {
        let listen = ListenAddress { transport: endpoint.transport, addr: endpoint.local };
        endpoint.leg == Leg::Local && settings.reaches_app(&listen)
    };
    let app_endpoint = endpoints.iter().position(is_app_facing).context("--app is reached from no --app-listen")?;
    let all = Limits::default();
    Ok(ShardConfig {
        endpoints: endpoints.iter().map(|endpoint| core_endpoint(settings, endpoint)).collect(),
        bound: endpoints.iter().map(|endpoint| endpoint.local).collect(),
        app: Flow { endpoint: u16::try_from(app_endpoint)?, connection: 0, peer: app.addr },
        next_hop: settings.next_hop.clone(),
        limits: Limits { calls: all.calls / settings.workers, ..all },
        clock_speed: settings.clock_speed,
        key: crate::random(),
    })
}

fn core_endpoint(settings: &Settings, endpoint: &Endpoint) -> CoreEndpoint {
    let advertised = settings.advertise.as_ref().filter(|_| endpoint.leg == Leg::Remote);
    let sent_by = advertised.map_or_else(|| endpoint.local.to_string(), |host| host.sent_by(endpoint.local.port()));
    CoreEndpoint { leg: endpoint.leg, transport: endpoint.transport, sent_by }
}
