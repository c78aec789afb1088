//! CPU time and memory of a process tree, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// A tested process with all its descendants, as they were when this was made; none by default.
#[derive(Default)]
pub(crate) struct Tree(Vec<u32>);

impl Tree {
    /// The tree under `root`; processes forked later are not in it.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub(crate) fn of(root: u32) -> Result<Self> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| Some((pid, parent_of(pid)?)))
            .collect();
        let mut pids = vec![root];
        let mut next = 0;
        while let Some(&parent) = pids.get(next) {
            pids.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        Ok(Self(pids))
    }

    /// Time on a CPU, user and system, of every thread alive. From `schedstat`, which counts in nanoseconds what
    /// `stat` counts in ticks of 10 ms.
    ///
    /// # Errors
    /// A process of the tree is gone.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut nanos = 0;
        for pid in &self.0 {
            for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
                // A thread may end between the listing and the reading.
                let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                let field = text.split_ascii_whitespace().next().context("schedstat is empty")?;
                nanos += field.parse::<u64>().context("schedstat does not begin with a number")?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Resident bytes of the tree, pages shared between its processes counted once (proportional set size).
    ///
    /// # Errors
    /// A process of the tree is gone or unreadable.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.0.iter().map(|&pid| proportional_bytes(pid)).sum()
    }
}

/// Restricts this thread, and the processes it starts from now on, to one CPU.
///
/// # Errors
/// The machine has no such CPU or does not allow it.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning to CPU {cpu}"))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn proportional_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("{path} has no Pss"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("Pss of {path}"))?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_this_process_has_memory_and_burns_cpu() {
        let tree = Tree::of(std::process::id()).unwrap();
        let before = tree.cpu().unwrap();
        let mut sum = 0u64;
        while tree.cpu().unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(tree.resident_bytes().unwrap() > 100 * 1024);
    }
}
