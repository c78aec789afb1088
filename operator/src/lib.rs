//! The sipwarden operator: compiles session policies into sidecar configs, injects sidecars, reports status.

pub mod acks;
pub mod admission;
pub mod certs;
pub mod cli;
pub mod http;
pub mod index;
pub mod inject;
pub mod lease;
pub mod lint;
pub mod metrics;
pub mod queue;
pub mod run;
pub mod state;
pub mod traces;
pub mod watch;
pub mod webhook;
pub mod write;
