//! Reading objects from a file, with every fault told by line and field: one that a sidecar shall obey ([`load`]), or all
//! there are to judge them ([`lint`]).
//!
//! YAML becomes JSON first and types second, as on the way through `kubectl apply`, so that a file which loads here means
//! the same there.

mod object;
mod shape;
mod tree;

use std::{borrow::Cow, fmt};

use serde::Serialize;
use serde_json::Value;
use serde_saphyr::{Location, UserMessageFormatter, localizer::Localizer};

use self::{
    object::{ANY_KIND, OBEYED_KINDS, Object},
    tree::{Index, Node},
};
use crate::{API_VERSION, compile::Violation, config::SidecarConfig, policy::SessionPolicy};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

impl Problem {
    pub(crate) fn of_document(message: &str) -> Self {
        Self { line: Some(1), column: Some(1), path: String::new(), message: message.to_owned() }
    }
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
/// The faults in the order of lines. What is no YAML is told alone, at its first fault. Numbers and texts are judged once
/// no field is missing and no list has what it cannot; whether values break a rule, once all have their form. Fields that
/// are not known hold nothing back.
pub fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    let node: Node = serde_saphyr::from_str(text).map_err(|error| vec![syntax_problem(&error)])?;
    let (value, index) = node.into_json();
    let mut faults = Faults { index, problems: Vec::new(), unreadable: false };
    let loaded = match object::read(value, &OBEYED_KINDS, &mut faults) {
        Some(Object::SessionPolicy(policy, config)) => Some(Loaded::Policy(policy, config)),
        Some(Object::SidecarConfig(config)) => Some(Loaded::Config(config)),
        Some(Object::ClusterSessionPolicy) | None => None,
    };
    faults.problems.sort_by_key(|problem| problem.line);
    loaded.filter(|_| faults.problems.is_empty()).ok_or(faults.problems)
}

/// What [`lint`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linted {
    /// How many objects are ours and were judged.
    pub judged: usize,
    /// How many objects belong to other API groups.
    pub skipped: usize,
    /// The faults in the order of lines.
    pub problems: Vec<Problem>,
}

/// Judges every SessionPolicy, ClusterSessionPolicy and SidecarConfig in a file of YAML documents, as the operator would.
pub fn lint(text: &str) -> Linted {
    let nodes: Vec<Node> = match serde_saphyr::from_multiple(text) {
        Ok(nodes) => nodes,
        Err(error) => return Linted { problems: vec![syntax_problem(&error)], ..Linted::default() },
    };
    let mut linted = Linted::default();
    for node in nodes {
        let (value, index) = node.into_json();
        if is_foreign(&value) {
            linted.skipped += 1;
            continue;
        }
        linted.judged += 1;
        let mut faults = Faults { index, problems: Vec::new(), unreadable: false };
        object::read(value, &ANY_KIND, &mut faults);
        faults.problems.sort_by_key(|problem| problem.line);
        linted.problems.append(&mut faults.problems);
    }
    linted
}

/// Whether it is an object of another API group.
fn is_foreign(value: &Value) -> bool {
    let group = API_VERSION.split_once('/').map(|(group, _)| group);
    let written = value["apiVersion"].as_str().map(|version| version.split_once('/').map_or("", |(group, _)| group));
    value["kind"].is_string() && written.is_some() && written != group
}

/// Problems found so far, and where the fields they are about stand.
struct Faults {
    index: Index,
    problems: Vec<Problem>,
    /// Some are such that the rest cannot be judged.
    unreadable: bool,
}

impl Faults {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = path.into();
        self.problems.push(problem(self.index.locate(&path), path, message.into()));
    }

    /// What is wrong with an object as a whole is not told where a field of it was left out, as told: it may be just that.
    fn add_all(&mut self, violations: Vec<Violation>) {
        for violation in violations {
            let field_of = |path: &str| path.rsplit_once('.').is_some_and(|(parent, _)| parent == violation.path);
            if !self.problems.iter().any(|told| field_of(&told.path)) {
                self.add(violation.path, violation.message);
            }
        }
    }
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
