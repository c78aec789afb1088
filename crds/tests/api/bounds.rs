//! What ClusterSessionPolicies may say, and what they make of a config.

use std::sync::LazyLock;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use sipwarden_crds::{
    Clamp, ClusterSessionPolicy, ClusterSessionPolicySpec, Duration, DurationBounds, Margin, Mode, ModeBounds,
    SessionPolicy, SidecarConfig, TimerBounds, Timers, bound, compile,
};

use crate::common::{self, holds, valid_policy};

static SCHEMA: LazyLock<Value> = LazyLock::new(common::schema_of::<ClusterSessionPolicy>);

fn cluster_policy(name: &str, spec: Value) -> ClusterSessionPolicy {
    ClusterSessionPolicy::new(name, serde_json::from_value(spec).expect("the types take it"))
}

fn config(spec: Value) -> SidecarConfig {
    compile(&SessionPolicy::new("p", serde_json::from_value(spec).expect("the types take it"))).expect("a valid policy")
}

fn told(clamps: &[Clamp]) -> Vec<String> {
    clamps.iter().map(|c| format!("{}: {} -> {} by {}", c.field, c.asked, c.given, c.by)).collect()
}

#[test]
fn cel_and_rust_refuse_the_same_bounds() {
    let min_se = |bounds: Value| json!({ "timers": { "minSE": bounds } });
    let cases = [
        (json!({}), &[][..]),
        (json!({ "mode": { "atMost": "Observe" } }), &[]),
        (json!({ "mode": { "atLeast": "Observe", "atMost": "Enforce" } }), &[]),
        (
            json!({ "mode": { "atLeast": "Enforce", "atMost": "Observe" } }),
            &["spec.mode.atLeast: Enforce is above atMost, which is Observe"],
        ),
        (min_se(json!({ "atLeast": "90s", "atMost": "90s" })), &[]),
        (
            min_se(json!({ "atLeast": "89s" })),
            &["spec.timers.minSE.atLeast: 89s is below 90s, the least RFC 4028 §4 allows"],
        ),
        (
            min_se(json!({ "atMost": "1m" })),
            &["spec.timers.minSE.atMost: 1m is below 90s, the least RFC 4028 §4 allows"],
        ),
        (
            min_se(json!({ "atLeast": "3m", "atMost": "2m" })),
            &["spec.timers.minSE.atLeast: 3m is above atMost, which is 2m"],
        ),
        (
            json!({ "timers": { "sessionExpires": { "atLeast": "2h", "atMost": "1h" } } }),
            &["spec.timers.sessionExpires.atLeast: 2h is above atMost, which is 1h"],
        ),
        (json!({ "timers": { "minSE": { "atLeast": "10m" }, "sessionExpires": { "atMost": "10m" } } }), &[]),
        (
            json!({ "timers": { "minSE": { "atLeast": "11m" }, "sessionExpires": { "atMost": "10m" } } }),
            &["spec.timers.minSE.atLeast: 11m is above sessionExpires.atMost, which is 10m; no minSE may be"],
        ),
    ];
    for (spec, expected) in cases {
        let policy = cluster_policy("c", spec.clone());
        let by_rust: Vec<_> = policy.violations().iter().map(ToString::to_string).collect();
        assert_eq!(by_rust, expected, "{spec}");
        let by_cel = common::cel_verdict(&SCHEMA, &json!({ "spec": spec }));
        assert_eq!(by_cel.is_empty(), expected.is_empty(), "{spec}: {by_cel:?}");
    }
}

#[test]
fn a_cluster_policy_needs_a_name_and_a_selector_that_selects() {
    let selector = json!({ "matchExpressions": [{ "key": "team", "operator": "Like" }] });
    let policy = cluster_policy("", json!({ "namespaceSelector": selector }));
    let found: Vec<_> = policy.violations().iter().map(|violation| violation.path.clone()).collect();
    assert_eq!(found, ["metadata.name", "spec.namespaceSelector"]);
}

#[test]
fn within_its_bounds_a_config_stays_as_it_is() {
    let config = config(json!({ "timers": { "minSE": "5m" } }));
    let policy = cluster_policy(
        "c",
        json!({ "mode": { "atLeast": "Observe" }, "timers": { "minSE": { "atLeast": "5m", "atMost": "5m" } } }),
    );
    assert_eq!(bound(&config, &[]), (config.clone(), Vec::new()));
    assert_eq!(bound(&config, &[policy]), (config, Vec::new()));
}

