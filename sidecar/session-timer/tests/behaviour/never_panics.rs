//! Whatever comes, in whatever order and at whatever time: nothing panics, no time-out is in the past, nothing leaks.
//! The bench checks the invariants after every step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use sipwarden_session_timer::{
    ActForApp, AppProbe, BelowMinSe, Credentials, ExpiryAction, Leg, Limits, Malformed, Margin, Mode, Policy,
    RefreshMethod, RefresherPreference, WithoutPeerSupport,
};
use sipwarden_sip::{Message, Slots};

use crate::support::{Bench, Call, SDP_LOCAL, SDP_REMOTE, Sent, Wire, changed, policy, standing_in};

const METHODS: [&str; 11] =
    ["INVITE", "ACK", "BYE", "CANCEL", "UPDATE", "PRACK", "INFO", "OPTIONS", "NOTIFY", "REGISTER", "SURPRISE"];
const FAILURES: [u16; 9] = [302, 401, 405, 407, 408, 422, 481, 491, 503];
/// Messages that may be answered, repeated or mutated: recent enough for something to come of it.
const SEEN: usize = 8;
/// Not a header: the message describes a session.
const SDP: &str = "SDP";
const HEADERS: [&str; 27] = [
    SDP,
    "Allow: INVITE, ACK, BYE, UPDATE",
    "Allow: INVITE",
    "RSeq: 1",
    "RAck: 1 101 INVITE",
    "Event: refer;id=101",
    "Retry-After: 5",
    "WWW-Authenticate: Digest realm=\"x\", nonce=\"n\", stale=true",
    "Proxy-Authenticate: Digest x",
    "Supported: timer",
    "k: timer, 100rel",
    "Require: 100rel",
    "Require: timer",
    "Session-Expires: 1800",
    "Session-Expires: 60 ; refresher = uas",
    "Session-Expires: 90;refresher=uac",
    "x: 4294967295;REFRESHER=UAC;y",
    "x: abc",
    "Session-Expires:",
    "Session-Expires:\r\n 600\r\n ;refresher=uas",
    "Min-SE: 90",
    "Min-SE: 100000;x=y",
    "Min-SE: -1",
    "Record-Route: <sip:a.example;lr>, <sip:b.example>",
    "Record-Route: <",
    "Contact: *",
    "m: <sip:elsewhere@203.0.113.3>",
];

#[derive(Clone, Debug)]
enum Step {
    Initial { call: usize, headers: Vec<&'static str> },
    Inside { call: usize, from: Leg, method: &'static str, headers: Vec<&'static str> },
    Answer { request: Index, status: u16, headers: Vec<&'static str>, astray: Option<(usize, Leg)> },
    Repeat { from: Leg, message: Index },
    Mutate { from: Leg, message: Index, at: Index, put: Vec<u8>, remove: usize },
    Wait { milliseconds: u64 },
    SleepThrough { milliseconds: u64 },
    Load(Policy),
}

fn leg() -> impl Strategy<Value = Leg> {
    select(&Leg::BOTH)
}

fn headers() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(&HEADERS[..]), 0..4)
}

