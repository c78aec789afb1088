//! Policies, pods and sidecars: what alerts would tell, asked now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use sipwarden_crds::{ClusterSessionPolicy, SessionPolicy};
use sipwarden_operator::inject::{NamespaceFacts, names::REVISION, revision_of, sidecar_of};

use super::{Item, Looker, catalogue::Check, metrics};
use crate::{
    scope::PodRef,
    sidecar::{AskError, Sidecars, sorted},
    status::{self, Known, Row},
    wire::Status,
};

/// Names shown of what there may be many of.
const MOST_NAMES: usize = 5;
const LIMITS: &str = "sipwarden_limits_reached_total";
const SENT: &str = "sipwarden_refreshes_sent_total";
const NOT_REFRESHED: &str = "sipwarden_not_refreshed_total";
const FAILED: &str = "sipwarden_refresh_failures_total";

/// What a sidecar says of itself.
struct Told {
    status: Status,
    metrics: String,
}

impl Looker<'_> {
    pub(super) async fn fleet(&self) -> Vec<Item> {
        let policies = self.policies().await;
        let mut known = match status::look(self.connection, &self.args.pods).await {
            Ok(known) => known,
            Err(error) => return [policies, vec![Item::unknown(Check::Coverage, error.to_string())]].concat(),
        };
        let mut items = policies;
        items.extend(self.versions(&known).await);
        items.extend(self.revisions(&known).await);
        let (told, silent) = self.ask(&known).await;
        items.extend(judge_sidecars(&told));
        if !silent.is_empty() {
            items.push(Item::unknown(Check::Sidecars, format!("no answer from {}", some(silent.iter()))));
        }
        // Of those that do not answer only the operator knows what they obey: it is then asked of all.
        if silent.is_empty() {
            known.live = Some(told.into_iter().map(|(pod, told)| (pod, Ok(told.status))).collect());
        }
        items.extend(judge_pods(&status::summary(&known)));
        items
    }

    async fn policies(&self) -> Vec<Item> {
        let api: Api<SessionPolicy> = match &self.connection.namespace {
            Some(namespace) => Api::namespaced(self.connection.client.clone(), namespace),
            None => Api::all(self.connection.client.clone()),
        };
        match api.list(&ListParams::default()).await {
            Ok(list) => judge_policies(&list.items),
            Err(error) => vec![Item::of_error(Check::Policies, "they cannot be listed", &error)],
        }
    }

    async fn ask(&self, known: &Known) -> (Vec<(PodRef, Told)>, Vec<String>) {
        let with_sidecar = known.pods.iter().filter(|pod| sidecar_of(pod).is_some());
        let pods: Vec<PodRef> = with_sidecar.map(|pod| PodRef::of(&pod.metadata)).collect();
        let (told, silent) = sorted(self.sidecars.each(&pods, ask).await);
        (told, silent.iter().map(ToString::to_string).collect())
    }

    async fn versions(&self, known: &Known) -> Vec<Item> {
        match self.operator_pods().await {
            Ok(operators) => judge_versions(&operators, &known.pods),
            Err(error) => vec![Item::of_error(Check::Versions, "the operator's pods cannot be listed", &error)],
        }
    }

    async fn revisions(&self, known: &Known) -> Vec<Item> {
        let clusters: Api<ClusterSessionPolicy> = Api::all(self.connection.client.clone());
        match (self.operator_pods().await, &known.namespaces) {
            (Ok(operators), Some(namespaces)) => {
                let list = ListParams::default();
                // Who may not see them hears of the namespaces all the same.
                let bounds = clusters.list(&list).await.map(|list| list.items).unwrap_or_default();
                judge_revisions(&operators, namespaces, &bounds)
            }
            _ => vec![Item::unknown(Check::Revisions, "namespaces or the operator's pods cannot be read")],
        }
    }
}

async fn ask(sidecars: Sidecars, pod: PodRef) -> Result<Told, AskError> {
    let status = sidecars.get(&pod, "/status").await?;
    Ok(Told { status, metrics: sidecars.get_text(&pod, "/metrics").await? })
}

