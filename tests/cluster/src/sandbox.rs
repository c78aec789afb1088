//! Namespaces of a cluster's own (processes, mounts, and for a node network), held by one process. Its death, or that of
//! the process that started it, is the end of everything in them. Knows nothing of Kubernetes.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::wait::eventually;

const SETUP_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(10);

/// How long the namespaces live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// As long as this process, whether it ends well or is killed.
    Owner,
    /// Until [`Holder::kill`].
    Kept,
}

/// The process that holds the namespaces, by id and start time: an id alone may be someone else's by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    process_id: u32,
    start_ticks: u64,
}

/// The namespaces, and what keeps them alive.
pub(crate) struct Sandbox {
    holder: Holder,
    /// Of a kept sandbox found again there is no child.
    child: Option<Child>,
    has_network: bool,
}

impl Sandbox {
    /// Makes the namespaces; with the address of a node they include a network that has it.
    pub(crate) fn start(run: &Path, node_address: Option<&str>, lifetime: Lifetime) -> Result<Sandbox> {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc"]);
        if node_address.is_some() {
            command.arg("--net");
        }
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["sh", "-c", include_str!("sandbox.sh"), "sandbox"]);
        // `cat` ends when the last writer of the pipe is gone, and that is this process.
        match lifetime {
            Lifetime::Owner => command.arg("cat").stdin(Stdio::piped()),
            Lifetime::Kept => command.args(["sleep", "infinity"]).stdin(Stdio::null()),
        };
        let log = File::create(run.join("logs/sandbox.log")).context("cannot write into the run's directory")?;
        command.env("RUN", run).env("NODE", node_address.unwrap_or_default());
        // A group of its own: Ctrl-C in a terminal is for the owner, and must not reach a kept cluster.
        command.stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("cannot run unshare (Debian package util-linux)")?;
        let holder = Holder::of(child.id()).context("unshare ended at once")?;
        let mut sandbox = Sandbox { holder, child: Some(child), has_network: node_address.is_some() };
        let ready = eventually("the cluster's namespaces", SETUP_LIMIT, || {
            (run.join("ready").exists() || !sandbox.is_alive()).then_some(())
        });
        if ready.is_err() || !sandbox.is_alive() {
            let said = fs::read_to_string(run.join("logs/sandbox.log")).unwrap_or_default();
            bail!("cannot set up namespaces (a node needs root, an API server at least user namespaces): {said}");
        }
        Ok(sandbox)
    }

    /// The namespaces that `holder` holds.
    pub(crate) fn found(holder: Holder, has_network: bool) -> Sandbox {
        Sandbox { holder, child: None, has_network }
    }

    pub(crate) fn holder(&self) -> Holder {
        self.holder
    }

    /// A command that runs inside, with the cluster's processes and mounts.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let of = |namespace: &str| format!("/proc/{}/ns/{namespace}", self.holder.process_id);
        let mut command = Command::new("nsenter");
        if !geteuid().is_root() {
            command.arg(format!("--user={}", of("user"))).arg("--preserve-credentials");
        }
        command.arg(format!("--pid={}", of("pid_for_children"))).arg(format!("--mount={}", of("mnt")));
        if self.has_network {
            command.arg(format!("--net={}", of("net")));
        }
        command.arg("--").arg(program);
        command
    }

    /// A command of this machine that only uses the cluster's network.
    pub(crate) fn network_command(&self, program: &Path) -> Command {
        if !self.has_network {
            return Command::new(program);
        }
        let mut command = Command::new("nsenter");
        command.arg(self.network_argument()).arg("--").arg(program);
        command
    }

    /// What nsenter is told to enter the network.
    pub(crate) fn network_argument(&self) -> String {
        format!("--net={}", self.network_path().display())
    }

    /// Runs `work` on a thread in the cluster's network: sockets made there stay there.
    pub(crate) fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter_network()?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread into the cluster's network for good.
    pub(crate) fn enter_network(&self) -> Result<()> {
        if self.has_network {
            let path = self.network_path();
            let file = File::open(&path).with_context(|| format!("the cluster is gone: no {}", path.display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the cluster's network (root is needed)")?;
        }
        Ok(())
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        self.holder.is_alive()
    }

    /// Ends every process of the namespaces, and so the namespaces.
    pub(crate) fn stop(&mut self) {
        let namespace = self.process_namespace();
        self.holder.kill();
        if let Some(child) = &mut self.child {
            // Its exit status is nobody's concern, but has to be taken in.
            let _ = child.wait();
        }
        // The kernel kills the others after the first: until the last is gone, files and control groups are in use.
        if let Some(namespace) = namespace {
            let _ = eventually("the end of a cluster's processes", END_LIMIT, || is_empty(&namespace).then_some(()));
        }
    }

    fn process_namespace(&self) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/ns/pid_for_children", self.holder.process_id)).ok()
    }

    fn network_path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.process_id).into()
    }
}

/// Whether no process is in this process namespace any more.
fn is_empty(namespace: &Path) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    !processes.map(|entry| entry.path().join("ns/pid")).any(|link| fs::read_link(link).is_ok_and(|of| of == namespace))
}

impl Holder {
    /// The running process with this id.
    pub(crate) fn of(process_id: u32) -> Option<Holder> {
        let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
        // The second field is the program's name in brackets and may hold anything.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, start) = (fields.first()?, fields.get(19)?);
        (*state != "Z").then_some(())?;
        Some(Holder { process_id, start_ticks: start.parse().ok()? })
    }

    pub(crate) fn parse(text: &str) -> Option<Holder> {
        let (process_id, start_ticks) = text.trim().split_once(' ')?;
        Some(Holder { process_id: process_id.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }

    pub(crate) fn text(self) -> String {
        format!("{} {}\n", self.process_id, self.start_ticks)
    }

    pub(crate) fn is_alive(self) -> bool {
        Holder::of(self.process_id) == Some(self)
    }

    /// Kills it if it is still the same process, and waits for its end.
    pub(crate) fn kill(self) {
        if self.is_alive() {
            let id = i32::try_from(self.process_id).expect("process ids fit in i32");
            // Failing means that it is gone, which is what is wanted.
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            let _ = eventually("the end of a cluster", END_LIMIT, || (!self.is_alive()).then_some(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_namespace_is_empty_when_nobody_is_in_it() {
        let mine = fs::read_link("/proc/self/ns/pid").expect("this process has one");

        assert!(!is_empty(&mine));
        assert!(is_empty(Path::new("pid:[0]")));
    }

    #[test]
    fn a_process_is_recognised_by_its_id_and_its_start() {
        let me = Holder::of(std::process::id()).expect("this process runs");
        assert!(me.is_alive());
        assert_eq!(Holder::parse(&me.text()), Some(me));
        assert!(!Holder { start_ticks: me.start_ticks + 1, ..me }.is_alive());
    }
}
