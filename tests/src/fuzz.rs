//! Fuzz targets: each takes bytes from anywhere and panics when a promise about them does not hold.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use sipwarden_session_timer::{Endpoint, Flow, Leg, Limits, Mode, Policy, Time, Timers};
use sipwarden_shard::{Intake, Outbox, Shard, ShardConfig};
use sipwarden_sip::check::check;
use sipwarden_sip::frame::{Frame, Framer};
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Edits, HeaderName, Message, Slots};

use crate::sim::message::{Sip, Style};

/// One change to a seed: what to do, where, for how many bytes, with which byte.
pub type Mutation = (u8, u16, u8, u8);

/// What a mutation likes to put in: separators, and what the headers of session timers are made of.
const MORSELS: [&[u8]; 16] = [
    b"\r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b";",
    b",",
    b"\"",
    b"<",
    b">",
    b":",
    b"Session-Expires: 1800;refresher=uac\r\n",
    b"x:90\r\n",
    b"Min-SE: 4294967296\r\n",
    b"Require: timer\r\n",
    b"Route: <sip:192.0.2.1;lr>\r\n",
    b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK0\r\n",
    b"Content-Length: 0\r\n",
];

/// The messages of RFC 4475, and a call with session timers.
pub fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/sip/testdata/rfc4475");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a directory entry").path()).collect();
    paths.sort();
    let messages = paths.iter().map(|path| std::fs::read(path).expect("a readable file"));
    messages.chain(call()).collect()
}

/// INVITE, ACK, UPDATE, re-INVITE, INFO and BYE of one call that comes from the remote side.
pub fn call() -> Vec<Vec<u8>> {
    let message = |method: &str, to: &str, cseq: u32, more: &str| {
        format!(
            "{method} sip:b@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK{cseq}{method}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@192.0.2.9>;tag=a\r\nTo: <sip:b@192.0.2.1>{to}\r\nCall-ID: c\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:a@192.0.2.9>\r\n{more}Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    };
    let timer = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
    vec![
        message("INVITE", "", 1, timer),
        message("ACK", ";tag=b", 1, ""),
        message("UPDATE", ";tag=b", 2, timer),
        message("INVITE", ";tag=b", 3, timer),
        message("INFO", ";tag=b", 4, ""),
        message("BYE", ";tag=b", 5, ""),
    ]
}

/// `seed` after `mutations`.
pub fn mutate(seed: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for &(what, at, len, byte) in mutations {
        let at = usize::from(at) % (bytes.len() + 1);
        let end = (at + usize::from(len)).min(bytes.len());
        match what % 6 {
            0 => bytes.insert(at, byte),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(byte),
            3 => drop(bytes.splice(at..at, MORSELS[usize::from(byte) % MORSELS.len()].iter().copied())),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => bytes.truncate(end),
        }
    }
    bytes
}

/// A stream gives the same messages however it is cut into reads.
pub fn framing(stream: &[u8], read: RangeInclusive<usize>) {
    let whole = frames(stream, stream.len().max(1));
    let (messages, failed) = &whole;
    for size in read {
        assert_eq!(frames(stream, size.max(1)), whole, "in reads of {size}");
    }
    let total: usize = messages.iter().map(Vec::len).sum();
    assert!(total <= stream.len());
    assert!(messages.iter().all(|message| !message.is_empty() || *failed));
}

/// The messages of a stream read in pieces of `size`, and whether it had to be given up.
fn frames(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut framer, mut buffer, mut messages) = (Framer::default(), Vec::new(), Vec::new());
    for piece in stream.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            let used = match framer.next(&buffer) {
                Err(_) => return (messages, true),
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Ping { len } | Frame::Blank { len }) => len,
                Ok(Frame::Message { skip, len }) => {
                    messages.push(buffer[skip..skip + len].to_vec());
                    skip + len
                }
            };
            assert!(used > 0, "a frame of nothing is found for ever");
            buffer.drain(..used);
            if buffer.is_empty() {
                break;
            }
        }
    }
    (messages, false)
}

