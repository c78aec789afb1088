//! Pods that were given a config which their sidecar does not obey yet, and when their kubelet is to be nudged.
//!
//! A kubelet brings a pod's volumes up to date in rounds, each over a list of all its pods. A change that comes during a
//! round, before it is the pod's turn, counts as done with what the pod was when the round began. So of some dozen pods of
//! a node that change at once one is missed now and then, until the pod changes again or the kubelet looks by itself, a minute
//! or more later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::index::Key;

/// The kubelet shows a change within 0.2 to 0.4 s, or misses it.
pub(super) const SHOWN_WITHIN: Duration = Duration::from_millis(400);

/// See the module.
#[derive(Clone, Default)]
pub struct Deliveries(Arc<Mutex<HashMap<Key, Delivery>>>);

struct Delivery {
    /// Until then the kubelet is left to itself.
    due: Instant,
    /// What it gets after the next nudge: one that is slow has enough to do.
    pause: Duration,
}

impl Deliveries {
    /// The pod was given another config.
    pub(super) fn begin(&self, key: Key) {
        self.lock().insert(key, Delivery::new());
    }

    /// Whether the kubelet had its time to show the config. True counts as a nudge, so that it has twice as much for the next.
    pub(crate) fn is_overdue(&self, key: &Key) -> bool {
        let mut all = self.lock();
        // The process before this one may have given it.
        let delivery = all.entry(key.clone()).or_insert_with(Delivery::new);
        let now = Instant::now();
        let is_overdue = delivery.due <= now;
        if is_overdue {
            delivery.due = now + delivery.pause;
            delivery.pause *= 2;
        }
        is_overdue
    }

    /// The sidecar obeys, or is gone.
    pub(crate) fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Delivery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Delivery {
    fn new() -> Self {
        Self { due: Instant::now() + SHOWN_WITHIN, pause: SHOWN_WITHIN * 2 }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kubelet_has_its_time_and_after_each_nudge_twice_as_much() {
        let (deliveries, key) = (Deliveries::default(), Key::new("voice", "pbx-0"));
        deliveries.begin(key.clone());
        for nudges in 0..4 {
            let time = SHOWN_WITHIN * 2_u32.pow(nudges);
            advance(time - Duration::from_millis(1)).await;
            assert!(!deliveries.is_overdue(&key), "{nudges} nudges");
            advance(Duration::from_millis(1)).await;
            assert!(deliveries.is_overdue(&key), "{nudges} nudges");
        }
        deliveries.begin(key.clone());
        assert!(!deliveries.is_overdue(&key), "another config");
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_process_wrote_has_its_time_from_when_it_is_noticed() {
        let (deliveries, key) = (Deliveries::default(), Key::new("voice", "pbx-0"));
        assert!(!deliveries.is_overdue(&key));
        advance(SHOWN_WITHIN).await;
        assert!(deliveries.is_overdue(&key));
        deliveries.end(&key);
        assert!(!deliveries.is_overdue(&key), "it was shown, and changed again");
    }
}
