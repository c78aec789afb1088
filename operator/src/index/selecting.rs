//! The SidecarConfig of each policy, for the pods it is in force for: what the admission policy gives to pods that are
//! made while the operator is away, of workloads that nobody knew before.
//!
//! CEL cannot tell which of several policies is in force, so each names the selectors of the stronger ones that could
//! select the same pods, and a pod is its only if none of those does.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sipwarden_crds::{CONFIG_ANNOTATION, SidecarConfig, SidecarConfigObject, to_annotation};

use super::{
    changes::Changes,
    facts::{CONFIG_FOR, CONFIG_FOR_SELECTOR, Key, Labels},
    namespace::Namespace,
    policy::{InForce, Policy, policy_config_name},
};
use crate::inject::{MAX_SELECTORS_TEXT, are_disjoint, names, selector_blocks, selectors_text, text_selects};

/// What other policies have to know of one. While it differs, their SidecarConfigs may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    block: Option<String>,
    /// Its place among the policies of the namespace.
    place: Option<usize>,
    /// Whether that place is the one it has for others.
    is_ranked: bool,
}

impl Namespace {
    /// The policy that this SidecarConfig is for; none if it is a workload's.
    pub(super) fn policy_of_config(&self, config_name: &str) -> Option<(&str, &Policy)> {
        let short = config_name.strip_prefix("sessionpolicy-")?;
        let found = self.policies.get_key_value(short);
        // A name that was too long was cut.
        let found = found.or_else(|| self.policies.iter().find(|(name, _)| policy_config_name(name) == config_name));
        found.map(|(name, policy)| (&**name, policy))
    }

    /// What the SidecarConfig of a policy has to be; none if there must be none.
    pub(super) fn policy_object(&self, name: &str, policy: &Policy) -> Option<SidecarConfigObject> {
        let config_name = policy_config_name(name);
        let in_force = policy.in_force.as_ref()?;
        let selectors = match policy.is_compiled() {
            true => self.selectors_of(name, policy)?,
            // They tell its rank, which nothing else does.
            false => selectors_in(self.last_good(name, policy)?)?.to_owned(),
        };
        let mut object = SidecarConfigObject::new(&config_name, SidecarConfig::clone(&in_force.config));
        let annotations = [
            (CONFIG_ANNOTATION.to_owned(), to_annotation(&config_name, &in_force.config)),
            (names::POD_SELECTORS.to_owned(), selectors),
        ];
        object.metadata = ObjectMeta {
            namespace: Some(self.name.clone()),
            labels: Some([(CONFIG_FOR.to_owned(), CONFIG_FOR_SELECTOR.to_owned())].into()),
            annotations: Some(annotations.into()),
            owner_references: Some(vec![policy.owner().reference()]),
            ..object.metadata
        };
        Some(object)
    }

    /// The SidecarConfig of a policy as it is stored: what this process made of it, or the one before.
    pub(super) fn last_good(&self, name: &str, policy: &Policy) -> Option<&SidecarConfigObject> {
        let stored = self.configs.get(&policy_config_name(name))?;
        // Another policy of the same name is another policy.
        let mut owners = stored.metadata.owner_references.iter().flatten();
        owners.any(|owner| Some(&owner.uid) == policy.observed.metadata.uid.as_ref()).then_some(stored)
    }

    /// Puts in force what the process before made of a policy that has not been fit to be obeyed since. True if it did.
    pub(super) fn adopt(&mut self, name: &str) -> bool {
        let Some(policy) = self.policies.get(name).filter(|policy| policy.in_force.is_none()) else { return false };
        let Some(stored) = self.last_good(name, policy) else { return false };
        let Some(block) = selectors_in(stored).and_then(|text| selector_blocks(text).next()) else { return false };
        let in_force = InForce::new(None, block.to_owned(), stored.spec.clone(), &self.bounds);
        self.policies.get_mut(name).map(|policy| policy.in_force = Some(in_force)).is_some()
    }

