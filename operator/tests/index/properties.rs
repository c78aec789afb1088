//! Whatever happened, and in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sipwarden_operator::{
    index::{Index, Key, NamespaceState, PodFacts},
    inject::Skip,
};

use crate::world::{World, cluster_policy, deployment, labels, opted_in, paused, pod, policy, secs, time};

const APPS: [&str; 3] = ["a", "b", "c"];
const NAMESPACES: [&str; 2] = ["n", "m"];

/// Something that happens to a cluster. Small numbers, so that things meet.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Namespace { namespace: usize, opted_in: bool, paused: bool },
    Policy { namespace: usize, name: usize, app: usize, priority: i32, interval: u32, valid: bool, paused: bool },
    PolicyGone { namespace: usize, name: usize },
    Cluster { name: usize, least: u32 },
    ClusterGone { name: usize },
    Workload { namespace: usize, app: usize },
    WorkloadGone { namespace: usize, app: usize },
    Pod { namespace: usize, name: usize, app: usize, terminating: bool },
    PodGone { namespace: usize, name: usize },
    BarePod { namespace: usize, name: usize, app: usize },
    BarePodGone { namespace: usize, name: usize },
    Settle,
}

type Event = Box<dyn Fn(&mut Index)>;

/// With `faults` policies may be invalid or paused.
pub(crate) fn happening(faults: bool) -> impl Strategy<Value = Happening> {
    let namespace = 0..NAMESPACES.len();
    let app = 0..APPS.len();
    let fault = move || if faults { prop::bool::weighted(0.2).boxed() } else { Just(false).boxed() };
    prop_oneof![
        1 => (namespace.clone(), prop::bool::weighted(0.9), fault())
            .prop_map(|(namespace, opted_in, paused)| Happening::Namespace { namespace, opted_in, paused }),
        4 => (namespace.clone(), 0..4usize, 0..4usize, -1..2i32, 90..94u32, fault(), fault()).prop_map(
            |(namespace, name, app, priority, interval, invalid, paused)| Happening::Policy {
                namespace, name, app, priority, interval, valid: !invalid, paused
            }
        ),
        1 => (namespace.clone(), 0..4usize).prop_map(|(namespace, name)| Happening::PolicyGone { namespace, name }),
        1 => (0..2usize, 90..200u32).prop_map(|(name, least)| Happening::Cluster { name, least }),
        1 => (0..2usize).prop_map(|name| Happening::ClusterGone { name }),
        2 => (namespace.clone(), app.clone()).prop_map(|(namespace, app)| Happening::Workload { namespace, app }),
        1 => (namespace.clone(), app.clone()).prop_map(|(namespace, app)| Happening::WorkloadGone { namespace, app }),
        4 => (namespace.clone(), 0..5usize, app.clone(), prop::bool::weighted(0.1))
            .prop_map(|(namespace, name, app, terminating)| Happening::Pod { namespace, name, app, terminating }),
        1 => (namespace.clone(), 0..5usize).prop_map(|(namespace, name)| Happening::PodGone { namespace, name }),
        1 => (namespace.clone(), 5..8usize, app)
            .prop_map(|(namespace, name, app)| Happening::BarePod { namespace, name, app }),
        1 => (namespace, 5..8usize).prop_map(|(namespace, name)| Happening::BarePodGone { namespace, name }),
        2 => Just(Happening::Settle),
    ]
}

impl World {
    pub(crate) fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Namespace { namespace, opted_in: yes, paused } => {
                let state = if yes { opted_in() } else { NamespaceState::default() };
                self.namespace(NAMESPACES[namespace], NamespaceState { paused, ..state });
            }
            Happening::Policy { namespace, name, app, priority, interval, valid, paused: stopped } => {
                let (namespace, name) = (NAMESPACES[namespace], format!("p{name}"));
                let mut new = policy(namespace, &name, APPS.get(app).unwrap_or(&""));
                new.spec.priority = priority;
                new.spec.timers.session_expires = secs(interval);
                new.spec.timers.min_se = secs(if valid { 90 } else { 10 });
                let old = self.policies.get(&Key::new(namespace, name));
                new.metadata.generation = Some(old.and_then(|old| old.metadata.generation).unwrap_or(0) + 1);
                self.policy(if stopped { paused(new) } else { new });
            }
            Happening::PolicyGone { namespace, name } => self.remove_policy(NAMESPACES[namespace], &format!("p{name}")),
            Happening::Cluster { name, least } => self.cluster(cluster_policy(&format!("c{name}"), least)),
            Happening::ClusterGone { name } => {
                self.clusters.remove(&format!("c{name}"));
                self.index.remove_cluster(&format!("c{name}"));
            }
            Happening::Workload { namespace, app } => {
                self.workload(NAMESPACES[namespace], deployment(APPS[app], APPS[app]));
            }
            Happening::WorkloadGone { namespace, app } => {
                let key = Key::new(NAMESPACES[namespace], format!("deployment-{}", APPS[app]));
                self.workloads.remove(&key);
                self.index.remove_workload(&key);
            }
            Happening::Pod { namespace, name, app, terminating } => {
                let (namespace, name) = (NAMESPACES[namespace], format!("x{name}"));
                let facts = PodFacts { terminating, ..pod(&name, APPS[app], APPS[app]) };
                self.pod(namespace, &name, facts);
            }
            Happening::PodGone { namespace, name } => {
                let key = Key::new(NAMESPACES[namespace], format!("x{name}"));
                self.pods.remove(&key);
                self.annotations.remove(&key);
                self.index.remove_pod(&key);
            }
            Happening::BarePod { namespace, name, app } => {
                let refusal = (name == 7).then_some(Skip::HostNetwork);
                self.bare_pod(NAMESPACES[namespace], &format!("x{name}"), pod("bare", APPS[app], APPS[app]), refusal);
            }
            Happening::BarePodGone { namespace, name } => {
                let key = Key::new(NAMESPACES[namespace], format!("x{name}"));
                self.bare_pods.remove(&key);
                self.index.remove_bare_pod(&key);
            }
            Happening::Settle => self.settle(),
        }
    }

    fn policy_statuses(&self) -> BTreeMap<Key, String> {
        let status = |key: &Key| format!("{:?}", self.index.policy_status(key, &time(9)).map(|(status, _)| status));
        self.policies.keys().map(|key| (key.clone(), status(key))).collect()
    }

    /// Everything that is told about policies.
    fn statuses(&self) -> Vec<String> {
        let of_policies = self.policy_statuses().into_iter().map(|(key, status)| format!("{key:?} {status}"));
        let of_clusters =
            self.clusters.keys().map(|name| format!("{name} {:?}", self.index.cluster_status(name, &time(9))));
        let of_configs = self.configs.keys().map(|key| format!("{key:?} {:?}", self.index.config_status(key)));
        of_policies.chain(of_clusters).chain(of_configs).collect()
    }
}

