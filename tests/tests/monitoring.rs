//! What is shipped for Prometheus and Grafana, without running either: the reference of all metrics, closed labels, alerts
//! with their unit tests and runbook, dashboards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sipwarden_cluster::workspace::assert_written;
use sipwarden_session_timer::Event;
use sipwarden_sidecar::metrics::Metrics;
use sipwarden_tests::process::Process;
use sipwarden_tests::prometheus::everything::{PLACES, apply_policy, every_event, everything_but_events, place};
use sipwarden_tests::prometheus::exposition::{Family, families};
use sipwarden_tests::prometheus::reference::{self, open_labels};
use sipwarden_tests::prometheus::shipped::{Dashboard, dashboards, folder, list, rule_files, text};

/// Series of one sidecar under a policy of one rule, histogram buckets included, that a Prometheus has to keep; times the
/// pods of a cluster. Each further rule has 8.
const MOST_SERIES: usize = 480;

/// What a replica of the operator may have.
const MOST_OPERATOR_SERIES: usize = 250;

const VARIABLES: &[(&str, &str)] =
    &[("namespace", "voice"), ("workload", "pbx"), ("policy", "carrier"), ("__rate_interval", "1m")];

/// Units of Grafana: https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts
const UNITS: &[&str] = &["short", "s", "cps", "reqps", "percentunit"];

#[test]
fn the_reference_of_all_metrics_is_as_written() {
    assert_written("docs/metrics.md", &reference::render());
}

#[test]
fn names_and_types_follow_the_conventions_of_prometheus() {
    for Family { name, kind, help, .. } in reference::sidecar().iter().chain(&reference::operator()) {
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(name.starts_with("sipwarden_") && help.ends_with('.') && !help.contains('|'), "{name}: {help}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} has no unit");
    }
}

#[test]
fn whatever_happens_a_sidecar_has_the_series_it_started_with() {
    let metrics = Metrics::new();
    apply_policy(&metrics, 0);
    let before = families(&metrics.render(0));

    for kind in every_event() {
        for observed in [false, true] {
            metrics.event(&Event { session: None, observed, rule: Some(7), kind });
        }
    }
    everything_but_events(&metrics);
    (1..100).for_each(|number| apply_policy(&metrics, number));

    let after = families(&metrics.render(1));
    for (before, after) in before.iter().zip(&after).filter(|(before, _)| open_labels(&before.name).is_empty()) {
        assert_eq!(before.series, after.series, "{}", before.name);
    }
    let stored = |families: &[Family]| families.iter().map(|family| family.stored).sum::<usize>();
    assert_eq!((stored(&before), before.len()), (stored(&after), after.len()));
    assert!(stored(&after) <= MOST_SERIES, "{} series", stored(&after));
}

#[test]
fn every_event_is_counted() {
    for kind in every_event() {
        let metrics = Metrics::new();
        metrics.event(&Event { session: None, observed: false, rule: None, kind });
        let text = metrics.render(0);
        let counts = |line: &&str| line.contains("_total") && !line.starts_with('#') && !line.ends_with(" 0");
        assert_eq!(text.lines().filter(counts).count(), 1, "{kind:?}");
    }
}

#[test]
fn the_list_of_events_here_is_complete() {
    let places: BTreeSet<usize> = every_event().into_iter().map(place).collect();
    assert_eq!(places, (0..PLACES).collect());
}

#[test]
fn an_operator_has_bounded_series() {
    let stored: usize = reference::operator().iter().map(|family| family.stored).sum();
    assert!(stored <= MOST_OPERATOR_SERIES, "{stored} series");
}

#[test]
fn rules_are_good_and_fire_as_their_unit_tests_say() {
    let tests = ["operator.yaml", "sidecar.yaml"].map(|file| manifest_dir().join("alerts").join(file));
    let rules = rule_files().into_iter().map(|file| file.path);
    promtool(&["check", "rules"], rules.collect());
    promtool(&["test", "rules"], tests.to_vec());
}

