//! The answers of many sidecars as one.

use std::{cmp::Reverse, collections::BTreeMap};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    scope::PodRef,
    sidecar::with_pod,
    wire::{Example, KindCounts, WhatIf},
};

/// As many as a person reads, and each sidecar gives.
const MOST_EXAMPLES: usize = 50;

/// What all sidecars together would have decided.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sums {
    pub(super) judged: u64,
    pub(super) changed: u64,
    /// The oldest request of all.
    pub(super) since: Option<String>,
    pub(super) truncated: bool,
    /// In the order of their names.
    pub(super) by_kind: Vec<KindCounts>,
    #[serde(serialize_with = "examples")]
    pub(super) examples: Vec<PodExample>,
}

/// An example and whose it is.
#[derive(Debug)]
pub(super) struct PodExample {
    pub(super) pod: PodRef,
    pub(super) told: Example,
    raw: Value,
}

impl Sums {
    pub(super) fn of(answers: Vec<(PodRef, WhatIf)>) -> Self {
        let mut sums = Self::default();
        let mut kinds: BTreeMap<String, KindCounts> = BTreeMap::new();
        for (pod, answer) in answers {
            sums.judged += answer.judged;
            sums.changed += answer.changed;
            sums.truncated |= answer.truncated;
            sums.since = [sums.since.take(), answer.since].into_iter().flatten().min_by_key(|at| instant(at));
            for counts in answer.by_kind {
                let sum = kinds.entry(counts.kind.clone()).or_default();
                *sum = KindCounts { kind: counts.kind, now: sum.now + counts.now, then: sum.then + counts.then };
            }
            sums.examples.extend(answer.examples.into_iter().map(|raw| PodExample {
                pod: pod.clone(),
                told: Example::deserialize(&raw).unwrap_or_default(),
                raw,
            }));
        }
        sums.by_kind = kinds.into_values().collect();
        // The newest of all pods, not all of the first pod.
        sums.examples.sort_by_cached_key(|example| Reverse(instant(&example.told.at)));
        sums.examples.truncate(MOST_EXAMPLES);
        sums
    }
}

/// Texts of the same moment differ in how many digits their fraction has. What is no time comes first.
fn instant(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn examples<S: serde::Serializer>(all: &[PodExample], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().map(|example| with_pod(&example.pod, example.raw.clone())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(judged: u64, since: &str, now: u64, then: u64, at: &str) -> WhatIf {
        let value = json!({
            "judged": judged, "since": since, "changed": then - now, "truncated": false,
            "by_kind": [{ "kind": "Rejected", "now": now, "then": then }, { "kind": "Lowered", "now": 1, "then": 1 }],
            "examples": vec![json!({ "at": at, "call_id": at, "peer": "192.0.2.1:5060", "now": [], "then": [] }); 30],
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn moments_are_compared_and_not_their_texts() {
        let pod = || PodRef { namespace: "voice".to_owned(), name: "a".to_owned() };
        let at = |second: &str| format!("2026-01-01T00:00:{second}Z");
        let answers = ["01.49", "01.491", "01"].map(|second| (pod(), answer(1, &at(second), 0, 0, &at(second))));
        let sums = Sums::of(answers.into());
        assert_eq!(sums.since, Some(at("01")));
        let order: Vec<&str> = sums.examples.iter().map(|example| example.told.at.as_str()).collect();
        assert!(order[..30].iter().all(|told| *told == at("01.491")), "newest first: {order:?}");
    }

    #[test]
    fn what_sidecars_answer_is_added_up() {
        let pod = |name: &str| PodRef { namespace: "voice".to_owned(), name: name.to_owned() };
        let sums = Sums::of(vec![
            (pod("a"), answer(10, "2026-01-01T01:00:00Z", 1, 3, "2026-01-01T01:10:00Z")),
            (pod("b"), answer(5, "2026-01-01T00:30:00Z", 0, 4, "2026-01-01T01:20:00Z")),
        ]);
        assert_eq!((sums.judged, sums.changed), (15, 6));
        assert_eq!(sums.since.as_deref(), Some("2026-01-01T00:30:00Z"));
        let counts = |kind: &str, now, then| KindCounts { kind: kind.to_owned(), now, then };
        assert_eq!(sums.by_kind, [counts("Lowered", 2, 2), counts("Rejected", 1, 7)]);
        assert_eq!(sums.examples.len(), MOST_EXAMPLES);
        assert!(sums.examples[..30].iter().all(|example| example.pod.name == "b"), "newest first");
        let value = serde_json::to_value(&sums).unwrap();
        assert_eq!((&value["byKind"][1]["then"], &value["examples"][0]["pod"]), (&json!(7), &json!("b")));
    }
}