    /// The SidecarConfig that is stored for pods with these labels of this workload: what is in force for them as long as
    /// nothing is written. Judged as the admission policy does, and by the workload where that knows none.
    pub(super) fn stored_for(&self, labels: &Labels, config_name: &str) -> Option<&SidecarConfigObject> {
        let selects = |config: &&SidecarConfigObject| {
            let is_of_policy = config.metadata.labels.as_ref().and_then(|labels| labels.get(CONFIG_FOR));
            is_of_policy.is_some_and(|value| value == CONFIG_FOR_SELECTOR)
                && selectors_in(config).is_some_and(|text| text_selects(text, labels))
        };
        self.configs.values().find(selects).or_else(|| self.configs.get(config_name))
    }

    /// Whether pods with these labels of this workload are a policy's to configure.
    ///
    /// A policy that was not fit to be obeyed when the process started is known only by what the process before made of
    /// it: it keeps the workloads that obey it, and takes new ones by the selector in its SidecarConfig.
    pub(super) fn selects(&self, name: &str, labels: &Labels, config_name: &str) -> bool {
        let Some(policy) = self.policies.get(name) else { return false };
        let obeys = || self.configs.get(config_name).is_some_and(|config| config.spec.policy == name);
        policy.selects(labels) || !policy.is_compiled() && obeys()
    }

    /// Whether the selectors that its SidecarConfig would have to name are more than one can hold.
    pub(super) fn is_beyond_selectors(&self, policy: &Policy) -> bool {
        let name = policy.observed.metadata.name.as_deref().unwrap_or_default();
        policy.is_compiled() && self.selectors_of(name, policy).is_none()
    }

    /// See [`Footprint`].
    pub(super) fn footprint(&self, name: &str) -> Footprint {
        let policy = self.policies.get(name);
        Footprint {
            block: policy.and_then(block_of).map(str::to_owned),
            place: self.order.iter().position(|other| **other == *name),
            is_ranked: policy.is_some_and(Policy::is_compiled),
        }
    }

    /// After a policy changed from `before`: its own SidecarConfig, and those whose pods it may select or did.
    pub(super) fn mark_selecting(&self, name: &str, before: &Footprint, changes: &mut Changes) {
        changes.configs.insert(self.policy_config_key(name));
        let after = self.footprint(name);
        if *before == after {
            return;
        }
        let blocks = || before.block.iter().chain(&after.block);
        for (other, policy) in &self.policies {
            let meets = block_of(policy).is_some_and(|own| blocks().any(|block| !are_disjoint(own, block)));
            if meets {
                changes.configs.insert(self.policy_config_key(other));
                changes.policies.insert(Key::new(&self.name, &**other));
            }
        }
    }

    /// The SidecarConfigs of all policies.
    pub(super) fn mark_all_selecting(&self, changes: &mut Changes) {
        changes.configs.extend(self.policies.keys().map(|name| self.policy_config_key(name)));
    }

    pub(super) fn policy_config_key(&self, name: &str) -> Key {
        Key::new(&self.name, policy_config_name(name))
    }

    /// The pods that a policy selects and no stronger one does, for CEL; none if it is too long.
    fn selectors_of(&self, name: &str, policy: &Policy) -> Option<String> {
        let own = block_of(policy)?;
        let stored = self.configs.get(&policy_config_name(name)).and_then(selectors_in);
        let place = self.order.iter().position(|other| **other == *name)?;
        let mut stronger = BTreeSet::new();
        for (i, other) in self.order.iter().enumerate().filter(|(i, _)| *i != place) {
            let Some(other_policy) = self.policies.get(other) else { continue };
            let Some(block) = block_of(other_policy) else { continue };
            // The rank of what is known only by its SidecarConfig is as well: it stays as others have it.
            let is_stronger = match (other_policy.is_compiled(), stored) {
                (false, Some(stored)) => selector_blocks(stored).skip(1).any(|known| known == block),
                _ => i < place,
            };
            if is_stronger && !are_disjoint(own, block) {
                stronger.insert(block);
            }
        }
        Some(selectors_text(own, stronger)).filter(|text| text.len() <= MAX_SELECTORS_TEXT)
    }
}

/// The selector of what is in force of a policy.
fn block_of(policy: &Policy) -> Option<&str> {
    policy.in_force.as_ref().map(|in_force| in_force.block.as_str())
}

fn selectors_in(config: &SidecarConfigObject) -> Option<&str> {
    config.metadata.annotations.as_ref()?.get(names::POD_SELECTORS).map(String::as_str)
}
