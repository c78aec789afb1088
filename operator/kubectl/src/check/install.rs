//! The operator and what the API server knows of it.

use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingAdmissionPolicy, MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
        },
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;
use x509_parser::pem::Pem;

use super::{Item, Looker, catalogue::Check, metrics::sum};
use crate::{output::duration, scope::PodRef, sidecar::sorted};

const OPERATOR: &str = "app.kubernetes.io/name=sipwarden,app.kubernetes.io/component=operator";
const OURS: &str = "app.kubernetes.io/name=sipwarden";
/// Where the operator serves its metrics.
const OPERATOR_HTTP: u16 = 8080;
/// The operator renews long before.
const CERTIFICATE_WARN_S: f64 = 7.0 * 86_400.0;
/// Less than what the API server's own time-outs allow for.
const WATCH_WARN_S: f64 = 120.0;

impl Looker<'_> {
    pub(super) async fn install(&self) -> Vec<Item> {
        let (operator, injection, validation) = tokio::join!(self.operator(), self.injection(), self.validation());
        [operator, injection, validation].concat()
    }

    async fn operator(&self) -> Vec<Item> {
        let pods = match self.operator_pods().await {
            Ok(pods) => pods,
            Err(error) => return vec![Item::of_error(Check::Operator, "its pods cannot be listed", &error)],
        };
        let (ready, others): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| is_ready(pod));
        let names = |pods: &[&Pod]| pods.iter().map(|pod| PodRef::of(&pod.metadata).to_string()).collect::<Vec<_>>();
        let mut items = vec![match (ready.len(), others.len()) {
            (0, 0) => Item::fail(Check::Operator, "it has no pods; install charts/sipwarden"),
            (0, _) => Item::fail(Check::Operator, format!("none of its pods is Ready: {}", names(&others).join(", "))),
            (ready, 0) => Item::ok(Check::Operator, format!("{ready} of its pods are Ready")),
            (ready, _) => {
                Item::warn(Check::Operator, format!("{ready} of its pods are Ready, not {}", names(&others).join(", ")))
            }
        }];
        let ready: Vec<PodRef> = ready.iter().map(|pod| PodRef::of(&pod.metadata)).collect();
        items.extend(self.operator_metrics(&ready).await);
        items
    }

    pub(super) async fn operator_pods(&self) -> Result<Vec<Pod>, kube::Error> {
        let api: Api<Pod> = Api::all(self.connection.client.clone());
        Ok(api.list(&ListParams::default().labels(OPERATOR)).await?.items)
    }

    /// What only the operator knows: the certificate it shows, and whether it still hears of changes.
    async fn operator_metrics(&self, pods: &[PodRef]) -> Vec<Item> {
        let operators = self.sidecars.at_port(OPERATOR_HTTP);
        let answers =
            operators.each(pods, |operator, pod| async move { operator.get_text(&pod, "/metrics").await }).await;
        let (came, silent) = sorted(answers);
        let mut items: Vec<Item> = silent
            .iter()
            .map(|pod| Item::unknown(Check::Certificates, format!("the operator does not tell of its own: {pod}")))
            .collect();
        let leading: f64 = came.iter().map(|(_, text)| sum(text, "sipwarden_operator_leading", &[])).sum();
        if silent.is_empty() && !came.is_empty() && leading == 0.0 {
            items.push(Item::warn(Check::Operator, "none of its replicas leads: nothing is written at the moment"));
        }
        for (pod, text) in &came {
            items.extend(judge_operator(pod, text, Timestamp::now()));
        }
        items
    }

    async fn injection(&self) -> Vec<Item> {
        let webhooks = self.ours::<MutatingWebhookConfiguration>().await;
        let policies = self.ours::<MutatingAdmissionPolicy>().await;
        let (webhooks, policies) = match (webhooks, policies) {
            (Ok(webhooks), Ok(policies)) => (webhooks, policies),
            // Kubernetes before 1.36 has no such policies.
            (Ok(webhooks), Err(kube::Error::Api(status))) if status.code == 404 => (webhooks, Vec::new()),
            (Err(error), _) | (_, Err(error)) => {
                return vec![Item::of_error(Check::Injection, "it cannot be seen how pods are injected", &error)];
            }
        };
        if webhooks.is_empty() && policies.is_empty() {
            let text = "neither a webhook nor a policy puts sidecars into pods; install charts/sipwarden";
            return vec![Item::fail(Check::Injection, text)];
        }
        let mut items = Vec::new();
        for policy in policies {
            items.push(Item::ok(Check::Injection, format!("policy {}: works without the operator", policy.name_any())));
        }
        for configuration in webhooks {
            let name = configuration.name_any();
            let hooks = configuration.webhooks.iter().flatten();
            let trusts: Vec<&WebhookClientConfig> = hooks.clone().map(|hook| &hook.client_config).collect();
            let ignores = hooks.clone().any(|hook| hook.failure_policy.as_deref() == Some("Ignore"));
            let failing = if ignores { "a pod starts without sidecar" } else { "a pod is refused" };
            items.push(Item::ok(Check::Injection, format!("webhook {name}: when it fails, {failing}")));
            items.push(judge_trust(&name, &trusts, Timestamp::now()));
        }
        items
    }

    async fn validation(&self) -> Vec<Item> {
        let configurations = match self.ours::<ValidatingWebhookConfiguration>().await {
            Ok(configurations) => configurations,
            Err(error) => return vec![Item::of_error(Check::Validation, "its webhook cannot be seen", &error)],
        };
        let mut items = Vec::new();
        if configurations.is_empty() {
            let text = "no webhook judges policies: what is wrong with one is told in its status only";
            items.push(Item::warn(Check::Validation, text));
        }
        for configuration in configurations {
            let name = configuration.name_any();
            let hooks = configuration.webhooks.iter().flatten();
            let trusts: Vec<&WebhookClientConfig> = hooks.map(|hook| &hook.client_config).collect();
            items.push(Item::ok(Check::Validation, format!("webhook {name} judges policies")));
            items.push(judge_trust(&name, &trusts, Timestamp::now()));
        }
        items
    }

    async fn ours<K>(&self) -> Result<Vec<K>, kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.connection.client.clone());
        Ok(api.list(&ListParams::default().labels(OURS)).await?.items)
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn judge_operator(pod: &PodRef, text: &str, now: Timestamp) -> Vec<Item> {
    let mut items = Vec::new();
    let leaf_s = sum(text, "sipwarden_operator_webhook_leaf_expiry_timestamp_seconds", &[]);
    let left_s = leaf_s - now.as_second() as f64;
    items.push(match left_s {
        _ if leaf_s == 0.0 => Item::fail(Check::Certificates, format!("{pod} has no certificate yet")),
        ..=0.0 => Item::fail(Check::Certificates, format!("that of {pod} expired {} ago", duration(-left_s))),
        _ => Item::ok(Check::Certificates, format!("that of {pod} is good for {}", duration(left_s))),
    });
    let watch_s = sum(text, "sipwarden_operator_watch_age_seconds", &[]);
    if watch_s > WATCH_WARN_S {
        let text = format!("{pod} has heard nothing of the API server for {}", duration(watch_s));
        items.push(Item::warn(Check::Operator, text));
    }
    items
}

