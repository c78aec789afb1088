//! Everything that can happen to a sidecar, as its metrics are told it: each kind with every value that labels are made of.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sipwarden_otlp::Fate;
use sipwarden_session_timer::{
    ByeOutcome, EndCause, EventKind, HeaderKind, Leg, LimitKind, Match, NoRefresh, Policy, Rule, SdpUnusable, Timers,
};
use sipwarden_shard::{DropReason, Outcome};
use sipwarden_sidecar::metrics::{Limit, MessageKind, Metrics, PolicyFacts, RecordKind, Reload, TransportError};
use sipwarden_sip::check::Fault;
use sipwarden_sip::value::Transport;
use sipwarden_sip::{Method, ParseError};

/// Another policy comes into force.
pub fn apply_policy(metrics: &Metrics, number: i64) {
    let (name, hash) = (format!("policy-{number}"), format!("{number:016x}"));
    let source = ["File", "LastGood", "BuiltIn"][number as usize % 3];
    let since = Instant::now();
    metrics.policy.in_force(PolicyFacts {
        name: &name,
        generation: number,
        hash: &hash,
        mode: "Enforce",
        source,
        since,
    });
    let rule = Rule { name: format!("rule-{number}"), matches: Match::default(), timers: Timers::default() };
    metrics.rules.in_force(&Arc::new(Policy { name, rules: vec![rule], ..Policy::observe() }));
}

/// Every way to count that is no event.
pub fn everything_but_events(metrics: &Metrics) {
    let parse = [
        ParseError::StartLine,
        ParseError::HeaderLine,
        ParseError::Unterminated,
        ParseError::TooManyHeaders,
        ParseError::TooLong,
        ParseError::Truncated,
        ParseError::ContentLength,
    ];
    let faults = [Fault::BadRequest, Fault::UnsupportedScheme, Fault::Version];
    let drops = parse.map(DropReason::Parse).into_iter().chain(faults.map(DropReason::Fault)).chain([
        DropReason::NotOurVia,
        DropReason::NoRoute,
        DropReason::Unanswerable(482),
        DropReason::LookupsFull,
    ]);
    let forwarded = [false, true].map(|edited| Outcome::Forwarded { edited });
    let outcomes = forwarded.into_iter().chain([Outcome::Absorbed, Outcome::Parked]);
    let outcomes = outcomes.chain((100..700).map(Outcome::Answered)).chain(drops.map(Outcome::Dropped));
    for outcome in outcomes {
        for kind in [MessageKind::Request, MessageKind::Response, MessageKind::Unreadable] {
            Leg::BOTH.into_iter().for_each(|side| metrics.message(side, kind, outcome));
        }
    }
    use TransportError::{Accept, ConnectTimeout, Framing, Idle, Receive, Refused, Send, TooLarge};
    for error in [Receive, Send, TooLarge, Refused, ConnectTimeout, Accept, Framing, Idle] {
        [Transport::Udp, Transport::Tcp].into_iter().for_each(|transport| metrics.transport_error(transport, error));
    }
    use Limit::{Connections, DatagramQueue, DecisionReaders, HttpConnections, Lookups, Traces, WriteQueue};
    [Connections, WriteQueue, DatagramQueue, Lookups, HttpConnections, Traces, DecisionReaders]
        .into_iter()
        .for_each(|limit| metrics.limit(limit));
    [Reload::Applied, Reload::Unchanged, Reload::Refused].into_iter().for_each(|result| metrics.policy.reload(result));
    [false, true].into_iter().for_each(|resolved| metrics.lookup(resolved));
    [Fate::Exported, Fate::QueueFull, Fate::Failed].into_iter().for_each(|fate| metrics.spans(fate, 1));
    [RecordKind::Decision, RecordKind::Message, RecordKind::Request]
        .into_iter()
        .for_each(|kind| metrics.records_lost(kind, 1));
    metrics.decision(Duration::from_micros(3));
    metrics.connections(1);
    metrics.policy.problems(2);
}

