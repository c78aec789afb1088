//! What another policy would have decided: every request that is remembered is judged once by the policy in force and once
//! by the other one, by the code that judges calls. Nothing is changed.
//!
//! A session keeps the rule of the INVITE that began it, so requests are gone through in their order. What 2xx conclude is
//! not judged again, and that a caller would have asked otherwise, had it been answered otherwise, cannot be known.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use sipwarden_session_timer::{Mode, PeerFacts, Policy};

use super::reader::{LOCKED, Reader, Told};
use super::ring::Read;
use super::{Asked, names_user, peer_ip};
use crate::typed::shown_call_id;

/// Requests shown of those that change.
const MAX_EXAMPLES: usize = 50;
/// Requests judged at most; the newest count.
const MAX_JUDGED: usize = 200_000;

/// `/what-if`
#[derive(Debug, Serialize)]
pub(super) struct WhatIf {
    judged: usize,
    /// When the first of them came.
    since: Option<String>,
    /// For how many something else would be decided, or done.
    changed: usize,
    /// There were more within the last hour than are remembered.
    truncated: bool,
    by_kind: Vec<Kind>,
    examples: Vec<Example>,
}

/// How often something is decided, and how often it would be; of these, how often it is only observed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Kind {
    kind: &'static str,
    now: usize,
    then: usize,
    now_observed: usize,
    then_observed: usize,
}

#[derive(Debug, Serialize)]
struct Example {
    at: String,
    call_id: String,
    peer: Option<String>,
    direction: &'static str,
    now: Vec<Told>,
    then: Vec<Told>,
}

/// A policy, and the rules it holds calls by.
struct Judge<'a> {
    policy: &'a Policy,
    rules: HashMap<Vec<u8>, Option<u16>>,
}

impl Reader {
    /// What `then` would have decided instead of `now`.
    pub(super) fn what_if(&self, now: &Policy, then: &Policy, reveal: bool) -> WhatIf {
        let (requests, truncated) = self.requests();
        let (mut now, mut then) = (Judge::new(now), Judge::new(then));
        let (mut kinds, mut examples, mut changed) = (BTreeMap::new(), Vec::new(), 0);
        for read in &requests {
            let (is, would) = (now.judge(read), then.judge(read));
            is.iter().for_each(|told| count(&mut kinds, told, |kind| (&mut kind.now, &mut kind.now_observed)));
            would.iter().for_each(|told| count(&mut kinds, told, |kind| (&mut kind.then, &mut kind.then_observed)));
            if is.iter().map(Told::decided).ne(would.iter().map(Told::decided)) {
                changed += 1;
                if examples.len() < MAX_EXAMPLES {
                    examples.push(self.example(read, is, would, reveal));
                }
            }
        }
        WhatIf {
            judged: requests.len(),
            since: requests.first().map(|first| self.at(first.at)),
            changed,
            truncated,
            by_kind: kinds.into_values().collect(),
            examples,
        }
    }

    /// In the order in which they came, and whether some of the last hour are missing.
    fn requests(&self) -> (Vec<Read<Asked>>, bool) {
        let (mut all, mut lost, horizon) = (Vec::new(), false, self.horizon());
        for shard in self.shards() {
            let mut next = 0;
            while let Some((missed, some)) = self.look(shard, |recorder| recorder.requests.read_from(next, LOCKED)) {
                if some.is_empty() {
                    break;
                }
                next += missed + some.len() as u64;
                all.extend(some.into_iter().filter(|read| read.at >= horizon));
            }
            lost |= self.look(shard, |recorder| recorder.requests.lost_since(horizon)).unwrap_or(true);
        }
        all.sort_unstable_by_key(|read: &Read<Asked>| read.number);
        let beyond = all.len().saturating_sub(MAX_JUDGED);
        all.drain(..beyond);
        (all, lost || beyond > 0)
    }

    fn example(&self, read: &Read<Asked>, now: Vec<Told>, then: Vec<Told>, reveal: bool) -> Example {
        let [call_id, from, to, _] = read.head.parts(&read.text);
        let names_user = names_user(call_id, [Some(from), Some(to)]);
        Example {
            at: self.at(read.at),
            call_id: shown_call_id(call_id, names_user && !reveal),
            peer: read.head.peer.map(|peer| peer.to_string()),
            direction: read.head.judged.facts.direction().as_str(),
            now,
            then,
        }
    }
}

impl<'a> Judge<'a> {
    fn new(policy: &'a Policy) -> Judge<'a> {
        Judge { policy, rules: HashMap::new() }
    }

    fn judge(&mut self, read: &Read<Asked>) -> Vec<Told> {
        let rule = self.rule_for(read);
        let observed = self.policy.mode == Mode::Observe;
        let decided = read.head.judged.facts.judged_by(self.policy, rule);
        decided.into_iter().map(|kind| Told::of(kind, observed, self.policy, rule)).collect()
    }

    /// That of the INVITE which began the call. When it is not remembered, the rule of the name that held the session, else
    /// what the request itself tells.
    fn rule_for(&mut self, read: &Read<Asked>) -> Option<u16> {
        let Asked { judged, peer, .. } = &read.head;
        let [call_id, from, to, user_agent] = read.head.parts(&read.text);
        if !judged.facts.is_initial() {
            if let Some(rule) = self.rules.get(call_id) {
                return *rule;
            }
            let held = judged.policy.rule_name(judged.rule).and_then(|name| self.policy.rule_named(name));
            if held.is_some() {
                return held;
            }
        }
        let by_caller = judged.facts.is_of_caller();
        let (from, to) = if by_caller { (from, to) } else { (to, from) };
        let user_agent = if by_caller { user_agent } else { b"" };
        let facts = PeerFacts::of(judged.facts.direction(), peer_ip(*peer), from, to, user_agent);
        let rule = self.policy.rule_for(&facts);
        if judged.facts.is_initial() {
            self.rules.insert(call_id.to_vec(), rule);
        }
        rule
    }
}

fn count(
    kinds: &mut BTreeMap<&'static str, Kind>,
    told: &Told,
    counters: impl Fn(&mut Kind) -> (&mut usize, &mut usize),
) {
    let kind = kinds.entry(told.kind()).or_insert_with(|| Kind { kind: told.kind(), ..Kind::default() });
    let (all, observed) = counters(kind);
    *all += 1;
    *observed += usize::from(told.is_observed());
}
