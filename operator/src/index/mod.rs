//! Policies × namespaces × workloads × pods → the config of each pod and workload, and the status of each policy.
//!
//! Pure and synchronous: events go in in any order, [`Index::take_changes`] tells what they may have changed, and the
//! look-ups tell what has to be written, if anything. They compare what should be with what was last seen, so asking
//! again after a write that failed, or that nobody needs any more, is always right.
//!
//! ```text
//!  watches ──► policy, cluster, namespace, workload, pod, config ──► take_changes ──► queues
//!  sidecars ─► acked                                                                    │
//!                 what to write ◄── pod_patch, config_change, policy_status, … ◄── writers
//! ```
//!
//! It must not know the Kubernetes client, a clock, or how writes are retried.

mod changes;
mod cluster;
mod desired;
mod facts;
mod namespace;
mod policy;
mod selecting;
mod status;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use sipwarden_crds::{
    ClusterSessionPolicy, ClusterSessionPolicyStatus, Mode, SessionPolicy, SessionPolicySpec, SessionPolicyStatus,
    SidecarConfig, SidecarConfigObject, SidecarConfigStatus, compile,
};

pub use self::{
    changes::Changes,
    desired::{ConfigChange, PodPatch},
    facts::{
        CONFIG_FOR, CONFIG_FOR_SELECTOR, CONFIG_FOR_WORKLOAD, Fingerprint, Key, Labels, NamespaceState, Owner, PAUSED,
        PodFacts, WorkloadFacts, WorkloadRef,
    },
    namespace::BarePods,
};
use self::{cluster::Cluster, facts::Config, namespace::Namespace, policy::Policy};
use crate::inject::{NamespaceFacts, Skip};

/// The name of the config of pods that no policy selects any more; a sidecar that was never given one calls its own so.
const BUILT_IN: &str = "built-in";

/// See the module.
pub struct Index {
    revision: String,
    namespaces: HashMap<String, Namespace>,
    clusters: BTreeMap<String, Cluster>,
    /// What pods go back to when their policy is gone.
    observe: Arc<Config>,
    changes: Changes,
}

/// What a sidecar says it obeys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// None for the built-in config.
    pub hash: Option<String>,
    /// What keeps it from obeying what it was given.
    pub error: Option<String>,
    /// Sessions it holds.
    pub sessions: u32,
}

/// Where to ask a pod's sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckTarget {
    /// Of the pod.
    pub ip: IpAddr,
    /// It obeyed what it should the last time it was asked.
    pub in_step: bool,
    /// What it should obey is in the pod's annotation.
    pub written: bool,
}

/// How many objects there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// SessionPolicies.
    pub policies: usize,
    /// Of these, those whose status says `Invalid`.
    pub invalid_policies: usize,
    /// Of these, those whose status says `Conflicted`.
    pub conflicted_policies: usize,
    /// Workloads.
    pub workloads: usize,
    /// Pods with a sidecar.
    pub pods: usize,
    /// Pods that asked for one and have none.
    pub bare_pods: usize,
    /// Pods whose sidecar answered.
    pub acked: usize,
}

impl Index {
    /// An empty one, for the control plane of this revision.
    pub fn new(revision: impl Into<String>) -> Self {
        Self {
            revision: revision.into(),
            namespaces: HashMap::new(),
            clusters: BTreeMap::new(),
            observe: Arc::new(observe().into()),
            changes: Changes::default(),
        }
    }

    /// A SessionPolicy is so now. `unreadable` tells what is wrong with one of which only the metadata could be read.
    pub fn policy(&mut self, policy: SessionPolicy, unreadable: Option<String>) {
        let Key { namespace, .. } = Key::of(&policy.metadata);
        self.within(&namespace, |namespace, changes| namespace.set_policy(policy, unreadable, changes));
    }

    /// A SessionPolicy is gone.
    pub fn remove_policy(&mut self, key: &Key) {
        self.within(&key.namespace, |namespace, changes| namespace.remove_policy(&key.name, changes));
    }

