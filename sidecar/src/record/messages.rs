//! The messages of a call as they are shown: who sent them, what became of them, what was changed in them and why.

use std::collections::BTreeSet;

use serde::Serialize;
use sipwarden_session_timer::{Leg, Time};

use super::reader::{LOCKED, Reader, Told};
use super::ring::{Read, Ring, Text};
use super::{Decision, Passage, PassageOutcome};
use crate::typed::shown_uri;

/// Messages of one call shown at most: the last ones.
const MAX_MESSAGES: usize = 500;
const SIDECAR: &str = "Sidecar";

/// `/sessions/{id}/messages`
#[derive(Debug, Default, Serialize)]
pub(super) struct Messages {
    /// Oldest first.
    messages: Vec<MessageView>,
    /// Earlier ones of this call are no longer there, or never were.
    lost: bool,
}

#[derive(Debug, Serialize)]
struct MessageView {
    seq: u64,
    at: String,
    /// `Local`, `Remote`, or `Sidecar`.
    from: &'static str,
    to: Option<&'static str>,
    start: String,
    cseq: String,
    outcome: &'static str,
    /// What the sidecar answered.
    status: Option<u16>,
    /// The session timer headers it came with.
    headers: Vec<Line>,
    changes: Vec<Change>,
    decisions: Vec<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    header: String,
    value: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    header: String,
    before: Option<String>,
    after: Option<String>,
}

impl Reader {
    /// Those of a session's call.
    pub(super) fn messages_of_session(&self, name: &str, reveal: bool) -> Option<Messages> {
        let (shard, call_id) = self.call_of_session(name)?;
        Some(self.messages(shard, &call_id, reveal))
    }

    /// Those of a call.
    pub(super) fn messages_of_call(&self, call_id: &str, reveal: bool) -> Messages {
        self.messages(self.hub.shard_of(call_id.as_bytes()), call_id.as_bytes(), reveal)
    }

    fn messages(&self, shard: usize, call_id: &[u8], reveal: bool) -> Messages {
        let of_call =
            |passage: &Passage, text: &Text| passage.call_id_len() == call_id.len() && text.starts_with(call_id);
        let mut passages = self.all(shard, |recorder| &recorder.messages, of_call);
        let begun = passages.first().is_some_and(|first| first.head.initial);
        let lost = !begun || passages.len() > MAX_MESSAGES;
        passages.drain(..passages.len().saturating_sub(MAX_MESSAGES));
        let of_call = |_: &Decision, text: &Text| text.is(call_id);
        let decisions = self.all(shard, |recorder| &recorder.decisions, of_call);
        let messages = passages.iter().map(|passage| self.message(passage, &passages, &decisions, reveal)).collect();
        Messages { messages, lost }
    }

    /// All entries of a ring that are wanted.
    fn all<H: Clone>(
        &self,
        shard: usize,
        ring: impl Fn(&super::Recorder) -> &Ring<H>,
        wanted: impl Fn(&H, &Text) -> bool,
    ) -> Vec<Read<H>> {
        let (mut all, mut behind, horizon) = (Vec::new(), Some(0), self.horizon());
        while let Some(after) = behind {
            let look = |recorder: &super::Recorder| ring(recorder).find_after(after, LOCKED, &wanted);
            let Some((found, next)) = self.look(shard, look) else { break };
            all.extend(found.into_iter().filter(|read| read.at >= horizon));
            behind = next;
        }
        all
    }

    fn message(
        &self,
        read: &Read<Passage>,
        passages: &[Read<Passage>],
        decisions: &[Read<Decision>],
        reveal: bool,
    ) -> MessageView {
        let Passage { from, to, outcome, status, edited, .. } = read.head;
        let [_, start, before, after] = read.head.parts(&read.text);
        let before = lines(before);
        let cseq = before.iter().find(|line| line.header == "CSeq").map(|line| line.value.clone()).unwrap_or_default();
        let caused = decisions.iter().filter(|decision| cause(decision, passages) == Some(read.number));
        MessageView {
            seq: read.number,
            at: self.at(read.at),
            from: from.map_or(SIDECAR, Leg::as_str),
            to: to.map(Leg::as_str),
            start: shown_start(start, reveal),
            cseq,
            outcome: outcome_name(outcome),
            status,
            changes: if edited { changes(&before, &lines(after)) } else { Vec::new() },
            headers: before.into_iter().filter(|line| line.header != "CSeq").collect(),
            decisions: caused.map(|decision| Told::of_decision(&decision.head)).collect(),
        }
    }
}

