//! Reading what the shards remember, a little under each lock.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sipwarden_session_timer::{EventKind, Policy, SessionId, Time};
use time::OffsetDateTime;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use time::format_description::well_known::{Iso8601, Rfc3339};

use super::ring::Text;
use super::{Decision, KEPT, Recorder};
use crate::hub::Hub;
use crate::report::{Record, parse_session_name};
use crate::words::Words;

/// Entries looked at under one lock: some tens of microseconds.
pub(super) const LOCKED: usize = 256;

/// Three digits of a second, zeros too: times of a list stand one below the other.
const MILLISECONDS: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: NonZeroU8::new(3) }).encode();

/// Reads what is remembered.
#[derive(Clone)]
pub struct Reader {
    pub(super) hub: Arc<Hub>,
}

/// Something decided, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    record: Record,
    /// It was only told, because the policy observes.
    observed: bool,
    rule: Option<String>,
    #[serde(flatten)]
    words: Words,
}

impl Told {
    pub(super) fn of(kind: EventKind, observed: bool, policy: &Policy, rule: Option<u16>) -> Told {
        let rule = policy.rule_name(rule).map(str::to_owned);
        Told { record: Record::of(kind), observed, rule, words: Words::of(kind, observed) }
    }

    pub(super) fn of_decision(decision: &Decision) -> Told {
        let Decision { event, policy, .. } = decision;
        Told::of(event.kind, event.observed, policy, event.rule)
    }

    pub(super) fn kind(&self) -> &'static str {
        self.record.kind
    }

    pub(super) fn is_observed(&self) -> bool {
        self.observed
    }

    /// What is decided, and whether it is done, whatever rule says so.
    pub(super) fn decided(&self) -> (Record, bool) {
        (self.record, self.observed)
    }

    pub(super) fn is_about(&self, side: &str) -> bool {
        self.record.side == Some(side)
    }

    pub(super) fn is_of_rule(&self, rule: &str) -> bool {
        self.rule.as_deref() == Some(rule)
    }
}

impl Reader {
    /// Of this process.
    pub fn new(hub: Arc<Hub>) -> Reader {
        Reader { hub }
    }

    /// Looks at a shard's memory, for a short while; `None` when nothing is remembered.
    pub(super) fn look<T>(&self, shard: usize, at: impl FnOnce(&Recorder) -> T) -> Option<T> {
        self.hub.lock(shard).recorder.as_ref().map(at)
    }

    pub(super) fn shards(&self) -> std::ops::Range<usize> {
        0..self.hub.shard_count()
    }

    /// Since when entries count: what is older may still be there, until another pushes it out.
    pub(super) fn horizon(&self) -> Time {
        let now = self.hub.now().as_millis();
        Time::from_millis(now.saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX)))
    }

    /// A time of the core as RFC 3339 in UTC, with milliseconds.
    pub(super) fn at(&self, time: Time) -> String {
        let at = OffsetDateTime::from(self.hub.started() + time.since(Time::ZERO));
        at.format(&Iso8601::<MILLISECONDS>).unwrap_or_default()
    }

    /// The core's time of a text of [`Self::at`]; what was before the start is the start.
    pub(super) fn time_of(&self, text: &str) -> Option<Time> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let since: Duration = (at - OffsetDateTime::from(self.hub.started())).try_into().unwrap_or_default();
        Some(Time::ZERO + since)
    }

    /// The shard and the Call-ID of a session: of the session, or of the last decision about it.
    pub(super) fn call_of_session(&self, name: &str) -> Option<(usize, Vec<u8>)> {
        let (shard, id) = parse_session_name(name).filter(|(shard, _)| self.shards().contains(shard))?;
        let known = self.hub.session(shard, id).map(|view| view.call_id);
        known.or_else(|| self.remembered_call(shard, id)).map(|call_id| (shard, call_id))
    }

    fn remembered_call(&self, shard: usize, id: SessionId) -> Option<Vec<u8>> {
        let mut behind = Some(0);
        while let Some(after) = behind {
            let of_session = |decision: &Decision, _: &Text| decision.event.session == Some(id);
            let (mut found, next) =
                self.look(shard, |recorder| recorder.decisions.find_after(after, LOCKED, of_session))?;
            if let Some(first) = found.pop() {
                return Some(first.text);
            }
            behind = next;
        }
        None
    }
}
