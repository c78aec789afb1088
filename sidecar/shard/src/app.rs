//! Where the application is: at its configured address, and on the other ports of that host it has named itself.

use std::net::{IpAddr, SocketAddr};

use sipwarden_session_timer::{Flow, Leg};
use sipwarden_sip::Message;
use sipwarden_sip::value::{Transport, Uri};

use super::sockets::{Sockets, default_port, parse_ip, uri_port, uri_transport};

/// Most other ports of the application that are believed; one more takes the place of that which was named longest ago.
const MAX_PORTS: usize = 16;

/// The application's addresses.
pub(super) struct App {
    flow: Flow,
    transport: Transport,
    /// Seen in its own Via and Contact. Were the URI of a request enough, the remote side could aim packets at any
    /// port of the pod. Those named last stand last.
    ports: Vec<(Transport, u16)>,
}

impl App {
    pub(super) fn new(flow: Flow, sockets: &Sockets) -> App {
        App { flow, transport: sockets.of(flow).transport, ports: Vec::with_capacity(MAX_PORTS) }
    }

    /// Note what a message of the application says of its ports.
    pub(super) fn learn(&mut self, message: &Message) {
        if message.method().is_some()
            && let Ok(via) = message.top_via()
        {
            let port = via.port.unwrap_or_else(|| default_port(via.transport));
            self.note(parse_ip(via.host), via.transport, port);
        }
        if let Some(Ok(uri)) = message.contact().map(|contact| contact.parse_uri()) {
            self.note(uri.ip(), self.transport_of(&uri), uri_port(&uri));
        }
    }

    /// Where a request for the application goes that names `uri`.
    pub(super) fn flow_for(&self, uri: Option<Uri>, sockets: &Sockets) -> Flow {
        self.other_port(uri, sockets).unwrap_or(self.flow)
    }

    fn other_port(&self, uri: Option<Uri>, sockets: &Sockets) -> Option<Flow> {
        let uri = uri?;
        let ip = uri.ip().filter(|ip| *ip == self.flow.peer.ip())?;
        let (transport, peer) = (self.transport_of(&uri), SocketAddr::new(ip, uri_port(&uri)));
        if !self.ports.contains(&(transport, peer.port())) || sockets.is_own_address(peer) {
            return None;
        }
        Some(Flow { endpoint: sockets.reaching(Leg::Local, transport, ip)?, connection: 0, peer })
    }

    fn transport_of(&self, uri: &Uri) -> Transport {
        uri_transport(uri).unwrap_or(self.transport)
    }

    fn note(&mut self, ip: Option<IpAddr>, transport: Transport, port: u16) {
        let other = port != self.flow.peer.port() || transport != self.transport;
        if other && ip == Some(self.flow.peer.ip()) && self.ports.last() != Some(&(transport, port)) {
            self.ports.retain(|known| *known != (transport, port));
            if self.ports.len() == MAX_PORTS {
                self.ports.remove(0);
            }
            self.ports.push((transport, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{APP, LOCAL_TCP, LOCAL_UDP, config, flow, message};
    use super::*;

    fn response(contact: &str) -> Message<'static> {
        message(&format!("SIP/2.0 200 OK\nVia: SIP/2.0/UDP 127.0.0.1:9999\nContact: {contact}\n\n"))
    }

    fn to(app: &App, sockets: &Sockets, uri: &str) -> Flow {
        app.flow_for(Some(Uri::parse(uri.as_bytes()).unwrap()), sockets)
    }

    #[test]
    fn a_port_is_believed_once_the_application_named_it() {
        let sockets = Sockets::new(&config());
        let mut app = App::new(config().app, &sockets);
        let other = "sip:bob@127.0.0.1:6000";
        assert_eq!(to(&app, &sockets, other), flow(LOCAL_UDP, APP), "anybody may write that");
        app.learn(&response("<sip:bob@127.0.0.1:6000>"));
        assert_eq!(to(&app, &sockets, other), flow(LOCAL_UDP, "127.0.0.1:6000"));
        assert_eq!(to(&app, &sockets, "sip:bob@127.0.0.1:6000;transport=tcp"), flow(LOCAL_UDP, APP));
        assert_eq!(to(&app, &sockets, "sip:bob@203.0.113.5:6000"), flow(LOCAL_UDP, APP), "another host");
        assert_eq!(to(&app, &sockets, "sip:bob@app.example.com:6000"), flow(LOCAL_UDP, APP));
        assert_eq!(app.flow_for(None, &sockets), flow(LOCAL_UDP, APP));
    }

    #[test]
    fn the_via_of_its_requests_names_a_port_and_those_in_responses_do_not() {
        let sockets = Sockets::new(&config());
        let mut app = App::new(config().app, &sockets);
        app.learn(&message("BYE sip:a@b SIP/2.0\nVia: SIP/2.0/TCP 127.0.0.1:6001;branch=x\n\n"));
        app.learn(&response("<sip:bob@203.0.113.5:6002>"));
        assert_eq!(to(&app, &sockets, "sip:127.0.0.1:6001;lr;transport=tcp"), flow(LOCAL_TCP, "127.0.0.1:6001"));
        assert_eq!(to(&app, &sockets, "sip:127.0.0.1:9999"), flow(LOCAL_UDP, APP));
        assert_eq!(to(&app, &sockets, "sip:127.0.0.1:6002"), flow(LOCAL_UDP, APP));
    }

    #[test]
    fn our_own_sockets_are_no_ports_of_the_application() {
        let sockets = Sockets::new(&config());
        let mut app = App::new(config().app, &sockets);
        app.learn(&response("<sip:bob@127.0.0.1:5070>"));
        app.learn(&response("<sip:bob@127.0.0.1:5060>"));
        assert_eq!(to(&app, &sockets, "sip:bob@127.0.0.1:5070"), flow(LOCAL_UDP, APP));
        assert_eq!(to(&app, &sockets, "sip:bob@127.0.0.1:5060"), flow(LOCAL_UDP, APP), "0.0.0.0:5060 is ours");
    }

    #[test]
    fn ports_are_bounded() {
        let sockets = Sockets::new(&config());
        let mut app = App::new(config().app, &sockets);
        let mut name = |port: usize| app.learn(&response(&format!("<sip:bob@127.0.0.1:{port}>")));
        (6000..6000 + MAX_PORTS).for_each(&mut name);
        [6000, 7000].into_iter().for_each(name);

        assert_eq!(app.ports.len(), MAX_PORTS);
        let believed = |port: u16| app.ports.contains(&(Transport::Udp, port));
        assert!(believed(6000) && believed(7000) && !believed(6001), "6001 was named longest ago");
    }
}
