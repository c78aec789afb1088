//! The policy in force and where it comes from: the policy file, else the last good one, else the built-in Observe.
//!
//! The file is read at start, watched, and read again when it changes or on request. One that became wrong leaves the
//! policy in force untouched. One that is not there, where a last good one is kept, is nothing wrong: nobody has
//! configured this sidecar yet, or no more.

mod content;
mod follow;
mod last_good;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use sipwarden_crds::{self as crds, SessionPolicy, SessionPolicySpec, SidecarConfig, compile};
use sipwarden_session_timer::{Mode, Policy};
use tokio::sync::Notify;
use tracing::{error, info, warn};

pub use self::content::{Fault, read};
use crate::credentials::CredentialSet;
use crate::policy;

/// Where to look for a policy.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The policy file; `None` is the built-in Observe.
    pub file: Option<PathBuf>,
    /// Where the last good config is kept. With it a file that is missing, empty or wrong stops no start.
    pub last_good: Option<PathBuf>,
    /// Holds a directory for each Secret that a policy names.
    pub credentials_dir: PathBuf,
}

/// Where a policy in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The policy file as it is.
    File,
    /// The policy file as it was when it was last good.
    LastGood,
    /// No file: Observe.
    BuiltIn,
}

/// A policy and where it comes from.
#[derive(Clone, Debug)]
pub struct InForce {
    /// What the shards obey.
    pub policy: Arc<Policy>,
    /// What it was made of. It names credentials and holds none.
    pub config: Arc<SidecarConfig>,
    /// Where that stood.
    pub source: Source,
    /// Since when.
    pub since: Instant,
}

/// The policy file of a running sidecar, and the policy in force.
pub struct PolicyFile {
    sources: Sources,
    state: RwLock<State>,
    asked: Notify,
}

struct State {
    in_force: InForce,
    /// What is wrong with the file; the policy in force is another.
    fault: Option<Fault>,
    /// What is wrong with the credentials of the policy in force.
    missing: Vec<String>,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { file: None, last_good: None, credentials_dir: Sources::CREDENTIALS_DIR.into() }
    }
}

impl Sources {
    /// Where Secrets are mounted.
    pub const CREDENTIALS_DIR: &str = "/etc/sipwarden/credentials";
}

impl Source {
    /// `File`, `LastGood` or `BuiltIn`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::File => "File",
            Source::LastGood => "LastGood",
            Source::BuiltIn => "BuiltIn",
        }
    }
}

impl InForce {
    /// `Enforce` or `Observe`.
    pub fn mode(&self) -> Mode {
        self.policy.mode
    }
}

impl PolicyFile {
    /// Finds the policy to start with.
    ///
    /// # Errors
    /// The file gives no policy and no last good one is kept.
    pub fn open(sources: Sources) -> Result<PolicyFile, Fault> {
        let Some(file) = &sources.file else { return PolicyFile::new(built_in(), Source::BuiltIn, sources) };
        let fault = match read(file).and_then(|config| PolicyFile::new(config, Source::File, sources.clone())) {
            Ok(opened) => {
                opened.keep();
                return Ok(opened);
            }
            Err(fault) => fault,
        };
        let Some(last_good) = &sources.last_good else { return Err(fault) };
        let opened = match read(last_good).and_then(|config| PolicyFile::new(config, Source::LastGood, sources.clone()))
        {
            Ok(opened) => opened,
            Err(lost) => {
                if !matches!(lost, Fault::NotConfigured(_)) {
                    warn!("the last good policy is lost: {lost}");
                }
                PolicyFile::new(built_in(), Source::BuiltIn, sources)?
            }
        };
        if let Fault::NotConfigured(_) = fault {
            info!("not configured yet: {fault}");
        } else {
            error!("the policy file gives no policy: {fault}");
            opened.change().fault = Some(fault);
        }
        Ok(opened)
    }

    /// A policy that no file holds.
    ///
    /// # Errors
    /// A combination of timers that compiling refuses too.
    pub fn without_file(config: SidecarConfig) -> Result<PolicyFile, Fault> {
        PolicyFile::new(config, Source::BuiltIn, Sources::default())
    }

    /// Where the policy is looked for.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// The policy in force.
    pub fn in_force(&self) -> InForce {
        self.state().in_force.clone()
    }

