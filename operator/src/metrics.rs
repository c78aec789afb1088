//! What the operator counts. Label values are closed sets; no name of an object is one.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    exponential_buckets,
};
use sipwarden_otlp::Fate;

use crate::state::{State, Watched};

/// What is written to the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The annotation of a pod.
    Pod,
    /// An annotation that makes the kubelet look at a pod again.
    Nudge,
    /// A SidecarConfig.
    Config,
    /// Its status.
    ConfigStatus,
    /// The status of a SessionPolicy.
    PolicyStatus,
    /// The status of a ClusterSessionPolicy.
    ClusterStatus,
    /// An Event.
    Event,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is written.
    Written,
    /// There is nothing to write to any more.
    Gone,
    /// It was not; what can be tried again is.
    Failed,
}

/// Counters and gauges; clones count into the same.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    watch_events: IntCounterVec,
    watch_failures: IntCounterVec,
    api_requests: IntCounterVec,
    writes: IntCounterVec,
    acks: IntCounterVec,
    spans: IntCounterVec,
    delivery_seconds: Histogram,
    leading: IntGauge,
    objects: IntGaugeVec,
    queued: IntGaugeVec,
    watch_age_seconds: IntGauge,
}

impl Written {
    const ALL: [Self; 7] = [
        Self::Pod,
        Self::Nudge,
        Self::Config,
        Self::ConfigStatus,
        Self::PolicyStatus,
        Self::ClusterStatus,
        Self::Event,
    ];

    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Nudge => "pod-nudge",
            Self::Config => "sidecarconfig",
            Self::ConfigStatus => "sidecarconfig-status",
            Self::PolicyStatus => "sessionpolicy-status",
            Self::ClusterStatus => "clustersessionpolicy-status",
            Self::Event => "event",
        }
    }
}

