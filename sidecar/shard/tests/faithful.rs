//! Whatever a valid message holds, what leaves differs only in the lines that are a proxy's own.

mod common;
mod untouchable;

use common::{PEER, app, peer, shard};
use proptest::prelude::*;
use sipwarden_session_timer::{Flow, Policy, Time};
use sipwarden_shard::{Intake, Outbox, Outcome, Shard};
use untouchable::untouchable;

/// Forwards one message: where it went, and as what.
fn forward(shard: &mut Shard, from: Flow, bytes: &[u8]) -> (Flow, Vec<u8>) {
    let (mut intake, mut out) = (Intake::new(), Outbox::default());
    let message = intake.receive(bytes).expect("a message");
    let outcome = shard.handle_message(Time::ZERO, from, &message, &mut out);
    assert_eq!(outcome, Outcome::Forwarded { edited: false }, "{}", String::from_utf8_lossy(bytes));
    assert_eq!(out.packets.len(), 1);
    (out.packets[0].flow, out.packet(&out.packets[0]).to_vec())
}

fn method() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("OPTIONS".to_owned()),
        Just("REGISTER".to_owned()),
        Just("MESSAGE".to_owned()),
        Just("SUBSCRIBE".to_owned()),
        Just("BYE".to_owned()),
        Just("UPDATE".to_owned()),
        "[A-Z]{3,9}-[!%*_+`'~a-z]{1,4}",
    ]
}

/// A header line that is none of ours, with what RFC 3261 allows in white space, case, folding and bytes.
fn other_line() -> impl Strategy<Value = String> {
    let folds = prop_oneof![Just(""), Just(" "), Just("\t "), Just("\r\n "), Just(" \r\n\t")];
    let value = prop_oneof![
        "[ -~\u{a0}-\u{24f}]{0,40}",
        Just("1800 ; refresher = UAS".to_owned()),
        Just("timer,\r\n 100rel ,, x".to_owned()),
        Just("\"quoted, \\\" <sip:x>\" <sip:a@b;p=1?h=v>;q=0.7".to_owned()),
    ];
    let name = prop_oneof![
        Just("Session-Expires"),
        Just("x"),
        Just("MIN-SE"),
        Just("supported"),
        Just("k"),
        Just("Require"),
        Just("Contact"),
        Just("m"),
        Just("X-Odd"),
        Just("Record-Route"),
        Just("User-Agent"),
        Just("Subject"),
        Just("Content-Type"),
    ];
    (name, folds.clone(), folds, value)
        .prop_map(|(name, before, after, value)| format!("{name}{}:{after}{value}\r\n", before.replace("\r\n", "")))
}

fn route_line() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("Route: <sip:192.0.2.1:5060;lr>\r\n"),
        Just("Route: <sip:192.0.2.1:5060;lr>\r\nroute:<sip:127.0.0.1:5070;lr>\r\n"),
        Just("Route: <sip:192.0.2.1:5060;lr>\r\nRoute: <sip:p.example.com;lr> ,\r\n <sip:q@r;lr>;x=\"y\"\r\n"),
        Just("ROUTE : \"P\" <sip:p.example.com:5099;lr;transport=tcp>\r\n"),
    ]
}

fn top_via() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(format!("Via: SIP/2.0/UDP {PEER};branch=z9hG4bK-1\r\n")),
        Just(format!("v:SIP / 2.0 / UDP\r\n {PEER} ; branch = z9hG4bK-1 ,\r\n SIP/2.0/TCP deep.example.com\r\n")),
        Just(
            "VIA: SIP/2.0/UDP pc33.example.com;x=\";received=\";branch=z9hG4bK-1\r\nVia: SIP/2.0/SCTP [::1]\r\n"
                .to_owned()
        ),
    ]
}

/// The lines that every message has, and the body.
fn rest(method: String, lines: Vec<String>, tag: bool, body: Vec<u8>) -> Vec<u8> {
    let tag = if tag { ";tag=t" } else { "" };
    let (before, after) = lines.split_at(lines.len() / 2);
    let head = format!(
        "{}f: \"A\" <sip:a@example.com>;tag=f\r\nTo : <sip:b@example.com>{tag}\r\ni: call@host\r\ncseq:7 {method}\r\n{}l:{}\r\n\r\n",
        before.concat(),
        after.concat(),
        body.len(),
    );
    [head.into_bytes(), body].concat()
}

proptest! {
    #[test]
    fn a_forwarded_request_is_the_request_that_came(
        method in method(), via in top_via(), route in route_line(), lines in prop::collection::vec(other_line(), 0..8),
        hops in prop_oneof![Just("Max-Forwards: 0070\r\n"), Just("max-forwards\t:  9\r\n"), Just("")],
        tag in any::<bool>(), body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let start = format!("{method} sip:b@example.com;x=%20 SIP/2.0\r\n{via}{route}{hops}");
        let came = [start.into_bytes(), rest(method, lines, tag, body)].concat();
        let (to, sent) = forward(&mut shard(Policy::observe()), peer(), &came);
        prop_assert_eq!(to, app());
        prop_assert_eq!(untouchable(&sent, 1), untouchable(&came, 0));
    }

    #[test]
    fn a_forwarded_response_is_the_response_that_came_less_our_via(
        method in method(), lines in prop::collection::vec(other_line(), 0..8), via in top_via(),
        reason in "[ -~\u{a0}-\u{24f}]{0,20}", body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut shard = shard(Policy::observe());
        let request = format!("{method} sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};branch=z9hG4bK-1\r\n");
        let (_, sent) = forward(&mut shard, peer(), &[request.into_bytes(), rest(method.clone(), vec![], false, vec![])].concat());
        let ours = sent.split(|byte| *byte == b'\n').nth(1).expect("our Via");
        let via = via.replace("pc33.example.com", PEER);
        let head = [b"SIP/2.0 299 ", reason.as_bytes(), b"\r\n", ours, b"\n", via.as_bytes()].concat();
        let came = [head, rest(method, lines, true, body)].concat();
        let (to, sent) = forward(&mut shard, app(), &came);
        prop_assert_eq!(to, peer());
        prop_assert_eq!(untouchable(&sent, 0), untouchable(&came, 1));
    }
}
