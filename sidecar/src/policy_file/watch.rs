//! Learns at once that a file may have changed.

use std::path::Path;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

/// Watches a file until it is dropped.
pub(super) struct Watch {
    changed: watch::Receiver<()>,
    sender: watch::Sender<()>,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Of nothing yet.
    pub(super) fn new() -> Watch {
        let (sender, changed) = watch::channel(());
        Watch { changed, sender, watcher: None }
    }

    /// Watches the directory of `path`, unless it does so already. The directory, because a mounted volume changes by
    /// swapping a symbolic link beside the file, and editors replace the file by renaming another.
    ///
    /// # Errors
    /// The directory does not exist, or the system watches no more.
    pub(super) fn ensure(&mut self, path: &Path) -> notify::Result<()> {
        if self.watcher.is_some() {
            return Ok(());
        }
        let changed = self.sender.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                changed.send_replace(());
            }
        })?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        self.watcher = Some(watcher);
        Ok(())
    }

    /// Waits until something changed that was not seen yet.
    pub(super) async fn changed(&mut self) {
        self.changed.changed().await.expect("the sender is in `self`");
    }

    /// What changed until now is seen.
    pub(super) fn seen(&mut self) {
        self.changed.mark_unchanged();
    }
}
