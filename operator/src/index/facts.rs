//! What the index is told about the cluster, and the names it answers with.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    ops::Deref,
};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};

use serde::Deserialize;
use sipwarden_crds::{API_VERSION, SidecarConfig};

use crate::inject::{NamespaceFacts, names};

/// Annotation on a SessionPolicy or a namespace: with `true` what is in force stays so, also for new pods. A policy is held to
/// the bounds of ClusterSessionPolicies even then; in a namespace nothing is written.
pub const PAUSED: &str = "sipwarden.dev/paused";
/// Label on SidecarConfigs of the operator: [`CONFIG_FOR_WORKLOAD`] or [`CONFIG_FOR_SELECTOR`]. Others are never deleted.
pub const CONFIG_FOR: &str = "sipwarden.dev/config-for";
/// Its value on what the pods of one workload obey.
pub const CONFIG_FOR_WORKLOAD: &str = "workload";
/// Its value on what the pods obey that one policy is in force for, whatever workload they are of: what the admission
/// policy gives to pods that are made while the operator is away.
pub const CONFIG_FOR_SELECTOR: &str = "selector";

/// The longest name that Kubernetes gives objects.
const MAX_OBJECT_NAME: usize = 253;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Names an object of a namespaced kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceState {
    /// Which ClusterSessionPolicies select it, and whether its pods are to have sidecars.
    pub labels: Labels,
    /// Configs in it are left as they are.
    pub paused: bool,
}

/// Who a SidecarConfig belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Not another one of that name.
    pub uid: String,
}

/// What a pod belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRef {
    /// The name of its SidecarConfig.
    pub config_name: String,
    /// None where the pod does not tell: a Deployment owns its pods through a ReplicaSet, which knows nothing but its name.
    pub owner: Option<Owner>,
}

/// A workload whose pods are made from a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFacts {
    /// The workload itself.
    pub owner: Owner,
    /// Labels of the pods it makes.
    pub pod_labels: Labels,
}

/// A pod that is there and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Not another one of that name.
    pub uid: String,
    /// Which policies select it.
    pub labels: Labels,
    /// What it belongs to.
    pub workload: WorkloadRef,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Of the annotation with its config; None without one.
    pub annotation: Option<Fingerprint>,
    /// Where its sidecar answers.
    pub ip: Option<IpAddr>,
    /// It is being deleted: the kubelet shows its sidecar no changes any more.
    pub terminating: bool,
}

/// Stands for a config, with all that a sidecar obeys: a hash that is merely written in it proves nothing of the rest.
/// Not to be stored: another build may compute another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

/// A config and what stands for it, computed once: there may be many pods to compare it with.
#[derive(Debug)]
pub(super) struct Config {
    spec: SidecarConfig,
    pub(super) fingerprint: Fingerprint,
}

/// A config as an annotation holds it, taken literally: what stands there is compared, and not judged.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    api_version: String,
    kind: String,
    spec: SidecarConfig,
}

impl Key {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The object with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl NamespaceState {
    /// Reads it from the namespace's metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { labels: meta.labels.clone().unwrap_or_default(), paused: is_paused(meta) }
    }

    /// What admission asks about it.
    pub fn facts(&self) -> NamespaceFacts {
        NamespaceFacts::from_labels(&self.labels)
    }
}

impl Owner {
    /// The object with this metadata.
    pub fn of(api_version: &str, kind: &str, meta: &ObjectMeta) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }

    /// The name of its SidecarConfig.
    pub fn config_name(&self) -> String {
        config_name(&self.kind, &self.name)
    }

    pub(super) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }
}

impl WorkloadRef {
    /// What the pod with this metadata belongs to: its controller, or what controls a ReplicaSet of that name, or itself.
    pub fn of(pod: &ObjectMeta) -> Self {
        let Some(controller) = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
        else {
            let owner = Owner::of("v1", "Pod", pod);
            let known = pod.uid.is_some() && pod.name.is_some();
            return Self { config_name: owner.config_name(), owner: known.then_some(owner) };
        };
        let hash = pod.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
        let deployment = hash.and_then(|hash| controller.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        if let Some(deployment) = deployment.filter(|_| controller.kind == "ReplicaSet") {
            return Self { config_name: config_name("Deployment", deployment), owner: None };
        }
        let owner = Owner {
            api_version: controller.api_version.clone(),
            kind: controller.kind.clone(),
            name: controller.name.clone(),
            uid: controller.uid.clone(),
        };
        Self { config_name: owner.config_name(), owner: Some(owner) }
    }
}

impl Fingerprint {
    /// Of the config in the text of an annotation. What is none has that of no config.
    pub fn of_annotation(text: &str) -> Self {
        let annotation = serde_json::from_str(text).ok().filter(|annotation: &Annotation| {
            (annotation.api_version.as_str(), annotation.kind.as_str()) == (API_VERSION, "SidecarConfig")
        });
        Self::of(annotation.as_ref().map(|annotation| &annotation.spec))
    }

