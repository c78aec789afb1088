//! Watches feed the index: one task for each kind, each with its own backoff.
//!
//! A watch lasts at most [`WATCH_TIMEOUT_S`], so that a connection that died silently is noticed soon. What is gone after
//! a new list is removed from the index then, so the index is never emptied in between.
//!
//! It must not know what the index makes of objects.

mod backoff;
mod bare_pods;
mod objects;
mod pulse;

use std::{collections::HashSet, fmt::Debug, hash::Hash, pin::pin, sync::Arc};

use futures_util::{Stream, TryStreamExt};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, PartialObjectMeta},
    core::DynamicObject,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use sipwarden_crds::{ClusterSessionPolicy, SessionPolicy, SidecarConfigObject};
use tokio::task::JoinSet;

use self::backoff::WatchBackoff;
use self::objects::{SlimPod, SlimWorkload, pod_facts, readable, typed, workload_facts};
pub use self::pulse::{Pulse, PulseLayer};
use crate::{
    index::{Index, Key, NamespaceState, Owner},
    inject::{Settings, names},
    metrics::Metrics,
    state::{State, Watched},
};

/// The server ends a watch after so long, and the client gives it up 5 s later.
pub const WATCH_TIMEOUT_S: u32 = 45;
/// What has ended needs no config; the server tells it as deleted.
const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What all watches need.
#[derive(Clone)]
pub struct Watcher {
    /// To the API server.
    pub client: Client,
    /// What they feed.
    pub state: Arc<State>,
    /// What they count.
    pub metrics: Metrics,
    /// Of the client.
    pub pulse: Pulse,
    /// By which pods without a sidecar are judged.
    pub settings: Settings,
    /// The operator's own, whose pods no injector touches.
    pub namespace: String,
}

impl Watcher {
    /// Starts all watches. They end with the set.
    pub fn start(self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().policies());
        tasks.spawn(self.clone().cluster_policies());
        tasks.spawn(self.clone().configs());
        tasks.spawn(self.clone().namespaces());
        tasks.spawn(self.clone().workloads(Watched::Deployments, ApiResource::erase::<Deployment>(&())));
        tasks.spawn(self.clone().workloads(Watched::StatefulSets, ApiResource::erase::<StatefulSet>(&())));
        tasks.spawn(self.clone().workloads(Watched::DaemonSets, ApiResource::erase::<DaemonSet>(&())));
        tasks.spawn(self.clone().pods());
        tasks.spawn(bare_pods::run(self));
        tasks
    }

    async fn policies(self) {
        self.follow(
            Watched::Policies,
            watcher(self.untyped::<SessionPolicy>(), config()),
            |policy: &DynamicObject| Key::of(&policy.metadata),
            |index, _, policy| {
                let (policy, unreadable) =
                    readable(policy, |metadata| SessionPolicy { metadata, spec: Default::default(), status: None });
                index.policy(policy, unreadable);
            },
            Index::remove_policy,
        )
        .await;
    }

    async fn cluster_policies(self) {
        self.follow(
            Watched::ClusterPolicies,
            watcher(self.untyped::<ClusterSessionPolicy>(), config()),
            |policy: &DynamicObject| policy.metadata.name.clone().unwrap_or_default(),
            |index, _, policy| {
                let (policy, unreadable) = readable(policy, |metadata| ClusterSessionPolicy {
                    metadata,
                    spec: Default::default(),
                    status: None,
                });
                index.cluster(policy, unreadable);
            },
            |index, name: &String| index.remove_cluster(name),
        )
        .await;
    }

    /// What cannot be read counts as absent, and is then written anew.
    async fn configs(self) {
        self.follow(
            Watched::Configs,
            watcher(self.untyped::<SidecarConfigObject>(), config()),
            |config: &DynamicObject| Key::of(&config.metadata),
            |index, key, config| match typed::<SidecarConfigObject>(&config) {
                Ok(mut config) => {
                    config.metadata.managed_fields = None;
                    index.config(config);
                }
                Err(_) => index.remove_config(key),
            },
            Index::remove_config,
        )
        .await;
    }

    async fn namespaces(self) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        self.follow(
            Watched::Namespaces,
            watcher(api, config()),
            |namespace: &PartialObjectMeta<Namespace>| namespace.metadata.name.clone().unwrap_or_default(),
            |index, name: &String, namespace| match namespace.metadata.deletion_timestamp {
                // Nothing can be made in it any more.
                Some(_) => index.remove_namespace(name),
                None => index.namespace(name, NamespaceState::of(&namespace.metadata)),
            },
            |index, name: &String| index.remove_namespace(name),
        )
        .await;
    }

    /// More than metadata, because the labels of the pods to come are in the template: so a workload has its config
    /// before its first pod.
    async fn workloads(self, watched: Watched, resource: ApiResource) {
        let api: Api<SlimWorkload> = Api::all_with(self.client.clone(), &resource);
        let ApiResource { api_version, kind, .. } = resource;
        let owner = move |workload: &SlimWorkload| Owner::of(&api_version, &kind, &workload.metadata);
        self.follow(
            watched,
            watcher(api, config()),
            |workload: &SlimWorkload| {
                let namespace = workload.metadata.namespace.clone().unwrap_or_default();
                Key::new(namespace, owner(workload).config_name())
            },
            |index, key: &Key, workload| {
                index.workload(&key.namespace, workload_facts(owner(&workload), workload));
            },
            Index::remove_workload,
        )
        .await;
    }

    /// More than metadata, because a sidecar is asked at the pod's address. Of all the rest nothing is ever parsed.
    async fn pods(self) {
        let api: Api<SlimPod> = Api::all_with(self.client.clone(), &ApiResource::erase::<Pod>(&()));
        let injected = format!("{}={}", names::SIDECAR, names::SIDECAR_INJECTED);
        self.follow(
            Watched::Pods,
            watcher(api, config().labels(&injected).fields(NOT_ENDED)),
            |pod: &SlimPod| Key::of(&pod.metadata),
            |index, key, pod| index.pod(key, pod_facts(pod.metadata, pod.status.pod_ip)),
            Index::remove_pod,
        )
        .await;
    }

    /// Objects of ours, read one by one only when they are here: one that cannot be read does not hide the others.
    fn untyped<K: Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()))
    }

    /// Feeds the index from a stream, which never ends.
    async fn follow<T, K, A, F, R>(
        &self,
        watched: Watched,
        stream: impl Stream<Item = watcher::Result<Event<T>>>,
        key: F,
        apply: A,
        remove: R,
    ) where
        T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K: Clone + Eq + Hash,
        F: Fn(&T) -> K,
        A: Fn(&mut Index, &K, T),
        R: Fn(&mut Index, &K),
    {
        let mut known = HashSet::new();
        let mut listed = HashSet::new();
        let mut stream = pin!(stream.backoff(WatchBackoff::default()));
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, watched = watched.as_str(), "a watch failed; trying again");
                    self.metrics.watch_failed(watched);
                    continue;
                }
            };
            match event {
                Event::Init => listed = HashSet::new(),
                Event::InitApply(object) => {
                    let key = key(&object);
                    self.state.update(|index| apply(index, &key, object));
                    listed.insert(key.clone());
                    known.insert(key);
                }
                Event::InitDone => {
                    for gone in known.difference(&listed) {
                        self.state.update(|index| remove(index, gone));
                    }
                    known = std::mem::take(&mut listed);
                    tracing::debug!(watched = watched.as_str(), objects = known.len(), "listed");
                    self.state.synced(watched);
                }
                Event::Apply(object) => {
                    let key = key(&object);
                    self.state.update(|index| apply(index, &key, object));
                    known.insert(key);
                    self.metrics.watch_event(watched);
                }
                Event::Delete(object) => {
                    let key = key(&object);
                    self.state.update(|index| remove(index, &key));
                    known.remove(&key);
                    self.metrics.watch_event(watched);
                }
            }
            if watched == Watched::Namespaces {
                self.state.namespaces_changed();
            }
        }
    }
}

