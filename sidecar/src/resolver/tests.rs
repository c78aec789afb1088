//! Against a DNS server of our own on loopback that knows a fixed zone.

use std::sync::Mutex;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::{A, AAAA};
use tokio::net::UdpSocket;

use super::*;

const UDP_V4: (Transport, bool) = (Transport::Udp, true);
const TCP_V4: (Transport, bool) = (Transport::Tcp, true);
const UDP_V6: (Transport, bool) = (Transport::Udp, false);

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).expect("a name")
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, name(target)))
}

fn naptr(order: u16, service: &str, replacement: &str) -> RData {
    let bytes = |text: &str| text.as_bytes().into();
    RData::NAPTR(NAPTR::new(order, 10, bytes("s"), bytes(service), bytes(""), name(replacement)))
}

/// Records as (owner, TTL, data).
type Zone = Vec<(&'static str, u32, RData)>;

/// A resolver of that zone, and what it asked.
async fn resolver(reachable: &[(Transport, bool)], zone: Zone) -> (Resolver, Arc<Mutex<Vec<String>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let port = socket.local_addr().expect("an address").port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(serve(socket, zone, asked.clone()));
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![connection]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let dns = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build().expect("a resolver");
    (Resolver { reachable: reachable.to_vec(), dns: OnceCell::new_with(Some(dns)) }, asked)
}

async fn serve(socket: UdpSocket, zone: Zone, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..length]).expect("a query");
        let question = query.queries[0].clone();
        asked.lock().expect("unpoisoned").push(format!("{} {}", question.query_type(), question.name()));
        let mut answer = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
        for (owner, ttl, data) in &zone {
            if name(owner) == *question.name() && data.record_type() == question.query_type() {
                answer.add_answer(Record::from_rdata(name(owner), *ttl, data.clone()));
            }
        }
        if answer.answers.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(question);
        socket.send_to(&answer.to_vec().expect("an answer"), client).await.expect("sent");
    }
}

fn target(host: &str, port: Option<u16>, transport: Option<Transport>) -> Target {
    Target { host: host.to_owned(), port, transport }
}

fn found(transport: Transport, addr: &str, ttl: u64) -> Answer {
    (Ok((transport, addr.parse().expect("an address"))), Duration::from_secs(ttl))
}

#[tokio::test]
async fn naptr_leads_to_srv_and_srv_to_an_address_and_the_least_ttl_counts() {
    let zone: Zone = vec![
        ("example.com", 300, naptr(20, "SIP+D2U", "_sip._udp.example.com")),
        ("example.com", 300, naptr(10, "SIP+D2T", "_sip._tcp.example.com")),
        ("example.com", 300, naptr(5, "SIPS+D2T", "_sips._tcp.example.com")),
        ("_sip._tcp.example.com", 200, srv(0, 0, 5070, "gw.example.com")),
        ("_sip._udp.example.com", 200, srv(0, 0, 5080, "gw.example.com")),
        ("gw.example.com", 100, a(1)),
    ];
    let (both, _) = resolver(&[UDP_V4, TCP_V4], zone.clone()).await;
    assert_eq!(both.resolve(&target("example.com", None, None)).await, found(Transport::Tcp, "192.0.2.1:5070", 100));
    let (udp_only, _) = resolver(&[UDP_V4], zone).await;
    assert_eq!(
        udp_only.resolve(&target("example.com", None, None)).await,
        found(Transport::Udp, "192.0.2.1:5080", 100)
    );
}

#[tokio::test]
async fn without_naptr_srv_is_asked_for_each_transport_or_for_the_one_named() {
    let zone: Zone = vec![
        ("_sip._tcp.example.com", 200, srv(0, 0, 5070, "gw.example.com")),
        ("gw.example.com", 200, a(1)),
        ("example.com", 200, a(2)),
    ];
    let (resolver, asked) = resolver(&[UDP_V4, TCP_V4], zone).await;
    assert_eq!(
        resolver.resolve(&target("example.com", None, None)).await,
        found(Transport::Tcp, "192.0.2.1:5070", 200)
    );
    asked.lock().expect("unpoisoned").clear();
    let udp = resolver.resolve(&target("example.com", None, Some(Transport::Udp))).await;
    assert_eq!(udp, found(Transport::Udp, "192.0.2.2:5060", 200));
    assert!(!asked.lock().expect("unpoisoned").iter().any(|query| query.contains("NAPTR")));
}

#[tokio::test]
async fn a_port_asks_for_addresses_only() {
    let zone: Zone = vec![("example.com", 7200, a(2)), ("_sip._udp.example.com", 200, srv(0, 0, 5070, "example.com"))];
    let (resolver, asked) = resolver(&[UDP_V4], zone).await;
    let answer = resolver.resolve(&target("example.com", Some(5090), None)).await;
    assert_eq!(answer, found(Transport::Udp, "192.0.2.2:5090", 3600));
    assert_eq!(*asked.lock().expect("unpoisoned"), ["A example.com."]);
}

#[tokio::test]
async fn only_ip_versions_with_an_endpoint_are_used() {
    let ipv6 = AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let zone: Zone = vec![("example.com", 60, a(2)), ("example.com", 60, RData::AAAA(ipv6))];
    let (resolver, _) = resolver(&[UDP_V6], zone).await;
    let answer = resolver.resolve(&target("example.com", Some(5060), None)).await;
    assert_eq!(answer, found(Transport::Udp, "[2001:db8::1]:5060", 60));
    assert_eq!(resolver.resolve(&target("192.0.2.1", None, None)).await.0, Err(Unresolvable));
}

#[tokio::test]
async fn a_target_without_address_gives_way_to_the_next_priority() {
    let zone: Zone = vec![
        ("_sip._udp.example.com", 60, srv(10, 0, 5060, "down.example.com")),
        ("_sip._udp.example.com", 60, srv(20, 0, 5061, "up.example.com")),
        ("up.example.com", 60, a(9)),
    ];
    let (resolver, _) = resolver(&[UDP_V4], zone).await;
    let answer = resolver.resolve(&target("example.com", None, Some(Transport::Udp))).await;
    assert_eq!(answer, found(Transport::Udp, "192.0.2.9:5061", 60));
}

#[tokio::test]
async fn an_unknown_name_is_remembered_for_a_short_while() {
    let (resolver, _) = resolver(&[UDP_V4], Zone::new()).await;
    let answer = resolver.resolve(&target("nowhere.example.com", None, None)).await;
    assert_eq!(answer, (Err(Unresolvable), NEGATIVE_TTL));
}

#[tokio::test]
async fn an_address_needs_no_dns() {
    let resolver = Resolver { reachable: vec![UDP_V4], dns: OnceCell::new() };
    let answer = resolver.resolve(&target("192.0.2.7", None, None)).await;
    assert_eq!(answer, found(Transport::Udp, "192.0.2.7:5060", 3600));
    assert!(!resolver.dns.initialized());
}

#[test]
fn weights_share_a_priority_and_higher_numbers_wait() {
    let record = |priority, weight| (SRV::new(priority, weight, 5060, name("x")), MIN_TTL);
    let records = [record(10, 75), record(20, 100), record(10, 25)];
    let mut random = 1;
    let mut chosen = [0; 3];
    for _ in 0..10_000 {
        chosen[choose(&records, &mut random).expect("a record")] += 1;
    }
    assert_eq!(chosen[1], 0);
    assert!((7_000..8_000).contains(&chosen[0]), "{chosen:?}");
    assert_eq!(choose(&[], &mut random), None);
}
