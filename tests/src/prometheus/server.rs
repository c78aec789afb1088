//! A real Prometheus (Debian's) in a directory of its own, on a loopback port of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::ports::{LOOPBACK, free};
use crate::process::Process;
use crate::prometheus::reference::scrape_config;
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
    workload: String,
}

/// Gives every scrape this text, for as long as the test lives.
pub fn serve(text: String) -> SocketAddr {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("loopback has a free TCP port");
    let addr = listener.local_addr().expect("a bound socket has an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok).find(String::is_empty);
            let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n{text}");
            // A scrape that is gone is Prometheus's to tell.
            let _ = head.map(|_| (&stream).write_all(answer.as_bytes()));
        }
    });
    addr
}

/// An instant of one series.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Value,
    pub value: f64,
}

impl Target {
    /// A pod of this Deployment in the namespace `voice`.
    pub fn new(addr: SocketAddr, workload: &str) -> Target {
        Target { addr, workload: workload.to_owned() }
    }

    /// With the labels that Prometheus finds at a pod in Kubernetes.
    fn config(&self) -> Value {
        let replica_set = format!("{}-7d9f8b6c54", self.workload);
        json!({
            "targets": [self.addr.to_string()],
            "labels": {
                "__meta_kubernetes_namespace": "voice",
                "__meta_kubernetes_pod_container_name": "sipwarden",
                "__meta_kubernetes_pod_container_port_name": "sipwarden-http",
                "__meta_kubernetes_pod_controller_kind": "ReplicaSet",
                "__meta_kubernetes_pod_controller_name": replica_set,
                "__meta_kubernetes_pod_label_sipwarden_dev_sidecar": "injected",
                "__meta_kubernetes_pod_name": format!("{replica_set}-x2x4q"),
                "__meta_kubernetes_pod_phase": "Running",
            },
        })
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
            let targets: Vec<_> = targets.iter().map(Target::config).collect();
            let config = json!({
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": ["rules-*.yaml"],
                "scrape_configs": [{
                    "job_name": "sidecars",
                    "static_configs": targets,
                    "relabel_configs": scrape_config()["relabel_configs"],
                }],
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
