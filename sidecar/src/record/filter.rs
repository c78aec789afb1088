//! Which decisions are asked for.

use serde::Deserialize;
use sipwarden_session_timer::Time;

use super::decisions::DecisionView;
use super::reader::Reader;
use crate::report::KINDS;

/// `?limit=&before=&since=&session=&call_id=&kind=&rule=&side=&peer=&reveal=`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DecisionsQuery {
    pub(super) limit: Option<usize>,
    pub(super) before: Option<u64>,
    /// A `seq`, or a time of RFC 3339.
    pub(super) since: Option<String>,
    session: Option<String>,
    call_id: Option<String>,
    /// One or more, with commas between them.
    kind: Option<String>,
    rule: Option<String>,
    side: Option<String>,
    peer: Option<String>,
    /// Show the users of SIP URIs.
    pub(super) reveal: bool,
}

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Number(u64),
    Time(Time),
}

/// Those that are wanted. Texts are parts in any case of letters, but for the names of sessions, kinds, rules and sides.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    session: Option<String>,
    call_id: Option<String>,
    kinds: Vec<String>,
    rule: Option<String>,
    side: Option<String>,
    peer: Option<String>,
}

impl DecisionsQuery {
    /// # Errors
    /// A text that says which kind or side there is none of.
    pub(super) fn filter(&self) -> Result<Filter, String> {
        let given =
            |text: &Option<String>| text.as_ref().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let lower = |text: &Option<String>| given(text).map(|text| text.to_lowercase());
        let kinds: Vec<String> = given(&self.kind)
            .map(|kinds| kinds.split(',').map(|kind| kind.trim().to_owned()).collect())
            .unwrap_or_default();
        if kinds.iter().any(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(format!("kind is one or more of {}", KINDS.join(", ")));
        }
        let side = given(&self.side);
        if side.as_ref().is_some_and(|side| !matches!(side.as_str(), "Local" | "Remote")) {
            return Err("side is Local or Remote".into());
        }
        Ok(Filter {
            session: given(&self.session),
            call_id: lower(&self.call_id),
            kinds,
            rule: given(&self.rule),
            side,
            peer: lower(&self.peer),
        })
    }

    /// # Errors
    /// A text that says what it may be.
    pub(super) fn since(&self, reader: &Reader) -> Result<Option<Since>, String> {
        let Some(text) = self.since.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse().map(Since::Number).ok();
        let since = number.or_else(|| reader.time_of(text).map(Since::Time));
        since.map(Some).ok_or_else(|| "since is a seq, or a time such as 2026-01-31T12:00:00Z".into())
    }
}

impl Since {
    pub(super) fn holds(self, number: u64, at: Time) -> bool {
        match self {
            Since::Number(since) => number > since,
            Since::Time(since) => at >= since,
        }
    }
}

impl Filter {
    /// `raw`: the Call-ID as it is. It is found by its parts only where it is shown, else a filter would tell users; whoever
    /// knows all of it may ask for it.
    pub(super) fn fits(&self, view: &DecisionView, raw: &[u8]) -> bool {
        let holds = |text: &str, part: &String| text.to_lowercase().contains(part.as_str());
        self.session.as_ref().is_none_or(|session| view.session.as_ref() == Some(session))
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == view.told.kind()))
            && self.rule.as_ref().is_none_or(|rule| view.told.is_of_rule(rule))
            && self.side.as_ref().is_none_or(|side| view.told.is_about(side))
            && self.peer.as_ref().is_none_or(|peer| view.peer.as_ref().is_some_and(|shown| holds(shown, peer)))
            && self
                .call_id
                .as_ref()
                .is_none_or(|part| holds(&view.call_id, part) || raw.eq_ignore_ascii_case(part.as_bytes()))
    }
}
