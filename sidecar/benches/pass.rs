//! An 800-byte INVITE from received bytes to bytes that leave, step by step and whole, beside what rsip needs to parse and
//! print it. Absolute times drift with the machine: compare the lines of one run.
//!
//! `cargo bench -p sipwarden-sidecar --bench pass`

#[path = "../shard/tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use common::{KEY, PEER, peer, shard};
use criterion::{Criterion, Throughput};
use rsip::headers::ToTypedHeader;
use rsip::message::HeadersExt;
use sipwarden_session_timer::{Arrival, CallKey, Config, Dialogs, Flow, Leg, Limits, Mode, Policy, Time, Verdict};
use sipwarden_shard::{Intake, Outbox, Outcome, Shard};
use sipwarden_sidecar::metrics::Metrics;
use sipwarden_sidecar::record::{About, Handled, Recorder};
use sipwarden_sip::{Edits, Message};

/// New calls between two shards that start empty.
const CALLS: usize = 1000;

/// An INVITE of exactly 800 bytes with the headers and SDP of a desk phone.
fn invite(call: usize) -> Vec<u8> {
    let sdp = "v=0\r\no=alice 2890844526 2890844526 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n\
               m=audio 49170 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    let head = format!(
        "INVITE sip:bob@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP {PEER};rport;branch=z9hG4bK776asdhds{call:06}\r\n\
         Max-Forwards: 70\r\nFrom: \"Alice\" <sip:alice@example.com>;tag=1928301774\r\nTo: <sip:bob@example.com>\r\n\
         Call-ID: a84b4c76e66710{call:06}@198.51.100.7\r\nCSeq: 314159 INVITE\r\nContact: <sip:alice@{PEER}>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO, REFER, NOTIFY\r\nSupported: timer, 100rel\r\n\
         Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\nContent-Type: application/sdp\r\n\
         Content-Length: {}\r\nUser-Agent: ",
        sdp.len()
    );
    let user_agent = "p".repeat(800 - head.len() - sdp.len() - 4);
    format!("{head}{user_agent}\r\n\r\n{sdp}").into_bytes()
}

fn enforce() -> Policy {
    Policy { mode: Mode::Enforce, ..Policy::observe() }
}

fn pass(shard: &mut Shard, (intake, out): (&mut Intake, &mut Outbox), from: Flow, bytes: &[u8]) {
    out.clear();
    let message = intake.receive(bytes).expect("a valid INVITE");
    let outcome = shard.handle_message(Time::ZERO, from, &message, out);
    assert!(matches!(outcome, Outcome::Forwarded { .. }), "{outcome:?}");
}

/// [`pass`], with what the process remembers of it.
fn remembered_pass(shard: &mut Shard, recorder: &mut Recorder, intake: &mut Intake, out: &mut Outbox, bytes: &[u8]) {
    out.clear();
    let message = intake.receive(bytes).expect("a valid INVITE");
    let outcome = shard.handle_message(Time::ZERO, peer(), &message, out);
    remember(shard, recorder, &Handled { flow: peer(), leg: Leg::Remote, message: &message, outcome }, out);
}

#[inline(never)]
fn remember(shard: &Shard, recorder: &mut Recorder, handled: &Handled, out: &mut Outbox) {
    let cause = recorder.handled(Time::ZERO, handled, shard, out.remote);
    for event in out.events.drain(..) {
        let about = About::of(&event, shard, Some(handled), out.remote);
        recorder.decided(Time::ZERO, event, &about, about.names_user(), cause);
    }
}

/// Half of what a process has by default, as one of two shards would.
fn recorder() -> Recorder {
    Recorder::new(4 << 20, Arc::default(), Arc::new(Metrics::new()))
}

/// The dialogs without the proxy around them.
fn dialogs() -> Dialogs {
    let endpoints = common::endpoints();
    let config = Config { endpoints, limits: Limits::default(), clock_speed: 1, seed: KEY, tag_key: KEY };
    Dialogs::new(config, Arc::new(enforce()))
}

/// What the dialogs alone make of a message.
fn decide(dialogs: &mut Dialogs, message: &Message, edits: &mut Edits) {
    edits.clear();
    let (from, call) = (peer(), CallKey::of(KEY, message.call_id().expect("a Call-ID")));
    let arrival = Arrival { call, flow: from, reply_to: from, via_suffix: b"", peer: Some(from.peer.ip()) };
    let verdict = dialogs.handle_message(Time::ZERO, &arrival, message, edits);
    assert!(matches!(verdict, Verdict::Forward { .. }), "{verdict:?}");
    while dialogs.poll_action().is_some() {}
}

fn rsip_pass(bytes: &[u8]) -> Vec<u8> {
    rsip::SipMessage::try_from(bytes).expect("a valid INVITE").into()
}

