//! What holds for every policy, and that the API server's CEL and compiling in Rust judge alike.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use sipwarden_crds::{
    SessionPolicy, SessionPolicySpec, Timers, compile,
    file::{self, Loaded},
};

use crate::common::{self, any_policy, holds, valid_policy};

static SCHEMA: LazyLock<Value> = LazyLock::new(common::schema_of::<SessionPolicy>);

fn cel_verdict(policy: &SessionPolicy) -> Vec<String> {
    common::cel_verdict(&SCHEMA, &serde_json::to_value(policy).expect("a policy is JSON"))
}

#[test]
fn cel_and_compile_judge_each_rule_alike() {
    let rule = |timers: Value| json!([{ "name": "r", "match": { "direction": "Inbound" }, "timers": timers }]);
    let when = |when: Value| json!({ "rules": [{ "name": "r", "match": when }] });
    let cases = [
        (json!({}), None),
        (json!({ "timers": { "minSE": "1m30s" } }), None),
        (json!({ "timers": { "minSE": "89s" } }), Some("minSE is below 90s")),
        (json!({ "timers": { "sessionExpires": "90s" } }), None),
        (json!({ "timers": { "sessionExpires": "89s" } }), Some("sessionExpires is below minSE")),
        (json!({ "timers": { "minSE": "2h", "sessionExpires": "120m" } }), None),
        (json!({ "timers": { "minSE": "2h1s", "sessionExpires": "3h" } }), Some("maxMinSE is below minSE")),
        (json!({ "timers": { "expiry": { "margin": "29m59s" } } }), None),
        (json!({ "timers": { "expiry": { "margin": "30m" } } }), Some("expiry.margin is not below")),
        (json!({ "timers": { "credentials": { "secretName": "trunk-a.carrier" } } }), None),
        (json!({ "timers": { "credentials": { "secretName": "trunk_a" } } }), Some("not a name of a Secret")),
        (json!({ "timers": { "credentials": { "secretName": "a..b" } } }), Some("not a name of a Secret")),
        (json!({ "timers": { "credentials": { "secretName": "a-" } } }), Some("not a name of a Secret")),
        (json!({ "timers": { "credentials": { "file": "/etc/sipwarden/trunk-a.yaml" } } }), None),
        (json!({ "timers": { "credentials": { "file": "trunk-a.yaml" } } }), Some("not an absolute path")),
        (json!({ "rules": rule(json!({ "credentials": { "secretName": "b" } })) }), None),
        (json!({ "rules": rule(json!({ "credentials": { "secretName": "B" } })) }), Some("not a name of a Secret")),
        (json!({ "rules": rule(json!({ "credentials": { "file": "./b" } })) }), Some("not an absolute path")),
        (json!({ "rules": rule(json!({})) }), None),
        (json!({ "rules": rule(json!({ "minSE": "10m", "expiry": {} })) }), None),
        (json!({ "rules": rule(json!({ "minSE": "60s" })) }), Some("minSE is below 90s")),
        (json!({ "rules": rule(json!({ "minSE": "31m" })) }), Some("a rule's sessionExpires is below its minSE")),
        (json!({ "rules": rule(json!({ "sessionExpires": "1m" })) }), Some("a rule's sessionExpires is below")),
        (json!({ "rules": rule(json!({ "maxMinSE": "1m" })) }), Some("a rule's maxMinSE is below its minSE")),
        (json!({ "rules": rule(json!({ "expiry": { "margin": "2h" } })) }), Some("a rule's expiry.margin is not")),
        (
            json!({ "timers": { "expiry": { "margin": "10m" } }, "rules": rule(json!({ "sessionExpires": "10m" })) }),
            Some("a rule's expiry.margin is not below"),
        ),
        (
            json!({ "timers": { "expiry": { "margin": "10m" } },
                    "rules": rule(json!({ "sessionExpires": "10m", "expiry": { "margin": "Rfc4028" } })) }),
            None,
        ),
        (
            json!({ "rules": [
                { "name": "a", "match": { "toDomains": ["a.example"] } },
                { "name": "a", "match": { "toDomains": ["b.example"] } },
            ] }),
            Some("two rules have the same name"),
        ),
        (when(json!({})), Some("a rule needs at least one condition")),
        (when(json!({ "userAgents": [] })), Some("a rule needs at least one condition")),
        (when(json!({ "userAgents": ["a"] })), None),
        (when(json!({ "fromDomains": ["a"] })), None),
        (when(json!({ "peerCIDRs": ["192.0.2.1/24", "2001:DB8::/32", "::/0"] })), None),
        (when(json!({ "peerCIDRs": ["192.0.2.0/24", "192.0.2.1"] })), Some("not a network in CIDR form")),
        (when(json!({ "peerCIDRs": ["::ffff:192.0.2.0/120"] })), Some("not a network in CIDR form")),
    ];
    for (spec, expected) in cases {
        let policy = SessionPolicy::new("p", serde_json::from_value(spec.clone()).expect("the types take it"));
        let by_cel = cel_verdict(&policy);
        assert_eq!(compile(&policy).is_ok(), expected.is_none(), "{spec}");
        match expected {
            None => assert!(by_cel.is_empty(), "{spec}: {by_cel:?}"),
            Some(text) => assert!(by_cel.iter().any(|message| message.contains(text)), "{spec}: {by_cel:?}"),
        }
    }
}

