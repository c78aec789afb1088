//! The endpoints over TLS, as an API server meets them.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use prometheus::{Registry, TextEncoder};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use sipwarden_operator::{
    certs::{self, Cluster, ClusterError, Configuration, Keeper, LeafSlot, Names, ROTATE, Step, StoredCa, Timing},
    inject::{NamespaceFacts, Settings, names},
    webhook::{Audience, Lookup, Metrics, Refusal, Webhook, serve},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// What the index and the API server say.
#[derive(Default)]
struct Facts {
    known: Option<NamespaceFacts>,
    fetched: Option<NamespaceFacts>,
    config: Option<String>,
    fetches: AtomicUsize,
    told: Mutex<Vec<String>>,
}

impl Lookup for Facts {
    fn namespace(&self, _: &str) -> Option<NamespaceFacts> {
        self.known.clone()
    }

    fn refetch<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<NamespaceFacts>> + Send + 'a>> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { self.fetched.clone() })
    }

    fn config(&self, namespace: &str, _: &Pod) -> Option<String> {
        assert_eq!(namespace, "voice");
        self.config.clone()
    }
}

impl Audience for Facts {
    fn refused(&self, refusal: &Refusal) {
        let told = format!("{} {}", refusal.namespace, refusal.skip.reason().as_str());
        self.told.lock().expect("no test panics with the lock").push(told);
    }
}

/// A Secret and one configuration in memory.
#[derive(Clone)]
struct Memory(Arc<Mutex<(Option<StoredCa>, Configuration)>>);

impl Memory {
    fn new() -> Self {
        let configuration =
            Configuration { name: "injector".into(), version: "1".into(), bundles: vec![String::new()] };
        Self(Arc::new(Mutex::new((None, configuration))))
    }

    fn bundle(&self) -> String {
        self.0.lock().expect("no test panics with the lock").1.bundles[0].clone()
    }
}

impl Cluster for Memory {
    async fn now_s(&self) -> Option<i64> {
        None
    }

    async fn load(&self) -> Result<Option<StoredCa>, ClusterError> {
        Ok(self.0.lock().expect("no test panics with the lock").0.clone())
    }

    async fn create(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        self.0.lock().expect("no test panics with the lock").0 = Some(ca.clone());
        Ok(())
    }

    async fn replace(&self, ca: &StoredCa) -> Result<(), ClusterError> {
        self.create(ca).await
    }

    async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        Ok(vec![self.0.lock().expect("no test panics with the lock").1.clone()])
    }

    async fn publish(&self, _: &Configuration, bundle: &str) -> Result<(), ClusterError> {
        self.0.lock().expect("no test panics with the lock").1.bundles[0] = bundle.to_owned();
        Ok(())
    }
}

/// A webhook that runs, and what is needed to call it.
struct Running {
    address: SocketAddr,
    facts: Arc<Facts>,
    registry: Registry,
    memory: Memory,
    keeper: Keeper<Memory>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Running {
    async fn start(facts: Facts) -> Self {
        let (facts, memory, slot) = (Arc::new(facts), Memory::new(), Arc::new(LeafSlot::default()));
        let dns_names = Names::new("sipwarden", "sipwarden-webhook", "default").dns_names();
        let timing = Timing { propagation_s: 0, ..Timing::default() };
        let counts = certs::Metrics::new(&Registry::new()).expect("names of their own");
        let mut keeper = Keeper::new(memory.clone(), "default", dns_names, timing, slot.clone(), counts);
        keeper.look().await.expect("a leaf");
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).expect("names of their own");
        let settings = Settings::new("default", "sipwarden:1");
        let webhook = Webhook::new(settings, facts.clone(), facts.clone(), metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a port");
        let (stop, stopped) = oneshot::channel();
        let app = (webhook.router(), metrics);
        let server = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            serve(listener, slot, app.0, app.1, shutdown).await.expect("TLS is set up");
        });
        Self { address, facts, registry, memory, keeper, stop: Some(stop), server }
    }

    /// Connects as an API server that trusts this bundle.
    async fn connect(&self, bundle: &str) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a certificate");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("sipwarden-webhook.sipwarden.svc").expect("a DNS name");
        let stream = TcpStream::connect(self.address).await.expect("connected");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Status and body of the answer.
    async fn post(&self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = self.connect(&self.memory.bundle()).await.expect("the leaf is trusted");
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        // A server that has seen enough closes before the body is whole.
        drop(stream.write_all(body).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let status = std::str::from_utf8(&answer[9..12]).expect("a status").parse().expect("a status");
        (status, answer[end + 4..].to_vec())
    }

    /// The response part of the answer to a review.
    async fn review(&self, path: &str, request: Value) -> Value {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let (status, body) = self.post(path, review.to_string().as_bytes()).await;
        assert_eq!(status, 200);
        let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["response"]["uid"], "42");
        answer["response"].take()
    }

    async fn inject(&self, pod: Value) -> Value {
        self.review("/inject", pod_request(pod)).await
    }

    /// Whether the metrics have this line.
    fn counts(&self, line: &str) -> bool {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text");
        text.lines().any(|known| known.strip_prefix("sipwarden_operator_") == Some(line))
    }

    fn told(&self) -> Vec<String> {
        self.facts.told.lock().expect("no test panics with the lock").clone()
    }
}