    /// A ClusterSessionPolicy is so now.
    pub fn cluster(&mut self, policy: ClusterSessionPolicy, unreadable: Option<String>) {
        let name = policy.metadata.name.clone().unwrap_or_default();
        let before = self.clusters.remove(&name);
        self.clusters.insert(name.clone(), Cluster::new(policy, unreadable, before));
        self.bind_all(name);
    }

    /// A ClusterSessionPolicy is gone.
    pub fn remove_cluster(&mut self, name: &str) {
        self.clusters.remove(name);
        self.bind_all(name.to_owned());
        self.changes.clusters.remove(name);
    }

    /// A Namespace is so now.
    pub fn namespace(&mut self, name: &str, state: NamespaceState) {
        if self.namespaces.get(name).is_some_and(|known| known.exists && known.state == state) {
            return;
        }
        self.changes.clusters.extend(self.clusters.keys().cloned());
        let bounds = self.bounds_for(&state.labels);
        let revision = self.revision.clone();
        self.within(name, |namespace, changes| {
            namespace.set_bounds(bounds, changes);
            namespace.set_state(Some(state), &revision, changes);
        });
    }

    /// A Namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.changes.clusters.extend(self.clusters.keys().cloned());
        self.within(name, |namespace, changes| namespace.set_state(None, "", changes));
    }

    /// A workload that makes pods from a template is so now.
    pub fn workload(&mut self, namespace: &str, facts: WorkloadFacts) {
        self.within(namespace, |namespace, changes| namespace.set_workload(facts, changes));
    }

    /// The workload of this SidecarConfig is gone.
    pub fn remove_workload(&mut self, config: &Key) {
        self.within(&config.namespace, |namespace, changes| namespace.remove_workload(&config.name, changes));
    }

    /// A pod with a sidecar is so now.
    pub fn pod(&mut self, key: &Key, facts: PodFacts) {
        self.within(&key.namespace, |namespace, changes| namespace.set_pod(&key.name, facts, changes));
    }

    /// A pod with a sidecar is gone, or has ended.
    pub fn remove_pod(&mut self, key: &Key) {
        self.within(&key.namespace, |namespace, changes| namespace.remove_pod(&key.name, changes));
    }

    /// A pod without a sidecar runs; it may have asked for one. `refusal` tells why it could not have one even so.
    pub fn bare_pod(&mut self, key: &Key, facts: PodFacts, refusal: Option<Skip>) {
        self.within(&key.namespace, |namespace, changes| namespace.set_bare_pod(&key.name, facts, refusal, changes));
    }

    /// A pod without a sidecar is gone, or of no interest any more.
    pub fn remove_bare_pod(&mut self, key: &Key) {
        self.within(&key.namespace, |namespace, changes| namespace.remove_bare_pod(&key.name, changes));
    }

    /// Pods without a sidecar that leave it to their namespace are watched no more, in one namespace or in all.
    pub fn forget_bare_pods(&mut self, namespace: Option<&str>) {
        let names: Vec<String> = match namespace {
            Some(name) => vec![name.to_owned()],
            None => self.namespaces.keys().cloned().collect(),
        };
        for name in names {
            self.within(&name, Namespace::forget_bare_pods);
        }
    }

    /// A SidecarConfig is so now.
    pub fn config(&mut self, config: SidecarConfigObject) {
        let Key { namespace, .. } = Key::of(&config.metadata);
        self.within(&namespace, |namespace, changes| namespace.set_config(config, changes));
    }

    /// A SidecarConfig is gone.
    pub fn remove_config(&mut self, key: &Key) {
        self.within(&key.namespace, |namespace, changes| namespace.remove_config(&key.name, changes));
    }

    /// A pod's sidecar said what it obeys, or did not answer.
    pub fn acked(&mut self, pod: &Key, ack: Option<Ack>) {
        self.within(&pod.namespace, |namespace, changes| namespace.set_ack(&pod.name, ack, changes));
    }

    /// A pod was given this annotation, which the watch will tell too, but later.
    pub fn annotated(&mut self, pod: &Key, uid: &str, annotation: Fingerprint) {
        self.within(&pod.namespace, |namespace, changes| namespace.annotated(&pod.name, uid, annotation, changes));
    }

    /// A SessionPolicy was given this status.
    pub fn told(&mut self, policy: &Key, status: SessionPolicyStatus) {
        self.within(&policy.namespace, |namespace, _| namespace.told(&policy.name, status));
    }

    /// What may have to be written because of the events since the last call.
    pub fn take_changes(&mut self) -> Changes {
        self.changes.take()
    }

    /// Counts everything as changed: for who starts to write.
    pub fn change_everything(&mut self) {
        self.changes.clusters.extend(self.clusters.keys().cloned());
        for namespace in self.namespaces.values_mut() {
            namespace.mark_all(&mut self.changes);
        }
    }

    /// What is known of a namespace.
    pub fn namespace_facts(&self, name: &str) -> Option<NamespaceFacts> {
        self.namespaces.get(name).filter(|namespace| namespace.exists).map(|namespace| namespace.facts.clone())
    }

    /// The annotation of a pod that is about to be created; empty if no policy is in force for it, None if its namespace is
    /// not known or none of ours.
    pub fn annotation_for(&self, namespace: &str, pod: &ObjectMeta) -> Option<String> {
        let none = Labels::new();
        let labels = pod.labels.as_ref().unwrap_or(&none);
        self.namespaces.get(namespace)?.annotation_for(labels, &WorkloadRef::of(pod).config_name)
    }

    /// What has to be written to a pod; None if nothing.
    pub fn pod_patch(&self, pod: &Key) -> Option<PodPatch> {
        self.namespaces.get(&pod.namespace)?.pod_patch(&pod.name, &self.observe)
    }

    /// What has to happen to a SidecarConfig; None if nothing.
    pub fn config_change(&self, config: &Key) -> Option<ConfigChange> {
        self.namespaces.get(&config.namespace)?.config_change(&config.name)
    }

    /// What a SidecarConfig's status has to become; None if it is so.
    pub fn config_status(&self, config: &Key) -> Option<SidecarConfigStatus> {
        let namespace = self.namespaces.get(&config.namespace)?;
        let observed = namespace.configs.get(&config.name)?.status.clone().unwrap_or_default();
        namespace.config_status(&config.name).filter(|status| *status != observed)
    }

    /// What a SessionPolicy's status has to become, and what it is; None if it is so.
    pub fn policy_status(&self, policy: &Key, now: &Time) -> Option<(SessionPolicyStatus, &SessionPolicyStatus)> {
        let namespace = self.namespaces.get(&policy.namespace)?;
        let observed = &namespace.policies.get(policy.name.as_str())?.status;
        let status = namespace.policy_status(&policy.name, now).filter(|status| status != observed)?;
        Some((status, observed))
    }

    /// What a ClusterSessionPolicy's status has to become, and what it is; None if it is so, or another revision's to tell.
    pub fn cluster_status(
        &self,
        name: &str,
        now: &Time,
    ) -> Option<(ClusterSessionPolicyStatus, &ClusterSessionPolicyStatus)> {
        let cluster = self.clusters.get(name).filter(|cluster| cluster.revision == self.revision)?;
        let existing = || self.namespaces.values().filter(|namespace| namespace.exists);
        let namespaces = existing().filter(|namespace| cluster.bounds_for(&namespace.state.labels).is_some()).count();
        let clamped = existing().map(|namespace| namespace.clamped_by(name)).sum();
        let status = Some(cluster.status_of(namespaces, clamped, now)).filter(|status| *status != cluster.status)?;
        Some((status, &cluster.status))
    }

    /// A ClusterSessionPolicy, as what is told about it names it.
    pub fn cluster_owner(&self, name: &str) -> Option<Owner> {
        self.clusters.get(name).map(|cluster| cluster.owner.clone())
    }

    /// Who to tell something about a pod: its workload, if that is known.
    pub fn owner_of(&self, namespace: &str, pod: &ObjectMeta) -> Option<Owner> {
        let WorkloadRef { config_name, owner } = WorkloadRef::of(pod);
        owner.or_else(|| self.namespaces.get(namespace)?.owner_of(&config_name))
    }

    /// The workload with this SidecarConfig, as far as it is known.
    pub fn workload_owner(&self, config: &Key) -> Option<Owner> {
        self.namespaces.get(&config.namespace)?.owner_of(&config.name)
    }

    /// A SessionPolicy, as what is told about it names it.
    pub fn policy_owner(&self, policy: &Key) -> Option<Owner> {
        let namespace = self.namespaces.get(&policy.namespace)?;
        namespace.policies.get(policy.name.as_str()).map(Policy::owner)
    }

    /// Pods of the workload with this SidecarConfig that run without the sidecar they asked for; None if there are none.
    pub fn bare_pods_of(&self, config: &Key) -> Option<BarePods> {
        self.namespaces.get(&config.namespace)?.bare_pods_of(&config.name)
    }

    /// Where to ask a pod's sidecar; None if there is none that could answer.
    pub fn ack_target(&self, pod: &Key) -> Option<AckTarget> {
        self.namespaces.get(&pod.namespace)?.ack_target(&pod.name, &self.observe)
    }

    /// Namespaces whose pods are to have sidecars of this revision.
    pub fn opted_in_namespaces(&self) -> impl Iterator<Item = &str> {
        let opted_in = |namespace: &&Namespace| {
            namespace.managed && namespace.facts.inject.as_deref() == Some(crate::inject::names::ENABLED)
        };
        self.namespaces.values().filter(opted_in).map(|namespace| namespace.name.as_str())
    }

    /// Counts what is there.
    pub fn sizes(&self) -> Sizes {
        let managed = || self.namespaces.values().filter(|namespace| namespace.managed);
        let bare =
            |namespace: &Namespace| namespace.bare_pods.values().filter(|pod| namespace.lacks_sidecar(pod)).count();
        let acked = |namespace: &Namespace| namespace.pods.values().filter(|pod| pod.ack.is_some()).count();
        let told = |reason: &str| {
            let policies = managed().flat_map(|namespace| namespace.policies.values());
            policies.filter(|policy| policy.is_told(reason)).count()
        };
        Sizes {
            invalid_policies: told("Invalid"),
            conflicted_policies: told("Conflicted"),
            policies: managed().map(|namespace| namespace.policies.len()).sum(),
            workloads: managed().map(|namespace| namespace.workloads.len()).sum(),
            pods: managed().map(|namespace| namespace.pods.len()).sum(),
            bare_pods: managed().map(bare).sum(),
            acked: managed().map(acked).sum(),
        }
    }

    fn within(&mut self, name: &str, event: impl FnOnce(&mut Namespace, &mut Changes)) {
        let namespace = self.namespaces.entry(name.to_owned()).or_insert_with(|| Namespace::new(name));
        event(namespace, &mut self.changes);
        if namespace.is_empty() {
            self.namespaces.remove(name);
        }
    }

    fn bounds_for(&self, labels: &Labels) -> Vec<ClusterSessionPolicy> {
        self.clusters.values().filter_map(|cluster| cluster.bounds_for(labels)).cloned().collect()
    }

    fn bind_all(&mut self, changed: String) {
        self.changes.clusters.insert(changed);
        let names: Vec<String> = self.namespaces.keys().cloned().collect();
        for name in names {
            let Some(labels) = self.namespaces.get(&name).map(|namespace| namespace.state.labels.clone()) else {
                continue;
            };
            let bounds = self.bounds_for(&labels);
            self.within(&name, |namespace, changes| namespace.set_bounds(bounds, changes));
        }
    }
}

fn observe() -> SidecarConfig {
    let spec = SessionPolicySpec { mode: Mode::Observe, ..SessionPolicySpec::default() };
    compile(&SessionPolicy::new(BUILT_IN, spec)).expect("the default policy is valid")
}