/// Whatever is indexed can be read: every line is where it says, in order, and no accessor panics.
pub fn index(bytes: &[u8]) {
    let mut slots = Slots::new();
    let Ok(message) = Message::parse(bytes, &mut slots) else { return };
    let mut end = None;
    for header in message.headers() {
        assert!(end.is_none_or(|end| end == header.line_start), "lines leave no gap");
        assert!(header.line_start < header.value_start && header.value_start + header.value.len() <= header.line_end);
        assert_eq!(message.bytes()[header.value_start..][..header.value.len()], *header.value);
        for (at, element) in header.elements() {
            assert!(at >= header.value_start && at + element.len() <= header.line_end && !element.is_empty());
        }
        end = Some(header.line_end);
    }
    assert!(end.is_none_or(|end| end == message.headers_end()));
    let whole = message.bytes().len();
    assert!(message.headers_end() + message.body().len() <= whole);
    let _ = (message.cseq(), message.from_tag(), message.to_tag(), message.top_via(), message.contact());
    let _ = (message.session_expires(), message.min_se(), message.call_id(), check(&message));
}

/// Without edits nothing changes; with edits only what they name does.
pub fn edit_round_trip(bytes: &[u8]) {
    let mut slots = Slots::new();
    let Ok(message) = Message::parse(bytes, &mut slots) else { return };
    let mut edits = Edits::new();
    let mut same = Vec::new();
    edits.render(&message, &mut same);
    assert_eq!(same, message.bytes());

    edits.prepend_header(&message, HeaderName::Via, &[b"SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKf"]);
    edits.append_header(&message, HeaderName::MinSe, &[b"90"]);
    edits.set_header(&message, HeaderName::SessionExpires, &[b"1800"]);
    edits.add_token(&message, HeaderName::Require, "timer");
    edits.remove_first_elements(&message, HeaderName::Route, 1);
    let mut changed = Vec::new();
    edits.render(&message, &mut changed);
    let mut slots = Slots::new();
    let Ok(edited) = Message::parse(&changed, &mut slots) else {
        assert!(message.headers().count() + 4 > sipwarden_sip::message::MAX_HEADERS, "an edit made it unreadable");
        return;
    };
    assert_eq!(edited.body(), message.body());
    assert_eq!(edited.top_via().ok().and_then(|via| via.branch), Some(&b"z9hG4bKf"[..]));
    // A Require of anything but tokens may swallow what is added to it.
    let is_list = message.all(HeaderName::Require).all(|header| !header.value.iter().any(|byte| b"\"<".contains(byte)));
    assert!(edited.has_token(HeaderName::Require, "timer") || !is_list);
    assert_eq!(edited.first(HeaderName::SessionExpires).map(|header| header.value), Some(&b"1800"[..]));
    let routes =
        |message: &Message| message.elements(HeaderName::Route).map(|(_, route)| route.to_vec()).collect::<Vec<_>>();
    assert_eq!(routes(&edited), routes(&message).into_iter().skip(1).collect::<Vec<_>>());
    let others = |message: &Message| -> Vec<Vec<u8>> {
        let other = message.headers().filter(|header| header.name == HeaderName::Other);
        other.map(|header| message.bytes()[header.line_start..header.line_end].to_vec()).collect()
    };
    assert_eq!(others(&edited), others(&message));
}

/// What happens next to the shard.
#[derive(Clone, Debug)]
pub enum Step {
    /// These bytes come from that side.
    Packet(Leg, Vec<u8>),
    /// One of the requests it forwarded, counted from the last, is answered with this status by a text so mutated.
    Answer(u8, u16, Vec<Mutation>),
}

