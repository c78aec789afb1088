//! For ordinary messages another parser must read the same values. rsip knows no folding, no compact forms and no
//! IPv6, so the messages have none.

use proptest::prelude::*;
use rsip::prelude::*;
use sipwarden_sip::check::{check, max_forwards};
use sipwarden_sip::{Message, Slots};

fn token() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9][a-zA-Z0-9.-]{0,11}"
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| octets.map(|octet| octet.to_string()).join(".")),
        "[a-z]{1,8}\\.example\\.com".prop_map(String::from),
    ]
}

prop_compose! {
    fn request()(
        method in prop::sample::select(vec!["INVITE", "UPDATE", "BYE", "OPTIONS", "ACK", "CANCEL", "INFO", "REGISTER"]),
        (user, host, port) in ("[a-z]{1,8}", host(), 1024u16..),
        (from_tag, to_tag, branch, call_id) in (token(), prop::option::of(token()), token(), token()),
        (cseq, hops) in (0u32..1 << 31, any::<u8>()),
        display in prop_oneof![Just(""), Just("Bob "), Just("\"Bob B\" ")],
        body in "[a-z =\r\n]{0,40}",
    ) -> String {
        let to_tag = to_tag.map(|tag| format!(";tag={tag}")).unwrap_or_default();
        format!(
            "{method} sip:{user}@{host}:{port} SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{branch}\r\n\
             Via: SIP/2.0/TCP last.example.com;branch=z9hG4bKlast\r\nMax-Forwards: {hops}\r\n\
             From: {display}<sip:{user}@{host}>;tag={from_tag}\r\nTo: <sip:{user}@{host}:{port}>{to_tag}\r\n\
             Call-ID: {call_id}@{host}\r\nCSeq: {cseq} {method}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

proptest! {
    #[test]
    fn ordinary_requests_are_read_as_rsip_reads_them(request in request()) {
        let mut slots = Slots::new();
        let ours = Message::parse(request.as_bytes(), &mut slots).unwrap();
        let theirs = rsip::Request::try_from(request.as_bytes()).unwrap();

        prop_assert!(check(&ours).is_ok());
        prop_assert_eq!(text(ours.call_id()).unwrap(), theirs.call_id_header().unwrap().value());
        let cseq = theirs.cseq_header().unwrap().typed().unwrap();
        prop_assert_eq!(ours.cseq().unwrap().number, cseq.seq);
        prop_assert_eq!(text(Some(ours.cseq().unwrap().method_text)).unwrap(), cseq.method.to_string());
        prop_assert_eq!(ours.method().unwrap().as_str(), theirs.method.to_string());
        let tag = |tag: Option<rsip::common::uri::param::Tag>| tag.map(|tag| tag.to_string());
        prop_assert_eq!(text(ours.from_tag()), tag(theirs.from_header().unwrap().tag().unwrap()));
        prop_assert_eq!(text(ours.to_tag()), tag(theirs.to_header().unwrap().tag().unwrap()));
        let via = theirs.via_header().unwrap().typed().unwrap();
        prop_assert_eq!(text(ours.top_via().unwrap().branch).unwrap(), via.branch().unwrap().to_string());
        prop_assert_eq!(text(Some(ours.top_via().unwrap().host)).unwrap(), via.uri.host_with_port.host.to_string());
        let hops = theirs.max_forwards_header().unwrap().num().unwrap();
        prop_assert_eq!(max_forwards(&ours).unwrap().map(u32::from), Some(hops));
        prop_assert_eq!(ours.body(), theirs.body());
    }
}
