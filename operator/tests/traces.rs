//! What the operator does, as an OpenTelemetry collector would see it.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{body::Body, http::Request};
use k8s_openapi::api::core::v1::Pod;
use prometheus::Registry;
use serde_json::json;
use sipwarden_operator::{
    inject::{NamespaceFacts, Settings},
    traces,
    webhook::{Audience, Lookup, Metrics, Refusal, Webhook},
};
use sipwarden_otlp::{
    Ratio,
    opentelemetry::trace::{SpanId, SpanKind},
    sdk::trace::{InMemorySpanExporter, SimpleSpanProcessor, SpanData},
};
use tower::ServiceExt;
use tracing_subscriber::layer::SubscriberExt;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

struct Nothing;

impl Lookup for Nothing {
    fn namespace(&self, _: &str) -> Option<NamespaceFacts> {
        Some(NamespaceFacts { inject: Some("enabled".to_owned()), revision: None })
    }

    fn refetch<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<NamespaceFacts>> + Send + 'a>> {
        Box::pin(async { None })
    }

    fn config(&self, _: &str, _: &Pod) -> Option<String> {
        None
    }
}

impl Audience for Nothing {
    fn refused(&self, _: &Refusal) {}
}

/// The spans of one review, posted with these header lines.
async fn spans_of_a_review(headers: &[(&str, &str)], ratio: Ratio) -> Vec<SpanData> {
    let exporter = InMemorySpanExporter::default();
    let provider = traces::provider(SimpleSpanProcessor::new(exporter.clone()), ratio);
    let subscriber = tracing_subscriber::registry().with(traces::layer(&provider));
    let _traced = tracing::subscriber::set_default(subscriber);
    let metrics = Metrics::new(&Registry::new()).expect("names are good");
    let settings = Settings::new("default", "localhost/sipwarden:dev");
    let router = Webhook::new(settings, Arc::new(Nothing), Arc::new(Nothing), metrics).router();
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": "voice", "name": "asterisk-0", "userInfo": {},
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "object": {
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "asterisk-0" },
                "spec": { "containers": [{ "name": "asterisk", "ports": [{ "name": "sip", "containerPort": 5060 }] }] },
            },
        },
    });
    let mut request = Request::post("/inject");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(review.to_string())).expect("a request");
    assert!(router.oneshot(request).await.expect("answered").status().is_success());
    exporter.get_finished_spans().expect("in memory")
}

fn text(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.as_str().into_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_review_is_a_span_below_that_of_the_api_server() {
    let spans = spans_of_a_review(&[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))], Ratio::ALL).await;
    let [span] = &spans[..] else { panic!("not one span: {spans:#?}") };
    assert_eq!((span.name.as_ref(), &span.span_kind), ("admission", &SpanKind::Server));
    assert_eq!(span.span_context.trace_id().to_string(), TRACE);
    assert_eq!(span.parent_span_id.to_string(), PARENT);
    let attributes = ["webhook", "namespace", "name", "outcome"].map(|key| text(span, key));
    assert_eq!(attributes, ["inject", "voice", "asterisk-0", "injected"]);
}

#[tokio::test]
async fn without_a_parent_a_trace_begins_here_as_often_as_the_ratio_says() {
    let spans = spans_of_a_review(&[], Ratio::ALL).await;
    assert_eq!((spans.len(), spans[0].parent_span_id), (1, SpanId::INVALID));
    let none: Ratio = "0".parse().expect("a ratio");
    assert_eq!(spans_of_a_review(&[], none).await.len(), 0);
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    assert_eq!(spans_of_a_review(&[("traceparent", &unsampled)], Ratio::ALL).await.len(), 0);
}
