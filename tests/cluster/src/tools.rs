//! The programs a cluster is made of: where they are, and how they get there.
//!
//! Kubernetes, Helm and CoreDNS are built from Go modules (`tools/*/go.mod` say which versions) into
//! `${XDG_CACHE_HOME:-~/.cache}/sipwarden/NAME-VERSION/bin`, each once; the rest are Debian packages. One module per
//! project, so that each is built with exactly the dependencies of its own release.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

/// A program built from a Go module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    ApiServer,
    Kubectl,
    ControllerManager,
    Scheduler,
    Kubelet,
    Proxy,
    Helm,
    CoreDns,
    Kwok,
}

/// What an API server alone is made of.
const API_ONLY: &[Tool] = &[Tool::ApiServer, Tool::Kubectl];

/// What a node is made of, and Helm, by which it is used.
const NODE: &[Tool] = &[
    Tool::ApiServer,
    Tool::Kubectl,
    Tool::ControllerManager,
    Tool::Scheduler,
    Tool::Kubelet,
    Tool::Proxy,
    Tool::CoreDns,
    Tool::Helm,
];

/// A folder of `tools`: its name, the module in it that gives the version, and that folder's go.mod.
struct Module {
    name: &'static str,
    path: &'static str,
    manifest: &'static str,
}

const KUBERNETES: Module =
    Module { name: "kubernetes", path: "k8s.io/kubernetes", manifest: include_str!("../tools/kubernetes/go.mod") };
const HELM: Module = Module { name: "helm", path: "helm.sh/helm/v4", manifest: include_str!("../tools/helm/go.mod") };
const KWOK: Module = Module { name: "kwok", path: "sigs.k8s.io/kwok", manifest: include_str!("../tools/kwok/go.mod") };
const COREDNS: Module =
    Module { name: "coredns", path: "github.com/coredns/coredns", manifest: include_str!("../tools/coredns/go.mod") };

impl Module {
    fn version(&self) -> &'static str {
        let wanted = |line: &&str| line.trim().trim_start_matches("require ").starts_with(&format!("{} v", self.path));
        let line = self.manifest.lines().find(wanted).expect("each go.mod requires the module it is for");
        line.split_whitespace().find(|word| word.starts_with('v')).expect("a requirement has a version")
    }
}

impl Tool {
    /// Its path; built if it is not there yet.
    pub fn ensure(self) -> Result<PathBuf> {
        let path = self.path()?;
        if !path.exists() {
            let _lock = lock_cache()?;
            if !path.exists() {
                self.build(&path)?;
            }
        }
        Ok(path)
    }

    /// The version it is built from, as in `v1.36.3`.
    pub fn version(self) -> &'static str {
        self.module().version()
    }

    fn name(self) -> &'static str {
        self.package().rsplit('/').next().expect("a package path has a last part")
    }

    fn path(self) -> Result<PathBuf> {
        let module = self.module();
        Ok(cache()?.join(format!("{}-{}", module.name, module.version())).join("bin").join(self.name()))
    }

    fn module(self) -> &'static Module {
        match self {
            Tool::Helm => &HELM,
            Tool::CoreDns => &COREDNS,
            Tool::Kwok => &KWOK,
            _ => &KUBERNETES,
        }
    }

    fn package(self) -> &'static str {
        match self {
            Tool::ApiServer => "k8s.io/kubernetes/cmd/kube-apiserver",
            Tool::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Tool::ControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Tool::Scheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Tool::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Tool::Proxy => "k8s.io/kubernetes/cmd/kube-proxy",
            Tool::Helm => "helm.sh/helm/v4/cmd/helm",
            Tool::CoreDns => "github.com/coredns/coredns",
            Tool::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
        }
    }

    /// Programs that tell others their version (discovery, `kubeVersion` of charts, skew checks) have to know it.
    fn linker_flags(self) -> String {
        let version = self.version();
        let variable = match self {
            Tool::Helm => format!("-X helm.sh/helm/v4/internal/version.version={version}"),
            Tool::CoreDns | Tool::Kwok => String::new(),
            _ => {
                let mut numbers = version.trim_start_matches('v').split('.');
                let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
                let package = "k8s.io/component-base/version";
                format!("-X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}")
            }
        };
        format!("-s -w {variable}")
    }

    fn build(self, path: &Path) -> Result<()> {
        let (name, started) = (self.name(), Instant::now());
        say(&format!("building {name} {} from Go modules, once; the first ones take minutes", self.version()));
        let folder = path.parent().expect("a program lies in a folder");
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Renamed when complete: an interrupted build must not look like a program.
        let partial = path.with_extension("part");
        let status = Command::new("go")
            .args(["build", "-trimpath", "-ldflags", &self.linker_flags(), "-o"])
            .arg(&partial)
            .arg(self.package())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(self.module().name))
            .env("CGO_ENABLED", "0")
            .status()
            .context("cannot run go: install Go 1.26 or later and put it on PATH")?;
        ensure!(status.success(), "go build of {name} failed ({status}); its output is above");
        fs::rename(&partial, path).with_context(|| format!("cannot move {name} to {}", path.display()))?;
        say(&format!("built {name} in {:.0} s", started.elapsed().as_secs_f64()));
        Ok(())
    }
}

