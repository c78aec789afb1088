//! `explain`: the story of one call, in the words of the sidecars it went through.
//!
//! A call that was refused never became a session, but was decided on: it is found by its Call-ID. A session is found by
//! its id, which each sidecar counts for itself; what happened before it was one is then found by its Call-ID.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::ExplainArgs,
    connection::Connection,
    outcome::{Failure, Outcome},
    output::{Format, Screen, Tone, duration},
    scope::{self, PodRef},
    sessions::{policy, show_silent},
    sidecar::{AskError, Sidecars, Silent, escaped, query, sorted},
    wire::{Change, Decision, Decisions, Message, Messages, Page, Session},
};

/// More than any call that a person can read about.
const MOST: usize = 1000;

/// What a person calls a call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    /// Only this pod was meant.
    pod: Option<String>,
    /// A session's id or a Call-ID.
    name: String,
}

/// What one sidecar knows of the call.
#[derive(Debug, Default, Serialize)]
struct Story {
    call_ids: Vec<String>,
    sessions: Vec<Value>,
    /// Oldest first.
    decisions: Vec<Value>,
    messages: Vec<Value>,
    /// The sidecar has forgotten a part.
    lost: bool,
}

impl Subject {
    /// `0-7`, `pbx-0/0-7`, `voice/pbx-0/0-7`, or a Call-ID.
    fn read(text: &str) -> Self {
        let mut parts = text.rsplitn(3, '/');
        let (last, pod) = (parts.next().unwrap_or(text), parts.next());
        match pod {
            Some(pod) if is_session(last) && !pod.is_empty() => {
                Self { pod: Some(pod.to_owned()), name: last.to_owned() }
            }
            _ => Self { pod: None, name: text.to_owned() },
        }
    }

    fn means(&self, pod: &PodRef) -> bool {
        self.pod.as_ref().is_none_or(|name| *name == pod.name)
    }
}

/// A shard's number and a session's, as sidecars write it. A Call-ID can look so too.
fn is_session(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once('-').is_some_and(|(shard, id)| number(shard) && number(id))
}

/// Tells of a call.
///
/// # Errors
/// The pods cannot be listed, or none of their sidecars knows the call.
pub async fn explain(connection: &Connection, args: &ExplainArgs, screen: &mut Screen<'_>) -> Result<Outcome, Failure> {
    let subject = Subject::read(&args.subject);
    let mut pods = scope::with_sidecar(connection, &args.pods).await?;
    pods.retain(|pod| subject.means(pod));
    let sidecars = Sidecars::new(connection.client.clone(), &args.pods);
    let (name, reveal, messages) = (subject.name.clone(), args.reveal, args.messages);
    let asked = sidecars.each(&pods, |sidecars, pod| {
        let name = name.clone();
        async move { Asker { sidecars, pod, reveal }.story(&name, messages).await }
    });
    let (came, silent) = sorted(asked.await);
    let told: Vec<(PodRef, Story)> = came.into_iter().filter_map(|(pod, story)| Some((pod, story?))).collect();
    match args.format.output {
        Format::Text => {
            for (pod, story) in &told {
                show(pod, story, screen)?;
            }
            show_silent(&silent, screen)?;
        }
        format => screen.value(&value(&told, &silent), format)?,
    }
    match (told.is_empty(), silent.is_empty()) {
        (_, false) => Ok(Outcome::Incomplete),
        (false, true) => Ok(Outcome::Fine),
        (true, true) => Err(Failure::Nothing(format!(
            "none of {} sidecars knows a session or Call-ID {}; they keep the decisions of about an hour, and a session \
             half a minute after its end",
            pods.len(),
            args.subject
        ))),
    }
}

fn value(told: &[(PodRef, Story)], silent: &[Silent]) -> Value {
    let calls = told
        .iter()
        .map(|(pod, story)| json!({ "namespace": pod.namespace, "pod": pod.name, "why": why(story), "story": story }));
    json!({ "calls": calls.collect::<Vec<_>>(), "silent": silent })
}

/// Asks one sidecar.
struct Asker {
    sidecars: Sidecars,
    pod: PodRef,
    reveal: bool,
}

