//! The answers of many sidecars as one sidecar would give them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{scope::PodRef, wire::Status};

/// As the sidecar keeps them.
const INTERVAL_S: f64 = 10.0;
const CAPACITY: usize = 360;
const COUNTS: [&str; 4] = ["active", "refreshes", "rejections", "expiries"];
/// Problems shown; the page has room for a few lines.
const MOST_PROBLEMS: usize = 8;

/// Of whom to ask what, so that the answers are the sessions from `offset` on: pod, offset and limit.
pub(super) fn parts(totals: &[(PodRef, usize)], offset: usize, limit: usize) -> Vec<(PodRef, (usize, usize))> {
    let (mut skip, mut left) = (offset, limit);
    let mut parts = Vec::new();
    for (pod, total) in totals {
        let here = total.saturating_sub(skip).min(left);
        if here > 0 {
            parts.push((pod.clone(), (skip, here)));
            left -= here;
        }
        skip = skip.saturating_sub(*total);
    }
    parts
}

/// Samples of the same ten seconds are added. Before a sidecar's first sample it counted what that says: what happened
/// before nobody saw, and it is nothing that happened when the sidecar was first seen.
pub(super) fn history(all: impl IntoIterator<Item = Value>) -> Value {
    let mut sums = vec![[0.0; COUNTS.len()]; CAPACITY + 1];
    let mut oldest = 0;
    for history in all {
        let Some(samples) = history["samples"].as_array() else { continue };
        let place = |sample: &Value| {
            ((sample["ago_s"].as_f64().unwrap_or_default() / INTERVAL_S).round() as usize).min(CAPACITY)
        };
        oldest = samples.first().map_or(oldest, |first| oldest.max(place(first)));
        // Oldest first; each counts until the next one.
        let mut samples = samples.iter().peekable();
        let mut current = samples.peek().copied();
        let mut is_seen = false;
        for ago in (0..=CAPACITY).rev() {
            while let Some(next) = samples.next_if(|next| place(next) >= ago) {
                current = Some(next);
                is_seen = true;
            }
            let Some(sample) = current else { continue };
            for (sum, name) in sums[ago].iter_mut().zip(COUNTS) {
                let counts = is_seen || name != "active";
                *sum += if counts { sample[name].as_f64().unwrap_or_default() } else { 0.0 };
            }
        }
    }
    let sample = |ago: usize| {
        let mut sample = json!({ "ago_s": ago as f64 * INTERVAL_S });
        for (name, sum) in COUNTS.iter().zip(sums[ago]) {
            sample[name] = (sum as u64).into();
        }
        sample
    };
    let samples: Vec<Value> = (0..=oldest).rev().map(sample).collect();
    json!({ "interval_s": INTERVAL_S as u64, "capacity": CAPACITY, "samples": samples })
}

/// Policies by name where they are few, and who has a problem or does not answer.
pub(super) fn status(came: Vec<(PodRef, Status)>, silent: Vec<String>) -> Value {
    let one_or = |values: BTreeSet<&str>, many: &str| match values.len() {
        0 => "none".to_owned(),
        1..=3 => values.into_iter().collect::<Vec<_>>().join(", "),
        count => format!("{count} {many}"),
    };
    let policy = one_or(came.iter().map(|(_, status)| status.policy.as_str()).collect(), "policies");
    let mode = one_or(came.iter().map(|(_, status)| status.mode.as_str()).collect(), "modes");
    let sessions: u64 = came.iter().map(|(_, status)| status.sessions).sum();
    let errors = came.iter().filter_map(|(pod, status)| Some(format!("{pod}: {}", status.error.as_ref()?)));
    let mut problems: Vec<String> =
        errors.chain(silent.into_iter().map(|pod| format!("no answer from {pod}"))).collect();
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    problems.truncate(MOST_PROBLEMS);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    let error = (!problems.is_empty()).then(|| problems.join("\n"));
    let policy = format!("{policy} ({} sidecars)", came.len());
    json!({ "policy": policy, "mode": mode, "sessions": sessions, "error": error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodRef {
        PodRef { namespace: "voice".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_page_is_put_together_from_the_pods_it_reaches_over() {
        let totals = [(pod("a"), 3), (pod("b"), 0), (pod("c"), 10)];
        let parts = |offset, limit| -> Vec<(String, usize, usize)> {
            parts(&totals, offset, limit).into_iter().map(|(pod, (skip, here))| (pod.name, skip, here)).collect()
        };
        assert_eq!(parts(0, 5), [("a".to_owned(), 0, 3), ("c".to_owned(), 0, 2)]);
        assert_eq!(parts(5, 5), [("c".to_owned(), 2, 5)]);
        assert_eq!(parts(10, 5), [("c".to_owned(), 7, 3)]);
        assert_eq!(parts(2, 1), [("a".to_owned(), 2, 1)]);
        assert_eq!(parts(13, 5), []);
    }

    #[test]
    fn an_hour_of_a_young_sidecar_is_added_to_that_of_an_old_one_without_a_jump() {
        let sample = |ago: f64, active: u64, refreshes: u64| json!({ "ago_s": ago, "active": active, "refreshes": refreshes, "rejections": 0, "expiries": 0 });
        let old = json!({ "samples": [sample(40.2, 1, 10), sample(30.1, 2, 11), sample(20.0, 2, 12), sample(9.9, 3, 14), sample(0.0, 3, 15)] });
        let young = json!({ "samples": [sample(12.0, 5, 100), sample(0.0, 6, 103)] });
        let sum = history([old, young]);
        let of = |name: &str| -> Vec<u64> {
            sum["samples"].as_array().unwrap().iter().map(|sample| sample[name].as_u64().unwrap()).collect()
        };
        assert_eq!(of("active"), [1, 2, 2, 8, 9], "it was not there before");
        assert_eq!(of("refreshes"), [110, 111, 112, 114, 118], "3 refreshes of the young one, not 100 at once");
        assert_eq!(sum["samples"][0]["ago_s"], 40.0);
    }

    #[test]
    fn problems_of_all_are_told_within_bounds() {
        let bad = Status {
            error: Some("bad file".to_owned()),
            policy: "carrier".to_owned(),
            mode: "Enforce".to_owned(),
            sessions: 2,
            ..Status::default()
        };
        let came = vec![(pod("a"), bad.clone()), (pod("b"), Status { error: None, ..bad })];
        let told = status(came, (0..10).map(|index| format!("voice/s-{index}: refused")).collect());
        assert_eq!((&told["policy"], &told["sessions"]), (&json!("carrier (2 sidecars)"), &json!(4)));
        let error = told["error"].as_str().unwrap();
        assert!(error.starts_with("voice/a: bad file\nno answer from voice/s-0: refused\n"), "{error}");
        assert!(error.ends_with("and 3 more"), "{error}");
    }
}