#[test]
fn each_setting_beyond_a_bound_is_told_with_the_policy_that_bounds_it() {
    let rule = json!({ "name": "r", "match": { "direction": "Inbound" }, "timers": { "sessionExpires": "2h" } });
    let config = config(json!({ "timers": { "expiry": { "margin": "20m" } }, "rules": [rule] }));
    let policies = [
        cluster_policy("short", json!({ "timers": { "sessionExpires": { "atMost": "15m" } } })),
        cluster_policy("longer", json!({ "timers": { "sessionExpires": { "atMost": "1h" } } })),
        cluster_policy("calm", json!({ "mode": { "atMost": "Observe" }, "timers": { "minSE": { "atLeast": "2m" } } })),
        cluster_policy("also-calm", json!({ "mode": { "atMost": "Observe" } })),
    ];
    let (given, clamps) = bound(&config, &policies);
    assert_eq!(
        told(&clamps),
        [
            "spec.mode: Enforce -> Observe by also-calm",
            "spec.timers.sessionExpires: 30m -> 15m by short",
            "spec.timers.minSE: 90s -> 2m by calm",
            "spec.timers.expiry.margin: 20m -> 5m by short",
            "spec.rules[0].timers.sessionExpires: 2h -> 15m by short",
            "spec.rules[0].timers.minSE: 90s -> 2m by calm",
            "spec.rules[0].timers.expiry.margin: 20m -> 5m by short",
        ]
    );
    assert_ne!(given.hash, config.hash);
    assert_eq!((given.policy, given.rules[0].name.as_str()), (config.policy, "r"));
}

#[test]
fn what_follows_from_a_raised_min_se_is_raised_with_it() {
    let config = config(json!({ "timers": { "sessionExpires": "5m", "maxMinSE": "6m" } }));
    let policy = cluster_policy("long", json!({ "timers": { "minSE": { "atLeast": "10m" } } }));
    assert_eq!(
        told(&bound(&config, &[policy]).1),
        [
            "spec.timers.sessionExpires: 5m -> 10m by long",
            "spec.timers.minSE: 90s -> 10m by long",
            "spec.timers.maxMinSE: 6m -> 10m by long",
        ]
    );
}

#[test]
fn where_policies_contradict_each_other_the_bound_from_above_counts() {
    let policies = [
        cluster_policy("a", json!({ "mode": { "atLeast": "Enforce" }, "timers": { "minSE": { "atLeast": "1h" } } })),
        cluster_policy(
            "b",
            json!({ "mode": { "atMost": "Observe" }, "timers": { "sessionExpires": { "atMost": "20m" } } }),
        ),
    ];
    let (given, clamps) = bound(&config(json!({})), &policies);
    assert_eq!(given.mode, Mode::Observe);
    assert_eq!(
        told(&clamps),
        [
            "spec.mode: Enforce -> Observe by b",
            "spec.timers.sessionExpires: 30m -> 20m by b",
            "spec.timers.minSE: 90s -> 20m by a",
        ]
    );
}

/// Bounds as an API server without CEL would take them.
fn any_cluster_policy() -> impl Strategy<Value = ClusterSessionPolicy> {
    let mode = || option::of(select(vec![Mode::Enforce, Mode::Observe]));
    let duration = || {
        let secs = prop_oneof![1 => 0..90u32, 9 => 90..=9000u32];
        option::of(secs.prop_map(|secs| Duration::from_secs(secs).expect("it is short")))
    };
    let durations =
        move || (duration(), duration()).prop_map(|(at_least, at_most)| DurationBounds { at_least, at_most });
    ("[a-c]", (mode(), mode()), durations(), durations()).prop_map(|(name, mode, min_se, session_expires)| {
        let mode = ModeBounds { at_least: mode.0, at_most: mode.1 };
        let timers = TimerBounds { min_se, session_expires };
        ClusterSessionPolicy::new(&name, ClusterSessionPolicySpec { namespace_selector: None, mode, timers })
    })
}

fn all_timers(config: &SidecarConfig) -> impl Iterator<Item = &Timers> {
    config.rules.iter().map(|rule| &rule.timers).chain([&config.timers])
}

