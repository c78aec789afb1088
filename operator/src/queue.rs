//! Keys that have to be looked at, each at most once at a time.
//!
//! ```text
//!            add          next            done: Done
//!  (absent) ─────► ready ─────► busy ───────────────► (absent), or ready if it was added meanwhile
//!                    ▲            │ done: Retry, After
//!                    └─ delayed ◄─┘
//! ```
//!
//! It grows with the number of objects, never with the number of their changes. It must not know what a key names.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// After the first failure; doubled by each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Between failures at most.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// See the module.
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    wake: Notify,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left to do.
    Done,
    /// To be tried again, later with every failure in a row.
    Retry,
    /// To be looked at again after this time.
    After(Duration),
}

/// A key to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task<K> {
    /// Which.
    pub key: K,
    /// Since when it waits.
    pub since: Instant,
}

struct Inner<K> {
    items: HashMap<K, Item>,
    ready: VecDeque<K>,
    /// By when they become ready; the number makes keys of the same time unique.
    delayed: BTreeMap<(Instant, u64), K>,
    next_number: u64,
}

struct Item {
    place: Place,
    failures: u32,
    since: Instant,
}

#[derive(Clone, Copy)]
enum Place {
    Ready,
    Delayed((Instant, u64)),
    Busy { again_at: Option<Instant> },
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner { items: HashMap::new(), ready: VecDeque::new(), delayed: BTreeMap::new(), next_number: 0 };
        Self { inner: Mutex::new(inner), wake: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// To be looked at as soon as possible.
    pub fn add(&self, key: K) {
        self.add_after(key, Duration::ZERO);
    }

    /// To be looked at after this time, unless it is to be earlier anyway.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.lock().add(key, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Waits for a key to look at. Nobody else gets it until it is [`done`](Self::done). Who stops waiting takes none.
    pub async fn next(&self) -> Task<K> {
        loop {
            let first_delayed = {
                let mut inner = self.lock();
                inner.promote(Instant::now());
                if let Some(task) = inner.pop() {
                    if !inner.ready.is_empty() {
                        self.wake.notify_one();
                    }
                    return task;
                }
                inner.delayed.first_key_value().map(|((at, _), _)| *at)
            };
            match first_delayed {
                None => self.wake.notified().await,
                Some(at) => tokio::select! {
                    () = self.wake.notified() => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Tells what became of a key.
    pub fn done(&self, key: K, outcome: Outcome) {
        self.lock().done(key, outcome, Instant::now());
        self.wake.notify_one();
    }

    /// How many keys wait or are being looked at.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn add(&mut self, key: K, at: Instant) {
        let Some(item) = self.items.get_mut(&key) else { return self.insert(key, at, 0) };
        match &mut item.place {
            Place::Ready => {}
            Place::Busy { again_at } => *again_at = Some(again_at.map_or(at, |known| known.min(at))),
            Place::Delayed(place) if at < place.0 => {
                let (place, failures) = (*place, item.failures);
                self.delayed.remove(&place);
                self.insert(key, at, failures);
            }
            Place::Delayed(_) => {}
        }
    }

    fn done(&mut self, key: K, outcome: Outcome, now: Instant) {
        let Some(Item { place: Place::Busy { again_at }, failures, .. }) = self.items.remove(&key) else { return };
        match outcome {
            Outcome::Done => {
                if let Some(at) = again_at {
                    self.insert(key, at, 0);
                }
            }
            Outcome::Retry => {
                let backoff = (FIRST_BACKOFF * 2_u32.saturating_pow(failures.min(16))).min(MAX_BACKOFF);
                // Who asks anew has reason to, but not to undo the pause between failures.
                let wish = again_at.map_or(now + backoff, |at| at.max(now + FIRST_BACKOFF));
                self.insert(key, wish.min(now + backoff), failures.saturating_add(1));
            }
            Outcome::After(delay) => {
                let at = now + delay;
                self.insert(key, again_at.map_or(at, |again_at| again_at.min(at)), 0);
            }
        }
    }

    fn insert(&mut self, key: K, at: Instant, failures: u32) {
        let now = Instant::now();
        let place = if at <= now {
            self.ready.push_back(key.clone());
            Place::Ready
        } else {
            let place = (at, self.next_number);
            self.next_number += 1;
            self.delayed.insert(place, key.clone());
            Place::Delayed(place)
        };
        self.items.insert(key, Item { place, failures, since: now });
    }

    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            if let Some(item) = self.items.get_mut(&key) {
                item.place = Place::Ready;
            }
            self.ready.push_back(key);
        }
    }

    fn pop(&mut self) -> Option<Task<K>> {
        let key = self.ready.pop_front()?;
        let item = self.items.get_mut(&key).expect("what is ready is an item");
        item.place = Place::Busy { again_at: None };
        Some(Task { since: item.since, key })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    async fn next(queue: &Queue<&'static str>) -> Option<&'static str> {
        timeout(Duration::from_millis(1), queue.next()).await.ok().map(|task| task.key)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_twice_is_given_once() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!((next(&queue).await, next(&queue).await, next(&queue).await), (Some("a"), Some("b"), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_someone_looks_at_it_is_given_again_after_that() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(next(&queue).await, Some("a"));
        queue.add("a");
        assert_eq!(next(&queue).await, None);
        queue.done("a", Outcome::Done);
        assert_eq!(next(&queue).await, Some("a"));
        queue.done("a", Outcome::Done);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_wait_longer_and_longer_and_success_forgets_them() {
        let queue = Queue::default();
        queue.add("a");
        let mut waits = Vec::new();
        for outcome in [Outcome::Retry, Outcome::Retry, Outcome::After(Duration::ZERO), Outcome::Retry, Outcome::Done] {
            let before = Instant::now();
            assert_eq!(queue.next().await.key, "a");
            waits.push(before.elapsed().as_millis());
            queue.done("a", outcome);
        }
        assert_eq!(waits[..3], [0, 200, 400]);
        assert_eq!(waits[3..], [0, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts() {
        let queue = Queue::default();
        queue.add_after("a", Duration::from_secs(9));
        queue.add_after("a", Duration::from_secs(3));
        queue.add_after("a", Duration::from_secs(6));
        advance(Duration::from_secs(2)).await;
        assert_eq!(next(&queue).await, None);
        advance(Duration::from_secs(1)).await;
        assert_eq!(next(&queue).await, Some("a"));
        assert_eq!(queue.len(), 1, "it is being looked at");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_waits_however_often_the_key_is_added_meanwhile() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(next(&queue).await, Some("a"));
        queue.add("a");
        queue.done("a", Outcome::Retry);
        assert_eq!(next(&queue).await, None);
        advance(FIRST_BACKOFF).await;
        assert_eq!(next(&queue).await, Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_while_it_fails_does_not_wait_for_the_whole_backoff() {
        let queue = Queue::default();
        queue.add("a");
        for _ in 0..10 {
            assert_eq!(queue.next().await.key, "a");
            queue.done("a", Outcome::Retry);
        }
        assert_eq!(queue.next().await.key, "a");
        for wish in [Duration::from_secs(3), Duration::from_secs(60)] {
            queue.add_after("a", wish);
            queue.done("a", Outcome::Retry);
            let before = Instant::now();
            assert_eq!(queue.next().await.key, "a");
            assert_eq!(before.elapsed(), wish.min(MAX_BACKOFF));
        }
        queue.add("a");
        queue.done("a", Outcome::Retry);
        let before = Instant::now();
        assert_eq!(queue.next().await.key, "a");
        assert_eq!(before.elapsed(), FIRST_BACKOFF, "at once would be in a loop while it is added in one");
    }

    #[tokio::test(start_paused = true)]
    async fn everyone_who_waits_gets_a_key() {
        let queue = Queue::default();
        let (added, taken) = tokio::join!(
            async {
                tokio::task::yield_now().await;
                ["a", "b", "c"].into_iter().for_each(|key| queue.add(key));
                3
            },
            async { tokio::join!(queue.next(), queue.next(), queue.next()) }
        );
        assert_eq!(added, 3);
        let mut taken = [taken.0.key, taken.1.key, taken.2.key];
        taken.sort_unstable();
        assert_eq!(taken, ["a", "b", "c"]);
    }
}
