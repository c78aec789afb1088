//! sipwarden on a node, installed from this repository's charts as a user would, and namespaces that use it.

mod apps;
mod archive;
mod changes;
mod earlier;
mod site;
mod specs;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::wait::eventually;
use crate::workspace::charts;

pub use apps::App;
pub use archive::{ensure_image, image_archive};
pub use changes::{Changes, Times};
pub use earlier::EarlierCharts;
pub use site::{Pod, Site};
pub use specs::{least, too_long};

/// Where the operator is.
pub const NAMESPACE: &str = "sipwarden-system";
/// What `charts/image/build` calls the image.
const IMAGE: &str = "localhost/sipwarden:dev";
const OPERATORS: &str = "--selector=app.kubernetes.io/name=sipwarden,app.kubernetes.io/component=operator";
const HTTP_PORT: u16 = 8080;
/// Until the operator's pods are Ready.
const TIMEOUT: &str = "--timeout=120s";
const LIMIT: Duration = Duration::from_secs(30);
/// A pod that asks for a sidecar.
const ASKING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: asking, namespace: default, labels: {sipwarden.dev/inject: enabled}}
spec:
  containers:
  - {name: app, image: app, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}
";

impl Cluster {
    /// Imports the image and installs both charts with these values.
    pub fn install_sipwarden(&self, values: &[&str]) -> Result<()> {
        self.import_sipwarden(&image_archive()?)?;
        self.upgrade_crds(&charts())?;
        self.upgrade_sipwarden(&charts(), values)
    }

    /// Hands the image to the node, under the name by which these charts call it: nothing has to be said of it.
    pub fn import_sipwarden(&self, archive: &Path) -> Result<()> {
        self.import_image(archive)?;
        self.tag_image(IMAGE, &self.image_of(&charts())?)
    }

    /// Installs or upgrades the chart `sipwarden` of the folder `charts`, and waits until its replicas are Ready. Other
    /// charts' replicas run today's programs.
    pub fn upgrade_sipwarden(&self, charts: &Path, values: &[&str]) -> Result<()> {
        self.tag_image(IMAGE, &self.image_of(charts)?)?;
        let values: Vec<&str> = values.iter().flat_map(|value| ["--set", value]).collect();
        self.helm_upgrade("sipwarden", charts, &values)?;
        self.await_webhook()
    }

    /// What the operator's container is said to run.
    fn image_of(&self, charts: &Path) -> Result<String> {
        let path = charts.join("sipwarden");
        let path = path.to_str().context("a path is text")?;
        let rendered = self.helm(&["template", "sipwarden", path, "--show-only", "templates/deployment.yaml"])?;
        let image = rendered.lines().find_map(|line| line.trim().strip_prefix("image: "));
        Ok(image.context("the operator's Deployment names no image")?.trim_matches('"').to_owned())
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

    /// Where each Ready replica of the operator tells its metrics.
    pub fn operators(&self) -> Result<Vec<SocketAddr>> {
        let path =
            r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status} {.status.podIP}{"\n"}{end}"#;
        let pods = self.kubectl(&["-n", NAMESPACE, "get", "pods", OPERATORS, "-o", path])?;
        let ready = pods.lines().filter_map(|line| line.strip_prefix("True "));
        ready.map(|ip| Ok(SocketAddr::new(ip.parse()?, HTTP_PORT))).collect()
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
        let logs = self.kubectl(&["-n", NAMESPACE, "logs", OPERATORS, "--tail=15", "--prefix"]);
        let pods = self.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
        [pods, logs].map(|text| text.unwrap_or_else(|error| error.to_string())).join("\n")
    }

    fn helm_upgrade(&self, chart: &str, charts: &Path, more: &[&str]) -> Result<()> {
        let path = charts.join(chart);
        let path = path.to_str().context("a path is text")?;
        let fixed = ["upgrade", "--install", chart, path, "-n", NAMESPACE, "--create-namespace", "--wait", TIMEOUT];
        self.helm(&[&fixed, more].concat()).map(drop).with_context(|| self.operator_log())
    }

    /// Ready is who has a certificate that the bundles know; who leads, and so writes, is decided apart from it.
    fn await_webhook(&self) -> Result<()> {
        let bundle = "jsonpath={.webhooks[*].clientConfig.caBundle}";
        let question = ["get", "validatingwebhookconfiguration", "sipwarden-validator-default", "-o", bundle];
        let trusted = || self.kubectl(&question).is_ok_and(|bundle| !bundle.is_empty()).then_some(());
        eventually("the webhook's CA to be known", LIMIT, trusted).with_context(|| self.operator_log())?;
        eventually("a leader", LIMIT, || self.leader()).with_context(|| self.operator_log())?;
        // The API server hears of the CA, and kube-proxy of the replicas, a moment after they are there.
        eventually("injection", LIMIT, || self.injects()).with_context(|| self.operator_log())
    }

    /// Whether a pod that asks for a sidecar would be given one.
    fn injects(&self) -> Option<()> {
        let mut command = self.kubectl_command().ok()?;
        let sidecars = "jsonpath={.spec.initContainers[*].name}";
        command.args(["create", "--dry-run=server", "-f", "-", "-o", sidecars]);
        (self.output(command, Some(ASKING)).ok()? == "sipwarden").then_some(())
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
