//! What sidecars answer, as far as the plugin looks at it. What is new in a later version of the sidecar is passed on to
//! programs as it came and does not disturb.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `/sessions`
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Those of this page.
    pub sessions: Vec<Value>,
    /// Those on all pages.
    pub total: usize,
    /// Those that go on.
    #[serde(default)]
    pub active: usize,
}

/// A session.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Session {
    pub id: String,
    pub call_id: String,
    pub direction: String,
    /// `Active` or `Ended`.
    pub state: String,
    /// Why it ended.
    pub ended: Option<String>,
    pub mode: String,
    pub policy: String,
    pub rule: Option<String>,
    pub interval_s: Option<u32>,
    pub refresher: Option<String>,
    pub deadline_in_s: Option<f64>,
    pub expires_in_s: Option<f64>,
    pub next: Option<Next>,
    pub age_s: f64,
    pub legs: Legs,
}

/// What the sidecar does next of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Next {
    /// `Refresh`, `Probe` or `Expire`.
    pub step: String,
    pub in_s: f64,
}

/// The two sides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Legs {
    pub local: Party,
    pub remote: Party,
}

/// One side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Party {
    /// From or To.
    pub party: String,
    /// Where it was last heard.
    pub flow: String,
    pub transport: String,
}

/// `/status`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub policy: String,
    pub generation: i64,
    pub hash: String,
    /// `File`, `LastGood` or `BuiltIn`.
    pub source: String,
    pub mode: String,
    pub sessions: u64,
    pub error: Option<String>,
}

/// `/decisions`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decisions {
    /// Newest last.
    pub decisions: Vec<Value>,
    /// Decisions that are no longer known.
    pub lost: u64,
}

/// One decision of a sidecar, with its words.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// Rises by one with each decision of a sidecar.
    pub seq: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub session: Option<String>,
    pub call_id: String,
    pub policy: String,
    pub rule: Option<String>,
    /// It was not done, because the policy only observes.
    pub observed: bool,
    /// None where the decision is about no side yet.
    pub peer: Option<String>,
    pub kind: String,
    /// The cause of an end.
    pub reason: Option<String>,
    /// A sentence.
    pub text: String,
    /// Such as `RFC 4028 §9`.
    pub rfc: Option<String>,
    /// The field of the policy that made it so.
    pub field: Option<String>,
}

/// `/sessions/{id}/messages`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Messages {
    /// In the order they came.
    pub messages: Vec<Value>,
    /// There were more.
    pub lost: bool,
}

/// A message that passed, was answered or was sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    pub at: String,
    pub from: String,
    pub to: Option<String>,
    /// The request line or the status line.
    pub start: String,
    pub cseq: String,
    pub outcome: String,
    /// Of what it was answered with.
    pub status: Option<u16>,
    pub changes: Vec<Change>,
}

/// A header that was put in, changed or taken out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    pub header: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// `/what-if`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct WhatIf {
    /// Requests judged again.
    pub judged: u64,
    /// The oldest of them, RFC 3339.
    pub since: Option<String>,
    /// Those judged otherwise.
    pub changed: u64,
    /// There were more than are kept.
    pub truncated: bool,
    pub by_kind: Vec<KindCounts>,
    pub examples: Vec<Value>,
}

/// How often something was decided, and how often it would have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct KindCounts {
    pub kind: String,
    pub now: u64,
    pub then: u64,
}

/// A request that would have been judged otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Example {
    pub at: String,
    pub call_id: String,
    pub peer: Option<String>,
    pub now: Vec<Decision>,
    pub then: Vec<Decision>,
}
