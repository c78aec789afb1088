//! A thousand policies, and ten thousand pods that nobody runs: as the ReplicaSet controller, the injector and kubelet would
//! have made them, with sidecars that obey at once.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use sipwarden_crds::{SessionPolicy, from_annotation};
use sipwarden_operator::inject::names;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

pub(crate) const NAMESPACES: usize = 100;
pub(crate) const POLICIES: usize = 1000;
/// Policies with pods: the first has many, each of the others some.
pub(crate) const USED: usize = 901;
pub(crate) const LARGE: usize = 1000;
pub(crate) const SMALL: usize = 10;
pub(crate) const PODS: usize = LARGE + (USED - 1) * SMALL;
/// Where sidecars answer, those of each policy on a loopback address of their own.
pub(crate) const STATUS_PORT: u16 = 18_644;

/// Requests at the same time; the operator writes to as many pods.
const CONCURRENCY: usize = 32;
const STEP: Duration = Duration::from_millis(5);

/// What is there, and what the operator makes of it.
#[derive(Clone)]
pub(crate) struct Fleet {
    client: Client,
    seen: Arc<Mutex<Seen>>,
}

/// What the watch of all pods has shown.
#[derive(Default)]
struct Seen {
    /// By pod, the hash in its annotation.
    hashes: HashMap<String, String>,
    /// By policy, the hash last written to one of its pods.
    obeyed: HashMap<usize, String>,
    /// Annotations written since the mark, and when the first and the last were.
    written: usize,
    within: Option<(Instant, Instant)>,
}

/// How long it took from a mark until annotations were written.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

impl Fleet {
    /// Makes all of it, and watches from then on.
    pub(crate) async fn create(client: &Client) -> Result<Fleet> {
        let fleet = Fleet { client: client.clone(), seen: Arc::default() };
        fleet.each((0..NAMESPACES).collect(), |fleet, number| async move { fleet.namespace(number).await }).await?;
        fleet.each((0..POLICIES).collect(), |fleet, number| async move { fleet.policy(number, 90).await }).await?;
        let pods = (0..POLICIES).flat_map(|policy| (0..pods_of(policy)).map(move |pod| (policy, pod))).collect();
        fleet
            .each(pods, |fleet, (policy, pod)| async move { fleet.pod(policy, &format!("pod-{pod}"), None).await })
            .await?;
        let version = Api::<Pod>::all(client.clone()).list_metadata(&ListParams::default().limit(1)).await?;
        let version = version.metadata.resource_version.context("a list without version")?;
        tokio::spawn(fleet.clone().watch(version));
        for policy in 0..USED {
            fleet.sidecar(policy).await?;
        }
        Ok(fleet)
    }

    /// Creates or changes a policy.
    pub(crate) async fn policy(&self, number: usize, min_se_s: usize) -> Result<()> {
        let spec = json!({
            "podSelector": { "matchLabels": { "app": app(number) } },
            "timers": { "minSE": format!("{min_se_s}s") },
        });
        let policy = json!({
            "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy",
            "metadata": { "name": app(number) }, "spec": spec,
        });
        let api: Api<SessionPolicy> = Api::namespaced(self.client.clone(), &namespace(number));
        api.patch(&app(number), &PatchParams::apply("bench").force(), &Patch::Apply(policy)).await?;
        Ok(())
    }

