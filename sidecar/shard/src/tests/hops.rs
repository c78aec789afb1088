//! Where requests go.

use std::time::Duration;

use super::super::fixture::{LOCAL_TCP, REMOTE_TCP, REMOTE_UDP6};
use super::super::{DropReason, Unresolvable};
use super::*;
use sipwarden_sip::value::Transport;

const PAIR: &str = "Route: <sip:127.0.0.1:5070;lr>, <sip:192.0.2.1:5060;lr>\n";

fn hop(bench: &mut Bench, message: &Message) -> Flow {
    bench.forward(app(), message).0
}

#[test]
fn the_application_reaches_the_address_in_the_request_uri() {
    for (uri, to) in [
        ("sip:bob@198.51.100.7", flow(REMOTE_UDP, "198.51.100.7:5060")),
        ("sip:bob@198.51.100.7:5099;transport=udp", flow(REMOTE_UDP, "198.51.100.7:5099")),
        ("sip:198.51.100.7;transport=TCP", flow(REMOTE_TCP, "198.51.100.7:5060")),
        ("sip:bob@[2001:db8::7]:5062", flow(REMOTE_UDP6, "[2001:db8::7]:5062")),
    ] {
        assert_eq!(hop(&mut Bench::new(), &request("INVITE", uri, "")), to, "{uri}");
    }
}

#[test]
fn a_route_goes_before_the_next_hop_and_that_before_the_request_uri() {
    let mut bench = Bench::with(ShardConfig { next_hop: Some(target("203.0.113.9", None)), ..config() });
    let uri = "sip:bob@198.51.100.7";
    let next_hop = flow(REMOTE_UDP, "203.0.113.9:5060");
    assert_eq!(hop(&mut bench, &request("INVITE", uri, "")), next_hop);
    assert_eq!(hop(&mut bench, &request("INVITE", uri, "Route: <sip:127.0.0.1:5070;lr>\n")), next_hop);
    let routed = request("INVITE", uri, "Route: <sip:127.0.0.1:5070;lr>, <sip:203.0.113.30;lr>\n");
    assert_eq!(hop(&mut bench, &routed), flow(REMOTE_UDP, "203.0.113.30:5060"));
    assert_eq!(hop(&mut bench, &in_dialog("BYE", uri, PAIR)), flow(REMOTE_UDP, "198.51.100.7:5060"));
    assert_eq!(hop(&mut bench, &in_dialog("ACK", uri, PAIR)), flow(REMOTE_UDP, "198.51.100.7:5060"));
    assert_eq!(hop(&mut bench, &request("INVITE", "tel:+12015550123", "")), next_hop);
}

#[test]
fn what_no_socket_of_ours_reaches_is_answered_500() {
    for uri in ["sips:bob@198.51.100.7", "sip:bob@198.51.100.7;transport=tls", "sip:bob@[2001:db8::7];transport=tcp"] {
        assert_eq!(Bench::new().answer(app(), &request("INVITE", uri, "")).0, 500, "{uri}");
        let drop = Outcome::Dropped(DropReason::Unanswerable(500));
        assert_eq!(Bench::new().send(app(), &request("ACK", uri, "")), drop);
    }
    assert_eq!(Bench::new().answer(app(), &request("INVITE", "tel:+12015550123", "")).0, 416);
}

#[test]
fn a_name_is_looked_up_once_and_the_packet_waits() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "sip:bob@Proxy.Example.COM:5091;transport=tcp", "");
    assert_eq!(bench.send(app(), &invite), Outcome::Parked);
    assert!(bench.out.packets.is_empty());
    let lookup = bench.out.lookups.pop().unwrap();
    let asked = Target { transport: Some(Transport::Tcp), ..target("proxy.example.com", Some(5091)) };
    assert_eq!((&lookup.target, lookup.flow), (&asked, app()));
    let answer = Ok((Transport::Tcp, "203.0.113.9:5091".parse().unwrap()));
    bench.shard.resolved(bench.now, &asked, answer, Duration::from_secs(60));
    let (to, _) = bench.forward(lookup.flow, &parse(&lookup.bytes));
    assert_eq!(to, flow(REMOTE_TCP, "203.0.113.9:5091"));
    assert!(bench.out.lookups.is_empty());
    bench.now = bench.now + Duration::from_secs(60);
    assert_eq!(bench.send(app(), &invite), Outcome::Parked, "the answer is too old");
}

