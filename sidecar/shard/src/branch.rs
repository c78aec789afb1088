//! The Via we put on a request: its branch names the transaction and finds loops, its flow the way back of responses.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use sipwarden_session_timer::{CallKey, Flow, Leg};
use sipwarden_sip::value::{Transport, Via};
use sipwarden_sip::{HeaderName, Message};

use super::digits::{hex, hex_of_u64, parse_hex};
use super::intake::Purpose;
use super::mix::Mix;
use super::sockets::{Sockets, default_port, parse_ip};

/// The Via parameter in which a stateless proxy finds back to the connection a request came on. Not a part of the
/// branch: a CANCEL that comes on another connection still has its INVITE's branch.
const FLOW: &str = "sw-flow";
/// What we write behind our sent-by, with its hexadecimal digits still to be filled in: the branch with transaction and
/// loop hash, then the flow with endpoint, connection and seal. It ends the line.
const PARAMETERS: &[u8; 70] = b";branch=z9hG4bK________________________;sw-flow=____________________\r\n";
/// Marks branches that are unique (RFC 3261 §8.1.1.7).
const COOKIE: &[u8] = b"z9hG4bK";
/// Where in [`PARAMETERS`] the digits stand.
const TRANSACTION: Range<usize> = 15..31;
const WAY: Range<usize> = 31..39;
const ENDPOINT: Range<usize> = 48..52;
const CONNECTION: Range<usize> = 52..60;
const SEAL: Range<usize> = 60..68;

/// What makes a request one transaction, and one way through us. Both parts stand in our branch, which for a request,
/// its retransmissions, its CANCEL and the ACK to its failure must be the same (RFC 3261 §16.11, §17.1.1.3): neither
/// the method nor the To tag is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    transaction: u64,
    /// Over all else that decides where it goes: a request that comes again with the same is in a loop, another
    /// spirals (§16.6 item 8).
    way: u32,
}

impl Identity {
    /// The key of transactions and ways, from that of the process.
    pub(super) fn key(key: u64) -> u64 {
        Purpose::Branch.hasher(key).finish()
    }

    /// Of a checked request of `call` whose top Via is `top`, coming from `leg`. `key` is [`Self::key`]. `cseq`: its number
    /// where it leaves with another than it came with, for a request that is sent once more under another number is another
    /// transaction.
    pub(super) fn of(key: u64, call: CallKey, message: &Message, top: &Via, leg: Leg, cseq: Option<u32>) -> Identity {
        let number = cseq.unwrap_or_else(|| message.cseq().map_or(0, |cseq| cseq.number));
        let from_tag = message.from_tag().unwrap_or_default();

        let mut hash = Mix::new(call.get(), key);
        hash.numbers(leg as u64, number.into());
        hash.text(message.request_uri().unwrap_or_default());
        message.elements(HeaderName::Route).for_each(|(_, route)| hash.text(route));
        let way = hash.value() as u32;

        // What has the same way until here and another sender is another transaction.
        hash.numbers(top.port.unwrap_or(0).into(), 0);
        [top.host, from_tag, top.branch.unwrap_or_default()].iter().for_each(|text| hash.text(text));
        Identity { transaction: hash.value(), way }
    }

    /// Did a request with this way pass us before (RFC 3261 §16.3 item 4)? `top` is its top Via.
    pub(super) fn is_loop(&self, message: &Message, top: &Via, sockets: &Sockets) -> bool {
        let passed = |via: &Via| {
            via.branch.and_then(Identity::read).is_some_and(|ours| ours.way == self.way) && sockets.wrote(via)
        };
        if passed(top) {
            return true;
        }
        if message.has_one_via() {
            return false;
        }
        let mut deeper = message.elements(HeaderName::Via).skip(1).filter_map(|(at, text)| Via::parse(text, at).ok());
        deeper.any(|via| passed(&via))
    }

    /// The parameters of our Via on a request whose responses go back to `reply_to`; they stand behind [`Socket::via`].
    pub(super) fn via_parameters(&self, key: u64, reply_to: Flow) -> [u8; PARAMETERS.len()] {
        let mut text = *PARAMETERS;
        let mut put = |at: Range<usize>, digits: &[u8]| text[at].copy_from_slice(digits);
        put(TRANSACTION, &hex_of_u64(self.transaction));
        put(WAY, &hex(self.way));
        put(ENDPOINT, &hex(reply_to.endpoint.into())[4..]);
        put(CONNECTION, &hex(reply_to.connection));
        put(SEAL, &hex(self.seal(key, reply_to)));
        text
    }

