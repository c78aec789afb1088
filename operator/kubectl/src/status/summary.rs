//! From what is known of the cluster to a row for each workload, without asking anybody.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use sipwarden_crds::{CONFIG_ANNOTATION, SidecarConfigObject, from_annotation};
use sipwarden_operator::{
    index::WorkloadRef,
    inject::{NamespaceFacts, Settings, Skip, inject, names, sidecar_of},
};

use super::Known;
use crate::scope::PodRef;

/// What is told of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Where it is.
    pub namespace: String,
    /// Such as `deployment/pbx`.
    pub workload: String,
    /// The policy in force; None if none selects it, and its sidecars observe.
    pub policy: Option<String>,
    /// Enforce or Observe.
    pub mode: Option<String>,
    /// Of the config its sidecars shall obey.
    pub hash: Option<String>,
    /// Pods that have not ended.
    pub pods: usize,
    /// Those with a sidecar.
    pub injected: usize,
    /// Those whose sidecar obeys this config.
    pub in_step: usize,
    /// Those whose sidecar does not, or does not say.
    pub stale: usize,
    /// Calls that go on; None if nobody knows.
    pub sessions: Option<u64>,
    /// Whether every pod should have a sidecar.
    pub wants_sidecar: bool,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A workload's pods.
#[derive(Default)]
struct Pods<'a> {
    injected: Vec<&'a Pod>,
    /// Without a sidecar, and why, in words.
    bare: BTreeMap<String, usize>,
    wants_sidecar: bool,
}

/// A row for each workload that has a sidecar, asks for one, or takes SIP and does not ask.
pub fn summary(known: &Known) -> Vec<Row> {
    let mut workloads: BTreeMap<(String, String), Pods> = BTreeMap::new();
    for pod in &known.pods {
        let PodRef { namespace, .. } = PodRef::of(&pod.metadata);
        let key = (namespace, WorkloadRef::of(&pod.metadata).config_name);
        if sidecar_of(pod).is_some() {
            let pods = workloads.entry(key).or_default();
            pods.injected.push(pod);
            pods.wants_sidecar = true;
        } else if let Some((why, asked)) = why_bare(pod, known) {
            let pods = workloads.entry(key).or_default();
            *pods.bare.entry(why).or_default() += 1;
            pods.wants_sidecar |= asked;
        }
    }
    workloads.iter().map(|(key, pods)| row(key, pods, known)).collect()
}

/// Why a pod has no sidecar, and whether it asked for one; None where nobody would expect one.
fn why_bare(pod: &Pod, known: &Known) -> Option<(String, bool)> {
    let unknown = NamespaceFacts::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let facts = known.namespaces.as_ref().and_then(|all| all.get(namespace)).unwrap_or(&unknown);
    // The revision is the namespace's own: whether there is an operator of it is a question for `check`.
    let settings = Settings::new(facts.revision(), "");
    match inject(pod, facts, &settings, None) {
        Ok(_) => {
            let why = "it was made before it was opted in, or while injection failed; make it anew, as by \
                       `kubectl rollout restart`";
            Some((why.to_owned(), true))
        }
        Err(skip) if skip.reason().is_refusal() => Some((skip.to_string(), true)),
        Err(skip @ (Skip::NotOptedIn | Skip::Disabled)) if takes_sip(pod) => Some((skip.to_string(), false)),
        Err(_) => None,
    }
}

/// Whether a port of the pod has the name that sidecars take over.
fn takes_sip(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.any(|port| port.name.as_deref() == Some(names::DEFAULT_PORT_NAME))
}

