//! The policy in force and how its file was received.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus::{Gauge, GaugeVec, IntGauge, Opts, Registry};

use super::grid::Grid;
use super::{Reload, gauge};

/// What is told of the policy in force. There is one series of the info metric at a time, whatever comes and goes.
pub struct PolicyMetrics {
    info: GaugeVec,
    generation: IntGauge,
    age: Gauge,
    problems: IntGauge,
    reloads: Grid<1>,
    since: Mutex<Instant>,
}

/// A policy in force.
#[derive(Clone, Copy, Debug)]
pub struct PolicyFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its generation, 0 where nobody counts.
    pub generation: i64,
    /// Its hash.
    pub hash: &'a str,
    /// `Enforce` or `Observe`.
    pub mode: &'a str,
    /// `File`, `LastGood` or `BuiltIn`.
    pub source: &'a str,
    /// Since when it is in force.
    pub since: Instant,
}

impl PolicyMetrics {
    pub(super) fn new(registry: &Registry) -> PolicyMetrics {
        let info = GaugeVec::new(
            Opts::new("sipwarden_policy_info", "The policy in force; always 1."),
            &["name", "generation", "hash", "mode", "source"],
        )
        .expect("a legal name and legal labels");
        registry.register(Box::new(info.clone())).expect("each name is registered once");
        let age = Gauge::new("sipwarden_policy_age_seconds", "Time since the policy in force came into force.")
            .expect("a legal name");
        registry.register(Box::new(age.clone())).expect("each name is registered once");
        PolicyMetrics {
            info,
            generation: gauge(registry, "sipwarden_policy_generation", "Generation of the policy in force."),
            age,
            problems: gauge(
                registry,
                "sipwarden_policy_problems",
                "What is wrong now with the policy file and the credentials it names; /status has the words.",
            ),
            reloads: Grid::new(
                registry,
                "sipwarden_policy_reloads_total",
                "Policy files read again; a refused one leaves the old policy in force.",
                [("result", &["Applied", "Unchanged", "Refused"])],
            ),
            since: Mutex::new(Instant::now()),
        }
    }

    /// The policy file was read again.
    pub fn reload(&self, result: Reload) {
        self.reloads.inc([result as usize]);
    }

    /// The policy now in force.
    pub fn in_force(&self, facts: PolicyFacts) {
        let PolicyFacts { name, generation, hash, mode, source, since } = facts;
        self.info.reset();
        self.info.with_label_values(&[name, &generation.to_string(), hash, mode, source]).set(1.0);
        self.generation.set(generation);
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// How many things are wrong with the file and what it names.
    pub fn problems(&self, count: usize) {
        self.problems.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Before it is shown.
    pub(super) fn grow_older(&self) {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.age.set(since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metrics;
    use super::*;

    #[test]
    fn only_the_policy_in_force_has_an_info_line() {
        let metrics = Metrics::new();
        let since = Instant::now().checked_sub(Duration::from_secs(60)).expect("a minute of up-time");
        let old = PolicyFacts { name: "old", generation: 1, hash: "aa", mode: "Observe", source: "LastGood", since };
        metrics.policy.in_force(old);
        metrics.policy.in_force(PolicyFacts { name: "new", generation: 2, hash: "bb", source: "File", ..old });
        metrics.policy.problems(3);
        let text = metrics.render(0);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("sipwarden_policy_info")).collect();
        assert_eq!(
            lines,
            [r#"sipwarden_policy_info{generation="2",hash="bb",mode="Observe",name="new",source="File"} 1"#]
        );
        for line in ["sipwarden_policy_generation 2", "sipwarden_policy_problems 3"] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let age = text.lines().find_map(|line| line.strip_prefix("sipwarden_policy_age_seconds "));
        assert!(age.expect("an age").parse::<f64>().expect("a number") >= 60.0);
    }

    #[test]
    fn each_result_of_a_reload_has_its_label() {
        let metrics = Metrics::new();
        metrics.policy.reload(Reload::Refused);
        assert!(metrics.render(0).contains(r#"sipwarden_policy_reloads_total{result="Refused"} 1"#));
    }
}
