//! The core with virtual time around it.

use std::sync::Arc;
use std::time::Duration;

use sipwarden_session_timer::{
    Action, Arrival, CallKey, Config, Dialogs, Endpoint, Event, EventKind, Flow, Judged, Leg, Limits, Mode, Policy,
    Resend, SessionView, Time, Timers, Transmit, Verdict,
};
use sipwarden_sip::build::Responder;
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Edits, Message, Slots};

use super::{Wire, policy};

/// Where the application and the phone are.
pub(crate) const LOCAL: Flow = flow(0, [127, 0, 0, 1], 5080);
pub(crate) const REMOTE: Flow = flow(1, [192, 0, 2, 7], 5060);
pub(crate) const LOCAL_TCP: Flow = Flow { connection: 3, ..flow(2, [127, 0, 0, 1], 40_001) };
pub(crate) const REMOTE_TCP: Flow = Flow { connection: 4, ..flow(3, [192, 0, 2, 7], 40_002) };

/// How late a time-out may be.
const TICK: Duration = Duration::from_millis(16);

const KEY: u64 = 7;

const fn flow(endpoint: u16, ip: [u8; 4], port: u16) -> Flow {
    let ip = std::net::Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]);
    Flow { endpoint, connection: 0, peer: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(ip, port)) }
}

pub(crate) struct Bench {
    pub(crate) dialogs: Dialogs,
    pub(crate) now: Time,
    /// Where each leg sends from.
    pub(crate) flows: [Flow; 2],
    responder: Responder,
    mode: Mode,
}

/// What became of one message.
pub(crate) struct Passage {
    pub(crate) verdict: Verdict,
    /// The message with the core's edits, whatever the verdict.
    pub(crate) left: Wire,
    pub(crate) sent: Vec<Sent>,
    /// What the router shall forward once more as the application's.
    pub(crate) resent: Vec<Wire>,
    pub(crate) events: Vec<Event>,
    /// When it is a request that was judged.
    pub(crate) judged: Option<Judged>,
}

/// A message of the core's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) flow: Flow,
    pub(crate) wire: Wire,
}

/// What happened while time went by.
#[derive(Default)]
pub(crate) struct Elapsed {
    pub(crate) sent: Vec<(Time, Sent)>,
    pub(crate) events: Vec<(Time, Event)>,
}

impl Bench {
    pub(crate) fn enforcing(timers: Timers) -> Bench {
        Bench::with_policy(policy(Mode::Enforce, timers))
    }

    pub(crate) fn observing(timers: Timers) -> Bench {
        Bench::with_policy(policy(Mode::Observe, timers))
    }

    pub(crate) fn with_policy(policy: Policy) -> Bench {
        Bench::with_limits(policy, Limits::default(), 1)
    }

    pub(crate) fn with_limits(policy: Policy, limits: Limits, clock_speed: u32) -> Bench {
        let endpoint = |leg, transport, sent_by: &str| Endpoint { leg, transport, sent_by: sent_by.into() };
        let endpoints = vec![
            endpoint(Leg::Local, Transport::Udp, "127.0.0.1:5070"),
            endpoint(Leg::Remote, Transport::Udp, "192.0.2.1:5060"),
            endpoint(Leg::Local, Transport::Tcp, "127.0.0.1:5070"),
            endpoint(Leg::Remote, Transport::Tcp, "192.0.2.1:5060"),
        ];
        let mode = policy.mode;
        let config = Config { endpoints, limits, clock_speed, seed: 1, tag_key: KEY };
        Bench {
            dialogs: Dialogs::new(config, Arc::new(policy)),
            now: Time::from_millis(1_000_000),
            flows: [LOCAL, REMOTE],
            responder: Responder::new(KEY),
            mode,
        }
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        // Running sessions keep theirs, so Observe promises nothing for a while.
        self.mode = Mode::Enforce;
        self.dialogs.set_policy(Arc::new(policy));
    }

    /// Hand in a message of `from`.
    pub(crate) fn send(&mut self, from: Leg, wire: &Wire) -> Passage {
        self.send_on(self.flows[from.index()], wire)
    }

    pub(crate) fn send_on(&mut self, flow: Flow, wire: &Wire) -> Passage {
        let mut slots = Slots::new();
        let message = Message::parse(wire.0.as_bytes(), &mut slots).expect("the router drops what is no message");
        let mut edits = Edits::new();
        let verdict = if self.responder.owns_ack(&message) {
            Verdict::Absorb
        } else {
            let peer = Some(self.flows[Leg::Remote.index()].peer.ip());
            let call = CallKey::of(KEY, message.call_id().unwrap_or_default());
            let arrival = Arrival { call, flow, reply_to: flow, via_suffix: b"", peer };
            self.dialogs.handle_message(self.now, &arrival, &message, &mut edits)
        };
        let mut left = Vec::new();
        edits.render(&message, &mut left);
        let left = Wire::of_bytes(left);
        let Drained { sent, resent, events } = self.drain();
        let judged = self.dialogs.judged().cloned();
        self.dialogs.forget_judged();
        if let Some(judged) = &judged {
            let again = judged.facts.judged_by(&judged.policy, judged.rule);
            let told: Vec<_> = events.iter().map(|event| event.kind).take(again.len()).collect();
            assert_eq!(again, told, "judged again by the same policy, the same is decided");
        }
        if self.mode == Mode::Observe {
            assert_eq!(left.0.as_bytes(), message.bytes(), "Observe changes nothing");
            assert!(matches!(verdict, Verdict::Forward { .. }) && sent.is_empty(), "Observe answers nothing");
            assert!(events.iter().all(|event| event.observed || event.session.is_none()), "{events:?}");
        }
        Passage { verdict, left, sent, resent, events, judged }
    }

