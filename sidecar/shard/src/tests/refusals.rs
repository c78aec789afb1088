//! What is answered or dropped instead of being forwarded.

use super::super::fixture::REMOTE_TCP;
use super::super::{DropReason, Intake};
use super::*;
use sipwarden_sip::Method;
use sipwarden_sip::check::Fault;

fn with_max_forwards(method: &str, value: &str) -> Message<'static> {
    message(&request_text(method, "sip:bob@192.0.2.1", "").replace("Forwards: 70", &format!("Forwards: {value}")))
}

#[test]
fn no_hops_left_is_answered_483() {
    let (status, to, answer) = Bench::new().answer(phone(), &with_max_forwards("INVITE", "0"));
    assert_eq!((status, to), (483, phone()));
    assert!(answer.to_tag().is_some());
    let drop = Outcome::Dropped(DropReason::Unanswerable(483));
    assert_eq!(Bench::new().send(phone(), &with_max_forwards("ACK", "0")), drop);
}

/// A message that only [`Intake`] lets pass.
fn received(text: &str) -> Message<'static> {
    let bytes = text.replace('\n', "\r\n").into_bytes().leak();
    Box::leak(Box::new(Intake::new())).receive(bytes).unwrap()
}

#[test]
fn faults_are_answered_and_faulty_acks_are_not() {
    for (from, to, status) in [
        ("Forwards: 70", "Forwards: 256", 400),
        ("CSeq: 1 INVITE", "CSeq: 1 ACK", 400),
        ("CSeq: 1 INVITE\n", "", 400),
        ("Content-Length: 4", "Content-Length: 5", 400),
        ("Content-Length: 4", "Content-Length: +4", 400),
        ("Content-Length: 4", "Content-Length: 4\nl: 3", 400),
        ("sip:bob@192.0.2.1", "soap.beep://192.0.2.103:3002", 416),
        (" SIP/2.0\n", " SIP/7.0\n", 505),
        ("Max-", "Route: <sip:a b;lr>\nMax-", 400),
    ] {
        let text = request_text("INVITE", "sip:bob@192.0.2.1", "").replacen(from, to, 1);
        assert_eq!(Bench::new().answer(phone(), &received(&text)).0, status, "{to}");
        let ack = text.replace("INVITE sip", "ACK sip").replace("INVITE soap", "ACK soap").replace("1 INVITE", "1 ACK");
        let outcome = Bench::new().send(phone(), &received(&ack));
        if !to.ends_with("1 ACK") {
            assert!(matches!(outcome, Outcome::Dropped(DropReason::Fault(_))), "{to} {outcome:?}");
        }
    }
}

#[test]
fn a_request_without_via_cannot_be_answered() {
    let text = request_text("INVITE", "sip:bob@192.0.2.1", "").replace("Via:", "X-Via:");
    let drop = Outcome::Dropped(DropReason::Fault(Fault::BadRequest));
    assert_eq!(Bench::new().send(phone(), &message(&text)), drop);
}

#[test]
fn extensions_asked_of_proxies_are_answered_420_with_their_list() {
    let lines = "Proxy-Require: foo ,bar\nproxy-require: baz\n";
    let (status, _, answer) = Bench::new().answer(phone(), &request("INVITE", "sip:bob@192.0.2.1", lines));
    assert_eq!(status, 420);
    assert_eq!(elements(&answer, HeaderName::Unsupported), ["foo", "bar", "baz"]);
    for method in ["ACK", "CANCEL"] {
        Bench::new().forward(phone(), &request(method, "sip:bob@192.0.2.1", lines));
    }
    Bench::new().forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", "Proxy-Require:\n"));
    Bench::new().forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", "Proxy-Require: Timer\n"));
    let lines = "Proxy-Require: foo, timer\n";
    let (_, _, answer) = Bench::new().answer(phone(), &request("INVITE", "sip:bob@192.0.2.1", lines));
    assert_eq!(elements(&answer, HeaderName::Unsupported), ["foo"], "timer is supported (RFC 4028 §7.1)");
}