fn request(kind: [&str; 4], object: Value) -> Value {
    let [group, version, kind, resource] = kind;
    json!({
        "uid": "42",
        "kind": { "group": group, "version": version, "kind": kind },
        "resource": { "group": group, "version": version, "resource": resource },
        "namespace": "voice",
        "operation": "CREATE",
        "userInfo": {},
        "object": object,
    })
}

fn pod_request(pod: Value) -> Value {
    request(["", "v1", "Pod", "pods"], pod)
}

fn policy_request(spec: Value) -> Value {
    let policy = json!({
        "apiVersion": "sipwarden.dev/v1alpha1",
        "kind": "SessionPolicy",
        "metadata": { "name": "carrier", "namespace": "voice" },
        "spec": spec,
    });
    request(["sipwarden.dev", "v1alpha1", "SessionPolicy", "sessionpolicies"], policy)
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "generateName": "asterisk-" },
        "spec": { "containers": [
            { "name": "asterisk", "ports": [{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }] },
        ] },
    })
}

fn enabled() -> Option<NamespaceFacts> {
    Some(NamespaceFacts { inject: Some("enabled".to_owned()), revision: None })
}

fn patched(response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    // A list of numbers, which Go reads into bytes as it does base64.
    let bytes: Vec<u8> = serde_json::from_value(response["patch"].clone()).expect("bytes");
    let patch: Patch = serde_json::from_slice(&bytes).expect("a patch");
    let mut pod = pod();
    json_patch::patch(&mut pod, &patch).expect("the patch applies");
    pod
}

