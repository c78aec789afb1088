//! The admission endpoints: `/inject` for pods, `/validate` for policies, over TLS.
//!
//! An admission review is answered from what is in memory. Not knowing a namespace or a config never blocks a pod: it then
//! comes up with a sidecar that observes, and the operator writes its config later. Nothing here writes to the cluster;
//! who wants to tell about an admission is told, unless it is a dry run.
//!
//! It must not know where facts come from ([`Lookup`]), who tells about them ([`Audience`]), or how certificates come
//! about (`certs`).

mod injecting;
mod metrics;
mod serve;
mod validating;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Json, Response},
    routing::post,
};
use k8s_openapi::api::core::v1::Pod;
use kube::core::{
    DynamicObject, Resource,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{Instrument, Span, field::Empty, info_span};

use self::metrics::{Endpoint, Outcome};
pub use self::{
    metrics::Metrics,
    serve::{ServeError, serve},
};
use crate::{
    inject::{NamespaceFacts, Settings, Skip},
    traces,
};

/// More than two of the largest objects that an API server stores.
const MAX_REVIEW_BYTES: usize = 8 << 20;
/// Most reviews are of less, and read at once.
const LARGE_REVIEW_BYTES: u64 = 64 << 10;
/// Larger ones that are read at a time: whoever sends them, they do not use up the memory.
const MAX_LARGE_READS: usize = 32;
/// For a review to arrive whole, its turn included. The API server waits 10 s for an answer unless told otherwise.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What admission asks about the cluster.
pub trait Lookup: Send + Sync {
    /// What memory knows of a namespace; None if nothing.
    fn namespace(&self, name: &str) -> Option<NamespaceFacts>;

    /// Asks the API server itself. Called where memory and the API server's selectors disagree; None if it cannot be known.
    fn refetch<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Option<NamespaceFacts>> + Send + 'a>>;

    /// The text of the config annotation for a pod that is about to be created in this namespace; its own metadata may
    /// lack namespace and name. Empty if no policy is in force for it, None if that is not known yet.
    fn config(&self, namespace: &str, pod: &Pod) -> Option<String>;
}

/// Who tells people why their pods have no sidecar. Must return at once.
pub trait Audience: Send + Sync {
    /// A pod asked for a sidecar and was refused. Never called for a dry run.
    fn refused(&self, refusal: &Refusal);
}

/// A pod that stays without the sidecar it asked for.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// Where it is created.
    pub namespace: &'a str,
    /// As it came; named by its owner if not by itself.
    pub pod: &'a Pod,
    /// Why.
    pub skip: &'a Skip,
}

/// The endpoints.
#[derive(Clone)]
pub struct Webhook {
    settings: Arc<Settings>,
    lookup: Arc<dyn Lookup>,
    audience: Arc<dyn Audience>,
    metrics: Metrics,
    large_reads: Arc<Semaphore>,
}

impl Webhook {
    /// Endpoints that inject by these settings.
    pub fn new(settings: Settings, lookup: Arc<dyn Lookup>, audience: Arc<dyn Audience>, metrics: Metrics) -> Self {
        let large_reads = Arc::new(Semaphore::new(MAX_LARGE_READS));
        Self { settings: Arc::new(settings), lookup, audience, metrics, large_reads }
    }

    /// Its routes, without TLS.
    pub fn router(self) -> Router {
        Router::new().route("/inject", post(inject)).route("/validate", post(validate)).with_state(self)
    }
}

async fn inject(State(webhook): State<Webhook>, request: Request) -> Response {
    let answer = async |review: &AdmissionRequest<Pod>| injecting::answer(&webhook, review).await;
    review(&webhook, Endpoint::Inject, request, answer).await
}

async fn validate(State(webhook): State<Webhook>, request: Request) -> Response {
    let answer = async |review: &AdmissionRequest<DynamicObject>| {
        let response = validating::answer(review, &webhook.settings.revision);
        let outcome = if response.allowed { Outcome::Allowed } else { Outcome::Denied };
        (response, outcome)
    };
    review(&webhook, Endpoint::Validate, request, answer).await
}

/// Reads a review, answers it, and tells metrics and a collector about it.
async fn review<T: Resource + DeserializeOwned>(
    webhook: &Webhook,
    endpoint: Endpoint,
    request: Request,
    answer: impl AsyncFnOnce(&AdmissionRequest<T>) -> (AdmissionResponse, Outcome),
) -> Response {
    let timer = webhook.metrics.start(endpoint);
    let span = span(endpoint, &request);
    let answering = async {
        let (response, outcome) = match webhook.read_review(request).await {
            Ok(review) => {
                let (response, outcome) = answer(&review).await;
                told(&review, outcome);
                (Json(response.into_review()).into_response(), outcome)
            }
            Err(fault) => (fault.into_response(), Outcome::Failed),
        };
        timer.stop(outcome);
        response
    };
    answering.instrument(span).await
}

/// For a collector: below the span of the API server, where it says that it has one.
fn span(endpoint: Endpoint, request: &Request) -> Span {
    let span = info_span!(
        "admission",
        otel.kind = "server",
        webhook = endpoint.as_str(),
        namespace = Empty,
        name = Empty,
        outcome = Empty
    );
    traces::adopt(&span, request.headers());
    span
}

fn told<T: Resource>(review: &AdmissionRequest<T>, outcome: Outcome) {
    let span = Span::current();
    span.record("namespace", review.namespace.as_deref());
    span.record("name", &review.name);
    span.record("outcome", outcome.as_str());
}

type Fault = (StatusCode, &'static str);

impl Webhook {
    /// What cannot be read is an error of HTTP: the API server then goes by the failurePolicy.
    async fn read_review<T: Resource + DeserializeOwned>(
        &self,
        request: Request<Body>,
    ) -> Result<AdmissionRequest<T>, Fault> {
        let body = request.into_body();
        let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= LARGE_REVIEW_BYTES);
        let reading = async {
            let turn: Option<SemaphorePermit> = if is_small { None } else { self.large_reads.acquire().await.ok() };
            (to_bytes(body, MAX_REVIEW_BYTES).await, turn)
        };
        // The turn ends with the body.
        let (body, _turn) = tokio::time::timeout(READ_TIMEOUT, reading)
            .await
            .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time"))?;
        let body = body.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the review is too large, or was cut off"))?;
        // As text, like kube's client: a reader of pods from bytes beside the one from text would be half a megabyte.
        let review: Option<AdmissionReview<T>> =
            str::from_utf8(&body).ok().and_then(|text| serde_json::from_str(text).ok());
        let review = review.ok_or((StatusCode::BAD_REQUEST, "not an AdmissionReview of this resource"))?;
        review.try_into().map_err(|_| (StatusCode::BAD_REQUEST, "an AdmissionReview without a request"))
    }
}