impl Asker {
    /// None if the sidecar knows nothing of it.
    async fn story(&self, name: &str, with_messages: bool) -> Result<Option<Story>, AskError> {
        let mut story = Story::default();
        if is_session(name) {
            story.sessions.extend(self.session(name).await?);
            story.add(self.decisions(("session", name)).await?);
            story.call_ids = call_ids(story.sessions.iter().chain(&story.decisions));
        }
        if story.call_ids.is_empty() {
            let page: Page = self.sidecars.get(&self.pod, &self.path("/sessions", ("call_id", name))).await?;
            story.sessions = whole_or_all(page.sessions, name);
            story.call_ids = call_ids(&story.sessions);
            if story.call_ids.is_empty() {
                story.call_ids.push(name.to_owned());
            }
        }
        for call_id in story.call_ids.clone() {
            let mut past = self.decisions(("call_id", &call_id)).await?;
            past.decisions = whole_or_all(past.decisions, &call_id);
            story.add(past);
        }
        if story.sessions.is_empty() && story.decisions.is_empty() {
            return Ok(None);
        }
        if with_messages {
            self.add_messages(&mut story).await?;
        }
        Ok(Some(story))
    }

    async fn session(&self, id: &str) -> Result<Option<Value>, AskError> {
        let path = query(&format!("/sessions/{}", escaped(id)), [("reveal", self.reveal())]);
        known(self.sidecars.get(&self.pod, &path).await)
    }

    async fn decisions(&self, field: (&str, &str)) -> Result<Decisions, AskError> {
        let path = query(&self.path("/decisions", field), [("limit", Some(MOST.to_string()))]);
        self.sidecars.get(&self.pod, &path).await
    }

    /// By session where there is one: its Call-ID may not be shown as it is.
    async fn add_messages(&self, story: &mut Story) -> Result<(), AskError> {
        let ids = story.sessions.iter().filter_map(|session| session["id"].as_str());
        let mut paths: Vec<String> =
            ids.map(|id| query(&format!("/sessions/{}/messages", escaped(id)), [("reveal", self.reveal())])).collect();
        if paths.is_empty() {
            paths = story.call_ids.iter().map(|call_id| self.path("/messages", ("call_id", call_id))).collect();
        }
        for path in paths {
            let Some(messages): Option<Messages> = known(self.sidecars.get(&self.pod, &path).await)? else { continue };
            story.lost |= messages.lost;
            story.messages.extend(messages.messages);
        }
        Ok(())
    }

    fn path(&self, path: &str, (name, value): (&str, &str)) -> String {
        query(path, [(name, Some(value.to_owned())), ("reveal", self.reveal())])
    }

    fn reveal(&self) -> Option<String> {
        self.reveal.then(|| "true".to_owned())
    }
}

impl Story {
    /// Adds what is not there yet, oldest first.
    fn add(&mut self, past: Decisions) {
        self.lost |= past.lost > 0 && past.decisions.len() == MOST;
        self.decisions.extend(past.decisions);
        self.decisions.sort_by_key(|decision| decision["seq"].as_u64());
        self.decisions.dedup_by_key(|decision| decision["seq"].as_u64());
    }
}

/// Sidecars look for a part of the Call-ID; a whole one is meant where there is one.
fn whole_or_all(values: Vec<Value>, call_id: &str) -> Vec<Value> {
    let (whole, parts): (Vec<Value>, Vec<Value>) = values.into_iter().partition(|value| value["call_id"] == call_id);
    if whole.is_empty() { parts } else { whole }
}