#[tokio::test]
async fn a_pod_gets_its_sidecar_and_config() {
    let running = Running::start(Facts { known: enabled(), config: Some("{}".into()), ..Facts::default() }).await;
    let response = running.inject(pod()).await;
    assert_eq!(response["allowed"], true);
    let pod = patched(&response);
    assert_eq!(pod["spec"]["initContainers"][0]["name"], names::CONTAINER);
    assert_eq!(pod["metadata"]["annotations"][names::CONFIG], "{}");
    assert_eq!(response["auditAnnotations"], json!({ "injection": "injected" }));
    assert!(running.told().is_empty(), "that is told when the pod is there, whoever injected");
    assert!(running.counts(r#"admission_reviews_total{outcome="injected",webhook="inject"} 1"#));
}

#[tokio::test]
async fn a_dry_run_answers_the_same_and_tells_nobody() {
    let running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let mut request = pod_request(pod());
    request["dryRun"] = json!(true);
    let response = running.review("/inject", request).await;
    assert_eq!(patched(&response)["spec"]["initContainers"][0]["name"], names::CONTAINER);
    let mut host_network = pod();
    host_network["spec"]["hostNetwork"] = json!(true);
    let mut request = pod_request(host_network);
    request["dryRun"] = json!(true);
    assert!(running.review("/inject", request).await["warnings"].is_array());
    assert!(running.told().is_empty());
}

#[tokio::test]
async fn a_pod_that_cannot_have_a_sidecar_is_admitted_with_a_warning() {
    let running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let mut host_network = pod();
    host_network["spec"]["hostNetwork"] = json!(true);
    let response = running.inject(host_network).await;
    assert_eq!(response["allowed"], true);
    assert!(response.get("patch").is_none());
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("sipwarden: no sidecar for this pod (HostNetwork): "), "{warning}");
    assert!(warning.len() <= 256, "longer ones are cut off");
    assert_eq!(running.told(), ["voice HostNetwork"]);
    assert!(running.counts(r#"injection_skipped_total{reason="HostNetwork"} 1"#));
}

#[tokio::test]
async fn a_pod_that_wants_none_is_admitted_in_silence() {
    let running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let mut disabled = pod();
    disabled["metadata"]["labels"] = json!({ names::INJECT: "disabled" });
    let response = running.inject(disabled).await;
    assert_eq!(response["allowed"], true);
    assert!(response.get("patch").is_none() && response.get("warnings").is_none());
    assert!(running.told().is_empty());
    assert_eq!(running.facts.fetches.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_namespace_that_memory_does_not_know_never_blocks_a_pod() {
    let running = Running::start(Facts::default()).await;
    let response = running.inject(pod()).await;
    assert_eq!(patched(&response)["spec"]["initContainers"][0]["name"], names::CONTAINER);
}

#[tokio::test]
async fn a_label_that_memory_has_not_seen_yet_holds() {
    let late = Some(NamespaceFacts::default());
    let running = Running::start(Facts { known: late.clone(), fetched: enabled(), ..Facts::default() }).await;
    assert!(running.inject(pod()).await.get("patch").is_some());
    let running = Running::start(Facts { known: late.clone(), fetched: late, ..Facts::default() }).await;
    assert!(running.inject(pod()).await.get("patch").is_none());
    assert_eq!(running.facts.fetches.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_policy_is_judged_as_the_compile_step_judges_it() {
    let running = Running::start(Facts::default()).await;
    let good = running.review("/validate", policy_request(json!({ "timers": { "minSE": "2m" } }))).await;
    assert_eq!(good["allowed"], true);
    let bad = running.review("/validate", policy_request(json!({ "timers": { "minSE": "60s" } }))).await;
    assert_eq!(bad["allowed"], false);
    let message = bad["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.timers.minSE: "), "{message}");
    assert!(running.counts(r#"admission_reviews_total{outcome="denied",webhook="validate"} 1"#));
}

#[tokio::test]
async fn a_cluster_policy_is_judged_as_well() {
    let running = Running::start(Facts::default()).await;
    let request = |least: &str| {
        let mut request = policy_request(json!({ "timers": { "minSE": { "atLeast": least, "atMost": "1h" } } }));
        request["kind"]["kind"] = json!("ClusterSessionPolicy");
        request["object"]["kind"] = json!("ClusterSessionPolicy");
        request
    };
    assert_eq!(running.review("/validate", request("30m")).await["allowed"], true);
    assert_eq!(running.review("/validate", request("2h")).await["allowed"], false);
}

#[tokio::test]
async fn a_policy_that_is_invalid_already_can_still_be_labelled_and_deleted() {
    let running = Running::start(Facts::default()).await;
    let mut request = policy_request(json!({ "timers": { "minSE": "60s" } }));
    request["operation"] = json!("UPDATE");
    request["oldObject"] = request["object"].clone();
    request["object"]["metadata"]["labels"] = json!({ "a": "b" });
    assert_eq!(running.review("/validate", request.clone()).await["allowed"], true);
    request["object"]["spec"]["timers"]["minSE"] = json!("61s");
    assert_eq!(running.review("/validate", request).await["allowed"], false);
}

#[tokio::test]
async fn a_policy_of_a_newer_version_is_let_through_with_a_warning() {
    let running = Running::start(Facts::default()).await;
    let response = running.review("/validate", policy_request(json!({ "fieldOfTomorrow": 1 }))).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("cannot read"));
}

#[tokio::test]
async fn what_is_no_review_is_an_error_of_http() {
    let running = Running::start(Facts::default()).await;
    assert_eq!(running.post("/inject", b"nonsense").await.0, 400);
    assert_eq!(running.post("/validate", b"{\"apiVersion\":\"v1\",\"kind\":\"AdmissionReview\"}").await.0, 400);
    assert_eq!(running.post("/elsewhere", b"").await.0, 404);
    assert_eq!(running.post("/inject", &vec![b' '; (8 << 20) + 1]).await.0, 413);
    assert!(running.counts(r#"admission_reviews_total{outcome="failed",webhook="inject"} 2"#));
}

#[tokio::test]
async fn a_stranger_that_says_nothing_is_in_nobodys_way() {
    let running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let silent: Vec<_> = futures(20, || TcpStream::connect(running.address)).await;
    assert!(running.inject(pod()).await.get("patch").is_some());
    drop(silent);
}

/// Sends the head of a review of so many bytes, for the body of which the server asks when it reads it.
async fn announce(running: &Running, bytes: usize) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = running.connect(&running.memory.bundle()).await.expect("trusted");
    let head = format!("POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes}\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

async fn is_read(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 100");
}

#[tokio::test]
async fn of_large_reviews_only_so_many_are_read_at_a_time_and_small_ones_pass_them() {
    let running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let mut large = Vec::new();
    for _ in 0..32 {
        let mut stream = announce(&running, 8 << 20).await;
        is_read(&mut stream).await;
        large.push(stream);
    }
    let mut next = announce(&running, 8 << 20).await;
    let early = tokio::time::timeout(Duration::from_millis(100), is_read(&mut next)).await;
    assert!(early.is_err(), "the memory is used up");
    assert!(running.inject(pod()).await.get("patch").is_some());
    large.pop();
    tokio::time::timeout(Duration::from_secs(5), is_read(&mut next)).await.expect("it is its turn");
}

#[tokio::test]
async fn a_connection_is_kept_for_who_has_asked_something() {
    let running = Running::start(Facts::default()).await;
    let mut silent = running.connect(&running.memory.bundle()).await.expect("trusted");
    let mut asking = running.connect(&running.memory.bundle()).await.expect("trusted");
    asking.write_all(b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut answer = [0; 512];
    assert_ne!(asking.read(&mut answer).await.unwrap(), 0);
    // As an API server may keep it.
    tokio::time::pause();
    let idle = tokio::time::timeout(Duration::from_secs(90), asking.read(&mut answer)).await;
    assert!(idle.is_err(), "{idle:?}");
    let closed = tokio::time::timeout(Duration::from_secs(1), silent.read(&mut answer)).await.expect("closed by now");
    assert!(!closed.is_ok_and(|bytes| bytes > 0));
}

async fn futures<T, F: Future<Output = std::io::Result<T>>>(count: usize, make: impl Fn() -> F) -> Vec<T> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(make().await.expect("connected"));
    }
    all
}

#[tokio::test]
async fn after_a_rotation_new_connections_get_the_new_leaf_and_old_ones_go_on() {
    let mut running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let before = running.memory.bundle();
    let mut open = running.connect(&before).await.expect("trusted");
    running.memory.0.lock().unwrap().0.as_mut().unwrap().annotations.insert(ROTATE.to_owned(), String::new());
    let steps = [running.keeper.look().await.unwrap().step, running.keeper.look().await.unwrap().step];
    assert!(matches!(steps, [Step::Prepare(_), Step::Promote]), "{steps:?}");
    assert!(running.connect(&before).await.is_err(), "signed by a CA that was unknown then");
    assert!(running.inject(pod()).await.get("patch").is_some());
    open.write_all(b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    open.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
}

#[tokio::test]
async fn the_end_waits_for_requests_under_way() {
    let mut running = Running::start(Facts { known: enabled(), ..Facts::default() }).await;
    let mut open = running.connect(&running.memory.bundle()).await.expect("trusted");
    open.write_all(b"POST /inject HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").await.unwrap();
    // The server has the head once it counts the connection.
    let gauge = async {
        while !running.counts("webhook_connections 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gauge).await.expect("connected");
    running.stop.take().unwrap().send(()).unwrap();
    open.write_all(b"abc").await.unwrap();
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    tokio::time::timeout(Duration::from_secs(5), running.server).await.expect("stops").unwrap();
}
