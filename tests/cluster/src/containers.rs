//! What is asked of containerd directly: images, and containers without the API server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cluster::Cluster;
use crate::image::Image;
use crate::tools;

impl Cluster {
    /// Hands an image archive (OCI layout or `docker save`) to containerd.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        let mut command = self.ctr()?;
        command.args(["images", "import"]).arg(archive);
        self.output(command, None).map(drop)
    }

    /// Makes the archive of `image` and imports it.
    pub fn import(&self, image: &Image) -> Result<()> {
        let archive = image.write(self.scratch())?;
        self.import_image(&archive)?;
        std::fs::remove_file(archive).context("cannot remove an imported archive")
    }

    /// Gives an image that is there another name. Pods that call it by that find it, and pull nothing.
    pub fn tag_image(&self, name: &str, other: &str) -> Result<()> {
        let mut command = self.ctr()?;
        command.args(["images", "tag", "--force", name, other]);
        self.output(command, None).map(drop)
    }

    /// Kills a container of a pod as a crash would; kubelet then restarts it or not. The API server is not needed.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) -> Result<()> {
        self.signal_container(namespace, pod, container, "SIGKILL")
    }

    /// Sends a signal to the first process of a container of a pod: stopped by `SIGSTOP` it is there and does nothing.
    pub fn signal_container(&self, namespace: &str, pod: &str, container: &str, signal: &str) -> Result<()> {
        let labels = [("pod.namespace", namespace), ("pod.name", pod), ("container.name", container)];
        let filter = labels.map(|(label, value)| format!(r#"labels."io.kubernetes.{label}"=={value}"#)).join(",");
        let mut list = self.ctr()?;
        list.args(["containers", "list", "--quiet", &filter]);
        let ids = self.output(list, None)?;
        // Of a container that was restarted, those before it are still listed: they have no task to kill.
        let is_told = |id: &str| {
            let mut kill = self.ctr()?;
            kill.args(["tasks", "kill", "--signal", signal, id]);
            anyhow::Ok(self.output(kill, None).is_ok())
        };
        let mut told = 0;
        for id in ids.lines() {
            told += usize::from(is_told(id)?);
        }
        ensure!(told > 0, "no container {container} of pod {namespace}/{pod} runs; {}", self.hint());
        Ok(())
    }

    fn ctr(&self) -> Result<Command> {
        let mut command = self.sandbox().command(&tools::program("ctr")?);
        command.args(["--address", &self.layout().containerd_socket(), "--namespace", "k8s.io"]);
        Ok(command)
    }
}