#[test]
fn the_chart_ships_rules_and_dashboards_as_they_are_in_its_files() {
    let rendered = fs::read_to_string(manifest_dir().join("../charts/golden/sipwarden/everything.yaml")).unwrap();
    let objects: Vec<Value> =
        rendered.split("\n---\n").filter_map(|object| serde_saphyr::from_str(object).ok()).collect();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let rules = of_kind("PrometheusRule").next().expect("rules");
    let link = "https://runbooks.example.com/sipwarden#";
    let shipped: Vec<_> = list(&rules["spec"]["groups"]).cloned().collect();
    let written: Vec<_> = rule_files().iter().flat_map(|file| file.groups(link)).collect();
    assert_eq!(shipped, written);

    for dashboard in dashboards() {
        let (name, key) = (&dashboard.name, format!("sipwarden-{}.json", dashboard.name));
        let shipped = of_kind("ConfigMap").find_map(|map| map["data"][&key].as_str());
        let shipped: Value = serde_json::from_str(shipped.unwrap_or_else(|| panic!("no {name}"))).unwrap();
        assert_eq!(without_floats(shipped), without_floats(dashboard.json), "{name}");
    }
    let rules_of =
        |config: &Value| list(config).filter(|rule| target(rule) == "workload").map(in_snake_case).collect::<Vec<_>>();
    let monitor = of_kind("PodMonitor").next().expect("a PodMonitor");
    let shipped = rules_of(&monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]);
    assert_eq!(shipped, rules_of(&reference::scrape_config()["relabel_configs"]));
    assert!(of_kind("ConfigMap").all(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1"));
}

/// The label that a rule of relabelling sets.
fn target(rule: &Value) -> &str {
    rule.get("targetLabel").or(rule.get("target_label")).map_or("", text)
}

/// As Prometheus names the fields of such a rule, not the Prometheus operator.
fn in_snake_case(rule: &Value) -> Value {
    let names = [("sourceLabels", "source_labels"), ("targetLabel", "target_label")];
    let name = |key: &str| names.iter().find(|(camel, _)| *camel == key).map_or(key, |(_, snake)| snake).to_owned();
    let fields = rule.as_object().into_iter().flatten();
    Value::Object(fields.map(|(key, value)| (name(key), value.clone())).collect())
}

/// Helm writes 1 for 1 and 0.8 for 0.8, but has read both as the same kind of number.
fn without_floats(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64()),
        Value::Array(values) => values.into_iter().map(without_floats).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, without_floats(value))).collect(),
        other => other,
    }
}

