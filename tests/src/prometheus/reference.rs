//! docs/metrics.md: every metric with its type, its labels and all values they can have, from the registries themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sipwarden_operator::state::State;
use sipwarden_operator::{certs, webhook};
use sipwarden_session_timer::{Mode, Policy};
use sipwarden_sidecar::metrics::{Metrics, PolicyFacts};

use super::exposition::{Family, families};

const INTRODUCTION: &str = include_str!("metrics.md");

/// The metrics with labels that are the policy's own, and which labels these are. Only the policy in force has series.
pub const OPEN: [(&str, &[&str]); 2] = [
    ("sipwarden_policy_info", &["generation", "hash", "mode", "name", "source"]),
    ("sipwarden_rule_decisions_total", &["mode", "policy", "rule"]),
];

/// The labels of a metric that are the policy's own.
pub fn open_labels(metric: &str) -> &'static [&'static str] {
    OPEN.iter().find(|(open, _)| *open == metric).map_or(&[], |(_, labels)| labels)
}

/// What docs/metrics.md has to say.
pub fn render() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (title, families) in [("Sidecar", sidecar()), ("Operator", operator())] {
        let _ = write!(text, "\n## {title}\n\n| metric | type | labels | |\n|---|---|---|---|\n");
        for family in families {
            let Family { name, kind, help, .. } = &family;
            let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels(&family));
        }
    }
    text
}

/// How docs/metrics.md has sidecars scraped.
pub fn scrape_config() -> Value {
    let config = INTRODUCTION.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config: Value = serde_saphyr::from_str(config.expect("an example")).expect("YAML");
    config["scrape_configs"][0].clone()
}

/// What a sidecar tells.
pub fn sidecar() -> Vec<Family> {
    let metrics = Metrics::new();
    let (hash, since) = ("0123456789abcdef", Instant::now());
    let facts = PolicyFacts { name: "carrier", generation: 3, hash, mode: "Enforce", source: "File", since };
    metrics.policy.in_force(facts);
    metrics.rules.in_force(&Arc::new(Policy { name: "carrier".into(), mode: Mode::Enforce, ..Policy::observe() }));
    families(&metrics.render(0))
}

/// What an operator tells that has asked its API server everything it ever does.
pub fn operator() -> Vec<Family> {
    families(&operator_text())
}

/// The same as a scrape gets it.
pub fn operator_text() -> String {
    let metrics = sipwarden_operator::metrics::Metrics::new().expect("names are good and different");
    webhook::Metrics::new(metrics.registry()).expect("names are good and different");
    certs::Metrics::new(metrics.registry()).expect("names are good and different");
    for verb in ["watch", "read", "patch", "create", "update", "delete", "other"] {
        for status in [200, 302, 404, 409, 429, 403, 500] {
            metrics.api_request(verb, status.try_into().ok());
        }
        metrics.api_request(verb, None);
    }
    metrics.render(&State::new("default"), Duration::ZERO).expect("metrics are text")
}

fn labels(family: &Family) -> String {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in family.series.iter().flatten() {
        values.entry(name).or_default().insert(value);
    }
    let shown = values.iter().map(|(name, values)| {
        if open_labels(&family.name).contains(name) {
            return format!("`{name}`");
        }
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{name}`: {}", values.join(", "))
    });
    shown.collect::<Vec<_>>().join("; ")
}