fn milliseconds() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..5_000u64, 4 => 0..120_000u64, 1 => 0..4_000_000u64, 1 => 0..100_000_000u64]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let refresher =
        select(vec![RefresherPreference::PeerChoice, RefresherPreference::Local, RefresherPreference::Callee]);
    let margin = prop_oneof![Just(Margin::Rfc4028), (0..4000u32).prop_map(Margin::Fixed)];
    let acting = (
        select(vec![ActForApp::Auto, ActForApp::Always, ActForApp::Never]),
        select(vec![RefreshMethod::Auto, RefreshMethod::Update, RefreshMethod::ReInvite]),
        any::<[bool; 3]>(),
    );
    (any::<[bool; 4]>(), 90..1800u32, refresher, margin, acting).prop_map(
        |(flags, least, refresher, margin, acting)| {
            let [observes, raises, refuses, reports] = flags;
            let (act_for_app, refresh_method, [probes, skips, knows]) = acting;
            let timers = changed(standing_in(least), |timers| {
                timers.act_for_app = act_for_app;
                timers.refresh_method = refresh_method;
                timers.app_probe = if probes { AppProbe::Options } else { AppProbe::None };
                timers.without_peer_support =
                    if skips { WithoutPeerSupport::Skip } else { WithoutPeerSupport::Refresh };
                let known = Credentials { username: "u".into(), password: "p".into(), realm: None };
                timers.credentials = knows.then(|| Arc::new(known));
                timers.below_min_se = if raises { BelowMinSe::Raise } else { BelowMinSe::Reject };
                timers.malformed = if refuses { Malformed::Reject } else { Malformed::Forward };
                timers.expiry = if reports { ExpiryAction::Report } else { ExpiryAction::Bye };
                timers.refresher = refresher;
                timers.margin = margin;
            });
            policy(if observes { Mode::Observe } else { Mode::Enforce }, timers)
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let call = 0..3usize;
    let status = prop_oneof![3 => Just(200), 1 => select(&[100, 183, 202][..]), 1 => select(&FAILURES[..])];
    let method = prop_oneof![select(&["UPDATE", "INVITE"][..]), select(&METHODS[..])];
    let astray = prop_oneof![7 => Just(None), 1 => (call.clone(), leg()).prop_map(Some)];
    prop_oneof![
        2 => (call.clone(), headers()).prop_map(|(call, headers)| Step::Initial { call, headers }),
        6 => (call, leg(), method, headers())
            .prop_map(|(call, from, method, headers)| Step::Inside { call, from, method, headers }),
        8 => (any::<Index>(), status, headers(), astray)
            .prop_map(|(request, status, headers, astray)| Step::Answer { request, status, headers, astray }),
        2 => (leg(), any::<Index>()).prop_map(|(from, message)| Step::Repeat { from, message }),
        3 => (leg(), any::<Index>(), any::<Index>(), prop::collection::vec(0..128u8, 0..4), 0..6usize)
            .prop_map(|(from, message, at, put, remove)| Step::Mutate { from, message, at, put, remove }),
        2 => milliseconds().prop_map(|milliseconds| Step::Wait { milliseconds }),
        1 => milliseconds().prop_map(|milliseconds| Step::SleepThrough { milliseconds }),
        1 => any_policy().prop_map(Step::Load),
    ]
}

/// A bench, three calls, and the messages seen last with the side each came from.
struct Run {
    bench: Bench,
    calls: [Call; 3],
    seen: VecDeque<(Leg, Wire)>,
}

impl Run {
    fn take(&mut self, step: Step) {
        match step {
            Step::Initial { call, headers } => {
                let from = self.calls[call].caller;
                let wire = with(self.calls[call].invite(), from, &headers);
                self.send(from, &wire);
            }
            Step::Inside { call, from, method, headers } => {
                let wire = with(self.calls[call].request(from, method), from, &headers);
                self.send(from, &wire);
            }
            Step::Answer { request, status, headers, astray } => {
                let Some((from, request)) = self.pick(request) else { return };
                let id = request.header("Call-ID");
                let rightly = self.calls.iter().position(|call| id == Some(&call.id)).unwrap_or_default();
                let (call, by) = astray.unwrap_or((rightly, from.other()));
                let ours = request.header("Via").is_some_and(|via| via.contains("z9hG4bKswb"));
                let arrived = if ours { request } else { request.routed(by) };
                let wire = with(self.calls[call].respond(by, &arrived, status), by, &headers);
                self.send(by, &wire);
            }
            Step::Repeat { from, message } => {
                let Some((_, wire)) = self.pick(message) else { return };
                self.send(from, &wire);
            }
            Step::Mutate { from, message, at, put, remove } => {
                let Some((_, wire)) = self.pick(message) else { return };
                let mut bytes = wire.0.into_bytes();
                let start = at.index(bytes.len());
                let end = (start + remove).min(bytes.len());
                bytes.splice(start..end, put);
                self.send(from, &Wire::of_bytes(bytes));
            }
            Step::Wait { milliseconds } => {
                let elapsed = self.bench.run_for(Duration::from_millis(milliseconds));
                elapsed.sent.into_iter().for_each(|(_, sent)| self.keep(by_us(sent)));
            }
            Step::SleepThrough { milliseconds } => {
                let elapsed = self.bench.sleep_through(Duration::from_millis(milliseconds));
                elapsed.sent.into_iter().for_each(|(_, sent)| self.keep(by_us(sent)));
            }
            Step::Load(policy) => self.bench.set_policy(policy),
        }
    }

    fn send(&mut self, from: Leg, wire: &Wire) {
        if !is_message(wire) {
            return;
        }
        let passage = self.bench.send(from, wire);
        assert!(is_message(&passage.left), "an edit broke\n{wire}\ninto\n{}", passage.left);
        self.keep((from, passage.left));
        passage.resent.into_iter().for_each(|wire| self.keep((Leg::Local, wire)));
        passage.sent.into_iter().for_each(|sent| self.keep(by_us(sent)));
    }

    fn keep(&mut self, message: (Leg, Wire)) {
        if self.seen.len() == SEEN {
            self.seen.pop_front();
        }
        self.seen.push_back(message);
    }

    fn pick(&self, index: Index) -> Option<(Leg, Wire)> {
        (!self.seen.is_empty()).then(|| self.seen[index.index(self.seen.len())].clone())
    }
}

fn with(wire: Wire, from: Leg, headers: &[&str]) -> Wire {
    let lines: Vec<&str> = headers.iter().copied().filter(|header| *header != SDP).collect();
    let wire = wire.with_all(&lines);
    let sdp = if from == Leg::Local { SDP_LOCAL } else { SDP_REMOTE };
    if headers.contains(&SDP) { wire.with_sdp(sdp) } else { wire }
}

/// What we send to a leg seems to come from the other.
fn by_us(Sent { flow, wire }: Sent) -> (Leg, Wire) {
    (Leg::BOTH[usize::from(flow.endpoint % 2)].other(), wire)
}

fn is_message(wire: &Wire) -> bool {
    Message::parse(wire.0.as_bytes(), &mut Slots::new()).is_ok()
}

proptest! {
    #[test]
    fn no_sequence_of_messages_breaks_an_invariant(
        first in any_policy(),
        small in any::<bool>(),
        clock_speed in select(&[1, 60][..]),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let limits = Limits { calls: 2, per_call: 2, identity_len: 400, ..Limits::default() };
        let bench = Bench::with_limits(first, if small { limits } else { Limits::default() }, clock_speed);
        let calls = [("a", Leg::Local), ("b", Leg::Remote), ("a", Leg::Remote)].map(|(id, caller)| Call::named(id, caller));
        let mut run = Run { bench, calls, seen: VecDeque::new() };
        for step in steps {
            run.take(step);
        }
        run.bench.run_out();
    }
}
