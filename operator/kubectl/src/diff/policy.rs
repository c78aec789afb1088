//! From a file to the config that would be in force, and to the pods it would be in force for.

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, ResourceExt,
    api::ListParams,
    core::{Selector, SelectorExt},
};
use sipwarden_crds::{
    ClusterSessionPolicy, SessionPolicy, SidecarConfig, bound, choose,
    file::{Loaded, load},
};
use sipwarden_operator::inject::sidecar_of;

use crate::{
    cli::DiffArgs,
    connection::Connection,
    outcome::Failure,
    scope::{self, PodRef},
};

/// A config and those who would obey it.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) namespace: String,
    pub(super) config: SidecarConfig,
    pub(super) pods: Vec<PodRef>,
    /// What a person should know of the comparison.
    pub(super) notes: Vec<String>,
}

impl Proposal {
    pub(super) async fn read(connection: &Connection, args: &DiffArgs) -> Result<Self, Failure> {
        let loaded = read(args)?;
        let namespace = match &loaded {
            Loaded::Policy(policy, _) => policy.metadata.namespace.clone(),
            Loaded::Config(_) => None,
        };
        let namespace = namespace.or_else(|| connection.namespace.clone());
        let namespace = namespace.ok_or_else(|| {
            Failure::Usage("a policy is in force in one namespace: name it in the file or by --namespace".to_owned())
        })?;
        let connection = Connection { client: connection.client.clone(), namespace: Some(namespace.clone()) };
        let pods = scope::pods(&connection, &args.pods).await?;
        let pods: Vec<Pod> = pods.into_iter().filter(|pod| sidecar_of(pod).is_some()).collect();
        let mut notes = Vec::new();
        let (config, pods) = match loaded {
            // A config says nothing of whom it is for: whoever is named obeys it.
            Loaded::Config(config) => (config, pods.iter().map(|pod| PodRef::of(&pod.metadata)).collect()),
            Loaded::Policy(policy, config) => {
                let rivals = rivals(&connection, &namespace, &mut notes).await;
                let pods = obeying(*policy, rivals, &pods, &mut notes);
                (within_bounds(&connection, &namespace, config, &mut notes).await, pods)
            }
        };
        if pods.is_empty() {
            let more = notes.iter().map(|note| format!("; {note}")).collect::<String>();
            let text = format!("policy {} would be in force for no pod in namespace {namespace}{more}", config.policy);
            return Err(Failure::Nothing(text));
        }
        Ok(Self { namespace, config, pods, notes })
    }
}

fn read(args: &DiffArgs) -> Result<Loaded, Failure> {
    let file = &args.file;
    let text =
        if file.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    load(&text.map_err(Failure::file(file))?).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", file.display())).collect();
        Failure::Usage(lines.join("\n"))
    })
}

/// The policies of the namespace that may be in force before this one.
async fn rivals(connection: &Connection, namespace: &str, notes: &mut Vec<String>) -> Vec<SessionPolicy> {
    let api: Api<SessionPolicy> = Api::namespaced(connection.client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(_) => {
            notes.push("other policies cannot be listed; it is taken to be the one in force".to_owned());
            Vec::new()
        }
    }
}

/// The pods for which the policy would be chosen.
fn obeying(
    mut policy: SessionPolicy,
    mut rivals: Vec<SessionPolicy>,
    pods: &[Pod],
    notes: &mut Vec<String>,
) -> Vec<PodRef> {
    let name = policy.name_any();
    // A change makes no policy younger.
    if let Some(place) = rivals.iter().position(|rival| rival.name_any() == name) {
        policy.metadata.creation_timestamp = rivals.swap_remove(place).metadata.creation_timestamp;
    }
    let judged = |policy: SessionPolicy| Some((selector(policy.spec.pod_selector.as_ref())?, policy));
    let all: Vec<(Selector, SessionPolicy)> = rivals.into_iter().chain([policy]).filter_map(judged).collect();
    let (mut obeying, mut lost) = (Vec::new(), 0);
    for pod in pods {
        let selecting = all.iter().filter(|(selector, _)| selector.matches(pod.labels()));
        let selecting: Vec<&SessionPolicy> = selecting.map(|(_, policy)| policy).collect();
        if !selecting.iter().any(|policy| policy.name_any() == name) {
            continue;
        }
        match choose(selecting) {
            Some(winner) if winner.name_any() == name => obeying.push(PodRef::of(&pod.metadata)),
            _ => lost += 1,
        }
    }
    if lost > 0 {
        notes.push(format!(
            "{lost} pods it selects would obey another policy, of higher priority or older; they are left out"
        ));
    }
    obeying
}

/// No selector selects all, one that cannot be read none.
fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.cloned().map_or_else(|| Some(Selector::default()), |selector| Selector::try_from(selector).ok())
}

/// As the operator holds configs to what the owner of the cluster allows.
async fn within_bounds(
    connection: &Connection,
    namespace: &str,
    config: SidecarConfig,
    notes: &mut Vec<String>,
) -> SidecarConfig {
    let bounds: Api<ClusterSessionPolicy> = Api::all(connection.client.clone());
    let namespaces: Api<Namespace> = Api::all(connection.client.clone());
    let all = ListParams::default();
    let (bounds, labels) = tokio::join!(bounds.list(&all), namespaces.get_metadata(namespace));
    let Ok(bounds) = bounds else {
        notes.push("ClusterSessionPolicies cannot be listed; what they bound is not known".to_owned());
        return config;
    };
    let mut bounds = bounds.items;
    match labels {
        Ok(namespace) => bounds.retain(|bound| {
            selector(bound.spec.namespace_selector.as_ref()).is_some_and(|it| it.matches(namespace.labels()))
        }),
        Err(_) if bounds.iter().any(|bound| bound.spec.namespace_selector.is_some()) => {
            notes.push("the namespace cannot be read; only ClusterSessionPolicies of all namespaces count".to_owned());
            bounds.retain(|bound| bound.spec.namespace_selector.is_none());
        }
        Err(_) => {}
    }
    let (config, clamps) = bound(&config, &bounds);
    for clamp in clamps {
        notes.push(format!(
            "{} {} is held to {} by ClusterSessionPolicy {}",
            clamp.field, clamp.asked, clamp.given, clamp.by
        ));
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, priority: i32, app: &str) -> SessionPolicy {
        let value = json!({
            "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy", "metadata": { "name": name },
            "spec": { "priority": priority, "podSelector": { "matchLabels": { "app": app } } },
        });
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, app: &str) -> Pod {
        let meta = json!({ "name": name, "namespace": "voice", "labels": { "app": app } });
        serde_json::from_value(json!({ "metadata": meta })).unwrap()
    }

    fn names(pods: Vec<PodRef>) -> Vec<String> {
        pods.into_iter().map(|pod| pod.name).collect()
    }

    #[test]
    fn it_is_asked_of_the_pods_for_which_it_would_be_chosen() {
        let pods = [pod("a", "pbx"), pod("b", "sbc"), pod("c", "pbx")];
        let mut notes = Vec::new();
        let old = policy("carrier", 0, "sbc");
        let chosen = obeying(policy("carrier", 1, "pbx"), vec![old, policy("other", 0, "pbx")], &pods, &mut notes);
        assert_eq!(names(chosen), ["a", "c"], "its new selector counts, and its priority");
        assert!(notes.is_empty());
        let chosen = obeying(policy("carrier", 0, "pbx"), vec![policy("other", 7, "pbx")], &pods, &mut notes);
        assert!(chosen.is_empty());
        assert!(notes[0].starts_with("2 pods it selects would obey another policy"), "{notes:?}");
    }
}
