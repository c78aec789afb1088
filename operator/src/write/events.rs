//! Events: what people see in `kubectl describe`.
//!
//! They are worth less than the writes they tell about: a bounded queue that drops and counts, and no more than one in
//! [`QUIET`] about the same thing.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, timeout},
};

use super::WRITE_TIMEOUT;
use crate::{
    index::Owner,
    inject::Skip,
    metrics::{Metrics, WriteOutcome, Written},
};

const MAX_WAITING: usize = 1024;
/// About the same object, for the same reason and with the same text.
const QUIET: Duration = Duration::from_secs(60);
/// Remembered to keep quiet about; beyond it all are forgotten, and some are told twice.
const MAX_REMEMBERED: usize = 4096;
/// The API server refuses what is longer than 1024 bytes; a character has at most four.
const MAX_NOTE_CHARS: usize = 256;

/// Something to tell.
#[derive(Clone, Debug)]
pub struct Note {
    /// Of the object; None if it is in none.
    pub namespace: Option<String>,
    /// The object it is about.
    pub about: Owner,
    /// Whether someone should do something about it.
    pub type_: EventType,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub note: String,
}

impl Note {
    /// Pods of `about` have a sidecar now, whoever injected it.
    pub fn injected(namespace: &str, about: Owner) -> Self {
        let (type_, reason, note) = (EventType::Normal, "Injected", "pods are given a sidecar".to_owned());
        Self { namespace: Some(namespace.to_owned()), about, type_, reason, note }
    }

    /// Pods of `about` stay without the sidecar they asked for, because of `skip`.
    pub fn refused(namespace: &str, about: Owner, skip: &Skip) -> Self {
        Self::skipped(namespace, about, format!("no sidecar ({}): {skip}", skip.reason().as_str()))
    }

    /// Pods of `about` stay without the sidecar they asked for.
    pub fn skipped(namespace: &str, about: Owner, note: String) -> Self {
        let (type_, reason) = (EventType::Warning, "InjectionSkipped");
        Self { namespace: Some(namespace.to_owned()), about, type_, reason, note }
    }
}

/// Takes what is to be told, and never waits.
#[derive(Clone)]
pub struct EventSink {
    sender: mpsc::Sender<Note>,
    metrics: Metrics,
}

impl EventSink {
    /// To be told, or dropped and counted.
    pub fn send(&self, note: Note) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(note) {
            self.metrics.write(Written::Event, WriteOutcome::Failed);
        }
    }
}

/// Starts the task that tells. It ends when nobody can send any more.
pub fn spawn(client: Client, instance: String, metrics: Metrics) -> EventSink {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let reporter = Reporter { controller: "sipwarden-operator".to_owned(), instance: Some(instance) };
    tokio::spawn(publish(Recorder::new(client, reporter), receiver, metrics.clone()));
    EventSink { sender, metrics }
}

async fn publish(recorder: Recorder, mut receiver: mpsc::Receiver<Note>, metrics: Metrics) {
    let mut told = Told::default();
    while let Some(note) = receiver.recv().await {
        if !told.is_new(&note, Instant::now()) {
            continue;
        }
        let Note { namespace, about, type_, reason, note } = note;
        let note: String = note.chars().take(MAX_NOTE_CHARS).collect();
        let reference = ObjectReference {
            api_version: Some(about.api_version),
            kind: Some(about.kind),
            name: Some(about.name),
            namespace,
            uid: Some(about.uid).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        };
        let action = "Inject".to_owned();
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None };
        let outcome = match timeout(WRITE_TIMEOUT, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => WriteOutcome::Written,
            Ok(Err(error)) => {
                tracing::info!(%error, reason, "an Event was not written");
                WriteOutcome::Failed
            }
            Err(_) => WriteOutcome::Failed,
        };
        metrics.write(Written::Event, outcome);
    }
}

/// What was told lately. A bare pod under admission has no uid yet, so its place and kind count too.
#[derive(Default)]
struct Told(HashMap<About, Instant>);

/// Namespace; kind, name and uid; reason; text.
type About = (Option<String>, [String; 3], &'static str, String);

impl Told {
    fn is_new(&mut self, note: &Note, now: Instant) -> bool {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.clear();
        }
        let Owner { kind, name, uid, .. } = note.about.clone();
        let key = (note.namespace.clone(), [kind, name, uid], note.reason, note.note.clone());
        let before = self.0.get(&key).copied();
        if before.is_some_and(|before| now.duration_since(before) < QUIET) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_told_once_in_a_while() {
        let about = Owner { api_version: "v1".into(), kind: "Pod".into(), name: "p".into(), uid: String::new() };
        let note =
            Note { namespace: Some("n".into()), about, type_: EventType::Normal, reason: "Injected", note: "a".into() };
        let mut told = Told::default();
        let start = Instant::now();
        assert!(told.is_new(&note, start));
        assert!(!told.is_new(&note, start + Duration::from_secs(59)));
        assert!(told.is_new(&Note { note: "b".into(), ..note.clone() }, start));
        assert!(told.is_new(&Note { namespace: Some("m".into()), ..note.clone() }, start), "another one of its name");
        assert!(told.is_new(&note, start + QUIET));
    }
}
