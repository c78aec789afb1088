//! What all tasks of the process share: the index, and the queues of what has to be written.
//!
//! The index is behind a lock that is never held across an await. Queues are filled only while this replica leads; who
//! begins to lead starts from everything.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    index::{Changes, Index, Key},
    queue::Queue,
};

/// Changes of a status within it are written at once.
const STATUS_DELAY: Duration = Duration::from_millis(200);
/// How old a number of sessions in a status may be.
const SESSIONS_DELAY: Duration = Duration::from_secs(60);
/// A sidecar takes up to 0.4 s to be shown a change, and a pod that is about to get its sidecar is not complained of.
const BARE_DELAY: Duration = Duration::from_secs(2);

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// SessionPolicies.
    Policies,
    /// ClusterSessionPolicies.
    ClusterPolicies,
    /// SidecarConfigs.
    Configs,
    /// Namespaces.
    Namespaces,
    /// Deployments.
    Deployments,
    /// StatefulSets.
    StatefulSets,
    /// DaemonSets.
    DaemonSets,
    /// Pods with a sidecar.
    Pods,
    /// Pods without the sidecar they asked for.
    BarePods,
}

/// Something with a status, or to be told about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// A SessionPolicy.
    Policy(Key),
    /// A SidecarConfig.
    Config(Key),
    /// A ClusterSessionPolicy.
    Cluster(String),
    /// The workload of this SidecarConfig, pods of which have a sidecar for the first time.
    InjectedWorkload(Key),
    /// The workload of this SidecarConfig, pods of which lack their sidecar.
    BareWorkload(Key),
}

/// What has to be written, or asked.
#[derive(Default)]
pub struct Queues {
    /// Pods whose annotation may differ.
    pub pods: Queue<Key>,
    /// SidecarConfigs.
    pub configs: Queue<Key>,
    /// Statuses and Events.
    pub told: Queue<Told>,
    /// Pods whose sidecar is to be asked.
    pub acks: Queue<Key>,
}

/// See the module.
pub struct State {
    index: Mutex<Index>,
    leading: AtomicBool,
    /// What is not known yet.
    pending: watch::Sender<BTreeSet<Watched>>,
    /// Namespaces whose pods are to have sidecars.
    opted_in: watch::Sender<BTreeSet<String>>,
    /// What has to be written.
    pub queues: Queues,
}

impl Watched {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Policies,
        Self::ClusterPolicies,
        Self::Configs,
        Self::Namespaces,
        Self::Deployments,
        Self::StatefulSets,
        Self::DaemonSets,
        Self::Pods,
        Self::BarePods,
    ];

    /// As in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policies => "sessionpolicies",
            Self::ClusterPolicies => "clustersessionpolicies",
            Self::Configs => "sidecarconfigs",
            Self::Namespaces => "namespaces",
            Self::Deployments => "deployments",
            Self::StatefulSets => "statefulsets",
            Self::DaemonSets => "daemonsets",
            Self::Pods => "pods",
            Self::BarePods => "bare-pods",
        }
    }

    /// Whether configs may be wrong without it.
    fn is_needed(self) -> bool {
        self != Self::BarePods
    }
}

impl State {
    /// Around an empty index.
    pub fn new(revision: &str) -> Self {
        let pending = Watched::ALL.into_iter().filter(|watched| watched.is_needed()).collect();
        Self {
            index: Mutex::new(Index::new(revision)),
            leading: AtomicBool::new(false),
            pending: watch::Sender::new(pending),
            opted_in: watch::Sender::default(),
            queues: Queues::default(),
        }
    }

    /// Looks something up.
    pub fn look<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.lock())
    }

    /// Tells the index something, and queues what comes of it.
    pub fn update(&self, event: impl FnOnce(&mut Index)) {
        let mut index = self.lock();
        event(&mut index);
        let changes = index.take_changes();
        drop(index);
        if self.leading.load(Ordering::Relaxed) {
            self.enqueue(changes);
        }
    }

    /// A Namespace changed, perhaps one whose pods are to have sidecars.
    pub fn namespaces_changed(&self) {
        let opted_in = self.look(|index| index.opted_in_namespaces().map(str::to_owned).collect());
        self.opted_in.send_if_modified(|known| {
            let changed = *known != opted_in;
            *known = opted_in;
            changed
        });
    }

    /// Namespaces whose pods are to have sidecars, and their changes.
    pub fn opted_in(&self) -> watch::Receiver<BTreeSet<String>> {
        self.opted_in.subscribe()
    }

    /// All objects of a kind are known.
    pub fn synced(&self, watched: Watched) {
        self.pending.send_if_modified(|pending| pending.remove(&watched));
    }

    /// Names of what is not known yet.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.borrow().iter().map(|watched| watched.as_str()).collect()
    }

    /// Waits until everything is known: what is written before then would be wrong.
    pub async fn wait_synced(&self) {
        let all = self.pending.subscribe().wait_for(BTreeSet::is_empty).await.map(drop);
        all.expect("the sender is a field of self");
    }

    /// Whether this replica writes.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }

    /// From now on this replica writes.
    pub fn lead(&self) {
        self.leading.store(true, Ordering::Relaxed);
        self.update(Index::change_everything);
    }

    fn enqueue(&self, changes: Changes) {
        let Changes { pods, configs, acks, policies, clusters, config_statuses, .. } = changes;
        pods.into_iter().for_each(|key| self.queues.pods.add(key));
        configs.into_iter().for_each(|key| self.queues.configs.add(key));
        acks.into_iter().for_each(|key| self.queues.acks.add(key));
        let Changes { sessions, config_sessions, injected_workloads, bare_workloads, .. } = changes;
        let tell = |told: Told, delay| self.queues.told.add_after(told, delay);
        policies.into_iter().for_each(|key| tell(Told::Policy(key), STATUS_DELAY));
        clusters.into_iter().for_each(|name| tell(Told::Cluster(name), STATUS_DELAY));
        config_statuses.into_iter().for_each(|key| tell(Told::Config(key), STATUS_DELAY));
        sessions.into_iter().for_each(|key| tell(Told::Policy(key), SESSIONS_DELAY));
        config_sessions.into_iter().for_each(|key| tell(Told::Config(key), SESSIONS_DELAY));
        injected_workloads.into_iter().for_each(|key| tell(Told::InjectedWorkload(key), STATUS_DELAY));
        bare_workloads.into_iter().for_each(|key| tell(Told::BareWorkload(key), BARE_DELAY));
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
