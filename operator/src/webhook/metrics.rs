//! What the endpoints count. All label values are closed sets.

use std::time::Instant;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, exponential_buckets,
};

use crate::inject::SkipReason;

/// One of the two endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/inject`
    Inject,
    /// `/validate`
    Validate,
}

/// What became of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A pod got its sidecar.
    Injected,
    /// A pod's sidecar, injected before, got its config.
    Updated,
    /// A pod asked for nothing, or has it.
    Skipped,
    /// A pod asked for a sidecar that it cannot have.
    Refused,
    /// A policy may be stored.
    Allowed,
    /// A policy may not be stored.
    Denied,
    /// The review could not be read or answered.
    Failed,
}

/// Counters of the endpoints; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    reviews: IntCounterVec,
    skips: IntCounterVec,
    inject_seconds: Histogram,
    validate_seconds: Histogram,
    pub(super) connections: IntGauge,
    pub(super) handshake_failures: IntCounter,
}

/// A review under way.
pub(super) struct Timer<'a> {
    metrics: &'a Metrics,
    endpoint: Endpoint,
    started: Instant,
}

impl Endpoint {
    /// As in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Inject => "inject",
            Self::Validate => "validate",
        }
    }
}

impl Outcome {
    /// As in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Updated => "updated",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// Makes them known to a registry; all series exist from the start.
    ///
    /// # Errors
    /// The registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Outcome::{Allowed, Denied, Failed, Injected, Refused, Skipped, Updated};

        let reviews = Opts::new("sipwarden_operator_admission_reviews_total", "Admission reviews answered.");
        let reviews = IntCounterVec::new(reviews, &["webhook", "outcome"])?;
        for (endpoint, outcomes) in [
            (Endpoint::Inject, &[Injected, Updated, Skipped, Refused, Failed][..]),
            (Endpoint::Validate, &[Allowed, Denied, Failed]),
        ] {
            for outcome in outcomes {
                reviews.with_label_values(&[endpoint.as_str(), outcome.as_str()]);
            }
        }
        let skips =
            Opts::new("sipwarden_operator_injection_skipped_total", "Pods left without a new sidecar, by reason.");
        let skips = IntCounterVec::new(skips, &["reason"])?;
        for reason in SkipReason::ALL {
            skips.with_label_values(&[reason.as_str()]);
        }
        let seconds =
            HistogramOpts::new("sipwarden_operator_admission_seconds", "Time from a review's head to its answer.")
                .buckets(exponential_buckets(0.0005, 3.0, 9)?);
        let seconds = HistogramVec::new(seconds, &["webhook"])?;
        let connections = IntGauge::new("sipwarden_operator_webhook_connections", "TLS connections open.")?;
        let handshake_failures = IntCounter::new(
            "sipwarden_operator_webhook_handshake_failures_total",
            "TLS handshakes that failed: a client that does not trust the CA, or no client of ours.",
        )?;
        registry.register(Box::new(reviews.clone()))?;
        registry.register(Box::new(skips.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(handshake_failures.clone()))?;
        Ok(Self {
            reviews,
            skips,
            inject_seconds: seconds.with_label_values(&[Endpoint::Inject.as_str()]),
            validate_seconds: seconds.with_label_values(&[Endpoint::Validate.as_str()]),
            connections,
            handshake_failures,
        })
    }

    pub(super) fn start(&self, endpoint: Endpoint) -> Timer<'_> {
        Timer { metrics: self, endpoint, started: Instant::now() }
    }

    pub(super) fn skipped(&self, reason: SkipReason) {
        self.skips.with_label_values(&[reason.as_str()]).inc();
    }
}

impl Timer<'_> {
    pub(super) fn stop(self, outcome: Outcome) {
        let seconds = match self.endpoint {
            Endpoint::Inject => &self.metrics.inject_seconds,
            Endpoint::Validate => &self.metrics.validate_seconds,
        };
        seconds.observe(self.started.elapsed().as_secs_f64());
        self.metrics.reviews.with_label_values(&[self.endpoint.as_str(), outcome.as_str()]).inc();
    }
}
