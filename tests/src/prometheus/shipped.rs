//! The alerts and dashboards as the chart ships them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of rules.
#[derive(Clone, Debug)]
pub struct RuleFile {
    pub path: PathBuf,
    pub text: String,
}

/// One alert of a file of rules.
#[derive(Clone, Debug)]
pub struct Alert {
    pub name: String,
    pub rule: Value,
}

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// The file's name without extension.
    pub name: String,
    pub json: Value,
}

/// A query of a panel, as written.
#[derive(Clone, Debug)]
pub struct Query {
    /// `dashboard / panel`
    pub place: String,
    pub expr: String,
}

/// The folder of alerts, dashboards and the runbook.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/sipwarden/files").join(name)
}

/// All files of rules.
pub fn rule_files() -> Vec<RuleFile> {
    files("alerts", "yaml").map(|path| RuleFile { text: read(&path), path }).collect()
}

/// The file of rules of this name.
pub fn rule_file(name: &str) -> RuleFile {
    rule_files().into_iter().find(|rules| rules.path.ends_with(name)).expect("it is shipped")
}

/// All dashboards.
pub fn dashboards() -> Vec<Dashboard> {
    let dashboard = |path: PathBuf| {
        let json = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Dashboard { name: path.file_stem().expect("a name").to_string_lossy().into_owned(), json }
    };
    files("dashboards", "json").map(dashboard).collect()
}

impl RuleFile {
    /// All its alerts.
    pub fn alerts(&self) -> Vec<Alert> {
        let groups = self.groups("RUNBOOK.md#");
        let rules = groups.iter().flat_map(|group| list(&group["rules"]));
        rules.map(|rule| Alert { name: text(&rule["alert"]).to_owned(), rule: rule.clone() }).collect()
    }

    /// Its groups, with the runbook at `link`.
    pub fn groups(&self, link: &str) -> Vec<Value> {
        let text = self.text.replace("RUNBOOK.md#", link);
        let file: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        list(&file["groups"]).cloned().collect()
    }

    /// The same rules, whose conditions need not last: what a test waits for is the state, not the time it has to be so.
    pub fn without_waiting(mut self) -> RuleFile {
        let kept = self.text.lines().filter(|line| !line.starts_with("    for: "));
        self.text = kept.map(|line| format!("{line}\n")).collect();
        self
    }
}

impl Dashboard {
    /// Its panels.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["panels"])
    }

    /// Its variables.
    pub fn variables(&self) -> impl Iterator<Item = &Value> {
        list(&self.json["templating"]["list"])
    }

    /// The queries of all its panels.
    pub fn queries(&self) -> Vec<Query> {
        let query = |panel: &Value, target: &Value| Query {
            place: format!("{} / {}", self.name, text(&panel["title"])),
            expr: text(&target["expr"]).to_owned(),
        };
        self.panels().flat_map(|panel| list(&panel["targets"]).map(move |target| query(panel, target))).collect()
    }
}

impl Query {
    /// As Grafana would send it with these values of variables; longer names first.
    pub fn filled(&self, variables: &[(&str, &str)]) -> String {
        let filled =
            variables.iter().fold(self.expr.clone(), |expr, (name, value)| expr.replace(&format!("${name}"), value));
        assert!(!filled.contains('$'), "{}: a variable is left in {filled}", self.place);
        filled
    }

    fn is_of_operator(&self) -> bool {
        self.expr.contains("sipwarden_operator_")
    }
}

/// The queries of all dashboards about sidecars, or about the operator.
pub fn queries(of_operator: bool) -> Vec<Query> {
    let all = dashboards().into_iter().flat_map(|dashboard| dashboard.queries());
    all.filter(|query| query.is_of_operator() == of_operator).collect()
}

/// The elements of a list; none if it is no list.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text; empty if it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn files(name: &str, extension: &'static str) -> impl Iterator<Item = PathBuf> {
    let folder = folder(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty(), "no {extension} in {}", folder.display());
    paths.into_iter()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
