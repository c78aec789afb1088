//! docs/decisions.md: every event of the sidecar in its own words, with the section of the RFC and the field of the policy.

use std::collections::BTreeMap;
use std::fmt::Write;

use sipwarden_session_timer::{Event, EventKind};
use sipwarden_sidecar::report::Record;
use sipwarden_sidecar::words::Words;

use crate::prometheus::everything::{every_event, place};

const INTRODUCTION: &str = include_str!("decisions.md");

/// What the page has to say: a row for each kind of event, and for each reason where a kind has several.
pub fn render() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (record, words) in rows() {
        let reason = record.reason.map_or(String::new(), |reason| format!(" `{reason}`"));
        let field = words.field.map_or(String::new(), |field| format!("`{field}`"));
        let _ =
            writeln!(text, "| `{}`{reason} | {} | {} | {field} |", record.kind, words.text, words.rfc.unwrap_or(""));
    }
    text
}

/// In the order in which kinds are numbered. Of events that differ in side, method or status only, one of the remote side
/// stands for all.
fn rows() -> Vec<(Record, Words)> {
    let mut events: Vec<(EventKind, Record)> = every_event().into_iter().map(|kind| (kind, record(kind))).collect();
    events.sort_by_key(|(_, record)| record.side == Some("Local") || record.refresher == Some("Local"));
    let mut rows = BTreeMap::new();
    for (kind, record) in events {
        let key = (place(kind), record.reason, record.interval_s.is_some());
        rows.entry(key).or_insert_with(|| (record, Words::of(kind, false)));
    }
    rows.into_values().collect()
}

fn record(kind: EventKind) -> Record {
    Record::from(&Event { session: None, observed: false, rule: None, kind })
}