fn judge_policies(policies: &[SessionPolicy]) -> Vec<Item> {
    let mut items = Vec::new();
    for policy in policies {
        let name = format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any());
        let status = policy.status.clone().unwrap_or_default();
        let condition = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_);
        let is_told = status.observed_generation == policy.metadata.generation.unwrap_or_default();
        match (condition("Accepted"), condition("Ready")) {
            _ if !is_told => {
                items.push(Item::warn(Check::Policies, format!("{name}: the operator has not judged it yet")))
            }
            (Some(accepted), _) if accepted.status != "True" => {
                items.push(Item::fail(Check::Policies, format!("{name}: {}: {}", accepted.reason, accepted.message)));
            }
            (_, Some(ready)) if ready.status != "True" => {
                items.push(Item::warn(Check::Policies, format!("{name}: {}: {}", ready.reason, ready.message)));
            }
            _ => {}
        }
    }
    match (policies.len(), items.is_empty()) {
        (0, _) => vec![Item::warn(Check::Policies, "there are none: every sidecar observes")],
        (count, true) => vec![Item::ok(Check::Policies, format!("{count} are accepted and in force"))],
        (_, false) => items,
    }
}

fn judge_pods(rows: &[Row]) -> Vec<Item> {
    let asking = || rows.iter().filter(|row| row.wants_sidecar);
    let name = |row: &&Row| format!("{}/{}", row.namespace, row.workload);
    let bare: Vec<String> = asking().filter(|row| row.injected < row.pods).map(|row| told(&name(&row), row)).collect();
    let stale: Vec<String> = asking().filter(|row| row.stale > 0).map(|row| told(&name(&row), row)).collect();
    let pods: usize = asking().map(|row| row.pods).sum();
    let coverage = match bare.is_empty() {
        true => Item::ok(Check::Coverage, format!("all {pods} pods that asked for a sidecar have one")),
        false => Item::fail(Check::Coverage, format!("without a sidecar: {}", some(bare.iter()))),
    };
    let in_step = match stale.is_empty() {
        true => Item::ok(Check::InStep, "every sidecar obeys what it should"),
        false => Item::fail(Check::InStep, format!("not in step: {}", some(stale.iter()))),
    };
    vec![coverage, in_step]
}

fn told(name: &str, row: &Row) -> String {
    if row.notes.is_empty() { name.to_owned() } else { format!("{name}: {}", row.notes.join(", ")) }
}

fn judge_revisions(
    operators: &[Pod],
    namespaces: &BTreeMap<String, NamespaceFacts>,
    bounds: &[ClusterSessionPolicy],
) -> Vec<Item> {
    let there: BTreeSet<&str> =
        operators.iter().filter_map(|pod| pod.labels().get(REVISION)).map(String::as_str).collect();
    let namespaces = namespaces.iter().filter(|(_, facts)| facts.inject.is_some());
    let namespaces = namespaces.map(|(name, facts)| (name.clone(), facts.revision()));
    let bounds = bounds.iter().map(|bounds| {
        let revision = revision_of(bounds.labels().get(REVISION).map(String::as_str));
        (format!("ClusterSessionPolicy {}", bounds.name_any()), revision)
    });
    let lost = namespaces.chain(bounds).filter(|(_, revision)| !there.contains(revision));
    let lost: Vec<String> = lost.map(|(name, revision)| format!("{name} (revision {revision})")).collect();
    match lost.is_empty() {
        true => vec![Item::ok(Check::Revisions, "every namespace and ClusterSessionPolicy has its operator")],
        false => vec![Item::fail(Check::Revisions, format!("no operator minds {}", some(lost.iter())))],
    }
}

