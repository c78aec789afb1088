//! What should be, against what is: the annotation of a pod, the SidecarConfig of a workload or a policy.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sipwarden_crds::{CONFIG_ANNOTATION, SidecarConfig, SidecarConfigObject, bound, to_annotation};

use super::{
    AckTarget,
    facts::{
        CONFIG_FOR, CONFIG_FOR_SELECTOR, CONFIG_FOR_WORKLOAD, Config, Fingerprint, Labels, Owner, PodFacts,
        WorkloadRef, wants_sidecar,
    },
    namespace::{Choice, Namespace, Pod, Workload},
};

/// A pod's annotation has to become this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPatch {
    /// Of no other pod of that name.
    pub uid: String,
    /// The text of the annotation.
    pub annotation: String,
    /// What stands for it.
    pub fingerprint: Fingerprint,
}

/// What has to happen to a SidecarConfig.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigChange {
    /// It has to become this. It says nothing about the status.
    Apply(Box<SidecarConfigObject>),
    /// Nothing obeys it any more.
    Delete {
        /// Not another one of that name.
        uid: String,
    },
}

impl Namespace {
    /// None if the annotation is as it should be, or none of our business.
    pub(super) fn pod_patch(&self, name: &str, observe: &Arc<Config>) -> Option<PodPatch> {
        let pod = self.pods.get(name).filter(|pod| self.is_active() && !pod.facts.terminating)?;
        let config = self.config_of_pod(pod, observe)?;
        let PodFacts { uid, workload: WorkloadRef { config_name, .. }, annotation, .. } = &pod.facts;
        let fingerprint = config.fingerprint;
        let patch = || PodPatch { uid: uid.clone(), annotation: to_annotation(config_name, &config), fingerprint };
        (*annotation != Some(fingerprint)).then(patch)
    }

    /// None if there is no sidecar that could answer.
    pub(super) fn ack_target(&self, name: &str, observe: &Arc<Config>) -> Option<AckTarget> {
        let pod = self.pods.get(name).filter(|_| self.managed)?;
        let (ip, ack) = (pod.facts.ip?, pod.ack.as_ref());
        let Some(config) = self.config_of_pod(pod, observe) else {
            return Some(AckTarget { ip, in_step: ack.is_some(), written: false });
        };
        Some(AckTarget {
            ip,
            in_step: ack.is_some_and(|ack| ack.hash.as_ref() == Some(&config.hash)),
            written: self.is_active() && pod.facts.annotation == Some(config.fingerprint),
        })
    }

    /// The annotation for a pod that does not exist yet; empty if no policy is in force for it.
    pub(super) fn annotation_for(&self, labels: &Labels, config_name: &str) -> Option<String> {
        if !self.managed {
            return None;
        }
        let config = match self.state.paused {
            true => self.stored_for(labels, config_name).map(|config| Arc::new(config.spec.clone().into())),
            false => self.config_of(&self.choose(labels, config_name), config_name),
        };
        Some(config.map(|config| to_annotation(config_name, &config)).unwrap_or_default())
    }

    /// None if the SidecarConfig is as it should be.
    pub(super) fn config_change(&self, name: &str) -> Option<ConfigChange> {
        if !self.is_active() {
            return None;
        }
        let observed = self.configs.get(name);
        let desired = match self.policy_of_config(name) {
            Some((policy_name, policy)) => self.policy_object(policy_name, policy),
            None => self.workloads.get(name).and_then(|workload| self.workload_object(name, workload)),
        };
        let Some(desired) = desired else {
            let observed = observed.filter(|observed| is_ours(observed))?;
            return Some(ConfigChange::Delete { uid: observed.metadata.uid.clone().unwrap_or_default() });
        };
        let same = observed.is_some_and(|observed| is_as(observed, &desired));
        (!same).then(|| ConfigChange::Apply(Box::new(desired)))
    }

    /// What a pod obeys that has these policies.
    pub(super) fn config_of(&self, choice: &Choice, config_name: &str) -> Option<Arc<Config>> {
        let name = choice.winner.as_ref()?;
        let policy = self.policies.get(name)?;
        let of_workload = || self.configs.get(config_name).filter(|config| *config.spec.policy == **name);
        if self.state.paused {
            let stored = self.last_good(name, policy).or_else(of_workload)?;
            return Some(Arc::new(stored.spec.clone().into()));
        }
        match &policy.in_force {
            Some(in_force) => Some(in_force.config.clone()),
            None => of_workload().map(|config| Arc::new(bound(&config.spec, &self.bounds).0.into())),
        }
    }

    /// None for a pod that never had a config and observes by itself; one that had keeps its last good one until it is told.
    fn config_of_pod(&self, pod: &Pod, observe: &Arc<Config>) -> Option<Arc<Config>> {
        let had_one = || pod.facts.annotation.is_some();
        self.config_of(&pod.choice, &pod.facts.workload.config_name).or_else(|| had_one().then(|| observe.clone()))
    }

    fn is_active(&self) -> bool {
        self.managed && !self.state.paused
    }

    fn desired_config<'a>(&self, name: &str, workload: &'a Workload) -> Option<(&'a Owner, Arc<Config>)> {
        let wanted = !workload.pods.is_empty()
            || self.labels_of(workload).is_some_and(|labels| wants_sidecar(labels, &self.facts));
        if !wanted {
            return None;
        }
        Some((workload.owner()?, self.config_of(&workload.choice, name)?))
    }

    /// With the text that its pods carry, which no admission policy could write from the spec.
    fn workload_object(&self, name: &str, workload: &Workload) -> Option<SidecarConfigObject> {
        let (owner, config) = self.desired_config(name, workload)?;
        let label = (CONFIG_FOR.to_owned(), CONFIG_FOR_WORKLOAD.to_owned());
        let text = to_annotation(name, &config);
        let mut object = SidecarConfigObject::new(name, SidecarConfig::clone(&config));
        object.metadata = ObjectMeta {
            namespace: Some(self.name.clone()),
            labels: Some([label].into()),
            annotations: Some([(CONFIG_ANNOTATION.to_owned(), text)].into()),
            owner_references: Some(vec![owner.reference()]),
            ..object.metadata
        };
        Some(object)
    }
}

fn is_ours(config: &SidecarConfigObject) -> bool {
    let label = config.metadata.labels.as_ref().and_then(|labels| labels.get(CONFIG_FOR));
    label.is_some_and(|value| [CONFIG_FOR_WORKLOAD, CONFIG_FOR_SELECTOR].contains(&value.as_str()))
}

/// Whether everything that is desired is there; others may have added to it.
fn is_as(observed: &SidecarConfigObject, desired: &SidecarConfigObject) -> bool {
    let holds = |observed: &Option<Labels>, desired: &Option<Labels>| {
        let observed = |key: &String| observed.as_ref().and_then(|all| all.get(key));
        desired.iter().flatten().all(|(key, value)| observed(key) == Some(value))
    };
    let owners = |object: &SidecarConfigObject| -> Vec<String> {
        object.metadata.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect()
    };
    let (old, new) = (&observed.metadata, &desired.metadata);
    holds(&old.labels, &new.labels)
        && holds(&old.annotations, &new.annotations)
        && owners(desired).iter().all(|uid| owners(observed).contains(uid))
        && observed.spec == desired.spec
}