/// How many settings that can be bounded differ.
fn differences(a: &SidecarConfig, b: &SidecarConfig) -> usize {
    let timers = all_timers(a).zip(all_timers(b)).map(|(a, b)| {
        usize::from(a.min_se != b.min_se)
            + usize::from(a.session_expires != b.session_expires)
            + usize::from(a.max_min_se != b.max_min_se)
            + usize::from(a.expiry.margin != b.expiry.margin)
    });
    usize::from(a.mode != b.mode) + timers.sum::<usize>()
}

proptest! {
    #[test]
    fn valid_configs_stay_valid_and_bounding_again_changes_nothing(
        policy in valid_policy(),
        policies in vec(any_cluster_policy(), 0..4),
    ) {
        let config = compile(&policy).expect("a valid policy");
        let (given, clamps) = bound(&config, &policies);
        prop_assert!(all_timers(&given).all(holds));
        prop_assert_eq!(clamps.len(), differences(&config, &given));
        prop_assert!(clamps.iter().all(|clamp| policies.iter().any(|p| p.metadata.name.as_ref() == Some(&clamp.by))));
        prop_assert_eq!(bound(&given, &policies), (given, Vec::new()));
    }

    #[test]
    fn the_order_of_cluster_policies_does_not_matter(
        policy in valid_policy(),
        (policies, shuffled) in vec(any_cluster_policy(), 0..4).prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())),
    ) {
        let config = compile(&policy).expect("a valid policy");
        prop_assert_eq!(bound(&config, &policies), bound(&config, &shuffled));
    }

    #[test]
    fn nothing_is_beyond_a_bound(policy in valid_policy(), policies in vec(any_cluster_policy(), 0..3)) {
        prop_assume!(policies.iter().all(|policy| policy.violations().is_empty()));
        let (given, _) = bound(&compile(&policy).expect("a valid policy"), &policies);
        let specs = || policies.iter().map(|policy| &policy.spec);
        let least = |of: fn(&TimerBounds) -> DurationBounds| specs().filter_map(|s| of(&s.timers).at_least).max();
        let most = |of: fn(&TimerBounds) -> DurationBounds| specs().filter_map(|s| of(&s.timers).at_most).min();
        let (min_se, interval) = (|t: &TimerBounds| t.min_se, |t: &TimerBounds| t.session_expires);
        for timers in all_timers(&given) {
            prop_assert!(most(min_se).is_none_or(|most| timers.min_se <= most));
            prop_assert!(most(interval).is_none_or(|most| timers.session_expires <= most));
            // Floors that go with all ceilings hold as well.
            let ceiling = [most(min_se), most(interval)].into_iter().flatten().min();
            if ceiling.is_none_or(|most| least(min_se).is_none_or(|least| least <= most)) {
                prop_assert!(least(min_se).is_none_or(|least| timers.min_se >= least));
            }
            if most(interval).is_none_or(|most| least(interval).is_none_or(|least| least <= most)) {
                prop_assert!(least(interval).is_none_or(|least| timers.session_expires >= least));
            }
        }
        if specs().any(|spec| spec.mode.at_most == Some(Mode::Observe)) {
            prop_assert_eq!(given.mode, Mode::Observe);
        } else if specs().any(|spec| spec.mode.at_least == Some(Mode::Enforce)) {
            prop_assert_eq!(given.mode, Mode::Enforce);
        }
    }

    #[test]
    fn cel_and_rust_judge_any_bounds_alike(policy in any_cluster_policy()) {
        let by_cel = common::cel_verdict(&SCHEMA, &serde_json::to_value(&policy).expect("JSON"));
        prop_assert_eq!(by_cel.is_empty(), policy.violations().is_empty(), "{:?}", by_cel);
    }
}

#[test]
fn a_lowered_margin_counts_for_as_much_as_before() {
    let config = config(json!({ "timers": { "expiry": { "margin": "25m" } } }));
    let policy = cluster_policy("c", json!({ "timers": { "sessionExpires": { "atMost": "20m" } } }));
    let (given, _) = bound(&config, &[policy]);
    // Never more than a third of the interval counts.
    assert_eq!(given.timers.expiry.margin, Margin::Fixed("6m40s".parse().expect("a duration")));
}