    /// Without the key nobody can aim a response at a connection of ours, nor, with what is sealed of a call of his own, at
    /// another address than the request came from.
    fn seal(&self, key: u64, reply_to: Flow) -> u32 {
        let mut hasher = Purpose::Seal.hasher(key);
        hasher.write_u64(self.transaction);
        hasher.write_u64(u64::from(self.way) << 32 | u64::from(reply_to.connection));
        match reply_to.peer.ip().to_canonical() {
            IpAddr::V4(ip) => hasher.write_u64(ip.to_bits().into()),
            IpAddr::V6(ip) => hasher.write(&ip.octets()),
        }
        hasher.write_u64(u64::from(reply_to.endpoint) << 16 | u64::from(reply_to.peer.port()));
        hasher.finish() as u32
    }

    /// From a branch of ours.
    fn read(branch: &[u8]) -> Option<Identity> {
        let (transaction, way) = branch.strip_prefix(COOKIE)?.split_at_checked(TRANSACTION.len())?;
        if way.len() != WAY.len() {
            return None;
        }
        let (high, low) = transaction.split_at(TRANSACTION.len() / 2);
        let transaction = u64::from(parse_hex(high)?) << 32 | u64::from(parse_hex(low)?);
        Some(Identity { transaction, way: parse_hex(way)? })
    }
}

/// Where a response goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WayBack {
    pub(super) flow: Flow,
    /// Our Via proves that its request came from there.
    pub(super) sealed: bool,
}

/// Where a response goes whose top Via is `ours` and whose next is `next`, coming from `leg`: to where the request came
/// from where our Via proves it, else to what `next` says. `None`: there is no such place.
pub(super) fn response_to(key: u64, ours: &Via, next: &Via, leg: Leg, sockets: &Sockets) -> Option<WayBack> {
    if let Some(flow) = sealed_flow(key, ours, next, sockets) {
        return Some(WayBack { flow, sealed: true });
    }
    let peer = response_address(next, next.transport)?;
    let endpoint = sockets.reaching(leg.other(), next.transport, peer.ip())?;
    Some(WayBack { flow: Flow { endpoint, connection: 0, peer }, sealed: false })
}

/// RFC 3261 §18.2.2, RFC 3581 §4. `maddr` is for multicast, which we do not do. A host name is never looked up: where
/// it was not an address, `received` is there.
fn response_address(via: &Via, transport: Transport) -> Option<SocketAddr> {
    let ip = parse_ip(via.received.as_ref().map_or(via.host, |received| received.value))?;
    let rport = via.rport.as_ref().filter(|_| transport == Transport::Udp);
    let rport = rport.and_then(|rport| std::str::from_utf8(rport.value).ok()?.parse().ok());
    Some(SocketAddr::new(ip, rport.or(via.port).unwrap_or_else(|| default_port(transport))))
}

