//! What one INVITE of about 800 bytes costs on its way through, with rsip's parse and print of the same bytes beside it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sipwarden_sip::check::check;
use sipwarden_sip::frame::Framer;
use sipwarden_sip::{Edits, HeaderName, Message, Slots};

const INVITE: &[u8] = b"INVITE sip:bob@biloxi.example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP pc33.atlanta.example.com:5060;rport;branch=z9hG4bKnashds8\r\nMax-Forwards: 70\r\n\
    Route: <sip:proxy.biloxi.example.com;lr>\r\n\
    From: \"Alice\" <sip:alice@atlanta.example.com>;tag=1928301774\r\nTo: \"Bob\" <sip:bob@biloxi.example.com>\r\n\
    Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\nCSeq: 314159 INVITE\r\n\
    Contact: <sip:alice@pc33.atlanta.example.com:5060>\r\nAllow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE\r\n\
    Supported: timer, replaces\r\nSession-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nUser-Agent: bench/1.0\r\n\
    P-Asserted-Identity: <sip:alice@atlanta.example.com>\r\n\
    Content-Type: application/sdp\r\nContent-Length: 141\r\n\r\n\
    v=0\r\no=alice 2890844526 2890844526 IN IP4 pc33.example.com\r\ns=-\r\nc=IN IP4 192.0.2.101\r\nt=0 0\r\n\
    m=audio 49172 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

fn read(message: &Message) {
    let _ = black_box((message.call_id(), message.from_tag(), message.to_tag(), message.cseq(), message.top_via()));
    let _ = black_box((message.contact(), message.session_expires(), message.min_se()));
    black_box((message.has_token(HeaderName::Supported, "timer"), message.has_token(HeaderName::Require, "timer")));
}

fn edit(message: &Message, edits: &mut Edits, out: &mut Vec<u8>) {
    edits.clear();
    edits.prepend_header(message, HeaderName::Via, &[b"SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK2"]);
    edits.set_header(message, HeaderName::MaxForwards, &[b"69"]);
    edits.add_token(message, HeaderName::Require, "timer");
    out.clear();
    edits.render(message, out);
    black_box(out);
}

fn wire(criterion: &mut Criterion) {
    let mut slots = Slots::new();
    criterion.bench_function("index", |bench| {
        bench.iter(|| black_box(Message::parse(black_box(INVITE), &mut slots).is_ok()));
    });
    let (mut edits, mut out) = (Edits::new(), Vec::new());
    criterion.bench_function("index, check, read, 3 edits, render", |bench| {
        bench.iter(|| {
            let message = Message::parse(black_box(INVITE), &mut slots).expect("the INVITE is well-formed");
            check(&message).expect("the INVITE is fit for a proxy");
            read(&message);
            edit(&message, &mut edits, &mut out);
        });
    });
    let message = Message::parse(INVITE, &mut slots).expect("the INVITE is well-formed");
    criterion.bench_function("accessors", |bench| bench.iter(|| read(black_box(&message))));
    criterion.bench_function("check", |bench| bench.iter(|| check(black_box(&message))));
    criterion.bench_function("3 edits, render", |bench| bench.iter(|| edit(black_box(&message), &mut edits, &mut out)));
    criterion.bench_function("frame", |bench| bench.iter(|| Framer::default().next(black_box(INVITE))));
    criterion.bench_function("rsip parse, print", |bench| {
        bench.iter(|| {
            let message = rsip::SipMessage::try_from(black_box(INVITE)).expect("rsip reads the INVITE");
            black_box(message.to_string())
        });
    });
}

criterion_group!(benches, wire);
criterion_main!(benches);
