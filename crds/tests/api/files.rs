//! What a file may hold, and how each fault in one is told: line, column, field.

use std::fs;

use serde_json::json;
use sipwarden_crds::{
    ActForApp, BelowMinSe, Credentials, Direction, ExpiryAction, Margin, Mode, RefreshMethod, Refresher, SidecarConfig,
    SipUsers, Timers, compile,
    file::{self, Loaded, Problem},
};

/// Three lines before every `spec` below, which thus stands in line 4.
const HEAD: &str = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: p}\n";

fn problems(text: &str) -> Vec<Problem> {
    file::load(text).expect_err("a fault was expected")
}

/// The only problem of a file as a person sees it, and its column.
fn only_problem(text: &str) -> (String, u32) {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    (problems[0].to_string(), problems[0].column.expect("every fault here has a column"))
}

fn example(name: &str) -> SidecarConfig {
    let text = fs::read_to_string(format!("{}/examples/{name}.yaml", env!("CARGO_MANIFEST_DIR"))).expect("it is there");
    file::load(&text).unwrap_or_else(|problems| panic!("{name}: {problems:?}")).into_config()
}

#[test]
fn minimal_example_is_all_defaults() {
    let config = example("minimal");
    assert_eq!((config.policy.as_str(), config.generation), ("minimal", 0));
    assert_eq!(config.mode, Mode::Enforce);
    assert_eq!(config.timers, Timers::default());
    assert_eq!(config.timers.session_expires.secs(), 1800);
    assert_eq!(config.timers.min_se.secs(), 90);
    assert_eq!(config.timers.max_min_se.secs(), 7200);
    assert_eq!(config.timers.expiry.margin, Margin::Rfc4028);
    assert_eq!(config.timers.refresh_jitter.percent(), 10);
    assert_eq!(config.timers.credentials, None);
    assert!(config.rules.is_empty());
}

#[test]
fn carrier_example_resolves_what_its_rules_inherit() {
    let config = example("carrier");
    let [out, inbound] = &config.rules[..] else { panic!("two rules, not {:?}", config.rules) };
    assert_eq!(out.when.direction, Some(Direction::Outbound));
    assert_eq!(out.when.peer_cidrs, ["192.0.2.0/24".parse().unwrap(), "2001:db8:5::/48".parse().unwrap()]);
    assert_eq!((out.timers.min_se.secs(), out.timers.session_expires.secs()), (600, 3600));
    assert_eq!(out.timers.refresher, Refresher::Local);
    assert_eq!(out.timers.max_min_se, config.timers.max_min_se);
    assert_eq!(out.timers.credentials, Some(Credentials::SecretName("trunk-a".to_owned())));
    assert_eq!(out.timers.refresh_method, RefreshMethod::Update);
    assert_eq!(inbound.timers, Timers { refresher: Refresher::Remote, ..config.timers.clone() });
}

#[test]
fn mixed_phones_example_keeps_the_order_of_its_rules() {
    let config = example("mixed-phones");
    assert_eq!(config.mode, Mode::Observe);
    let names: Vec<_> = config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["late-phones", "old-gateways", "recorder"]);
    assert_eq!(config.rules[0].when.user_agents, ["polycom*", "yealink sip-t2?p *"]);
    assert_eq!(config.rules[1].timers.below_min_se, BelowMinSe::Raise);
    assert_eq!(config.rules[1].timers.act_for_app, ActForApp::Always);
    assert_eq!(config.rules[2].timers.expiry.action, ExpiryAction::Report);
    assert_eq!(config.rules[2].timers.expiry.margin, Margin::Fixed("90s".parse().unwrap()));
}

