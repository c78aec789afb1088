//! The next hop of a request: which of our sockets, and to which address (RFC 3261 §16.6 items 6 and 7, RFC 3263).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sipwarden_session_timer::{Flow, Leg, Time};
use sipwarden_sip::Message;
use sipwarden_sip::value::{Scheme, Transport, Uri};

use super::app::App;
use super::resolved::{Found, Names};
use super::route::Way;
use super::sockets::{Sockets, default_port, parse_ip, uri_transport};
use super::{Resolved, ShardConfig, Target, Unresolvable};

/// Why there is no next hop, or none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHop {
    /// The name in [`Router::wanted`] is to be looked up.
    Unknown,
    /// As `Unknown`, but too many packets wait already.
    LookupsFull,
    /// No address, or none that a socket of ours reaches.
    Unreachable,
    /// A URI of `tel:` or `urn:`, which only somebody else can turn into an address.
    Scheme,
}

/// Knows our sockets, the application, and the names of the remote side.
pub(super) struct Router {
    config: Arc<ShardConfig>,
    pub(super) sockets: Sockets,
    app: App,
    names: Names,
    /// The last target looked for; its string is reused.
    wanted: Target,
}

impl Router {
    pub(super) fn new(config: Arc<ShardConfig>) -> Router {
        let sockets = Sockets::new(&config);
        let app = App::new(config.app, &sockets);
        let wanted = Target { host: String::new(), port: None, transport: None };
        Router { config, sockets, app, names: Names::default(), wanted }
    }

    /// Note what a message of the application says about where it listens.
    pub(super) fn learn_app(&mut self, message: &Message) {
        self.app.learn(message);
    }

    /// Is that where requests for the application go?
    pub(super) fn is_app(&self, flow: Flow) -> bool {
        flow == self.config.app
    }

    /// Note what a name came to.
    pub(super) fn learn_name(&mut self, now: Time, target: &Target, answer: Resolved, ttl: Duration) {
        self.names.learn(now, target, answer, ttl);
    }

    /// The target that [`NoHop::Unknown`] was about.
    pub(super) fn wanted(&self) -> &Target {
        &self.wanted
    }

    /// Where a request that came from `from` goes.
    pub(super) fn next_hop(&mut self, now: Time, from: Leg, way: &Way) -> Result<Flow, NoHop> {
        match from {
            Leg::Remote => {
                let named = if way.in_dialog { way.next() } else { way.route };
                Ok(self.app.flow_for(named, &self.sockets))
            }
            Leg::Local => match (way.route, &self.config.next_hop) {
                (None, Some(next_hop)) if !way.in_dialog => {
                    self.wanted.clone_from(next_hop);
                    let ip = parse_ip(self.wanted.host.as_bytes());
                    self.remote_hop(now, ip)
                }
                _ => self.named_hop(now, way.next()),
            },
        }
    }

    /// The connection the other side was last heard on, where it leads to where `hop` does. Should that be gone, it is
    /// made to the hop: nobody listens where a connection came from.
    pub(super) fn reuse(&self, hop: Flow, heard: Option<Flow>) -> Flow {
        let same_way = |heard: &Flow| {
            let (old, new) = (self.sockets.of(*heard), self.sockets.of(hop));
            heard.connection != 0
                && heard.peer.ip() == hop.peer.ip()
                && (old.leg, old.transport) == (new.leg, new.transport)
        };
        heard.filter(same_way).map_or(hop, |heard| Flow { peer: hop.peer, ..heard })
    }

    fn named_hop(&mut self, now: Time, uri: Option<Uri>) -> Result<Flow, NoHop> {
        let uri = uri.filter(|uri| matches!(uri.scheme, Scheme::Sip | Scheme::Sips)).ok_or(NoHop::Scheme)?;
        let host = std::str::from_utf8(uri.host).map_err(|_| NoHop::Unreachable)?;
        self.wanted.host.clear();
        self.wanted.host.push_str(host);
        self.wanted.host.make_ascii_lowercase();
        self.wanted.port = uri.port;
        self.wanted.transport = uri_transport(&uri);
        self.remote_hop(now, uri.ip())
    }

    /// The hop to `wanted`, whose host is `ip` when it is an address.
    fn remote_hop(&mut self, now: Time, ip: Option<IpAddr>) -> Result<Flow, NoHop> {
        let (transport, peer) = match ip {
            Some(ip) => self.literal(ip).map_err(|Unresolvable| NoHop::Unreachable)?,
            None => match self.names.find(now, &self.wanted) {
                Found::Known(answer) => answer.map_err(|Unresolvable| NoHop::Unreachable)?,
                Found::Unknown => return Err(NoHop::Unknown),
                Found::Full => return Err(NoHop::LookupsFull),
            },
        };
        let endpoint = self.sockets.reaching(Leg::Remote, transport, peer.ip()).ok_or(NoHop::Unreachable)?;
        Ok(Flow { endpoint, connection: 0, peer })
    }

    /// RFC 3263 §4.1 for an address: what `transport` says, else UDP; TCP where we have no UDP.
    fn literal(&self, ip: IpAddr) -> Resolved {
        let reaches = |transport: &Transport| self.sockets.reaching(Leg::Remote, *transport, ip).is_some();
        let transport = self.wanted.transport.or_else(|| [Transport::Udp, Transport::Tcp].into_iter().find(reaches));
        let transport = transport.ok_or(Unresolvable)?;
        Ok((transport, SocketAddr::new(ip, self.wanted.port.unwrap_or_else(|| default_port(transport)))))
    }
}
