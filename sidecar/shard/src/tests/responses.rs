//! Where responses go, and what they look like.

use super::super::DropReason;
use super::super::fixture::{LOCAL_TCP, REMOTE_TCP, REMOTE_UDP6};
use super::*;

/// Takes a request through, and the answer of the other side back: where that goes, and as what.
fn round_trip(bench: &mut Bench, from: Flow, request: &Message) -> (Flow, Message<'static>) {
    let (to, sent) = bench.forward(from, request);
    bench.forward(to, &response(&sent, "200 OK"))
}

#[test]
fn a_response_goes_back_without_our_via() {
    let came = request("OPTIONS", "sip:example.com", "Via: SIP/2.0/UDP deeper;branch=z9hG4bKd\n");
    let (to, back) = round_trip(&mut Bench::new(), phone(), &came);
    assert_eq!(to, phone());
    assert_eq!(elements(&back, HeaderName::Via), elements(&came, HeaderName::Via));
}

#[test]
fn a_response_differs_in_our_via_only() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(phone(), &request("OPTIONS", "sip:example.com", ""));
    let text = response_text(&sent, "299 Fine: \u{e9}").replace("Content", "X-Odd :a ,\n b\nk:timer\nContent");
    let came = message(&text);
    let ours = came.first(HeaderName::Via).unwrap();
    let mut expected = came.bytes().to_vec();
    expected.drain(ours.line_start..ours.line_end);
    assert_eq!(bench.forward(to, &came).1.bytes(), expected);
}

#[test]
fn our_via_is_taken_off_a_line_it_shares_and_off_a_compact_one() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(phone(), &request("OPTIONS", "sip:example.com", ""));
    let vias = elements(&sent, HeaderName::Via);
    let text = response_text(&sent, "200 OK");
    let rest: String = text.lines().filter(|line| !line.starts_with("Via")).map(|line| format!("{line}\n")).collect();
    for line in [format!("v: {} , {}", vias[0], vias[1]), format!("V:{},\n {}", vias[0], vias[1])] {
        let came = message(&rest.replacen('\n', &format!("\n{line}\n"), 1));
        let (back_to, back) = bench.forward(to, &came);
        assert_eq!(back_to, phone());
        assert_eq!(elements(&back, HeaderName::Via), vias[1..]);
    }
}

#[test]
fn a_response_finds_the_connection_its_request_came_on() {
    let stream = Flow { connection: 77, ..flow(REMOTE_TCP, "198.51.100.7:40001") };
    let (to, _) = round_trip(&mut Bench::new(), stream, &request("INVITE", "sip:bob@192.0.2.1", ""));
    assert_eq!(to, Flow { connection: 77, ..flow(REMOTE_TCP, "198.51.100.7:5062") });
    let stream = Flow { connection: 78, ..flow(LOCAL_TCP, "127.0.0.1:40001") };
    let (to, _) = round_trip(&mut Bench::new(), stream, &request("INVITE", "sip:bob@198.51.100.9", ""));
    assert_eq!((to.endpoint, to.connection), (LOCAL_TCP, 78));
}

#[test]
fn a_stranger_can_aim_no_response_at_a_port_of_the_pod() {
    let mut bench = Bench::new();
    // The application calls from a port of its own, and its callee knows what our Via says.
    let port = flow(LOCAL_UDP, "127.0.0.1:6000");
    let invite = message(&request_text("INVITE", "sip:bob@198.51.100.9", "").replace(PHONE, "127.0.0.1:6000"));
    let (callee, sent) = bench.forward(port, &invite);
    let ok = response_text(&sent, "200 OK");
    let elsewhere = message(&ok.replace("127.0.0.1:6000", "127.0.0.1:8125"));
    assert_eq!(bench.send(callee, &elsewhere), Outcome::Dropped(DropReason::NoRoute));
    assert_eq!(bench.forward(callee, &message(&ok)).0, port);

    let unsealed = |next: &str| message(&ok.replace(";sw-flow=", ";x=").replace("127.0.0.1:6000", next));
    assert_eq!(bench.send(callee, &unsealed("127.0.0.1:6000")), Outcome::Dropped(DropReason::NoRoute));
    assert_eq!(bench.forward(callee, &unsealed(APP)).0, app(), "the sidecar was made anew while it was on its way");
}

