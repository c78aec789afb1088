//! A running cluster: started, used, stopped.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::component::{Component, Launch};
use crate::layout::{KUBERNETES_ADDRESS, Layout, NODE_ADDRESS};
use crate::node;
use crate::pki::Authority;
use crate::run::Run;
use crate::sandbox::{Lifetime, Sandbox};
use crate::tools::{self, Tool};
use crate::wait::eventually;

const API_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(10);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The name of the one cluster that may be left up for a person.
const KEPT: &str = "up";

/// A Kubernetes cluster of this process. It ends when dropped, and with the process in any case.
pub struct Cluster {
    run: Run,
    layout: Layout,
    sandbox: Sandbox,
    lifetime: Lifetime,
    /// Of a start that failed the logs are kept.
    has_started: bool,
}

impl Cluster {
    /// etcd and kube-apiserver on loopback ports.
    pub fn api_only() -> Result<Cluster> {
        tools::ensure_api_only()?;
        let run = Run::create("api")?;
        let layout = Layout::api_only(run.path())?;
        let mut cluster = Cluster::start_api(run, layout, Lifetime::Owner)?;
        cluster.has_started = true;
        Ok(cluster)
    }

    /// A whole node, Ready, with cluster DNS. Needs root.
    pub fn node() -> Result<Cluster> {
        tools::ensure_node()?;
        Cluster::start_node(Run::create("node")?, Lifetime::Owner)
    }

    /// A node that outlives this process, until [`Cluster::down`]. There is at most one.
    pub fn up() -> Result<Cluster> {
        tools::ensure_node()?;
        Cluster::start_node(Run::create_named(KEPT)?, Lifetime::Kept)
    }

    /// The node that was left up, if there is one.
    pub fn kept() -> Option<Cluster> {
        let run = Run::find(KEPT)?;
        let layout = Layout::node(run.path());
        let sandbox = Sandbox::found(run.holder()?, layout.is_node);
        Some(Cluster { run, layout, sandbox, lifetime: Lifetime::Kept, has_started: true })
    }

    /// Ends a node that was left up, and removes what it wrote.
    pub fn down(mut self) {
        self.sandbox.stop();
        self.run.remove();
    }

    /// Names and directories of all clusters of this user that are up.
    pub fn all() -> Vec<(String, PathBuf)> {
        Run::all_alive().iter().map(|run| (run.name().to_owned(), run.path().to_owned())).collect()
    }