#[test]
fn faults_of_fields_are_told_by_line_column_and_path() {
    let cases = [
        (
            "spec:\n  timers:\n    minSE: 30s\n",
            ("line 6, spec.timers.minSE: 30s is below 90s, the least RFC 4028 §4 allows", 5),
        ),
        (
            "spec:\n  timers: {belowMinSe: Raise}\n",
            (
                "line 5, spec.timers.belowMinSe: unknown field; expected actForApp, appProbe, belowMinSE, credentials, \
                 expiry, malformed, maxMinSE, minSE, refreshJitter, refreshMethod, refresher, sessionExpires or \
                 withoutPeerSupport",
                12,
            ),
        ),
        (
            "spec:\n  timers:\n    minSE: 90\n",
            ("line 6, spec.timers.minSE: invalid type: integer `90`, expected a duration such as 90s, 30m or 1h30m", 5),
        ),
        (
            "spec:\n  timers:\n    minSE: 2 minutes\n",
            (
                "line 6, spec.timers.minSE: invalid value: string \"2 minutes\", expected a duration such as 90s, 30m \
                 or 1h30m",
                5,
            ),
        ),
        (
            "spec:\n  timers:\n    expiry:\n      margin: rfc4028\n",
            (
                "line 7, spec.timers.expiry.margin: invalid value: string \"rfc4028\", expected Rfc4028 or a duration \
                 such as 5s",
                7,
            ),
        ),
        (
            "spec:\n  timers:\n    refreshJitter: 51\n",
            (
                "line 6, spec.timers.refreshJitter: invalid value: integer `51`, expected a whole number of percent \
                 from 0 to 50",
                5,
            ),
        ),
        (
            "spec:\n  timers:\n    refreshJitter: -1\n",
            (
                "line 6, spec.timers.refreshJitter: invalid value: integer `-1`, expected a whole number of percent \
                 from 0 to 50",
                5,
            ),
        ),
        (
            "spec:\n  timers:\n    refreshJitter: 10%\n",
            (
                "line 6, spec.timers.refreshJitter: invalid type: string \"10%\", expected a whole number of percent \
                 from 0 to 50",
                5,
            ),
        ),
        (
            "spec:\n  timers:\n    credentials: {secretName: a, file: /a}\n",
            ("line 6, spec.timers.credentials: credentials name exactly one place: secretName or file", 5),
        ),
        (
            "spec:\n  timers:\n    credentials: {secretName: a_b}\n",
            (
                "line 6, spec.timers.credentials.secretName: not a name of a Secret: use at most 253 of a-z, 0-9, and \
                 - and . inside",
                19,
            ),
        ),
        (
            "spec:\n  timers: {actForApp: never}\n",
            ("line 5, spec.timers.actForApp: expected Auto, Always or Never", 12),
        ),
        ("spec:\n  mode: enforce\n", ("line 5, spec.mode: expected Enforce or Observe", 3)),
        ("spec:\n  mode: [Enforce]\n", ("line 5, spec.mode: expected Enforce or Observe", 3)),
        (
            "spec:\n  priority: 4294967296\n",
            ("line 5, spec.priority: invalid value: integer `4294967296`, expected i32", 3),
        ),
        ("spec:\n  timers: [30m]\n", ("line 5, spec.timers: expected fields, each with a name and a value", 3)),
        ("spec:\n  rules: {name: a}\n", ("line 5, spec.rules: expected a list", 3)),
        ("spec:\n  rules:\n  - name: a\n", ("line 6, spec.rules[0].match: missing", 5)),
        (
            "spec:\n  podSelector:\n    matchLabel: {app: a}\n",
            ("line 6, spec.podSelector.matchLabel: unknown field; expected matchExpressions or matchLabels", 5),
        ),
        ("spec: {}\nspecs: {}\n", ("line 5, specs: unknown field; expected metadata, spec or status", 1)),
        ("spec:\n", ("line 4, spec: missing", 1)),
        ("", ("line 1, spec: missing", 1)),
        ("spec: {}\nmetadata: {name: q}\n", ("line 5: duplicate mapping key: metadata not allowed here", 1)),
        ("spec: {}\n---\nspec: {}\n", ("line 6: a second document; expected one SessionPolicy", 1)),
        ("spec: &a\n  timers: *a\n", ("line 5: Recursive reference not allowed here", 11)),
    ];
    for (spec, (text, column)) in cases {
        assert_eq!(only_problem(&format!("{HEAD}{spec}")), (text.to_owned(), column), "{spec}");
    }
}