#[test]
fn what_leaves_on_a_stream_says_how_long_it_is() {
    let without = |text: String| message(&text.replace("Content-Length: 4\n", ""));
    let mut bench = Bench::new();
    let came = without(request_text("MESSAGE", "sip:bob@198.51.100.9;transport=tcp", ""));
    let (to, sent) = bench.forward(app(), &came);
    assert_eq!((to.endpoint, elements(&sent, HeaderName::ContentLength)), (REMOTE_TCP, vec!["4".to_owned()]));

    let stream = Flow { connection: 77, ..flow(REMOTE_TCP, "198.51.100.7:40001") };
    let (to, sent) = bench.forward(stream, &request("OPTIONS", "sip:bob@192.0.2.1", ""));
    let (_, back) = bench.forward(to, &without(response_text(&sent, "200 OK")));
    assert_eq!(elements(&back, HeaderName::ContentLength), [back.body().len().to_string()]);

    let (_, sent) = bench.forward(phone(), &without(request_text("MESSAGE", "sip:bob@192.0.2.1", "")));
    assert_eq!(sent.count(HeaderName::ContentLength), 0, "a datagram needs none");
}

#[test]
fn a_response_passes_a_nat_and_ipv6() {
    let text = request_text("INVITE", "sip:bob@192.0.2.1", "").replace(&format!("{PHONE};"), "10.0.0.9:5062;rport;");
    let natted = flow(REMOTE_UDP, "198.51.100.7:31000");
    assert_eq!(round_trip(&mut Bench::new(), natted, &message(&text)).0, natted);
    let text = request_text("INVITE", "sip:bob@192.0.2.1", "").replace(&format!("{PHONE};"), "[2001:db8::7];");
    let six = flow(REMOTE_UDP6, "[2001:db8::7]:5060");
    assert_eq!(round_trip(&mut Bench::new(), six, &message(&text)).0, six);
}

#[test]
fn a_response_that_is_not_for_us_is_dropped() {
    let stray = message(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 203.0.113.5;branch=z9hG4bKx\nFrom: <sip:a@b>;tag=f\nTo: <sip:b@b>;tag=t\n\
         Call-ID: c\nCSeq: 1 OPTIONS\n\n",
    );
    assert_eq!(Bench::new().send(phone(), &stray), Outcome::Dropped(DropReason::NotOurVia));
}

#[test]
fn a_response_with_no_via_behind_ours_has_nowhere_to_go() {
    let ours = message(
        "SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\nFrom: <sip:a@b>;tag=f\nTo: <sip:b@b>;tag=t\n\
         Call-ID: c\nCSeq: 1 OPTIONS\n\n",
    );
    assert_eq!(Bench::new().send(phone(), &ours), Outcome::Dropped(DropReason::NoRoute));
}

#[test]
fn a_2xx_that_reaches_no_caller_starts_no_session() {
    let mut bench = Bench::new();
    let (_, sent) = bench.forward(phone(), &request("INVITE", "sip:bob@192.0.2.1", "Contact: <sip:a@198.51.100.7>\n"));
    let answer = response_text(&sent, "200 OK").replace("<sip:bob@example.com>\n", "<sip:bob@example.com>;tag=t1\n");
    let mut vias = 0;
    let without_caller: Vec<&str> = answer
        .split_inclusive('\n')
        .filter(|line| {
            vias += usize::from(line.starts_with("Via:"));
            !line.starts_with("Via:") || vias == 1
        })
        .collect();
    assert_eq!(vias, 2);
    let outcome = bench.send(app(), &message(&without_caller.concat()));
    assert_eq!((outcome, bench.shard.dialogs().known()), (Outcome::Dropped(DropReason::NoRoute), 0));
    bench.send(app(), &message(&answer));
    assert_eq!(bench.shard.dialogs().known(), 1);
}

#[test]
fn a_faulty_response_is_dropped() {
    let mut bench = Bench::new();
    let (to, sent) = bench.forward(phone(), &request("OPTIONS", "sip:example.com", ""));
    let text = response_text(&sent, "200 OK").replace("CSeq: 1", "CSeq: one");
    assert!(matches!(bench.send(to, &message(&text)), Outcome::Dropped(DropReason::Fault(_))));
}
