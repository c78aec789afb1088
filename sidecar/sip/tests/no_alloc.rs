//! A message goes through the crate without a single allocation once the buffers are warm.

use allocation_counter::measure;
use sipwarden_sip::build::{RequestParts, Responder, request};
use sipwarden_sip::check::check;
use sipwarden_sip::frame::Framer;
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Edits, HeaderName, Message, Method, Slots};

const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;rport;branch=z9hG4bK1\r\n\
    Max-Forwards: 70\r\nRoute: <sip:192.0.2.9;lr>, <sip:192.0.2.8;lr>\r\nFrom: \"A\" <sip:a@example.com>;tag=1\r\n\
    To: <sip:bob@example.com>\r\nCall-ID: 1@a\r\nCSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.1>\r\nSupported: timer, 100rel\r\n\
    Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nContent-Length: 4\r\n\r\nbody";

fn pass_through(slots: &mut Slots, edits: &mut Edits, out: &mut Vec<u8>) {
    let message = Message::parse(INVITE, slots).expect("the INVITE is well-formed");
    assert_eq!(check(&message).map(drop), Ok(()));
    assert!(message.call_id().is_some() && message.from_tag().is_some() && message.to_tag().is_none());
    assert!(message.contact().is_some() && message.has_token(HeaderName::Supported, "TIMER"));
    assert_eq!(message.cseq().map(|cseq| cseq.number), Ok(1));
    assert!(message.session_expires().is_ok_and(|found| found.is_some()));
    assert_eq!(message.min_se(), Ok(Some(90)));
    edits.clear();
    edits.prepend_header(&message, HeaderName::Via, &[b"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK2"]);
    edits.prepend_header(&message, HeaderName::RecordRoute, &[b"<sip:192.0.2.7;lr>"]);
    edits.remove_first_elements(&message, HeaderName::Route, 1);
    edits.set_header(&message, HeaderName::MaxForwards, &[b"69"]);
    edits.add_token(&message, HeaderName::Require, "timer");
    out.clear();
    edits.render(&message, out);
}

#[test]
fn a_forwarded_message_costs_no_allocation() {
    let (mut slots, mut edits, mut out) = (Slots::new(), Edits::new(), Vec::new());
    pass_through(&mut slots, &mut edits, &mut out);
    let cost = measure(|| pass_through(&mut slots, &mut edits, &mut out));
    assert_eq!(cost.count_total, 0);
    assert!(out.len() > INVITE.len());
}

#[test]
fn framing_costs_no_allocation() {
    let mut framer = Framer::default();
    let cost = measure(|| assert!((0..=INVITE.len()).all(|len| framer.next(&INVITE[..len]).is_ok())));
    assert_eq!(cost.count_total, 0);
}

#[test]
fn messages_of_our_own_cost_no_allocation() {
    let (mut slots, mut out) = (Slots::new(), Vec::with_capacity(4096));
    let message = Message::parse(INVITE, &mut slots).unwrap();
    let responder = Responder::new(1);
    let cost = measure(|| {
        responder.respond(
            &message,
            422,
            "Session Interval Too Small",
            b";received=192.0.2.1",
            b"Min-SE: 90\r\n",
            &mut out,
        );
        let parts = RequestParts {
            method: Method::Bye,
            target: b"sip:bob@example.com",
            routes: b"<sip:192.0.2.9>, <sip:192.0.2.8;lr>",
            transport: Transport::Udp,
            sent_by: "192.0.2.7",
            branch: "z9hG4bK3",
            from: b"<sip:a@example.com>;tag=1",
            to: b"<sip:bob@example.com>;tag=2",
            call_id: b"1@a",
            cseq: 2,
            extra: b"",
            body: b"",
        };
        request(&parts, &mut out);
    });
    assert_eq!(cost.count_total, 0);
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(vec![0u8; 16]))).count_total, 1);
}