#[test]
fn faults_of_documents_are_told_by_line() {
    let no_policy = "line 1: expected a SessionPolicy with apiVersion, kind, metadata and spec";
    let cases = [
        ("", (no_policy, 1)),
        ("---\n", (no_policy, 4)),
        ("42\n", (no_policy, 1)),
        ("[]\n", (no_policy, 1)),
        ("spec: [1, 2\n", ("line 1: unclosed bracket '['", 7)),
        ("kind: SessionPolicy\n\tspec: {}\n", ("line 1: while scanning a plain scalar, found a tab", 7)),
        ("spec: *other\n", ("line 1: reference to unknown value", 7)),
    ];
    for (document, (text, column)) in cases {
        assert_eq!(only_problem(document), (text.to_owned(), column), "{document:?}");
    }
}

#[test]
fn wrong_kind_and_version_are_told_together() {
    let texts: Vec<_> = problems("apiVersion: v1\nkind: List\nitems: []\n").iter().map(Problem::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 1, apiVersion: expected sipwarden.dev/v1alpha1",
            "line 2, kind: expected SessionPolicy or SidecarConfig",
        ]
    );
}

#[test]
fn all_faults_are_told_in_the_order_of_lines() {
    let spec = "spec:\n  rules:\n  - name: A\n    match: {peerCIDRs: [10.0.0.0/8, 10/8]}\n  - name: b\n    match: {}\n  \
                timers:\n    minSE: 1h\n";
    let texts: Vec<_> = problems(&format!("{HEAD}{spec}")).iter().map(Problem::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 6, spec.rules[0].name: not a name: use 1 to 63 of a-z, 0-9 and inner -",
            "line 7, spec.rules[0].match.peerCIDRs[1]: not a network in CIDR form such as 192.0.2.0/24 or 2001:db8::/32",
            "line 9, spec.rules[1].match: a rule needs at least one condition to match; for all calls there is \
             spec.timers",
            "line 11, spec.timers.minSE: 1h is above sessionExpires, which is 30m",
        ]
    );
}

