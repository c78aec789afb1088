//! The way to the cluster: the user's kubeconfig, or the ServiceAccount of the pod we run in.

use std::time::Duration;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{cli::ConnectionArgs, outcome::Failure};

/// For a person who waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client, and the namespace that was asked for; None for all of them.
#[derive(Clone)]
pub struct Connection {
    /// With the user's rights.
    pub client: Client,
    /// Whose pods are meant.
    pub namespace: Option<String>,
}

impl Connection {
    /// Reads the kubeconfig; nothing is sent yet.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn open(args: &ConnectionArgs) -> Result<Self, Failure> {
        let mut config = config(args).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let of_context = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| Failure::Kubeconfig(error.to_string()))?;
        let namespace = (!args.all_namespaces).then(|| args.namespace.clone().unwrap_or(of_context));
        Ok(Self { client, namespace })
    }

    /// ` in namespace voice`, for messages.
    pub fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(|| " in all namespaces".to_owned(), |name| format!(" in namespace {name}"))
    }
}

async fn config(args: &ConnectionArgs) -> Result<Config, Failure> {
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let unusable = |error: &dyn std::fmt::Display| Failure::Kubeconfig(error.to_string());
    if let Some(path) = &args.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
        return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error));
    }
    if args.context.is_some() {
        return Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error));
    }
    Config::infer().await.map_err(|error| unusable(&error))
}
