//! The top Via of a request: whose it is, what we write into it, and where an answer goes from it.

use std::net::SocketAddr;

use sipwarden_session_timer::Flow;
use sipwarden_sip::value::{Transport, Via};
use sipwarden_sip::{Decimal, Edits};

use super::digits;
use super::sockets::{default_port, parse_ip};

/// What the source of a request adds to its top Via, in room that is reused.
#[derive(Default)]
pub(super) struct Stamp {
    /// `;received=…`, then perhaps `;rport=…`, or nothing.
    text: Vec<u8>,
    /// Of `;received=…`.
    received_len: usize,
}

/// Where a response to a request that came on `flow` with this top Via goes (RFC 3261 §18.2.2, RFC 3581 §4). On a stream
/// that is the connection; the address is where to connect to when it is gone.
pub(super) fn reply_to(via: &Via, flow: Flow, transport: Transport) -> Flow {
    if transport == Transport::Udp && via.rport.is_some() {
        return flow;
    }
    let port = via.port.unwrap_or_else(|| default_port(transport));
    Flow { peer: SocketAddr::new(flow.peer.ip(), port), ..flow }
}

impl Stamp {
    /// What the source of the request adds to the Via: `;received=…` where sent-by is another address or rport is asked
    /// for, and then `;rport=…` (RFC 3261 §18.2.1, RFC 3581 §4).
    pub(super) fn write(&mut self, via: &Via, source: SocketAddr) {
        let Stamp { text, received_len } = self;
        text.clear();
        let ip = source.ip().to_canonical();
        if via.received.is_none() && via.rport.is_none() && parse_ip(via.host) == Some(ip) {
            return;
        }
        text.extend_from_slice(b";received=");
        digits::address(text, ip);
        *received_len = text.len();
        if via.rport.is_some() {
            text.extend_from_slice(b";rport=");
            text.extend_from_slice(Decimal::new(source.port().into()).text());
        }
    }

    /// Write that stamp into the Via of the forwarded request. What the sender claims of `received` and `rport` is
    /// overwritten, as responses go where they say.
    pub(super) fn edit(&self, via: &Via, edits: &mut Edits) {
        if self.text.is_empty() {
            return;
        }
        let (received, rport) = self.text.split_at(self.received_len);
        if let Some(old) = &via.rport {
            edits.replace(old.range.clone(), &[&rport[1..]]);
        }
        match &via.received {
            Some(old) => edits.replace(old.range.clone(), &[&received[1..]]),
            None => edits.insert(via.offset + via.text.len(), &[received]),
        }
    }

    /// For a response, behind the top Via.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{REMOTE_TCP, REMOTE_UDP, flow, message, parse};
    use super::*;
    use sipwarden_sip::Message;

    fn with_via(text: &str) -> Message<'static> {
        message(&format!("BYE sip:a@b SIP/2.0\nVia: {text}\n\n"))
    }

    /// The Via as it is forwarded, and what an answer's has behind it.
    fn stamped(text: &str, source: &str) -> (String, String) {
        let message = with_via(text);
        let via = message.top_via().unwrap();
        let (mut edits, mut stamp, mut out) = (Edits::new(), Stamp::default(), Vec::new());
        stamp.write(via, source.parse().unwrap());
        stamp.edit(via, &mut edits);
        assert_eq!(edits.is_empty(), stamp.text().is_empty());
        edits.render(&message, &mut out);
        let via = parse(&out).top_via().unwrap().text.to_vec();
        (String::from_utf8(via).unwrap(), String::from_utf8(stamp.text().to_vec()).unwrap())
    }

    #[test]
    fn received_is_added_where_the_source_is_not_sent_by() {
        let (out, suffix) = stamped("SIP/2.0/UDP pc33.example.com;branch=z9hG4bKa", "192.0.2.4:5099");
        assert_eq!(out, "SIP/2.0/UDP pc33.example.com;branch=z9hG4bKa;received=192.0.2.4");
        assert_eq!(suffix, ";received=192.0.2.4");
        let (out, _) = stamped("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa", "192.0.2.4:5060");
        assert_eq!(out, "SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKa;received=192.0.2.4");
    }

    #[test]
    fn a_via_that_tells_the_truth_stays_as_it_is() {
        let text = "SIP/2.0/UDP 192.0.2.4:5099 ; branch=z9hG4bKa";
        assert_eq!(stamped(text, "192.0.2.4:1234"), (text.into(), String::new()));
        let text = "SIP/2.0/TCP [2001:DB8:0::4];branch=z9hG4bKa";
        assert_eq!(stamped(text, "[2001:db8::4]:1234"), (text.into(), String::new()));
        let text = "SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKa";
        assert_eq!(stamped(text, "[::ffff:192.0.2.4]:5060").0, text, "a mapped address is an IPv4 address");
    }

    #[test]
    fn rport_is_filled_in_place_and_brings_received_with_it() {
        let (out, suffix) = stamped("SIP/2.0/UDP 192.0.2.4:5099;rport;branch=z9hG4bKa", "192.0.2.4:1234");
        assert_eq!(out, "SIP/2.0/UDP 192.0.2.4:5099;rport=1234;branch=z9hG4bKa;received=192.0.2.4");
        assert_eq!(suffix, ";received=192.0.2.4;rport=1234");
        let (out, _) = stamped("SIP/2.0/UDP [2001:db8::4];RPORT ;branch=z9hG4bKa", "[2001:db8::9]:1234");
        assert_eq!(out, "SIP/2.0/UDP [2001:db8::4];rport=1234 ;branch=z9hG4bKa;received=2001:db8::9");
    }

    #[test]
    fn what_a_sender_claims_of_received_and_rport_is_overwritten() {
        let (out, _) = stamped("SIP/2.0/UDP a;received=203.0.113.1;rport=53;branch=z9hG4bKa", "192.0.2.4:1234");
        assert_eq!(out, "SIP/2.0/UDP a;received=192.0.2.4;rport=1234;branch=z9hG4bKa");
        let (out, _) = stamped("SIP/2.0/UDP 192.0.2.4;received=203.0.113.1;branch=z9hG4bKa", "192.0.2.4:1234");
        assert_eq!(out, "SIP/2.0/UDP 192.0.2.4;received=192.0.2.4;branch=z9hG4bKa");
    }

    #[test]
    fn answers_go_to_the_source_port_only_when_rport_asks_for_it() {
        let from = flow(REMOTE_UDP, "192.0.2.4:1234");
        let to = |text: &str| reply_to(with_via(text).top_via().unwrap(), from, Transport::Udp).peer.to_string();
        assert_eq!(to("SIP/2.0/UDP 10.0.0.1:5099;rport"), "192.0.2.4:1234");
        assert_eq!(to("SIP/2.0/UDP 10.0.0.1:5099"), "192.0.2.4:5099");
        assert_eq!(to("SIP/2.0/UDP pc.example.com"), "192.0.2.4:5060");
    }

    #[test]
    fn answers_on_a_stream_go_to_its_connection_or_to_the_port_of_sent_by() {
        let from = Flow { connection: 9, ..flow(REMOTE_TCP, "192.0.2.4:41000") };
        let message = with_via("SIP/2.0/TCP pc.example.com:5070;rport");
        let to = reply_to(message.top_via().unwrap(), from, Transport::Tcp);
        assert_eq!(to, Flow { connection: 9, ..flow(REMOTE_TCP, "192.0.2.4:5070") });
    }
}
