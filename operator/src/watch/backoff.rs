//! How long a watch that failed waits. The client's own pauses grow to a minute, which an operator would be blind for
//! after an outage that is long over.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};

/// Between two tries at most. There are about ten watches, so the API server can bear them.
const MAX_PAUSE: Duration = Duration::from_secs(12);
/// By how much it may be less, so that watches and replicas do not all come at once.
const SPREAD: Duration = Duration::from_secs(4);

/// The client's own backoff, with [`MAX_PAUSE`] instead of its.
#[derive(Default)]
pub(super) struct WatchBackoff(DefaultBackoff);

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.next()?;
        if pause <= MAX_PAUSE {
            return Some(pause);
        }
        // What is beyond is random by seconds, and its milliseconds are fit to choose within less.
        let less = pause.as_millis() % SPREAD.as_millis();
        Some(MAX_PAUSE - Duration::from_millis(u64::try_from(less).expect("below the spread")))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_differ_there() {
        let mut backoff = WatchBackoff::default();
        assert!(backoff.next().expect("a pause") < Duration::from_secs(2));
        let later: Vec<Duration> = backoff.by_ref().skip(9).take(50).collect();
        assert!(later.iter().all(|pause| (MAX_PAUSE - SPREAD..=MAX_PAUSE).contains(pause)), "{later:?}");
        assert!(later.iter().collect::<HashSet<_>>().len() > 10, "{later:?}");
        backoff.reset();
        assert!(backoff.next().expect("a pause") < Duration::from_secs(2));
    }
}
