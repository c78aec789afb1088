//! The annotation of a pod.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{FIELD_MANAGER, Writer, deliveries::SHOWN_WITHIN};
use crate::{
    index::Key,
    inject::names,
    metrics::Written,
    queue::{Outcome, Task},
};

/// A merge patch: unlike an apply it can never make a pod, and the uid keeps it from the next pod of that name.
pub(super) async fn write(writer: &Writer, task: Task<Key>) -> Outcome {
    let Task { key, since } = task;
    let Some(patch) = writer.state.look(|index| index.pod_patch(&key)) else { return Outcome::Done };
    let body = Patch::Merge(json!({
        "metadata": { "uid": patch.uid, "annotations": { names::CONFIG: patch.annotation } },
    }));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api: Api<Pod> = Api::namespaced(writer.client.clone(), &key.namespace);
    let written = writer.attempt(Written::Pod, &key.name, api.patch_metadata(&key.name, &params, &body)).await;
    if let Err(outcome) = written {
        return outcome;
    }
    writer.metrics.delivered(since.elapsed());
    writer.state.update(|index| index.annotated(&key, &patch.uid, patch.fingerprint));
    writer.deliveries.begin(key.clone());
    writer.state.queues.acks.add_after(key, SHOWN_WITHIN);
    Outcome::Done
}

/// Changes a pod so that its kubelet looks at it again. What comes of it, the sidecar tells.
pub(crate) async fn nudge(writer: &Writer, key: &Key) {
    let body = Patch::Merge(json!({ "metadata": { "annotations": { names::NUDGED: Timestamp::now().to_string() } } }));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let api: Api<Pod> = Api::namespaced(writer.client.clone(), &key.namespace);
    if writer.attempt(Written::Nudge, &key.name, api.patch_metadata(&key.name, &params, &body)).await.is_ok() {
        tracing::debug!(namespace = key.namespace, pod = key.name, "the kubelet missed a change and was nudged");
    }
}
