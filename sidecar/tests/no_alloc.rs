//! Once warm, a forwarded message costs no allocation in the proxy.

mod common;

use allocation_counter::measure;
use common::{PEER, app, peer, shard};
use sipwarden_session_timer::{Flow, Policy, Time};
use sipwarden_sidecar::shard::{Intake, Outbox, Outcome, Shard};

fn request(method: &str, lines: &str) -> Vec<u8> {
    format!(
        "{method} sip:bob@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};rport;branch=z9hG4bK-1\r\n{lines}Max-Forwards: 70\r\n\
         From: <sip:a@example.com>;tag=f\r\nTo: <sip:b@example.com>\r\nCall-ID: call@host\r\nCSeq: 1 {method}\r\n\
         Supported: timer\r\nSession-Expires: 1800\r\nContact: <sip:a@{PEER}>\r\nContent-Length: 4\r\n\r\nbody"
    )
    .into_bytes()
}

/// The answer of the application to what was forwarded last.
fn answer(out: &Outbox) -> Vec<u8> {
    let sent = String::from_utf8(out.packet(&out.packets[0]).to_vec()).expect("text");
    let (_, headers) = sent.split_once("\r\n").expect("a start line");
    format!("SIP/2.0 180 Ringing\r\n{headers}").into_bytes()
}

fn pass(shard: &mut Shard, intake: &mut Intake, out: &mut Outbox, from: Flow, bytes: &[u8]) {
    out.clear();
    let message = intake.receive(bytes).expect("a message");
    let outcome = shard.handle_message(Time::ZERO, from, &message, out);
    assert_eq!(outcome, Outcome::Forwarded { edited: false });
}

#[test]
fn a_forwarded_message_costs_no_allocation_once_warm() {
    let (mut shard, mut intake, mut out) = (shard(Policy::observe()), Intake::new(), Outbox::default());
    let routes = "Route: <sip:192.0.2.1;lr>, <sip:127.0.0.1:5070;lr>\r\n";
    for (method, lines) in [("OPTIONS", ""), ("REGISTER", routes), ("INVITE", ""), ("INVITE", routes), ("CANCEL", "")] {
        let request = request(method, lines);
        pass(&mut shard, &mut intake, &mut out, peer(), &request);
        let again = measure(|| pass(&mut shard, &mut intake, &mut out, peer(), &request));
        assert_eq!(again.count_total, 0, "{method}");
        let response = answer(&out);
        pass(&mut shard, &mut intake, &mut out, app(), &response);
        let again = measure(|| pass(&mut shard, &mut intake, &mut out, app(), &response));
        assert_eq!(again.count_total, 0, "the response to {method}");
    }
}
