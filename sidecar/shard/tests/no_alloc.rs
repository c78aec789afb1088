//! What a forwarded message costs in allocations once the buffers are warm: none, unless more than before has to be
//! remembered of its call. That is so of an INVITE that begins one, and of its 2xx; in a session of the first re-INVITE or
//! UPDATE, of one with another Contact, of the first twelve things that its time line shows; and where the sidecar stands in
//! for the application, of each of its INVITEs and UPDATEs, which a 422 would have sent once more.

mod common;

use std::time::Duration;

use allocation_counter::measure;
use common::{PEER, app, peer, shard};
use sipwarden_session_timer::{Flow, Leg, Mode, Policy, Time};
use sipwarden_shard::{Intake, Outbox, Outcome, Shard};

const APP: &str = "127.0.0.1:5080";
/// The most that the beginning of a call may cost: what its INVITE says, what is known of both sides at its 2xx, and places
/// in the tables.
const BEGINNING: u64 = 14;

/// A sidecar whose buffers grow no more after a while.
struct Sidecar {
    shard: Shard,
    intake: Intake,
    out: Outbox,
    now: Time,
}

impl Sidecar {
    fn new(mode: Mode) -> Sidecar {
        let policy = Policy { mode, ..Policy::observe() };
        Sidecar { shard: shard(policy), intake: Intake::new(), out: Outbox::default(), now: Time::ZERO }
    }

    /// Hands in a message that must go on, a second after the last; the allocations it took, and how it left.
    fn pass(&mut self, from: Flow, bytes: &[u8]) -> (u64, String) {
        let Sidecar { shard, intake, out, now } = self;
        *now = *now + Duration::from_secs(1);
        let cost = measure(|| {
            out.clear();
            let message = intake.receive(bytes).expect("a message");
            let outcome = shard.handle_message(*now, from, &message, out);
            assert!(matches!(outcome, Outcome::Forwarded { .. }), "{outcome:?}");
        });
        let left = String::from_utf8(out.packet(&out.packets[0]).to_vec()).expect("text");
        (cost.count_total, left)
    }
}

/// A call of the peer. Requests name both sides of the sidecar in Route, as they stood in Record-Route.
struct Call {
    number: u32,
    cseqs: [u32; 2],
}

impl Call {
    fn new(number: u32) -> Call {
        Call { number, cseqs: [0; 2] }
    }

    /// The INVITE that begins it.
    fn invite(&mut self) -> Vec<u8> {
        self.write(Leg::Remote, "INVITE", "", "")
    }

    /// A request inside it.
    fn request(&mut self, from: Leg, method: &str) -> Vec<u8> {
        let route = match from {
            Leg::Remote => "Route: <sip:192.0.2.1;lr>, <sip:127.0.0.1:5070;lr>\r\n",
            Leg::Local => "Route: <sip:127.0.0.1:5070;lr>, <sip:192.0.2.1;lr>\r\n",
        };
        let to = if from == Leg::Remote { ";tag=local" } else { ";tag=remote" };
        self.write(from, method, route, to)
    }

    fn write(&mut self, from: Leg, method: &str, route: &str, to_tag: &str) -> Vec<u8> {
        if method != "ACK" {
            self.cseqs[from.index()] += 1;
        }
        let (number, cseq) = (self.number, self.cseqs[from.index()]);
        let ((own, at), (other, target)) = match from {
            Leg::Remote => (("remote", PEER), ("local", APP)),
            Leg::Local => (("local", APP), ("remote", PEER)),
        };
        format!(
            "{method} sip:{other}@{target} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {at};rport;branch=z9hG4bK-{own}-{number}-{cseq}-{method}\r\n\
             Max-Forwards: 70\r\n{route}From: <sip:{own}@example.com>;tag={own}\r\nTo: <sip:{other}@example.com>{to_tag}\r\n\
             Call-ID: call{number}@host\r\nCSeq: {cseq} {method}\r\nSupported: timer\r\nSession-Expires: 1800\r\n\
             Contact: <sip:{own}@{at}>\r\nContent-Length: 4\r\n\r\nbody"
        )
        .into_bytes()
    }
}

