//! What the keeper needs of the outside.

use std::{collections::BTreeMap, future::Future};

use thiserror::Error;

/// The Secret, as far as it is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCa {
    /// Its data.
    pub data: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Of this state; a change names the one it is made from.
    pub version: String,
}

/// A webhook configuration, as far as it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Tells it apart, for logs.
    pub name: String,
    /// Of this state; a change names the one it is made from.
    pub version: String,
    /// The PEM text of the bundle of each webhook in it, empty where there is none.
    pub bundles: Vec<String>,
}

/// A call failed.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// Someone else was faster: read again.
    #[error("it was changed by another at the same time")]
    Conflict,
    /// Anything else.
    #[error("the API server refused or could not be reached; check it and the operator's RBAC")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the keeper does to the cluster.
pub trait Cluster: Send {
    /// The API server's clock, in seconds since 1970; None if it does not tell.
    fn now_s(&self) -> impl Future<Output = Option<i64>> + Send;

    /// The Secret; None if there is none.
    fn load(&self) -> impl Future<Output = Result<Option<StoredCa>, ClusterError>> + Send;

    /// Makes the Secret. Conflict if there is one.
    fn create(&self, ca: &StoredCa) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Replaces the Secret. Conflict if it is not in the state of `ca.version`.
    fn replace(&self, ca: &StoredCa) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// The webhook configurations that exist.
    fn configurations(&self) -> impl Future<Output = Result<Vec<Configuration>, ClusterError>> + Send;

    /// Writes a bundle into every webhook of a configuration. Conflict if it is not in the state that was read.
    fn publish(
        &self,
        configuration: &Configuration,
        bundle: &str,
    ) -> impl Future<Output = Result<(), ClusterError>> + Send;
}
