//! Which pods a command is about.

use std::{fmt, str::FromStr};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, api::ListParams};
use serde::Serialize;
use sipwarden_operator::{
    index::WorkloadRef,
    inject::names::{SIDECAR, SIDECAR_INJECTED},
};

use crate::{cli::PodArgs, connection::Connection, outcome::Failure};

/// Names a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    #[serde(rename = "pod")]
    pub name: String,
}

/// A pod, or the pods of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The pod of this name.
    Pod(String),
    /// The workload whose SidecarConfig has this name.
    Workload(String),
}

impl PodRef {
    /// The pod with this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once('/') else { return Ok(Self::Pod(text.to_owned())) };
        if name.is_empty() || name.contains('/') {
            return Err("expected a pod's name, or a kind and a name such as deployment/pbx".to_owned());
        }
        let kind = kind.to_ascii_lowercase();
        Ok(match kind.as_str() {
            "po" | "pod" | "pods" => Self::Pod(name.to_owned()),
            "deploy" | "deployments" => Self::Workload(format!("deployment-{name}")),
            "sts" | "statefulsets" => Self::Workload(format!("statefulset-{name}")),
            "ds" | "daemonsets" => Self::Workload(format!("daemonset-{name}")),
            "rs" | "replicasets" => Self::Workload(format!("replicaset-{name}")),
            "jobs" => Self::Workload(format!("job-{name}")),
            _ => Self::Workload(format!("{kind}-{name}")),
        })
    }
}

impl Target {
    /// Whether the pod with this metadata is meant.
    pub fn fits(&self, pod: &ObjectMeta) -> bool {
        match self {
            Self::Pod(name) => pod.name.as_ref() == Some(name),
            Self::Workload(config) => WorkloadRef::of(pod).config_name == *config,
        }
    }
}

/// All pods that are meant, with a sidecar or without, that have not ended.
///
/// # Errors
/// The API server does not tell.
pub async fn pods(connection: &Connection, args: &PodArgs) -> Result<Vec<Pod>, Failure> {
    list(connection, args, args.selector.clone()).await
}

/// Those of them that have a sidecar, in the order of their names.
///
/// # Errors
/// The API server does not tell, or there are none.
pub async fn with_sidecar(connection: &Connection, args: &PodArgs) -> Result<Vec<PodRef>, Failure> {
    let injected = format!("{SIDECAR}={SIDECAR_INJECTED}");
    let selector = args.selector.iter().fold(injected, |all, asked| format!("{all},{asked}"));
    let pods = list(connection, args, Some(selector)).await?;
    if pods.is_empty() {
        return Err(Failure::Nothing(format!(
            "no pod with a sidecar{} is meant; `kubectl sipwarden status` tells why pods have none",
            connection.place()
        )));
    }
    Ok(pods.iter().map(|pod| PodRef::of(&pod.metadata)).collect())
}

async fn list(connection: &Connection, args: &PodArgs, selector: Option<String>) -> Result<Vec<Pod>, Failure> {
    let api: Api<Pod> = match &connection.namespace {
        Some(namespace) => Api::namespaced(connection.client.clone(), namespace),
        None => Api::all(connection.client.clone()),
    };
    let params = ListParams { label_selector: selector, ..ListParams::default() };
    let doing = format!("list pods{}", connection.place());
    let mut pods = api.list(&params).await.map_err(Failure::cluster(doing))?.items;
    pods.retain(|pod| is_alive(pod) && args.target.as_ref().is_none_or(|target| target.fits(&pod.metadata)));
    pods.sort_by_cached_key(|pod| PodRef::of(&pod.metadata));
    Ok(pods)
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn pod_of_deployment() -> ObjectMeta {
        let owner = OwnerReference {
            kind: "ReplicaSet".to_owned(),
            name: "pbx-7d4f".to_owned(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        ObjectMeta {
            name: Some("pbx-7d4f-abcde".to_owned()),
            owner_references: Some(vec![owner]),
            labels: Some([("pod-template-hash".to_owned(), "7d4f".to_owned())].into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_target_is_a_pod_or_a_workload_in_kubectls_words() {
        let pod = pod_of_deployment();
        for text in ["pbx-7d4f-abcde", "pod/pbx-7d4f-abcde", "po/pbx-7d4f-abcde", "deploy/pbx", "Deployment/pbx"] {
            assert!(text.parse::<Target>().unwrap().fits(&pod), "{text}");
        }
        for text in ["pbx", "pod/pbx", "sts/pbx", "deployment/other", "replicaset/pbx-7d4f"] {
            assert!(!text.parse::<Target>().unwrap().fits(&pod), "{text}");
        }
    }

    #[test]
    fn a_target_that_names_nothing_is_refused() {
        for text in ["deployment/", "a/b/c"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
