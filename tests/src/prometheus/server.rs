//! A real Prometheus (Debian's) in a directory of its own, on a loopback port of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ports::{LOOPBACK, free};
use crate::process::Process;
use crate::prometheus::reference::scrape_config;
use crate::prometheus::shipped::Query;
use crate::wait::{eventually, until};

const START: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(10);

/// A running server.
pub struct Prometheus {
    addr: SocketAddr,
    _process: Process,
}

/// What it scrapes: where, and whose pod it is said to be.
#[derive(Clone, Debug)]
pub struct Target {
    addr: SocketAddr,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The sidecar of this pod of a Deployment.
    Sidecar { workload: String, pod: &'static str },
    /// The operator of this revision.
    Operator { revision: &'static str },
}

/// An instant of one series.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Value,
    pub value: f64,
}

impl Target {
    /// The sidecar of a pod of this Deployment in the namespace `voice`.
    pub fn new(addr: SocketAddr, workload: &str) -> Target {
        Target { addr, kind: Kind::Sidecar { workload: workload.to_owned(), pod: "x2x4q" } }
    }

    /// The same in a second pod of the Deployment.
    pub fn second(addr: SocketAddr, workload: &str) -> Target {
        Target { addr, kind: Kind::Sidecar { workload: workload.to_owned(), pod: "k7m9z" } }
    }

    /// The operator of this revision, in the namespace `sipwarden-system`.
    pub fn operator(addr: SocketAddr, revision: &'static str) -> Target {
        Target { addr, kind: Kind::Operator { revision } }
    }

    /// With the labels that Prometheus finds at a pod in Kubernetes, or those that the chart's ServiceMonitor comes to.
    fn config(&self) -> Value {
        let labels = match &self.kind {
            Kind::Sidecar { workload, pod } => {
                let replica_set = format!("{workload}-7d9f8b6c54");
                json!({
                    "__meta_kubernetes_namespace": "voice",
                    "__meta_kubernetes_pod_container_name": "sipwarden",
                    "__meta_kubernetes_pod_container_port_name": "sipwarden-http",
                    "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
                    "__meta_kubernetes_pod_controller_name": replica_set,
                    "__meta_kubernetes_pod_label_sipwarden_dev_sidecar": "injected",
                    "__meta_kubernetes_pod_name": format!("{replica_set}-{pod}"),
                    "__meta_kubernetes_pod_phase": "Running",
                })
            }
            Kind::Operator { revision } => json!({
                "namespace": "sipwarden-system",
                "job": format!("sipwarden-operator-{revision}"),
                "pod": format!("sipwarden-operator-{revision}-5c7f9-abcde"),
                "container": "operator",
            }),
        };
        json!({ "targets": [self.addr.to_string()], "labels": labels })
    }

    fn is_operator(&self) -> bool {
        matches!(self.kind, Kind::Operator { .. })
    }
}

impl Prometheus {
    /// Starts a server that scrapes these targets each second, relabelled as docs/metrics.md says, and has these rules; waits for
    /// its first scrapes.
    pub fn start(targets: &[Target], rules: &[String]) -> Prometheus {
        let addr = free(LOOPBACK);
        let process = Process::start("prometheus", Path::new("prometheus"), |command, dir| {
            for (index, rules) in rules.iter().enumerate() {
                fs::write(dir.join(format!("rules-{index}.yaml")), rules).expect("the directory is ours");
            }
            let configs = |operators: bool| {
                targets
                    .iter()
                    .filter(|target| target.is_operator() == operators)
                    .map(Target::config)
                    .collect::<Vec<_>>()
            };
            let config = json!({
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules-*.yaml"],
                "scrape_configs": [
                    {
                        "job_name": "sidecars",
                        "static_configs": configs(false),
                        "relabel_configs": scrape_config()["relabel_configs"],
                    },
                    { "job_name": "operators", "static_configs": configs(true) },
                ],
            });
            fs::write(dir.join("config.yaml"), config.to_string()).expect("the directory is ours");
            command.args(["--config.file=config.yaml", "--storage.tsdb.path=data", "--log.level=warn"]);
            command.arg(format!("--web.listen-address={addr}"));
        });
        let prometheus = Prometheus { addr, _process: process };
        eventually("Prometheus to have scraped everything", START, || {
            let up = prometheus.ask("sum(up)").ok()?;
            up.first().filter(|sample| sample.value >= targets.len() as f64).map(drop)
        });
        prometheus
    }

    /// Asks for what `expr` is now.
    ///
    /// # Errors
    /// It does not answer, or does not understand.
    pub fn ask(&self, expr: &str) -> Result<Vec<Sample>> {
        let body = self.post("/api/v1/query", &format!("query={}", encoded(expr)))?;
        let answer: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        ensure!(answer["status"] == "success", "{expr}: {}", answer["error"]);
        let samples = answer["data"]["result"].as_array().with_context(|| format!("{expr}: {body}"))?;
        let sample = |found: &Value| {
            let value =
                found["value"][1].as_str().and_then(|text| text.parse().ok()).context("a sample is a number")?;
            Ok(Sample { labels: found["metric"].clone(), value })
        };
        samples.iter().map(sample).collect()
    }

    /// Fails unless each of the queries, with these values of variables, has data within that time.
    pub fn answers(&self, queries: &[Query], variables: &[(&str, &str)], limit: Duration) {
        let empty = queries.iter().filter(|query| !self.has_data(&query.filled(variables), limit));
        let empty: Vec<_> = empty.map(|query| &query.place).collect();
        assert!(empty.is_empty(), "no data for {empty:#?}");
    }

    /// Waits until `expr` has a number.
    pub fn has_data(&self, expr: &str, limit: Duration) -> bool {
        let data = || self.ask(expr).unwrap_or_else(|error| panic!("{error:#}"));
        until(limit, || data().iter().any(|sample| sample.value.is_finite()).then_some(())).is_some()
    }

    /// Alerts that fire now, as `NAME WORKLOAD`, with what they say.
    pub fn firing(&self) -> BTreeMap<String, String> {
        let body = self.post("/api/v1/alerts", "").unwrap_or_default();
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let told = |alert: &Value| {
            let labels = &alert["labels"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = format!("{} {}", text(&labels["alertname"]), text(&labels["workload"]));
            let annotations = &alert["annotations"];
            (name, format!("{} {}", text(&annotations["summary"]), text(&annotations["description"])))
        };
        alerts.iter().filter(|alert| alert["state"] == "firing").map(told).collect()
    }

    fn post(&self, path: &str, form: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        // HTTP/1.0: the body ends where the connection does, never chunked. A query may come by POST, alerts by GET only.
        let method = if form.is_empty() { "GET" } else { "POST" };
        let kind = "application/x-www-form-urlencoded";
        let length = form.len();
        write!(stream, "{method} {path} HTTP/1.0\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without end of headers")?;
        Ok(body.to_owned())
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => encoded.push(byte.into()),
            other => write!(encoded, "%{other:02X}").expect("strings take everything"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_byte_by_byte() {
        assert_eq!(encoded("up{a=\"é\"} > 1"), "up%7Ba%3D%22%C3%A9%22%7D%20%3E%201");
    }
}
