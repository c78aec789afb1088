//! What the process under test sends of its own to keep calls alive, and when: refreshes to the caller, probes to the
//! callee.

use std::time::{Duration, Instant};

/// A refresh that reached the caller for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refresh {
    /// Number of the call.
    pub(crate) number: u64,
    pub(crate) at: Instant,
    /// Since the 2xx that armed the timer.
    pub(crate) after: Duration,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Refreshes {
    seen: Vec<Refresh>,
    /// By call number: CSeq of the last one, when it came, and how many there were.
    last: Vec<Option<(u32, Instant, u32)>>,
    repeats: u64,
    probes: u64,
}

impl Refreshes {
    /// A refresh of the call `number`, set up at `answered`, comes to be answered `now`.
    pub(crate) fn refreshed(&mut self, number: u64, cseq: u32, answered: Instant, now: Instant) {
        let index = number as usize;
        self.last.resize(self.last.len().max(index + 1), None);
        let (armed, count) = match self.last[index] {
            Some((last, ..)) if last == cseq => return self.repeats += 1,
            Some((_, at, count)) => (at, count),
            None => (answered, 0),
        };
        self.last[index] = Some((cseq, now, count + 1));
        self.seen.push(Refresh { number, at: now, after: now.saturating_duration_since(armed) });
    }

    /// The callee was asked whether it still has a call.
    pub(crate) fn probed(&mut self) {
        self.probes += 1;
    }

    /// In the order they came.
    pub(crate) fn seen(&self) -> &[Refresh] {
        &self.seen
    }

    /// Calls refreshed at least `rounds` times.
    pub(crate) fn calls_refreshed(&self, rounds: u32) -> u64 {
        self.last.iter().flatten().filter(|(.., count)| *count >= rounds).count() as u64
    }

    /// Refreshes that came again.
    pub(crate) fn repeats(&self) -> u64 {
        self.repeats
    }

    /// Probes, repeats included.
    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_timed_from_the_one_before_and_counted_once() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut refreshes = Refreshes::default();
        for (cseq, seconds) in [(2, 40), (2, 41), (3, 81)] {
            refreshes.refreshed(7, cseq, begin, at(seconds));
        }
        let after: Vec<u64> = refreshes.seen().iter().map(|refresh| refresh.after.as_secs()).collect();
        assert_eq!((after, refreshes.repeats()), (vec![40, 41], 1));
        assert_eq!((refreshes.calls_refreshed(2), refreshes.calls_refreshed(3)), (1, 0));
    }
}