    /// A pod of the Deployment of a policy, injected; with this config or without one.
    pub(crate) async fn pod(&self, policy: usize, name: &str, config: Option<&str>) -> Result<()> {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{}-7d4f", app(policy)), "uid": "7d4f",
            "controller": true,
        });
        let mut metadata = json!({
            "name": format!("{}-{name}", app(policy)),
            "labels": { "app": app(policy), "pod-template-hash": "7d4f", names::SIDECAR: names::SIDECAR_INJECTED },
            "ownerReferences": [owner],
        });
        if let Some(config) = config {
            metadata["annotations"] = json!({ names::CONFIG: config });
        }
        let api = self.pods_in(policy);
        let pod: Pod = serde_json::from_value(json!({ "metadata": metadata, "spec": containers() }))?;
        let name = api.create(&PostParams::default(), &pod).await?.name_any();
        let status = json!({ "status": { "phase": "Running", "podIP": address(policy).to_string() } });
        api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    pub(crate) async fn delete_pod(&self, policy: usize, name: &str) -> Result<()> {
        let at_once = DeleteParams::default().grace_period(0);
        self.pods_in(policy).delete(&format!("{}-{name}", app(policy)), &at_once).await?;
        Ok(())
    }

    /// What the annotation of a pod of this policy holds.
    pub(crate) async fn config(&self, policy: usize) -> Result<String> {
        let pod = self.pods_in(policy).get(&format!("{}-pod-0", app(policy))).await?;
        pod.annotations().get(names::CONFIG).cloned().context("a pod without config")
    }

    /// How many policies say that they are in force everywhere.
    pub(crate) async fn ready(&self) -> Result<usize> {
        let policies: Api<SessionPolicy> = Api::all(self.client.clone());
        let is_ready = |policy: &SessionPolicy| {
            let conditions = policy.status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        };
        Ok(policies.list(&ListParams::default()).await?.iter().filter(|policy| is_ready(policy)).count())
    }

    /// Annotations are counted from now on.
    pub(crate) fn mark(&self) -> Instant {
        let mut seen = self.seen();
        (seen.written, seen.within) = (0, None);
        Instant::now()
    }

    /// Waits until so many annotations were written since the mark.
    pub(crate) async fn written(&self, count: usize, mark: Instant, limit: Duration) -> Result<Took> {
        loop {
            let (written, within) = {
                let seen = self.seen();
                (seen.written, seen.within)
            };
            match within {
                Some((first, last)) if written >= count => return Ok(Took { first: first - mark, last: last - mark }),
                _ if mark.elapsed() > limit => bail!("{written} of {count} annotations were written within {limit:?}"),
                _ => sleep(STEP).await,
            }
        }
    }

    /// Writes to the pods of a policy, or to all, what the operator would when their config changes, with as many requests
    /// at the same time: what the API server needs for that alone.
    pub(crate) async fn overwrite(&self, policy: Option<usize>, limit: Duration) -> Result<Took> {
        let pods = match policy {
            Some(policy) => self.pods_in(policy),
            None => Api::all(self.client.clone()),
        };
        let selector = policy.map(|policy| ListParams::default().labels(&format!("app={}", app(policy))));
        let pods = pods.list_metadata(&selector.unwrap_or_default()).await?.items;
        let patches: Vec<_> = pods.iter().map(overwriting).collect::<Result<_>>()?;
        let (count, mark) = (patches.len(), self.mark());
        self.each(patches, |fleet, (namespace, name, patch)| async move {
            let api: Api<Pod> = Api::namespaced(fleet.client, &namespace);
            api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            Ok(())
        })
        .await?;
        self.written(count, mark, limit).await
    }

    /// Does something with each, some at the same time.
    pub(crate) async fn each<T, F>(&self, items: Vec<T>, work: impl Fn(Fleet, T) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let work = stream::iter(items).map(|item| work(self.clone(), item));
        work.buffer_unordered(CONCURRENCY).try_collect().await
    }

    async fn namespace(&self, number: usize) -> Result<()> {
        let labels = json!({ names::INJECT: names::ENABLED });
        let object = json!({ "metadata": { "name": namespace(number), "labels": labels } });
        create::<Namespace>(&Api::all(self.client.clone()), object).await?;
        let policies = (0..USED).filter(|policy| policy % NAMESPACES == number);
        for policy in policies {
            let labels = json!({ "app": app(policy) });
            let spec = json!({
                "replicas": pods_of(policy),
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": containers() },
            });
            let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace(number));
            create(&deployments, json!({ "metadata": { "name": app(policy) }, "spec": spec })).await?;
        }
        Ok(())
    }

    async fn watch(self, mut version: String) {
        let pods: Api<Pod> = Api::all(self.client.clone());
        loop {
            let Ok(events) = pods.watch_metadata(&WatchParams::default(), &version).await else { continue };
            let mut events = std::pin::pin!(events);
            while let Some(Ok(event)) = events.next().await {
                match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                        pod.resource_version().inspect(|now| version.clone_from(now));
                        self.look(&pod);
                    }
                    WatchEvent::Deleted(pod) => drop(pod.resource_version().inspect(|now| version.clone_from(now))),
                    WatchEvent::Bookmark(mark) => version.clone_from(&mark.metadata.resource_version),
                    WatchEvent::Error(error) => panic!("the watch of pods fails: {error}"),
                }
            }
        }
    }

    fn look(&self, pod: &impl ResourceExt) {
        let Some(text) = pod.annotations().get(names::CONFIG) else { return };
        let hash = from_annotation(text).expect("the operator writes configs").hash;
        let policy = pod.labels()["app"].trim_start_matches("app-").parse().expect("the number of a policy");
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
        let mut seen = self.seen();
        if seen.hashes.insert(name, hash.clone()).as_ref() != Some(&hash) {
            seen.obeyed.insert(policy, hash);
            seen.written += 1;
            let now = Instant::now();
            seen.within = Some((seen.within.map_or(now, |(first, _)| first), now));
        }
    }

    /// Answers for all sidecars of a policy.
    async fn sidecar(&self, policy: usize) -> Result<()> {
        let listener = TcpListener::bind(SocketAddr::from((address(policy), STATUS_PORT))).await?;
        let fleet = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let hash = fleet.seen().obeyed.get(&policy).cloned().unwrap_or_default();
                let body =
                    json!({ "policy": app(policy), "generation": 1, "hash": hash, "sessions": 1, "error": null });
                let body = body.to_string();
                let mut request = [0; 1024];
                // Who hangs up first is of no interest.
                let _read = stream.read(&mut request).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(())
    }

    fn pods_in(&self, policy: usize) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &namespace(policy))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pods_of(policy: usize) -> usize {
    match policy {
        0 => LARGE,
        1..USED => SMALL,
        _ => 0,
    }
}

fn namespace(policy: usize) -> String {
    format!("voice-{}", policy % NAMESPACES)
}

fn app(policy: usize) -> String {
    format!("app-{policy}")
}

fn address(policy: usize) -> Ipv4Addr {
    let number = u32::try_from(policy).expect("a thousand");
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 2, 0, 1).to_bits() + number)
}

/// The pod, and a patch like the operator's that gives its config another hash.
fn overwriting(pod: &PartialObjectMeta<Pod>) -> Result<(String, String, Value)> {
    let config = pod.annotations().get(names::CONFIG).context("a pod without config")?;
    let hash = from_annotation(config).expect("the operator writes configs").hash;
    let other: String = hash.chars().rev().collect();
    let annotations = json!({ names::CONFIG: config.replace(&hash, &other) });
    let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": annotations } });
    Ok((pod.namespace().unwrap_or_default(), pod.name_any(), patch))
}

fn containers() -> Value {
    json!({ "containers": [{ "name": "app", "image": "app", "ports": [{ "name": "sip", "containerPort": 5060 }] }] })
}

async fn create<K: Clone + Debug + Serialize + DeserializeOwned>(api: &Api<K>, object: Value) -> Result<()> {
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}
