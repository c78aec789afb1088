//! One namespace: its policies, workloads and pods, and which policy is in force for which.
//!
//! Nothing in one namespace depends on another, so an event costs what its own namespace costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use sipwarden_crds::{Clamp, ClusterSessionPolicy, SessionPolicy, SessionPolicyStatus, SidecarConfigObject};

use super::{
    Ack,
    changes::Changes,
    facts::{Fingerprint, Key, Labels, NamespaceState, Owner, PodFacts, WorkloadFacts, WorkloadRef, wants_sidecar},
    policy::{Policy, policy_config_name},
};
use crate::inject::{NamespaceFacts, Skip, names};

#[derive(Default)]
pub(super) struct Namespace {
    pub(super) name: String,
    /// Its object was seen.
    pub(super) exists: bool,
    /// It exists and belongs to this revision of the control plane.
    pub(super) managed: bool,
    pub(super) state: NamespaceState,
    pub(super) facts: NamespaceFacts,
    pub(super) bounds: Vec<ClusterSessionPolicy>,
    pub(super) policies: BTreeMap<Arc<str>, Policy>,
    /// Names of the policies, the one that counts first in front.
    pub(super) order: Vec<Arc<str>>,
    pub(super) workloads: BTreeMap<String, Workload>,
    /// Those with a sidecar.
    pub(super) pods: BTreeMap<String, Pod>,
    /// Those without; kept whether or not they asked for one.
    pub(super) bare_pods: BTreeMap<String, BarePod>,
    /// SidecarConfigs as they are stored.
    pub(super) configs: BTreeMap<String, SidecarConfigObject>,
}

pub(super) struct Pod {
    pub(super) facts: PodFacts,
    pub(super) choice: Choice,
    /// What its sidecar last said.
    pub(super) ack: Option<Ack>,
}

pub(super) struct BarePod {
    pub(super) facts: PodFacts,
    pub(super) choice: Choice,
    /// Why it cannot have a sidecar; None if it was missed only.
    pub(super) refusal: Option<Skip>,
}

/// Pods of a workload that run without the sidecar they asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarePods {
    /// Whose they are.
    pub owner: Owner,
    /// How many would have one if they were made anew.
    pub missed: usize,
    /// Why the others cannot have one, each reason once.
    pub refusals: Vec<Skip>,
}

#[derive(Default)]
pub(super) struct Workload {
    pub(super) declared: Option<WorkloadFacts>,
    /// As its pods tell it.
    owner: Option<Owner>,
    /// Names of those that have a sidecar.
    pub(super) pods: BTreeSet<String>,
    /// One of them has had a sidecar.
    is_injected: bool,
    pub(super) choice: Choice,
}

/// The policies that select a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) winner: Option<Arc<str>>,
    pub(super) losers: Vec<Arc<str>>,
}

impl Choice {
    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.winner.iter().chain(&self.losers)
    }

    fn mentions(&self, policy: &str) -> bool {
        self.names().any(|name| &**name == policy)
    }
}

impl Workload {
    pub(super) fn owner(&self) -> Option<&Owner> {
        self.declared.as_ref().map(|declared| &declared.owner).or(self.owner.as_ref())
    }
}