/// The answer of `by` to a request as it left.
fn answer(by: Leg, request: &str, status: &str) -> Vec<u8> {
    let (own, at) = if by == Leg::Local { ("local", APP) } else { ("remote", PEER) };
    let (_, headers) = request.split_once("\r\n").expect("a start line");
    let mut lines: Vec<String> = headers.split("\r\n").map(str::to_owned).collect();
    for line in &mut lines {
        match line.split(':').next() {
            Some("To") if !line.contains(";tag=") => line.push_str(&format!(";tag={own}")),
            Some("Contact") => *line = format!("Contact: <sip:{own}@{at}>"),
            Some("Session-Expires") => *line = "Session-Expires: 1800;refresher=uac".into(),
            _ => {}
        }
    }
    format!("SIP/2.0 {status}\r\n{}", lines.join("\r\n")).into_bytes()
}

fn flow(leg: Leg) -> Flow {
    if leg == Leg::Local { app() } else { peer() }
}

/// What each message of a call cost.
type Costs = Vec<(String, u64)>;

/// A call is set up. Its INVITE and its 2xx, which may cost something, are passed twice.
fn set_up(sidecar: &mut Sidecar, call: &mut Call) -> (u64, Costs) {
    let invite = call.invite();
    let (begins, left) = sidecar.pass(peer(), &invite);
    let again = sidecar.pass(peer(), &invite).0;
    let ringing = sidecar.pass(app(), &answer(Leg::Local, &left, "180 Ringing")).0;
    let ok = answer(Leg::Local, &left, "200 OK");
    let [answers, repeats] = [0; 2].map(|_| sidecar.pass(app(), &ok).0);
    let ack = sidecar.pass(peer(), &call.request(Leg::Remote, "ACK")).0;
    let costs = [("INVITE again", again), ("180", ringing), ("200 again", repeats), ("ACK", ack)];
    (begins + answers, costs.map(|(message, cost)| (message.to_owned(), cost)).into())
}

fn transaction(sidecar: &mut Sidecar, call: &mut Call, from: Leg, method: &str) -> Costs {
    let (request, left) = sidecar.pass(flow(from), &call.request(from, method));
    let (answer, _) = sidecar.pass(flow(from.other()), &answer(from.other(), &left, "200 OK"));
    let mut costs = vec![(format!("{method} of {from:?}"), request), (format!("200 to {method} of {from:?}"), answer)];
    if method == "INVITE" {
        costs.push(("ACK in the call".into(), sidecar.pass(flow(from), &call.request(from, "ACK")).0));
    }
    costs
}

/// A whole call: what its beginning cost, and each message of it that has nothing new to remember.
fn whole_call(sidecar: &mut Sidecar, number: u32) -> (u64, Costs) {
    let mut call = Call::new(number);
    let (beginning, mut costs) = set_up(sidecar, &mut call);
    for from in Leg::BOTH {
        for method in ["INFO", "MESSAGE", "NOTIFY", "OPTIONS"] {
            costs.extend(transaction(sidecar, &mut call, from, method));
        }
    }
    // Its time line fills, which then forgets what is oldest.
    for from in [Leg::BOTH; 6].concat() {
        transaction(sidecar, &mut call, from, "UPDATE");
    }
    for from in Leg::BOTH {
        costs.extend(transaction(sidecar, &mut call, from, "UPDATE"));
        costs.extend(transaction(sidecar, &mut call, from, "INVITE"));
    }
    costs.extend(transaction(sidecar, &mut call, Leg::Local, "BYE"));
    (beginning, costs)
}

#[test]
fn a_message_of_no_call_costs_nothing() {
    for method in ["OPTIONS", "REGISTER", "CANCEL"] {
        let mut sidecar = Sidecar::new(Mode::Enforce);
        let request = Call::new(1).write(Leg::Remote, method, "", "");
        let (_, left) = sidecar.pass(peer(), &request);
        assert_eq!(sidecar.pass(peer(), &request).0, 0, "{method}");
        let response = answer(Leg::Local, &left, "200 OK");
        sidecar.pass(app(), &response);
        assert_eq!(sidecar.pass(app(), &response).0, 0, "the response to {method}");
    }
}

#[test]
fn in_a_call_nothing_costs_more_than_what_is_remembered_of_it() {
    for mode in [Mode::Observe, Mode::Enforce] {
        let mut sidecar = Sidecar::new(mode);
        (0..20).for_each(|number| drop(whole_call(&mut sidecar, number)));
        let (beginning, costs) = whole_call(&mut sidecar, 20);
        assert!((1..=BEGINNING).contains(&beginning), "{beginning} in {mode:?}");
        let costly: Vec<_> = costs.iter().filter(|(_, cost)| *cost > 0).collect();
        assert!(costly.is_empty(), "{costly:?} in {mode:?}");
    }
}