/// Another operator that sees the same cluster, its objects in an order of its own.
pub(crate) fn restarted(world: &World, order: impl FnOnce(Vec<Event>) -> Vec<Event>) -> World {
    let mut events: Vec<Event> = Vec::new();
    for (name, state) in world.namespaces.clone() {
        events.push(Box::new(move |index| index.namespace(&name, state.clone())));
    }
    for policy in world.policies.clone().into_values() {
        events.push(Box::new(move |index| index.policy(policy.clone(), None)));
    }
    for policy in world.clusters.clone().into_values() {
        events.push(Box::new(move |index| index.cluster(policy.clone(), None)));
    }
    for (key, facts) in world.workloads.clone() {
        events.push(Box::new(move |index| index.workload(&key.namespace, facts.clone())));
    }
    for (key, facts) in world.pods.clone() {
        events.push(Box::new(move |index| index.pod(&key, facts.clone())));
    }
    for (key, (facts, refusal)) in world.bare_pods.clone() {
        events.push(Box::new(move |index| index.bare_pod(&key, facts.clone(), refusal.clone())));
    }
    for config in world.configs.clone().into_values() {
        events.push(Box::new(move |index| index.config(config.clone())));
    }
    let mut index = Index::new("default");
    order(events).iter().for_each(|event| event(&mut index));
    World {
        index,
        namespaces: world.namespaces.clone(),
        policies: world.policies.clone(),
        clusters: world.clusters.clone(),
        workloads: world.workloads.clone(),
        pods: world.pods.clone(),
        bare_pods: world.bare_pods.clone(),
        annotations: world.annotations.clone(),
        configs: world.configs.clone(),
        writes: 0,
        marked: BTreeSet::new(),
    }
}

/// A few of the pods carry labels of their own.
fn shuffled(mut events: Vec<Event>, seed: u64) -> Vec<Event> {
    let mut state = seed | 1;
    for i in (1..events.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        events.swap(i, usize::try_from(state >> 33).expect("31 bits") % (i + 1));
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_restarted_operator_writes_nothing_and_tells_the_same(
        happenings in prop::collection::vec(happening(false), 0..60), seed: u64
    ) {
        let mut world = World::new();
        happenings.iter().for_each(|happening| world.happen(happening));
        world.settle();
        let mut other = restarted(&world, |events| shuffled(events, seed));
        other.settle();
        prop_assert_eq!(other.writes, 0);
        prop_assert_eq!(other.statuses(), world.statuses());
    }

    #[test]
    fn what_changed_is_always_marked(happenings in prop::collection::vec(happening(true), 0..60)) {
        let mut world = World::new();
        let mut before = BTreeMap::new();
        for happening in &happenings {
            world.happen(happening);
            world.marked.clear();
            world.settle();
            let after = world.policy_statuses();
            for (key, status) in &after {
                let known = before.get(key) == Some(status) || world.marked.contains(key);
                prop_assert!(known, "{key:?} was not marked after {happening:?}");
            }
            before = after;
        }
        let (told, writes) = (world.statuses(), world.writes);
        world.index.change_everything();
        world.settle();
        prop_assert_eq!(world.writes, writes, "settling left something undone");
        prop_assert_eq!(world.statuses(), told);
    }

    #[test]
    fn a_faulty_edit_changes_no_pod(
        happenings in prop::collection::vec(happening(true), 0..40), namespace in 0..2usize, name in 0..4usize
    ) {
        let mut world = World::new();
        happenings.iter().for_each(|happening| world.happen(happening));
        world.settle();
        let (before, configs) = (world.annotations.clone(), world.configs.clone());
        world.happen(&Happening::Policy {
            namespace, name, app: 3, priority: 9, interval: 1800, valid: false, paused: false
        });
        world.settle();
        prop_assert_eq!(&world.annotations, &before);
        prop_assert_eq!(&world.configs, &configs);
    }
}

#[test]
fn labels_of_a_pod_count_for_the_pod_and_those_of_the_template_for_the_workload() {
    let mut world = World::voice();
    world.policy(policy("voice", "pbx", "pbx"));
    world.policy(policy("voice", "canary", "canary"));
    world.pod("voice", "pbx-2", PodFacts { labels: labels([("app", "canary")]), ..pod("pbx-2", "pbx", "pbx") });
    world.settle();
    assert_eq!((world.obeyed("voice", "pbx-1"), world.obeyed("voice", "pbx-2")), ("pbx".into(), "canary".into()));
    assert_eq!(world.configs.values().next().unwrap().spec.policy, "pbx");
}
