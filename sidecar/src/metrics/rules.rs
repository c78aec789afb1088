//! What each rule of the policy in force decided, done or only observed: how one sees what Enforce would do before daring
//! it. The series are those of the policy in force, no others: those of one that was replaced are gone.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use sipwarden_session_timer::{Event, EventKind, Policy};

use crate::report::mode_name;

/// What is decided by a policy, and done or not by its mode. Other events follow from these, or are somebody else's doing.
const DECISIONS: [&str; 8] =
    ["Rejected", "Inserted", "Lowered", "Raised", "MinSeRaised", "RefresherChosen", "Completed", "Expired"];
/// Calls that no rule matches. It is no name of a rule: those begin with a letter or a digit.
const NO_RULE: &str = "-";

/// The family, of which there is one table at a time.
pub struct RuleMetrics {
    family: IntCounterVec,
    series: Mutex<HashSet<[String; 4]>>,
}

/// The counters of one policy, resolved once.
pub struct RuleCounters {
    policy: Arc<Policy>,
    /// Those of no rule first, then rule by rule.
    counters: Box<[IntCounter]>,
}

impl RuleMetrics {
    pub(super) fn new(registry: &Registry) -> RuleMetrics {
        let help = "What the policy in force decided, by the rule that held the call (- where none did) and the mode: in \
                    Observe it was not done.";
        let options = Opts::new("sipwarden_rule_decisions_total", help);
        let family = IntCounterVec::new(options, &["policy", "rule", "mode", "decision"]).expect("a legal name");
        registry.register(Box::new(family.clone())).expect("each name is registered once");
        RuleMetrics { family, series: Mutex::default() }
    }

    /// The counters of `policy`, which is in force from now on. Series that both policies have go on.
    pub fn in_force(&self, policy: &Arc<Policy>) -> Arc<RuleCounters> {
        let mode = mode_name(policy.mode);
        let rules = std::iter::once(NO_RULE).chain(policy.rules.iter().map(|rule| rule.name.as_str()));
        let labels: Vec<[&str; 4]> =
            rules.flat_map(|rule| DECISIONS.map(|decision| [policy.name.as_str(), rule, mode, decision])).collect();
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: HashSet<_> = labels.iter().map(|labels| labels.map(str::to_owned)).collect();
        for old in series.difference(&wanted) {
            // It is there, or was never counted.
            let _ = self.family.remove_label_values(&old.each_ref().map(String::as_str));
        }
        let counters = labels.iter().map(|labels| self.family.with_label_values(labels)).collect();
        *series = wanted;
        Arc::new(RuleCounters { policy: Arc::clone(policy), counters })
    }
}

impl RuleCounters {
    /// Is it something that is counted here?
    pub fn counts(event: &Event) -> bool {
        decision_index(event.kind).is_some()
    }

    /// Counts a decision taken by `policy`. One of a policy that was replaced counts for the rule of the same name, if the
    /// policy is still called so and its mode is the same.
    pub fn count(&self, event: &Event, policy: &Arc<Policy>) {
        let Some(decision) = decision_index(event.kind) else { return };
        let row = if Arc::ptr_eq(policy, &self.policy) {
            event.rule.map(|rule| usize::from(rule) + 1).unwrap_or_default()
        } else {
            let Some(row) = self.row_of_older(event, policy) else { return };
            row
        };
        if let Some(counter) = self.counters.get(row * DECISIONS.len() + decision) {
            counter.inc();
        }
    }

    fn row_of_older(&self, event: &Event, policy: &Policy) -> Option<usize> {
        if (&policy.name, policy.mode) != (&self.policy.name, self.policy.mode) {
            return None;
        }
        match policy.rule_name(event.rule) {
            None => Some(0),
            Some(name) => self.policy.rule_named(name).map(|rule| usize::from(rule) + 1),
        }
    }
}