#[test]
fn every_alert_is_tested_documented_and_says_what_to_look_at() {
    let runbook = fs::read_to_string(folder("alerts").join("RUNBOOK.md")).unwrap();
    for file in rule_files() {
        let tests = fs::read_to_string(manifest_dir().join("alerts").join(file.path.file_name().unwrap())).unwrap();
        for alert in file.alerts() {
            let (name, annotations) = (&alert.name, &alert.rule["annotations"]);
            assert!(tests.contains(&format!(r#"alertname="{name}""#)), "{name} has no unit test that sees it fire");
            assert!(["critical", "warning", "info"].contains(&text(&alert.rule["labels"]["severity"])), "{name}");
            assert!(!text(&annotations["summary"]).is_empty(), "{name} has no summary");
            let description = text(&annotations["description"]);
            assert!(["Look ", "runbook", "/status"].iter().any(|hint| description.contains(hint)), "{name}");
            assert_eq!(annotations["runbook_url"], format!("RUNBOOK.md#{}", name.to_lowercase()));
            let section = runbook.split("\n## ").find(|section| section.lines().next() == Some(name));
            let section = section.unwrap_or_else(|| panic!("the runbook has no section {name}"));
            for part in ["**Meaning.**", "**See why.**", "**Do.**"] {
                assert!(section.contains(part), "{name} has no {part}");
            }
        }
    }
}

#[test]
fn the_runbook_says_what_to_do_for_every_reason_that_keeps_a_refresh_from_being_sent() {
    let runbook = fs::read_to_string(folder("alerts").join("RUNBOOK.md")).unwrap();
    for reason in &known_series()["sipwarden_not_refreshed_total"]["reason"] {
        assert!(runbook.contains(&format!("\n| `{reason}` | ")), "{reason} is not in it");
    }
}

#[test]
fn alerts_and_dashboards_ask_for_metrics_that_exist() {
    let known = known_series();
    let alerts = rule_files().into_iter().flat_map(|file| file.alerts());
    let mut asked: Vec<_> = alerts.map(|alert| (alert.name.clone(), text(&alert.rule["expr"]).to_owned())).collect();
    asked.extend(dashboards().iter().flat_map(Dashboard::queries).map(|query| (query.place, query.expr)));
    for (place, expr) in asked {
        for metric in words(&expr).filter(|word| word.starts_with("sipwarden_")) {
            assert!(known.contains_key(metric), "{place} asks for {metric}");
        }
        for (metric, label, value) in equalities(&expr) {
            let values = known[metric].get(label);
            assert!(values.is_some_and(|values| values.contains(value)), "{place}: {metric} has no {label}={value}");
        }
    }
}

#[test]
fn every_query_of_every_dashboard_can_be_read() {
    let record =
        |(number, expr): (usize, String)| serde_json::json!({"record": format!("query:{number}"), "expr": expr});
    let dashboards = dashboards();
    let queries = dashboards.iter().flat_map(Dashboard::queries).map(|query| query.filled(VARIABLES));
    let rules: Vec<_> = queries.enumerate().map(record).collect();
    assert!(rules.len() > 60);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    fs::write(&file, serde_json::json!({"groups": [{"name": "queries", "rules": rules}]}).to_string()).unwrap();
    promtool(&["check", "rules"], vec![file]);
}

/// The rules of Grafana's dashboard-linter, which are held to here: the linter itself is no module that Go's proxy serves.
/// Those that dashboards do not keep are in its own file of exclusions.
#[test]
fn dashboards_break_those_rules_of_the_linter_that_their_exclusions_name() {
    let exclusions = fs::read_to_string(folder("dashboards").join(".lint")).unwrap();
    let exclusions: Value = serde_saphyr::from_str(&exclusions).unwrap();
    let excluded = exclusions["exclusions"].as_object().expect("rules");
    assert!(excluded.values().all(|rule| text(&rule["reason"]).len() > 20));
    for label in ["job", "instance"] {
        let has_variable = |dashboard: &Dashboard| dashboard.variables().any(|variable| variable["name"] == label);
        let is_asked = |expr: &str| expr.contains(&format!("{label}=~"));
        let all = dashboards();
        let breaks_template = !all.iter().all(has_variable);
        let breaks_target = !all.iter().flat_map(Dashboard::queries).all(|query| is_asked(&query.expr));
        assert_eq!(excluded.contains_key(&format!("template-{label}-rule")), breaks_template, "{label}");
        assert_eq!(excluded.contains_key(&format!("target-{label}-rule")), breaks_target, "{label}");
    }
    assert_eq!(excluded.len(), 4, "every other rule is kept: see the tests below");
}

#[test]
fn dashboards_have_their_data_source_and_variables_as_grafana_wants_them() {
    let mut names = BTreeSet::new();
    for dashboard in dashboards() {
        let (name, json) = (&dashboard.name, &dashboard.json);
        names.insert(name.clone());
        assert_eq!(json["uid"], format!("sipwarden-{name}"));
        assert!(text(&json["title"]).starts_with("sipwarden / ") && text(&json["description"]).len() > 20, "{name}");
        assert_eq!(json["editable"], false, "{name}: changes in Grafana would be lost");
        let mut variables = dashboard.variables();
        let source = variables.next().unwrap();
        assert_eq!((text(&source["name"]), text(&source["type"])), ("datasource", "datasource"), "{name}");
        assert_eq!((text(&source["label"]), text(&source["query"])), ("Data source", "prometheus"), "{name}");
        let queries = dashboard.queries();
        for variable in variables {
            let variable_name = text(&variable["name"]);
            assert!(!text(&variable["label"]).is_empty() && variable["datasource"]["uid"] == "${datasource}", "{name}");
            assert_eq!(
                variable["refresh"], 2,
                "{name}: {variable_name} is not asked for again with another time range"
            );
            let used = |expr: &str| expr.contains(&format!("=~\"${variable_name}\""));
            assert!(queries.iter().any(|query| used(&query.expr)), "{name}: nothing uses {variable_name}");
        }
    }
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["fleet", "operator", "peers", "policy", "workload"]);
}

#[test]
fn panels_have_title_description_unit_legend_and_room() {
    for dashboard in dashboards() {
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard.panels() {
            let place = format!("{} / {}", dashboard.name, text(&panel["title"]));
            assert!(ids.insert(panel["id"].as_u64()), "{place}: its id is taken");
            assert!(!text(&panel["title"]).is_empty() && text(&panel["description"]).ends_with('.'), "{place}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
            assert!(UNITS.contains(&unit), "{place}: {unit}");
            for cell in cells_of(&panel["gridPos"]) {
                assert!(cell.0 < 24 && cells.insert(cell), "{place} lies on another panel, or beside the grid");
            }
            assert!(list(&panel["targets"]).count() > 0, "{place} asks for nothing");
            for target in list(&panel["targets"]) {
                check_target(&place, text(&panel["type"]), target);
            }
        }
    }
}

fn check_target(place: &str, kind: &str, target: &Value) {
    let expr = text(&target["expr"]);
    assert_eq!(target["datasource"]["uid"], "${datasource}", "{place}");
    assert!(kind == "table" || !text(&target["legendFormat"]).is_empty(), "{place} has no legend");
    assert_eq!(kind == "table", target["instant"] == true, "{place}");
    let ranges = expr.split('[').skip(1).filter_map(|rest| rest.split(']').next());
    ranges.for_each(|range| assert_eq!(range, "$__rate_interval", "{place}"));
    let counts = |word: &&str| ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| word.ends_with(suffix));
    let counters = words(expr).filter(counts).count();
    assert_eq!(counters, expr.matches("rate(").count() + expr.matches("increase(").count(), "{place}: {expr}");
}

fn cells_of(grid: &Value) -> Vec<(u64, u64)> {
    let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| grid[key].as_u64().expect("a place"));
    (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))).collect()
}

