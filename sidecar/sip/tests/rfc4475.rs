//! The 49 torture messages of RFC 4475, byte for byte, and what a proxy makes of each.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use sipwarden_sip::check::check;
use sipwarden_sip::message::{Message, ParseError, Slots};
use sipwarden_sip::value::{Scheme, Transport, Uri};
use sipwarden_sip::{Edits, HeaderName, Method};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Indexed and fit to be handled.
    Passes,
    /// A request that is answered with this status.
    Answered(u16),
    /// A response that is dropped, or no SIP message at all.
    Dropped,
}
use Outcome::{Answered, Dropped, Passes};

/// Name, section of RFC 4475, outcome, and why where an endpoint might do otherwise.
const MESSAGES: [(&str, &str, Outcome, &str); 49] = [
    ("wsinv", "3.1.1.1", Passes, ""),
    ("intmeth", "3.1.1.2", Passes, "the method is unknown, which is the endpoint's affair"),
    ("esc01", "3.1.1.3", Passes, ""),
    ("escnull", "3.1.1.4", Passes, ""),
    ("esc02", "3.1.1.5", Passes, "the method is unknown, which is the endpoint's affair"),
    ("lwsdisp", "3.1.1.6", Passes, ""),
    ("longreq", "3.1.1.7", Passes, ""),
    ("dblreq", "3.1.1.8", Passes, "what follows the body in the datagram is ignored"),
    ("semiuri", "3.1.1.9", Passes, ""),
    ("transports", "3.1.1.10", Passes, ""),
    ("mpart01", "3.1.1.11", Passes, ""),
    ("unreason", "3.1.1.12", Passes, ""),
    ("noreason", "3.1.1.13", Passes, ""),
    ("badinv01", "3.1.2.1", Answered(400), "a Via element is empty but for a semicolon"),
    ("clerr", "3.1.2.2", Answered(400), "Content-Length beyond the datagram"),
    ("ncl", "3.1.2.3", Answered(400), "Content-Length below zero"),
    ("scalar02", "3.1.2.4", Answered(400), "CSeq and Max-Forwards out of range"),
    ("scalarlg", "3.1.2.5", Dropped, "a response with a CSeq out of range"),
    ("quotbal", "3.1.2.6", Answered(400), "an open quote in To"),
    ("ltgtruri", "3.1.2.7", Answered(400), "angle brackets around the Request-URI"),
    ("lwsruri", "3.1.2.8", Answered(400), "white space in the Request-URI"),
    ("lwsstart", "3.1.2.9", Answered(400), "two spaces in the request line"),
    ("trws", "3.1.2.10", Answered(400), "spaces behind the version"),
    ("escruri", "3.1.2.11", Answered(400), "header fields in the Request-URI"),
    ("baddate", "3.1.2.12", Passes, "a proxy does not read Date"),
    ("regbadct", "3.1.2.13", Passes, "a registrar rejects the Contact, a proxy passes it"),
    ("badaspec", "3.1.2.14", Answered(400), "white space inside the To address"),
    ("baddn", "3.1.2.15", Passes, "the display names could only be meant in one way"),
    ("badvers", "3.1.2.16", Answered(505), ""),
    ("mismatch01", "3.1.2.17", Answered(400), "CSeq names another method"),
    ("mismatch02", "3.1.2.18", Answered(400), "CSeq names another method; 501 is the endpoint's"),
    ("bigcode", "3.1.2.19", Dropped, "a status code out of range"),
    ("badbranch", "3.2.1", Passes, "the branch is no RFC 3261 identifier, but a legal token"),
    ("insuf", "3.3.1", Answered(400), "Call-ID, From and To are missing"),
    ("unkscm", "3.3.2", Answered(416), ""),
    ("novelsc", "3.3.3", Answered(416), ""),
    ("unksm2", "3.3.4", Passes, "To and From may name any scheme"),
    ("bext01", "3.3.5", Passes, "420 for Proxy-Require is the router's, for Require the endpoint's"),
    ("invut", "3.3.6", Passes, "415 is the endpoint's"),
    ("regaut01", "3.3.7", Passes, "the registrar judges Authorization"),
    ("multi01", "3.3.8", Answered(400), "Call-ID, CSeq, From, To and Max-Forwards stand twice"),
    ("mcl01", "3.3.9", Answered(400), "two Content-Length that differ"),
    ("bcast", "3.3.10", Passes, "the top Via is not ours: the router drops it"),
    ("zeromf", "3.3.11", Passes, "483 is the router's"),
    ("cparam01", "3.3.12", Passes, ""),
    ("cparam02", "3.3.13", Passes, ""),
    ("regescrt", "3.3.14", Passes, ""),
    ("sdp01", "3.3.15", Passes, "406 is the endpoint's"),
    ("inv2543", "3.4.1", Passes, "no From tag, no Max-Forwards, no branch: RFC 2543"),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/rfc4475")
}

