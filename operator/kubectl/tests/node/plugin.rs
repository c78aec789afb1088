//! The plugin as a user runs it: by kubectl, which finds it on the PATH, with a kubeconfig, in the cluster's network.

use std::{
    env,
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use sipwarden_cluster::wait::eventually;
use tempfile::TempDir;

use crate::{PATIENCE, ran::Ran, stage::node};

/// `kubectl sipwarden` that has not ended. It ends when this is dropped.
pub(crate) struct Running {
    child: Child,
    /// What it writes.
    folder: TempDir,
}

/// Runs `kubectl sipwarden` as administrator. Words are parted by spaces.
pub(crate) fn plugin(arguments: &str) -> Ran {
    start(arguments, None).end(PATIENCE)
}

/// Runs it as the user of this kubeconfig.
pub(crate) fn plugin_as(kubeconfig: &Path, arguments: &str) -> Ran {
    start(arguments, Some(kubeconfig)).end(PATIENCE)
}

/// Starts it, as administrator if nobody is named.
pub(crate) fn start(arguments: &str, kubeconfig: Option<&Path>) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| Stdio::from(File::create(folder.path().join(name)).expect("the folder is ours"));
    let mut command = with_plugin(node().kubectl_command().expect("kubectl is there"));
    command.arg("sipwarden").args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    Running { child: command.spawn().expect("kubectl runs"), folder }
}

/// With the plugin on the PATH.
pub(crate) fn with_plugin(mut command: Command) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_kubectl-sipwarden")).parent().expect("a program is in a folder");
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([folder.to_owned()].into_iter().chain(env::split_paths(&others)));
    command.env("PATH", path.expect("the target folder has no colon"));
    command
}

impl Running {
    /// What it has printed so far.
    pub(crate) fn out(&self) -> String {
        self.read("out")
    }

    /// Waits for something in what it prints.
    pub(crate) fn until<T>(&self, what: &str, limit: Duration, ask: impl Fn(&str) -> Option<T>) -> T {
        let found = eventually(what, limit, || ask(&self.out()));
        found.unwrap_or_else(|error| panic!("{error}: {}{}", self.out(), self.read("err")))
    }

    /// Waits for its end.
    pub(crate) fn end(mut self, limit: Duration) -> Ran {
        let ended = eventually("the end of the plugin", limit, || self.ended());
        let status = ended.unwrap_or_else(|error| panic!("{error}: {}{}", self.out(), self.read("err")));
        Output { status, stdout: self.out().into(), stderr: self.read("err").into() }.into()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours to wait for")
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
