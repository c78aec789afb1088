//! An OpenTelemetry collector on loopback: takes OTLP over HTTP and decodes it, or does not answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

/// A running collector.
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

/// A span with the attributes of its resource.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) resource: Vec<KeyValue>,
    pub(crate) span: Span,
}

impl Collector {
    pub(crate) async fn start() -> Collector {
        let got = Arc::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&got));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Collector { addr, got }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn spans(&self) -> Vec<Got> {
        self.got.lock().expect("nobody panics").clone()
    }
}

async fn take(State(got): State<Arc<Mutex<Vec<Got>>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let is_protobuf = headers.get("content-type").is_some_and(|kind| kind == "application/x-protobuf");
    let Some(request) = ExportTraceServiceRequest::decode(body).ok().filter(|_| is_protobuf) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut got = got.lock().expect("nobody panics");
    for from in request.resource_spans {
        let resource = from.resource.unwrap_or_default().attributes;
        let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
        got.extend(spans.map(|span| Got { resource: resource.clone(), span }));
    }
    StatusCode::OK
}

impl Got {
    /// The value of an attribute as text; empty without it.
    pub(crate) fn text(&self, key: &str) -> String {
        text(&self.span.attributes, key)
    }

    /// Names of its events, in order.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.span.events.iter().map(|event| event.name.as_str()).collect()
    }

    /// An attribute of its first event of that name.
    pub(crate) fn event_text(&self, event: &str, key: &str) -> String {
        let found = self.span.events.iter().find(|found| found.name == event);
        text(&found.unwrap_or_else(|| panic!("no {event} in {self:#?}")).attributes, key)
    }

    pub(crate) fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

pub(crate) fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        None => String::new(),
        Some(other) => panic!("{key} is {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