/// The message a decision came of; of one that a timer made, what was sent at that moment, to that side if it says one.
fn cause(decision: &Read<Decision>, passages: &[Read<Passage>]) -> Option<u64> {
    if decision.head.cause.is_some() {
        return decision.head.cause;
    }
    let told = Told::of_decision(&decision.head);
    let sent_then = || passages.iter().filter(|passage| is_sent_at(passage, decision.at));
    let to_side = |passage: &&Read<Passage>| passage.head.to.is_some_and(|to| told.is_about(to.as_str()));
    sent_then().find(to_side).or_else(|| sent_then().next()).map(|passage| passage.number)
}

fn is_sent_at(passage: &Read<Passage>, at: Time) -> bool {
    passage.head.outcome == PassageOutcome::Sent && passage.at == at
}

fn outcome_name(outcome: PassageOutcome) -> &'static str {
    match outcome {
        PassageOutcome::Forwarded => "Forwarded",
        PassageOutcome::Answered => "Answered",
        PassageOutcome::Absorbed => "Absorbed",
        PassageOutcome::Sent => "Sent",
        PassageOutcome::Dropped => "Dropped",
    }
}

/// A start line without the user of its Request-URI, and a phrase without addresses, unless revealed.
fn shown_start(start: &[u8], reveal: bool) -> String {
    let text = String::from_utf8_lossy(start);
    let mut words = text.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(uri), Some(version)) if !method.starts_with("SIP/") => {
            format!("{method} {} {version}", shown_uri(uri.as_bytes(), reveal))
        }
        (Some(version), Some(status), Some(phrase)) if phrase.contains('@') && !reveal => {
            format!("{version} {status} ***")
        }
        _ => text.into_owned(),
    }
}

/// Header lines with their names as they are known, folded ones on one line.
fn lines(bytes: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(last) = lines.last_mut() {
                last.value = format!("{} {}", last.value, line.trim()).trim().to_owned();
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let known = sipwarden_sip::HeaderName::from_bytes(name.trim().as_bytes());
            if is_shown(known) {
                lines.push(Line { header: known.as_str().to_owned(), value: value.trim().to_owned() });
            }
        }
    }
    lines
}

/// What else was put where a watched line stood is a proxy's own.
fn is_shown(name: sipwarden_sip::HeaderName) -> bool {
    super::WATCHED.contains(&name) || super::WATCHED_OF_OURS.contains(&name)
}

/// What differs, header by header; the lines of one name together.
fn changes(before: &[Line], after: &[Line]) -> Vec<Change> {
    let value = |lines: &[Line], name: &str| {
        let values: Vec<&str> =
            lines.iter().filter(|line| line.header == name).map(|line| line.value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let mut seen = BTreeSet::new();
    let names = before.iter().chain(after).map(|line| line.header.as_str()).filter(|name| seen.insert(*name));
    names
        .map(|name| Change { header: name.to_owned(), before: value(before, name), after: value(after, name) })
        .filter(|change| change.before != change.after)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(header: &str, before: Option<&str>, after: Option<&str>) -> Change {
        Change { header: header.into(), before: before.map(str::to_owned), after: after.map(str::to_owned) }
    }

    #[test]
    fn changes_are_told_by_header_with_before_and_after() {
        let before = lines(b"CSeq: 1 INVITE\r\nx: 60\r\nk: 100rel,\r\n timer\r\nRequire: timer\r\n");
        let after = lines(
            b"CSeq: 2 INVITE\r\nVia: SIP/2.0/UDP host\r\nx: 1800;refresher=uac\r\nk: 100rel,\r\n timer\r\nMin-SE: 90\r\n",
        );
        let expected = [
            change("CSeq", Some("1 INVITE"), Some("2 INVITE")),
            change("Session-Expires", Some("60"), Some("1800;refresher=uac")),
            change("Require", Some("timer"), None),
            change("Min-SE", None, Some("90")),
        ];
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&before, &before), []);
    }

    #[test]
    fn a_start_line_hides_its_user_and_nothing_else() {
        assert_eq!(shown_start(b"INVITE sip:bob@example.com SIP/2.0", false), "INVITE sip:***@example.com SIP/2.0");
        assert_eq!(shown_start(b"INVITE sip:bob@example.com SIP/2.0", true), "INVITE sip:bob@example.com SIP/2.0");
        assert_eq!(shown_start(b"SIP/2.0 200 OK then", false), "SIP/2.0 200 OK then");
        assert_eq!(shown_start(b"SIP/2.0 404 No bob@example.com here", false), "SIP/2.0 404 ***");
    }
}