/// The image that the operator gives new pods is an argument of its own.
fn judge_versions(operators: &[Pod], pods: &[Pod]) -> Vec<Item> {
    let images = operators.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let arguments = images.flat_map(|container| container.args.iter().flatten());
    let current: BTreeSet<&str> = arguments.filter_map(|argument| argument.strip_prefix("--image=")).collect();
    if current.is_empty() {
        return vec![Item::unknown(Check::Versions, "it cannot be seen which image the operator injects")];
    }
    let others: Vec<String> = pods
        .iter()
        .filter(|pod| sidecar_of(pod).and_then(|it| it.image.as_deref()).is_some_and(|image| !current.contains(image)))
        .map(|pod| PodRef::of(&pod.metadata).to_string())
        .collect();
    match others.is_empty() {
        true => vec![Item::ok(Check::Versions, "every sidecar has the image that the operator injects")],
        false => {
            let text = format!("{} have another image; they get the new one when made anew", some(others.iter()));
            vec![Item::warn(Check::Versions, text)]
        }
    }
}

fn judge_sidecars(told: &[(PodRef, Told)]) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut limits, mut unrefreshed) = (Vec::new(), Vec::new());
    for (pod, Told { status, metrics }) in told {
        if let Some(error) = &status.error {
            items.push(Item::fail(Check::Sidecars, format!("{pod}: {error}")));
        }
        let reached = metrics::reached(metrics, LIMITS, "limit");
        if !reached.is_empty() {
            limits.push(format!("{pod} ({})", reached.join(", ")));
        }
        let sent = metrics::sum(metrics, SENT, &[]);
        let failed = metrics::sum(metrics, FAILED, &["by=\"Local\""]) + metrics::sum(metrics, NOT_REFRESHED, &[]);
        if failed > 0.0 && failed * 20.0 > sent {
            unrefreshed.push(format!("{pod} ({failed} of {sent})"));
        }
    }
    if items.is_empty() && !told.is_empty() {
        items.push(Item::ok(Check::Sidecars, format!("{} answer, and nothing is wrong with them", told.len())));
    }
    items.push(match limits.is_empty() {
        true => Item::ok(Check::Limits, "none was reached"),
        false => Item::warn(Check::Limits, format!("reached since their start: {}", some(limits.iter()))),
    });
    items.push(match unrefreshed.is_empty() {
        true => Item::ok(Check::Refreshes, "they do not fail"),
        false => {
            let text = format!("more than one of 20 sent for an application fails: {}", some(unrefreshed.iter()));
            Item::warn(Check::Refreshes, text)
        }
    });
    items
}

