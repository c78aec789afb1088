//! `kubectl sipwarden` on a real node with sipwarden and calls: what each command says is held to what Kubernetes and the
//! sidecars say themselves.
//!
//! All tests share one node. In namespace `voice` no test places a call, so what is known of its calls is exact; those that
//! call do so in `calls`.

mod abandoned;
mod calls;
mod fleet;
mod live;
mod plugin;
#[path = "../cli/ran.rs"]
mod ran;
mod report;
mod rights;
mod stage;
mod terminal;

pub(crate) use sipwarden_cluster::wait::{PATIENCE, SOON};
