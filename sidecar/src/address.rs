//! The addresses people write: `udp:127.0.0.1:5060`, `tcp:[::1]:0`, `udp:sip.example.net:5060`, `sip.example.net:5060`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use sipwarden_shard::Target;
use sipwarden_sip::value::Transport;

/// A transport and a socket address, `udp:IP:PORT`. IPv6 needs no brackets: the last colon is the port's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress {
    /// UDP or TCP.
    pub transport: Transport,
    /// Port 0 lets the system choose.
    pub addr: SocketAddr,
}

/// A next hop, `udp:HOST[:PORT]`; the host may be a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NextHop(pub Target);

/// `HOST[:PORT]` as written into Via and Record-Route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Advertised {
    /// A name or an address, IPv6 in brackets.
    host: String,
    port: Option<u16>,
}

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a transport we have.
    #[error("the address must begin with udp: or tcp: (tls, ws and wss are not served yet)")]
    Transport,
    /// Not `IP:PORT`.
    #[error("expected IP:PORT such as 192.0.2.1:5060 or [2001:db8::1]:5060; names are not looked up here")]
    SocketAddr,
    /// Nothing before the port.
    #[error("there is no IP before the port; if it comes from a variable, is that set?")]
    NoIp,
    /// `$(POD_IP)` as it stands in a pod's arguments.
    #[error("the variable was not replaced; does the container's env have it?")]
    Variable,
    /// Not `HOST[:PORT]`.
    #[error("expected HOST or HOST:PORT, IPv6 as [::1]:5060")]
    Host,
}

impl Advertised {
    /// Can it stand for a listener of that IP version? A name can for both.
    pub fn stands_for(&self, listener: SocketAddr) -> bool {
        match self.host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => ip.is_ipv4() == listener.is_ipv4(),
            Err(_) => true,
        }
    }

    /// `host:port`, with `default_port` where none was given.
    pub fn sent_by(&self, default_port: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(default_port))
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ListenAddress, AddressError> {
        let (transport, rest) = split_transport(text)?;
        Ok(ListenAddress { transport, addr: socket_addr(rest)? })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", transport_name(self.transport), self.addr)
    }
}

impl FromStr for NextHop {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<NextHop, AddressError> {
        let (transport, rest) = split_transport(text)?;
        let (host, port) = split_host(rest)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        Ok(NextHop(Target { host, port, transport: Some(transport) }))
    }
}

impl NextHop {
    /// `HOST[:PORT]`, IPv6 in brackets, as in a URI.
    pub fn host_port(&self) -> String {
        let Target { host, port, .. } = &self.0;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let transport = self.0.transport.expect("a next hop is read with its transport");
        write!(f, "{}:{}", transport_name(transport), self.host_port())
    }
}

impl FromStr for Advertised {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Advertised, AddressError> {
        let (host, port) = split_host(text)?;
        Ok(Advertised { host: host.to_owned(), port })
    }
}

macro_rules! try_from_string {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = AddressError;

            fn try_from(text: String) -> Result<Self, AddressError> {
                text.parse()
            }
        }
    )*};
}
try_from_string!(ListenAddress, NextHop, Advertised);

/// `IP:PORT`. Kubernetes writes a pod's IPv6 address without brackets, so the last colon is the port's.
///
/// # Errors
/// It is something else; the text says what to check.
pub fn socket_addr(text: &str) -> Result<SocketAddr, AddressError> {
    if text.contains('$') {
        return Err(AddressError::Variable);
    }
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    let (ip, port) = text.rsplit_once(':').ok_or(AddressError::SocketAddr)?;
    if ip.is_empty() {
        return Err(AddressError::NoIp);
    }
    let ip = ip.parse::<Ipv6Addr>().map_err(|_| AddressError::SocketAddr)?;
    let port = port.parse().map_err(|_| AddressError::SocketAddr)?;
    Ok(SocketAddr::from((ip, port)))
}

/// Lower case, as in addresses, metrics and JSON.
pub fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Ws => "ws",
        Transport::Wss => "wss",
        Transport::Other => "other",
    }
}

