//! Finished spans on their way to an OpenTelemetry collector: OTLP over HTTP, in the background, within bounds.
//!
//! ```text
//! Spans::send ──► queue, bounded ──► Exporter::run: batches ──► POST http://HOST:4318/v1/traces
//!      └► full: lost, counted            └► refused, or no answer in time: lost, counted
//! ```
//!
//! Whoever has a span gives it away and goes on; nothing here holds anybody back. The batch processor of the SDK is not used:
//! it wants a thread of its own with a blocking client, and tells nobody how many spans it lost.
//!
//! It must not know what a span is about.

mod http;
mod queue;
mod target;

pub use opentelemetry;
pub use opentelemetry_sdk as sdk;

pub use self::queue::{Count, Exporter, Fate, Spans};
pub use self::target::{Endpoint, Otlp, Ratio, TargetError};

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::SpanExporter as _;

/// What the injector names the pod, its namespace and its node in a container's environment, and what
/// OpenTelemetry calls them.
const PLACES: [(&str, &str); 3] =
    [("POD_NAME", "k8s.pod.name"), ("POD_NAMESPACE", "k8s.namespace.name"), ("NODE_NAME", "k8s.node.name")];

/// Who sends the spans.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// `service.name`, unless `OTEL_SERVICE_NAME` says otherwise.
    pub name: &'static str,
    /// `service.version`.
    pub version: &'static str,
}

/// A queue for spans to `endpoint`, and what empties it. `count` is told what becomes of each. Headers, time-out and
/// resource attributes may come from the variables that OpenTelemetry names for them (`OTEL_EXPORTER_OTLP_HEADERS` …).
///
/// # Errors
/// A URL that cannot be one, or a variable that asks for what is not built in (compression).
pub fn pipeline(endpoint: &Endpoint, service: Service, count: Count) -> Result<(Spans, Exporter), ExporterBuildError> {
    let timeout = timeout();
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(http::Client { timeout })
        .with_timeout(timeout)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.traces_url())
        .build()?;
    exporter.set_resource(&resource(service));
    Ok(queue::queue(exporter, endpoint.clone(), count))
}

/// For one request, and for all attempts together.
fn timeout() -> Duration {
    [OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, OTEL_EXPORTER_OTLP_TIMEOUT]
        .into_iter()
        .find_map(|name| env(name)?.parse().ok())
        .map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn resource(service: Service) -> Resource {
    let name = env("OTEL_SERVICE_NAME").unwrap_or_else(|| service.name.to_owned());
    let places = PLACES.into_iter().filter_map(|(variable, key)| Some(KeyValue::new(key, env(variable)?)));
    Resource::builder_empty()
        .with_attribute(KeyValue::new("service.version", service.version))
        .with_attributes(places)
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_service_name(name)
        .build()
}
