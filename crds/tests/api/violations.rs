//! Every violation that compiling finds, by path and message.

use serde_json::{Value, json};
use sipwarden_crds::{SessionPolicy, SessionPolicySpec, compile};

fn violations(spec: Value) -> Vec<String> {
    let spec: SessionPolicySpec = serde_json::from_value(spec).expect("the types take it");
    match compile(&SessionPolicy::new("p", spec)) {
        Ok(config) => panic!("compiled to {config:?}"),
        Err(violations) => violations.iter().map(ToString::to_string).collect(),
    }
}

fn rule(timers: Value) -> Value {
    json!({ "name": "r", "match": { "direction": "Inbound" }, "timers": timers })
}

#[test]
fn timers_that_contradict_each_other_blame_the_one_that_was_set() {
    let cases = [
        (json!({ "minSE": "89s" }), "minSE: 89s is below 90s, the least RFC 4028 §4 allows"),
        (json!({ "sessionExpires": "60s" }), "sessionExpires: 1m is below minSE, which is 90s"),
        (json!({ "minSE": "31m" }), "minSE: 31m is above sessionExpires, which is 30m"),
        (json!({ "minSE": "20m", "sessionExpires": "10m" }), "sessionExpires: 10m is below minSE, which is 20m"),
        (json!({ "maxMinSE": "80s" }), "maxMinSE: 80s is below minSE, which is 90s"),
        (json!({ "minSE": "3h", "sessionExpires": "4h" }), "minSE: 3h is above maxMinSE, which is 2h"),
        (json!({ "expiry": { "margin": "30m" } }), "expiry.margin: 30m is not below sessionExpires, which is 30m"),
        (
            json!({ "sessionExpires": "5m", "expiry": { "margin": "5m1s" } }),
            "expiry.margin: 5m1s is not below sessionExpires, which is 5m",
        ),
    ];
    for (timers, expected) in cases {
        let found = violations(json!({ "timers": timers }));
        assert_eq!(found, [format!("spec.timers.{expected}")], "{timers}");
        let found = violations(json!({ "rules": [rule(timers)] }));
        assert_eq!(found, [format!("spec.rules[0].timers.{expected}")]);
    }
}

#[test]
fn a_rule_is_held_to_the_timers_it_inherits() {
    let policy = json!({ "sessionExpires": "20m", "minSE": "5m", "maxMinSE": "10m", "expiry": { "margin": "2m" } });
    let cases = [
        (json!({ "sessionExpires": "4m" }), "sessionExpires: 4m is below minSE, which is 5m"),
        (json!({ "minSE": "25m", "maxMinSE": "25m" }), "minSE: 25m is above sessionExpires, which is 20m"),
        (json!({ "minSE": "11m" }), "minSE: 11m is above maxMinSE, which is 10m"),
        (json!({ "maxMinSE": "4m" }), "maxMinSE: 4m is below minSE, which is 5m"),
        (json!({ "expiry": { "margin": "20m" } }), "expiry.margin: 20m is not below sessionExpires, which is 20m"),
        (
            json!({ "sessionExpires": "2m", "minSE": "2m" }),
            "sessionExpires: 2m is not above expiry.margin, which is 2m",
        ),
    ];
    for (timers, expected) in cases {
        let found = violations(json!({ "timers": policy, "rules": [rule(timers)] }));
        assert_eq!(found, [format!("spec.rules[0].timers.{expected}")]);
    }
}

#[test]
fn a_fault_of_the_policy_is_not_repeated_for_its_rules() {
    let found = violations(json!({ "timers": { "minSE": "1h" }, "rules": [rule(json!({ "refresher": "Local" }))] }));
    assert_eq!(found, ["spec.timers.minSE: 1h is above sessionExpires, which is 30m"]);
}