impl WriteOutcome {
    const ALL: [Self; 3] = [Self::Written, Self::Gone, Self::Failed];

    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

impl Metrics {
    /// A set with a registry of its own, in which all series exist from the start.
    ///
    /// # Errors
    /// None while the names in this file are good and different.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(format!("sipwarden_operator_{name}"), help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(format!("sipwarden_operator_{name}"), help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("sipwarden_operator_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let delivery_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "sipwarden_operator_delivery_seconds",
                "From noticing that a pod's config has to change to its annotation being written.",
            )
            .buckets(exponential_buckets(0.001, 2.0, 14)?),
        )?;
        registry.register(Box::new(delivery_seconds.clone()))?;
        let inner = Inner {
            watch_events: counters("watch_events_total", "Changes told by watches.", &["kind"])?,
            watch_failures: counters("watch_failures_total", "Watches and lists that failed.", &["kind"])?,
            api_requests: counters("api_requests_total", "Requests to the API server.", &["verb", "status"])?,
            writes: counters("writes_total", "Objects written.", &["kind", "outcome"])?,
            acks: counters("acks_total", "Times a sidecar was asked what it obeys.", &["outcome"])?,
            spans: counters(
                "trace_spans_total",
                "Spans for the collector of --otlp, by what became of them; all but exported ones are lost.",
                &["fate"],
            )?,
            leading: gauge("leading", "1 for the replica that writes.")?,
            objects: gauges("objects", "Objects of namespaces of this revision.", &["kind"])?,
            queued: gauges("queued", "Objects that wait to be written, or asked.", &["queue"])?,
            watch_age_seconds: gauge("watch_age_seconds", "Since the watch that waits longest was last answered.")?,
            delivery_seconds,
            registry: registry.clone(),
        };
        let metrics = Self(Arc::new(inner));
        metrics.start_series();
        Ok(metrics)
    }

    /// Where others register what they count.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// A watch told a change.
    pub fn watch_event(&self, watched: Watched) {
        self.0.watch_events.with_label_values(&[watched.as_str()]).inc();
    }

    /// A watch failed.
    pub fn watch_failed(&self, watched: Watched) {
        self.0.watch_failures.with_label_values(&[watched.as_str()]).inc();
    }

    /// The API server was asked something; None if it did not answer.
    pub fn api_request(&self, verb: &str, status: Option<StatusCode>) {
        let class = match status.map(|status| status.as_u16()) {
            Some(200..=299) => "2xx",
            Some(404) => "404",
            Some(409) => "409",
            Some(429) => "429",
            Some(400..=499) => "4xx",
            Some(500..=599) => "5xx",
            Some(_) => "other",
            None => "none",
        };
        self.0.api_requests.with_label_values(&[verb, class]).inc();
    }

    /// Something was written, or not.
    pub fn write(&self, written: Written, outcome: WriteOutcome) {
        self.0.writes.with_label_values(&[written.as_str(), outcome.as_str()]).inc();
    }

    /// What became of spans.
    pub fn spans(&self, fate: Fate, spans: u64) {
        self.0.spans.with_label_values(&[fate.as_str()]).inc_by(spans);
    }

    /// A pod's annotation was written this long after it was found to differ.
    pub fn delivered(&self, after: Duration) {
        self.0.delivery_seconds.observe(after.as_secs_f64());
    }

    /// A sidecar was asked.
    pub fn acked(&self, answered: bool) {
        self.0.acks.with_label_values(&[if answered { "answered" } else { "silent" }]).inc();
    }

    /// Everything, as Prometheus reads it.
    ///
    /// # Errors
    /// None that is known: what is registered can be written.
    pub fn render(&self, state: &State, watch_age: Duration) -> Result<String, prometheus::Error> {
        let inner = &self.0;
        let sizes = state.look(|index| index.sizes());
        for (kind, size) in [
            ("sessionpolicies", sizes.policies),
            ("sessionpolicies-invalid", sizes.invalid_policies),
            ("sessionpolicies-conflicted", sizes.conflicted_policies),
            ("workloads", sizes.workloads),
            ("pods", sizes.pods),
            ("pods-answering", sizes.acked),
            ("pods-without-sidecar", sizes.bare_pods),
        ] {
            inner.objects.with_label_values(&[kind]).set(gauge_value(size));
        }
        let queues = &state.queues;
        for (name, length) in [
            ("pods", queues.pods.len()),
            ("sidecarconfigs", queues.configs.len()),
            ("statuses", queues.told.len()),
            ("acks", queues.acks.len()),
        ] {
            inner.queued.with_label_values(&[name]).set(gauge_value(length));
        }
        inner.leading.set(i64::from(state.is_leading()));
        inner.watch_age_seconds.set(i64::try_from(watch_age.as_secs()).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        TextEncoder::new().encode(&inner.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|_| prometheus::Error::Msg("metrics are text".to_owned()))
    }

    fn start_series(&self) {
        Fate::ALL.into_iter().for_each(|fate| self.spans(fate, 0));
        for watched in Watched::ALL {
            self.0.watch_events.with_label_values(&[watched.as_str()]);
            self.0.watch_failures.with_label_values(&[watched.as_str()]);
        }
        for written in Written::ALL {
            for outcome in WriteOutcome::ALL {
                self.0.writes.with_label_values(&[written.as_str(), outcome.as_str()]);
            }
        }
        for outcome in ["answered", "silent"] {
            self.0.acks.with_label_values(&[outcome]);
        }
    }
}

fn gauge_value(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_our_prefix_and_is_there_before_it_counts() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render(&State::new("default"), Duration::from_secs(7)).unwrap();
        assert!(text.contains("sipwarden_operator_writes_total{kind=\"pod\",outcome=\"written\"} 0"), "{text}");
        assert!(text.contains("sipwarden_operator_watch_age_seconds 7"), "{text}");
        let names = text.lines().filter(|line| !line.starts_with('#'));
        assert!(names.clone().all(|line| line.starts_with("sipwarden_operator_")), "{text}");
        assert!(names.count() > 40);
    }
}
