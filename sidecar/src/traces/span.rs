//! What is remembered, as spans: names and attributes. Those of OpenTelemetry's semantic conventions where there are any,
//! `sipwarden.` and the name of `/sessions` and the log otherwise.

use std::time::SystemTime;

use sipwarden_otlp::opentelemetry::propagation::Extractor;
use sipwarden_otlp::opentelemetry::trace::{
    Event as SpanEvent, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use sipwarden_otlp::opentelemetry::{InstrumentationScope, KeyValue, Value};
use sipwarden_otlp::sdk::trace::{SpanData, SpanEvents, SpanLinks};
use sipwarden_session_timer::{Direction, EndCause, Event, Flow, Leg, SessionView};
use sipwarden_sip::{HeaderName, Message};

use super::Cause;
use super::table::{Decision, Events, Refused, Session, Told};
use crate::address::transport_name;
use crate::record::names_user;
use crate::report::{self, Record, session_name};
use crate::sessions::shown_call_id;
use crate::transport::Endpoint;
use crate::typed;

/// The name of a session's span.
pub(super) const SESSION: &str = "SIP session";
/// The name of the span of an INVITE that was refused with 422.
const REFUSAL: &str = "SIP INVITE";

/// Where a span belongs.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    pub(super) id: TraceId,
    pub(super) sampled: bool,
    parent: SpanId,
    state: TraceState,
}

/// What spans are given names and attributes with.
pub(super) struct Names {
    endpoints: Vec<Endpoint>,
    scope: InstrumentationScope,
}

/// A message as a carrier of W3C Trace Context.
pub(super) struct Carrier<'a, 'b>(pub(super) &'a Message<'b>);

impl Trace {
    /// A trace that begins here.
    pub(super) fn root(id: TraceId, sampled: bool) -> Trace {
        Trace { id, sampled, parent: SpanId::INVALID, state: TraceState::default() }
    }

    /// That of somebody else's span.
    pub(super) fn below(parent: &SpanContext, sampled: bool) -> Trace {
        let state = parent.trace_state().clone();
        Trace { id: parent.trace_id(), sampled, parent: parent.span_id(), state }
    }
}

impl Names {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Names {
        let scope = InstrumentationScope::builder("sipwarden").with_version(env!("CARGO_PKG_VERSION")).build();
        Names { endpoints, scope }
    }

    /// What does not change in a session; with `reveal` the users of SIP URIs too.
    pub(super) fn attributes(&self, shard: usize, view: &SessionView, reveal: bool) -> Vec<KeyValue> {
        let [local, remote] = &view.legs;
        let mut attributes = self.network(remote.flow);
        attributes.extend([
            text("sipwarden.session", session_name(shard, view.id)),
            text("sipwarden.call_id", shown_call_id(view, reveal)),
            KeyValue::new("sipwarden.direction", view.direction.as_str()),
            text("sipwarden.local", typed::shown_party(&local.party, reveal)),
            text("sipwarden.remote", typed::shown_party(&remote.party, reveal)),
        ]);
        attributes
    }

    /// The span of a session, as it is `now`.
    pub(super) fn session(&self, session: Session, now: SystemTime) -> SpanData {
        let Session { trace, span, started, events, mut attributes, decision, interval_s, refresher, ended, .. } =
            session;
        decided(&decision, &mut attributes);
        attributes.extend(interval_s.map(|interval| number("sipwarden.interval_s", interval)));
        attributes.extend(refresher.map(|side| KeyValue::new("sipwarden.refresher", side.as_str())));
        let cause = ended.map(|(cause, _)| cause);
        // Without one, the session goes on and the sidecar does not.
        attributes.push(KeyValue::new("sipwarden.end_cause", cause.map_or("SidecarStopped", report::cause_name)));
        let status = match cause {
            Some(cause @ (EndCause::Expired | EndCause::RefreshFailed(_) | EndCause::AppGone)) => {
                attributes.push(KeyValue::new("error.type", report::cause_name(cause)));
                Status::error(report::cause_name(cause))
            }
            _ => Status::Unset,
        };
        SpanData { status, ..self.span(SESSION, trace, span, (started, now), attributes, events) }
    }