fn bytes(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.dat"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Parses a message that must be indexable and hands it to `read`.
fn read<R>(name: &str, read: impl FnOnce(&Message) -> R) -> R {
    let bytes = bytes(name);
    let mut slots = Slots::new();
    let message = Message::parse(&bytes, &mut slots).unwrap_or_else(|error| panic!("{name}: {error}"));
    read(&message)
}

fn outcome(bytes: &[u8]) -> Outcome {
    let mut slots = Slots::new();
    let answered = |message: &Message, status| if message.method().is_some() { Answered(status) } else { Dropped };
    match Message::parse(bytes, &mut slots) {
        Ok(message) => check(&message).map_or_else(|fault| answered(&message, fault.status().0), |_| Passes),
        Err(ParseError::Truncated | ParseError::ContentLength) => {
            let mut slots = Slots::new();
            Message::parse_head(bytes, &mut slots).map_or(Dropped, |message| answered(&message, 400))
        }
        Err(_) => Dropped,
    }
}

#[test]
fn every_message_has_its_outcome() {
    for (name, section, expected, why) in MESSAGES {
        assert_eq!(outcome(&bytes(name)), expected, "{name} (RFC 4475 section {section}) {why}");
    }
}

#[test]
fn the_data_are_exactly_the_messages_of_the_table() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| file.strip_suffix(".dat").map(str::to_owned))
        .collect();
    assert_eq!(files.len(), 49);
    assert_eq!(files, MESSAGES.iter().map(|(name, ..)| (*name).to_owned()).collect());
}

#[test]
fn messages_that_pass_leave_byte_for_byte() {
    for (name, _, outcome, _) in MESSAGES {
        if outcome == Passes {
            let (bytes, mut out) = (bytes(name), Vec::new());
            read(name, |message| Edits::new().render(message, &mut out));
            let (message, behind) = bytes.split_at(out.len());
            assert_eq!(out, message, "{name}");
            assert_eq!(behind.is_empty(), name != "dblreq", "{name}");
        }
    }
}

