//! What is told about policies and SidecarConfigs. Counts, never lists of pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sipwarden_crds::{
    Acceptance, ClusterSessionPolicyStatus, Judgement, MAX_CLAMPS, PodCounts, Programming, SessionPolicyStatus,
    SidecarConfigStatus,
};

use super::{
    cluster::Cluster,
    namespace::{Choice, Namespace, Pod},
    policy::Policy,
};

/// The pods of one policy.
#[derive(Default)]
struct Tally {
    matched: usize,
    injected: usize,
    /// The sidecar said so.
    in_step: usize,
    /// In step, or given the config and silent so far: answers are advisory.
    settled: usize,
    sessions: i64,
    /// Selected, but obeying another policy.
    lost: usize,
    /// Of these, to a policy of the same priority.
    lost_by_age: usize,
    /// Asked for a sidecar and cannot have one, so that no policy can be in force for them.
    refused: usize,
}

/// How far one pod is.
struct Progress {
    in_step: bool,
    settled: bool,
}

impl Namespace {
    /// None if the policy is none of ours.
    pub(super) fn policy_status(&self, name: &str, now: &Time) -> Option<SessionPolicyStatus> {
        let policy = self.policies.get(name).filter(|_| self.managed)?;
        let tally = self.tally(name, policy);
        let mut programming = self.programming(policy, &tally);
        if self.is_beyond_selectors(policy) {
            programming.1 += "; its podSelector and those of stronger policies are too long for the admission policy, so pods made \
                              while no operator runs observe until one does";
        }
        let judgement = Judgement { acceptance: self.acceptance(name, policy, &tally), programming };
        let generation = policy.observed.metadata.generation.unwrap_or_default();
        Some(SessionPolicyStatus {
            observed_generation: generation,
            conditions: judgement.conditions(generation, &policy.status.conditions, now),
            pods: PodCounts {
                matched: count(tally.matched),
                injected: count(tally.injected),
                in_step: count(tally.in_step),
                stale: count(tally.injected - tally.in_step),
            },
            sessions: tally.sessions,
            hash: self.hash_of(name, policy),
            clamped: self.clamps_of(policy).take(MAX_CLAMPS).cloned().collect(),
        })
    }

    /// None if there is no such SidecarConfig.
    pub(super) fn config_status(&self, name: &str) -> Option<SidecarConfigStatus> {
        let config = self.configs.get(name).filter(|_| self.managed)?;
        let pods: Vec<&Pod> = match self.policy_of_config(name) {
            Some((policy, _)) => {
                self.pods.values().filter(|pod| pod.choice.winner.as_deref() == Some(policy)).collect()
            }
            None => {
                let of_workload = self.workloads.get(name).into_iter().flat_map(|workload| &workload.pods);
                of_workload.filter_map(|pod| self.pods.get(pod)).collect()
            }
        };
        let pods: Vec<&Pod> = pods.into_iter().filter(|pod| !pod.facts.terminating).collect();
        let acks = || pods.iter().filter_map(|pod| pod.ack.as_ref());
        Some(SidecarConfigStatus {
            observed_generation: config.metadata.generation.unwrap_or_default(),
            observed_hash: config.spec.hash.clone(),
            pods: count(pods.len()),
            in_step: count(acks().filter(|ack| ack.hash.as_deref() == Some(&config.spec.hash)).count()),
            sessions: acks().map(|ack| i64::from(ack.sessions)).sum(),
        })
    }

    fn tally(&self, name: &str, policy: &Policy) -> Tally {
        let mut tally = Tally::default();
        for pod in self.pods.values().filter(|pod| !pod.facts.terminating) {
            if self.count_lost(name, policy, &pod.choice, &mut tally) {
                tally.matched += 1;
                tally.injected += 1;
                let progress = self.progress(pod);
                tally.in_step += usize::from(progress.in_step);
                tally.settled += usize::from(progress.settled);
                tally.sessions += pod.ack.as_ref().map_or(0, |ack| i64::from(ack.sessions));
            }
        }
        for pod in self.bare_pods.values().filter(|pod| self.lacks_sidecar(pod)) {
            if pod.refusal.is_some() {
                tally.refused += usize::from(pod.choice.winner.as_deref() == Some(name));
            } else {
                tally.matched += usize::from(self.count_lost(name, policy, &pod.choice, &mut tally));
            }
        }
        tally
    }

    /// True if the policy is in force for the pod with this choice.
    fn count_lost(&self, name: &str, policy: &Policy, choice: &Choice, tally: &mut Tally) -> bool {
        let Some(winner) = &choice.winner else { return false };
        if **winner == *name {
            return true;
        }
        if choice.losers.iter().any(|loser| **loser == *name) {
            tally.lost += 1;
            let same_priority = self.policies.get(winner).is_some_and(|it| it.priority() == policy.priority());
            tally.lost_by_age += usize::from(same_priority);
        }
        false
    }

