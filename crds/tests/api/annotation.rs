//! The annotation that carries a config to a sidecar.

use proptest::prelude::*;
use serde_json::{Value, json};
use sipwarden_crds::{
    ClusterSessionPolicy, MAX_ANNOTATION, SessionPolicy, SidecarConfig, bound, compile, from_annotation, to_annotation,
};

use crate::common::valid_policy;

fn compiled(spec: Value) -> Result<SidecarConfig, Vec<String>> {
    let mut policy = SessionPolicy::new("p", serde_json::from_value(spec).expect("the types take it"));
    policy.metadata.generation = Some(1);
    compile(&policy).map_err(|violations| violations.iter().map(ToString::to_string).collect())
}

/// A policy of `rules` rules with one long User-Agent and one `last` characters long.
fn long_policy(rules: usize, last: usize) -> Value {
    let rule = |i: usize| {
        let agents = [&"a".repeat(128); 7].map(ToOwned::to_owned);
        let timers = json!({ "credentials": { "secretName": "a" }, "expiry": { "margin": "5s" } });
        json!({ "name": format!("r{i:02}"), "match": { "userAgents": agents }, "timers": timers })
    };
    let mut rules: Vec<_> = (0..rules).map(rule).collect();
    rules.push(json!({ "name": "last", "match": { "userAgents": ["a".repeat(last)] } }));
    json!({ "rules": rules })
}

#[test]
fn defaults_are_left_out_and_come_back() {
    let rule = json!({ "name": "r", "match": { "direction": "Inbound" }, "timers": { "minSE": "5m" } });
    let config = compiled(json!({ "timers": { "expiry": { "margin": "5s" } }, "rules": [rule] })).expect("valid");
    let text = to_annotation("deployment-asterisk", &config);
    let expected = json!({
        "apiVersion": "sipwarden.dev/v1alpha1",
        "kind": "SidecarConfig",
        "metadata": { "name": "deployment-asterisk" },
        "spec": {
            "policy": "p",
            "generation": 1,
            "hash": config.hash,
            "mode": "Enforce",
            "timers": { "expiry": { "margin": "5s" } },
            "rules": [{
                "name": "r",
                "match": { "direction": "Inbound" },
                "timers": { "minSE": "5m", "expiry": { "margin": "5s" } },
            }],
        },
    });
    assert_eq!(text, expected.to_string());
    assert_eq!(from_annotation(&text), Ok(config));
}

#[test]
fn privacy_is_written_where_it_says_something() {
    let privacy = json!({ "sipUsers": "Show" });
    let config = compiled(json!({ "privacy": privacy })).expect("valid");
    let text = to_annotation("deployment-asterisk", &config);
    assert!(text.contains(r#""privacy":{"sipUsers":"Show"}"#), "{text}");
    assert_eq!(from_annotation(&text), Ok(config));
    assert!(!to_annotation("a", &compiled(json!({})).expect("valid")).contains("privacy"));
}

#[test]
fn an_annotation_holds_a_config_and_nothing_else() {
    let told = |text: &str| from_annotation(text).expect_err("no config")[0].to_string();
    let policy = json!({
        "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SessionPolicy", "metadata": { "name": "p" }, "spec": {},
    });
    assert_eq!(told(&policy.to_string()), "line 1: expected a SidecarConfig; this is a SessionPolicy");
    assert_eq!(told(""), "line 1: expected a SessionPolicy with apiVersion, kind, metadata and spec");
    assert_eq!(told("{"), "line 1: unclosed bracket '{'");
}

#[test]
fn a_policy_too_long_for_an_annotation_is_refused() {
    let message = |excess: usize| {
        format!(
            "spec.rules: too long by {excess} bytes for the annotation of a pod; use fewer or shorter entries to match, \
             or two policies"
        )
    };
    let rules = (1..64).find(|rules| compiled(long_policy(*rules, 1)).is_err()).expect("64 are too many") - 1;
    let last = (1..=128).take_while(|last| compiled(long_policy(rules, *last)).is_ok()).last().unwrap_or(0);
    if last < 128 {
        assert_eq!(compiled(long_policy(rules, last + 1)).unwrap_err(), [message(1)]);
    }
    assert!(compiled(long_policy(63, 128)).is_err());
    let config = compiled(long_policy(rules, last.max(1))).expect("it is just short enough");
    let text = to_annotation("", &config);
    assert!(text.len() > 50_000, "{}", text.len());

    // What compiling does not know still finds room.
    let bounds =
        json!({ "timers": { "minSE": { "atLeast": "2777h46m31s" }, "sessionExpires": { "atLeast": "9999h59m59s" } } });
    let bounds = ClusterSessionPolicy::new("c", serde_json::from_value(bounds).expect("the types take it"));
    let (mut longest, clamps) = bound(&config, &[bounds]);
    assert_eq!(clamps.len(), (rules + 2) * 3);
    longest.generation = i64::MAX;
    let text = to_annotation(&"n".repeat(253), &longest);
    assert!(text.len() <= MAX_ANNOTATION, "{}", text.len());
    assert!(from_annotation(&text) == Ok(longest));
}

#[test]
fn secrets_are_those_that_any_timers_name() {
    let rule = |name: &str, credentials: Value| json!({ "name": name, "match": { "direction": "Inbound" }, "timers": { "credentials": credentials } });
    let config = compiled(json!({
        "timers": { "credentials": { "secretName": "b" } },
        "rules": [
            rule("own", json!({ "secretName": "a" })),
            rule("same", json!({ "secretName": "b" })),
            rule("file", json!({ "file": "/etc/c" })),
        ],
    }));
    assert_eq!(config.expect("valid").secret_names().into_iter().collect::<Vec<_>>(), ["a", "b"]);
}

proptest! {
    #[test]
    fn every_config_is_read_back_from_its_annotation(policy in valid_policy(), name in "[a-z][-a-z0-9.]{0,20}") {
        let config = compile(&policy).expect("a valid policy");
        let text = to_annotation(&name, &config);
        prop_assert!(!text.contains('\n'));
        prop_assert_eq!(from_annotation(&text), Ok(config), "{}", text);
    }
}
