//! A Kubernetes client for tests and benches. Not in the library: `up` needs none, and would be built with it.

use anyhow::Result;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sipwarden_cluster::Cluster;

/// Of the cluster's administrator.
pub(crate) async fn client_of(cluster: &Cluster) -> Result<Client> {
    client_by(Kubeconfig::read_from(cluster.kubeconfig())?).await
}

/// Of whoever the kubeconfig names as current.
pub(crate) async fn client_by(kubeconfig: Kubeconfig) -> Result<Client> {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}
