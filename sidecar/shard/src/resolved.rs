//! What names came to. Bounded in names and in packets that wait for one.

use std::collections::HashMap;
use std::time::Duration;

use sipwarden_session_timer::Time;

use super::{Resolved, Target};

/// Most names remembered or waited for.
const MAX_NAMES: usize = 4096;
/// Most packets that wait for names.
const MAX_WAITING: usize = 1024;
/// An answer nobody gave is waited for no longer than the sender retransmits (64 × T1, RFC 3261 §17.1.1.2).
const WAIT: Duration = Duration::from_secs(32);
/// A packet that waited must find its answer when it is handed in again, even one that may not be kept.
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(3600);

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Known(Resolved),
    /// Look it up; the packet is counted as waiting until [`Names::learn`].
    Unknown,
    /// Too much is looked up already.
    Full,
}

/// The names a shard knows.
#[derive(Default)]
pub(super) struct Names {
    entries: HashMap<Target, Entry>,
    waiting: usize,
}

struct Entry {
    state: State,
    until: Time,
}

enum State {
    Known(Resolved),
    Waiting { packets: usize },
}

impl Names {
    pub(super) fn find(&mut self, now: Time, target: &Target) -> Found {
        match self.entries.get_mut(target).filter(|entry| now < entry.until) {
            Some(Entry { state: State::Known(answer), .. }) => return Found::Known(*answer),
            Some(Entry { state: State::Waiting { packets }, .. }) if self.waiting < MAX_WAITING => {
                *packets += 1;
                self.waiting += 1;
                return Found::Unknown;
            }
            Some(_) => return Found::Full,
            None => {}
        }
        if self.waiting >= MAX_WAITING {
            self.drop_old(now);
        }
        if self.waiting >= MAX_WAITING {
            return Found::Full;
        }
        self.put(now, target, Entry { state: State::Waiting { packets: 1 }, until: now + WAIT });
        Found::Unknown
    }

    pub(super) fn learn(&mut self, now: Time, target: &Target, answer: Resolved, ttl: Duration) {
        let until = now + ttl.clamp(MIN_TTL, MAX_TTL);
        self.put(now, target, Entry { state: State::Known(answer), until });
    }

    fn put(&mut self, now: Time, target: &Target, entry: Entry) {
        if self.entries.len() >= MAX_NAMES {
            self.make_room(now);
        }
        self.waiting += entry.packets();
        if let Some(old) = self.entries.insert(target.clone(), entry) {
            self.waiting -= old.packets();
        }
    }

    /// What is waited for stays: it is bounded by [`MAX_WAITING`], so there is always an answer to forget.
    fn make_room(&mut self, now: Time) {
        self.drop_old(now);
        if self.entries.len() < MAX_NAMES {
            return;
        }
        let known = self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Known(_)));
        if let Some((target, _)) = known.min_by_key(|(_, entry)| entry.until) {
            let target = target.clone();
            self.entries.remove(&target);
        }
    }

    fn drop_old(&mut self, now: Time) {
        self.entries.retain(|_, entry| now < entry.until);
        self.waiting = self.entries.values().map(Entry::packets).sum();
    }
}

impl Entry {
    fn packets(&self) -> usize {
        match self.state {
            State::Waiting { packets } => packets,
            State::Known(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Unresolvable;
    use super::*;
    use sipwarden_sip::value::Transport;

    const MINUTE: Duration = Duration::from_secs(60);

    fn target(host: impl Into<String>) -> Target {
        Target { host: host.into(), port: None, transport: None }
    }

    fn answer() -> Resolved {
        Ok((Transport::Udp, "192.0.2.9:5060".parse().unwrap()))
    }

    #[test]
    fn a_name_is_unknown_until_learned_and_again_after_its_ttl() {
        let mut names = Names::default();
        let now = Time::ZERO;
        assert_eq!(names.find(now, &target("a.example")), Found::Unknown);
        names.learn(now, &target("a.example"), answer(), MINUTE);
        assert_eq!(names.find(now + MINUTE / 2, &target("a.example")), Found::Known(answer()));
        let with_port = Target { port: Some(5070), ..target("a.example") };
        assert_eq!(names.find(now, &with_port), Found::Unknown, "another port is another question");
        assert_eq!(names.find(now + MINUTE, &target("a.example")), Found::Unknown);
    }

    #[test]
    fn an_answer_without_ttl_lasts_until_the_packet_comes_again() {
        let mut names = Names::default();
        names.learn(Time::ZERO, &target("a.example"), Err(Unresolvable), Duration::ZERO);
        let soon = Time::ZERO + Duration::from_millis(10);
        assert_eq!(names.find(soon, &target("a.example")), Found::Known(Err(Unresolvable)));
    }

    #[test]
    fn waiting_packets_are_bounded_and_an_answer_makes_room() {
        let mut names = Names::default();
        for _ in 0..MAX_WAITING {
            assert_eq!(names.find(Time::ZERO, &target("slow.example")), Found::Unknown);
        }
        assert_eq!(names.find(Time::ZERO, &target("slow.example")), Found::Full);
        assert_eq!(names.find(Time::ZERO, &target("other.example")), Found::Full);
        names.learn(Time::ZERO, &target("slow.example"), answer(), MINUTE);
        assert_eq!(names.waiting, 0);
        assert_eq!(names.find(Time::ZERO, &target("other.example")), Found::Unknown);
    }

    #[test]
    fn an_answer_that_never_comes_is_waited_for_only_so_long() {
        let mut names = Names::default();
        for _ in 0..MAX_WAITING {
            names.find(Time::ZERO, &target("lost.example"));
        }
        assert_eq!(names.find(Time::ZERO + WAIT, &target("other.example")), Found::Unknown);
    }

    #[test]
    fn names_are_bounded_and_the_first_to_expire_makes_room() {
        let mut names = Names::default();
        names.learn(Time::ZERO, &target("short.example"), answer(), MINUTE / 2);
        for n in 0..MAX_NAMES {
            names.learn(Time::ZERO, &target(format!("{n}.example")), answer(), MINUTE);
        }
        assert_eq!(names.entries.len(), MAX_NAMES);
        assert_eq!(names.find(Time::ZERO, &target("0.example")), Found::Known(answer()));
        assert_eq!(names.find(Time::ZERO, &target("short.example")), Found::Unknown);
        assert_eq!(names.entries.len(), MAX_NAMES);
    }
}