fn row((namespace, config_name): &(String, String), pods: &Pods, known: &Known) -> Row {
    let config = known.configs.get(&(namespace.clone(), config_name.clone()));
    let mut row = Row {
        namespace: namespace.clone(),
        workload: config_name.replacen('-', "/", 1),
        policy: config.map(|config| config.spec.policy.clone()),
        mode: config.map(|config| format!("{:?}", config.spec.mode)),
        hash: config.map(|config| config.spec.hash.clone()),
        pods: pods.injected.len() + pods.bare.values().sum::<usize>(),
        injected: pods.injected.len(),
        wants_sidecar: pods.wants_sidecar,
        ..Row::default()
    };
    if config.is_none() && !pods.injected.is_empty() {
        row.notes.push("no policy selects it; its sidecars observe".to_owned());
    }
    match &known.live {
        Some(_) => count_live(&mut row, pods, known),
        None => count_told(&mut row, pods, config),
    }
    row.stale = row.injected - row.in_step;
    for (why, count) in &pods.bare {
        let pods = if *count == 1 { "pod" } else { "pods" };
        row.notes.push(format!("{count} {pods} without a sidecar: {why}"));
    }
    row
}

/// As the operator has it in the SidecarConfig's status.
fn count_told(row: &mut Row, pods: &Pods, config: Option<&SidecarConfigObject>) {
    let Some(config) = config else {
        row.in_step = row.injected;
        return;
    };
    let status = config.status.clone().unwrap_or_default();
    let is_current = status.observed_hash == config.spec.hash;
    let told = if is_current { usize::try_from(status.in_step).unwrap_or_default() } else { 0 };
    row.in_step = told.min(row.injected);
    row.sessions = u64::try_from(status.sessions).ok();
    for pod in &pods.injected {
        let text = pod.metadata.annotations.as_ref().and_then(|all| all.get(CONFIG_ANNOTATION));
        let hash = text.and_then(|text| from_annotation(text).ok()).map(|config| config.hash);
        if hash.as_ref() != Some(&config.spec.hash) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let has = hash.map_or_else(|| "no config".to_owned(), |hash| format!("config {hash}"));
            row.notes.push(format!("pod {name} was given {has}, not {}", config.spec.hash));
        }
    }
}

