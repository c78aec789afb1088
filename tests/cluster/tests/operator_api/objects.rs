//! Objects as a cluster with controllers and kubelets would have them.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
        events::v1::Event,
    },
    serde::{Serialize, de::DeserializeOwned},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};

use serde_json::{Value, json};
use sipwarden_crds::{SessionPolicy, SessionPolicyStatus, SidecarConfig, SidecarConfigObject, from_annotation};
use sipwarden_operator::inject::names;
use tokio::time::sleep;

use crate::operator::PATIENCE;

/// A namespace with what is in it.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Site {
    /// Opted in, for the control plane of this revision.
    pub(crate) async fn new(client: &Client, name: &str, revision: &str) -> Self {
        let labels = json!({ names::INJECT: names::ENABLED, names::REVISION: revision, "site": name });
        let namespace = json!({ "metadata": { "name": name, "labels": labels } });
        let api: Api<Namespace> = Api::all(client.clone());
        api.create(&PostParams::default(), &typed(namespace)).await.expect("the API server obeys");
        Self { client: client.clone(), namespace: name.to_owned() }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// With its pods, as the ReplicaSet controller and the injector would have made them.
    pub(crate) async fn deployment(&self, name: &str, pods: usize) {
        let labels = json!({ "app": name });
        let spec = json!({
            "replicas": pods,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": containers() },
        });
        let deployment = json!({ "metadata": { "name": name }, "spec": spec });
        self.api::<Deployment>()
            .create(&PostParams::default(), &typed(deployment))
            .await
            .expect("the API server obeys");
        for number in 0..pods {
            self.pod(name, &format!("{name}-{number}"), true).await;
        }
    }

    /// Of a Deployment; with a sidecar or not. It runs at 127.1.0.1 or whatever `address` says later.
    pub(crate) async fn pod(&self, deployment: &str, name: &str, injected: bool) {
        let mut labels = json!({ "app": deployment, "pod-template-hash": "7d4f" });
        if injected {
            labels[names::SIDECAR] = json!(names::SIDECAR_INJECTED);
        }
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7d4f"), "uid": "7d4f",
            "controller": true,
        });
        let metadata = json!({ "name": name, "labels": labels, "ownerReferences": [owner] });
        let pod = json!({ "metadata": metadata, "spec": containers() });
        self.api::<Pod>().create(&PostParams::default(), &typed(pod)).await.expect("the API server obeys");
        self.pod_status(name, json!({ "phase": "Running" })).await;
    }

    pub(crate) async fn pod_status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        self.api::<Pod>().patch_status(name, &PatchParams::default(), &patch).await.expect("the API server obeys");
    }

    /// Creates or changes it.
    pub(crate) async fn policy(&self, name: &str, spec: Value) -> SessionPolicy {
        self.object(name, json!({ "spec": spec })).await
    }

    pub(crate) async fn object<K>(&self, name: &str, mut object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
    {
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        object["metadata"]["name"] = json!(name);
        let params = PatchParams::apply("test").force();
        self.api::<K>().patch(name, &params, &Patch::Apply(object)).await.expect("the API server obeys")
    }

    pub(crate) async fn annotate<K>(&self, name: &str, annotation: &str, value: Option<&str>)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { annotation: value } } }));
        self.api::<K>().patch(name, &PatchParams::default(), &patch).await.expect("the API server obeys");
    }

    pub(crate) async fn delete_policy(&self, name: &str) {
        self.api::<SessionPolicy>().delete(name, &DeleteParams::default()).await.expect("the API server obeys");
    }

    /// What the sidecar of a pod would read.
    pub(crate) async fn config(&self, pod: &str) -> Option<SidecarConfig> {
        let pod = self.api::<Pod>().get(pod).await.expect("the API server obeys");
        pod.annotations().get(names::CONFIG).map(|text| from_annotation(text).expect("a config"))
    }

    /// The names of the policies that all pods obey, without repetition.
    pub(crate) async fn obeyed(&self) -> Vec<Option<String>> {
        let pods = self.api::<Pod>().list(&ListParams::default()).await.expect("the API server obeys");
        let policy = |pod: &Pod| {
            pod.annotations().get(names::CONFIG).map(|text| from_annotation(text).expect("a config").policy)
        };
        let mut obeyed: Vec<_> = pods.iter().map(policy).collect();
        obeyed.sort();
        obeyed.dedup();
        obeyed
    }

    pub(crate) async fn sidecar_config(&self, name: &str) -> Option<SidecarConfigObject> {
        self.api::<SidecarConfigObject>().get_opt(name).await.expect("the API server obeys")
    }

    pub(crate) async fn status(&self, policy: &str) -> SessionPolicyStatus {
        self.api::<SessionPolicy>().get(policy).await.expect("the API server obeys").status.unwrap_or_default()
    }

    /// `True Programmed` or the like, once the status is about the policy as it is.
    pub(crate) async fn condition(&self, policy: &str, type_: &str) -> String {
        let policy = self.api::<SessionPolicy>().get(policy).await.expect("the API server obeys");
        let status = policy.status.unwrap_or_default();
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_);
        let current = condition.filter(|condition| condition.observed_generation == policy.metadata.generation);
        current.map(|condition| format!("{} {}", condition.status, condition.reason)).unwrap_or_default()
    }

    /// Reasons of the Events about an object, in order of the alphabet.
    pub(crate) async fn events_about(&self, name: &str) -> Vec<String> {
        let mut reasons: Vec<String> = self.events(name).await.filter_map(|event| event.reason).collect();
        reasons.sort();
        reasons
    }

    /// How often this was told of an object.
    pub(crate) async fn times_told(&self, name: &str, reason: &str) -> i32 {
        let events = self.events(name).await.filter(|event| event.reason.as_deref() == Some(reason));
        events.map(|event| event.series.map_or(1, |series| series.count)).sum()
    }

    /// What the Events about an object say.
    pub(crate) async fn notes_about(&self, name: &str) -> Vec<String> {
        self.events(name).await.filter_map(|event| event.note).collect()
    }

    async fn events(&self, about: &str) -> impl Iterator<Item = Event> {
        let events = self.api::<Event>().list(&ListParams::default()).await.expect("the API server obeys");
        let name = |event: &Event| event.regarding.as_ref().and_then(|it| it.name.clone());
        events.into_iter().filter(move |event| name(event).as_deref() == Some(about))
    }
}

/// Waits until it holds, and tells how long that took.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of this type")
}

fn containers() -> Value {
    json!({ "containers": [{ "name": "app", "image": "app", "ports": [{ "name": "sip", "containerPort": 5060 }] }] })
}
