//! What is not ready yet, by name. A guard per thing; dropping it says that the thing is ready.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The names of everything pending.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<&'static str>>>,
    changed: watch::Sender<()>,
}

/// One pending thing.
#[derive(Debug)]
#[must_use = "dropping the guard says ready"]
pub struct Pending {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Nothing pending.
    pub fn new() -> Readiness {
        Readiness { pending: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// `name` is pending until the guard is dropped.
    pub fn guard(&self, name: &'static str) -> Pending {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Pending { readiness: self.clone(), name }
    }

    /// What is pending, sorted.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Waits until nothing is pending.
    pub async fn ready(&self) {
        let mut changed = self.changed.subscribe();
        while !self.pending().is_empty() {
            changed.changed().await.expect("the sender is in `self`");
        }
    }
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::new()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(self.name);
        self.readiness.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_waits_for_every_guard() {
        let readiness = Readiness::new();
        let policy = readiness.guard("policy");
        let listeners = readiness.guard("listeners");
        assert_eq!(readiness.pending(), ["listeners", "policy"]);
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        drop(listeners);
        assert_eq!(readiness.pending(), ["policy"]);
        assert!(!waiting.is_finished());
        drop(policy);
        waiting.await.expect("ready");
    }
}