/// Events of every kind, with every value of what labels are made of.
pub fn every_event() -> Vec<EventKind> {
    let mut events = vec![EventKind::ActsForApp, EventKind::ProbeSent, EventKind::MediaChanged];
    events.extend([EventKind::ShortInterval { interval: 60 }, EventKind::Retried { interval: 120 }]);
    events.extend([None, Some(90)].map(|interval| {
        let refresher = interval.map(|_| Leg::Remote);
        EventKind::Established { interval, refresher }
    }));
    events.extend([408, 481].map(|status| EventKind::ProbeFailed { status }));
    events.extend([401, 407].map(|status| EventKind::Challenged { status }));
    events.extend(
        [LimitKind::Calls, LimitKind::Forks, LimitKind::IdentitySize].map(|limit| EventKind::LimitReached { limit }),
    );
    let unusable = [SdpUnusable::Unknown, SdpUnusable::OpenOffer, SdpUnusable::Bound].map(NoRefresh::Sdp);
    let reasons = [NoRefresh::UpdateRefused, NoRefresh::Unauthorized, NoRefresh::CSeqSpace, NoRefresh::Refused];
    let reasons = unusable.into_iter().chain(reasons);
    events.extend(reasons.map(|reason| EventKind::NotRefreshed { reason }));
    let causes = [EndCause::Expired, EndCause::Response(481), EndCause::Forgotten, EndCause::RefreshFailed(408)];
    events.extend(causes.map(|cause| EventKind::Ended { cause }));
    events.extend([EndCause::AppGone, EndCause::Requested].map(|cause| EventKind::Ended { cause }));
    Leg::BOTH.into_iter().for_each(|side| events.extend(events_of(side)));
    events
}

/// Those that are of a side.
fn events_of(side: Leg) -> Vec<EventKind> {
    let (interval, asked, min_se) = (90, 60, 90);
    let mut events = vec![
        EventKind::Rejected { to: side, asked, min_se },
        EventKind::RejectionSeen { to: side, min_se: Some(min_se) },
        EventKind::RejectionWithoutMinSe { to: side },
        EventKind::Inserted { from: side, interval },
        EventKind::Lowered { from: side, asked: 7200, interval: 1800 },
        EventKind::Raised { from: side, asked, interval },
        EventKind::MinSeRaised { from: side, min_se },
        EventKind::RefresherChosen { side },
        EventKind::Completed { to: side, interval },
        EventKind::RefresherUnclear { taken: side },
        EventKind::TimerOff { by: side },
        EventKind::Expired { interval, refresher: side },
        EventKind::ByeSent { to: side },
        EventKind::Ended { cause: EndCause::Bye(side) },
        EventKind::UnknownDialog { from: side },
    ];
    for header in [HeaderKind::SessionExpires, HeaderKind::MinSe] {
        events.push(EventKind::Malformed { from: side, header });
    }
    for method in [Method::Invite, Method::Update, Method::Options] {
        events.push(EventKind::Refreshed { by: side, method, interval, refresher: side });
        events.push(EventKind::LateRequest { from: side, method });
        events.push(EventKind::RefreshSent { to: side, method });
        events.push(EventKind::AnsweredForApp { from: side, method });
        events.push(EventKind::Glare { from: side, method });
    }
    let failures = [488, 300, 400, 408, 422, 481, 491, 499, 500, 599, 600, 699];
    events.extend(failures.map(|status| EventKind::RefreshFailed { by: side, status }));
    let outcomes =
        [200, 299, 300, 408, 481, 500, 699].map(ByeOutcome::Answered).into_iter().chain([ByeOutcome::TimedOut]);
    events.extend(outcomes.map(|outcome| EventKind::ByeDone { to: side, outcome }));
    events
}

/// How many kinds of events there are.
pub const PLACES: usize = 33;

/// A number for each kind. A new kind does not compile until it has one, and then not pass until it is listed.
pub fn place(kind: EventKind) -> usize {
    match kind {
        EventKind::Rejected { .. } => 0,
        EventKind::RejectionSeen { .. } => 1,
        EventKind::RejectionWithoutMinSe { .. } => 2,
        EventKind::Inserted { .. } => 3,
        EventKind::Lowered { .. } => 4,
        EventKind::Raised { .. } => 5,
        EventKind::MinSeRaised { .. } => 6,
        EventKind::RefresherChosen { .. } => 7,
        EventKind::Completed { .. } => 8,
        EventKind::Malformed { .. } => 9,
        EventKind::ShortInterval { .. } => 10,
        EventKind::RefresherUnclear { .. } => 11,
        EventKind::Established { .. } => 12,
        EventKind::Refreshed { .. } => 13,
        EventKind::TimerOff { .. } => 14,
        EventKind::RefreshFailed { .. } => 15,
        EventKind::Expired { .. } => 16,
        EventKind::ByeSent { .. } => 17,
        EventKind::ByeDone { .. } => 18,
        EventKind::LateRequest { .. } => 19,
        EventKind::Ended { .. } => 20,
        EventKind::ActsForApp => 21,
        EventKind::Retried { .. } => 22,
        EventKind::RefreshSent { .. } => 23,
        EventKind::NotRefreshed { .. } => 24,
        EventKind::AnsweredForApp { .. } => 25,
        EventKind::ProbeSent => 26,
        EventKind::ProbeFailed { .. } => 27,
        EventKind::Glare { .. } => 28,
        EventKind::MediaChanged => 29,
        EventKind::Challenged { .. } => 30,
        EventKind::UnknownDialog { .. } => 31,
        EventKind::LimitReached { .. } => 32,
    }
}
