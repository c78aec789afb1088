//! Judging files of several objects.

use std::fs;

use sipwarden_crds::file::{Linted, lint};

fn told(linted: &Linted) -> Vec<String> {
    linted.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn every_example_is_without_fault() {
    let examples = fs::read_dir(format!("{}/examples", env!("CARGO_MANIFEST_DIR"))).expect("it is there");
    let mut judged = 0;
    for example in examples {
        let path = example.expect("it can be read").path();
        let linted = lint(&fs::read_to_string(&path).expect("it is text"));
        assert_eq!((told(&linted), linted.skipped), (Vec::new(), 0), "{}", path.display());
        judged += linted.judged;
    }
    assert_eq!(judged, 5);
}

#[test]
fn faults_are_told_by_the_lines_of_the_file() {
    let text = "\
apiVersion: v1
kind: Namespace
metadata: {name: voice}
---
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: p}
spec:
  mode: Enforced
  timers: {minSE: 1m}
---
# Nothing here.
---
apiVersion: sipwarden.dev/v1alpha1
kind: ClusterSessionPolicy
metadata: {name: c}
spec:
  timers:
    minSE: {atLeast: 1h}
    sessionExpires: {atMost: 30m}
---
apiVersion: sipwarden.dev/v1alpha1
kind: SidecarConfig
metadata: {name: deployment-a}
spec: {policy: p, generation: 1, hash: '0', mode: Enforce, timers: {maxMinSE: 1m}, rules: []}
status: {pods: 1}
";
    let linted = lint(text);
    assert_eq!((linted.judged, linted.skipped), (3, 1));
    assert_eq!(
        told(&linted),
        [
            "line 9, spec.mode: expected Enforce or Observe",
            "line 10, spec.timers.minSE: 1m is below 90s, the least RFC 4028 §4 allows",
            "line 19, spec.timers.minSE.atLeast: 1h is above sessionExpires.atMost, which is 30m; no minSE may be",
            "line 25, spec.timers.maxMinSE: 1m is below minSE, which is 90s",
        ]
    );
    assert_eq!(linted.problems[2].column, Some(13));
}

#[test]
fn what_is_more_or_longer_than_the_api_server_stores_is_a_fault() {
    let labels: String = (0..33).map(|label| format!("      l{label}: a\n")).collect();
    let long = "x".repeat(64);
    let text = format!(
        "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {{name: p}}
spec:
  podSelector:
    matchLabels:
{labels}---
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {{name: p}}
spec:
  podSelector:
    matchLabels: {{app: {long}}}
    matchExpressions: [{}]
",
        "{key: app, operator: Exists}, ".repeat(33)
    );
    assert_eq!(
        told(&lint(&text)),
        [
            "line 6, spec.podSelector.matchLabels: 33 entries, of at most 32",
            "line 46, spec.podSelector.matchLabels.app: 64 characters, of at most 63",
            "line 47, spec.podSelector.matchExpressions: 33 entries, of at most 32",
        ]
    );
}

#[test]
fn an_object_as_kubectl_prints_it_is_without_fault() {
    let text = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata:
  creationTimestamp: \"2026-11-21T08:37:10Z\"
  generation: 1
  managedFields:
  - {apiVersion: sipwarden.dev/v1alpha1, fieldsType: FieldsV1, fieldsV1: {\"f:spec\": {}}, manager: kubectl, operation: Apply}
  name: minimal
  namespace: default
  uid: f4c60825-a945-4be0-9ea6-2629b8eb9998
spec:
  mode: Enforce
  priority: 0
  rules: []
  timers: {minSE: 90s}
status:
  clamped:
  - {asked: 30m, by: house-rules, field: spec.timers.sessionExpires, given: 10m}
  conditions:
  - lastTransitionTime: \"2026-01-01T00:00:00Z\"
    message: 2 of 3 pods are in step
    reason: PartiallyProgrammed
    status: \"False\"
    type: Programmed
  hash: 09ee10eda9e349a8
  observedGeneration: 1
  pods: {inStep: 2, injected: 3, matched: 3, stale: 1}
  sessions: 7
";
    assert_eq!(lint(text), Linted { judged: 1, skipped: 0, problems: Vec::new() });
}

#[test]
fn a_kind_or_version_of_ours_that_is_not_there_is_a_fault() {
    let linted = lint("apiVersion: sipwarden.dev/v1\nkind: SessionPolicies\n---\nkind: SessionPolicy\n---\n- a\n");
    assert_eq!((linted.judged, linted.skipped), (3, 0));
    let texts = told(&linted);
    for text in [
        "line 1, apiVersion: expected sipwarden.dev/v1alpha1",
        "line 2, kind: expected SessionPolicy, ClusterSessionPolicy or SidecarConfig",
        "line 4, apiVersion: expected sipwarden.dev/v1alpha1",
    ] {
        assert!(texts.iter().any(|told| told == text), "{text} in {texts:?}");
    }
    assert!(texts.last().is_some_and(|text| text.starts_with("line 6: expected a SessionPolicy")), "{texts:?}");
}

#[test]
fn what_is_no_yaml_is_told_where_it_begins() {
    let linted = lint("apiVersion: v1\nkind: List\n---\nspec: [1, 2\n");
    assert_eq!((linted.judged, told(&linted)), (0, vec!["line 4: unclosed bracket '['".to_owned()]));
    assert_eq!(lint(""), Linted::default());
}
