//! The operator as a process of this machine, for an API server alone: without pod, image and Service.

use std::env;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;
use crate::http::get_text;
use crate::layout::free_ports;
use crate::wait::eventually;
use crate::workspace::{built, repository};

/// Names the program, whatever it was built from.
const VARIABLE: &str = "SIPWARDEN_OPERATOR";
/// For its certificates, its first lists and the lease, and for its end.
const LIMIT: Duration = Duration::from_secs(40);

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

impl Cluster {
    /// What an operator finds where the charts were installed: the kinds, and its namespace.
    pub fn prepare_for_operators(&self) -> Result<()> {
        let definitions = repository().join("crds/yaml");
        self.kubectl(&["apply", "--server-side", "-f", definitions.to_str().context("a path is text")?])?;
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])?;
        self.kubectl(&["create", "namespace", "sipwarden-system"]).map(drop)
    }
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
        let child = Command::new(operator_program()?)
            .args(["run", "--namespace", "sipwarden-system", "--image", "localhost/sipwarden:dev"])
            .args(["--revision", revision, "--identity", name, "--log-format", "text"])
            .args(["--http", &http.to_string(), "--webhook-listen", &webhook.to_string(), "--shutdown-delay-s", "0"])
            .args(more)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("cannot run the operator")?;
        Ok(OperatorProcess { child, http, webhook, log })
    }

    /// Waits until it leads.
    pub fn until_leading(self) -> Result<OperatorProcess> {
        let metrics = || get_text(self.http, "/metrics").unwrap_or_default();
        let leads = || metrics().lines().any(|line| line == "sipwarden_operator_leading 1").then_some(());
        eventually("the operator to lead", LIMIT, leads).with_context(|| self.see())?;
        Ok(self)
    }

    /// Ends it as the kubelet does, and tells how it ended.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        if self.ended().is_none() {
            kill(Pid::from_raw(self.id().try_into()?), Signal::SIGTERM)?;
        }
        eventually("the operator's end", LIMIT, || self.ended()).with_context(|| self.see())
    }

    fn see(&self) -> String {
        format!("see {}", self.log.display())
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

/// `SIPWARDEN_OPERATOR`, or built now; once in this process.
pub fn operator_program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PROGRAM.get() {
        return Ok(path.clone());
    }
    let path = env::var_os(VARIABLE).map_or_else(|| built("sipwarden-operator"), |path| Ok(path.into()))?;
    Ok(PROGRAM.get_or_init(|| path).clone())
}
