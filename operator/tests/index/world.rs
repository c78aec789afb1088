//! A cluster in memory: what an index was told, and what came of writing all that it asked for.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time},
    jiff::Timestamp,
};
use sipwarden_crds::{
    ClusterSessionPolicy, Duration, SessionPolicy, SessionPolicySpec, SessionPolicyStatus, SidecarConfig,
    SidecarConfigObject, from_annotation,
};
use sipwarden_operator::{
    index::{
        Ack, ConfigChange, Fingerprint, Index, Key, Labels, NamespaceState, Owner, PAUSED, PodFacts, WorkloadFacts,
        WorkloadRef,
    },
    inject::Skip,
};

/// Writes that one event may cause before something is wrong.
const MAX_WRITES: usize = 10_000;

pub(crate) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

pub(crate) fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).expect("a time"))
}

pub(crate) fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs).expect("a length of time")
}

/// Of pods labelled `app`; of all with an empty name.
pub(crate) fn policy(namespace: &str, name: &str, app: &str) -> SessionPolicy {
    let selector = LabelSelector { match_labels: Some(labels([("app", app)])), ..LabelSelector::default() };
    let spec =
        SessionPolicySpec { pod_selector: (!app.is_empty()).then_some(selector), ..SessionPolicySpec::default() };
    let mut policy = SessionPolicy::new(name, spec);
    policy.metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        uid: Some(format!("uid-{namespace}-{name}")),
        generation: Some(1),
        creation_timestamp: Some(time(0)),
        ..policy.metadata
    };
    policy
}

pub(crate) fn with_interval(mut policy: SessionPolicy, seconds: u32) -> SessionPolicy {
    policy.spec.timers.session_expires = secs(seconds);
    edited(policy)
}

pub(crate) fn edited(mut policy: SessionPolicy) -> SessionPolicy {
    policy.metadata.generation = policy.metadata.generation.map(|generation| generation + 1);
    policy
}

pub(crate) fn paused(mut policy: SessionPolicy) -> SessionPolicy {
    policy.metadata.annotations = Some(labels([(PAUSED, "true")]));
    policy
}

pub(crate) fn cluster_policy(name: &str, least_min_se: u32) -> ClusterSessionPolicy {
    let mut policy = ClusterSessionPolicy::new(name, Default::default());
    policy.spec.timers.min_se.at_least = Some(secs(least_min_se));
    policy.metadata.uid = Some(format!("uid-{name}"));
    policy
}

pub(crate) fn opted_in() -> NamespaceState {
    NamespaceState { labels: labels([("sipwarden.dev/inject", "enabled")]), paused: false }
}

pub(crate) fn deployment(name: &str, app: &str) -> WorkloadFacts {
    let uid = format!("uid-{name}");
    let owner = Owner { api_version: "apps/v1".into(), kind: "Deployment".into(), name: name.into(), uid };
    WorkloadFacts { owner, pod_labels: labels([("app", app)]) }
}

/// Of the Deployment of this name.
pub(crate) fn pod(name: &str, deployment: &str, app: &str) -> PodFacts {
    PodFacts {
        uid: format!("uid-{name}"),
        labels: labels([("app", app)]),
        workload: WorkloadRef { config_name: format!("deployment-{deployment}"), owner: None },
        created: Some(Timestamp::UNIX_EPOCH),
        annotation: None,
        ip: Some([10, 0, 0, 1].into()),
        terminating: false,
    }
}

