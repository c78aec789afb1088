//! Decisions as they are shown.

use serde::Serialize;
use sipwarden_session_timer::Direction;

use super::Decision;
use super::filter::{DecisionsQuery, Filter, Since};
use super::reader::{LOCKED, Reader, Told};
use super::ring::Read;
use crate::report::{mode_name, session_name};
use crate::typed::shown_call_id;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// `/decisions`
#[derive(Debug, Serialize)]
pub(super) struct DecisionsPage {
    /// Newest last.
    decisions: Vec<DecisionView>,
    /// What to ask for as `before` to see older ones; none when there are none.
    next: Option<u64>,
    /// The oldest one kept.
    oldest: Option<u64>,
    /// How many are kept, of at most the last hour.
    held: usize,
    /// How many of the last hours were lost because there was no room for all.
    lost: u64,
}

/// A decision.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DecisionView {
    pub(super) seq: u64,
    at: String,
    pub(super) session: Option<String>,
    pub(super) call_id: String,
    policy: String,
    mode: &'static str,
    direction: Option<&'static str>,
    pub(super) peer: Option<String>,
    #[serde(flatten)]
    pub(super) told: Told,
}

impl Reader {
    /// # Errors
    /// A text that says what is wrong with the query.
    pub(super) fn decisions(&self, query: &DecisionsQuery, reveal: bool) -> Result<DecisionsPage, String> {
        let (filter, since) = (query.filter()?, query.since(self)?);
        let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
        let before = query.before.unwrap_or(u64::MAX);
        let (mut decisions, mut more) = (Vec::new(), false);
        for shard in self.shards() {
            let (found, has_more) = self.newest(shard, before, since, &filter, limit, reveal);
            decisions.extend(found);
            more |= has_more;
        }
        decisions.sort_unstable_by_key(|decision: &DecisionView| decision.seq);
        more |= decisions.len() > limit;
        decisions.drain(..decisions.len().saturating_sub(limit));
        let next = decisions.first().filter(|_| more).map(|first| first.seq);
        let (oldest, held, lost) = self.kept();
        Ok(DecisionsPage { decisions, next, oldest, held, lost })
    }

    /// Those of a shard that fit, newest first, at most `limit`; and whether there are more.
    fn newest(
        &self,
        shard: usize,
        before: u64,
        since: Option<Since>,
        filter: &Filter,
        limit: usize,
        reveal: bool,
    ) -> (Vec<DecisionView>, bool) {
        let (mut found, mut before, horizon) = (Vec::new(), before, self.horizon());
        loop {
            let some = self.look(shard, |recorder| recorder.decisions.read_before(before, LOCKED)).unwrap_or_default();
            let Some(first) = some.first() else { return (found, false) };
            before = first.number;
            for read in some.iter().rev() {
                if read.at < horizon || since.is_some_and(|since| !since.holds(read.number, read.at)) {
                    return (found, false);
                }
                let view = self.view(shard, read, reveal);
                if filter.fits(&view, &read.text) {
                    if found.len() == limit {
                        return (found, true);
                    }
                    found.push(view);
                }
            }
        }
    }

    pub(super) fn view(&self, shard: usize, read: &Read<Decision>, reveal: bool) -> DecisionView {
        let Decision { event, policy, direction, peer, names_user, .. } = &read.head;
        DecisionView {
            seq: read.number,
            at: self.at(read.at),
            session: event.session.map(|id| session_name(shard, id)),
            call_id: shown_call_id(&read.text, *names_user && !reveal),
            policy: policy.name.clone(),
            mode: mode_name(policy.mode),
            direction: direction.map(Direction::as_str),
            peer: peer.map(|peer| peer.to_string()),
            told: Told::of_decision(&read.head),
        }
    }

    /// The oldest decision of all shards, how many there are, and how many were lost.
    fn kept(&self) -> (Option<u64>, usize, u64) {
        let of_shard = |shard| {
            self.look(shard, |recorder| {
                let ring = &recorder.decisions;
                (ring.oldest().map(|(number, _)| number), ring.held(), ring.lost())
            })
        };
        self.shards().filter_map(of_shard).fold((None, 0, 0), |(oldest, held, lost), (number, len, more)| {
            (oldest.into_iter().chain(number).min(), held + len, lost + more)
        })
    }
}
