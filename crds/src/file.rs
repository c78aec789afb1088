//! Reading a policy from a file, with every fault told by line and field.
//!
//! YAML becomes JSON first and types second, as on the way through `kubectl apply`, so that a file which loads here means
//! the same there.

mod shape;
mod tree;

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::CustomResourceExt;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use serde_path_to_error::Segment;
use serde_saphyr::{Location, UserMessageFormatter, localizer::Localizer};

use self::tree::{Index, Node, join};
use crate::{
    API_VERSION,
    compile::{Violation, check_config, compile},
    config::SidecarConfig,
    policy::SessionPolicy,
};

/// What a file held.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// A policy, and what it compiles to.
    Policy(Box<SessionPolicy>, SidecarConfig),
    /// A config that was compiled before.
    Config(SidecarConfig),
}

impl Loaded {
    /// What a sidecar obeys, whichever of the two the file held.
    pub fn into_config(self) -> SidecarConfig {
        match self {
            Self::Policy(_, config) | Self::Config(config) => config,
        }
    }
}

/// A fault in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1. None where the parser does not tell.
    pub line: Option<u32>,
    /// Counted from 1, in characters.
    pub column: Option<u32>,
    /// The field, such as `spec.timers.minSE`; empty where the fault is the document's.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.path.as_str()) {
            (Some(line), "") => write!(f, "line {line}: {}", self.message),
            (Some(line), path) => write!(f, "line {line}, {path}: {}", self.message),
            (None, "") => f.write_str(&self.message),
            (None, path) => write!(f, "{path}: {}", self.message),
        }
    }
}

impl std::error::Error for Problem {}

/// Reads one SessionPolicy or SidecarConfig, in YAML or JSON, and checks it.
///
/// # Errors
/// The faults in the order of lines. What is no YAML is told alone, at its first fault; so is a number or text of a wrong
/// form, once every field is known and in place; all fields that are not, and all values that break a rule, are told
/// together.
pub fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    let node: Node = serde_saphyr::from_str(text).map_err(|error| vec![syntax_problem(&error)])?;
    let (value, index) = node.into_json();
    let mut faults = Faults { index, problems: Vec::new() };
    let loaded = load_object(value, &mut faults);
    faults.problems.sort_by_key(|problem| problem.line);
    loaded.filter(|_| faults.problems.is_empty()).ok_or(faults.problems)
}

/// Problems found so far, and where the fields they are about stand.
struct Faults {
    index: Index,
    problems: Vec<Problem>,
}

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        self.problems.push(problem(self.index.locate(&path), path, message.into()));
    }

    fn add_all(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            self.add(violation.path, violation.message);
        }
    }
}

/// An object without its `apiVersion` and `kind`, which were judged before.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigObject {
    #[serde(default, rename = "metadata")]
    _metadata: ObjectMeta,
    spec: SidecarConfig,
}

/// None only with at least one fault added.
fn load_object(value: Value, faults: &mut Faults) -> Option<Loaded> {
    let Value::Object(mut object) = value else {
        faults.add("", "expected a SessionPolicy with apiVersion, kind, metadata and spec");
        return None;
    };
    if object.remove("apiVersion").as_ref().and_then(Value::as_str) != Some(API_VERSION) {
        faults.add("apiVersion", format!("expected {API_VERSION}"));
    }
    match object.remove("kind").as_ref().and_then(Value::as_str) {
        Some("SessionPolicy") => load_policy(object.into(), faults),
        Some("SidecarConfig") => {
            let object: ConfigObject = typed(object.into(), faults)?;
            faults.add_all(check_config(&object.spec));
            Some(Loaded::Config(object.spec))
        }
        _ => {
            faults.add("kind", "expected SessionPolicy or SidecarConfig");
            None
        }
    }
}

fn load_policy(object: Value, faults: &mut Faults) -> Option<Loaded> {
    shape::check(&object, &policy_schema(), "", faults);
    if !faults.problems.is_empty() {
        return None;
    }
    let policy: SessionPolicy = typed(object, faults)?;
    let config = compile(&policy).map_err(|violations| faults.add_all(violations)).ok()?;
    Some(Loaded::Policy(Box::new(policy), config))
}

/// The schema in the definition, which says nothing about `metadata`: the API server knows that itself.
fn policy_schema() -> Value {
    let version = SessionPolicy::crd().spec.versions.remove(0);
    let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    schema["properties"]["metadata"] = json!({ "type": "object" });
    schema["required"] = json!(["metadata", "spec"]);
    schema
}

fn typed<T: DeserializeOwned>(value: Value, faults: &mut Faults) -> Option<T> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| faults.add(field_path(error.path()), error.inner().to_string()))
        .ok()
}

fn field_path(path: &serde_path_to_error::Path) -> String {
    path.iter().fold(String::new(), |path, segment| match segment {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } => join(&path, key),
        Segment::Enum { .. } | Segment::Unknown => path,
    })
}

fn syntax_problem(error: &serde_saphyr::Error) -> Problem {
    let message = match error.without_snippet() {
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document; expected one SessionPolicy".to_owned(),
        error => error.render_with_formatter(&UserMessageFormatter.with_localizer(&WithoutLocation)),
    };
    problem(error.location().unwrap_or(Location::UNKNOWN), String::new(), message)
}

/// A [`Problem`] has fields of its own for the place.
struct WithoutLocation;

impl Localizer for WithoutLocation {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }
}

fn problem(location: Location, path: String, message: String) -> Problem {
    let known = Some(location).filter(|location| *location != Location::UNKNOWN);
    Problem {
        line: known.and_then(|location| location.line().try_into().ok()),
        column: known.and_then(|location| location.column().try_into().ok()),
        path,
        message,
    }
}