fn decision_index(kind: EventKind) -> Option<usize> {
    match kind {
        EventKind::Rejected { .. } => Some(0),
        EventKind::Inserted { .. } => Some(1),
        EventKind::Lowered { .. } => Some(2),
        EventKind::Raised { .. } => Some(3),
        EventKind::MinSeRaised { .. } => Some(4),
        EventKind::RefresherChosen { .. } => Some(5),
        EventKind::Completed { .. } => Some(6),
        EventKind::Expired { .. } => Some(7),
        EventKind::RejectionSeen { .. }
        | EventKind::RejectionWithoutMinSe { .. }
        | EventKind::Malformed { .. }
        | EventKind::ShortInterval { .. }
        | EventKind::RefresherUnclear { .. }
        | EventKind::Established { .. }
        | EventKind::Refreshed { .. }
        | EventKind::TimerOff { .. }
        | EventKind::RefreshFailed { .. }
        | EventKind::ByeSent { .. }
        | EventKind::ByeDone { .. }
        | EventKind::LateRequest { .. }
        | EventKind::Ended { .. }
        | EventKind::ActsForApp
        | EventKind::Retried { .. }
        | EventKind::RefreshSent { .. }
        | EventKind::NotRefreshed { .. }
        | EventKind::AnsweredForApp { .. }
        | EventKind::ProbeSent
        | EventKind::ProbeFailed { .. }
        | EventKind::Glare { .. }
        | EventKind::MediaChanged
        | EventKind::Challenged { .. }
        | EventKind::UnknownDialog { .. }
        | EventKind::LimitReached { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use sipwarden_session_timer::{Leg, Match, Mode, Rule, Timers};

    use super::super::Metrics;
    use super::*;
    use crate::report::{Record, samples};

    fn policy(name: &str, mode: Mode, rules: &[&str]) -> Arc<Policy> {
        let rule = |name: &&str| Rule { name: (*name).into(), matches: Match::default(), timers: Timers::default() };
        let rules = rules.iter().map(rule).collect();
        Arc::new(Policy { name: name.into(), mode, rules, ..Policy::observe() })
    }

    fn rejected(rule: Option<u16>) -> Event {
        let kind = EventKind::Rejected { to: Leg::Remote, asked: 60, min_se: 90 };
        Event { session: None, observed: true, rule, kind }
    }

    fn series(metrics: &Metrics) -> Vec<String> {
        let text = metrics.render(0);
        text.lines().filter(|line| line.starts_with("sipwarden_rule_decisions_total")).map(str::to_owned).collect()
    }

    fn line(policy: &str, rule: &str, mode: &str, value: u64) -> String {
        format!(
            r#"sipwarden_rule_decisions_total{{decision="Rejected",mode="{mode}",policy="{policy}",rule="{rule}"}} {value}"#
        )
    }

    #[test]
    fn decisions_are_counted_by_policy_rule_and_mode() {
        let metrics = Metrics::new();
        let carrier = policy("carrier", Mode::Observe, &["phones", "trunk"]);
        let counters = metrics.rules.in_force(&carrier);
        counters.count(&rejected(None), &carrier);
        counters.count(&rejected(Some(1)), &carrier);
        counters.count(&rejected(Some(1)), &carrier);
        let series = series(&metrics);
        for expected in [
            line("carrier", "-", "Observe", 1),
            line("carrier", "phones", "Observe", 0),
            line("carrier", "trunk", "Observe", 2),
        ] {
            assert!(series.contains(&expected), "{expected} in {series:#?}");
        }
    }

    #[test]
    fn there_are_never_more_series_than_the_policy_in_force_has_rules() {
        let metrics = Metrics::new();
        for generation in 0..50 {
            let names: Vec<String> = (0..64).map(|rule| format!("rule-{generation}-{rule}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let next = policy(&format!("policy-{generation}"), Mode::Enforce, &names);
            metrics.rules.in_force(&next).count(&rejected(Some(3)), &next);
            assert_eq!(series(&metrics).len(), 65 * DECISIONS.len());
        }
        metrics.rules.in_force(&policy("last", Mode::Enforce, &[]));
        let left = series(&metrics);
        assert_eq!(left.len(), DECISIONS.len());
        assert!(left.iter().all(|line| line.contains(r#"policy="last""#)), "{left:#?}");
    }

    #[test]
    fn what_stays_of_a_policy_goes_on_counting() {
        let metrics = Metrics::new();
        let old = policy("carrier", Mode::Observe, &["gone", "phones"]);
        metrics.rules.in_force(&old).count(&rejected(Some(1)), &old);
        let new = policy("carrier", Mode::Observe, &["phones"]);
        let counters = metrics.rules.in_force(&new);
        counters.count(&rejected(Some(0)), &new);
        // A session that began under the old one.
        counters.count(&rejected(Some(1)), &old);
        counters.count(&rejected(Some(0)), &old);
        assert!(series(&metrics).contains(&line("carrier", "phones", "Observe", 3)));
        let enforced = metrics.rules.in_force(&policy("carrier", Mode::Enforce, &["phones"]));
        enforced.count(&rejected(Some(0)), &new);
        assert!(series(&metrics).contains(&line("carrier", "phones", "Enforce", 0)), "it was only observed");
    }

    #[test]
    fn decisions_have_the_names_of_their_events() {
        for kind in samples() {
            if let Some(index) = decision_index(kind) {
                assert_eq!(DECISIONS[index], Record::of(kind).kind);
            }
        }
    }
}