/// Endpoint and connection that our Via remembers, with the address of `next`; `None` when we did not write it of that.
fn sealed_flow(key: u64, ours: &Via, next: &Via, sockets: &Sockets) -> Option<Flow> {
    let (endpoint, rest) = ours.param(FLOW)?.split_at_checked(ENDPOINT.len())?;
    let (connection, seal) = rest.split_at_checked(CONNECTION.len())?;
    let (endpoint, connection) = (u16::try_from(parse_hex(endpoint)?).ok()?, parse_hex(connection)?);
    let peer = response_address(next, sockets.get(endpoint)?.transport)?;
    let flow = Flow { endpoint, connection, peer };
    (parse_hex(seal)? == Identity::read(ours.branch?)?.seal(key, flow)).then_some(flow)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{KEY, LOCAL_UDP, REMOTE_TCP, REMOTE_UDP, REMOTE_UDP6, config, flow, message, parse};
    use super::*;
    use sipwarden_sip::Edits;

    fn via(text: &str) -> Via<'_> {
        Via::parse(text.as_bytes(), 0).unwrap()
    }

    fn request(method: &str, to_tag: &str, top_via: &str, more: &str) -> Message<'static> {
        message(&format!(
            "{method} sip:bob@192.0.2.1 SIP/2.0\nVia: {top_via}\n{more}From: <sip:a@b>;tag=f\n\
             To: <sip:bob@b>{to_tag}\nCall-ID: c1\nCSeq: 5 {method}\n\n"
        ))
    }

    fn identity(message: &Message, leg: Leg) -> Identity {
        numbered(message, leg, None)
    }

    fn numbered(message: &Message, leg: Leg, cseq: Option<u32>) -> Identity {
        let call = CallKey::of(KEY, message.call_id().unwrap());
        Identity::of(Identity::key(KEY), call, message, message.top_via().unwrap(), leg, cseq)
    }

    const TOP: &str = "SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKa";

    #[test]
    fn cancel_and_the_ack_to_a_failure_have_the_transaction_of_their_invite() {
        let invite = identity(&request("INVITE", "", TOP, ""), Leg::Remote);
        assert_eq!(identity(&request("CANCEL", "", TOP, ""), Leg::Remote), invite);
        let ack = identity(&request("ACK", ";tag=t", TOP, ""), Leg::Remote);
        assert_eq!(ack, invite);
    }

    #[test]
    fn a_request_renumbered_is_the_transaction_of_that_number() {
        let numbered = |message: &Message, cseq| numbered(message, Leg::Remote, cseq);
        let invite = request("INVITE", "", TOP, "");
        assert_eq!(numbered(&invite, Some(5)), numbered(&invite, None));
        assert_ne!(numbered(&invite, Some(6)), numbered(&invite, None));
        assert_eq!(numbered(&request("CANCEL", "", TOP, ""), Some(6)), numbered(&invite, Some(6)));
    }

    #[test]
    fn another_top_via_is_another_transaction_but_no_other_way() {
        let one = identity(&request("INVITE", "", TOP, ""), Leg::Remote);
        for via in [
            "SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKb",
            "SIP/2.0/UDP 192.0.2.5;branch=z9hG4bKa",
            "SIP/2.0/UDP 192.0.2.4:5061;branch=z9hG4bKa",
        ] {
            let other = identity(&request("INVITE", "", via, ""), Leg::Remote);
            assert_ne!(other.transaction, one.transaction);
            assert_eq!(other.way, one.way);
        }
    }

    #[test]
    fn the_way_differs_by_route_and_by_the_side_it_comes_from() {
        let one = identity(&request("INVITE", "", TOP, ""), Leg::Remote);
        let routed = identity(&request("INVITE", "", TOP, "Route: <sip:p.example.com;lr>\n"), Leg::Remote);
        assert_ne!(routed.way, one.way);
        assert_ne!(identity(&request("INVITE", "", TOP, ""), Leg::Local).way, one.way);
    }

    fn our_via(message: &Message, reply_to: Flow) -> String {
        let sockets = Sockets::new(&config());
        let parameters = identity(message, Leg::Remote).via_parameters(KEY, reply_to);
        let line = [&sockets.get(LOCAL_UDP).unwrap().via[..], &parameters].concat();
        String::from_utf8(line["Via: ".len()..].trim_ascii_end().to_vec()).unwrap()
    }

    #[test]
    fn a_request_that_passed_before_is_in_a_loop_however_its_vias_are_written() {
        let sockets = Sockets::new(&config());
        let is_loop =
            |message: &Message| identity(message, Leg::Remote).is_loop(message, message.top_via().unwrap(), &sockets);
        let first = request("INVITE", "", TOP, "");
        let ours = our_via(&first, flow(REMOTE_UDP, "192.0.2.4:5060"));
        let elsewhere = "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKx";
        for more in
            [format!("Via: {ours}\nVia: {TOP}\n"), format!("v: {ours}, {TOP}\n"), format!("v:{TOP} ,\n {ours}\n")]
        {
            let again = request("INVITE", "", elsewhere, &more);
            assert!(is_loop(&again), "{more}");
            let spiral = request("INVITE", "", elsewhere, &format!("{more}Route: <sip:p.example.com;lr>\n"));
            assert!(!is_loop(&spiral), "{more}");
        }
        assert!(!is_loop(&first));
    }

    fn response_way(ours: &str, next: &str) -> Option<WayBack> {
        response_to(KEY, &via(ours), &via(next), Leg::Local, &Sockets::new(&config()))
    }

    #[test]
    fn a_response_finds_back_to_the_connection_of_its_request() {
        let reply_to = Flow { connection: 0xabc, ..flow(REMOTE_TCP, "192.0.2.4:5070") };
        let ours = our_via(&request("INVITE", "", TOP, ""), reply_to);
        let next = "SIP/2.0/TCP pc.example.com:5070;branch=z9hG4bKa;received=192.0.2.4;rport=41000";
        assert_eq!(response_way(&ours, next), Some(WayBack { flow: reply_to, sealed: true }));
    }

    #[test]
    fn a_forged_or_moved_flow_is_not_believed() {
        let reply_to = Flow { connection: 7, ..flow(REMOTE_TCP, "192.0.2.4:5066") };
        let ours = our_via(&request("INVITE", "", TOP, ""), reply_to);
        let next = "SIP/2.0/UDP 192.0.2.4:5066;branch=z9hG4bKa";
        let by_address = Some(WayBack { flow: flow(REMOTE_UDP, "192.0.2.4:5066"), sealed: false });
        let branch = via(&ours).branch.unwrap();
        let other_branch = ours.replace(std::str::from_utf8(branch).unwrap(), "z9hG4bK0123456789abcdef01234567");
        for forged in [
            ours.replace("flow=000100000007", "flow=000100000008"),
            ours.replace("flow=000100000007", "flow=000000000007"),
            ours.replace("flow=000100000007", "flow=ffff00000007"),
            ours.replace("flow=000100000007", "flow="),
            ours.replace("flow=0001", "flow=+001"),
            other_branch,
        ] {
            assert_ne!(forged, ours);
            assert_eq!(response_way(&forged, next), by_address, "{forged}");
        }
        assert_eq!(response_way(&ours, next), Some(WayBack { flow: reply_to, sealed: true }));
        for elsewhere in [next.replace("5066", "5067"), next.replace("0.2.4", "0.2.5")] {
            let way = response_way(&ours, &elsewhere).unwrap();
            assert!(!way.sealed && way.flow.connection == 0, "{elsewhere}: {way:?}");
        }
    }

    #[test]
    fn a_response_without_our_flow_goes_where_the_next_via_says() {
        let ours = "SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKours";
        let to = |next: &str| response_way(ours, next).map(|way| way.flow);
        assert_eq!(to("SIP/2.0/UDP h.example.com;received=192.0.2.4"), Some(flow(REMOTE_UDP, "192.0.2.4:5060")));
        assert_eq!(to("SIP/2.0/UDP h:5099;received=192.0.2.4;rport=9"), Some(flow(REMOTE_UDP, "192.0.2.4:9")));
        assert_eq!(to("SIP/2.0/TCP 192.0.2.4:5099"), Some(flow(REMOTE_TCP, "192.0.2.4:5099")));
        assert_eq!(to("SIP/2.0/UDP [2001:db8::7]"), Some(flow(REMOTE_UDP6, "[2001:db8::7]:5060")));
        assert_eq!(to("SIP/2.0/UDP h;received=[2001:db8::7]"), Some(flow(REMOTE_UDP6, "[2001:db8::7]:5060")));
        assert_eq!(to("SIP/2.0/UDP h.example.com"), None, "a name is not looked up for a response");
        assert_eq!(to("SIP/2.0/TLS 192.0.2.4"), None, "no endpoint of that transport");
    }

    #[test]
    fn our_via_is_recognised_by_sent_by_and_default_port() {
        let sockets = Sockets::new(&config());
        for (text, ours) in [
            ("SIP/2.0/UDP 192.0.2.1:5060", true),
            ("SIP/2.0/UDP 192.0.2.1", true),
            ("SIP/2.0/UDP 127.0.0.1", false),
            ("SIP/2.0/UDP 127.0.0.1:5070", true),
            ("SIP/2.0/UDP [2001:DB8:0:0::1]", true),
            ("SIP/2.0/TLS 192.0.2.1", false),
        ] {
            assert_eq!(sockets.wrote(&via(text)), ours, "{text}");
        }
    }

    #[test]
    fn our_via_survives_being_written_and_read() {
        let message = request("INVITE", "", TOP, "");
        let reply_to = flow(REMOTE_UDP6, "[2001:db8::4]:5060");
        let ours = our_via(&message, reply_to);
        let mut edits = Edits::new();
        edits.prepend_header(&message, HeaderName::Via, &[ours.as_bytes()]);
        let mut out = Vec::new();
        edits.render(&message, &mut out);
        let forwarded = parse(&out);
        assert_eq!(forwarded.top_via().unwrap().text, ours.as_bytes());
        let (top, next) = (forwarded.top_via().unwrap(), via("SIP/2.0/UDP [2001:db8::4]"));
        let sealed = |key| sealed_flow(key, top, &next, &Sockets::new(&config()));
        assert_eq!((sealed(KEY), sealed(KEY + 1)), (Some(reply_to), None));
    }
}