    fn progress(&self, pod: &Pod) -> Progress {
        let config_name = &pod.facts.workload.config_name;
        let Some(config) = self.config_of(&pod.choice, config_name) else {
            return Progress { in_step: false, settled: false };
        };
        let delivered = pod.facts.annotation == Some(config.fingerprint);
        let told = pod.ack.as_ref().map(|ack| ack.error.is_none() && ack.hash.as_ref() == Some(&config.hash));
        Progress { in_step: told == Some(true), settled: delivered && told != Some(false) }
    }

    fn acceptance(&self, name: &str, policy: &Policy, tally: &Tally) -> (Acceptance, String) {
        if let Some(fault) = &policy.fault {
            let kept = match self.hash_of(name, policy).is_empty() {
                true => "no pod obeys it",
                false => "what it said while it was last valid stays in force",
            };
            return (Acceptance::Invalid, format!("{fault}; {kept}{}", self.held(policy)));
        }
        if tally.matched == 0 && tally.lost > 0 && tally.lost == tally.lost_by_age {
            let text = "every pod it selects obeys another policy of the same priority, which is older or comes first by \
                        name; give one of them another spec.priority or spec.podSelector";
            return (Acceptance::Conflicted, text.to_owned());
        }
        (Acceptance::Accepted, format!("the policy is valid{}", self.held(policy)))
    }

    fn held(&self, policy: &Policy) -> String {
        match self.clamps_of(policy).count() {
            0 => String::new(),
            clamped => format!("; settings held to the bounds of ClusterSessionPolicies: {clamped}"),
        }
    }

    fn programming(&self, policy: &Policy, tally: &Tally) -> (Programming, String) {
        let Tally { matched, injected, in_step, settled, lost, refused, .. } = *tally;
        let others = [("obeying another policy", lost), ("unable to have a sidecar, see their Events", refused)];
        let others = others.iter().filter(|(_, count)| *count > 0);
        let also: String = others.map(|(why, count)| format!("; selected, but {why}: {count}")).collect();
        if self.state.paused {
            let text = "the namespace is paused; configs stay as they are, and new pods are given the same";
            return (Programming::Paused, text.to_owned());
        }
        if policy.is_paused() {
            let text = "the policy is paused; what it said before stays in force, for new pods too";
            return (Programming::Paused, text.to_owned() + &self.held(policy));
        }
        if matched == 0 && lost > 0 {
            let text = format!("every pod it selects obeys another policy: {lost}");
            return (Programming::Overridden, text);
        }
        if matched == 0 && policy.in_force.is_none() {
            return (Programming::Pending, "there is nothing to obey yet".to_owned());
        }
        if settled == matched {
            let text = if matched == 0 {
                "no pod is to obey it".to_owned()
            } else {
                format!("pods that were given it: {matched}; that said they obey it: {in_step}")
            };
            return (Programming::Programmed, text + &also);
        }
        let mut text = format!(
            "pods that were given it and say nothing else: {settled} of {matched}; that said they obey it: {in_step}"
        );
        if injected < matched {
            let bare = matched - injected;
            text += &format!("; without a sidecar: {bare}, to be made anew (kubectl rollout restart)");
        }
        let programming = if settled == 0 { Programming::Pending } else { Programming::PartiallyProgrammed };
        (programming, text + &also)
    }

    /// Empty if nothing obeys the policy.
    fn hash_of(&self, name: &str, policy: &Policy) -> String {
        match policy.in_force.as_ref().filter(|_| !self.state.paused) {
            Some(in_force) => in_force.config.hash.clone(),
            None => {
                let of_workload = || self.configs.values().find(|config| config.spec.policy == name);
                let kept = self.last_good(name, policy).or_else(of_workload);
                kept.map(|config| config.spec.hash.clone()).unwrap_or_default()
            }
        }
    }
}

impl Cluster {
    pub(super) fn status_of(
        &self,
        namespaces: usize,
        clamped_policies: usize,
        now: &Time,
    ) -> ClusterSessionPolicyStatus {
        let acceptance = match &self.fault {
            None => (Acceptance::Accepted, "the bounds are valid".to_owned()),
            Some(fault) => (Acceptance::Invalid, format!("{fault}; bounds that were valid before stay in force")),
        };
        let judgement = Judgement { acceptance, programming: (Programming::Programmed, String::new()) };
        let conditions = judgement.conditions(self.generation, &self.status.conditions, now);
        ClusterSessionPolicyStatus {
            observed_generation: self.generation,
            conditions: conditions.into_iter().filter(|condition| condition.type_ == "Accepted").collect(),
            namespaces: count(namespaces),
            clamped_policies: count(clamped_policies),
        }
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
