//! The process: sockets are bound first ([`build`]), so that their real addresses are known; then it runs until told to
//! stop ([`Bound::run`]).

use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use axum::Router;
use sipwarden_session_timer::{Endpoint as CoreEndpoint, Event, Flow, Leg, Limits};
use sipwarden_shard::{Shard, ShardConfig, Target};
use sipwarden_sip::value::Transport;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::address::{ListenAddress, transport_name};
use crate::admin::Admin;
use crate::history::History;
use crate::http;
use crate::hub::{Hub, HubParts};
use crate::logs::LogFilter;
use crate::memory;
use crate::metrics::Metrics;
use crate::policy_file::PolicyFile;
use crate::readiness::{Pending, Readiness};
use crate::resolver::Resolver;
use crate::settings::Settings;
use crate::status::Status;
use crate::token::AdminToken;
use crate::traces::Tracing;
use crate::transport::{Endpoint, tcp, udp};
use crate::workers::Workers;

/// A sidecar whose sockets are bound.
pub struct Bound {
    settings: Settings,
    endpoints: Vec<Endpoint>,
    /// For each worker its UDP sockets with their endpoint's index.
    datagrams: Vec<Vec<(u16, UdpSocket)>>,
    streams: Vec<(u16, TcpListener)>,
    admin: TcpListener,
    admin_addr: SocketAddr,
    status: Option<TcpListener>,
    status_addr: Option<SocketAddr>,
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
    if policy.sources().file.is_none() {
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
    let admin = http::bind("--admin", settings.admin)?;
    let status = settings.status.map(|addr| http::bind("--status", addr)).transpose()?;
    let mut bound = Bound {
        endpoints: Vec::new(),
        datagrams: (0..settings.workers).map(|_| Vec::new()).collect(),
        streams: Vec::new(),
        admin_addr: admin.local_addr()?,
        admin,
        status_addr: status.as_ref().map(TcpListener::local_addr).transpose()?,
        status,
        policy,
        readiness,
        listeners_pending,
        log_filter,
        watcher: None,
        settings,
    };
    for (leg, listeners) in
        [(Leg::Remote, bound.settings.listen.clone()), (Leg::Local, bound.settings.app_listen.clone())]
    {
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

    /// Where the status interface is.
    pub fn status_addr(&self) -> Option<SocketAddr> {
        self.status_addr
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
        line += &format!(" admin={}", self.admin_addr);
        line + &self.status_addr.map_or_else(String::new, |addr| format!(" status={addr}"))
    }

    /// Works until `shutdown`, then stops accepting, sends what is queued, and returns. Running calls live on in their
    /// endpoints.
    ///
    /// # Errors
    /// A worker or an HTTP interface ended by itself.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let workers_pending = self.readiness.guard("workers");
        let mut workers = Workers::start(self.datagrams).await?;
        let metrics = Arc::new(Metrics::new());
        metrics.calls_limit(self.settings.max_calls);
        let shards = self.settings.workers;
        let begin = |otlp| Tracing::begin(otlp, shards, self.endpoints.clone(), metrics.clone());
        let tracing = self.settings.otlp.as_ref().map(begin).transpose()?;
        let max_queued = memory::max_queued(memory::limit());
        let commands = workers.commands[0].clone();
        let connections = tcp::Streams::new(workers.runtime.clone(), commands, metrics.clone(), max_queued);
        let (lookups, lookups_asked) = mpsc::unbounded_channel();
        let config = Arc::new(shard_config(&self.settings, &self.endpoints)?);
        let policy = self.policy.in_force().policy;
        let shard = |index| Shard::new(config.clone(), policy.clone(), index);
        let hub = Arc::new(Hub::new(HubParts {
            endpoints: self.endpoints.clone(),
            metrics,
            streams: connections,
            key: config.key,
            log_sip_users: self.settings.log_sip_users,
            shards: (0..).map(shard).zip(workers.commands.iter().cloned()).collect(),
            policy: policy.clone(),
            record_len: self.settings.record_mib as usize * 1024 * 1024,
            lookups,
            watcher: self.watcher,
            traces: tracing.as_ref().map(|tracing| tracing.traces.clone()),
        }));
        for (endpoint, listener) in self.streams {
            hub.streams.listen(endpoint, listener)?;
        }
        // It begins before anybody can call.
        let history = Arc::new(History::begun(&hub));
        workers.work(&hub)?;
        let resolver_pending = has_name(self.settings.next_hop.as_ref()).then(|| self.readiness.guard("resolver"));
        drop((workers_pending, self.listeners_pending));

        let resolver = Arc::new(Resolver::new(&self.endpoints));
        let first_worker = workers.commands[0].clone();
        let resolving = async {
            if let Some(pending) = resolver_pending {
                resolver.prepare().await.context("--next-hop is a name, and DNS is not configured")?;
                drop(pending);
            }
            resolver.run(lookups_asked, hub.clone(), first_worker).await;
            anyhow::Ok(())
        };
        let status = Status {
            hub: hub.clone(),
            readiness: self.readiness.clone(),
            policy: self.policy.clone(),
            clock_speed: self.settings.clock_speed,
        };
        let token = AdminToken::new(self.settings.admin_token_file);
        let admin = Admin { status: status.clone(), log_filter: self.log_filter, token, history: history.clone() };
        let interfaces = Interfaces {
            admin: (self.admin, admin.router()),
            status: self.status.map(|listener| (listener, status.router())),
        };

        let ended = tokio::select! {
            () = shutdown => Ok(()),
            error = workers.failed() => Err(error),
            error = interfaces.serve(&hub.metrics) => Err(error),
            () = self.policy.follow(&hub) => Err(anyhow!("the policy watch ended by itself")),
            () = follow(tracing.as_ref()) => Err(anyhow!("the traces ended by themselves")),
            () = history.follow(&hub) => Err(anyhow!("the history ended by itself")),
            resolved = resolving => resolved.and_then(|()| Err(anyhow!("the resolver ended by itself"))),
        };
        info!("stopping");
        let stopped = workers.stop().await;
        if let Some(tracing) = tracing {
            tracing.finish().await;
        }
        stopped.and(ended)
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

/// The HTTP servers with what they serve.
struct Interfaces {
    admin: (TcpListener, Router),
    status: Option<(TcpListener, Router)>,
}

impl Interfaces {
    /// Waits for one to end by itself, which none should.
    async fn serve(self, metrics: &Arc<Metrics>) -> anyhow::Error {
        let (listener, router) = self.admin;
        let admin = http::serve(listener, router, metrics.clone());
        let status = async {
            match self.status {
                Some((listener, router)) => http::serve(listener, router, metrics.clone()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            served = admin => anyhow!("the admin interface ended by itself: {served:?}"),
            served = status => anyhow!("the status interface ended by itself: {served:?}"),
        }
    }
}

async fn follow(tracing: Option<&Tracing>) {
    match tracing {
        Some(tracing) => tracing.traces.follow().await,
        None => std::future::pending().await,
    }
}

fn has_name(next_hop: Option<&Target>) -> bool {
    next_hop.is_some_and(|hop| hop.host.parse::<IpAddr>().is_err())
}

fn shard_config(settings: &Settings, endpoints: &[Endpoint]) -> anyhow::Result<ShardConfig> {
    let app = settings.app;
    let is_app_facing = |endpoint: &Endpoint| {
        let listen = ListenAddress { transport: endpoint.transport, addr: endpoint.local };
        endpoint.leg == Leg::Local && settings.reaches_app(&listen)
    };
    let app_endpoint = endpoints.iter().position(is_app_facing).context("--app is reached from no --app-listen")?;
    let calls = settings.max_calls / settings.workers;
    Ok(ShardConfig {
        endpoints: endpoints.iter().map(|endpoint| core_endpoint(settings, endpoint)).collect(),
        bound: endpoints.iter().map(|endpoint| endpoint.local).collect(),
        app: Flow { endpoint: u16::try_from(app_endpoint)?, connection: 0, peer: app.addr },
        next_hop: settings.next_hop.clone(),
        limits: Limits { calls, ..Limits::default() },
        clock_speed: settings.clock_speed,
        key: crate::random(),
    })
}

fn core_endpoint(settings: &Settings, endpoint: &Endpoint) -> CoreEndpoint {
    let advertised = settings.advertised(endpoint.local).filter(|_| endpoint.leg == Leg::Remote);
    let sent_by = advertised.map_or_else(|| endpoint.local.to_string(), |host| host.sent_by(endpoint.local.port()));
    CoreEndpoint { leg: endpoint.leg, transport: endpoint.transport, sent_by }
}