fn split_transport(text: &str) -> Result<(Transport, &str), AddressError> {
    let (transport, rest) = text.split_once(':').ok_or(AddressError::Transport)?;
    if transport.eq_ignore_ascii_case("udp") {
        Ok((Transport::Udp, rest))
    } else if transport.eq_ignore_ascii_case("tcp") {
        Ok((Transport::Tcp, rest))
    } else {
        Err(AddressError::Transport)
    }
}

/// `host` keeps the brackets of an IPv6 address.
fn split_host(text: &str) -> Result<(&str, Option<u16>), AddressError> {
    let host_end = match text.strip_prefix('[') {
        Some(inside) => {
            let length = inside.find(']').ok_or(AddressError::Host)?;
            inside[..length].parse::<Ipv6Addr>().map_err(|_| AddressError::Host)?;
            length + 2
        }
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        Some(digits) => Some(digits.parse().ok().filter(|&port| port != 0).ok_or(AddressError::Host)?),
        None if rest.is_empty() => None,
        None => return Err(AddressError::Host),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_host =
        host.starts_with('[') || host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.bytes().all(is_name));
    if is_host { Ok((host, port)) } else { Err(AddressError::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_and_written_alike() {
        for text in ["udp:127.0.0.1:5060", "tcp:[::1]:0", "udp:0.0.0.0:5060"] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn the_last_colon_of_an_address_is_the_ports() {
        for (text, written) in [
            ("udp:2001:db8::7:15060", "udp:[2001:db8::7]:15060"),
            ("tcp:fd00:10:244:1:2:3:4:5:15060", "tcp:[fd00:10:244:1:2:3:4:5]:15060"),
            ("udp:::1:5060", "udp:[::1]:5060"),
            ("udp:::ffff:192.0.2.1:5060", "udp:[::ffff:192.0.2.1]:5060"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().expect(text).to_string(), written);
        }
    }

    #[test]
    fn what_is_not_a_listen_address_is_refused() {
        for (text, error) in [
            ("127.0.0.1:5060", AddressError::Transport),
            ("tls:127.0.0.1:5061", AddressError::Transport),
            ("udp", AddressError::Transport),
            ("udp:127.0.0.1", AddressError::SocketAddr),
            ("udp:localhost:5060", AddressError::SocketAddr),
            ("udp:::5060", AddressError::SocketAddr),
            ("udp:2001:db8::7:65536", AddressError::SocketAddr),
            ("udp::15060", AddressError::NoIp),
            ("udp:$(POD_IP):15060", AddressError::Variable),
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_next_hop_is_a_name_or_an_address() {
        let target = |text: &str| text.parse::<NextHop>().map(|hop| (hop.0.host, hop.0.port));
        assert_eq!(target("udp:SIP.example.net"), Ok(("sip.example.net".into(), None)));
        assert_eq!(target("tcp:192.0.2.1:5070"), Ok(("192.0.2.1".into(), Some(5070))));
        assert_eq!(target("udp:[2001:db8::1]:5060"), Ok(("2001:db8::1".into(), Some(5060))));
        for bad in ["udp:", "udp:a b", "udp:host:0", "udp:host:65536", "udp:[::1", "udp:[::1]x", "udp:[nonsense]"] {
            assert_eq!(target(bad), Err(AddressError::Host), "{bad}");
        }
    }

    #[test]
    fn an_advertised_address_stands_for_listeners_of_its_ip_version() {
        let [v4, v6]: [SocketAddr; 2] = ["0.0.0.0:5060", "[::]:5060"].map(|text| text.parse().expect("an address"));
        let stands_for =
            |text: &str| [v4, v6].map(|listener| text.parse::<Advertised>().expect(text).stands_for(listener));
        assert_eq!(stands_for("192.0.2.1"), [true, false]);
        assert_eq!(stands_for("[2001:db8::1]:5080"), [false, true]);
        assert_eq!(stands_for("sip.example.net"), [true, true]);
    }

    #[test]
    fn an_advertised_address_falls_back_to_the_listeners_port() {
        let sent_by = |text: &str| text.parse::<Advertised>().expect(text).sent_by(5060);
        assert_eq!(sent_by("sip.example.net"), "sip.example.net:5060");
        assert_eq!(sent_by("192.0.2.1:5080"), "192.0.2.1:5080");
        assert_eq!(sent_by("[2001:db8::1]"), "[2001:db8::1]:5060");
    }
}
