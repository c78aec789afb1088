//! Directories of runs: one per cluster, with everything it writes. Finds what earlier runs have left and removes it, by
//! what they recorded: nothing that is not a run's own is touched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::sandbox::Holder;

/// Of how many ended runs the logs are kept.
const KEPT_LOGS: usize = 8;

/// Hierarchies of control groups; a node has a group of the run's name in each.
const CGROUPS: &str = "/sys/fs/cgroup";

/// A cluster's directory.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    path: PathBuf,
}

impl Run {
    /// A fresh directory named `kind` and a number nobody else has; removes what ended runs left.
    pub(crate) fn create(kind: &str) -> Result<Run> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{kind}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Run::create_named(&name)
    }

    /// A fresh directory of this name, or an error if a cluster runs in it.
    pub(crate) fn create_named(name: &str) -> Result<Run> {
        let base = base();
        fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
        let run = Run { path: base.join(name) };
        // Held until the run has a holder: others tidy what has none.
        let lock = File::create(base.join("lock")).with_context(|| format!("cannot write in {}", base.display()))?;
        lock.lock().context("cannot lock the directory of runs")?;
        if run.is_alive() {
            bail!("cluster {name} is running; `sipwarden-cluster down` ends the one that was left up");
        }
        // Its own old self goes whole: the same process id may come again.
        remove_ended(&base);
        let _ = fs::remove_dir_all(&run.path);
        fs::create_dir_all(run.logs()).with_context(|| format!("cannot make {}", run.path.display()))?;
        // Until there is a holder, this process stands for the run.
        run.record(Holder::of(std::process::id()).context("no /proc/self/stat")?)?;
        Ok(run)
    }

    /// The run of this name, if its cluster is up.
    pub(crate) fn find(name: &str) -> Option<Run> {
        let run = Run { path: base().join(name) };
        run.is_alive().then_some(run)
    }

    /// All runs whose clusters are up.
    pub(crate) fn all_alive() -> Vec<Run> {
        runs(&base()).into_iter().filter(Run::is_alive).collect()
    }

    /// Writes down who holds the cluster's namespaces.
    pub(crate) fn record(&self, holder: Holder) -> Result<()> {
        fs::write(self.path.join("holder"), holder.text()).context("cannot write into the run's directory")
    }

    pub(crate) fn holder(&self) -> Option<Holder> {
        Holder::parse(&fs::read_to_string(self.path.join("holder")).ok()?)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("a run's directory has the name we gave it")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The control group under which kubelet makes those of the pods.
    pub(crate) fn cgroup(&self) -> String {
        format!("/sipwarden-{}", self.name())
    }

    /// Makes the run's control group in every hierarchy of this machine.
    pub(crate) fn make_cgroups(&self) -> Result<()> {
        for hierarchy in hierarchies() {
            let group = hierarchy.join(&self.cgroup()[1..]);
            fs::create_dir_all(&group).with_context(|| format!("cannot make control group {}", group.display()))?;
        }
        Ok(())
    }

    /// Removes everything but the logs, after the end of the cluster.
    pub(crate) fn tidy(&self) {
        for hierarchy in hierarchies() {
            remove_groups(&hierarchy.join(&self.cgroup()[1..]));
        }
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_name() != "logs" {
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
    }

    /// Removes the directory too.
    pub(crate) fn remove(&self) {
        self.tidy();
        let _ = fs::remove_dir_all(&self.path);
    }

    fn is_alive(&self) -> bool {
        self.holder().is_some_and(Holder::is_alive)
    }
}

/// Where all runs of this user are.
fn base() -> PathBuf {
    std::env::temp_dir().join(format!("sipwarden-cluster-{}", geteuid()))
}

fn runs(base: &Path) -> Vec<Run> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.map(|entry| Run { path: entry.path() }).filter(|run| run.path.is_dir()).collect()
}

/// Tidies ended runs and removes the oldest of them.
fn remove_ended(base: &Path) {
    let mut ended: Vec<_> = runs(base).into_iter().filter(|run| !run.is_alive()).collect();
    ended.sort_by_key(|run| fs::metadata(run.logs()).and_then(|data| data.modified()).ok());
    let surplus = ended.len().saturating_sub(KEPT_LOGS);
    for (index, run) in ended.iter().enumerate() {
        if index < surplus { run.remove() } else { run.tidy() }
    }
}

/// The mounted hierarchies: several with version 1, the root itself with version 2.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path());
    // cpu and cpuacct may be links to a hierarchy they share.
    entries.filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

/// Removes a control group and those in it; their files go with them.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ended_runs_some_logs_stay_and_running_ones_are_untouched() {
        let base = std::env::temp_dir().join(format!("sipwarden-runs-{}", std::process::id()));
        for number in 0..KEPT_LOGS + 3 {
            fs::create_dir_all(base.join(format!("api-{number}/logs"))).unwrap();
            fs::create_dir_all(base.join(format!("api-{number}/etcd"))).unwrap();
        }
        let running = Run { path: base.join("api-0") };
        running.record(Holder::of(std::process::id()).unwrap()).unwrap();

        remove_ended(&base);

        assert!(running.path.join("etcd").exists());
        let left = runs(&base);
        let ended: Vec<_> = left.iter().filter(|run| run.path != running.path).collect();
        assert_eq!(ended.len(), KEPT_LOGS);
        assert!(ended.iter().all(|run| run.logs().exists() && !run.path.join("etcd").exists()));
        fs::remove_dir_all(&base).unwrap();
    }
}
