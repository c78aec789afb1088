//! The webhook's certificates: our own CA, the leaf it signs, and their rotation.
//!
//! The CA lives in a Secret that all replicas share; each replica signs itself a short-lived leaf, which never leaves
//! memory. A rotation has three steps, and every step is a state of the Secret, so that any replica can go on with it:
//!
//! ```text
//!            prepare                      promote                      retire
//!  current ───────────► current, next ───────────────► current, old ───────────► current
//!                       signs: current   next was in    signs: current            (all leaves of old
//!                       trusted: both    every bundle    (once next)               have expired)
//!                                        long enough    trusted: both
//! ```
//!
//! So an API server trusts a CA before any leaf of it is served, and as long as one may be.
//!
//! Time is the API server's, since it is what judges the certificates; the own wall clock is only compared with it.
//! Decisions are pure ([`plan`]); [`Keeper`] carries them out through [`Cluster`], the only way to the outside.

mod authority;
mod cluster;
mod keeper;
mod kubernetes;
mod leaf;
mod metrics;
mod plan;
mod store;

pub use self::{
    authority::{CaError, Timing},
    cluster::{Cluster, ClusterError, Configuration, StoredCa},
    keeper::{CertsError, Keeper, Report},
    kubernetes::{KubernetesCluster, Names},
    leaf::LeafSlot,
    metrics::Metrics,
    plan::{Step, Why, plan},
    store::{CaSet, ROTATE},
};
