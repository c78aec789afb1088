//! What the webhook asks and tells: answered from the index, told as Events.

use std::{future::Future, pin::Pin, sync::Arc};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client};

use crate::{
    index::{NamespaceState, Owner},
    inject::NamespaceFacts,
    state::State,
    webhook::{Audience, Lookup, Refusal},
    write::{EventSink, Note},
};

/// The webhook's view of the rest of the process.
pub struct Desk {
    /// To the API server.
    pub client: Client,
    /// Knows namespaces and configs.
    pub state: Arc<State>,
    /// Where Events go.
    pub events: EventSink,
}

impl Lookup for Desk {
    fn namespace(&self, name: &str) -> Option<NamespaceFacts> {
        self.state.look(|index| index.namespace_facts(name))
    }

    fn refetch<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Option<NamespaceFacts>> + Send + 'a>> {
        Box::pin(async move {
            let api: Api<Namespace> = Api::all(self.client.clone());
            let fetched =
                api.get_metadata(name).await.inspect_err(|error| tracing::info!(%error, name, "no namespace"));
            fetched.ok().map(|namespace| NamespaceState::of(&namespace.metadata).facts())
        })
    }

    fn config(&self, namespace: &str, pod: &Pod) -> Option<String> {
        // Half of what there is may choose another policy.
        if !self.state.pending().is_empty() {
            return None;
        }
        self.state.look(|index| index.annotation_for(namespace, &pod.metadata))
    }
}

impl Audience for Desk {
    fn refused(&self, refusal: &Refusal) {
        let Refusal { namespace, pod, skip } = *refusal;
        let workload = self.state.look(|index| index.owner_of(namespace, &pod.metadata));
        let Some(about) = workload.or_else(|| controller(pod)) else { return };
        self.events.send(Note::refused(namespace, about, skip));
    }
}

/// Where the workload behind it is not known yet, the ReplicaSet is better than nobody. A pod alone has no uid yet.
fn controller(pod: &Pod) -> Option<Owner> {
    let controller = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner) => Some(Owner {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }),
        None => Some(Owner::of("v1", "Pod", &pod.metadata)).filter(|owner| !owner.name.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use sipwarden_crds::{SessionPolicy, SessionPolicySpec};

    use super::*;
    use crate::{
        index::{Key, Labels},
        inject::names,
        metrics::Metrics,
        state::Watched,
        write::spawn_events,
    };

    /// Never asks the API server.
    fn desk() -> Desk {
        // Whichever test comes first installs it.
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let events = spawn_events(client.clone(), "replica".to_owned(), Metrics::new().unwrap());
        Desk { client, state: Arc::new(State::new("default")), events }
    }

    #[tokio::test]
    async fn a_pod_is_given_a_config_only_when_every_policy_is_known() {
        let desk = desk();
        let mut policy = SessionPolicy::new("carrier", SessionPolicySpec::default());
        policy.metadata.namespace = Some("voice".to_owned());
        desk.state.update(|index| {
            let labels = Labels::from([(names::INJECT.to_owned(), names::ENABLED.to_owned())]);
            index.namespace("voice", NamespaceState { labels, paused: false });
            index.policy(policy, None);
        });
        assert_eq!(desk.config("voice", &Pod::default()), None);
        Watched::ALL.into_iter().for_each(|watched| desk.state.synced(watched));
        assert!(desk.config("voice", &Pod::default()).is_some_and(|config| config.contains("carrier")));
        assert_eq!(desk.config("elsewhere", &Pod::default()), None);
        desk.state.update(|index| index.remove_policy(&Key::new("voice", "carrier")));
        assert_eq!(desk.config("voice", &Pod::default()).as_deref(), Some(""), "it is known that there is none");
    }

    #[tokio::test]
    async fn a_namespace_that_was_never_seen_is_not_known() {
        let desk = desk();
        assert_eq!(desk.namespace("voice"), None);
        desk.state.update(|index| index.policy(SessionPolicy::new("p", SessionPolicySpec::default()), None));
        assert_eq!(desk.namespace(""), None, "its policies are not its labels");
        desk.state.update(|index| index.namespace("voice", NamespaceState::default()));
        assert_eq!(desk.namespace("voice"), Some(NamespaceFacts::default()));
    }
}
