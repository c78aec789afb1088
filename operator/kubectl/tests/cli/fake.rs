//! An API server of a few lines: it has the objects it was given, and forwards ports to sidecars of a few lines.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::ran::Ran;

/// For a process that asks a server on this machine.
const LIMIT: Duration = Duration::from_secs(60);
const ADMIN_PORT: u16 = 8642;

/// What is behind a pod's admin port.
#[derive(Clone)]
pub(crate) enum Sidecar {
    /// HTTP.
    Answers(Router),
    /// A connection on which nothing ever comes.
    Silent,
    /// Nobody listens, as the kubelet tells it.
    Refused,
    /// The user may not forward ports.
    Forbidden,
    /// Something that is no HTTP.
    Garbage,
}

/// What the API server has.
#[derive(Clone, Default)]
pub(crate) struct World {
    /// Answers by path; a list where the path is of a kind.
    pub(crate) objects: HashMap<String, Value>,
    /// By the pod's name.
    pub(crate) sidecars: HashMap<String, Sidecar>,
    /// The pod that was made, whatever its name, and what it wrote.
    pub(crate) caller: Option<Value>,
    pub(crate) log: String,
    /// Paths that the user may not read.
    pub(crate) forbidden: Vec<String>,
    /// What was written: method and path.
    pub(crate) written: Arc<Mutex<Vec<String>>>,
}

/// The server, and a kubeconfig for it.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
}

impl World {
    /// With a pod of the StatefulSet pbx in namespace voice, which has this sidecar.
    pub(crate) fn with(mut self, pod: &str, sidecar: Sidecar) -> Self {
        let object = json!({
            "metadata": {
                "name": pod, "namespace": "voice", "uid": pod,
                "labels": { "sipwarden.dev/sidecar": "injected", "app": "pbx" },
                "annotations": { "sipwarden.dev/injected": "default" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pbx", "uid": "u", "controller": true }],
            },
            "spec": {
                "initContainers": [{ "name": "sipwarden", "image": "sipwarden:1" }],
                "containers": [{ "name": "app" }],
            },
            "status": { "phase": "Running" },
        });
        self.add("/api/v1/namespaces/voice/pods", object);
        self.sidecars.insert(pod.to_owned(), sidecar);
        self
    }

    /// With an answer to who asks for its version.
    pub(crate) fn with_version(mut self) -> Self {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "" });
        self.objects.insert("/version".to_owned(), version);
        self
    }

    /// With an object in the list at this path.
    pub(crate) fn add(&mut self, path: &str, object: Value) {
        let list = self.objects.entry(path.to_owned()).or_insert_with(|| json!({ "metadata": {}, "items": [] }));
        list["items"].as_array_mut().expect("a list").push(object);
    }

    /// What was written so far.
    pub(crate) fn written(&self) -> Vec<String> {
        self.written.lock().expect("nobody panics with it").clone()
    }

    /// Starts it.
    pub(crate) async fn serve(self) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port of loopback");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().fallback(answer).with_state(Arc::new(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Fake::of(address)
    }
}

impl Fake {
    /// A kubeconfig for a server at this address, whether there is one or not.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": { "server": format!("http://{address}") } }],
            "users": [{ "name": "eve", "user": {} }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "eve", "namespace": "voice" } }],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).expect("written");
        Self { folder }
    }

    /// A file of its own folder, which the plugin runs in.
    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }

    /// Where the plugin runs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the plugin.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        let kubeconfig = ["--kubeconfig", "kubeconfig"];
        run(self.folder(), &[arguments, &kubeconfig].concat()).await
    }
}

/// Runs the plugin in this folder, without any cluster but the one that is named.
pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-sipwarden"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    ended.expect("it ends in time").expect("it starts").into()
}

