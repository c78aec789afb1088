//! The real operator as a process, against a real API server.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{PostParams, Request},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use sipwarden_cluster::{Cluster, OperatorProcess, workspace::charts};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::sleep,
};

use crate::client;

/// For what takes the start of a process, or a lease to run out.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Where fake sidecars answer, each on an address of its own.
pub(crate) const STATUS_PORT: u16 = 18_643;

/// Definitions applied, and one API server for all tests.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::api_only().expect("an API server");
        cluster.prepare_for_operators().expect("definitions and a namespace");
        cluster
    })
}

pub(crate) async fn client_of(cluster: &Cluster) -> Client {
    client::client_of(cluster).await.expect("a client")
}

/// A running operator. Killed when dropped.
pub(crate) struct Operator(OperatorProcess);

impl Operator {
    /// Of this revision; `name` tells replicas apart.
    pub(crate) fn start(cluster: &Cluster, revision: &str, name: &str) -> Self {
        Self::start_as(cluster, &cluster.kubeconfig(), revision, name)
    }

    /// With a kubeconfig of its own.
    pub(crate) fn start_as(cluster: &Cluster, kubeconfig: &Path, revision: &str, name: &str) -> Self {
        let status_port = STATUS_PORT.to_string();
        let more = ["--status-port", &status_port, "--ack-interval-s", "1", "--log", "info,sipwarden_operator=debug"];
        Self(OperatorProcess::start(cluster, kubeconfig, revision, name, &more).expect("the operator starts"))
    }

    pub(crate) async fn until_ready(self) -> Self {
        self.until("ready", |this| async move {
            this.get("/readyz").await.is_some_and(|answer| answer.starts_with("ready"))
        })
        .await
    }

    pub(crate) async fn until_leading(self) -> Self {
        self.until("leading", |this| async move { this.metric("sipwarden_operator_leading").await == Some(1.0) }).await
    }

    async fn until<F: Future<Output = bool>>(self, what: &str, holds: impl Fn(Probe) -> F) -> Self {
        let start = Instant::now();
        while !holds(Probe(self.0.http)).await {
            assert!(start.elapsed() < PATIENCE, "not {what}; see {}", self.0.log.display());
            sleep(Duration::from_millis(50)).await;
        }
        self
    }

    pub(crate) fn probe(&self) -> Probe {
        Probe(self.0.http)
    }

    /// Posts to the webhook as an API server would: by the Service's name, trusting the CA that the operator made.
    pub(crate) async fn review(&self, client: &Client, path: &str, review: &Value) -> Value {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "sipwarden-system");
        let secret = serde_json::to_value(secrets.get("sipwarden-ca-default").await.expect("a CA")).expect("JSON");
        let cluster = json!({
            "server": format!("https://{}", self.0.webhook),
            "certificate-authority-data": secret["data"]["ca.crt"],
            "tls-server-name": "sipwarden-webhook.sipwarden-system.svc",
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(json!({
            "clusters": [{ "name": "webhook", "cluster": cluster }],
            "contexts": [{ "name": "webhook", "context": { "cluster": "webhook", "user": "nobody" } }],
            "users": [{ "name": "nobody", "user": {} }],
            "current-context": "webhook",
        }))
        .expect("a kubeconfig");
        let webhook = client::client_by(kubeconfig).await.expect("a client");
        let request = Request::new(path).create(&PostParams::default(), review.to_string().into_bytes());
        webhook.request(request.expect("a request")).await.expect("the webhook answers")
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.0.log).expect("a log")
    }

    /// As the kernel does it.
    pub(crate) fn kill(self) {
        drop(self.0);
    }

    /// As the kubelet does it. True if it ended well; it does so in time.
    pub(crate) async fn terminate(self) -> bool {
        let ended = spawn_blocking(|| self.0.terminate()).await.expect("the thread does not panic");
        ended.expect("it ends").success()
    }

    /// None while it runs.
    pub(crate) fn exit(&mut self) -> Option<bool> {
        self.0.ended().map(|status| status.success())
    }
}

/// Asks an operator.
#[derive(Clone, Copy)]
pub(crate) struct Probe(SocketAddr);

impl Probe {
    /// The body of the answer. None if there is none.
    pub(crate) async fn get(self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.0).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    /// Of this name, labels included.
    pub(crate) async fn metric(self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

/// What the chart gives the operator of this revision, and a kubeconfig with nothing else.
pub(crate) fn chart_roles(cluster: &Cluster, revision: &str) -> PathBuf {
    let chart = charts().join("sipwarden");
    let chart = chart.to_str().expect("a path of text");
    let revision = format!("revision={revision}");
    let arguments = ["template", "sipwarden", chart, "--namespace", "sipwarden-system", "--set", &revision];
    let templates = ["templates/serviceaccount.yaml", "templates/rbac.yaml"];
    let only = templates.iter().flat_map(|template| ["--show-only", template]);
    let rendered = cluster.helm(&arguments.into_iter().chain(only).collect::<Vec<_>>()).expect("rendered roles");
    cluster.apply(&rendered).expect("roles");

    let account = rendered.lines().skip_while(|line| *line != "kind: ServiceAccount");
    let account = account.filter_map(|line| line.trim().strip_prefix("name: ")).next().expect("a service account");
    let token = cluster.kubectl(&["-n", "sipwarden-system", "create", "token", account]).expect("a token");
    let mut kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = serde_json::from_value(json!({ "token": token.trim() })).expect("a user");
    }
    let path = cluster.scratch().join("operator.kubeconfig");
    fs::write(&path, serde_json::to_vec(&kubeconfig).expect("JSON")).expect("a kubeconfig");
    path
}

/// A sidecar that says it obeys this hash, on an address of its own.
pub(crate) fn sidecar(address: IpAddr, hash: &str, sessions: u32) {
    let listener = TcpListener::bind((address, STATUS_PORT)).expect("a loopback address");
    listener.set_nonblocking(true).expect("a socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let body = format!(r#"{{"policy":"p","generation":1,"hash":"{hash}","sessions":{sessions},"error":null}}"#);
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            // Who hangs up first is of no interest.
            let _read = stream.read(&mut request).await;
            let _written = stream.write_all(answer.as_bytes()).await;
        }
    });
}
