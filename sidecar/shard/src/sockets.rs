//! Our own sockets: what we call ourselves in Via and Record-Route, how we recognise it, which one reaches an address.

use std::net::{IpAddr, SocketAddr};

use sipwarden_session_timer::{Flow, Leg};
use sipwarden_sip::value::{Scheme, Transport, Uri, Via};

use super::ShardConfig;

/// One endpoint, with the texts it is known by.
pub(super) struct Socket {
    pub(super) leg: Leg,
    pub(super) transport: Transport,
    /// `Via: SIP/2.0/UDP host:port`, the start of a Via of ours.
    pub(super) via: Vec<u8>,
    /// The line `Record-Route: <sip:host:port;lr>`, with `;transport=` where it is not UDP.
    pub(super) record_route: Vec<u8>,
    name: Name,
    bound: SocketAddr,
}

/// `host:port` as others write it.
struct Name {
    host: Vec<u8>,
    ip: Option<IpAddr>,
    port: u16,
}

/// All endpoints; [`Flow::endpoint`] indexes them.
pub(super) struct Sockets(Vec<Socket>);

impl Sockets {
    pub(super) fn new(config: &ShardConfig) -> Sockets {
        assert_eq!(config.endpoints.len(), config.bound.len(), "each endpoint is bound");
        let sockets = config.endpoints.iter().zip(&config.bound).map(|(endpoint, bound)| {
            let transport = endpoint.transport;
            let (via_name, sent_by) = (transport.as_str(), &endpoint.sent_by);
            let parameter = match transport {
                Transport::Udp => String::new(),
                other => format!(";transport={}", other.as_str().to_ascii_lowercase()),
            };
            Socket {
                leg: endpoint.leg,
                transport,
                via: format!("Via: SIP/2.0/{via_name} {sent_by}").into_bytes(),
                record_route: format!("Record-Route: <sip:{sent_by}{parameter};lr>\r\n").into_bytes(),
                name: Name::new(sent_by, transport),
                bound: *bound,
            }
        });
        Sockets(sockets.collect())
    }

    /// The socket of a flow. The owner promises that flows name endpoints of the configuration.
    pub(super) fn of(&self, flow: Flow) -> &Socket {
        &self.0[usize::from(flow.endpoint)]
    }

    /// The socket with that index, for an index that came over the wire.
    pub(super) fn get(&self, endpoint: u16) -> Option<&Socket> {
        self.0.get(usize::from(endpoint))
    }

    /// The first socket of `leg` over `transport` that can reach `ip`.
    pub(super) fn reaching(&self, leg: Leg, transport: Transport, ip: IpAddr) -> Option<u16> {
        let fits = |socket: &Socket| {
            socket.leg == leg && socket.transport == transport && socket.bound.is_ipv4() == ip.is_ipv4()
        };
        self.0.iter().position(fits).and_then(|index| u16::try_from(index).ok())
    }

    /// Is this Via one of ours, by its sent-by?
    pub(super) fn wrote(&self, via: &Via) -> bool {
        let port = via.port.unwrap_or_else(|| default_port(via.transport));
        self.0.iter().any(|socket| socket.name.is(via.host, port))
    }

    /// Does a Route name one of our sockets? A user part makes it somebody's address, not ours.
    pub(super) fn are_named(&self, uri: &Uri) -> bool {
        self.0.iter().any(|socket| socket.is_named(uri))
    }

    /// Does a Route name one of the sockets of `leg`?
    pub(super) fn are_named_on(&self, leg: Leg, uri: &Uri) -> bool {
        self.0.iter().any(|socket| socket.leg == leg && socket.is_named(uri))
    }

    /// Would a packet to `address` come back to one of our sockets?
    pub(super) fn is_own_address(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|socket| {
            let bound = socket.bound;
            let ip_fits = bound.ip().is_unspecified() || bound.ip() == address.ip();
            (bound.port() == address.port() && ip_fits)
                || (socket.name.port == address.port() && socket.name.ip == Some(address.ip()))
        })
    }
}

impl Socket {
    /// By the name we advertise, or by the address that it stands for.
    fn is_named(&self, uri: &Uri) -> bool {
        let port = uri_port(uri);
        let is_bound = || self.bound.port() == port && parse_ip(uri.host) == Some(self.bound.ip());
        uri.user.is_empty() && (self.name.is(uri.host, port) || is_bound())
    }
}

impl Name {
    fn new(sent_by: &str, transport: Transport) -> Name {
        let port = sent_by.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = port.unwrap_or((sent_by, default_port(transport)));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Name { host: host.as_bytes().to_vec(), ip: host.parse().ok(), port }
    }

    /// IPv6 addresses have many spellings, so they are compared as addresses.
    fn is(&self, host: &[u8], port: u16) -> bool {
        self.port == port
            && (self.host.eq_ignore_ascii_case(host)
                || (host.contains(&b':') && self.ip.is_some() && self.ip == parse_ip(host)))
    }
}

/// The port a name without one means (RFC 3261 §19.1.2, RFC 7118 §5).
pub(super) fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Tls => 5061,
        Transport::Ws => 80,
        Transport::Wss => 443,
        Transport::Udp | Transport::Tcp | Transport::Other => 5060,
    }
}

/// The transport a URI asks for; SIPS asks for TLS (RFC 3261 §26.2.2).
pub(super) fn uri_transport(uri: &Uri) -> Option<Transport> {
    match uri.scheme {
        Scheme::Sips => Some(Transport::Tls),
        _ => uri.param("transport").map(Transport::from_token),
    }
}

/// The port a URI means.
pub(super) fn uri_port(uri: &Uri) -> u16 {
    uri.port.unwrap_or_else(|| default_port(uri_transport(uri).unwrap_or(Transport::Udp)))
}

/// An IP address as it stands in a header, IPv6 with or without brackets (RFC 5118 §4.5).
pub(super) fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]")).unwrap_or(text);
    sipwarden_sip::value::parse_ip(text)
}
