//! sipwarden's Kubernetes API: what a person asks for ([`SessionPolicy`]), what a sidecar obeys ([`SidecarConfig`]), what
//! the owner of the cluster allows ([`ClusterSessionPolicy`]), and the pure steps between them: [`choose`] the policy of a
//! pod, [`compile`] it, [`bound`] the result, write it [`to_annotation`].
//!
//! The same YAML is applied to a cluster and given to a sidecar as a file: [`file::load`] reads it and says what is wrong
//! by line and field. The API server judges with the schema and CEL rules generated from these types, [`compile`] judges
//! in Rust; the tests hold the two to the same verdict.
//!
//! Nothing here does IO, and the Kubernetes client is not among the dependencies.

mod annotation;
mod bound;
mod choose;
mod cluster;
mod compile;
mod condition;
mod config;
mod duration;
pub mod file;
mod policy;
mod selector;
mod status;
mod timers;

pub use annotation::{CONFIG_ANNOTATION, MAX_ANNOTATION, from_annotation, to_annotation};
pub use bound::{Clamp, bound};
pub use choose::{choose, precedence};
pub use cluster::{ClusterSessionPolicy, ClusterSessionPolicySpec, DurationBounds, ModeBounds, TimerBounds};
pub use compile::{Violation, compile};
pub use condition::{Acceptance, Judgement, Programming};
pub use config::{CompiledMatch, CompiledRule, SidecarConfig, SidecarConfigObject};
pub use duration::{Duration, ParseDurationError};
pub use policy::{Direction, Mode, Privacy, Rule, RuleMatch, SessionPolicy, SessionPolicySpec, SipUsers};
pub use status::{ClusterSessionPolicyStatus, MAX_CLAMPS, PodCounts, SessionPolicyStatus, SidecarConfigStatus};
pub use timers::{
    ActForApp, AppProbe, BelowMinSe, Credentials, Expiry, ExpiryAction, ExpiryOverrides, Jitter, LEAST_MIN_SE,
    Malformed, Margin, RefreshMethod, Refresher, TimerOverrides, Timers, WithoutPeerSupport,
};

/// `apiVersion` of every kind in this crate.
pub const API_VERSION: &str = "sipwarden.dev/v1alpha1";

/// For `skip_serializing_if`: what equals its default need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
