//! The components of a cluster and their command lines.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::layout::{Layout, NODE_NAME, POD_CIDR, SERVICE_CIDR};
use crate::tools::{self, Tool};

/// A process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
    /// Pretends to be the kubelet of nodes annotated `kwok.x-k8s.io/node: fake`: for thousands of pods on an API server
    /// alone. Not part of a cluster until it is started.
    Kwok,
}

/// A program and its arguments.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
}

impl Component {
    /// The name of its log and of the file with its process id.
    pub fn name(self) -> &'static str {
        match self {
            Component::Etcd => "etcd",
            Component::ApiServer => "kube-apiserver",
            Component::ControllerManager => "kube-controller-manager",
            Component::Scheduler => "kube-scheduler",
            Component::Containerd => "containerd",
            Component::Kubelet => "kubelet",
            Component::Proxy => "kube-proxy",
            Component::Kwok => "kwok",
        }
    }

    pub(crate) fn launch(self, layout: &Layout) -> Result<Launch> {
        let (program, arguments) = match self {
            Component::Etcd => (tools::program("etcd")?, etcd(layout)),
            Component::ApiServer => (Tool::ApiServer.ensure()?, api_server(layout)),
            Component::ControllerManager => (Tool::ControllerManager.ensure()?, controller_manager(layout)),
            Component::Scheduler => (Tool::Scheduler.ensure()?, scheduler(layout)),
            Component::Containerd => (tools::program("containerd")?, containerd(layout)),
            Component::Kubelet => (Tool::Kubelet.ensure()?, kubelet(layout)),
            Component::Proxy => (Tool::Proxy.ensure()?, proxy(layout)),
            Component::Kwok => (Tool::Kwok.ensure()?, kwok(layout)?),
        };
        Ok(Launch { program, arguments })
    }
}

fn etcd(layout: &Layout) -> Vec<String> {
    let client = format!("http://127.0.0.1:{}", layout.etcd_port);
    let peer = format!("http://127.0.0.1:{}", layout.etcd_peer_port);
    vec![
        format!("--data-dir={}", layout.text("etcd/data")),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--auto-compaction-retention=5m".to_owned(),
        "--log-level=warn".to_owned(),
        "--logger=zap".to_owned(),
    ]
}

fn api_server(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.text(&format!("pki/{file}"));
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{}", layout.etcd_port),
        format!("--secure-port={}", layout.api_port),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Asks etcd for its progress, which Debian's does not tell: a time-out of 3 s, again and again.
        "--feature-gates=SizeBasedListCostEstimate=false".to_owned(),
    ];
    let of_kind = if layout.is_node {
        vec![
            "--bind-address=0.0.0.0".to_owned(),
            format!("--advertise-address={}", layout.address()),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            // By name, logs and exec would look the node up in a DNS that does not have it.
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ]
    } else {
        vec![
            "--bind-address=127.0.0.1".to_owned(),
            // Endpoints may not be on loopback, and nobody makes service accounts here for pods to need.
            "--endpoint-reconciler-type=none".to_owned(),
            "--advertise-address=192.0.2.1".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]
    };
    arguments.extend(of_kind);
    arguments
}

fn controller_manager(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.text(&format!("pki/{file}"));
    vec![
        format!("--kubeconfig={}", layout.text("controller-manager.kubeconfig")),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("service-accounts.key")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
    ]
}

fn scheduler(layout: &Layout) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.text("scheduler.kubeconfig")),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ]
}

fn containerd(layout: &Layout) -> Vec<String> {
    vec!["--config".to_owned(), layout.text("containerd.toml")]
}

fn kubelet(layout: &Layout) -> Vec<String> {
    vec![
        format!("--config={}", layout.text("kubelet.yaml")),
        format!("--kubeconfig={}", layout.text("kubelet.kubeconfig")),
        format!("--root-dir={}", layout.text("kubelet")),
        format!("--hostname-override={NODE_NAME}"),
        format!("--node-ip={}", layout.address()),
    ]
}

fn proxy(layout: &Layout) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", layout.text("proxy.kubeconfig")),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={POD_CIDR}"),
        format!("--hostname-override={NODE_NAME}"),
        // Limits of connection tracking are the whole machine's, not a network namespace's.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0".to_owned(),
    ]
}

fn kwok(layout: &Layout) -> Result<Vec<String>> {
    let stages = layout.file("kwok.yaml");
    fs::write(&stages, include_str!("node/kwok.yaml")).context("cannot write kwok.yaml")?;
    Ok(vec![
        format!("--kubeconfig={}", layout.text("kubeconfig")),
        format!("--config={}", stages.display()),
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".to_owned(),
    ])
}