#[test]
fn an_answer_goes_where_rfc_3581_says_with_the_via_filled_in() {
    let text =
        request_text("OPTIONS", "sip:b", "Proxy-Require: x\n").replace(&format!("{PHONE};"), "10.0.0.9:5099;rport;");
    let (_, to, answer) = Bench::new().answer(phone(), &message(&text));
    assert_eq!(to, phone());
    let via = answer.top_via().unwrap();
    assert_eq!((via.param("received"), via.param("rport")), (Some(&b"198.51.100.7"[..]), Some(&b"5062"[..])));
    let (_, to, _) = Bench::new().answer(phone(), &message(&text.replace(";rport", "")));
    assert_eq!(to, flow(REMOTE_UDP, "198.51.100.7:5099"));
    let stream = Flow { connection: 4, ..flow(REMOTE_TCP, "198.51.100.7:40001") };
    let (_, to, _) = Bench::new().answer(stream, &message(&text));
    assert_eq!(to, Flow { connection: 4, ..flow(REMOTE_TCP, "198.51.100.7:5099") });
}

#[test]
fn a_retransmission_of_a_refused_request_gets_the_same_answer_and_its_ack_is_absorbed() {
    let mut bench = Bench::new();
    let invite = request("INVITE", "sip:bob@192.0.2.1", "Proxy-Require: x\n");
    let (_, _, first) = bench.answer(phone(), &invite);
    let (_, _, again) = bench.answer(phone(), &invite);
    assert_eq!(first.bytes(), again.bytes());
    let tag = String::from_utf8(first.to_tag().unwrap().to_vec()).unwrap();
    let ack = request_text("ACK", "sip:bob@192.0.2.1", "")
        .replace("bob@example.com>\n", &format!("bob@example.com>;tag={tag}\n"));
    assert_eq!(bench.send(phone(), &message(&ack)), Outcome::Absorbed);
    let other = ack.replace(&tag, "sw0123456789abcdef");
    assert!(matches!(bench.send(phone(), &message(&other)), Outcome::Forwarded { .. }));
}

/// What a hop behind us sends on: its Via on top of what it got.
fn relayed(sent: &Message, via: &str, uri: Option<&str>) -> Message<'static> {
    let text = String::from_utf8(sent.bytes().to_vec()).unwrap();
    let (start, rest) = text.split_once("\r\n").unwrap();
    let start = uri.map_or(start.into(), |uri| format!("{} {uri} SIP/2.0", start.split(' ').next().unwrap()));
    let without_routes: String = rest.split_inclusive("\r\n").filter(|line| !line.starts_with("Route:")).collect();
    parse(format!("{start}\r\nVia: {via}\r\n{without_routes}").as_bytes())
}

#[test]
fn a_loop_is_answered_482_and_its_ack_dropped() {
    for method in ["INVITE", "OPTIONS", "ACK"] {
        let mut bench = Bench::new();
        let (_, sent) = bench.forward(phone(), &request(method, "sip:bob@192.0.2.1", ""));
        let back = relayed(&sent, "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKp", None);
        let outcome = bench.send(flow(REMOTE_UDP, "203.0.113.9:5060"), &back);
        let expected = match back.method() {
            Some(Method::Ack) => Outcome::Dropped(DropReason::Unanswerable(482)),
            _ => Outcome::Answered(482),
        };
        assert_eq!(outcome, expected, "{method}");
    }
}

#[test]
fn a_request_that_we_send_to_ourselves_ends_there() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(app(), &request("INVITE", "sip:bob@127.0.0.1:5070", ""));
    assert_eq!(to, flow(REMOTE_UDP, "127.0.0.1:5070"));
    let (status, ..) = bench.answer(flow(LOCAL_UDP, "192.0.2.1:5060"), &sent);
    assert_eq!(status, 482);
}

#[test]
fn a_spiral_with_another_request_uri_passes() {
    let mut bench = Bench::new();
    let (_, sent) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", ""));
    let back = relayed(&sent, "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKp", Some("sip:carol@192.0.2.1"));
    bench.forward(flow(REMOTE_UDP, "203.0.113.9:5060"), &back);
}

#[test]
fn a_proxy_as_application_sends_the_request_through_us_again() {
    let mut bench = Bench::new();
    let (_, sent) = bench.forward(phone(), &request("INVITE", "sip:bob@198.51.100.20", ""));
    let on = relayed(&sent, "SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bKp", None);
    let (to, sent) = bench.forward(app(), &on);
    assert_eq!(to, flow(REMOTE_UDP, "198.51.100.20:5060"));
    assert_eq!(sent.count(HeaderName::RecordRoute), 4);
}

#[test]
fn an_application_that_calls_our_remote_address_is_no_loop() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(app(), &request("INVITE", "sip:bob@192.0.2.1", ""));
    assert_eq!(to, flow(REMOTE_UDP, "192.0.2.1:5060"), "to ourselves, over the socket");
    let (to, _) = bench.forward(flow(REMOTE_UDP, "192.0.2.1:5060"), &sent);
    assert_eq!(to, app());
}
