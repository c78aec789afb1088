//! What is counted about certificates.

use prometheus::{IntCounter, IntGauge, Registry};

/// Gauges and counters of the certificates; clones count into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) leaf_expiry_s: IntGauge,
    pub(super) ca_expiry_s: IntGauge,
    pub(super) clock_skew_s: IntGauge,
    pub(super) rotations: IntCounter,
    pub(super) failures: IntCounter,
}

impl Metrics {
    /// Makes them known to a registry.
    ///
    /// # Errors
    /// The registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            leaf_expiry_s: IntGauge::new(
                "sipwarden_operator_webhook_leaf_expiry_timestamp_seconds",
                "When the webhook's certificate expires; it is renewed half a life before.",
            )?,
            ca_expiry_s: IntGauge::new(
                "sipwarden_operator_webhook_ca_expiry_timestamp_seconds",
                "When the webhook's CA expires; it is rotated months before.",
            )?,
            clock_skew_s: IntGauge::new(
                "sipwarden_operator_clock_skew_seconds",
                "This node's clock, less the API server's.",
            )?,
            rotations: IntCounter::new(
                "sipwarden_operator_webhook_ca_rotations_total",
                "Times this replica let another CA sign.",
            )?,
            failures: IntCounter::new(
                "sipwarden_operator_webhook_certificate_failures_total",
                "Looks after the certificates that failed and are tried again.",
            )?,
        };
        registry.register(Box::new(metrics.leaf_expiry_s.clone()))?;
        registry.register(Box::new(metrics.ca_expiry_s.clone()))?;
        registry.register(Box::new(metrics.clock_skew_s.clone()))?;
        registry.register(Box::new(metrics.rotations.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        Ok(metrics)
    }
}