/// An index, and the cluster it looks at.
pub(crate) struct World {
    pub(crate) index: Index,
    pub(crate) namespaces: BTreeMap<String, NamespaceState>,
    pub(crate) policies: BTreeMap<Key, SessionPolicy>,
    pub(crate) clusters: BTreeMap<String, ClusterSessionPolicy>,
    pub(crate) workloads: BTreeMap<Key, WorkloadFacts>,
    pub(crate) pods: BTreeMap<Key, PodFacts>,
    pub(crate) bare_pods: BTreeMap<Key, (PodFacts, Option<Skip>)>,
    pub(crate) annotations: BTreeMap<Key, String>,
    pub(crate) configs: BTreeMap<Key, SidecarConfigObject>,
    pub(crate) writes: usize,
    /// Policies whose status may have changed since this was emptied.
    pub(crate) marked: BTreeSet<Key>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            index: Index::new("default"),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            clusters: BTreeMap::new(),
            workloads: BTreeMap::new(),
            pods: BTreeMap::new(),
            bare_pods: BTreeMap::new(),
            annotations: BTreeMap::new(),
            configs: BTreeMap::new(),
            writes: 0,
            marked: BTreeSet::new(),
        }
    }

    /// With the namespace `voice` opted in, and its Deployment `pbx` of two pods that have sidecars.
    pub(crate) fn voice() -> Self {
        let mut world = Self::new();
        world.namespace("voice", opted_in());
        world.workload("voice", deployment("pbx", "pbx"));
        world.pod("voice", "pbx-1", pod("pbx-1", "pbx", "pbx"));
        world.pod("voice", "pbx-2", pod("pbx-2", "pbx", "pbx"));
        world
    }

    pub(crate) fn namespace(&mut self, name: &str, state: NamespaceState) {
        self.namespaces.insert(name.to_owned(), state.clone());
        self.index.namespace(name, state);
    }

    pub(crate) fn policy(&mut self, policy: SessionPolicy) {
        self.policies.insert(Key::of(&policy.metadata), policy.clone());
        self.index.policy(policy, None);
    }

    pub(crate) fn remove_policy(&mut self, namespace: &str, name: &str) {
        self.policies.remove(&Key::new(namespace, name));
        self.index.remove_policy(&Key::new(namespace, name));
    }

    pub(crate) fn cluster(&mut self, policy: ClusterSessionPolicy) {
        self.clusters.insert(policy.metadata.name.clone().expect("a name"), policy.clone());
        self.index.cluster(policy, None);
    }

    pub(crate) fn workload(&mut self, namespace: &str, facts: WorkloadFacts) {
        self.workloads.insert(Key::new(namespace, facts.owner.config_name()), facts.clone());
        self.index.workload(namespace, facts);
    }

    pub(crate) fn pod(&mut self, namespace: &str, name: &str, mut facts: PodFacts) {
        let key = Key::new(namespace, name);
        facts.annotation = self.annotations.get(&key).map(|text| Fingerprint::of_annotation(text));
        self.pods.insert(key.clone(), facts.clone());
        self.index.pod(&key, facts);
    }

    pub(crate) fn bare_pod(&mut self, namespace: &str, name: &str, facts: PodFacts, refusal: Option<Skip>) {
        self.bare_pods.insert(Key::new(namespace, name), (facts.clone(), refusal.clone()));
        self.index.bare_pod(&Key::new(namespace, name), facts, refusal);
    }

    pub(crate) fn ack(&mut self, namespace: &str, name: &str, hash: &str, sessions: u32) {
        let ack = Ack { hash: Some(hash.to_owned()), error: None, sessions };
        self.index.acked(&Key::new(namespace, name), Some(ack));
    }

    /// Writes what the changes ask for, as the watches would then tell it, until nothing is left.
    pub(crate) fn settle(&mut self) {
        let start = self.writes;
        loop {
            let changes = self.index.take_changes();
            let before = self.writes;
            self.marked.extend(changes.policies);
            for key in changes.pods {
                let Some(patch) = self.index.pod_patch(&key) else { continue };
                self.annotations.insert(key.clone(), patch.annotation.clone());
                assert_eq!(patch.fingerprint, Fingerprint::of_annotation(&patch.annotation));
                let mut facts = self.pods[&key].clone();
                facts.annotation = Some(patch.fingerprint);
                self.pods.insert(key.clone(), facts.clone());
                self.index.pod(&key, facts);
                self.writes += 1;
            }
            for key in changes.configs {
                match self.index.config_change(&key) {
                    Some(ConfigChange::Apply(object)) => {
                        let mut object = *object;
                        object.metadata.uid = Some(format!("uid-{}", key.name));
                        self.configs.insert(key, object.clone());
                        self.index.config(object);
                    }
                    Some(ConfigChange::Delete { .. }) => {
                        self.configs.remove(&key);
                        self.index.remove_config(&key);
                    }
                    None => continue,
                }
                self.writes += 1;
            }
            if self.writes == before {
                return;
            }
            assert!(self.writes - start < MAX_WRITES, "writes never end");
        }
    }

    /// The config of a pod.
    pub(crate) fn config_of(&self, namespace: &str, pod: &str) -> Option<SidecarConfig> {
        let text = self.annotations.get(&Key::new(namespace, pod))?;
        Some(from_annotation(text).expect("a config"))
    }

    /// The name of the policy that a pod obeys.
    pub(crate) fn obeyed(&self, namespace: &str, pod: &str) -> String {
        self.config_of(namespace, pod).map(|config| config.policy).unwrap_or_default()
    }

    pub(crate) fn status(&self, namespace: &str, name: &str) -> SessionPolicyStatus {
        let status = self.index.policy_status(&Key::new(namespace, name), &time(9));
        status.map(|(status, _)| status).expect("a status that was not written")
    }

    /// What is to be written, or is written already.
    pub(crate) fn status_or_told(&self, namespace: &str, name: &str) -> SessionPolicyStatus {
        let key = Key::new(namespace, name);
        let status = self.index.policy_status(&key, &time(9)).map(|(status, _)| status);
        status.or_else(|| self.policies[&key].status.clone()).expect("a status")
    }

    /// `Accepted` or the like, as `True Accepted`.
    pub(crate) fn condition(&self, namespace: &str, policy: &str, type_: &str) -> String {
        let status = self.status(namespace, policy);
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_).expect("such a condition");
        format!("{} {}", condition.status, condition.reason)
    }
}
