//! A SessionPolicy as the index keeps it: what it says now, and what it said when it was last fit to be obeyed.

use std::{cmp::Ordering, sync::Arc};

use kube::core::{Selector, SelectorExt};
use sipwarden_crds::{
    Clamp, ClusterSessionPolicy, SessionPolicy, SessionPolicyStatus, SidecarConfig, bound, compile, precedence,
};
use tracing::info_span;

use super::facts::{Config, Labels, Owner, config_name, is_paused};
use crate::inject::{block_selects, selector_block};

/// The kind of policies, which their own SidecarConfigs are named by.
const POLICY_KIND: &str = "SessionPolicy";

/// The name of the SidecarConfig for the pods of a policy.
pub(super) fn policy_config_name(policy: &str) -> String {
    config_name(POLICY_KIND, policy)
}

/// A policy, valid or not.
pub(super) struct Policy {
    /// As it is stored, without its status.
    pub(super) observed: Arc<SessionPolicy>,
    /// What is wrong with it; None if nothing is.
    pub(super) fault: Option<String>,
    /// What pods obey. Survives faults and pauses; None if there is nothing to obey yet.
    pub(super) in_force: Option<InForce>,
    /// As it is stored.
    pub(super) status: SessionPolicyStatus,
}

/// A policy that compiled, now or for the process before.
pub(super) struct InForce {
    /// What it was compiled from; None if that was done by the process before, of which the SidecarConfig is left.
    source: Option<(Arc<SessionPolicy>, Selector)>,
    /// Its selector for CEL.
    pub(super) block: String,
    compiled: SidecarConfig,
    /// Within the bounds of the cluster.
    pub(super) config: Arc<Config>,
    /// What those changed.
    pub(super) clamps: Vec<Clamp>,
}

impl Policy {
    /// `unreadable` tells what is wrong with an object of which only the metadata could be read.
    pub(super) fn new(
        mut policy: SessionPolicy,
        unreadable: Option<String>,
        before: Option<Policy>,
        bounds: &[ClusterSessionPolicy],
    ) -> Self {
        let status = policy.status.take().unwrap_or_default();
        let policy = Arc::new(policy);
        // Another policy of the same name is another policy.
        let kept = before.filter(|before| before.observed.metadata.uid == policy.metadata.uid);
        let kept = kept.and_then(|before| before.in_force);
        let (fault, compiled) = match unreadable.map_or_else(|| compiled(&policy), Err) {
            Ok(compiled) => (None, Some(compiled)),
            Err(fault) => (Some(fault), None),
        };
        let in_force = match compiled {
            Some((config, selector)) if !is_paused(&policy.metadata) => {
                let block = selector_block(policy.spec.pod_selector.as_ref());
                Some(InForce::new(Some((policy.clone(), selector)), block, config, bounds))
            }
            _ => kept,
        };
        Self { observed: policy, fault, in_force, status }
    }

    /// Whether only the status differs.
    pub(super) fn says_the_same(&self, policy: &SessionPolicy) -> bool {
        let (old, new) = (&self.observed.metadata, &policy.metadata);
        (&old.uid, old.generation, is_paused(old)) == (&new.uid, new.generation, is_paused(new))
            && self.observed.spec == policy.spec
    }

    /// Whether its stored status gives this reason for being accepted or not.
    pub(super) fn is_told(&self, reason: &str) -> bool {
        self.status.conditions.iter().any(|condition| condition.type_ == "Accepted" && condition.reason == reason)
    }

    pub(super) fn is_paused(&self) -> bool {
        is_paused(&self.observed.metadata)
    }

    /// The same as [`precedence`] of what is in force.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        precedence(self.ranked(), other.ranked())
    }

    /// What its own SidecarConfig belongs to.
    pub(super) fn owner(&self) -> Owner {
        Owner::of(sipwarden_crds::API_VERSION, POLICY_KIND, &self.observed.metadata)
    }

    pub(super) fn priority(&self) -> i32 {
        self.ranked().spec.priority
    }

    /// Whether pods with these labels are this policy's to configure.
    pub(super) fn selects(&self, labels: &Labels) -> bool {
        self.in_force.as_ref().is_some_and(|in_force| match &in_force.source {
            Some((_, selector)) => selector.matches(labels),
            None => block_selects(&in_force.block, labels),
        })
    }

    /// Whether it has been fit to be obeyed since the process started. Before that its rank among others is not known.
    pub(super) fn is_compiled(&self) -> bool {
        self.in_force.as_ref().is_some_and(|in_force| in_force.source.is_some())
    }

    /// Names of the ClusterSessionPolicies that changed something of it.
    pub(super) fn clamping(&self) -> Vec<String> {
        self.in_force.iter().flat_map(|in_force| &in_force.clamps).map(|clamp| clamp.by.clone()).collect()
    }

    /// True if that may have changed what pods obey. A pause is the policy's own, so the cluster's bounds hold through it.
    pub(super) fn rebind(&mut self, bounds: &[ClusterSessionPolicy]) -> bool {
        let Some(in_force) = &mut self.in_force else { return true };
        let (config, clamps) = bound(&in_force.compiled, bounds);
        let changed = **in_force.config != config || in_force.clamps != clamps;
        if changed {
            (in_force.config, in_force.clamps) = (Arc::new(config.into()), clamps);
        }
        changed
    }

    fn ranked(&self) -> &SessionPolicy {
        let source = self.in_force.as_ref().and_then(|in_force| in_force.source.as_ref());
        source.map_or(&self.observed, |(policy, _)| policy)
    }
}

impl InForce {
    /// Without a source it is what the process before made.
    pub(super) fn new(
        source: Option<(Arc<SessionPolicy>, Selector)>,
        block: String,
        compiled: SidecarConfig,
        bounds: &[ClusterSessionPolicy],
    ) -> Self {
        let (config, clamps) = bound(&compiled, bounds);
        Self { source, block, compiled, config: Arc::new(config.into()), clamps }
    }
}

fn compiled(policy: &SessionPolicy) -> Result<(SidecarConfig, Selector), String> {
    let _span = info_span!("compile", namespace = policy.metadata.namespace, name = policy.metadata.name).entered();
    let config = compile(policy).map_err(|violations| {
        let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
        told.join("; ")
    })?;
    let selector = policy.spec.pod_selector.clone().map(Selector::try_from);
    let selector = selector.unwrap_or_else(|| Ok(Selector::default()));
    Ok((config, selector.map_err(|error| format!("spec.podSelector: not a label selector: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_change_nothing_leave_the_config_with_its_fingerprint() {
        let mut policy = Policy::new(SessionPolicy::new("carrier", Default::default()), None, None, &[]);
        let config = |policy: &Policy| policy.in_force.as_ref().expect("it compiles").config.clone();
        let before = config(&policy);
        let mut bounds = ClusterSessionPolicy::new("floor", Default::default());
        assert!(!policy.rebind(&[bounds.clone()]));
        assert!(Arc::ptr_eq(&before, &config(&policy)));
        bounds.spec.timers.min_se.at_least = Some("5m".parse().expect("a length of time"));
        assert!(policy.rebind(&[bounds]));
        assert_ne!(before.fingerprint, config(&policy).fingerprint);
    }
}