#[test]
fn networks_hosts_and_user_agents_are_checked_one_by_one() {
    let cidr = "not a network in CIDR form such as 192.0.2.0/24 or 2001:db8::/32";
    let host = "not a host such as carrier.example.com or [2001:db8::1], of at most 253 characters";
    let user_agent = "a User-Agent to match has 1 to 128 characters";
    let cases = [
        (
            "peerCIDRs",
            cidr,
            vec![
                "192.0.2.1",
                "192.0.2.0/33",
                "192.0.2.0/024",
                "192.0.2.0/+24",
                "010.0.0.0/8",
                "2001:db8::/129",
                "::ffff:192.0.2.0/120",
                "fe80::%eth0/64",
                " 10.0.0.0/8",
                "carrier.example.com",
                "",
            ],
        ),
        ("fromDomains", host, vec!["", "*.example.com", "sip:a.example", "a b", "2001:db8::1", "[]", "é.example"]),
        ("toDomains", host, vec!["", "a.example:5060", "[2001:db8::1"]),
        ("userAgents", user_agent, vec![""]),
    ];
    for (field, message, texts) in cases {
        let found = violations(json!({ "rules": [{ "name": "r", "match": { field: texts } }] }));
        let expected: Vec<_> =
            (0..texts.len()).map(|i| format!("spec.rules[0].match.{field}[{i}]: {message}")).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn what_is_too_long_or_too_many_is_refused() {
    let rules: Vec<_> =
        (0..65).map(|i| json!({ "name": format!("r{i}"), "match": { "direction": "Inbound" } })).collect();
    assert_eq!(violations(json!({ "rules": rules })), ["spec.rules: 65 rules, of at most 64"]);

    let many = |text: &'static str| vec![text; 65];
    let found = violations(json!({ "rules": [{ "name": "r", "match": {
        "peerCIDRs": many("10.0.0.0/8"), "fromDomains": many("a"), "toDomains": many("a"), "userAgents": many("a"),
    } }] }));
    let expected = ["peerCIDRs", "fromDomains", "toDomains", "userAgents"]
        .map(|field| format!("spec.rules[0].match.{field}: 65 entries, of at most 64"));
    assert_eq!(found, expected);

    let found = violations(json!({ "rules": [{ "name": "r", "match": {
        "fromDomains": ["a".repeat(253), "a".repeat(254)], "userAgents": ["é".repeat(128), "é".repeat(129)],
    } }] }));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("spec.rules[0].match.fromDomains[1]: "));
    assert!(found[1].starts_with("spec.rules[0].match.userAgents[1]: "));
}

#[test]
fn rules_need_a_name_of_their_own_and_a_condition() {
    let rule = |name: &str| json!({ "name": name, "match": { "direction": "Outbound" } });
    let found = violations(json!({ "rules": [rule("a"), rule("b"), rule("a"), rule("a")] }));
    assert_eq!(
        found,
        ["spec.rules[2].name: spec.rules[0] has the same name", "spec.rules[3].name: spec.rules[0] has the same name"]
    );

    for name in ["", "A", "a_b", "-a", "a-", "ä", &"a".repeat(64)] {
        let found = violations(json!({ "rules": [rule(name)] }));
        assert_eq!(found, ["spec.rules[0].name: not a name: use 1 to 63 of a-z, 0-9 and inner -"], "{name}");
    }

    let found = violations(json!({ "rules": [{ "name": "r", "match": { "userAgents": [] } }] }));
    assert_eq!(
        found,
        ["spec.rules[0].match: a rule needs at least one condition to match; for all calls there is spec.timers"]
    );
}

#[test]
fn credentials_are_blamed_where_they_are_written_and_only_there() {
    let name = "not a name of a Secret: use at most 253 of a-z, 0-9, and - and . inside";
    let path = "not an absolute path of at most 1024 characters";
    let cases = [
        (json!({ "secretName": "" }), format!("secretName: {name}")),
        (json!({ "secretName": "Trunk" }), format!("secretName: {name}")),
        (json!({ "secretName": "a.-b" }), format!("secretName: {name}")),
        (json!({ "secretName": "a".repeat(254) }), format!("secretName: {name}")),
        (json!({ "file": "" }), format!("file: {path}")),
        (json!({ "file": "~/trunk.yaml" }), format!("file: {path}")),
        (json!({ "file": "/".repeat(1025) }), format!("file: {path}")),
    ];
    for (credentials, expected) in cases {
        let timers = json!({ "credentials": credentials });
        let found = violations(json!({ "timers": timers, "rules": [rule(json!({}))] }));
        assert_eq!(found, [format!("spec.timers.credentials.{expected}")]);
        let found = violations(json!({ "rules": [rule(timers)] }));
        assert_eq!(found, [format!("spec.rules[0].timers.credentials.{expected}")]);
    }
    let longest = json!({ "secretName": "a".repeat(253) });
    let spec =
        json!({ "timers": { "credentials": longest }, "rules": [rule(json!({ "credentials": { "file": "/" } }))] });
    let policy = SessionPolicy::new("p", serde_json::from_value(spec).expect("the types take it"));
    assert!(compile(&policy).is_ok());
}

#[test]
fn a_policy_needs_a_name_fit_for_kubernetes() {
    for (name, message) in [
        ("", "a policy needs a name"),
        ("Voice", "not a name: use at most 253 of a-z, 0-9, - and ."),
        ("a\nb", "not a name: use at most 253 of a-z, 0-9, - and ."),
    ] {
        let found = compile(&SessionPolicy::new(name, SessionPolicySpec::default())).expect_err("a bad name");
        assert_eq!(found[0].to_string(), format!("metadata.name: {message}"));
    }
}

#[test]
fn a_selector_that_selects_by_nothing_known_is_refused() {
    let found = violations(json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Like" }] } }));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("spec.podSelector: not a label selector: "), "{found:?}");
}

#[test]
fn all_violations_are_told_at_once() {
    let found = violations(json!({
        "timers": { "minSE": "1s", "expiry": { "margin": "1h" } },
        "rules": [
            { "name": "r", "match": {}, "timers": { "minSE": "2s" } },
            { "name": "r", "match": { "peerCIDRs": ["x"] }, "timers": { "maxMinSE": "0s" } },
        ],
    }));
    let paths: Vec<_> = found.iter().map(|text| text.split(": ").next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "spec.timers.minSE",
            "spec.timers.expiry.margin",
            "spec.rules[0].match",
            "spec.rules[0].timers.minSE",
            "spec.rules[1].name",
            "spec.rules[1].match.peerCIDRs[0]",
            "spec.rules[1].timers.maxMinSE",
        ]
    );
}
