//! The images tests use, made from programs of this machine, for [`Cluster::import`](crate::Cluster::import). The
//! constants are the names pods call them by, with `imagePullPolicy: Never`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::image::Image;
use crate::tools::{self, Tool};

/// Holds the namespaces of each pod.
pub const PAUSE: &str = "localhost/pause:dev";
/// Cluster DNS.
pub const COREDNS: &str = "localhost/coredns:dev";
/// A shell and the usual small programs.
pub const BUSYBOX: &str = "localhost/busybox:dev";
/// SIPp, with the shell. Entry point `sipp`.
pub const SIPP: &str = "localhost/sipp:dev";
/// SIPp as an application behind a sidecar: it answers calls on loopback, knows no session timers, and ends when told.
pub const CALLEE: &str = "localhost/callee:dev";
/// Kamailio with Debian's modules, and the shell. Entry point `kamailio -DD -E`.
pub const KAMAILIO: &str = "localhost/kamailio:dev";

/// Debian's Prometheus. Entry point `prometheus`.
pub const PROMETHEUS: &str = "localhost/prometheus:dev";

const CALLEE_SCENARIO: &str = include_str!("product/callee.xml");
/// SIPp as the first process of a container would not end when told.
const CALLEE_COMMAND: &str = "cd /tmp; trap 'exit 0' TERM; sipp -sf /callee.xml -nostdin -i 127.0.0.1 -p 5060 & wait";
const PAUSE_SOURCE: &str = include_str!("pause.c");

/// The programs of busybox that are linked by name.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "env", "grep", "head", "hostname", "id", "ip", "kill", "ls", "nc", "nslookup", "ps", "sleep",
    "tail", "test", "timeout", "touch", "true", "wget",
];

/// The image [`PAUSE`]; its program is built in `folder`.
pub(crate) fn pause(folder: &Path) -> Result<Image> {
    let (source, program) = (folder.join("pause.c"), folder.join("pause"));
    fs::write(&source, PAUSE_SOURCE).with_context(|| format!("cannot write {}", source.display()))?;
    let status = Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source).status();
    ensure!(status.context("cannot run cc (Debian package build-essential)")?.success(), "cc cannot build pause.c");
    Ok(Image::new(PAUSE, &["/pause"]).file(&program, "/pause"))
}

/// The image [`COREDNS`].
pub(crate) fn coredns() -> Result<Image> {
    Ok(Image::new(COREDNS, &["/coredns"]).file(&Tool::CoreDns.ensure()?, "/coredns"))
}

/// The image [`BUSYBOX`].
pub fn busybox() -> Result<Image> {
    with_shell(Image::new(BUSYBOX, &["/bin/sh"]))
}

/// The image [`SIPP`].
pub fn sipp() -> Result<Image> {
    with_shell(Image::new(SIPP, &["/usr/bin/sipp"]))?.program(&tools::program("sipp")?)
}

/// The image [`CALLEE`].
pub fn callee() -> Result<Image> {
    let image = with_shell(Image::new(CALLEE, &["/bin/sh", "-c", CALLEE_COMMAND]))?;
    image.text("/callee.xml", CALLEE_SCENARIO).program(&tools::program("sipp")?)
}

/// The image [`KAMAILIO`].
pub fn kamailio() -> Result<Image> {
    let program = tools::program("kamailio")?;
    let text = program.to_str().context("a program's path is text")?;
    let mut image = with_shell(Image::new(KAMAILIO, &[text, "-DD", "-E"]))?.program(&program)?;
    let modules = modules()?;
    for entry in fs::read_dir(&modules).with_context(|| format!("cannot read {}", modules.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "so") {
            image = image.program(&path)?;
        }
    }
    Ok(image.open_folder("/run/kamailio").link("/var/run", "/run"))
}

/// The image [`PROMETHEUS`].
pub fn prometheus() -> Result<Image> {
    let program = tools::program("prometheus")?;
    let text = program.to_str().context("a program's path is text")?;
    Image::new(PROMETHEUS, &[text]).open_folder("/tmp").program(&program)
}

/// Debian keeps Kamailio's modules in the folder of the machine's architecture.
fn modules() -> Result<PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/kamailio/modules", std::env::consts::ARCH);
    let path = PathBuf::from(folder);
    ensure!(path.is_dir(), "{} is missing: is Kamailio Debian's?", path.display());
    Ok(path)
}

/// A shell, a user without rights, and a folder to write in.
fn with_shell(image: Image) -> Result<Image> {
    let image = image
        .text("/etc/passwd", "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/sh\n")
        .text("/etc/group", "root:x:0:\nnonroot:x:65532:\n")
        .open_folder("/tmp")
        .program(Path::new("/bin/busybox"))?;
    Ok(APPLETS.iter().fold(image, |image, applet| image.link(&format!("/bin/{applet}"), "busybox")))
}