/// Builds and installs what is missing for an API server alone.
pub fn ensure_api_only() -> Result<()> {
    ensure_all(API_PROGRAMS, API_ONLY)
}

/// Builds and installs what is missing for a node and the images of [`crate::images`].
pub fn ensure_node() -> Result<()> {
    ensure_all(NODE_PROGRAMS, NODE)
}

/// Builds and installs everything a test may ask for.
pub fn ensure_everything() -> Result<()> {
    ensure_node()?;
    Tool::Kwok.ensure().map(drop)
}

fn ensure_all(programs: &[Program], tools: &[Tool]) -> Result<()> {
    ensure_packages(programs)?;
    tools.iter().try_for_each(|tool| tool.ensure().map(drop))
}

/// A program of this machine by name, or the package that has it.
pub fn program(name: &str) -> Result<PathBuf> {
    find(name).with_context(|| format!("{name} is not on PATH; `cargo run -p sipwarden-cluster -- build` installs it"))
}

/// What is looked for, and the Debian package that has it.
type Program = (&'static str, &'static str);

const API_PROGRAMS: &[Program] = &[("etcd", "etcd-server"), ("unshare", "util-linux")];

const NODE_PROGRAMS: &[Program] = &[
    ("etcd", "etcd-server"),
    ("unshare", "util-linux"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("cc", "build-essential"),
    ("/bin/busybox", "busybox-static"),
    ("sipp", "sip-tester"),
    ("kamailio", "kamailio"),
    ("prometheus", "prometheus"),
];

fn ensure_packages(programs: &[Program]) -> Result<()> {
    if programs.iter().all(|(name, _)| find(name).is_some()) {
        return Ok(());
    }
    let _lock = lock_cache()?;
    let missing: Vec<_> =
        programs.iter().filter(|(name, _)| find(name).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!(
        "installing Debian packages: {} (Debian may start them as services; not needed here)",
        missing.join(" ")
    ));
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(&missing);
    apt_get(&["update", "-q"])?;
    apt_get(&install)?;
    match programs.iter().find(|(name, _)| find(name).is_none()) {
        Some((name, package)) => bail!("{name} is still missing after the installation of {package}"),
        None => Ok(()),
    }
}

fn apt_get(args: &[&str]) -> Result<()> {
    let mut command = if nix::unistd::geteuid().is_root() { Command::new("env") } else { Command::new("sudo") };
    if !nix::unistd::geteuid().is_root() {
        command.arg("env");
    }
    let status = command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(args).status();
    let status = status.context("cannot run apt-get: install the packages named above yourself")?;
    ensure!(status.success(), "apt-get {} failed ({status}); its output is above", args.join(" "));
    Ok(())
}

/// Absolute names as they are; others on PATH and where Debian keeps root's programs.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Where what is built once is kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("sipwarden"))
}

/// One builder at a time on this machine, released with the file.
fn lock_cache() -> Result<File> {
    let folder = cache()?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join("lock")).with_context(|| format!("cannot write in {}", folder.display()))?;
    if file.try_lock().is_err() {
        say("waiting for another process that builds or installs");
        file.lock().context("cannot lock the cache")?;
    }
    Ok(file)
}

fn say(what: &str) {
    eprintln!("sipwarden-cluster: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [Tool; 4] = [Tool::ApiServer, Tool::Helm, Tool::CoreDns, Tool::Kwok];

    #[test]
    fn versions_come_from_the_go_modules() {
        for tool in MODULES {
            let numbers: Vec<_> = tool.version().trim_start_matches('v').split('.').collect();
            assert_eq!(numbers.len(), 3, "{tool:?} {}", tool.version());
            assert!(numbers.iter().all(|number| number.parse::<u32>().is_ok()), "{tool:?} {}", tool.version());
        }
    }

    #[test]
    fn every_tool_is_a_tool_of_its_module() {
        for tool in NODE.iter().chain(&MODULES) {
            assert!(tool.module().manifest.contains(tool.package()), "{}", tool.package());
        }
    }
}
