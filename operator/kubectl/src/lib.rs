//! `kubectl sipwarden`: what sidecars and operator do, asked with the user's own rights and from the user's own machine.
//!
//! Objects come from the API server. What only a sidecar knows is asked on its admin port, which listens on the loopback
//! of its pod, through a port-forward of the API server ([`sidecar`]). Nothing is installed, and apart from `call-test`
//! nothing is written to the cluster.

pub mod call_test;
pub mod check;
pub mod cli;
pub mod completion;
pub mod connection;
pub mod dashboard;
pub mod diff;
pub mod explain;
pub mod lint;
pub mod outcome;
pub mod output;
pub mod report;
pub mod rights;
pub mod run;
pub mod scope;
pub mod sessions;
pub mod sidecar;
pub mod status;
pub mod tap;
pub mod top;
pub mod wire;