    /// Runs kubectl as administrator and gives what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(arguments);
        self.output(command, None)
    }

    /// Applies YAML, server-side.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let mut command = self.kubectl_command()?;
        command.args(["apply", "--server-side", "-f", "-"]);
        self.output(command, Some(yaml))
    }

    /// Runs helm as administrator and gives what it prints.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.helm_command()?;
        command.args(arguments);
        self.output(command, None)
    }

    /// kubectl, to be given arguments and started by the caller: port-forward, watches.
    pub fn kubectl_command(&self) -> Result<Command> {
        Ok(self.command(&Tool::Kubectl.ensure()?))
    }

    /// helm, to be given arguments and started by the caller.
    pub fn helm_command(&self) -> Result<Command> {
        Ok(self.command(&Tool::Helm.ensure()?))
    }

    /// A program of this machine that runs in the cluster's network (where Services and pods are reached) with
    /// `KUBECONFIG` set.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.sandbox.network_command(program);
        command.env("KUBECONFIG", self.kubeconfig());
        // Helm's own files are the run's, not the user's.
        command.env("HELM_CACHE_HOME", self.layout.file("helm/cache"));
        command.env("HELM_CONFIG_HOME", self.layout.file("helm/config"));
        command.env("HELM_DATA_HOME", self.layout.file("helm/data"));
        command
    }

    /// Runs `work` on a thread in the cluster's network. Sockets made there stay there, wherever they are used.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.sandbox.in_network(work)
    }

    /// Moves the calling thread into the cluster's network for good: for the threads of a runtime that is to talk with
    /// the API server or with pods.
    pub fn enter_network(&self) -> Result<()> {
        self.sandbox.enter_network()
    }

    /// Stops a component at once, as a crash would. Pods live on without any of them.
    pub fn kill(&self, component: Component) -> Result<()> {
        let file = self.process_id_file(component);
        let id = fs::read_to_string(&file).with_context(|| format!("{} is not running", component.name()))?;
        // The id is of the cluster's own process namespace: it cannot be anybody else's.
        let mut command = self.sandbox.command(Path::new("kill"));
        command.args(["-KILL", id.trim()]);
        self.output(command, None)?;
        let gone = || {
            let mut probe = self.sandbox.command(Path::new("kill"));
            let status = probe.args(["-0", id.trim()]).stderr(Stdio::null()).status();
            status.is_ok_and(|status| !status.success()).then_some(())
        };
        eventually(&format!("the end of {}", component.name()), STOP_LIMIT, gone)?;
        fs::remove_file(file).context("cannot remove the process id of a component")
    }

    /// Starts a component that was killed, or that is not there by itself: [`Component::Kwok`], or the controller
    /// manager beside an API server alone. For the API server it also waits until it is ready.
    pub fn start(&self, component: Component) -> Result<()> {
        if self.process_id_file(component).exists() {
            bail!("{} is running", component.name());
        }
        self.launch(component)?;
        let runs = || self.process_id_file(component).exists().then_some(());
        eventually(component.name(), START_LIMIT, runs).with_context(|| self.hint())?;
        if component == Component::ApiServer { self.await_api() } else { Ok(()) }
    }

    /// The administrator's kubeconfig. Its server is reached in the cluster's network.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.file("kubeconfig")
    }

    /// Where the components' logs are.
    pub fn logs(&self) -> PathBuf {
        self.run.logs()
    }

    /// The run's directory, for files that are to go with the cluster.
    pub fn scratch(&self) -> &Path {
        self.run.path()
    }

    /// What nsenter needs to enter the cluster's network.
    pub fn nsenter_argument(&self) -> String {
        self.sandbox.network_argument()
    }

    fn start_node(run: Run, lifetime: Lifetime) -> Result<Cluster> {
        let layout = Layout::node(run.path());
        run.make_cgroups()?;
        node::write_files(&layout, &run.cgroup())?;
        let mut cluster = Cluster::start_api(run, layout, lifetime)?;
        node::start(&cluster)?;
        cluster.lifetime = lifetime;
        cluster.has_started = true;
        Ok(cluster)
    }

    fn start_api(run: Run, layout: Layout, lifetime: Lifetime) -> Result<Cluster> {
        write_identities(&layout)?;
        let node_address = layout.is_node.then_some(NODE_ADDRESS);
        let sandbox = Sandbox::start(run.path(), node_address, lifetime)?;
        run.record(sandbox.holder())?;
        // What does not come up is not left up, whatever its sandbox would do.
        let cluster = Cluster { run, layout, sandbox, lifetime: Lifetime::Owner, has_started: false };
        cluster.launch(Component::Etcd)?;
        cluster.launch(Component::ApiServer)?;
        if cluster.layout.is_node {
            // Its images take as long as the API server: both at once.
            cluster.launch(Component::Containerd)?;
            node::import_images(&cluster)?;
        }
        cluster.await_api()?;
        Ok(cluster)
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Starts a component's process inside, with its log and its process id among the run's files.
    pub(crate) fn launch(&self, component: Component) -> Result<()> {
        let Launch { program, arguments } = component.launch(&self.layout)?;
        let path = self.logs().join(format!("{}.log", component.name()));
        let log = File::options().create(true).append(true).open(path).context("cannot write a log")?;
        let mut command = self.sandbox.command(Path::new("sh"));
        command.args(["-c", r#"echo $$ > "$0"; exec "$@""#]);
        command.arg(self.process_id_file(component)).arg(program).args(arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot run nsenter (Debian package util-linux)")?;
        // Somebody has to take in its exit status, whenever that comes.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    pub(crate) fn await_api(&self) -> Result<()> {
        let ready = || self.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer == "ok").then_some(());
        eventually("the API server", API_LIMIT, ready).with_context(|| self.hint())
    }

    /// Runs to the end; the error has what it said and where the logs are.
    pub(crate) fn output(&self, mut command: Command, input: Option<&str>) -> Result<String> {
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
            // A program that reads nothing says itself why it ended.
            let _ = pipe.write_all(text.as_bytes());
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
            bail!("{} failed ({}): {}\n{}", arguments.join(" "), output.status, said.trim(), self.hint());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn hint(&self) -> String {
        format!("logs of the cluster: {}", self.logs().display())
    }

    fn process_id_file(&self, component: Component) -> PathBuf {
        self.layout.file(&format!("{}.pid", component.name()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Kept {
            return;
        }
        self.sandbox.stop();
        if self.has_started && !std::thread::panicking() {
            self.run.remove();
        } else {
            eprintln!("{}", self.hint());
            self.run.tidy();
        }
    }
}

/// Certificates and kubeconfigs of everyone who talks to the API server.
fn write_identities(layout: &Layout) -> Result<()> {
    let authority = Authority::new(layout.pki())?;
    authority.signing_key("service-accounts")?;
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "127.0.0.1",
        NODE_ADDRESS,
        KUBERNETES_ADDRESS,
    ];
    authority.issue("apiserver", "kube-apiserver", None, &names)?;
    let admin = authority.issue("admin", "admin", Some("system:masters"), &[])?;
    write_kubeconfig(layout, "kubeconfig", &admin.user())?;
    let controllers = authority.issue("controller-manager", "system:kube-controller-manager", None, &[])?;
    write_kubeconfig(layout, "controller-manager.kubeconfig", &controllers.user())?;
    if layout.is_node {
        node::write_identities(layout, &authority)?;
    }
    Ok(())
}

/// A kubeconfig for who has these credentials, as the run's file `name`.
pub(crate) fn write_kubeconfig(layout: &Layout, name: &str, user: &Value) -> Result<()> {
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: sipwarden
clusters:
- name: sipwarden
  cluster:
    server: {server}
    certificate-authority: {authority}
users:
- name: user
  user: {user}
contexts:
- name: sipwarden
  context: {{cluster: sipwarden, user: user}}
",
        server = layout.api_url(),
        authority = Authority::certificate(&layout.pki()).display(),
    );
    fs::write(layout.file(name), text).with_context(|| format!("cannot write {name}"))
}
