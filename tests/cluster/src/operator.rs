//! The operator as a process of this machine, for an API server alone: without pod, image and Service.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::layout::free_ports;

/// Names the program, whatever it was built from.
const VARIABLE: &str = "SIPWARDEN_OPERATOR";

/// A running operator. Killed when dropped.
pub struct OperatorProcess {
    child: Child,
    /// Where it tells its health and metrics.
    pub http: SocketAddr,
    /// Where it reviews admissions.
    pub webhook: SocketAddr,
    /// What it logs is in this file.
    pub log: PathBuf,
}

impl OperatorProcess {
    /// Of this revision, with these rights; `name` tells replicas apart. `more` are arguments.
    pub fn start(
        cluster: &Cluster,
        kubeconfig: &Path,
        revision: &str,
        name: &str,
        more: &[&str],
    ) -> Result<OperatorProcess> {
        let [http, webhook] = free_ports()?.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let log = cluster.logs().join(format!("operator-{revision}-{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log).context("cannot write a log")?;
        let child = Command::new(program()?)
            .args(["run", "--namespace", "sipwarden-system", "--image", "localhost/sipwarden:dev"])
            .args(["--revision", revision, "--identity", name, "--log-format", "text"])
            .args(["--http", &http.to_string(), "--webhook-listen", &webhook.to_string()])
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("cannot run the operator")?;
        Ok(OperatorProcess { child, http, webhook, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; None while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }
}

impl Drop for OperatorProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// `SIPWARDEN_OPERATOR`, or built now with the profile of this program, so that it is never an old one.
fn program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os(VARIABLE) {
        return Ok(path.into());
    }
    if let Some(path) = PROGRAM.get() {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().context("a program knows its own path")?;
    let profile = own.ancestors().nth(2).context("tests and benches are built in target/PROFILE/deps")?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "sipwarden-operator", "--bin", "sipwarden-operator"]);
    if profile.file_name() == Some(OsStr::new("release")) {
        build.arg("--release");
    }
    ensure!(build.status().context("cannot run cargo")?.success(), "cargo build -p sipwarden-operator failed");
    let path = fs::canonicalize(profile.join("sipwarden-operator")).context("the operator was not built here")?;
    Ok(PROGRAM.get_or_init(|| path).clone())
}
