//! What may have to be written after events.

use std::{collections::HashSet, mem};

use super::facts::Key;

/// Objects of which desired and observed state may differ since the changes were taken the last time. To be looked up
/// when they are written, so that of many changes in a row only the last one is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Pods whose annotation may differ.
    pub pods: HashSet<Key>,
    /// SidecarConfigs.
    pub configs: HashSet<Key>,
    /// SidecarConfigs whose status may differ.
    pub config_statuses: HashSet<Key>,
    /// SessionPolicies whose status may differ.
    pub policies: HashSet<Key>,
    /// Names of ClusterSessionPolicies whose status may differ.
    pub clusters: HashSet<String>,
    /// SessionPolicies of which nothing but the number of sessions may differ.
    pub sessions: HashSet<Key>,
    /// SidecarConfigs of which nothing but that may differ.
    pub config_sessions: HashSet<Key>,
    /// Pods whose sidecar may answer now.
    pub acks: HashSet<Key>,
    /// Workloads, by the name of their SidecarConfig, of which a pod has a sidecar for the first time since they are known.
    pub injected_workloads: HashSet<Key>,
    /// Workloads, by the name of their SidecarConfig, of which pods may lack the sidecar they asked for.
    pub bare_workloads: HashSet<Key>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn take(&mut self) -> Self {
        mem::take(self)
    }
}