/// The CAs by which the API server trusts a webhook: none means that it calls nobody.
fn judge_trust(name: &str, trusts: &[&WebhookClientConfig], now: Timestamp) -> Item {
    let mut last = f64::INFINITY;
    for trust in trusts {
        let Some(bundle) = &trust.ca_bundle else {
            let text = format!("webhook {name} trusts nobody yet: its caBundle is empty, and the leader writes it");
            return Item::fail(Check::Certificates, text);
        };
        // While a CA is replaced there are two; the one that lasts longer counts.
        let ends = Pem::iter_from_buffer(&bundle.0).filter_map(|pem| {
            let pem = pem.ok()?;
            Some(pem.parse_x509().ok()?.validity().not_after.timestamp() as f64)
        });
        last = last.min(ends.fold(f64::NEG_INFINITY, f64::max));
    }
    let left_s = last - now.as_second() as f64;
    if left_s == f64::NEG_INFINITY {
        Item::fail(Check::Certificates, format!("what webhook {name} trusts is no certificate"))
    } else if left_s <= 0.0 {
        Item::fail(Check::Certificates, format!("the CA of webhook {name} expired {} ago", duration(-left_s)))
    } else if left_s < CERTIFICATE_WARN_S {
        Item::warn(Check::Certificates, format!("the CA of webhook {name} is good for {} only", duration(left_s)))
    } else {
        Item::ok(Check::Certificates, format!("the CA of webhook {name} is good for {}", duration(left_s)))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::check::Level;

    /// 2030-01-01T00:00:00Z.
    const ENDS_S: i64 = 1_893_456_000;

    fn ca() -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn trust(bundle: Option<&str>) -> WebhookClientConfig {
        WebhookClientConfig { ca_bundle: bundle.map(|pem| ByteString(pem.into())), ..WebhookClientConfig::default() }
    }

    #[test]
    fn a_webhook_is_as_good_as_what_it_trusts() {
        let ca = ca();
        let level = |bundle: Option<&str>, left_s: i64| {
            let now = Timestamp::from_second(ENDS_S - left_s).unwrap();
            judge_trust("injector", &[&trust(Some(&ca)), &trust(bundle)], now).level
        };
        assert_eq!(level(Some(&ca), 30 * 86_400), Level::Ok);
        assert_eq!(level(Some(&ca), 86_400), Level::Warn);
        assert_eq!(level(Some(&ca), -1), Level::Fail);
        assert_eq!(level(None, 30 * 86_400), Level::Fail);
        assert_eq!(level(Some("no PEM"), 30 * 86_400), Level::Fail);
    }

    #[test]
    fn the_operators_own_metrics_tell_of_its_certificate_and_its_watches() {
        let pod = PodRef { namespace: "sipwarden-system".to_owned(), name: "operator-0".to_owned() };
        let text = |expiry: i64, age: i64| {
            format!(
                "sipwarden_operator_webhook_leaf_expiry_timestamp_seconds {expiry}\nsipwarden_operator_watch_age_seconds {age}\n"
            )
        };
        let levels = |expiry, age| -> Vec<Level> {
            let now = Timestamp::from_second(1000).unwrap();
            judge_operator(&pod, &text(expiry, age), now).iter().map(|item| item.level).collect()
        };
        assert_eq!(levels(5000, 10), [Level::Ok]);
        assert_eq!(levels(900, 10), [Level::Fail]);
        assert_eq!(levels(5000, 300), [Level::Ok, Level::Warn]);
        assert_eq!(levels(0, 10), [Level::Fail], "none yet");
    }
}