impl Namespace {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.exists
            && self.policies.is_empty()
            && self.workloads.is_empty()
            && self.pods.is_empty()
            && self.bare_pods.is_empty()
            && self.configs.is_empty()
    }

    /// None if it is gone.
    pub(super) fn set_state(&mut self, state: Option<NamespaceState>, revision: &str, changes: &mut Changes) {
        self.exists = state.is_some();
        self.state = state.unwrap_or_default();
        self.facts = self.state.facts();
        self.managed = self.exists && self.facts.revision() == revision;
        self.mark_all(changes);
    }

    pub(super) fn set_bounds(&mut self, bounds: Vec<ClusterSessionPolicy>, changes: &mut Changes) {
        if self.bounds == bounds {
            return;
        }
        self.bounds = bounds;
        let mut rebound = Vec::new();
        for (name, policy) in &mut self.policies {
            let before = policy.clamping();
            if policy.rebind(&self.bounds) {
                changes.clusters.extend(before.into_iter().chain(policy.clamping()));
                rebound.push(name.clone());
            }
        }
        for name in rebound {
            changes.policies.insert(Key::new(&self.name, &*name));
            changes.configs.insert(self.policy_config_key(&name));
            self.rejudge_for(&name, changes);
        }
    }

    pub(super) fn set_policy(&mut self, policy: SessionPolicy, unreadable: Option<String>, changes: &mut Changes) {
        let name: Arc<str> = policy.metadata.name.as_deref().unwrap_or_default().into();
        changes.policies.insert(Key::new(&self.name, &*name));
        if let Some(known) = self.policies.get_mut(&name).filter(|known| known.says_the_same(&policy)) {
            known.status = policy.status.unwrap_or_default();
            return;
        }
        let footprint = self.footprint(&name);
        let before = self.policies.remove(&name);
        changes.clusters.extend(before.iter().flat_map(Policy::clamping));
        let policy = Policy::new(policy, unreadable, before, &self.bounds);
        self.policies.insert(name.clone(), policy);
        self.adopt(&name);
        changes.clusters.extend(self.policies.get(&name).iter().flat_map(|policy| policy.clamping()));
        self.sort();
        self.mark_selecting(&name, &footprint, changes);
        self.rejudge_for(&name, changes);
    }

    pub(super) fn remove_policy(&mut self, name: &str, changes: &mut Changes) {
        let footprint = self.footprint(name);
        let before = self.policies.remove(name);
        changes.clusters.extend(before.iter().flat_map(Policy::clamping));
        self.sort();
        self.mark_selecting(name, &footprint, changes);
        self.rejudge_for(name, changes);
        changes.policies.remove(&Key::new(&self.name, name));
    }

    pub(super) fn set_workload(&mut self, facts: WorkloadFacts, changes: &mut Changes) {
        let name = facts.owner.config_name();
        let workload = self.workloads.entry(name.clone()).or_default();
        if workload.declared.as_ref() == Some(&facts) {
            return;
        }
        workload.declared = Some(facts);
        self.rejudge_workload(&name, changes);
    }

    pub(super) fn remove_workload(&mut self, name: &str, changes: &mut Changes) {
        let Some(workload) = self.workloads.get_mut(name) else { return };
        workload.declared = None;
        self.rejudge_workload(name, changes);
        self.forget_workload(name);
    }

    pub(super) fn set_pod(&mut self, name: &str, facts: PodFacts, changes: &mut Changes) {
        let before = self.pods.remove(name);
        if let Some(before) = before.as_ref().map(|before| &before.facts)
            && before.workload.config_name != facts.workload.config_name
        {
            self.leave_workload(name, &before.workload, changes);
        }
        let (known, choice, mut ack) = match before {
            Some(before) => (Some(before.facts), before.choice, before.ack),
            None => (None, Choice::default(), None),
        };
        let place = |facts: &PodFacts| (facts.uid.clone(), facts.ip);
        if known.as_ref().map(place) != Some(place(&facts)) {
            ack = None;
            if facts.ip.is_some() {
                changes.acks.insert(Key::new(&self.name, name));
            }
        }
        let same = known.as_ref() == Some(&facts);
        let workload = self.workloads.entry(facts.workload.config_name.clone()).or_default();
        workload.pods.insert(name.to_owned());
        if !mem::replace(&mut workload.is_injected, true) && self.managed {
            changes.injected_workloads.insert(Key::new(&self.name, &facts.workload.config_name));
        }
        if facts.workload.owner.is_some() {
            workload.owner.clone_from(&facts.workload.owner);
        }
        let config_name = facts.workload.config_name.clone();
        self.pods.insert(name.to_owned(), Pod { facts, choice, ack });
        if !same {
            self.rejudge_pod(name, changes);
            self.rejudge_workload(&config_name, changes);
        }
    }

    pub(super) fn remove_pod(&mut self, name: &str, changes: &mut Changes) {
        let Some(pod) = self.pods.remove(name) else { return };
        self.mark_policies(&pod.choice, changes);
        self.leave_workload(name, &pod.facts.workload, changes);
        changes.pods.remove(&Key::new(&self.name, name));
    }

    pub(super) fn set_bare_pod(&mut self, name: &str, facts: PodFacts, refusal: Option<Skip>, changes: &mut Changes) {
        if self.bare_pods.get(name).is_some_and(|known| known.facts == facts && known.refusal == refusal) {
            return;
        }
        let known = self.bare_pods.remove(name);
        let choice = known.map(|known| known.choice).unwrap_or_default();
        self.bare_pods.insert(name.to_owned(), BarePod { facts, choice, refusal });
        self.rejudge_bare_pod(name, changes);
        self.mark_bare(name, changes);
    }

    pub(super) fn remove_bare_pod(&mut self, name: &str, changes: &mut Changes) {
        let Some(pod) = self.bare_pods.remove(name) else { return };
        self.mark_policies(&pod.choice, changes);
    }

    /// Those that leave it to the namespace.
    pub(super) fn forget_bare_pods(&mut self, changes: &mut Changes) {
        let left = self.bare_pods.iter().filter(|(_, pod)| !pod.facts.labels.contains_key(names::INJECT));
        let left: Vec<String> = left.map(|(name, _)| name.clone()).collect();
        left.iter().for_each(|name| self.remove_bare_pod(name, changes));
    }

    pub(super) fn set_config(&mut self, config: SidecarConfigObject, changes: &mut Changes) {
        let name = config.metadata.name.clone().unwrap_or_default();
        let before = self.configs.insert(name.clone(), config);
        let policy = |config: Option<&SidecarConfigObject>| config.map(|config| config.spec.policy.clone());
        self.config_changed(&name, policy(before.as_ref()) != policy(self.configs.get(&name)), changes);
    }

    pub(super) fn remove_config(&mut self, name: &str, changes: &mut Changes) {
        self.configs.remove(name);
        self.config_changed(name, true, changes);
    }

    pub(super) fn set_ack(&mut self, name: &str, ack: Option<Ack>, changes: &mut Changes) {
        let Some(pod) = self.pods.get_mut(name).filter(|pod| pod.ack != ack) else { return };
        let policy = pod.choice.winner.as_ref().map(|winner| Key::new(&self.name, &**winner));
        let config = Key::new(&self.name, &pod.facts.workload.config_name);
        let of_policy = pod.choice.winner.as_ref().map(|winner| Key::new(&self.name, policy_config_name(winner)));
        let told = |ack: &Option<Ack>| ack.as_ref().map(|ack| (ack.hash.clone(), ack.error.clone()));
        if told(&pod.ack) == told(&ack) {
            changes.sessions.extend(policy);
            changes.config_sessions.extend(of_policy.into_iter().chain([config]));
        } else {
            changes.policies.extend(policy);
            changes.config_statuses.extend(of_policy.into_iter().chain([config]));
        }
        pod.ack = ack;
    }

    pub(super) fn annotated(&mut self, name: &str, uid: &str, annotation: Fingerprint, changes: &mut Changes) {
        let Some(pod) = self.pods.get_mut(name).filter(|pod| pod.facts.uid == uid) else { return };
        pod.facts.annotation = Some(annotation);
        changes.policies.extend(pod.choice.winner.as_ref().map(|winner| Key::new(&self.name, &**winner)));
    }

    pub(super) fn told(&mut self, policy: &str, status: SessionPolicyStatus) {
        if let Some(policy) = self.policies.get_mut(policy) {
            policy.status = status;
        }
    }

    /// None if no pod of the workload asked for a sidecar in vain.
    pub(super) fn bare_pods_of(&self, config_name: &str) -> Option<BarePods> {
        let of_workload = |pod: &&BarePod| pod.facts.workload.config_name == config_name && self.lacks_sidecar(pod);
        let mut pods = self.bare_pods.values().filter(of_workload).peekable();
        let owner = self.workloads.get(config_name).and_then(Workload::owner);
        let owner = owner.or(pods.peek()?.facts.workload.owner.as_ref())?.clone();
        let mut told = BarePods { owner, missed: 0, refusals: Vec::new() };
        for pod in pods {
            match &pod.refusal {
                None => told.missed += 1,
                Some(refusal) if !told.refusals.contains(refusal) => told.refusals.push(refusal.clone()),
                Some(_) => {}
            }
        }
        Some(told)
    }

    pub(super) fn owner_of(&self, config_name: &str) -> Option<Owner> {
        self.workloads.get(config_name).and_then(Workload::owner).cloned()
    }

    /// How many policies a ClusterSessionPolicy changed something of.
    pub(super) fn clamped_by(&self, cluster: &str) -> usize {
        self.policies.values().filter(|policy| self.clamps_of(policy).any(|clamp| clamp.by == cluster)).count()
    }

    /// What ClusterSessionPolicies changed of what is in force of a policy. Of what the process before made that is what it
    /// told, and so it is while nothing is written.
    pub(super) fn clamps_of<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a Clamp> {
        let (is_frozen, is_compiled) = (self.state.paused, policy.is_compiled());
        let found = policy.in_force.iter().filter(move |_| !is_frozen).flat_map(|in_force| &in_force.clamps);
        let known = found.clone();
        let told = policy.status.clamped.iter().filter(move |told| {
            let is_bound = self.bounds.iter().any(|bounds| bounds.metadata.name.as_ref() == Some(&told.by));
            is_frozen || !is_compiled && is_bound && known.clone().all(|clamp| clamp.field != told.field)
        });
        found.chain(told)
    }

    /// Which policies pods with these labels of this workload have.
    pub(super) fn choose(&self, labels: &Labels, config_name: &str) -> Choice {
        let mut choice = Choice::default();
        for name in &self.order {
            if !self.selects(name, labels, config_name) {
                continue;
            }
            match choice.winner {
                None => choice.winner = Some(name.clone()),
                Some(_) => choice.losers.push(name.clone()),
            }
        }
        choice
    }

    /// Labels of the pods that a workload makes next, as far as one can know.
    pub(super) fn labels_of<'a>(&'a self, workload: &'a Workload) -> Option<&'a Labels> {
        if let Some(declared) = &workload.declared {
            return Some(&declared.pod_labels);
        }
        let pods = workload.pods.iter().filter_map(|name| Some((name, self.pods.get(name)?)));
        let newest = pods.max_by_key(|(name, pod)| (pod.facts.created, *name));
        newest.map(|(_, pod)| &pod.facts.labels)
    }

    /// Whether the pod asked for a sidecar and has none.
    pub(super) fn lacks_sidecar(&self, pod: &BarePod) -> bool {
        self.managed && !pod.facts.terminating && wants_sidecar(&pod.facts.labels, &self.facts)
    }

    /// Judges everything anew, and counts it as changed.
    pub(super) fn mark_all(&mut self, changes: &mut Changes) {
        let key = |name: &str| Key::new(&self.name, name);
        changes.policies.extend(self.policies.keys().map(|name| key(name)));
        changes.configs.extend(self.configs.keys().map(|name| key(name)));
        self.mark_all_selecting(changes);
        changes.config_statuses.extend(self.configs.keys().map(|name| key(name)));
        changes.acks.extend(self.pods.iter().filter(|(_, pod)| pod.facts.ip.is_some()).map(|(name, _)| key(name)));
        self.rejudge_where(|_, _, _| true, changes);
        self.bare_pods.keys().for_each(|name| self.mark_bare(name, changes));
    }

    /// Judges what a policy selected before it changed, or does now.
    fn rejudge_for(&mut self, policy: &str, changes: &mut Changes) {
        self.rejudge_where(
            |this, choice, (labels, config_name)| choice.mentions(policy) || this.selects(policy, labels, config_name),
            changes,
        );
    }

    fn rejudge_where(&mut self, affected: impl Fn(&Self, &Choice, (&Labels, &str)) -> bool, changes: &mut Changes) {
        let touches =
            |choice: &Choice, facts: &PodFacts| affected(self, choice, (&facts.labels, &facts.workload.config_name));
        let pods = self.pods.iter().filter(|(_, pod)| touches(&pod.choice, &pod.facts));
        let pods: Vec<String> = pods.map(|(name, _)| name.clone()).collect();
        let bare_pods = self.bare_pods.iter().filter(|(_, pod)| touches(&pod.choice, &pod.facts));
        let bare_pods: Vec<String> = bare_pods.map(|(name, _)| name.clone()).collect();
        let none = Labels::new();
        let workloads: Vec<String> = self
            .workloads
            .iter()
            .filter(|(name, workload)| {
                affected(self, &workload.choice, (self.labels_of(workload).unwrap_or(&none), name))
            })
            .map(|(name, _)| name.clone())
            .collect();
        pods.iter().for_each(|name| self.rejudge_pod(name, changes));
        bare_pods.iter().for_each(|name| self.rejudge_bare_pod(name, changes));
        workloads.iter().for_each(|name| self.rejudge_workload(name, changes));
    }

    fn rejudge_pod(&mut self, name: &str, changes: &mut Changes) {
        let Some(pod) = self.pods.get(name) else { return };
        let choice = self.choose(&pod.facts.labels, &pod.facts.workload.config_name);
        self.mark_policies(&pod.choice, changes);
        self.mark_policies(&choice, changes);
        changes.pods.insert(Key::new(&self.name, name));
        changes.config_statuses.insert(Key::new(&self.name, &pod.facts.workload.config_name));
        if let Some(pod) = self.pods.get_mut(name) {
            pod.choice = choice;
        }
    }

    fn rejudge_bare_pod(&mut self, name: &str, changes: &mut Changes) {
        let Some(pod) = self.bare_pods.get(name) else { return };
        let choice = self.choose(&pod.facts.labels, &pod.facts.workload.config_name);
        self.mark_policies(&pod.choice, changes);
        self.mark_policies(&choice, changes);
        if let Some(pod) = self.bare_pods.get_mut(name) {
            pod.choice = choice;
        }
    }

    fn rejudge_workload(&mut self, name: &str, changes: &mut Changes) {
        let Some(workload) = self.workloads.get(name) else { return };
        let choice = self.labels_of(workload).map(|labels| self.choose(labels, name)).unwrap_or_default();
        changes.configs.insert(Key::new(&self.name, name));
        if let Some(workload) = self.workloads.get_mut(name) {
            workload.choice = choice;
        }
    }

    /// What a SidecarConfig says matters to a policy that is known by nothing else.
    fn config_changed(&mut self, name: &str, policy_changed: bool, changes: &mut Changes) {
        changes.configs.insert(Key::new(&self.name, name));
        changes.config_statuses.insert(Key::new(&self.name, name));
        if self.policies.values().all(Policy::is_compiled) {
            return;
        }
        if let Some((policy, _)) = self.policy_of_config(name) {
            let policy = policy.to_owned();
            // Others have to name the selector that it holds.
            self.mark_all_selecting(changes);
            if self.adopt(&policy) {
                changes.clusters.extend(self.policies.get(&*policy).iter().flat_map(|policy| policy.clamping()));
                changes.policies.insert(Key::new(&self.name, &policy));
                self.rejudge_for(&policy, changes);
            }
        }
        if policy_changed {
            self.rejudge_where(|_, _, (_, config_name)| config_name == name, changes);
        }
    }

    fn leave_workload(&mut self, pod: &str, workload: &WorkloadRef, changes: &mut Changes) {
        let name = &workload.config_name;
        let Some(left) = self.workloads.get_mut(name) else { return };
        left.pods.remove(pod);
        changes.config_statuses.insert(Key::new(&self.name, name));
        self.rejudge_workload(name, changes);
        self.forget_workload(name);
    }

    fn forget_workload(&mut self, name: &str) {
        if self.workloads.get(name).is_some_and(|workload| workload.declared.is_none() && workload.pods.is_empty()) {
            self.workloads.remove(name);
        }
    }

    fn mark_policies(&self, choice: &Choice, changes: &mut Changes) {
        changes.policies.extend(choice.names().map(|name| Key::new(&self.name, &**name)));
        changes.config_statuses.extend(choice.winner.iter().map(|winner| self.policy_config_key(winner)));
    }

    fn mark_bare(&self, name: &str, changes: &mut Changes) {
        if let Some(pod) = self.bare_pods.get(name).filter(|pod| self.lacks_sidecar(pod)) {
            changes.bare_workloads.insert(Key::new(&self.name, &pod.facts.workload.config_name));
        }
    }

    fn sort(&mut self) {
        let mut sorted: Vec<_> = self.policies.iter().collect();
        sorted.sort_by(|(_, a), (_, b)| a.precedence(b));
        self.order = sorted.into_iter().map(|(name, _)| name.clone()).collect();
    }
}