/// As the sidecars say themselves.
fn count_live(row: &mut Row, pods: &Pods, known: &Known) {
    let mut sessions = 0;
    for pod in &pods.injected {
        let pod = PodRef::of(&pod.metadata);
        match known.live.as_ref().and_then(|live| live.get(&pod)) {
            Some(Ok(status)) => {
                sessions += status.sessions;
                let obeys = row.hash.as_ref().is_none_or(|hash| *hash == status.hash);
                row.in_step += usize::from(obeys && status.error.is_none());
                if !obeys {
                    let text =
                        format!("{} obeys {} ({}), from {}", pod.name, status.hash, status.policy, status.source);
                    row.notes.push(text);
                }
                if let Some(error) = &status.error {
                    row.notes.push(format!("{}: {error}", pod.name));
                }
            }
            Some(Err(error)) => row.notes.push(format!("{}: {error}", pod.name)),
            None => {}
        }
    }
    row.sessions = Some(sessions);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sipwarden_crds::{SessionPolicy, SessionPolicySpec, SidecarConfigStatus, compile, to_annotation};

    use super::*;
    use crate::wire::Status;

    fn pod(name: &str, more: Value) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": name, "namespace": "voice", "uid": name,
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pbx", "uid": "u", "controller": true }],
                "annotations": {},
            },
            "spec": { "containers": [{ "name": "app", "ports": [{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }] }] },
        });
        json_patch::merge(&mut pod, &more);
        serde_json::from_value(pod).unwrap()
    }

    fn injected(name: &str, config: &str) -> Pod {
        let annotations = json!({ names::INJECTED: "default", CONFIG_ANNOTATION: config });
        let init = json!([{ "name": names::CONTAINER, "restartPolicy": "Always" }]);
        pod(name, json!({ "metadata": { "annotations": annotations }, "spec": { "initContainers": init } }))
    }

    fn config() -> SidecarConfigObject {
        let spec = compile(&SessionPolicy::new("carrier", SessionPolicySpec::default())).unwrap();
        let hash = spec.hash.clone();
        let mut config = SidecarConfigObject::new("statefulset-pbx", spec);
        config.status =
            Some(SidecarConfigStatus { observed_hash: hash, pods: 2, in_step: 1, sessions: 7, ..Default::default() });
        config
    }

    fn known(pods: Vec<Pod>, namespace: &[(&str, &str)]) -> Known {
        let labels: BTreeMap<String, String> =
            namespace.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let facts = NamespaceFacts::from_labels(&labels);
        let configs = [(("voice".to_owned(), "statefulset-pbx".to_owned()), config())];
        Known { pods, namespaces: Some([("voice".to_owned(), facts)].into()), configs: configs.into(), live: None }
    }

    const OPTED_IN: [(&str, &str); 1] = [(names::INJECT, names::ENABLED)];

    #[test]
    fn the_operators_count_is_told_and_a_pod_that_was_given_another_config_is_named() {
        let good = to_annotation("statefulset-pbx", &config().spec);
        let rows = summary(&known(vec![injected("pbx-0", &good), injected("pbx-1", "")], &OPTED_IN));
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.workload.as_str(), row.policy.as_deref()), ("statefulset/pbx", Some("carrier")));
        assert_eq!((row.pods, row.injected, row.in_step, row.stale, row.sessions), (2, 2, 1, 1, Some(7)));
        assert_eq!(row.notes, [format!("pod pbx-1 was given no config, not {}", config().spec.hash)]);
    }

    #[test]
    fn sidecars_that_were_asked_count_as_they_say() {
        let good = to_annotation("statefulset-pbx", &config().spec);
        let pods = ["pbx-0", "pbx-1", "pbx-2"].map(|name| injected(name, &good)).to_vec();
        let status = |hash: &str| {
            Ok(Status {
                hash: hash.to_owned(),
                policy: "old".to_owned(),
                source: "LastGood".to_owned(),
                sessions: 2,
                ..Status::default()
            })
        };
        let answers = [status(&config().spec.hash), status("0123"), Err("no answer within 2 s".to_owned())];
        let live = pods.iter().map(|pod| PodRef::of(&pod.metadata)).zip(answers).collect();
        let rows = summary(&Known { live: Some(live), ..known(pods, &OPTED_IN) });
        let row = &rows[0];
        assert_eq!((row.injected, row.in_step, row.stale, row.sessions), (3, 1, 2, Some(4)));
        assert_eq!(row.notes, ["pbx-1 obeys 0123 (old), from LastGood", "pbx-2: no answer within 2 s"]);
    }

    #[test]
    fn why_a_pod_has_no_sidecar_is_what_the_injector_says() {
        let host = json!({ "spec": { "hostNetwork": true } });
        let rows = summary(&known(vec![pod("pbx-0", host), pod("pbx-1", json!({}))], &OPTED_IN));
        let row = &rows[0];
        assert_eq!((row.pods, row.injected, row.wants_sidecar), (2, 0, true));
        assert!(row.notes.iter().any(|note| note.contains("1 pod without a sidecar: it has hostNetwork")), "{row:?}");
        assert!(row.notes.iter().any(|note| note.contains("made before it was opted in")), "{row:?}");
    }

    #[test]
    fn who_takes_sip_and_does_not_ask_is_told_how_to() {
        let rows = summary(&known(vec![pod("pbx-0", json!({}))], &[]));
        assert!(rows[0].notes[0].contains("neither the pod nor its namespace has the label"), "{rows:?}");
        assert!(!rows[0].wants_sidecar);
        let web = json!({ "spec": { "containers": [{ "name": "web" }] } });
        assert_eq!(summary(&known(vec![pod("web-0", web)], &[])), [], "nobody expects one there");
    }

    #[test]
    fn without_a_policy_sidecars_observe_and_are_in_step_with_nothing() {
        let mut known = known(vec![injected("pbx-0", "")], &OPTED_IN);
        known.configs.clear();
        let rows = summary(&known);
        assert_eq!((rows[0].in_step, rows[0].stale, &rows[0].policy), (1, 0, &None));
        assert_eq!(rows[0].notes, ["no policy selects it; its sidecars observe"]);
    }
}