    /// The span of an INVITE that came to nothing. A refusal by policy is no error of anybody's.
    pub(super) fn refusal(&self, refused: Refused, span: SpanId, cause: Cause, now: SystemTime) -> SpanData {
        let Refused { trace, started, events, decision } = refused;
        let Cause { flow, message, reveal } = cause;
        let came_from = self.endpoints[usize::from(flow.endpoint)].leg;
        // A request of the caller, or a response to one.
        let caller = if message.status().is_some() { came_from.other() } else { came_from };
        let mut attributes = if came_from == Leg::Remote { self.network(flow) } else { Vec::new() };
        let [local, remote] = match caller {
            Leg::Local => [HeaderName::From, HeaderName::To],
            Leg::Remote => [HeaderName::To, HeaderName::From],
        };
        let [local, remote] = [local, remote].map(|name| message.first(name).map_or(&b""[..], |header| header.value));
        let call_id = message.call_id().unwrap_or_default();
        let names_user = names_user(call_id, [Some(local), Some(remote)]);
        let direction = if caller == Leg::Local { Direction::Outbound } else { Direction::Inbound };
        attributes.extend([
            text("sipwarden.call_id", typed::shown_call_id(call_id, names_user && !reveal)),
            KeyValue::new("sipwarden.direction", direction.as_str()),
            text("sipwarden.local", typed::shown_party(local, reveal)),
            text("sipwarden.remote", typed::shown_party(remote, reveal)),
            number("sipwarden.status", 422),
        ]);
        decided(&decision, &mut attributes);
        self.span(REFUSAL, trace, span, (started, now), attributes, events)
    }

    fn network(&self, flow: Flow) -> Vec<KeyValue> {
        let transport = self.endpoints[usize::from(flow.endpoint)].transport;
        vec![
            KeyValue::new("network.protocol.name", "sip"),
            KeyValue::new("network.transport", transport_name(transport)),
            text("network.peer.address", flow.peer.ip().to_canonical().to_string()),
            number("network.peer.port", flow.peer.port().into()),
        ]
    }

    fn span(
        &self,
        name: &'static str,
        trace: Trace,
        span: SpanId,
        (started, ended): (SystemTime, SystemTime),
        attributes: Vec<KeyValue>,
        events: Events,
    ) -> SpanData {
        let mut span_events = SpanEvents::default();
        span_events.events = events.told.iter().map(span_event).collect();
        span_events.dropped_count = events.left_out;
        SpanData {
            span_context: SpanContext::new(trace.id, span, TraceFlags::SAMPLED, false, trace.state),
            parent_span_id: trace.parent,
            parent_span_is_remote: trace.parent != SpanId::INVALID,
            span_kind: SpanKind::Server,
            name: name.into(),
            start_time: started,
            // The clock may have been set back.
            end_time: ended.max(started),
            attributes,
            dropped_attributes_count: 0,
            events: span_events,
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl Extractor for Carrier<'_, '_> {
    /// SIP knows no such header field, so it is read as HTTP's: by name, in any case of letters.
    fn get(&self, key: &str) -> Option<&str> {
        let bytes = self.0.bytes();
        let fits = |line: &&[u8]| {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            name.trim_ascii_end().eq_ignore_ascii_case(key.as_bytes())
        };
        let others = self.0.all(HeaderName::Other);
        let found = others.map(|header| (&bytes[header.line_start..header.line_end], header.value));
        std::str::from_utf8(found.filter(|(line, _)| fits(line)).map(|(_, value)| value).next()?).ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

fn decided(Decision { policy, rule }: &Decision, attributes: &mut Vec<KeyValue>) {
    attributes.push(text("sipwarden.policy", policy.name.clone()));
    attributes.extend(policy.rule_name(*rule).map(|rule| text("sipwarden.rule", rule.to_owned())));
    attributes.push(KeyValue::new("sipwarden.mode", report::mode_name(policy.mode)));
}

fn span_event(told: &Told) -> SpanEvent {
    let event = Event { session: None, observed: told.observed, rule: None, kind: told.kind };
    let Record { kind, side, method, asked_s, interval_s, min_se_s, refresher, status, reason, observed } =
        (&event).into();
    let texts = [
        ("sipwarden.side", side),
        ("sipwarden.method", method),
        ("sipwarden.refresher", refresher),
        ("sipwarden.reason", reason),
    ];
    let numbers = [
        ("sipwarden.asked_s", asked_s),
        ("sipwarden.interval_s", interval_s),
        ("sipwarden.min_se_s", min_se_s),
        ("sipwarden.status", status.map(u32::from)),
    ];
    let mut attributes: Vec<KeyValue> = Vec::new();
    attributes.extend(texts.into_iter().filter_map(|(name, value)| Some(KeyValue::new(name, value?))));
    attributes.extend(numbers.into_iter().filter_map(|(name, value)| Some(number(name, value?))));
    attributes.extend(observed.then(|| KeyValue::new("sipwarden.observed", true)));
    SpanEvent::new(kind, told.at, attributes, 0)
}

fn text(name: &'static str, value: String) -> KeyValue {
    KeyValue::new(name, value)
}

fn number(name: &'static str, value: u32) -> KeyValue {
    KeyValue::new(name, Value::I64(value.into()))
}
