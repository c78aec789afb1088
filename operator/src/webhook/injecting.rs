//! `/inject`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::core::admission::{AdmissionRequest, AdmissionResponse};

use super::{Refusal, Webhook, metrics::Outcome};
use crate::inject::{NamespaceFacts, Skip, inject, names, opted_in};

/// A pod waits for it.
const REFETCH_TIMEOUT: Duration = Duration::from_secs(1);
/// In the audit log, after the name of the webhook.
const AUDIT_KEY: &str = "injection";

/// Every pod is allowed; the question is how it looks then.
pub(super) async fn answer(webhook: &Webhook, review: &AdmissionRequest<Pod>) -> (AdmissionResponse, Outcome) {
    let response = AdmissionResponse::from(review);
    let Some(pod) = &review.object else { return (response, Outcome::Failed) };
    let namespace = review.namespace.as_deref().unwrap_or_default();
    let facts = facts(webhook, namespace, pod).await;
    let config = webhook.lookup.config(namespace, pod);
    match inject(pod, &facts, &webhook.settings, config.as_deref()) {
        Ok(injection) => {
            let outcome = if injection.fresh { Outcome::Injected } else { Outcome::Updated };
            match response.clone().with_patch(injection.patch) {
                Ok(response) => (audited(response, outcome.as_str()), outcome),
                Err(error) => {
                    tracing::error!(%error, namespace, "a patch could not be written; the pod stays as it is");
                    (response, Outcome::Failed)
                }
            }
        }
        Err(skip) => skipped(webhook, review, (namespace, pod), response, &skip),
    }
}

fn skipped(
    webhook: &Webhook,
    review: &AdmissionRequest<Pod>,
    (namespace, pod): (&str, &Pod),
    response: AdmissionResponse,
    skip: &Skip,
) -> (AdmissionResponse, Outcome) {
    let reason = skip.reason();
    webhook.metrics.skipped(reason);
    let mut response = audited(response, reason.as_str());
    if !reason.is_refusal() {
        return (response, Outcome::Skipped);
    }
    response.warnings = Some(vec![format!("sipwarden: no sidecar for this pod ({}): {skip}", reason.as_str())]);
    if !review.dry_run {
        webhook.audience.refused(&Refusal { namespace, pod, skip });
    }
    (response, Outcome::Refused)
}

/// The API server asks about pods that its selectors opted in. Where memory says otherwise, or nothing, memory may be
/// late: a label that was just set must hold for the next pod. So the API server is asked, and believed if it is silent.
async fn facts(webhook: &Webhook, namespace: &str, pod: &Pod) -> NamespaceFacts {
    let revision = &webhook.settings.revision;
    let of_pod = pod.metadata.labels.as_ref().and_then(|labels| labels.get(names::INJECT));
    match webhook.lookup.namespace(namespace) {
        Some(facts) if opted_in(pod, &facts, revision).is_ok() => facts,
        Some(facts) if of_pod.is_some_and(|value| value == names::DISABLED) => facts,
        _ => {
            let fetched = tokio::time::timeout(REFETCH_TIMEOUT, webhook.lookup.refetch(namespace)).await;
            fetched.ok().flatten().unwrap_or_else(|| NamespaceFacts::selected_for(revision))
        }
    }
}

fn audited(mut response: AdmissionResponse, outcome: &str) -> AdmissionResponse {
    response.audit_annotations.insert(AUDIT_KEY.to_owned(), outcome.to_owned());
    response
}
