//! What the tests of this module stand on: a sidecar with two legs of UDP and TCP, IPv4 and IPv6.

use sipwarden_session_timer::{Endpoint, Flow, Leg, Limits};
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Message, Slots};

use super::ShardConfig;

pub(super) const KEY: u64 = 0x5eed;
/// Remote-facing, `192.0.2.1:5060`; TCP on the same port; IPv6 `[2001:db8::1]:5060` over UDP.
pub(super) const REMOTE_UDP: u16 = 0;
pub(super) const REMOTE_TCP: u16 = 1;
pub(super) const REMOTE_UDP6: u16 = 2;
/// App-facing, `127.0.0.1:5070`; TCP on the same port.
pub(super) const LOCAL_UDP: u16 = 3;
pub(super) const LOCAL_TCP: u16 = 4;
/// A phone, and the application.
pub(super) const PHONE: &str = "198.51.100.7:5062";
pub(super) const APP: &str = "127.0.0.1:5080";

pub(super) fn config() -> ShardConfig {
    let endpoints = [
        (Leg::Remote, Transport::Udp, "192.0.2.1:5060", "0.0.0.0:5060"),
        (Leg::Remote, Transport::Tcp, "192.0.2.1:5060", "0.0.0.0:5060"),
        (Leg::Remote, Transport::Udp, "[2001:db8::1]:5060", "[::]:5060"),
        (Leg::Local, Transport::Udp, "127.0.0.1:5070", "127.0.0.1:5070"),
        (Leg::Local, Transport::Tcp, "127.0.0.1:5070", "127.0.0.1:5070"),
    ];
    ShardConfig {
        endpoints: endpoints
            .iter()
            .map(|(leg, transport, sent_by, _)| Endpoint {
                leg: *leg,
                transport: *transport,
                sent_by: (*sent_by).into(),
            })
            .collect(),
        bound: endpoints.iter().map(|(.., bound)| bound.parse().unwrap()).collect(),
        app: flow(LOCAL_UDP, APP),
        next_hop: None,
        limits: Limits::default(),
        clock_speed: 1,
        key: KEY,
    }
}

/// A datagram flow, or a stream to be connected.
pub(super) fn flow(endpoint: u16, peer: &str) -> Flow {
    Flow { endpoint, connection: 0, peer: peer.parse().unwrap() }
}

/// A message from text with bare line ends, which become CRLF. Leaks: tests are short.
pub(super) fn message(text: &str) -> Message<'static> {
    parse(text.replace('\n', "\r\n").as_bytes())
}

/// A message from the wire. Leaks: tests are short.
pub(super) fn parse(bytes: &[u8]) -> Message<'static> {
    let bytes: &'static [u8] = bytes.to_vec().leak();
    Message::parse(bytes, Box::leak(Box::new(Slots::new()))).unwrap()
}
