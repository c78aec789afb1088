//! What Prometheus sees. Every label set is closed and resolved at start; nothing names a call, a user or an address.

mod events;
mod grid;
mod labels;
mod policy;
mod rules;

use std::time::Duration;

use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntGauge, Registry, TextEncoder};
use sipwarden_otlp::Fate;
use sipwarden_session_timer::{Event, Leg, LimitKind};
use sipwarden_shard::{DropReason, Outcome};
use sipwarden_sip::check::Fault;
use sipwarden_sip::value::Transport;

pub use self::policy::{PolicyFacts, PolicyMetrics};
pub use self::rules::{RuleCounters, RuleMetrics};

use self::events::EventMetrics;
use self::grid::Grid;
use self::labels::{
    DROPS, FATES, KINDS, LIMITS, PARSE_FAILURES, RECORDS, STATUSES, TRANSPORT_ERRORS, VERDICTS, limit_label,
    parse_label, status_label,
};
use crate::address::transport_name;

const SIDES: (&str, &[&str]) = ("side", &[Leg::BOTH[0].as_str(), Leg::BOTH[1].as_str()]);
const TRANSPORTS: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// All metrics of a process.
pub struct Metrics {
    /// Those of the policy.
    pub policy: PolicyMetrics,
    /// Those of its rules.
    pub rules: RuleMetrics,
    registry: Registry,
    messages: Grid<3>,
    answers: Grid<2>,
    drops: Grid<1>,
    parse_failures: Grid<1>,
    limits: Grid<1>,
    records_lost: Grid<1>,
    transport_errors: Grid<2>,
    lookups: Grid<1>,
    spans: Grid<1>,
    decision: Histogram,
    sessions: IntGauge,
    calls_limit: IntGauge,
    connections: IntGauge,
    events: EventMetrics,
}

/// Request or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// Begins with a request line.
    Request,
    /// Begins with a status line.
    Response,
    /// Could not be indexed.
    Unreadable,
}

/// A bound that was reached. Those of the session-timer core and our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// One of the core's tables.
    Core(LimitKind),
    /// Stream connections: a new one was closed, or not made.
    Connections,
    /// Bytes waiting to be written to a stream: a message was dropped.
    WriteQueue,
    /// Datagrams waiting for room in a socket: one was dropped.
    DatagramQueue,
    /// Packets waiting for a name, here or in a shard: one was dropped.
    Lookups,
    /// Connections to the admin or the status interface: one more has to wait.
    HttpConnections,
    /// Sessions and calls being set up that are traced: one is not.
    Traces,
    /// Readers of the stream of decisions: one more was refused.
    DecisionReaders,
}

/// What is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// What was decided.
    Decision,
    /// A message of a call.
    Message,
    /// A request that was judged.
    Request,
}

/// What went wrong on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// Receiving or reading.
    Receive,
    /// Sending or writing.
    Send,
    /// The datagram is larger than the path or the protocol takes (EMSGSIZE).
    TooLarge,
    /// Nobody listens there (ECONNREFUSED).
    Refused,
    /// A connection could not be made in time.
    ConnectTimeout,
    /// A connection could not be accepted.
    Accept,
    /// A stream could not be cut into messages.
    Framing,
    /// A connection was silent for too long.
    Idle,
}

/// How a new policy was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Applied,
    /// It reads the same as the one in force.
    Unchanged,
    /// It is wrong; the old one stays.
    Refused,
}