fn config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_TIMEOUT_S)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use kube::{Config, core::TypeMeta};

    use super::*;

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        let mut namespace = PartialObjectMeta { types: Some(TypeMeta::default()), ..PartialObjectMeta::default() };
        namespace.metadata.name = Some(name.to_owned());
        namespace
    }

    /// The names that are known after these events, of a few.
    async fn known_after(events: Vec<watcher::Result<Event<PartialObjectMeta<Namespace>>>>) -> Vec<&'static str> {
        // Whichever test comes first installs it.
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().expect("a URL"))).expect("a client");
        let state = Arc::new(State::new("default"));
        let metrics = Metrics::new().expect("metrics");
        let settings = Settings::new("default", "");
        Watcher { client, state: state.clone(), metrics, pulse: Pulse::default(), settings, namespace: String::new() }
            .follow(
                Watched::Namespaces,
                stream::iter(events),
                |namespace| namespace.metadata.name.clone().unwrap_or_default(),
                |index, name: &String, namespace| index.namespace(name, NamespaceState::of(&namespace.metadata)),
                |index, name: &String| index.remove_namespace(name),
            )
            .await;
        let names = ["a", "b", "c"].into_iter();
        names.filter(|name| state.look(|index| index.namespace_facts(name)).is_some()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_list_lacks_is_removed_at_its_end_and_not_before() {
        use Event::{Apply, Init, InitApply, InitDone};
        let first = || vec![Ok(Init), Ok(InitApply(namespace("a"))), Ok(InitDone), Ok(Apply(namespace("b")))];
        assert_eq!(known_after(first()).await, ["a", "b"]);
        let begun = first().into_iter().chain([Ok(Init), Ok(InitApply(namespace("c")))]);
        assert_eq!(known_after(begun.collect()).await, ["a", "b", "c"]);
        let ended = first().into_iter().chain([Ok(Init), Ok(InitApply(namespace("c"))), Ok(InitDone)]);
        assert_eq!(known_after(ended.collect()).await, ["c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_broke_off_removes_nothing() {
        use Event::{Init, InitApply, InitDone};
        let broken = [
            Ok(Init),
            Ok(InitApply(namespace("a"))),
            Ok(InitDone),
            Ok(Init),
            Err(watcher::Error::NoResourceVersion),
            Ok(Init),
            Ok(InitApply(namespace("a"))),
            Ok(InitApply(namespace("b"))),
            Ok(InitDone),
        ];
        assert_eq!(known_after(broken.into()).await, ["a", "b"]);
    }
}
