//! What a forwarded request looks like.

use super::super::fixture::{LOCAL_TCP, REMOTE_TCP, REMOTE_UDP6};
use super::*;

/// The header lines and body of a message, without the lines named.
fn without(message: &Message, names: &[HeaderName]) -> Vec<u8> {
    let mut rest = message.bytes().to_vec();
    let lines: Vec<_> = message.headers().filter(|line| names.contains(&line.name)).collect();
    for line in lines.iter().rev() {
        rest.drain(line.line_start..line.line_end);
    }
    rest
}

#[test]
fn a_request_of_the_remote_side_goes_to_the_application() {
    let invite = request("INVITE", "sip:bob@192.0.2.1", "");
    let (to, sent) = Bench::new().forward(phone(), &invite);
    assert_eq!(to, app());
    let vias = elements(&sent, HeaderName::Via);
    assert!(vias[0].starts_with("SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK"), "{}", vias[0]);
    assert_eq!(vias[1..], [format!("SIP/2.0/UDP {PHONE};branch=z9hG4bKa1")]);
}

#[test]
fn invite_is_record_routed_on_both_sides_with_the_next_side_on_top() {
    let earlier = "Record-Route: <sip:p.example.com;lr>\n";
    let (_, sent) = Bench::new().forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", earlier));
    assert_eq!(
        elements(&sent, HeaderName::RecordRoute),
        ["<sip:127.0.0.1:5070;lr>", "<sip:192.0.2.1:5060;lr>", "<sip:p.example.com;lr>"]
    );
    let (_, sent) = Bench::new().forward(app(), &request("INVITE", "sip:bob@198.51.100.7;transport=tcp", ""));
    assert_eq!(
        elements(&sent, HeaderName::RecordRoute),
        ["<sip:192.0.2.1:5060;transport=tcp;lr>", "<sip:127.0.0.1:5070;lr>"]
    );
    let (_, sent) = Bench::new().forward(app(), &request("INVITE", "sip:bob@[2001:db8::7]", ""));
    assert_eq!(elements(&sent, HeaderName::RecordRoute), ["<sip:[2001:db8::1]:5060;lr>", "<sip:127.0.0.1:5070;lr>"]);
}

#[test]
fn other_requests_differ_in_via_and_max_forwards_only() {
    for method in ["OPTIONS", "REGISTER", "MESSAGE", "SUBSCRIBE", "PUBLISH", "REFER", "NOTIFY", "X-NEW"] {
        let odd = "Contact : <sip:alice@pc>;q=.3 ,\n <sip:x@y>\nX-Odd:\n  \nk: timer ,100rel\n";
        let came = request(method, "sip:example.com", odd);
        let (_, sent) = Bench::new().forward(phone(), &came);
        let ours = [HeaderName::Via, HeaderName::MaxForwards];
        assert_eq!(without(&sent, &ours), without(&came, &ours), "{method}");
        assert_eq!(sent.count(HeaderName::Via), 2);
        assert_eq!(elements(&sent, HeaderName::MaxForwards), ["69"]);
    }
}

#[test]
fn an_invite_differs_in_the_lines_of_a_proxy_only() {
    let came = request("INVITE", "sip:bob@192.0.2.1", "X-Odd:\n  \nsupported:\nk: timer ,100rel\n");
    let (_, sent) = Bench::new().forward(phone(), &came);
    let ours = [HeaderName::Via, HeaderName::MaxForwards, HeaderName::RecordRoute];
    assert_eq!(without(&sent, &ours), without(&came, &ours));
}

#[test]
fn a_request_without_max_forwards_gets_70() {
    let came = message(&request_text("OPTIONS", "sip:example.com", "").replace("Max-Forwards: 70\n", ""));
    let (_, sent) = Bench::new().forward(phone(), &came);
    assert_eq!(elements(&sent, HeaderName::MaxForwards), ["70"]);
}

#[test]
fn max_forwards_with_leading_zeros_is_a_number() {
    let came = message(&request_text("OPTIONS", "sip:example.com", "").replace("Forwards: 70", "Forwards:  0010"));
    let (_, sent) = Bench::new().forward(phone(), &came);
    assert_eq!(elements(&sent, HeaderName::MaxForwards), ["9"]);
}

#[test]
fn a_retransmission_gets_identical_bytes() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "sip:bob@192.0.2.1", "");
    let (_, first) = bench.forward(phone(), &invite);
    let (_, again) = bench.forward(phone(), &invite);
    assert_eq!(first.bytes(), again.bytes());
}

#[test]
fn cancel_and_the_ack_to_a_failure_follow_their_invite() {
    let mut bench = Bench::with(ShardConfig { next_hop: Some(target("203.0.113.9", Some(5091))), ..config() });
    for (from, uri) in [(phone(), "sip:bob@192.0.2.1"), (app(), "sip:bob@198.51.100.7")] {
        let (to, invite) = bench.forward(from, &request("INVITE", uri, ""));
        let branch = invite.top_via().unwrap().branch.unwrap();
        let (cancel_to, cancel) = bench.forward(from, &request("CANCEL", uri, ""));
        assert_eq!((cancel_to, cancel.top_via().unwrap().branch.unwrap()), (to, branch));
        let (ack_to, ack) = bench.forward(from, &in_dialog("ACK", uri, ""));
        assert_eq!((ack_to, ack.top_via().unwrap().branch.unwrap()), (to, branch));
    }
}

#[test]
fn received_and_rport_are_written_into_the_top_via_however_it_is_written() {
    for (vias, top) in [
        ("v: SIP/2.0/UDP pc;rport;branch=z9hG4bKa1, SIP/2.0/UDP deep", "SIP/2.0/UDP pc;rport=5062;branch=z9hG4bKa1"),
        (
            "VIA:SIP/2.0/UDP pc;branch=z9hG4bKa1;rport\nVia: SIP/2.0/UDP deep",
            "SIP/2.0/UDP pc;branch=z9hG4bKa1;rport=5062",
        ),
    ] {
        let text = request_text("OPTIONS", "sip:example.com", "");
        let came = message(&text.replace(&format!("Via: SIP/2.0/UDP {PHONE};branch=z9hG4bKa1"), vias));
        let (_, sent) = Bench::new().forward(phone(), &came);
        assert_eq!(
            elements(&sent, HeaderName::Via)[1..],
            [format!("{top};received=198.51.100.7"), "SIP/2.0/UDP deep".into()]
        );
    }
}

#[test]
fn transports_and_families_may_differ_from_side_to_side() {
    let tcp_app = Bench::with(ShardConfig { app: flow(LOCAL_TCP, APP), ..config() });
    for (mut bench, from, to) in [
        (tcp_app, flow(REMOTE_UDP6, "[2001:db8::7]:5060"), flow(LOCAL_TCP, APP)),
        (Bench::new(), flow(REMOTE_TCP, "198.51.100.7:40000"), app()),
    ] {
        let (hop, sent) = bench.forward(from, &request("INVITE", "sip:bob@192.0.2.1", ""));
        assert_eq!(hop, to);
        let came_by =
            if from.peer.is_ipv6() { "<sip:[2001:db8::1]:5060;lr>" } else { "<sip:192.0.2.1:5060;transport=tcp;lr>" };
        assert_eq!(elements(&sent, HeaderName::RecordRoute)[1], came_by);
    }
}