    fn of(config: Option<&SidecarConfig>) -> Self {
        let mut hasher = DefaultHasher::new();
        config.hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl From<SidecarConfig> for Config {
    fn from(spec: SidecarConfig) -> Self {
        let fingerprint = Fingerprint::of(Some(&spec));
        Self { spec, fingerprint }
    }
}

impl Deref for Config {
    type Target = SidecarConfig;

    fn deref(&self) -> &SidecarConfig {
        &self.spec
    }
}

/// Whether someone asked for the object to be left as it is.
pub(super) fn is_paused(meta: &ObjectMeta) -> bool {
    meta.annotations.as_ref().and_then(|annotations| annotations.get(PAUSED)).is_some_and(|value| value == "true")
}

/// Whether pods with these labels ask for a sidecar, as [`crate::inject::opted_in`] judges pods.
pub(super) fn wants_sidecar(labels: &Labels, namespace: &NamespaceFacts) -> bool {
    match (labels.get(names::INJECT).map(String::as_str), namespace.inject.as_deref()) {
        (Some(names::DISABLED), _) => false,
        (Some(names::ENABLED), _) => true,
        (_, of_namespace) => of_namespace == Some(names::ENABLED),
    }
}

pub(super) fn config_name(kind: &str, name: &str) -> String {
    let whole = format!("{}-{name}", kind.to_ascii_lowercase());
    if whole.len() <= MAX_OBJECT_NAME {
        return whole;
    }
    let ending = format!("-{:016x}", fnv1a(whole.as_bytes()));
    // Names are ASCII; whatever is not is none, and is cut to nothing.
    let start = whole.get(..MAX_OBJECT_NAME - ending.len()).unwrap_or_default();
    format!("{}{ending}", start.trim_end_matches(['-', '.']))
}

/// Equal in every build, since it becomes part of a name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(owner: Option<(&str, &str, &str)>, template_hash: Option<&str>) -> ObjectMeta {
        let owner = owner.map(|(api_version, kind, name)| OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: "u".to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        });
        ObjectMeta {
            name: Some("p".to_owned()),
            uid: Some("pod-uid".to_owned()),
            owner_references: Some(owner.into_iter().collect()),
            labels: template_hash.map(|hash| Labels::from([("pod-template-hash".to_owned(), hash.to_owned())])),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_pod_belongs_to_its_controller_and_a_deployment_is_seen_through_its_replica_set() {
        let cases = [
            (pod(Some(("apps/v1", "ReplicaSet", "web-7d4f")), Some("7d4f")), "deployment-web", None),
            (pod(Some(("apps/v1", "ReplicaSet", "web-7d4f")), None), "replicaset-web-7d4f", Some("u")),
            (pod(Some(("apps/v1", "ReplicaSet", "own")), Some("7d4f")), "replicaset-own", Some("u")),
            (pod(Some(("apps/v1", "StatefulSet", "db")), None), "statefulset-db", Some("u")),
            (pod(Some(("apps.kruise.io/v1", "CloneSet", "c")), Some("c")), "cloneset-c", Some("u")),
            (pod(None, None), "pod-p", Some("pod-uid")),
        ];
        for (meta, name, uid) in cases {
            let workload = WorkloadRef::of(&meta);
            assert_eq!(workload.config_name, name);
            assert_eq!(workload.owner.map(|owner| owner.uid).as_deref(), uid, "{name}");
        }
    }

    #[test]
    fn a_name_that_would_be_too_long_is_cut_and_stays_unique() {
        let [a, b] = ["a", "b"].map(|end| config_name("Deployment", &format!("{}.{end}", "x".repeat(251))));
        assert_ne!(a, b);
        assert!(a.len() <= MAX_OBJECT_NAME, "{}", a.len());
        assert_eq!(config_name("Deployment", &"x".repeat(242)).len(), MAX_OBJECT_NAME);
    }
}