    /// What is wrong with the file and what it names.
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        state.fault.iter().map(Fault::to_string).chain(state.missing.iter().cloned()).collect()
    }

    /// Asks for the file to be read again.
    pub fn reload(&self) {
        self.asked.notify_one();
    }

    fn new(config: SidecarConfig, source: Source, sources: Sources) -> Result<PolicyFile, Fault> {
        let (in_force, missing) = in_force(Arc::new(config), source, &sources)?;
        warn_of(&missing);
        let state = RwLock::new(State { in_force, fault: None, missing });
        Ok(PolicyFile { sources, state, asked: Notify::new() })
    }

    /// Keeps the policy in force for the next start, where that can be.
    fn keep(&self) {
        let Some(path) = &self.sources.last_good else { return };
        if let Err(error) = last_good::write(path, &self.in_force().config) {
            warn!("a restart will not know this policy unless its file is there: {error:#}");
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a config comes to, and what is wrong with its credentials.
fn in_force(config: Arc<SidecarConfig>, source: Source, sources: &Sources) -> Result<(InForce, Vec<String>), Fault> {
    let credentials = CredentialSet::read(&config, &sources.credentials_dir);
    let policy = policy::from_config(&config, &credentials)
        .map_err(|error| Fault::Invalid(format!("policy {}: {error}", config.policy)))?;
    let missing = credentials.problems.iter().map(|problem| format!("no credentials: {problem}")).collect();
    Ok((InForce { policy: Arc::new(policy), config, source, since: Instant::now() }, missing))
}

fn warn_of(missing: &[String]) {
    for problem in missing {
        warn!("{problem}");
    }
}

/// What runs without any configuration.
fn built_in() -> SidecarConfig {
    let spec = SessionPolicySpec { mode: crds::Mode::Observe, ..SessionPolicySpec::default() };
    compile(&SessionPolicy::new("built-in", spec)).expect("defaults are a valid policy")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const POLICY: &str = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: carrier}\n\
                          spec: {timers: {sessionExpires: 10m}}\n";

    fn sources(directory: &Path) -> Sources {
        Sources {
            file: Some(directory.join("config")),
            last_good: Some(directory.join("last-good.json")),
            credentials_dir: directory.join("credentials"),
        }
    }

    fn opened(sources: &Sources) -> (Source, String, Vec<String>) {
        let opened = PolicyFile::open(sources.clone()).expect("opened");
        let InForce { policy, source, .. } = opened.in_force();
        (source, policy.name.clone(), opened.problems())
    }

    #[test]
    fn the_built_in_config_is_the_cores_observe() {
        let (in_force, _) = in_force(Arc::new(built_in()), Source::BuiltIn, &Sources::default()).expect("valid");
        assert_eq!(*in_force.policy, Policy::observe());
    }

    #[test]
    fn the_file_comes_before_the_last_good_one_and_that_before_the_built_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let sources = sources(directory.path());
        let file = sources.file.as_deref().expect("a path");
        assert_eq!(opened(&sources), (Source::BuiltIn, "built-in".into(), vec![]));
        std::fs::write(file, POLICY).expect("written");
        assert_eq!(opened(&sources), (Source::File, "carrier".into(), vec![]));
        for nothing in ["", "\n"] {
            std::fs::write(file, nothing).expect("written");
            assert_eq!(opened(&sources), (Source::LastGood, "carrier".into(), vec![]));
        }
        std::fs::remove_file(file).expect("removed");
        assert_eq!(opened(&sources), (Source::LastGood, "carrier".into(), vec![]));
    }

    #[test]
    fn a_wrong_file_stops_a_start_only_where_no_last_good_one_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let kept = sources(directory.path());
        std::fs::write(kept.file.as_deref().expect("a path"), POLICY.replace("10m", "80s")).expect("written");
        let (source, _, problems) = opened(&kept);
        assert_eq!(source, Source::BuiltIn);
        assert!(problems[0].contains("line 4, spec.timers.sessionExpires"), "{problems:?}");
        let refused = PolicyFile::open(Sources { last_good: None, ..kept });
        assert!(matches!(refused.err(), Some(Fault::Invalid(_))));
    }

    #[test]
    fn a_last_good_config_that_is_damaged_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        let sources = sources(directory.path());
        std::fs::write(sources.last_good.as_deref().expect("a path"), "{\"kind\":").expect("written");
        assert_eq!(opened(&sources).0, Source::BuiltIn);
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        let sources = Sources { last_good: Some("/nowhere/last-good.json".into()), ..sources(directory.path()) };
        std::fs::write(sources.file.as_deref().expect("a path"), POLICY).expect("written");
        assert_eq!(opened(&sources), (Source::File, "carrier".into(), vec![]));
    }

    #[test]
    fn missing_credentials_are_a_problem_and_the_policy_is_in_force() {
        let directory = tempfile::tempdir().expect("a directory");
        let sources = sources(directory.path());
        let text = POLICY.replace("10m", "10m, credentials: {secretName: trunk-a}");
        std::fs::write(sources.file.as_deref().expect("a path"), text).expect("written");
        let (source, _, problems) = opened(&sources);
        assert_eq!(source, Source::File);
        assert!(problems[0].contains("credentials/trunk-a/username does not exist"), "{problems:?}");
    }
}