#[test]
fn wsinv_is_read_through_its_folds() {
    read("wsinv", |message| {
        let cseq = message.cseq().unwrap();
        assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
        let via = message.top_via().unwrap();
        assert_eq!((via.transport, via.host, via.branch), (Transport::Udp, &b"192.0.2.2"[..], Some(&b"390skdjuw"[..])));
        assert_eq!(message.elements(HeaderName::Via).count(), 3);
        assert_eq!((message.from_tag(), message.to_tag()), (Some(&b"98asjd8"[..]), Some(&b"1918181833n"[..])));
        assert_eq!(message.from().unwrap().display, br#""J Rosenberg \\\"""#);
        let contact = message.contact().unwrap();
        assert_eq!((contact.uri, contact.param("newparam")), (&b"sip:jdrosen@example.com"[..], Some(&b"newvalue"[..])));
        assert_eq!((contact.param("secondparam"), contact.param("Q")), (Some(&b""[..]), Some(&b"0.33"[..])));
        assert_eq!(message.body().len(), 150);
    });
}

#[test]
fn intmeth_keeps_its_unusual_bytes() {
    read("intmeth", |message| {
        assert_eq!(message.method(), Some(Method::Other));
        assert_eq!(message.cseq().unwrap().method_text, b"!interesting-Method0123456789_*+`.%indeed'~");
        assert_eq!(message.to().unwrap().display, b"\"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f\"");
        assert_eq!(message.from_tag(), Some(&b"_token~1'+`*%!-."[..]));
        let uri = Uri::parse(message.request_uri().unwrap()).unwrap();
        assert_eq!(uri.host, b"example.com");
        assert!(uri.user.ends_with(b"(doesn't-it)"));
    });
}

#[test]
fn escapes_are_left_alone() {
    read("esc01", |message| {
        assert_eq!(Uri::parse(message.request_uri().unwrap()).unwrap().user, b"sips%3Auser%40example.com");
        assert_eq!(message.contact().unwrap().uri, b"sip:cal%6Cer@host5.example.net;%6C%72;n%61me=v%61lue%25%34%31");
    });
    read("esc02", |message| {
        assert_eq!(message.method(), Some(Method::Other));
        assert_eq!(message.elements(HeaderName::Contact).count(), 2);
    });
    read("escnull", |message| assert_eq!(message.elements(HeaderName::Contact).count(), 2));
}

#[test]
fn parameters_stand_where_the_brackets_put_them() {
    read("semiuri", |message| {
        let uri = Uri::parse(message.request_uri().unwrap()).unwrap();
        assert_eq!((uri.user, uri.host), (&b"user;par=u%40example.net"[..], &b"example.com"[..]));
    });
    read("cparam01", |message| assert_eq!(message.contact().unwrap().param("unknownparam"), Some(&b""[..])));
    read("cparam02", |message| {
        let contact = message.contact().unwrap();
        assert_eq!(contact.param("unknownparam"), None);
        assert_eq!(contact.parse_uri().unwrap().param("unknownparam"), Some(&b""[..]));
    });
    read("regescrt", |message| {
        assert_eq!(message.contact().unwrap().parse_uri().unwrap().headers, b"?Route=%3Csip:sip.example.com%3E");
    });
}

#[test]
fn long_and_many_headers_are_read_to_the_end() {
    read("longreq", |message| {
        let vias: Vec<_> = message.elements(HeaderName::Via).collect();
        assert_eq!(vias.len(), 34);
        assert!(vias[33].1.ends_with(b"branchvalue"));
        assert_eq!(message.from_tag().unwrap().len(), 155);
        assert_eq!(message.to().unwrap().parse_uri().unwrap().port, Some(6000));
    });
    read("transports", |message| {
        let transports: Vec<_> = message
            .elements(HeaderName::Via)
            .map(|(offset, via)| sipwarden_sip::value::Via::parse(via, offset).unwrap().transport)
            .collect();
        assert_eq!(transports, [Transport::Udp, Transport::Other, Transport::Tls, Transport::Other, Transport::Tcp]);
    });
}

#[test]
fn bodies_end_where_content_length_says() {
    read("dblreq", |message| {
        assert_eq!((message.method(), message.body()), (Some(Method::Register), &b""[..]));
    });
    read("mpart01", |message| {
        assert_eq!(message.body().len(), 553);
        assert!(message.body().ends_with(b"--7a9cbec02ceef655--\r\n"));
    });
    read("inv2543", |message| {
        assert!(message.body().starts_with(b"v=0\r\n") && message.body().ends_with(b"RTP/AVP 0\r\n"));
        assert_eq!((message.from_tag(), message.top_via().unwrap().branch), (None, None));
    });
}

#[test]
fn responses_show_their_status() {
    read("unreason", |message| assert_eq!(message.status(), Some(200)));
    read("noreason", |message| assert_eq!(message.status(), Some(100)));
    read("bcast", |message| assert_eq!(message.top_via().unwrap().host, b"192.0.2.198"));
}

#[test]
fn what_the_router_needs_is_there() {
    read("bext01", |message| {
        assert!(message.has_token(HeaderName::ProxyRequire, "noProxiesSupportThis"));
        let tokens: Vec<_> = message.elements(HeaderName::ProxyRequire).map(|(_, token)| token).collect();
        assert_eq!(tokens, [&b"noProxiesSupportThis"[..], b"norDoAnyProxiesSupportThis"]);
    });
    read("zeromf", |message| assert_eq!(sipwarden_sip::check::max_forwards(message), Ok(Some(0))));
    read("unksm2", |message| {
        assert_eq!(message.to().unwrap().parse_uri().unwrap().scheme, Scheme::Other);
    });
}