impl Metrics {
    /// Everything at zero, in a registry of its own.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        Metrics {
            policy: PolicyMetrics::new(r),
            rules: RuleMetrics::new(r),
            messages: Grid::new(
                r,
                "sipwarden_messages_total",
                "SIP messages received, by the side they came from and what became of them.",
                [SIDES, ("kind", KINDS), ("verdict", VERDICTS)],
            ),
            answers: Grid::new(
                r,
                "sipwarden_answers_total",
                "Requests answered by the sidecar itself, by status.",
                [SIDES, ("status", STATUSES)],
            ),
            drops: Grid::new(r, "sipwarden_drops_total", "Messages dropped after parsing.", [("reason", DROPS)]),
            parse_failures: Grid::new(
                r,
                "sipwarden_parse_failures_total",
                "Packets that are not SIP messages we can index.",
                [("reason", PARSE_FAILURES)],
            ),
            limits: Grid::new(r, "sipwarden_limits_reached_total", "Bounds that were reached.", [("limit", LIMITS)]),
            records_lost: Grid::new(
                r,
                "sipwarden_records_lost_total",
                "Decisions, messages and judged requests of the last hour that are no longer remembered, because there \
                 was no room for all (--record-mib).",
                [("kind", RECORDS)],
            ),
            transport_errors: Grid::new(
                r,
                "sipwarden_transport_errors_total",
                "Errors of sockets.",
                [("transport", &TRANSPORTS.map(transport_name)), ("error", TRANSPORT_ERRORS)],
            ),
            lookups: Grid::new(
                r,
                "sipwarden_lookups_total",
                "Names looked up (RFC 3263), by result.",
                [("result", &["Resolved", "Unresolvable"])],
            ),
            spans: Grid::new(
                r,
                "sipwarden_trace_spans_total",
                "Spans for the collector of --otlp, by what became of them; all but exported ones are lost.",
                [("fate", FATES)],
            ),
            decision: histogram(
                r,
                "sipwarden_decision_seconds",
                "Time from a received message to its rendered successor; one message of 64 is measured.",
                vec![5e-7, 1e-6, 2e-6, 4e-6, 8e-6, 16e-6, 32e-6, 64e-6, 256e-6, 1e-3],
            ),
            sessions: gauge(r, "sipwarden_sessions_active", "Sessions with a 2xx and no end."),
            calls_limit: gauge(r, "sipwarden_calls_limit", "Calls tracked at once; others pass without a timer."),
            connections: gauge(r, "sipwarden_connections", "Open stream connections."),
            events: EventMetrics::new(r),
            registry,
        }
    }

    /// How many calls are tracked at once.
    pub fn calls_limit(&self, calls: usize) {
        self.calls_limit.set(i64::try_from(calls).unwrap_or(i64::MAX));
    }

    /// A message from `side` and what became of it.
    pub fn message(&self, side: Leg, kind: MessageKind, outcome: Outcome) {
        let verdict = match outcome {
            Outcome::Forwarded { edited: false } => 0,
            Outcome::Forwarded { edited: true } => 1,
            Outcome::Answered(status) => {
                self.answers.inc([side.index(), status_label(status)]);
                2
            }
            Outcome::Absorbed => 3,
            Outcome::Parked => 4,
            Outcome::Dropped(reason) => {
                self.dropped(reason);
                5
            }
        };
        self.messages.inc([side.index(), kind as usize, verdict]);
    }

    /// Something the core told.
    pub fn event(&self, event: &Event) {
        if let Some(limit) = self.events.record(event) {
            self.limit(Limit::Core(limit));
        }
    }

    /// A bound was reached.
    pub fn limit(&self, limit: Limit) {
        self.limits.inc([limit_label(limit)]);
    }

    /// What was remembered had to go before its hour was over.
    pub fn records_lost(&self, kind: RecordKind, count: u64) {
        self.records_lost.add([kind as usize], count);
    }

    /// An error of a socket.
    pub fn transport_error(&self, transport: Transport, error: TransportError) {
        let transport = TRANSPORTS.iter().position(|&known| known == transport).expect("only these have sockets");
        self.transport_errors.inc([transport, error as usize]);
    }

    /// A name was looked up.
    pub fn lookup(&self, resolved: bool) {
        self.lookups.inc([usize::from(!resolved)]);
    }

    /// What became of spans.
    pub fn spans(&self, fate: Fate, spans: u64) {
        self.spans.add([fate as usize], spans);
    }

    /// The time one decision took.
    pub fn decision(&self, took: Duration) {
        self.decision.observe(took.as_secs_f64());
    }

    /// A stream connection was opened (1) or closed (-1).
    pub fn connections(&self, change: i64) {
        self.connections.add(change);
    }

    /// Every metric as it is now.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The text a scrape gets.
    pub fn render(&self, active_sessions: usize) -> String {
        self.policy.grow_older();
        self.sessions.set(i64::try_from(active_sessions).unwrap_or(i64::MAX));
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("metrics are always writable as text")
    }

    fn dropped(&self, reason: DropReason) {
        let index = match reason {
            DropReason::Parse(error) => {
                self.parse_failures.inc([parse_label(error)]);
                return;
            }
            DropReason::Fault(Fault::BadRequest) => 0,
            DropReason::Fault(Fault::UnsupportedScheme) => 1,
            DropReason::Fault(Fault::Version) => 2,
            DropReason::NotOurVia => 3,
            DropReason::NoRoute => 4,
            DropReason::Unanswerable(_) => 5,
            DropReason::LookupsFull => {
                self.limit(Limit::Lookups);
                6
            }
        };
        self.drops.inc([index]);
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("a legal name");
    registry.register(Box::new(gauge.clone())).expect("each name is registered once");
    gauge
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    let options = HistogramOpts::new(name, help).buckets(buckets);
    let histogram = Histogram::with_opts(options).expect("a legal name and rising buckets");
    registry.register(Box::new(histogram.clone())).expect("each name is registered once");
    histogram
}

