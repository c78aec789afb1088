//! The webhook and its certificates against a real API server, without the rest of the operator.

#[path = "../support/client.rs"]
mod client;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use prometheus::Registry;
use serde_json::{Value, json};
use sipwarden_cluster::Cluster;
use sipwarden_operator::{
    certs::{self, Cluster as _, Keeper, KubernetesCluster, LeafSlot, Names, ROTATE, Timing},
    inject::{NamespaceFacts, Settings, names},
    webhook::{Audience, Lookup, Metrics, Refusal, Webhook, serve},
};
use tokio::net::TcpListener;

const CONFIG: &str = r#"{"spec":{}}"#;
/// A keeper that has nothing to do looks again after 30 s.
const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::api_only().expect("an API server"))
}

async fn client() -> Client {
    client::client_of(cluster()).await.expect("a client")
}

/// Knows everything at once.
struct Facts;

impl Lookup for Facts {
    fn namespace(&self, _: &str) -> Option<NamespaceFacts> {
        Some(NamespaceFacts::selected_for("default"))
    }

    fn refetch<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<NamespaceFacts>> + Send + 'a>> {
        Box::pin(async { None })
    }

    fn config(&self, _: &str, _: &Pod) -> Option<String> {
        Some(CONFIG.to_owned())
    }
}

impl Audience for Facts {
    fn refused(&self, refusal: &Refusal) {
        panic!("{refusal:?}");
    }
}

/// Fast, so that a test may wait for it.
fn timing() -> Timing {
    Timing { propagation_s: 2, ..Timing::default() }
}

/// The names of one installation, which share the cluster with those of other tests.
fn installation(name: &str) -> Names {
    Names {
        namespace: format!("{name}-system"),
        service: "unused".to_owned(),
        secret: format!("ca-{name}"),
        mutating: format!("injector-{name}"),
        validating: format!("validator-{name}"),
    }
}

fn keeper(client: &Client, names: &Names, slot: Arc<LeafSlot>) -> Keeper<KubernetesCluster> {
    let metrics = certs::Metrics::new(&Registry::new()).expect("names of their own");
    let cluster = KubernetesCluster::new(client.clone(), names.clone());
    Keeper::new(cluster, "default", vec!["127.0.0.1".to_owned()], timing(), slot, metrics)
}

/// The namespaces and webhook configurations of an installation: the API server calls `port` for pods of `name`.
async fn install(client: &Client, name: &str, names: &Names, port: u16) {
    for namespace in [name, &names.namespace] {
        let namespace = serde_json::from_value(json!({ "metadata": { "name": namespace } })).expect("an object");
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("created");
    }
    let webhook = |hook: &str, path: &str, group: &str, version: &str, resources: Value| {
        json!({
            "name": format!("{hook}.sipwarden.dev"),
            "clientConfig": { "url": format!("https://127.0.0.1:{port}{path}") },
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } },
            "rules": [{
                "apiGroups": [group], "apiVersions": [version], "operations": ["CREATE", "UPDATE"], "resources": resources,
            }],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "NoneOnDryRun",
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
        })
    };
    let mutating = json!({
        "metadata": { "name": names.mutating },
        "webhooks": [webhook("namespace.injector", "/inject", "", "v1", json!(["pods"]))],
    });
    let mut policies = webhook("policies", "/validate", "sipwarden.dev", "v1alpha1", json!(["sessionpolicies"]));
    policies["sideEffects"] = json!("None");
    let validating = json!({ "metadata": { "name": names.validating }, "webhooks": [policies] });
    let mutating = serde_json::from_value(mutating).expect("an object");
    let validating = serde_json::from_value(validating).expect("an object");
    let params = PostParams::default();
    Api::<MutatingWebhookConfiguration>::all(client.clone()).create(&params, &mutating).await.expect("created");
    Api::<ValidatingWebhookConfiguration>::all(client.clone()).create(&params, &validating).await.expect("created");
}