#[test]
fn cel_and_the_types_both_want_exactly_one_place_of_credentials() {
    let message = "credentials name exactly one place: secretName or file";
    let mut policy = serde_json::to_value(SessionPolicy::new("p", SessionPolicySpec::default())).expect("JSON");
    for credentials in [json!({}), json!({ "secretName": "a", "file": "/a" })] {
        for path in ["/spec/timers", "/spec/rules/0/timers"] {
            policy["spec"]["rules"] = json!([{ "name": "r", "match": { "direction": "Inbound" }, "timers": {} }]);
            policy["spec"]["timers"] = serde_json::to_value(Timers::default()).expect("JSON");
            policy.pointer_mut(path).expect("it is there")["credentials"] = credentials.clone();
            let by_cel = common::cel_verdict(&SCHEMA, &policy);
            assert!(matches!(&by_cel[..], [text] if text.contains(message)), "{by_cel:?}");
            let by_types = serde_json::from_value::<SessionPolicy>(policy.clone()).expect_err("not one place");
            assert!(by_types.to_string().contains(message), "{by_types}");
        }
    }
}

proptest! {
    #[test]
    fn what_compiles_holds_every_invariant_and_pleases_cel(policy in any_policy()) {
        // The schema's pattern judges names, not CEL.
        let names_fit = policy.spec.rules.iter().all(|rule| !matches!(rule.name.as_str(), "" | "A"));
        let by_cel = cel_verdict(&policy);
        match compile(&policy) {
            Ok(config) => {
                prop_assert!(by_cel.is_empty(), "{by_cel:?}");
                prop_assert!(holds(&config.timers));
                prop_assert!(config.rules.iter().all(|rule| holds(&rule.timers)));
                prop_assert_eq!(config.rules.len(), policy.spec.rules.len());
            }
            Err(violations) => prop_assert!(!names_fit || !by_cel.is_empty(), "{violations:?}"),
        }
    }

    #[test]
    fn valid_policies_survive_being_printed(policy in valid_policy()) {
        let config = compile(&policy).expect("a valid policy");
        prop_assert!(holds(&config.timers) && config.rules.iter().all(|rule| holds(&rule.timers)));
        prop_assert!(cel_verdict(&policy).is_empty());
        let yaml = serde_saphyr::to_string(&policy).expect("policies are YAML");
        let loaded = file::load(&yaml);
        prop_assert_eq!(loaded, Ok(Loaded::Policy(Box::new(policy), config)), "{}", yaml);
    }

    #[test]
    fn no_text_makes_loading_panic(
        policy in valid_policy(),
        cut in any::<prop::sample::Index>(),
        garbage in "[-:{}&*!|>%@\"'\\[\\],?#~ \t\n]{1,4}|\\PC{1,8}",
    ) {
        let yaml: Vec<char> = serde_saphyr::to_string(&policy).expect("policies are YAML").chars().collect();
        let (head, tail) = yaml.split_at(cut.index(yaml.len()));
        let text: String = head.iter().copied().chain(garbage.chars()).chain(tail.iter().copied()).collect();
        for problem in file::load(&text).err().into_iter().flatten() {
            prop_assert!(problem.line.is_some() && problem.column.is_some(), "{problem:?} in {text}");
        }
    }
}