/// Steps with pauses in milliseconds before them: the shard answers, forwards or drops, what it sends is SIP, and in the
/// end it remembers nothing. Gives how many sessions there were.
pub fn sequence(steps: &[(u32, Step)]) -> usize {
    let (mut shard, mut intake, mut out) = (shard(), Intake::new(), Outbox::default());
    let (mut now, mut sessions, mut forwarded) = (0, 0, Vec::new());
    for (pause, step) in steps {
        now += u64::from(*pause);
        run_until(&mut shard, now, &mut out);
        out.clear();
        let (leg, bytes) = match step {
            Step::Packet(leg, bytes) => (*leg, bytes.clone()),
            Step::Answer(back, status, mutations) => match answer(&forwarded, *back, *status) {
                Some((leg, bytes)) => (leg, mutate(&bytes, mutations)),
                None => continue,
            },
        };
        if let Ok(message) = intake.receive(&bytes) {
            shard.handle_message(Time::from_millis(now), flow(leg), &message, &mut out);
            check_outbox(&out);
        }
        let packets = out.packets.iter().map(|packet| (packet.flow, out.packet(packet).to_vec()));
        forwarded.extend(packets.filter(|(_, bytes)| !bytes.starts_with(b"SIP/")));
        sessions = sessions.max(shard.dialogs().known());
    }
    run_until(&mut shard, u64::MAX, &mut out);
    assert_eq!((shard.dialogs().known(), shard.dialogs().active()), (0, 0), "every session ends");
    sessions
}

/// The answer to a forwarded request, from the side it went to.
fn answer(forwarded: &[(Flow, Vec<u8>)], back: u8, status: u16) -> Option<(Leg, Vec<u8>)> {
    let (flow, request) = forwarded.iter().rev().nth(usize::from(back) % forwarded.len().max(1))?;
    let request = Sip::parse(request).ok()?;
    let mut response = Sip::response(&request, status, "b");
    for name in ["Record-Route", "Session-Expires", "Supported", "Contact"] {
        request.all(name).for_each(|value| response.push(name, value));
    }
    if status == 422 {
        response.push("Min-SE", "300");
    }
    Some((if flow.endpoint == 0 { Leg::Remote } else { Leg::Local }, response.bytes(Style::default())))
}

fn run_until(shard: &mut Shard, until: u64, out: &mut Outbox) {
    while let Some(due) = shard.next_timeout().filter(|due| due.as_millis() <= until) {
        out.clear();
        shard.handle_timeout(due, out);
        check_outbox(out);
        assert!(shard.next_timeout().is_none_or(|next| next > due), "a deadline in the past");
    }
}

fn check_outbox(out: &Outbox) {
    let mut slots = Slots::new();
    for packet in &out.packets {
        let bytes = out.packet(packet);
        let message = Message::parse(bytes, &mut slots);
        assert!(message.is_ok(), "it sent what it cannot read: {}", String::from_utf8_lossy(bytes));
    }
}

fn shard() -> Shard {
    let address = |leg: Leg| if leg == Leg::Remote { "192.0.2.1:5060" } else { "127.0.0.1:5062" };
    let endpoint = |leg| Endpoint { leg, transport: Transport::Udp, sent_by: address(leg).into() };
    let legs = [Leg::Remote, Leg::Local];
    let config = ShardConfig {
        endpoints: legs.map(endpoint).to_vec(),
        bound: legs.map(|leg| address(leg).parse().expect("an address")).to_vec(),
        app: flow(Leg::Local),
        next_hop: None,
        limits: Limits { per_call: 4, ..Limits::default() },
        clock_speed: 1,
        key: 7,
    };
    let timers = Timers::new(1800, 90, 7200).expect("a valid policy");
    let policy = Policy { name: "fuzz".into(), mode: Mode::Enforce, timers, rules: Vec::new() };
    Shard::new(Arc::new(config), Arc::new(policy), 0)
}

fn flow(leg: Leg) -> Flow {
    let (endpoint, peer) = match leg {
        Leg::Remote => (0, "192.0.2.9:5060"),
        Leg::Local => (1, "127.0.0.1:5070"),
    };
    Flow { endpoint, connection: 0, peer: peer.parse::<SocketAddr>().expect("an address") }
}
