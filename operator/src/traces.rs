//! What the operator does, as spans at an OpenTelemetry collector, where one is named: admission reviews, what the leader
//! takes from its queues, writes, compiled policies.
//!
//! The spans are those of `tracing` in this crate. It must not know what any of them is about.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::http::HeaderMap;
use sipwarden_otlp::{
    Otlp, Ratio, Service,
    opentelemetry::{
        Context,
        propagation::{Extractor, TextMapPropagator},
        trace::TracerProvider,
    },
    sdk::{
        propagation::TraceContextPropagator,
        trace::{Sampler, SdkTracerProvider, SpanProcessor},
    },
};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::metrics::Metrics;

/// Spans of libraries are of no use to whoever runs the operator.
const TARGET: &str = env!("CARGO_CRATE_NAME");
/// What is unsent when the process ends gets this long.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
    exporting: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Traces {
    /// Sends spans to a collector from now on, in the runtime at hand.
    ///
    /// # Errors
    /// The exporter cannot be made as the environment asks.
    pub fn begin(otlp: &Otlp, metrics: Metrics) -> anyhow::Result<Self> {
        let service = Service { name: "sipwarden-operator", version: env!("CARGO_PKG_VERSION") };
        let count = Arc::new(move |fate, spans| metrics.spans(fate, spans));
        let (spans, exporter) = sipwarden_otlp::pipeline(&otlp.endpoint, service, count)
            .with_context(|| format!("--otlp {}", otlp.endpoint))?;
        let (end, ended) = oneshot::channel();
        let exporting = tokio::spawn(exporter.run(async {
            let _ = ended.await;
        }));
        Ok(Self { provider: provider(spans, otlp.ratio), exporting, end })
    }

    /// For the subscriber of the process.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        layer(&self.provider)
    }

    /// Sends what waits, if that can be done quickly.
    pub async fn finish(self) {
        drop(self.end);
        if timeout(FLUSH_TIMEOUT, self.exporting).await.is_err() {
            tracing::warn!("not every span could be sent");
        }
    }
}

/// What makes spans for `processor`. Where somebody else began the trace, he decides whether it is sampled.
pub fn provider(processor: impl SpanProcessor + 'static, ratio: Ratio) -> SdkTracerProvider {
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio.get())));
    // The exporter knows the resource.
    SdkTracerProvider::builder().with_span_processor(processor).with_sampler(sampler).build()
}

/// Makes spans of this crate into spans of `provider`.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("sipwarden"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(TARGET, Level::INFO))
}

/// Makes `span` a part of the trace that a request names (`traceparent`), if it names one.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    if headers.contains_key("traceparent") {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Carrier(headers));
        // Fails where nothing is traced.
        let _ = span.set_parent(context);
    }
}

struct Carrier<'a>(&'a HeaderMap);

impl Extractor for Carrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
