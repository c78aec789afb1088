//! sipwarden's Kubernetes API: what a person asks for ([`SessionPolicy`]), what a sidecar obeys ([`SidecarConfig`]), and
//! the pure step from one to the other ([`compile`]).
//!
//! The same YAML is applied to a cluster and given to a sidecar as a file: [`file::load`] reads it and says what is wrong
//! by line and field. The API server judges with the schema and CEL rules generated from these types, [`compile`] judges
//! in Rust; the tests hold the two to the same verdict.
//!
//! Nothing here does IO, and the Kubernetes client is not among the dependencies.

mod compile;
mod config;
mod duration;
pub mod file;
mod policy;
mod timers;

pub use compile::{Violation, compile};
pub use config::{CompiledMatch, CompiledRule, SidecarConfig};
pub use duration::{Duration, ParseDurationError};
pub use policy::{Direction, Mode, Rule, RuleMatch, SessionPolicy, SessionPolicySpec};
pub use timers::{
    BelowMinSe, Expiry, ExpiryAction, ExpiryOverrides, Malformed, Margin, Refresher, TimerOverrides, Timers,
};

/// `apiVersion` of every kind in this crate.
pub const API_VERSION: &str = "sipwarden.dev/v1alpha1";

/// For `skip_serializing_if`: what equals its default need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