async fn answer(State(world): State<Arc<World>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if let Some(pod) = path.strip_suffix("/portforward").and_then(|path| path.rsplit('/').next()) {
        let sidecar = world.sidecars.get(pod).cloned();
        return forward(sidecar, request);
    }
    if world.forbidden.contains(&path) {
        return status(StatusCode::FORBIDDEN, &format!("{path} is forbidden: User \"eve\" cannot read it"));
    }
    if request.method() != Method::GET {
        let written = format!("{} {path}", request.method());
        world.written.lock().expect("nobody panics with it").push(written);
        // A DELETE says what became of it, a POST what it made.
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
        let made: Value = serde_json::from_slice(&body).unwrap_or_default();
        return match made["kind"].as_str() {
            Some("DeleteOptions") | None => Json(json!({ "kind": "Status", "status": "Success", "metadata": {} })),
            Some(_) => Json(made),
        }
        .into_response();
    }
    if let Some((_, of_caller)) = path.split_once("/pods/sipwarden-call-test-") {
        let asks_log = of_caller.ends_with("/log");
        return if asks_log { world.log.clone().into_response() } else { Json(&world.caller).into_response() };
    }
    match world.objects.get(&path) {
        Some(object) => Json(object).into_response(),
        None => status(StatusCode::NOT_FOUND, "the server could not find the requested resource"),
    }
}

fn status(code: StatusCode, message: &str) -> Response {
    let reason = if code == StatusCode::FORBIDDEN { "Forbidden" } else { "NotFound" };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code.as_u16(),
    });
    (code, Json(body)).into_response()
}

/// The WebSocket of a port-forward: frames of a channel's number and bytes; 0 is data, 1 is errors.
fn forward(sidecar: Option<Sidecar>, mut request: Request) -> Response {
    let sidecar = match sidecar {
        None => return status(StatusCode::NOT_FOUND, "no such pod"),
        Some(Sidecar::Forbidden) => return status(StatusCode::FORBIDDEN, "cannot create pods/portforward"),
        Some(sidecar) => sidecar,
    };
    let key = request.headers()[header::SEC_WEBSOCKET_KEY].clone();
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrading.await.expect("an upgrade"));
        relay(WebSocketStream::from_raw_socket(io, Role::Server, None).await, sidecar).await;
    });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, "Upgrade".parse().expect("a value"));
    headers.insert(header::UPGRADE, "websocket".parse().expect("a value"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io".parse().expect("a value"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes()).parse().expect("a value"));
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn relay<S>(mut socket: WebSocketStream<S>, sidecar: Sidecar)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use futures_util::{SinkExt, StreamExt};
    let [low, high] = ADMIN_PORT.to_le_bytes();
    for channel in [0, 1] {
        let _ = socket.send(Message::binary(vec![channel, low, high])).await;
    }
    let Some(mut pod) = start(sidecar) else {
        let mut text = vec![1];
        text.extend(b"dial tcp4 127.0.0.1:8642: connect: connection refused");
        let _ = socket.send(Message::binary(text)).await;
        while let Some(Ok(_)) = socket.next().await {}
        return;
    };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) if bytes.first() == Some(&0) => {
                    if pod.write_all(&bytes[1..]).await.is_err() { break }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            read = pod.read(&mut buffer) => match read {
                Ok(length @ 1..) => {
                    let frame = [&[0], &buffer[..length]].concat();
                    if socket.send(Message::binary(frame)).await.is_err() { break }
                }
                _ => break,
            },
        }
    }
    let _ = socket.close(None).await;
}

/// The pod's side of a connection; None if nobody listens.
fn start(sidecar: Sidecar) -> Option<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    match sidecar {
        Sidecar::Answers(router) => {
            let service = hyper_util::service::TowerToHyperService::new(router);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
            tokio::spawn(connection);
        }
        Sidecar::Silent => {
            // Held for as long as anybody may wait.
            tokio::spawn(async move {
                tokio::time::sleep(LIMIT).await;
                drop(theirs);
            });
        }
        Sidecar::Garbage => {
            tokio::spawn(async move {
                let mut theirs = theirs;
                let _ = theirs.write_all(b"SIP/2.0 400 Bad Request\r\n\r\n").await;
            });
        }
        Sidecar::Refused | Sidecar::Forbidden => return None,
    }
    Some(ours)
}
