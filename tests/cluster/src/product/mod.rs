//! sipwarden on a node, installed from this repository's charts as a user would, and namespaces that use it.

mod site;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::wait::eventually;

pub use site::{App, Pod, Site};

/// Where the operator is.
pub const NAMESPACE: &str = "sipwarden-system";
/// Names an archive of the image that is there already.
const ARCHIVE: &str = "SIPWARDEN_IMAGE_ARCHIVE";
/// Until the operator's pods are Ready.
const TIMEOUT: &str = "--timeout=120s";
const LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    /// Builds the image, which takes minutes the first time, unless SIPWARDEN_IMAGE_ARCHIVE names one; imports it, and
    /// installs both charts with these values.
    pub fn install_sipwarden(&self, values: &[&str]) -> Result<()> {
        match std::env::var_os(ARCHIVE) {
            Some(archive) => self.import_image(Path::new(&archive))?,
            None => self.import_image(&build_image(self.scratch())?)?,
        }
        self.upgrade_crds(&charts())?;
        self.upgrade_sipwarden(&charts(), values)
    }

    /// Installs or upgrades the chart `sipwarden` of the folder `charts`, and waits until its replicas are Ready.
    pub fn upgrade_sipwarden(&self, charts: &Path, values: &[&str]) -> Result<()> {
        let image = "image.repository=localhost/sipwarden,image.tag=dev,image.pullPolicy=Never";
        let values: Vec<&str> = [image].iter().chain(values).flat_map(|value| ["--set", value]).collect();
        self.helm_upgrade("sipwarden", charts, &values)?;
        self.await_webhook()
    }

    /// Installs or upgrades the chart `sipwarden-crds` of the folder `charts`.
    pub fn upgrade_crds(&self, charts: &Path) -> Result<()> {
        self.helm_upgrade("sipwarden-crds", charts, &[])
    }

    /// The pod of the replica that leads; None while nobody does.
    pub fn leader(&self) -> Option<String> {
        let question = ["-n", NAMESPACE, "get", "lease", "sipwarden-operator-default", "-o"];
        let holder = self.kubectl(&[&question[..], &["jsonpath={.spec.holderIdentity}"]].concat()).ok()?;
        (!holder.is_empty()).then_some(holder)
    }

    /// `kubectl COMMAND PORT`, which serves a local port until it is dropped: `port-forward` with `:8642`, `proxy` with
    /// `--port=0`.
    pub fn serve(&self, arguments: &[&str]) -> Result<Served> {
        let log = self.logs().join(format!("kubectl-{}.log", arguments.join("-").replace('/', "-")));
        let mut command = self.kubectl_command()?;
        command.args(arguments).stdout(std::fs::File::create(&log)?).stderr(std::process::Stdio::null());
        let child = command.spawn().context("cannot run kubectl")?;
        let mut served = Served { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        served.address = eventually(&format!("an address in {}", log.display()), LIMIT, || {
            let text = std::fs::read_to_string(&log).ok()?;
            let place = text.find("127.0.0.1:")?;
            text[place..].split_whitespace().next()?.parse().ok()
        })?;
        Ok(served)
    }

    /// What the operator says of itself, for failures.
    pub fn operator_log(&self) -> String {
        let select = "--selector=app.kubernetes.io/name=sipwarden,app.kubernetes.io/component=operator";
        let logs = self.kubectl(&["-n", NAMESPACE, "logs", select, "--tail=15", "--prefix"]);
        let pods = self.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
        [pods, logs].map(|text| text.unwrap_or_else(|error| error.to_string())).join("\n")
    }

    fn helm_upgrade(&self, chart: &str, charts: &Path, more: &[&str]) -> Result<()> {
        let path = charts.join(chart);
        let path = path.to_str().context("a path is text")?;
        let fixed = ["upgrade", "--install", chart, path, "-n", NAMESPACE, "--create-namespace", "--wait", TIMEOUT];
        self.helm(&[&fixed, more].concat()).map(drop).with_context(|| self.operator_log())
    }

    /// Ready is who has a certificate; that the API server trusts it is the leader's doing, and so is the first answer.
    fn await_webhook(&self) -> Result<()> {
        let bundle = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        let question = ["get", "validatingwebhookconfiguration", "sipwarden-validator-default", "-o", bundle];
        let trusted = || self.kubectl(&question).is_ok_and(|bundle| !bundle.is_empty()).then_some(());
        eventually("the webhook's CA to be known", LIMIT, trusted).with_context(|| self.operator_log())?;
        eventually("a leader", LIMIT, || self.leader()).with_context(|| self.operator_log()).map(drop)
    }
}

/// A kubectl that serves a port.
pub struct Served {
    child: Child,
    /// On loopback in the cluster's network.
    pub address: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn build_image(folder: &Path) -> Result<PathBuf> {
    let archive = folder.join("sipwarden.tar");
    let mut build = Command::new(repository().join("charts/image/build"));
    let output = build.arg("--output").arg(&archive).output().context("cannot run charts/image/build")?;
    ensure!(output.status.success(), "no image: {}", String::from_utf8_lossy(&output.stderr));
    Ok(archive)
}

/// This repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The charts of this repository.
pub fn charts() -> PathBuf {
    repository().join("charts")
}