#[test]
fn an_unknown_field_and_a_word_that_is_no_choice_hide_no_other_fault() {
    let spec = "spec:\n  mode: Enforced\n  timers:\n    minSe: 2m\n    maxMinSE: 30s\n";
    let texts: Vec<_> = problems(&format!("{HEAD}{spec}")).iter().map(Problem::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    for (text, begins) in texts.iter().zip([
        "line 5, spec.mode: expected ",
        "line 7, spec.timers.minSe: unknown field",
        "line 8, spec.timers.maxMinSE: 30s is below minSE",
    ]) {
        assert!(text.starts_with(begins), "{text}");
    }
}

#[test]
fn what_a_fault_leaves_out_is_not_missed_as_well() {
    for faulty in ["direction: Inbnd", "directon: Inbound"] {
        let spec = format!("spec:\n  rules:\n  - name: a\n    match: {{{faulty}}}\n  - name: b\n    match: {{}}\n");
        let texts: Vec<_> = problems(&format!("{HEAD}{spec}")).iter().map(Problem::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("line 7, spec.rules[0].match.dir"), "{texts:?}");
        assert!(texts[1].starts_with("line 9, spec.rules[1].match: a rule needs"), "{texts:?}");
    }
}

#[test]
fn every_number_and_text_of_a_wrong_form_is_told_and_no_rule_that_they_would_break() {
    let spec = "spec:\n  timers: {minSE: 90, sessionExpires: 2 minutes, maxMinSE: 30s}\n  rules:\n  - name: a\n    \
                match: {}\n    timers: {minSE: x}\n";
    let texts: Vec<_> = problems(&format!("{HEAD}{spec}")).iter().map(Problem::to_string).collect();
    let paths: Vec<_> = texts.iter().map(|text| text.split(": ").next().unwrap_or_default()).collect();
    let timers = ["line 5, spec.timers.minSE", "line 5, spec.timers.sessionExpires"];
    assert_eq!(paths, [timers[0], timers[1], "line 9, spec.rules[0].timers.minSE"]);
}

#[test]
fn a_name_is_asked_for_where_metadata_stands() {
    let text = HEAD.replace("{name: p}", "{labels: {a: b}}") + "spec: {}\n";
    assert_eq!(only_problem(&text), ("line 3, metadata.name: a policy needs a name".to_owned(), 1));
}

#[test]
fn fields_without_a_value_are_as_if_not_written() {
    let written = file::load(&format!("{HEAD}spec:\n  timers:\n  mode: ~\n  rules:\n")).expect("all defaults");
    assert_eq!(written, file::load(&format!("{HEAD}spec: {{}}\n")).expect("all defaults"));
}

#[test]
fn json_is_read_as_yaml_is() {
    let object = json!({
        "apiVersion": "sipwarden.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": { "name": "p" },
        "spec": { "timers": { "minSE": "2m" } },
    });
    let yaml = format!("{HEAD}spec:\n  timers:\n    minSE: 2m\n");
    assert_eq!(file::load(&object.to_string()), file::load(&yaml));
    assert_eq!(file::load(&serde_json::to_string_pretty(&object).unwrap()), file::load(&yaml));
}

fn config_file(config: &SidecarConfig) -> String {
    json!({ "apiVersion": "sipwarden.dev/v1alpha1", "kind": "SidecarConfig", "spec": config }).to_string()
}

#[test]
fn a_compiled_config_is_read_back_as_it_was() {
    for name in ["minimal", "carrier", "mixed-phones"] {
        let config = example(name);
        assert_eq!(file::load(&config_file(&config)), Ok(Loaded::Config(config)));
    }
}

#[test]
fn a_config_that_no_compiler_made_is_refused() {
    let mut config = example("carrier");
    config.rules[1].timers.min_se = "1m".parse().unwrap();
    let texts: Vec<_> = problems(&config_file(&config)).iter().map(Problem::to_string).collect();
    assert_eq!(texts, ["line 1, spec.rules[1].timers.minSE: 1m is below 90s, the least RFC 4028 §4 allows"]);

    let text = config_file(&example("minimal")).replace("hash", "hashed");
    let texts: Vec<_> = problems(&text).iter().map(Problem::to_string).collect();
    assert!(texts[0].starts_with("line 1, spec.hashed: unknown field; expected "), "{texts:?}");
    assert_eq!(texts[1..], ["line 1, spec.hash: missing"]);
}

#[test]
fn the_hash_tells_behaviour_and_nothing_else() {
    let load = |text: &str| match file::load(text) {
        Ok(Loaded::Policy(policy, config)) => (*policy, config),
        other => panic!("{other:?}"),
    };
    let (mut policy, config) = load(&format!("{HEAD}spec: {{}}\n"));
    assert_eq!(config.hash.len(), 16);
    assert!(config.hash.bytes().all(|b| b.is_ascii_hexdigit()));

    policy.metadata.name = Some("q".to_owned());
    policy.metadata.generation = Some(7);
    policy.spec.priority = 5;
    let renamed = compile(&policy).unwrap();
    assert_eq!((renamed.generation, renamed.policy.as_str()), (7, "q"));
    assert_eq!(renamed.hash, config.hash);

    policy.spec.mode = Mode::Observe;
    let observing = compile(&policy).unwrap().hash;
    assert_ne!(observing, config.hash);
    policy.spec.privacy.sip_users = SipUsers::Show;
    assert_ne!(compile(&policy).unwrap().hash, observing);
}
