//! The NetworkPolicy against what the programs listen on and ask for. Nothing here obeys it.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use serde_json::{Value, json};
use sipwarden_cluster::Cluster;
use sipwarden_cluster::workspace::charts;
use sipwarden_operator::cli::{Cli, Command, RunArgs};
use sipwarden_operator::inject::names;

use crate::{SYSTEM, api, chart, helm};

/// The one object of a template, with every switch on.
fn rendered(api: &Cluster, template: &str) -> Value {
    let values = charts().join("cases/sipwarden/everything.yaml").display().to_string();
    let only = format!("templates/{template}.yaml");
    let arguments = ["template", "sipwarden", &chart("sipwarden"), "--namespace", SYSTEM, "--values", &values];
    let text = helm(api, &[&arguments[..], &["--show-only", &only]].concat());
    let file = api.scratch().join(format!("{template}.yaml"));
    std::fs::write(&file, text).expect("a file in the cluster's directory");
    let file = file.display().to_string();
    let json = crate::kubectl(api, &["create", "--dry-run=client", "--output", "json", "--filename", &file]);
    serde_json::from_str(&json).expect("one object")
}

fn operator_arguments(container: &Value) -> RunArgs {
    let arguments = container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    match Cli::parse_from(std::iter::once("sipwarden-operator").chain(arguments)).command {
        Command::Run(arguments) => *arguments,
        Command::Lint { .. } => panic!("it runs"),
    }
}

/// The ports of a rule, with the protocol.
fn ports(rule: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    let ports = rule["ports"].as_array().expect("each rule names its ports");
    ports.iter().map(|port| (text(&port["port"]), protocol(port))).collect()
}

fn tcp<const N: usize>(ports: [&str; N]) -> BTreeSet<(String, String)> {
    ports.map(|port| (port.to_owned(), "TCP".to_owned())).into()
}

#[test]
fn the_network_policy_lets_through_what_the_operator_listens_on_and_asks_for_and_nothing_else() {
    let api = api();
    let [policy, deployment] = ["networkpolicy", "deployment"].map(|template| rendered(api, template));
    assert_eq!(policy["spec"]["podSelector"], deployment["spec"]["selector"], "the operator's pods");
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let arguments = operator_arguments(container);

    let listened: BTreeMap<&str, u64> = container["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| (port["name"].as_str().expect("a name"), port["containerPort"].as_u64().expect("a number")))
        .collect();
    let [webhook, http] = [arguments.webhook_listen, arguments.http].map(|address| u64::from(address.port()));
    assert_eq!(listened, [("webhook", webhook), ("http", http)].into());
    let ingress = policy["spec"]["ingress"].as_array().expect("rules");
    assert_eq!(ingress.iter().map(ports).collect::<Vec<_>>(), [tcp(["webhook"]), tcp(["http"])]);
    assert_eq!(ingress[0]["from"], Value::Null, "the API server may come from anywhere");
    let monitoring = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}});
    assert_eq!(ingress[1]["from"], json!([monitoring]));

    let collector = arguments.otlp.expect("a collector").to_string();
    let collector = collector.rsplit(':').next().expect("a port");
    let status = arguments.status_port.to_string();
    assert_eq!(i32::from(arguments.status_port), names::STATUS_PORT, "where sidecars answer");
    let mut general = tcp(["53", "16443"]);
    general.insert(("53".to_owned(), "UDP".to_owned()));
    let egress = policy["spec"]["egress"].as_array().expect("rules");
    assert_eq!(egress.iter().map(ports).collect::<Vec<_>>(), [general, tcp([&status]), tcp([collector])]);
    let sidecars = json!({"matchLabels": {names::SIDECAR: names::SIDECAR_INJECTED}});
    assert_eq!(egress[1]["to"], json!([{"namespaceSelector": {}, "podSelector": sidecars}]));
}