#[cfg(test)]
mod tests {
    use sipwarden_sip::ParseError;

    use super::*;

    #[test]
    fn each_outcome_has_its_own_verdict() {
        let metrics = Metrics::new();
        metrics.message(Leg::Local, MessageKind::Request, Outcome::Forwarded { edited: true });
        metrics.message(Leg::Remote, MessageKind::Request, Outcome::Answered(483));
        metrics.message(
            Leg::Remote,
            MessageKind::Unreadable,
            Outcome::Dropped(DropReason::Parse(ParseError::Truncated)),
        );
        metrics.message(Leg::Local, MessageKind::Request, Outcome::Dropped(DropReason::LookupsFull));
        let text = metrics.render(7);
        for line in [
            r#"sipwarden_messages_total{kind="request",side="Local",verdict="Edited"} 1"#,
            r#"sipwarden_messages_total{kind="request",side="Remote",verdict="Answered"} 1"#,
            r#"sipwarden_answers_total{side="Remote",status="483"} 1"#,
            r#"sipwarden_messages_total{kind="unreadable",side="Remote",verdict="Dropped"} 1"#,
            r#"sipwarden_parse_failures_total{reason="Truncated"} 1"#,
            r#"sipwarden_drops_total{reason="LookupsFull"} 1"#,
            r#"sipwarden_limits_reached_total{limit="Lookups"} 1"#,
            "sipwarden_sessions_active 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn every_label_list_fits_its_enum() {
        let metrics = Metrics::new();
        metrics.transport_error(Transport::Tcp, TransportError::Idle);
        metrics.limit(Limit::Traces);
        metrics.limit(Limit::DecisionReaders);
        metrics.records_lost(RecordKind::Request, 3);
        let text = metrics.render(0);
        assert!(text.contains(r#"sipwarden_transport_errors_total{error="Idle",transport="tcp"} 1"#));
        assert!(text.contains(r#"sipwarden_limits_reached_total{limit="Traces"} 1"#));
        assert!(text.contains(r#"sipwarden_limits_reached_total{limit="DecisionReaders"} 1"#));
        assert!(text.contains(r#"sipwarden_records_lost_total{kind="request"} 3"#));
    }
}