/// Each metric, as queries name it, with its labels and their values.
fn known_series() -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut known: BTreeMap<_, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for family in reference::sidecar().into_iter().chain(reference::operator()) {
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (label, value) in family.series.into_iter().flatten() {
            labels.entry(label).or_default().insert(value);
        }
        for label in open_labels(&family.name) {
            let values = labels.get_mut(*label).expect("it has its labels");
            match *label {
                "source" => values.extend(["LastGood", "BuiltIn"].map(str::to_owned)),
                "mode" => values.extend(["Enforce", "Observe"].map(str::to_owned)),
                _ => {}
            }
        }
        let suffixes: &[_] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        known.extend(suffixes.iter().map(|suffix| (format!("{}{suffix}", family.name), labels.clone())));
    }
    known
}

fn words(expr: &str) -> impl Iterator<Item = &str> {
    expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// `metric{label="value"}` of our metrics, each value of `a|b` by itself; variables are left out.
fn equalities(expr: &str) -> Vec<(&str, &str, &str)> {
    let selectors = expr.split('}').filter_map(|part| part.rsplit_once('{'));
    let ours = selectors.filter_map(|(before, labels)| Some((words(before).last()?, labels)));
    let ours = ours.filter(|(metric, _)| metric.starts_with("sipwarden_"));
    let matchers = ours.flat_map(|(metric, labels)| labels.split("\",").map(move |matcher| (metric, matcher)));
    let pairs = matchers.filter_map(|(metric, matcher)| {
        let (label, value) = matcher.split_once('"')?;
        Some((metric, label.trim_end_matches(['=', '~', '!']), value.trim_end_matches('"')))
    });
    let closed = pairs.filter(|(_, _, value)| !value.contains('$'));
    closed.flat_map(|(metric, label, values)| values.split('|').map(move |value| (metric, label, value))).collect()
}

fn promtool(arguments: &[&str], files: Vec<PathBuf>) {
    let mut process = Process::start("promtool", Path::new("promtool"), |command, _| {
        command.args(arguments).args(files);
    });
    assert!(process.wait(Duration::from_secs(60)).success(), "promtool {arguments:?}: {}", process.stdout());
}

fn manifest_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