#[test]
fn a_name_without_address_is_answered_500() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "sip:bob@nowhere.example", "");
    assert_eq!(bench.send(app(), &invite), Outcome::Parked);
    bench.shard.resolved(bench.now, &target("nowhere.example", None), Err(Unresolvable), Duration::from_secs(5));
    assert_eq!(bench.answer(app(), &invite).0, 500);
    let ack = request("ACK", "sip:bob@nowhere.example", "");
    assert_eq!(bench.send(app(), &ack), Outcome::Dropped(DropReason::Unanswerable(500)));
}

#[test]
fn packets_that_wait_for_names_are_bounded() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "sip:bob@slow.example", "");
    let parked = (0..2000).take_while(|_| bench.send(app(), &invite) == Outcome::Parked).count();
    assert_eq!(parked, 1024);
    assert_eq!(bench.send(app(), &invite), Outcome::Dropped(DropReason::LookupsFull));
    bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", ""));
}

#[test]
fn a_name_as_next_hop_is_looked_up_too() {
    let next_hop = target("trunk.example", None);
    let mut bench = Bench::with(ShardConfig { next_hop: Some(next_hop.clone()), ..config() });
    assert_eq!(bench.send(app(), &request("INVITE", "sip:bob@x", "")), Outcome::Parked);
    assert_eq!(bench.out.lookups[0].target, next_hop);
}

#[test]
fn a_request_in_a_dialog_reaches_the_port_its_application_named() {
    let mut bench = Bench::new();
    let contact = "Contact: <sip:app@127.0.0.1:5081>\n";
    bench.forward(flow(LOCAL_UDP, "127.0.0.1:5081"), &request("INVITE", "sip:alice@198.51.100.7", contact));
    let pair = "Route: <sip:192.0.2.1:5060;lr>, <sip:127.0.0.1:5070;lr>\n";
    let (to, _) = bench.forward(phone(), &in_dialog("BYE", "sip:app@127.0.0.1:5081", pair));
    assert_eq!(to, flow(LOCAL_UDP, "127.0.0.1:5081"));
    let (to, _) = bench.forward(phone(), &request("INVITE", "sip:app@127.0.0.1:5081", ""));
    assert_eq!(to, app(), "a new call goes to the application's front door");
    let (to, _) = bench.forward(phone(), &in_dialog("BYE", "sip:app@127.0.0.1:22", pair));
    assert_eq!(to, app(), "a port it never named");
    let routed = request("INVITE", "sip:bob@example.com", "Route: <sip:192.0.2.1;lr>, <sip:127.0.0.1:5081;lr>\n");
    assert_eq!(bench.forward(phone(), &routed).0, flow(LOCAL_UDP, "127.0.0.1:5081"));
}

#[test]
fn a_response_of_the_application_names_a_port_too() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", ""));
    let ok = response_text(&sent, "200 OK").replace("Content", "Contact: <sip:bob@127.0.0.1:5082>\nContent");
    bench.forward(to, &message(&ok));
    let pair = "Route: <sip:192.0.2.1:5060;lr>, <sip:127.0.0.1:5070;lr>\n";
    let (to, _) = bench.forward(phone(), &in_dialog("ACK", "sip:bob@127.0.0.1:5082", pair));
    assert_eq!(to, flow(LOCAL_UDP, "127.0.0.1:5082"));
}

#[test]
fn a_tcp_application_is_reached_by_tcp() {
    let mut bench = Bench::with(ShardConfig { app: flow(LOCAL_TCP, APP), ..config() });
    let (to, sent) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", ""));
    assert_eq!(to, flow(LOCAL_TCP, APP));
    assert!(sent.top_via().unwrap().text.starts_with(b"SIP/2.0/TCP 127.0.0.1:5070;"));
}
