//! A ClusterSessionPolicy as the index keeps it.

use kube::{
    Resource,
    core::{Selector, SelectorExt},
};
use sipwarden_crds::{ClusterSessionPolicy, ClusterSessionPolicyStatus};

use super::facts::{Labels, Owner};
use crate::inject::{names, revision_of};

pub(super) struct Cluster {
    pub(super) owner: Owner,
    /// Of the control plane that judges it and tells its status. Its bounds hold for those of the others as well.
    pub(super) revision: String,
    pub(super) generation: i64,
    pub(super) fault: Option<String>,
    /// The last one that was valid, without status.
    in_force: Option<(ClusterSessionPolicy, Selector)>,
    /// As it is stored.
    pub(super) status: ClusterSessionPolicyStatus,
}

impl Cluster {
    pub(super) fn new(mut policy: ClusterSessionPolicy, unreadable: Option<String>, before: Option<Cluster>) -> Self {
        let status = policy.status.take().unwrap_or_default();
        let generation = policy.metadata.generation.unwrap_or_default();
        let kind = ClusterSessionPolicy::kind(&());
        let owner = Owner::of(sipwarden_crds::API_VERSION, &kind, &policy.metadata);
        let label = policy.metadata.labels.as_ref().and_then(|labels| labels.get(names::REVISION));
        let revision = revision_of(label.map(String::as_str)).to_owned();
        let kept = before.and_then(|before| before.in_force);
        let kept = kept.filter(|(kept, _)| kept.metadata.uid == policy.metadata.uid);
        policy.metadata.managed_fields = None;
        policy.metadata.resource_version = None;
        let (fault, in_force) = match unreadable.map_or_else(|| selector(&policy), Err) {
            Ok(selector) => (None, Some((policy, selector))),
            Err(fault) => (Some(fault), kept),
        };
        Self { owner, revision, generation, fault, in_force, status }
    }

    /// Its bounds, if they are for a namespace with these labels.
    pub(super) fn bounds_for(&self, namespace: &Labels) -> Option<&ClusterSessionPolicy> {
        self.in_force.as_ref().filter(|(_, selector)| selector.matches(namespace)).map(|(policy, _)| policy)
    }
}

fn selector(policy: &ClusterSessionPolicy) -> Result<Selector, String> {
    let violations = policy.violations();
    if !violations.is_empty() {
        return Err(violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    let selector = policy.spec.namespace_selector.clone().map(Selector::try_from);
    let selector = selector.unwrap_or_else(|| Ok(Selector::default()));
    selector.map_err(|error| format!("spec.namespaceSelector: not a label selector: {error}"))
}
