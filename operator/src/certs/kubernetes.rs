//! [`Cluster`] on a real API server.

use std::{collections::BTreeMap, fmt::Debug};

use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, jsonptr::PointerBuf};
use k8s_openapi::{
    ByteString, Metadata,
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        authentication::v1::SelfSubjectReview,
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    cluster::{Cluster, ClusterError, Configuration, StoredCa},
    store::{ANNOTATIONS, DATA_KEYS},
};

const FIELD_MANAGER: &str = "sipwarden-operator";
/// What the API server calls a change made from an older state, and making what exists.
const CONFLICT: u16 = 409;
const NOT_FOUND: u16 = 404;

/// What things are called in one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The operator's.
    pub namespace: String,
    /// Service that the API server calls.
    pub service: String,
    /// Secret of the CA.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub mutating: String,
    /// The ValidatingWebhookConfiguration.
    pub validating: String,
}

impl Names {
    /// The names of one revision.
    pub fn new(namespace: impl Into<String>, service: impl Into<String>, revision: &str) -> Self {
        Self {
            namespace: namespace.into(),
            service: service.into(),
            secret: format!("sipwarden-ca-{revision}"),
            mutating: format!("sipwarden-injector-{revision}"),
            validating: format!("sipwarden-validator-{revision}"),
        }
    }

    /// What the leaf is for; the API server calls the Service by the first.
    pub fn dns_names(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.service, self.namespace);
        vec![short.clone(), format!("{short}.cluster.local")]
    }
}

/// A cluster by way of the Kubernetes client.
#[derive(Clone)]
pub struct KubernetesCluster {
    client: Client,
    names: Names,
}

impl KubernetesCluster {
    /// What these names mean where the client leads.
    pub fn new(client: Client, names: Names) -> Self {
        Self { client, names }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.names.namespace)
    }

    async fn configuration<K: WebhookConfiguration>(&self, name: &str) -> Result<Option<Configuration>, ClusterError> {
        let found = Api::<K>::all(self.client.clone()).get_opt(name).await.map_err(failed)?;
        Ok(found.map(|found| Configuration {
            name: qualified::<K>(name),
            version: found.metadata().resource_version.clone().unwrap_or_default(),
            bundles: found.client_configs().into_iter().map(bundle_of).collect(),
        }))
    }

    async fn write<K: WebhookConfiguration>(
        &self,
        name: &str,
        configuration: &Configuration,
        bundle: &str,
    ) -> Result<(), ClusterError> {
        let add = |path: PointerBuf, value: Value| PatchOperation::Add(AddOperation { path, value });
        // The API server takes it as the state the change was made from, and refuses with a conflict.
        let version = json!(configuration.version);
        let mut operations = vec![add(PointerBuf::from_tokens(["metadata", "resourceVersion"]), version)];
        let bundle = json!(ByteString(bundle.as_bytes().to_vec()));
        for index in 0..configuration.bundles.len() {
            let path = ["webhooks", &index.to_string(), "clientConfig", "caBundle"];
            operations.push(add(PointerBuf::from_tokens(path), bundle.clone()));
        }
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Json::<()>(JsonPatch(operations));
        let written = Api::<K>::all(self.client.clone()).patch(name, &params, &patch).await;
        written.map(|_| ()).map_err(failed_change)
    }
}

impl Cluster for KubernetesCluster {
    /// The answer to a review of oneself, which everybody may ask for, is an object made at that moment.
    async fn now_s(&self) -> Option<i64> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
        let answer =
            answer.inspect_err(|error| tracing::debug!(%error, "the API server does not tell its time")).ok()?;
        answer.metadata.creation_timestamp.map(|time| time.0.as_second())
    }

    async fn load(&self) -> Result<Option<StoredCa>, ClusterError> {
        let Some(secret) = self.secrets().get_opt(&self.names.secret).await.map_err(failed)? else { return Ok(None) };
        let text = |ByteString(bytes): ByteString| String::from_utf8(bytes).unwrap_or_default();
        Ok(Some(StoredCa {
            data: secret.data.into_iter().flatten().map(|(key, bytes)| (key, text(bytes))).collect(),
            annotations: secret.metadata.annotations.unwrap_or_default(),
            version: secret.metadata.resource_version.unwrap_or_default(),
        }))
    }

    async fn create(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        let labels = [("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.names.secret.clone()),
                annotations: Some(ca.annotations.clone()),
                labels: Some(BTreeMap::from(labels)),
                ..ObjectMeta::default()
            },
            string_data: Some(ca.data.clone()),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.secrets().create(&params, &secret).await.map(|_| ()).map_err(failed)
    }

    /// What others wrote on the Secret stays.
    async fn replace(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        let bytes = |text: &String| json!(ByteString(text.as_bytes().to_vec()));
        let data: Map<String, Value> =
            DATA_KEYS.map(|key| (key.to_owned(), ca.data.get(key).map_or(Value::Null, bytes))).into_iter().collect();
        let annotations: Map<String, Value> =
            ANNOTATIONS.map(|key| (key.to_owned(), json!(ca.annotations.get(key)))).into_iter().collect();
        let metadata = json!({ "resourceVersion": ca.version, "annotations": annotations });
        let patch = Patch::Merge(json!({ "metadata": metadata, "data": data }));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.secrets().patch(&self.names.secret, &params, &patch).await.map(|_| ()).map_err(failed_change)
    }

    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        let mutating = self.configuration::<MutatingWebhookConfiguration>(&self.names.mutating).await?;
        let validating = self.configuration::<ValidatingWebhookConfiguration>(&self.names.validating).await?;
        Ok(mutating.into_iter().chain(validating).collect())
    }

    async fn publish(&self, configuration: &Configuration, bundle: &str) -> Result<(), ClusterError> {
        if configuration.name == qualified::<MutatingWebhookConfiguration>(&self.names.mutating) {
            self.write::<MutatingWebhookConfiguration>(&self.names.mutating, configuration, bundle).await
        } else {
            self.write::<ValidatingWebhookConfiguration>(&self.names.validating, configuration, bundle).await
        }
    }
}

/// The two kinds differ in nothing that matters here.
trait WebhookConfiguration:
    Resource<DynamicType = ()> + Metadata<Ty = ObjectMeta> + Clone + DeserializeOwned + Debug
{
    fn client_configs(&self) -> Vec<&WebhookClientConfig>;
}

impl WebhookConfiguration for MutatingWebhookConfiguration {
    fn client_configs(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config).collect()
    }
}

impl WebhookConfiguration for ValidatingWebhookConfiguration {
    fn client_configs(&self) -> Vec<&WebhookClientConfig> {
        self.webhooks.iter().flatten().map(|webhook| &webhook.client_config).collect()
    }
}

fn qualified<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{}/{name}", K::kind(&()))
}

fn bundle_of(config: &WebhookClientConfig) -> String {
    let bytes = config.ca_bundle.as_ref().map(|ByteString(bytes)| bytes.as_slice());
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

fn failed(error: kube::Error) -> ClusterError {
    match &error {
        kube::Error::Api(status) if status.code == CONFLICT => ClusterError::Conflict,
        _ => ClusterError::Failed(Box::new(error)),
    }
}

/// What vanished since it was read was changed by another, too.
fn failed_change(error: kube::Error) -> ClusterError {
    match &error {
        kube::Error::Api(status) if status.code == NOT_FOUND => ClusterError::Conflict,
        _ => failed(error),
    }
}
