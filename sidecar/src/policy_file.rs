//! The policy file: read at start, watched, and read again when it changes or on request. A file that became wrong
//! leaves the policy in force untouched.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use sipwarden_crds::{SidecarConfig, file};
use sipwarden_session_timer::{Mode, Policy};
use tokio::sync::{Notify, watch};
use tracing::{error, info};

use crate::hub::Hub;
use crate::metrics::Reload;
use crate::policy;
use crate::report::mode_name;

/// Editors and volume mounts change a file in several steps; reading waits for silence of this length.
const SETTLE_TIME: Duration = Duration::from_millis(50);
/// A file larger than this is no policy.
const MAX_LEN: u64 = 1 << 20;

/// A policy and where it comes from.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What the shards obey.
    pub policy: Arc<Policy>,
    /// The policy's generation, 0 where nobody counts.
    pub generation: i64,
    /// Equal for policies that behave equally; `None` for the built-in one.
    pub hash: Option<String>,
    /// Since when.
    pub since: Instant,
}

/// The policy file of a running sidecar, and the policy in force.
pub struct PolicyFile {
    path: Option<PathBuf>,
    in_force: RwLock<InForce>,
    asked: Notify,
}

/// Reads a policy file.
///
/// # Errors
/// It cannot be read, or what is wrong with it, one problem a line, each with line and field.
pub fn read(path: &Path) -> anyhow::Result<SidecarConfig> {
    parse(path, &text_of(path)?)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    let length = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(length <= MAX_LEN, "{} is larger than {MAX_LEN} bytes", path.display());
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(path: &Path, text: &str) -> anyhow::Result<SidecarConfig> {
    match file::load(text) {
        Ok(loaded) => Ok(loaded.into_config()),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect();
            anyhow::bail!("{}", lines.join("\n"))
        }
    }
}

impl PolicyFile {
    /// Reads `path`; without one the policy is the built-in Observe.
    ///
    /// # Errors
    /// As of [`read`].
    pub fn open(path: Option<PathBuf>) -> anyhow::Result<PolicyFile> {
        let in_force = match &path {
            Some(path) => InForce::new(&read(path)?)?,
            None => InForce::built_in(),
        };
        Ok(PolicyFile { path, in_force: RwLock::new(in_force), asked: Notify::new() })
    }

    /// A policy that no file holds.
    ///
    /// # Errors
    /// A combination of timers that compiling refuses too.
    pub fn without_file(config: &SidecarConfig) -> anyhow::Result<PolicyFile> {
        Ok(PolicyFile { path: None, in_force: RwLock::new(InForce::new(config)?), asked: Notify::new() })
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The policy in force.
    pub fn in_force(&self) -> InForce {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the file to be read again.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    /// Reads the file again whenever it changes or [`Self::reload`] asks, until dropped.
    pub async fn follow(&self, hub: &Hub) {
        self.tell(hub);
        let Some(path) = &self.path else { return std::future::pending().await };
        let (changed_sender, mut changed) = watch::channel(());
        // Kept until this future is dropped; without a watcher SIGHUP still works.
        let _watcher = watch_directory_of(path, changed_sender)
            .inspect_err(|error| error!(%error, "the policy file is not watched; SIGHUP reads it again"));
        // What the directory tells of may be another file, a log that our own complaint about this one goes to included.
        let mut seen = None;
        loop {
            let asked = tokio::select! {
                Ok(()) = changed.changed() => {
                    tokio::time::sleep(SETTLE_TIME).await;
                    false
                }
                () = self.asked.notified() => true,
            };
            changed.mark_unchanged();
            let text = text_of(path).map_err(|error| format!("{error:#}"));
            let result =
                if asked || seen.as_ref() != Some(&text) { self.take(path, &text, hub) } else { Reload::Unchanged };
            hub.metrics.policy_reload(result);
            seen = Some(text);
        }
    }

    fn take(&self, path: &Path, text: &Result<String, String>, hub: &Hub) -> Reload {
        let text = text.as_ref().map_err(|error| anyhow::anyhow!("{error}"));
        let read = text.and_then(|text| parse(path, text)).and_then(|config| InForce::new(&config));
        let old = self.in_force();
        match read {
            Ok(new) if new.hash == old.hash && new.policy.name == old.policy.name => Reload::Unchanged,
            Ok(new) => {
                hub.set_policy(&new.policy);
                *self.in_force.write().unwrap_or_else(PoisonError::into_inner) = new;
                self.tell(hub);
                Reload::Applied
            }
            Err(error) => {
                error!("the policy stays as it was: {error:#}");
                Reload::Refused
            }
        }
    }

    fn tell(&self, hub: &Hub) {
        let InForce { policy, generation, hash, .. } = self.in_force();
        let (mode, hash) = (mode_name(policy.mode), hash.unwrap_or_default());
        hub.metrics.policy(&policy.name, generation, &hash, mode);
        info!(policy = policy.name, generation, hash, mode, "policy in force");
    }
}

impl InForce {
    fn new(config: &SidecarConfig) -> anyhow::Result<InForce> {
        Ok(InForce {
            policy: Arc::new(policy::from_config(config)?),
            generation: config.generation,
            hash: Some(config.hash.clone()),
            since: Instant::now(),
        })
    }

    fn built_in() -> InForce {
        InForce { policy: Arc::new(Policy::observe()), generation: 0, hash: None, since: Instant::now() }
    }

    /// `Enforce` or `Observe`.
    pub fn mode(&self) -> Mode {
        self.policy.mode
    }
}

/// The directory, because a mounted ConfigMap changes by swapping a symbolic link beside the file, and editors replace
/// the file by renaming another.
fn watch_directory_of(path: &Path, changed: watch::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            changed.send_replace(());
        }
    })?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