/// What there is not, is None.
fn known<T>(answer: Result<T, AskError>) -> Result<Option<T>, AskError> {
    match answer {
        Err(AskError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

fn call_ids<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<String> {
    let mut all = Vec::new();
    for call_id in values.into_iter().filter_map(|value| value["call_id"].as_str()) {
        if !all.iter().any(|known| known == call_id) {
            all.push(call_id.to_owned());
        }
    }
    all
}

/// The decision that explains where the call stands: why it ended, else why it was refused, else what came last.
fn why(story: &Story) -> Option<String> {
    let decisions: Vec<Decision> = story.decisions.iter().filter_map(|raw| Decision::deserialize(raw).ok()).collect();
    let last = |fits: &dyn Fn(&Decision) -> bool| decisions.iter().rev().find(|decision| fits(decision));
    let expired = last(&|decision| decision.kind == "Expired");
    let ended = last(&|decision| decision.kind == "Ended");
    let cause = match (ended, expired) {
        (Some(ended), Some(expired)) if ended.reason.as_deref() == Some("Expired") => Some(expired),
        (Some(ended), _) => Some(ended),
        (None, expired) => expired,
    };
    let cause = cause.or_else(|| last(&|decision| decision.kind == "Rejected")).or_else(|| last(&|_| true))?;
    Some(cause.text.clone())
}

fn show(pod: &PodRef, story: &Story, screen: &mut Screen<'_>) -> Result<(), Failure> {
    screen.line(&format!("{pod}: call {}", story.call_ids.join(", ")))?;
    for raw in &story.sessions {
        show_session(&Session::deserialize(raw).unwrap_or_default(), screen)?;
    }
    if story.sessions.is_empty() {
        screen.line("  no session: it was never answered with a 2xx, or is over for longer than half a minute")?;
    }
    if let Some(why) = why(story) {
        screen.line(&format!("  {why}"))?;
    }
    screen.line("")?;
    for raw in &story.decisions {
        show_decision(&Decision::deserialize(raw).unwrap_or_default(), screen)?;
    }
    if !story.messages.is_empty() {
        screen.line("")?;
    }
    for raw in &story.messages {
        show_message(&Message::deserialize(raw).unwrap_or_default(), screen)?;
    }
    if story.lost {
        screen.toned("  … there was more, which the sidecar no longer keeps", Tone::Warn)?;
    }
    screen.line("")
}

fn show_session(session: &Session, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Session { id, direction, legs, age_s, .. } = session;
    let peer = format!("{} at {}", legs.remote.party, legs.remote.flow);
    screen.line(&format!("  session {id}: {direction}, peer {peer}, policy {}", policy(session)))?;
    let state = session.ended.as_ref().map_or_else(|| "goes on".to_owned(), |cause| format!("over ({cause})"));
    let timer = match (session.interval_s, &session.refresher) {
        (Some(interval), Some(refresher)) => {
            format!(", session interval {}, refreshed by {refresher}", duration(interval.into()))
        }
        // What is over has none any more, whatever it had.
        _ if session.ended.is_some() => String::new(),
        _ => ", no session timer".to_owned(),
    };
    let next = match (&session.next, &session.ended) {
        (Some(next), None) => format!(", {} in {}", next.step, duration(next.in_s)),
        _ => String::new(),
    };
    screen.line(&format!("  {state}, {} old{timer}{next}", duration(*age_s)))
}

fn show_decision(decision: &Decision, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Decision { at, kind, text, observed, .. } = decision;
    let tone = if *observed { Tone::Dim } else { tone(kind) };
    screen.toned(&format!("  {at}  {text}"), tone)?;
    let because = because(decision);
    if because.is_empty() {
        Ok(())
    } else {
        screen.toned(&format!("  {:width$}  {because}", "", width = at.len()), Tone::Dim)
    }
}

/// Where it is written that it has to be so: the RFC, and the field of the policy.
pub fn because(decision: &Decision) -> String {
    let policy = Some(&decision.policy).filter(|name| !name.is_empty()).map(|name| format!(" of policy {name}"));
    let rule = decision.rule.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default();
    let field = decision.field.as_ref().map(|field| format!("{field}{}{rule}", policy.unwrap_or_default()));
    [decision.rfc.clone(), field].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

/// How a decision is meant.
pub fn tone(kind: &str) -> Tone {
    match kind {
        "Expired" | "ByeSent" | "RefreshFailed" | "NotRefreshed" | "ProbeFailed" | "LimitReached" => Tone::Bad,
        "Rejected" | "RejectionWithoutMinSe" | "Malformed" | "LateRequest" | "TimerOff" | "Glare" | "Challenged" => {
            Tone::Warn
        }
        "Established" | "Refreshed" => Tone::Good,
        _ => Tone::Plain,
    }
}

fn show_message(message: &Message, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let Message { at, from, to, start, outcome, status, changes, .. } = message;
    let to = to.as_deref().unwrap_or("nobody");
    let status = status.map(|status| format!(" {status}")).unwrap_or_default();
    screen.line(&format!("  {at}  {from} → {to}  {start}  [{outcome}{status}]"))?;
    for Change { header, before, after } in changes {
        let told = match (before, after) {
            (None, Some(after)) => format!("+ {header}: {after}"),
            (Some(before), None) => format!("- {header}: {before}"),
            (before, after) => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                format!("~ {header}: {} → {}", text(before), text(after))
            }
        };
        screen.toned(&format!("  {:width$}    {told}", "", width = at.len()), Tone::Warn)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_session_pod_and_session_or_call_id() {
        let read = |text| {
            let Subject { pod, name } = Subject::read(text);
            (pod, name)
        };
        assert_eq!(read("0-7"), (None, "0-7".to_owned()));
        assert_eq!(read("pbx-0/0-7"), (Some("pbx-0".to_owned()), "0-7".to_owned()));
        assert_eq!(read("voice/pbx-0/0-7"), (Some("pbx-0".to_owned()), "0-7".to_owned()));
        assert_eq!(read("a/b@192.0.2.1"), (None, "a/b@192.0.2.1".to_owned()), "a Call-ID may have a slash");
        assert!(!is_session("1-2-3") && !is_session("-1") && !is_session("a-1"));
    }

    fn story(kinds: &[(&str, Option<&str>)]) -> Story {
        let decision = |&(kind, reason): &(&str, Option<&str>)| json!({ "kind": kind, "reason": reason, "text": kind });
        Story { decisions: kinds.iter().map(decision).collect(), ..Story::default() }
    }

    #[test]
    fn why_is_the_end_then_the_refusal_then_what_came_last() {
        let expired = [("Established", None), ("Expired", None), ("ByeSent", None), ("Ended", Some("Expired"))];
        assert_eq!(why(&story(&expired)).as_deref(), Some("Expired"));
        let hung_up = [("Rejected", None), ("Established", None), ("Ended", Some("Bye"))];
        assert_eq!(why(&story(&hung_up)).as_deref(), Some("Ended"));
        assert_eq!(why(&story(&[("Rejected", None), ("Inserted", None)])).as_deref(), Some("Rejected"));
        assert_eq!(why(&story(&[("Established", None), ("Refreshed", None)])).as_deref(), Some("Refreshed"));
        assert_eq!(why(&story(&[])), None);
    }

    #[test]
    fn a_story_names_sections_fields_and_changed_headers() {
        let rejected = json!({ "at": "2026-01-01T00:00:00.000Z", "kind": "Rejected", "policy": "carrier", "rule": "late",
            "text": "422 to the remote side: it asked for 60 s.", "rfc": "RFC 4028 §9", "field": "spec.timers.minSE" });
        let message = json!({ "at": "2026-01-01T00:00:00.000Z", "from": "Remote", "to": null, "outcome": "Answered",
            "start": "INVITE sip:a@b SIP/2.0", "status": 422,
            "changes": [{ "header": "Min-SE", "before": null, "after": "90" }] });
        let story = Story {
            call_ids: vec!["x\x1b".to_owned()],
            decisions: vec![rejected],
            messages: vec![message],
            ..Story::default()
        };
        let pod = PodRef { namespace: "voice".to_owned(), name: "pbx-0".to_owned() };
        let mut out = Vec::new();
        show(&pod, &story, &mut Screen::plain(&mut out)).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "voice/pbx-0: call x\u{fffd}\n",
            "no session",
            "422 to the remote side",
            "RFC 4028 §9 · spec.timers.minSE of policy carrier, rule late",
            "Remote → nobody  INVITE sip:a@b SIP/2.0  [Answered 422]",
            "+ Min-SE: 90",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
