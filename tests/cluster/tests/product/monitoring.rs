//! Debian's Prometheus in the cluster, with the scrape configuration of docs/metrics.md: which pods that keeps, and what is
//! known of them after calls. Debian builds Prometheus without its discovery of pods, so that is done here.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sipwarden_cluster::images;
use sipwarden_cluster::product::App;
use sipwarden_cluster::workspace::repository;

use crate::calls::called;
use crate::{PATIENCE, SOON, alone, cluster};

const OBJECTS: &str = include_str!("prometheus.yaml");

/// What a person copies, only that pods come from a file, and that nobody waits half a minute for a scrape here.
fn config() -> String {
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the reference is there");
    let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config = block.filter(|block| block.starts_with("scrape_configs:\n")).expect("it has a scrape configuration");
    let discovery = "kubernetes_sd_configs: [{role: pod}]";
    assert_eq!(config.matches(discovery).count(), 2, "one for sidecars, one for operators: {config}");
    let config = config.replace(discovery, "file_sd_configs: [{files: [/config/targets.json]}]");
    format!("global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{config}")
}

/// Every port of every pod, with the labels that Prometheus's own discovery (role `pod`) gives it.
fn targets() -> Value {
    let pods = cluster().kubectl(&["get", "pods", "--all-namespaces", "-o", "json"]).expect("kubectl gets an answer");
    let pods: Value = serde_json::from_str(&pods).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut targets = Vec::new();
    for pod in list(&pods["items"]) {
        for container in list(&pod["spec"]["containers"]).into_iter().chain(list(&pod["spec"]["initContainers"])) {
            for port in list(&container["ports"]) {
                let address = format!("{}:{}", text(&pod["status"]["podIP"]), port["containerPort"]);
                targets.push(json!({ "targets": [address], "labels": labels(&pod, &container, &port) }));
            }
        }
    }
    Value::Array(targets)
}

fn labels(pod: &Value, container: &Value, port: &Value) -> Value {
    let metadata = &pod["metadata"];
    let controller = &metadata["ownerReferences"][0];
    let mut labels = json!({
        "__meta_kubernetes_namespace": text(&metadata["namespace"]),
        "__meta_kubernetes_pod_name": text(&metadata["name"]),
        "__meta_kubernetes_pod_phase": text(&pod["status"]["phase"]),
        "__meta_kubernetes_pod_controller_kind": text(&controller["kind"]),
        "__meta_kubernetes_pod_controller_name": text(&controller["name"]),
        "__meta_kubernetes_pod_container_name": text(&container["name"]),
        "__meta_kubernetes_pod_container_port_name": text(&port["name"]),
    });
    for (name, value) in metadata["labels"].as_object().into_iter().flatten() {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        labels[format!("__meta_kubernetes_pod_label_{name}")] = value.clone();
    }
    labels
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

struct Prometheus(SocketAddr);

impl Prometheus {
    fn start() -> Prometheus {
        let cluster = cluster();
        cluster.import(&images::prometheus().expect("its program is installed")).expect("containerd takes it");
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "prometheus", "namespace": "monitoring" },
            "data": { "prometheus.yaml": config(), "targets.json": targets().to_string() },
        });
        cluster.apply(&format!("{OBJECTS}---\n{config}\n")).expect("the API server takes it");
        let pod = ["-n", "monitoring", "wait", "--for=condition=Ready", "pod/prometheus", "--timeout=90s"];
        let logs = || cluster.kubectl(&["-n", "monitoring", "logs", "prometheus"]).unwrap_or_default();
        cluster.kubectl(&pod).unwrap_or_else(|error| panic!("{error:#}\n{}", logs()));
        let path = "jsonpath={.status.podIP}";
        let ip = cluster.kubectl(&["-n", "monitoring", "get", "pod", "prometheus", "-o", path]).expect("it is there");
        Prometheus(SocketAddr::new(ip.parse().expect("an address"), 9090))
    }

    /// `PATH?query` of its API.
    fn get(&self, path: &str) -> Option<Value> {
        let answer = cluster().get_json(self.0, &format!("/api/v1/{path}")).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// The sum of what a selector finds, written for the query of a URL; None while nothing is found.
    fn sum(&self, selector: &str) -> Option<f64> {
        let encoded: String = selector.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = self.get(&format!("query?query=sum({encoded})"))?;
        found["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// For failures.
    fn targets(&self) -> String {
        self.get("targets?state=active").unwrap_or_default().to_string()
    }
}

#[test]
fn a_prometheus_finds_sidecars_and_operators_and_counts_a_call() {
    let _alone = alone();
    let site = called("scraped", App::Sip, 120);
    let prometheus = Prometheus::start();
    let service = site.service().unwrap();

    let refused = site.cluster.invite(service, 90).unwrap();
    let call = site.cluster.call(service, 1200).unwrap();

    assert_eq!(refused.status, 422);
    let ours = r#"namespace="scraped",workload="app",container="sipwarden",job="sipwarden-sidecars""#;
    let operators = r#"namespace="sipwarden-system",container="operator",job="sipwarden-operator""#;
    for (series, wanted) in [
        (format!("up{{{ours}}}"), 1.0),
        (format!("up{{{operators}}}"), 2.0),
        (format!("sipwarden_policy_info{{{ours},name=\"carrier\",mode=\"Enforce\",source=\"File\"}}"), 1.0),
        (format!("sipwarden_rejections_total{{{ours},mode=\"Enforce\",side=\"Remote\"}}"), 1.0),
        // The first one was to see that the Service leads to the pod.
        (format!("sipwarden_sessions_active{{{ours}}}"), 1.0),
        (format!("sipwarden_completions_total{{{ours},mode=\"Enforce\",side=\"Remote\"}}"), 2.0),
        // What fits into the 256 MiB of the container.
        (format!("sipwarden_calls_limit{{{ours}}}"), 91_022.0),
        (format!("sipwarden_operator_leading{{{operators}}}"), 1.0),
    ] {
        let told = || prometheus.sum(&series).filter(|sum| *sum >= wanted);
        let sum = site.eventually(&series, PATIENCE, told).unwrap_or_else(|error| {
            panic!("{error:#}\n{}", prometheus.targets());
        });
        assert!((sum - wanted).abs() < f64::EPSILON, "{series} is {sum}, not {wanted}");
    }
    call.hang_up().unwrap();
    let ended = || prometheus.sum(&format!("sipwarden_sessions_active{{{ours}}}")).filter(|sum| *sum == 0.0);
    site.eventually("the end of the call", SOON, ended).unwrap();
}