fn pod(name: &str) -> Pod {
    let pod = json!({
        "metadata": { "name": name },
        "spec": { "containers": [{
            "name": "asterisk", "image": "asterisk:22",
            "ports": [{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }],
        }] },
    });
    serde_json::from_value(pod).expect("an object")
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn secret(client: &Client, names: &Names) -> Secret {
    Api::namespaced(client.clone(), &names.namespace).get(&names.secret).await.expect("the Secret")
}

async fn bundle(client: &Client, names: &Names) -> Option<Vec<u8>> {
    let found: MutatingWebhookConfiguration = Api::all(client.clone()).get(&names.mutating).await.ok()?;
    found.webhooks?.first()?.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_admission_fails_while_the_ca_is_rotated_under_load() {
    let (client, names) = (client().await, installation("rotated"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    install(&client, "rotated", &names, listener.local_addr().unwrap().port()).await;
    let (slot, facts) = (Arc::new(LeafSlot::default()), Arc::new(Facts));
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let webhook = Webhook::new(Settings::new("default", "i:1"), facts.clone(), facts, metrics.clone());
    tokio::spawn(serve(listener, slot.clone(), webhook.router(), metrics, std::future::pending()));
    // Two replicas look after one CA; the API server calls the first.
    tokio::spawn(keeper(&client, &names, slot).run(std::future::pending()));
    tokio::spawn(keeper(&client, &names, Arc::default()).run(std::future::pending()));
    let pods: Api<Pod> = Api::namespaced(client.clone(), "rotated");
    eventually("the first injection", || async { pods.create(&PostParams::default(), &pod("first")).await.ok() }).await;

    let first_ca = secret(&client, &names).await.data.unwrap()["ca.crt"].clone();
    let done = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..4).map(|worker| tokio::spawn(create_pods(pods.clone(), worker, done.clone()))).collect();
    let rotate = json!({ "metadata": { "annotations": { ROTATE: "now" } } });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &names.namespace);
    secrets.patch(&names.secret, &PatchParams::default(), &Patch::Merge(rotate)).await.unwrap();
    let second_ca = eventually("another CA that signs", || async {
        let current = secret(&client, &names).await.data.unwrap()["ca.crt"].clone();
        (current != first_ca).then_some(current)
    });
    let second_ca = second_ca.await;
    // New connections are made with the new leaf for a while.
    tokio::time::sleep(Duration::from_secs(2)).await;
    done.store(true, Ordering::Relaxed);
    let mut created = 0;
    for worker in load {
        created += worker.await.expect("no admission failed");
    }
    assert!(created > 50, "{created} pods are no load");

    let bundle = bundle(&client, &names).await.expect("a bundle");
    assert_eq!(bundle, [second_ca.0, first_ca.0].concat());
    assert_eq!(secret(&client, &names).await.metadata.annotations.unwrap_or_default().get(ROTATE), None);
}

/// Creates pods until `done`, each of which must come out with a sidecar.
async fn create_pods(pods: Api<Pod>, worker: usize, done: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let created =
            pods.create(&PostParams::default(), &pod(&format!("pod-{worker}-{count}"))).await.expect("created");
        assert_eq!(created.labels()[names::SIDECAR], names::SIDECAR_INJECTED);
        assert_eq!(created.annotations()[names::CONFIG], CONFIG);
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_compile_is_denied_when_it_is_applied() {
    cluster().apply(include_str!("../../../crds/yaml/sessionpolicies.sipwarden.dev.yaml")).unwrap();
    let (client, names) = (client().await, installation("judged"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    install(&client, "judged", &names, listener.local_addr().unwrap().port()).await;
    let (slot, facts) = (Arc::new(LeafSlot::default()), Arc::new(Facts));
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let webhook = Webhook::new(Settings::new("default", "i:1"), facts.clone(), facts, metrics.clone());
    tokio::spawn(serve(listener, slot.clone(), webhook.router(), metrics, std::future::pending()));
    keeper(&client, &names, slot).look().await.expect("certificates");

    // The schema has nothing against it; the selector is no selector.
    let create = |values: &str| {
        let policy = format!(
            "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {{name: carrier, namespace: judged}}\n\
             spec: {{podSelector: {{matchExpressions: [{{key: app, operator: In{values}}}]}}}}\n"
        );
        let file = cluster().scratch().join("policy.yaml");
        std::fs::write(&file, policy).unwrap();
        cluster().kubectl(&["create", "--dry-run=server", "--filename", file.to_str().unwrap()])
    };
    let denied = || async {
        let error = create("").err()?.to_string();
        error
            .contains("admission webhook \"policies.sipwarden.dev\" denied the request: spec.podSelector")
            .then_some(())
    };
    eventually("the denial", denied).await;
    create(", values: [asterisk]").expect("a good policy");
}

#[tokio::test]
async fn the_api_server_tells_its_time_and_a_stale_change_is_a_conflict() {
    let (client, names) = (client().await, installation("stale"));
    install(&client, "stale", &names, 1).await;
    let api = KubernetesCluster::new(client, names);
    let own_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((own_s - api.now_s().await.expect("a time")).abs() < 10);

    assert_eq!(api.load().await.unwrap(), None);
    let ca = certs::StoredCa { data: [("ca.crt".to_owned(), "a".to_owned())].into(), ..certs::StoredCa::default() };
    api.create(&ca).await.unwrap();
    assert!(matches!(api.create(&ca).await, Err(certs::ClusterError::Conflict)));
    let stored = api.load().await.unwrap().expect("the Secret");
    assert_eq!(stored.data, ca.data);
    let next = certs::StoredCa { data: [("ca.key".to_owned(), "b".to_owned())].into(), ..stored.clone() };
    api.replace(&next).await.unwrap();
    assert!(matches!(api.replace(&stored).await, Err(certs::ClusterError::Conflict)));
    assert_eq!(api.load().await.unwrap().expect("the Secret").data, next.data);

    let read = api.configurations().await.unwrap();
    assert_eq!(read.iter().map(|read| read.bundles.len()).collect::<Vec<_>>(), [1, 1]);
    // The API server takes certificates only.
    let key = rcgen::KeyPair::generate().unwrap();
    let bundle = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    for configuration in &read {
        api.publish(configuration, &bundle).await.unwrap();
        let stale = api.publish(configuration, "").await;
        assert!(matches!(stale, Err(certs::ClusterError::Conflict)), "{stale:?}");
    }
    assert!(api.configurations().await.unwrap().iter().all(|read| read.bundles == [bundle.as_str()]));
}