    /// Hand in a message of `from` that must go on: as it leaves.
    pub(crate) fn pass(&mut self, from: Leg, wire: &Wire) -> Wire {
        let passage = self.send(from, wire);
        assert!(matches!(passage.verdict, Verdict::Forward { .. }), "{:?} for\n{wire}", passage.verdict);
        passage.left.assert_well_formed();
        passage.left
    }

    /// Let time go by, waking the core exactly when it asks to be woken.
    pub(crate) fn run_for(&mut self, duration: Duration) -> Elapsed {
        let end = self.now + duration;
        let mut elapsed = Elapsed::default();
        while let Some(next) = self.dialogs.next_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.wake(&mut elapsed);
        }
        self.now = end;
        self.wake(&mut elapsed);
        elapsed
    }

    /// Let time go by while the core's owner is busy elsewhere: it is woken once, late.
    pub(crate) fn sleep_through(&mut self, duration: Duration) -> Elapsed {
        self.now = self.now + duration;
        let mut elapsed = Elapsed::default();
        self.wake(&mut elapsed);
        elapsed
    }

    /// Let everything happen that is going to, and check that nothing stays behind.
    pub(crate) fn run_out(&mut self) -> Elapsed {
        let mut elapsed = Elapsed::default();
        for step in 0.. {
            let Some(next) = self.dialogs.next_timeout() else { break };
            assert!(step < 50_000, "it never ends");
            self.now = self.now.max(next);
            self.wake(&mut elapsed);
        }
        assert_eq!((self.dialogs.active(), self.dialogs.known()), (0, 0), "sessions stay behind");
        elapsed
    }

    /// The one session there is.
    pub(crate) fn session(&self) -> SessionView {
        let mut sessions = self.dialogs.sessions(0, 2);
        assert_eq!(sessions.len(), 1, "one session");
        sessions.remove(0)
    }

    /// Seconds until the one session's deadline; `None` without a timer.
    pub(crate) fn deadline_s(&self) -> Option<u64> {
        self.session().deadline.map(|deadline| deadline.since(self.now).as_secs())
    }

    /// Interval and refresher of the one session.
    pub(crate) fn timer(&self) -> Option<(u32, Leg)> {
        let session = self.session();
        session.interval.zip(session.refresher)
    }

    fn wake(&mut self, elapsed: &mut Elapsed) {
        self.dialogs.handle_timeout(self.now);
        let Drained { sent, resent, events } = self.drain();
        assert!(resent.is_empty(), "only a 422 makes a request go out again");
        elapsed.sent.extend(sent.into_iter().map(|sent| (self.now, sent)));
        elapsed.events.extend(events.into_iter().map(|event| (self.now, event)));
        assert!(self.dialogs.next_timeout().is_none_or(|next| next > self.now), "a time-out is in the past");
        for session in self.dialogs.sessions(0, 100) {
            assert!(session.expires_at.is_none_or(|at| at + TICK > self.now), "an expiry is overdue");
        }
    }

    fn drain(&mut self) -> Drained {
        let Drained { mut sent, mut resent, mut events } = Drained::default();
        while let Some(action) = self.dialogs.poll_action() {
            match action {
                Action::Transmit(Transmit { flow, bytes }) => {
                    sent.push(Sent { flow, wire: Wire::of_bytes(bytes) });
                }
                Action::Resend(Resend { flow, bytes, .. }) => {
                    assert_eq!(flow, self.flows[Leg::Local.index()], "it goes out in the application's name");
                    resent.push(Wire::of_bytes(bytes));
                }
                Action::Event(event) => events.push(event),
            }
        }
        assert!(self.dialogs.active() <= self.dialogs.known());
        Drained { sent, resent, events }
    }
}

#[derive(Default)]
struct Drained {
    sent: Vec<Sent>,
    resent: Vec<Wire>,
    events: Vec<Event>,
}

impl Passage {
    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    /// The answer of the core's own that it must have got.
    pub(crate) fn answer(&self) -> &Wire {
        let [Sent { wire, .. }] = self.sent.as_slice() else { panic!("one answer, not {:?}", self.sent) };
        assert_eq!(Some(self.verdict), wire.status().map(Verdict::Answered));
        wire.assert_well_formed();
        wire
    }
}

impl Elapsed {
    pub(crate) fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|(_, event)| event.kind).collect()
    }

    /// The BYEs, each once: what went first to the local and to the remote side.
    pub(crate) fn byes(&self) -> [&Sent; 2] {
        [LOCAL, REMOTE].map(|side| {
            let leg_of = |flow: Flow| flow.endpoint % 2;
            let to_side = |sent: &&Sent| leg_of(sent.flow) == side.endpoint && sent.wire.method() == "BYE";
            let bye = self.sent.iter().map(|(_, sent)| sent).find(to_side).expect("a BYE to each side");
            bye.wire.assert_well_formed();
            bye
        })
    }
}
