//! The sipwarden sidecar as a library: what `main` starts and tests drive.
//!
//! [`sipwarden_shard`] decides, without IO; everything else is the process around it: sockets ([`transport`]), threads
//! ([`workers`], [`worker`], [`hub`]), names ([`resolver`]), the policy file ([`policy_file`], [`credentials`]), and what is
//! seen from outside ([`status`], [`admin`], [`view`], [`history`], [`record`], [`metrics`], [`logs`], [`traces`]).

pub mod address;
pub mod admin;
pub mod answer;
pub mod app;
pub mod call;
pub mod check;
pub mod cli;
pub mod credentials;
pub mod demo;
pub mod history;
pub mod host;
pub mod http;
pub mod hub;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod policy;
pub mod policy_file;
pub mod readiness;
pub mod record;
pub mod report;
pub mod resolver;
pub mod sessions;
pub mod settings;
pub mod status;
pub mod token;
pub mod traces;
pub mod transport;
pub mod typed;
pub mod view;
pub mod words;
pub mod worker;
pub mod workers;

use std::hash::{BuildHasher, Hasher, RandomState};

/// A number nobody can guess: the standard library keys its hashes from the system's randomness.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
