//! What a node has beyond etcd and an API server: its files, its images, and the order of its start.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, write_kubeconfig};
use crate::component::Component;
use crate::images;
use crate::layout::{DNS_ADDRESS, Layout, NODE_ADDRESS, NODE_NAME, POD_CIDR};
use crate::pki::{Authority, Identity};
use crate::wait::eventually;

const READY_LIMIT: Duration = Duration::from_secs(120);

/// Configuration files of containerd, CNI and kubelet.
pub(crate) fn write_files(layout: &Layout, cgroup: &str) -> Result<()> {
    let fill = |template: &str| {
        template
            .replace("@RUN@", &layout.run().display().to_string())
            .replace("@SOCKET@", &layout.containerd_socket())
            .replace("@CGROUP@", cgroup)
            .replace("@PAUSE@", images::PAUSE)
            .replace("@POD_CIDR@", POD_CIDR)
            .replace("@DNS@", DNS_ADDRESS)
    };
    fs::create_dir_all(layout.file("cni")).context("cannot write into the run's directory")?;
    for (name, template) in [
        ("containerd.toml", include_str!("node/containerd.toml")),
        ("cni/pods.conflist", include_str!("node/cni.conflist")),
        ("kubelet.yaml", include_str!("node/kubelet.yaml")),
    ] {
        fs::write(layout.file(name), fill(template)).with_context(|| format!("cannot write {name}"))?;
    }
    // For pods with dnsPolicy Default. The machine's own file may name servers that cannot be reached from inside.
    fs::write(layout.file("resolv.conf"), format!("nameserver {DNS_ADDRESS}\n")).context("cannot write resolv.conf")
}

/// Certificates and kubeconfigs of the node's components.
pub(crate) fn write_identities(layout: &Layout, authority: &Authority) -> Result<()> {
    let node_user = format!("system:node:{NODE_NAME}");
    for (file, user, group) in [
        ("scheduler", "system:kube-scheduler", None),
        ("proxy", "system:kube-proxy", None),
        ("kubelet", node_user.as_str(), Some("system:nodes")),
    ] {
        // Only kubelet serves others with it.
        let names: &[&str] = if file == "kubelet" { &[NODE_NAME, NODE_ADDRESS] } else { &[] };
        let identity: Identity = authority.issue(file, user, group, names)?;
        write_kubeconfig(layout, &format!("{file}.kubeconfig"), &identity.user())?;
    }
    Ok(())
}

/// The images without which no pod starts.
pub(crate) fn import_images(cluster: &Cluster) -> Result<()> {
    let socket = cluster.layout().containerd_socket();
    let listens = || std::path::Path::new(&socket).exists().then_some(());
    eventually("containerd", READY_LIMIT, listens).with_context(|| cluster.hint())?;
    cluster.import(&images::pause(cluster.scratch())?)?;
    cluster.import(&images::coredns()?)
}

/// Starts what needs the API server, and waits until the node runs pods and answers DNS.
pub(crate) fn start(cluster: &Cluster) -> Result<()> {
    for component in [Component::Kubelet, Component::ControllerManager, Component::Scheduler, Component::Proxy] {
        cluster.launch(component)?;
    }
    let dns = include_str!("node/coredns.yaml").replace("@IMAGE@", images::COREDNS).replace("@DNS@", DNS_ADDRESS);
    cluster.apply(&dns)?;
    await_condition(cluster, "node Ready", &["get", "node", NODE_NAME, "-o", READY_CONDITION], "True")?;
    let available = ["-n", "kube-system", "get", "deployment", "coredns", "-o", "jsonpath={.status.availableReplicas}"];
    await_condition(cluster, "cluster DNS", &available, "1")?;
    // Pods are refused until their namespace has it.
    await_condition(
        cluster,
        "service accounts",
        &["get", "serviceaccount", "default", "-o", "name"],
        "serviceaccount/default",
    )
}

const READY_CONDITION: &str = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;

fn await_condition(cluster: &Cluster, what: &str, question: &[&str], wanted: &str) -> Result<()> {
    let answered = || cluster.kubectl(question).is_ok_and(|answer| answer.trim() == wanted).then_some(());
    eventually(what, READY_LIMIT, answered).with_context(|| cluster.hint())
}