/// The first few, and how many more.
fn some(names: impl ExactSizeIterator<Item = impl AsRef<str>>) -> String {
    let count = names.len();
    let mut text = names.take(MOST_NAMES).map(|name| name.as_ref().to_owned()).collect::<Vec<_>>().join("; ");
    if count > MOST_NAMES {
        text.push_str(&format!("; and {} more", count - MOST_NAMES));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::check::Level;

    fn levels(items: &[Item]) -> Vec<(Check, Level)> {
        items.iter().map(|item| (item.check, item.level)).collect()
    }

    fn policy(conditions: Value, observed: i64) -> SessionPolicy {
        let value = json!({
            "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy",
            "metadata": { "name": "carrier", "namespace": "voice", "generation": 2 }, "spec": {},
            "status": { "observedGeneration": observed, "conditions": conditions },
        });
        serde_json::from_value(value).unwrap()
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({ "type": type_, "status": status, "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" })
    }

    #[test]
    fn policies_are_as_their_conditions_say() {
        let judged = |conditions, observed| levels(&judge_policies(&[policy(conditions, observed)]));
        let both = |accepted, ready| json!([condition("Accepted", accepted), condition("Ready", ready)]);
        assert_eq!(judged(both("True", "True"), 2), [(Check::Policies, Level::Ok)]);
        assert_eq!(judged(both("False", "False"), 2), [(Check::Policies, Level::Fail)]);
        assert_eq!(judged(both("True", "False"), 2), [(Check::Policies, Level::Warn)]);
        assert_eq!(judged(both("True", "True"), 1), [(Check::Policies, Level::Warn)], "it was changed since");
        assert_eq!(levels(&judge_policies(&[])), [(Check::Policies, Level::Warn)]);
    }

    #[test]
    fn pods_that_asked_in_vain_or_obey_something_else_fail() {
        let row = |injected, stale, wants_sidecar| Row {
            namespace: "voice".to_owned(),
            workload: "deployment/pbx".to_owned(),
            pods: 2,
            injected,
            stale,
            wants_sidecar,
            notes: vec!["because".to_owned()],
            ..Row::default()
        };
        let judged = |row| levels(&judge_pods(&[row])).iter().map(|(_, level)| *level).collect::<Vec<_>>();
        assert_eq!(judged(row(2, 0, true)), [Level::Ok, Level::Ok]);
        assert_eq!(judged(row(1, 0, true)), [Level::Fail, Level::Ok]);
        assert_eq!(judged(row(2, 1, true)), [Level::Ok, Level::Fail]);
        assert_eq!(judged(row(0, 0, false)), [Level::Ok, Level::Ok], "nobody asked");
    }

    #[test]
    fn what_sidecars_count_is_judged() {
        let told = |error: Option<&str>, metrics: &str| {
            let pod = PodRef { namespace: "voice".to_owned(), name: "pbx-0".to_owned() };
            let status = Status { error: error.map(str::to_owned), ..Status::default() };
            levels(&judge_sidecars(&[(pod, Told { status, metrics: metrics.to_owned() })]))
        };
        let good = [(Check::Sidecars, Level::Ok), (Check::Limits, Level::Ok), (Check::Refreshes, Level::Ok)];
        assert_eq!(told(None, ""), good);
        assert_eq!(told(Some("bad file"), "")[0], (Check::Sidecars, Level::Fail));
        assert_eq!(told(None, "sipwarden_limits_reached_total{limit=\"Calls\"} 3\n")[1], (Check::Limits, Level::Warn));
        let refreshes = |failed: u32| {
            told(None, &format!("{SENT}{{method=\"INVITE\"}} 100\n{FAILED}{{by=\"Local\",status=\"408\"}} {failed}\n"))
                [2]
            .1
        };
        assert_eq!((refreshes(5), refreshes(6)), (Level::Ok, Level::Warn));
    }

    #[test]
    fn what_belongs_to_a_revision_without_operator_is_named() {
        let operator: Pod = serde_json::from_value(json!({ "metadata": { "labels": { REVISION: "next" } } })).unwrap();
        let judged = |revision: Option<&str>| {
            let facts = NamespaceFacts { inject: Some("enabled".to_owned()), revision: revision.map(str::to_owned) };
            let mut bounds = ClusterSessionPolicy::new("floor", Default::default());
            bounds.labels_mut().extend(revision.map(|revision| (REVISION.to_owned(), revision.to_owned())));
            let namespaces = [("voice".to_owned(), facts)].into();
            judge_revisions(std::slice::from_ref(&operator), &namespaces, &[bounds]).remove(0)
        };
        assert_eq!(judged(Some("next")).level, Level::Ok);
        let lost = judged(None);
        assert_eq!(lost.level, Level::Fail);
        let text = "no operator minds voice (revision default); ClusterSessionPolicy floor (revision default)";
        assert_eq!(lost.text, text);
    }

    #[test]
    fn another_image_than_the_operators_is_told() {
        let operator: Pod = serde_json::from_value(json!({
            "metadata": {}, "spec": { "containers": [{ "name": "operator", "args": ["run", "--image=sipwarden:2"] }] },
        }))
        .unwrap();
        let pod = |image: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "pbx-0", "namespace": "voice", "annotations": { "sipwarden.dev/injected": "default" } },
                "spec": { "containers": [], "initContainers": [{ "name": "sipwarden", "image": image }] },
            }))
            .unwrap()
        };
        let level = |image| judge_versions(std::slice::from_ref(&operator), &[pod(image)])[0].level;
        assert_eq!((level("sipwarden:2"), level("sipwarden:1")), (Level::Ok, Level::Warn));
        assert_eq!(judge_versions(&[], &[])[0].level, Level::Unknown);
    }

    #[test]
    fn of_many_names_a_few_are_told() {
        let names: Vec<String> = (0..8).map(|index| index.to_string()).collect();
        assert_eq!(some(names.iter()), "0; 1; 2; 3; 4; and 3 more");
    }
}
