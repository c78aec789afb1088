//! Objects as they come from the API server, cut down to what the index is told.

use std::{borrow::Cow, fmt::Debug};

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Resource,
    api::ApiResource,
    core::{DynamicObject, DynamicResourceScope},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    index::{Fingerprint, Labels, Owner, PodFacts, WorkloadFacts, WorkloadRef},
    inject::{Settings, Skip, names, refusal},
};

/// An object of which only these fields are parsed.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "S: Default + Deserialize<'de>, T: Default + Deserialize<'de>")]
pub(super) struct Slim<S, T> {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: S,
    #[serde(default)]
    pub(super) status: T,
}

/// A pod with a sidecar.
pub(super) type SlimPod = Slim<Nothing, PodStatus>;
/// A pod without, which is judged whole.
pub(super) type BarePod = Slim<PodSpec, Nothing>;
/// Whatever makes pods from a template.
pub(super) type SlimWorkload = Slim<WorkloadSpec, Nothing>;

/// A part that nobody looks at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Nothing {}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadSpec {
    template: Template,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: TemplateMetadata,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateMetadata {
    labels: Option<Labels>,
}

impl<S, T> Resource for Slim<S, T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What the index is told about a pod.
pub(super) fn pod_facts(mut meta: ObjectMeta, ip: Option<String>) -> PodFacts {
    let config = meta.annotations.as_ref().and_then(|annotations| annotations.get(names::CONFIG));
    PodFacts {
        annotation: config.filter(|config| !config.is_empty()).map(|config| Fingerprint::of_annotation(config)),
        workload: WorkloadRef::of(&meta),
        created: meta.creation_timestamp.as_ref().map(|created| created.0),
        ip: ip.and_then(|ip| ip.parse().ok()),
        terminating: meta.deletion_timestamp.is_some(),
        uid: meta.uid.take().unwrap_or_default(),
        labels: meta.labels.take().unwrap_or_default(),
    }
}

/// What the index is told about a pod without a sidecar, and why it could not have one.
pub(super) fn bare_pod_facts(pod: BarePod, settings: &Settings) -> (PodFacts, Option<Skip>) {
    let pod = Pod { metadata: pod.metadata, spec: Some(pod.spec), status: None };
    let refusal = refusal(&pod, settings);
    (pod_facts(pod.metadata, None), refusal)
}

/// What the index is told about a workload.
pub(super) fn workload_facts(owner: Owner, workload: SlimWorkload) -> WorkloadFacts {
    WorkloadFacts { owner, pod_labels: workload.spec.template.metadata.labels.unwrap_or_default() }
}

/// The object, or what can be made of its metadata and what is wrong with the rest.
pub(super) fn readable<K: DeserializeOwned>(
    mut object: DynamicObject,
    empty: impl FnOnce(ObjectMeta) -> K,
) -> (K, Option<String>) {
    object.metadata.managed_fields = None;
    match typed(&object) {
        Ok(typed) => (typed, None),
        Err(error) => (empty(object.metadata), Some(error.to_string())),
    }
}

/// The object as what it is.
pub(super) fn typed<K: DeserializeOwned>(object: &DynamicObject) -> serde_json::Result<K> {
    serde_json::to_value(object).and_then(serde_json::from_value)
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::json;
    use sipwarden_crds::SessionPolicy;

    use super::*;
    use crate::inject::SkipReason;

    #[test]
    fn of_a_pod_its_address_and_the_identity_of_its_config_are_read() {
        let event = json!({ "type": "ADDED", "object": {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "p", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": { "sipwarden.dev/config": "{}" } },
            "spec": { "containers": [{ "name": "app", "image": "i" }] },
            "status": { "podIP": "2001:db8::1", "phase": "Running" },
        }});
        let WatchEvent::Added(pod) = serde_json::from_value::<WatchEvent<SlimPod>>(event).unwrap() else { panic!() };
        let facts = pod_facts(pod.metadata, pod.status.pod_ip);
        assert_eq!(facts.ip, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(facts.annotation, Some(Fingerprint::of_annotation("{}")));
        assert!(facts.terminating);
        assert_eq!(facts.workload.config_name, "pod-p");
    }

    #[test]
    fn an_empty_annotation_is_none() {
        let annotations = Some([(names::CONFIG.to_owned(), String::new())].into());
        assert_eq!(pod_facts(ObjectMeta { annotations, ..ObjectMeta::default() }, None).annotation, None);
    }

    #[test]
    fn a_pod_without_a_sidecar_is_judged_as_if_it_were_made_anew() {
        let settings = Settings { memory_limit: "128Mi".to_owned(), ..Settings::new("canary", "image") };
        let refusal = |host_network: bool, annotations: serde_json::Value| {
            let ports = json!([{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }]);
            let pod = json!({
                "metadata": { "name": "p", "annotations": annotations },
                "spec": { "hostNetwork": host_network, "containers": [{ "name": "app", "ports": ports }] },
            });
            let (facts, refusal) = bare_pod_facts(serde_json::from_value(pod).unwrap(), &settings);
            assert_eq!(facts.workload.config_name, "pod-p");
            refusal.map(|skip| skip.reason())
        };
        assert_eq!(refusal(false, json!({})), None);
        assert_eq!(refusal(true, json!({})), Some(SkipReason::HostNetwork));
        assert_eq!(refusal(false, json!({ names::PORT_NAMES: "sips" })), Some(SkipReason::NoSuchPort));
        let above = refusal(false, json!({ names::MEMORY_REQUEST: "129Mi" }));
        assert_eq!(above, Some(SkipReason::BadAnnotation), "above the limit that it would be given");
    }

    #[test]
    fn of_a_workload_the_labels_of_its_template_are_read() {
        let workload: SlimWorkload = serde_json::from_value(json!({
            "metadata": { "name": "w" },
            "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "a" } }, "spec": {} } },
            "status": { "replicas": 2 },
        }))
        .unwrap();
        let owner = Owner::of("apps/v1", "Deployment", &workload.metadata);
        assert_eq!(workload_facts(owner, workload).pod_labels, [("app".to_owned(), "a".to_owned())].into());
    }

    #[test]
    fn a_policy_of_a_form_that_is_not_known_is_told_with_its_metadata() {
        let object = json!({
            "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy",
            "metadata": { "name": "p", "uid": "u" }, "spec": { "newerThanThis": true },
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let (policy, fault) =
            readable(object, |metadata| SessionPolicy { metadata, spec: Default::default(), status: None });
        assert_eq!(policy.metadata.uid.as_deref(), Some("u"));
        assert!(fault.unwrap().contains("newerThanThis"));
    }
}