/// [`rsip_pass`] with the values read that a pass reads: of what it parses rsip keeps lines of text until it is asked.
fn rsip_read_pass(bytes: &[u8]) -> Vec<u8> {
    let message = rsip::SipMessage::try_from(bytes).expect("a valid INVITE");
    black_box(message.via_header().and_then(|via| via.typed()).expect("a Via"));
    black_box(message.from_header().and_then(|from| from.typed()).expect("a From"));
    black_box(message.to_header().and_then(|to| to.typed()).expect("a To"));
    black_box(message.contact_header().and_then(|contact| contact.typed()).expect("a Contact"));
    black_box(message.cseq_header().and_then(|cseq| cseq.typed()).expect("a CSeq"));
    black_box(message.max_forwards_header().and_then(|hops| hops.num()).expect("Max-Forwards"));
    message.into()
}

/// How long `count` calls take, in batches of all of `calls`, each batch in a shard that starts empty.
fn new_calls(calls: &[Vec<u8>], count: u64, mut handle: impl FnMut(&mut Shard, &[u8])) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = usize::try_from(count).expect("64-bit");
    while left > 0 {
        let mut shard = shard(enforce());
        let batch = left.min(calls.len());
        let start = Instant::now();
        calls[..batch].iter().for_each(|call| handle(&mut shard, call));
        spent += start.elapsed();
        left -= batch;
    }
    spent
}

fn benches(criterion: &mut Criterion) {
    let calls: Vec<_> = (0..CALLS).map(invite).collect();
    assert_eq!(calls[0].len(), 800);
    let mut group = criterion.benchmark_group("pass");
    group.throughput(Throughput::Bytes(800));
    let (mut intake, mut out, from) = (Intake::new(), Outbox::default(), peer());

    group.bench_function("index", |bencher| {
        bencher.iter(|| intake.receive(black_box(&calls[0])).expect("valid").headers_end());
    });
    let (mut dialogs, mut edits, mut sent) = (dialogs(), Edits::new(), Vec::new());
    group.bench_function("index, decide", |bencher| {
        bencher.iter(|| decide(&mut dialogs, &intake.receive(black_box(&calls[0])).expect("valid"), &mut edits));
    });
    group.bench_function("index, decide, render", |bencher| {
        bencher.iter(|| {
            let message = intake.receive(black_box(&calls[0])).expect("valid");
            decide(&mut dialogs, &message, &mut edits);
            sent.clear();
            edits.render(&message, &mut sent);
            black_box(&sent);
        });
    });
    group.bench_function("INVITE of a known call", |bencher| {
        let mut shard = shard(enforce());
        bencher.iter(|| pass(&mut shard, (&mut intake, &mut out), from, black_box(&calls[0])));
    });
    group.bench_function("INVITE of a new call", |bencher| {
        bencher.iter_custom(|count| {
            new_calls(&calls, count, |shard, call| pass(shard, (&mut intake, &mut out), from, call))
        });
    });
    group.bench_function("INVITE of a new call, remembered", |bencher| {
        let mut recorder = recorder();
        bencher.iter_custom(|count| {
            new_calls(&calls, count, |shard, call| remembered_pass(shard, &mut recorder, &mut intake, &mut out, call))
        });
    });
    group.bench_function("rsip parse and print", |bencher| bencher.iter(|| rsip_pass(black_box(&calls[0]))));
    group.bench_function("rsip parse, read and print", |bencher| bencher.iter(|| rsip_read_pass(black_box(&calls[0]))));
    group.finish();
}

fn count_allocations() {
    let calls: Vec<_> = (0..CALLS).map(invite).collect();
    let (mut shard, mut intake, mut out) = (shard(enforce()), Intake::new(), Outbox::default());
    let from = peer();
    let (warm, new) = calls.split_at(CALLS / 2);
    warm.iter().for_each(|call| pass(&mut shard, (&mut intake, &mut out), from, call));
    let known = measure(|| warm.iter().for_each(|call| pass(&mut shard, (&mut intake, &mut out), from, call)));
    let fresh = measure(|| new.iter().for_each(|call| pass(&mut shard, (&mut intake, &mut out), from, call)));
    let rsip = measure(|| drop(rsip_pass(&calls[0])));
    let each = |count: u64| count as f64 / (CALLS / 2) as f64;
    println!("allocations per message: known call {}, new call {}", each(known.count_total), each(fresh.count_total));
    println!("allocations per message: rsip {}", rsip.count_total);
    let (mut shard, mut recorder) = (common::shard(enforce()), recorder());
    warm.iter().for_each(|call| remembered_pass(&mut shard, &mut recorder, &mut intake, &mut out, call));
    let remembered =
        measure(|| new.iter().for_each(|call| remembered_pass(&mut shard, &mut recorder, &mut intake, &mut out, call)));
    println!("allocations per message: new call, remembered {}", each(remembered.count_total));
}

fn main() {
    count_allocations();
    let mut criterion = Criterion::default().configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}
