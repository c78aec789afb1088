//! Where things of one cluster are: files of the run, addresses, ports. Paths and numbers only; it starts nothing.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The node's address; its network is the cluster's own, so every cluster may use the same.
pub(crate) const NODE_ADDRESS: &str = "10.240.0.1";
pub(crate) const NODE_NAME: &str = "node";
pub(crate) const POD_CIDR: &str = "10.244.0.0/16";
pub(crate) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The Service `kubernetes`: the first of the range.
pub(crate) const KUBERNETES_ADDRESS: &str = "10.96.0.1";
pub(crate) const DNS_ADDRESS: &str = "10.96.0.10";

/// Files and ports of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    run: PathBuf,
    pub(crate) is_node: bool,
    pub(crate) api_port: u16,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_peer_port: u16,
}

impl Layout {
    /// A whole node: the ports everybody knows, as its network is its own.
    pub(crate) fn node(run: &Path) -> Layout {
        Layout { run: run.to_owned(), is_node: true, api_port: 6443, etcd_port: 2379, etcd_peer_port: 2380 }
    }

    /// An API server alone: free ports of this machine's loopback.
    pub(crate) fn api_only(run: &Path) -> Result<Layout> {
        let [api_port, etcd_port, etcd_peer_port] = free_ports()?;
        Ok(Layout { run: run.to_owned(), is_node: false, api_port, etcd_port, etcd_peer_port })
    }

    /// Where the API server is reached.
    pub(crate) fn api_url(&self) -> String {
        format!("https://{}:{}", self.address(), self.api_port)
    }

    pub(crate) fn address(&self) -> &'static str {
        if self.is_node { NODE_ADDRESS } else { "127.0.0.1" }
    }

    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// The same for command lines and configuration files, which are text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.file("pki")
    }

    pub(crate) fn containerd_socket(&self) -> String {
        self.text("containerd.sock")
    }
}

/// Ports that are free now. Held together until all are chosen, so that they differ.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
