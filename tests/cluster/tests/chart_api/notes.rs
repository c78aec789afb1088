//! What Helm says after an installation can be done as it says.

use std::path::Path;

use serde_json::{Value, json};
use sipwarden_cluster::workspace::repository;
use sipwarden_cluster::{Cluster, tools::Tool};

use crate::{SYSTEM, api, chart, create_namespace, helm, install, kubectl};

/// The commands of notes, each with what it reads up to `POLICY`, and `more` behind those that begin so.
fn commands(notes: &str, more: &[(&str, &str)]) -> Vec<String> {
    let mut lines = notes.lines();
    let mut commands = Vec::new();
    while let Some(line) = lines.next().map(str::trim) {
        if !["kubectl ", "helm "].iter().any(|program| line.starts_with(program)) {
            continue;
        }
        let more = more.iter().filter(|(start, _)| line.starts_with(start)).map(|(_, more)| *more);
        let mut command = std::iter::once(line).chain(more).collect::<Vec<_>>().join(" ");
        if line.ends_with("<<POLICY") {
            let input = lines.by_ref().take_while(|line| *line != "POLICY");
            command.extend(input.chain(["POLICY"]).map(|line| format!("\n{line}")));
        }
        commands.push(command);
    }
    commands
}

/// What it prints; it has to end well.
fn run(api: &Cluster, command: &str) -> String {
    let mut shell = api.command(Path::new("bash"));
    let programs = [Tool::Kubectl, Tool::Helm].map(|tool| tool.ensure().expect("a program"));
    let folders = programs.iter().map(|program| program.parent().expect("it is in a folder").to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path))).expect("folders without colons");
    shell.args(["-euc", command]).env("PATH", path).current_dir(repository());
    let output = shell.output().expect("bash runs");
    let [told, fault] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command}\n{told}{fault}");
    told
}

#[test]
fn what_the_notes_of_the_operator_say_opts_a_namespace_in() {
    let api = api();
    install(api, "noted", &[]);
    let commands = commands(&helm(api, &["get", "notes", "noted", "--namespace", SYSTEM]), &[]);
    assert_eq!(commands.len(), 4, "{commands:?}");
    create_namespace(api, "voice", json!({}));
    kubectl(api, &["create", "deployment", "pbx", "--namespace", "voice", "--image", "pbx", "--replicas", "0"]);
    let told: Vec<String> = commands.iter().map(|command| run(api, command)).collect();
    assert!(told[3].contains("sessionpolicy.sipwarden.dev/carrier"), "{told:?}");

    let object = |kind: &str, name: &str| -> Value {
        let text = kubectl(api, &["get", kind, name, "--namespace", "voice", "--output", "json"]);
        serde_json::from_str(&text).expect("kubectl prints JSON")
    };
    let labels = &object("namespace", "voice")["metadata"]["labels"];
    assert_eq!((&labels["sipwarden.dev/inject"], &labels["sipwarden.dev/rev"]), (&json!("enabled"), &json!("noted")));
    assert_eq!(object("sessionpolicy", "carrier")["spec"]["mode"], "Observe");
    let restarted = &object("deployment", "pbx")["spec"]["template"]["metadata"]["annotations"];
    assert!(restarted["kubectl.kubernetes.io/restartedAt"].is_string(), "{restarted}");
}

#[test]
fn what_the_notes_of_the_definitions_say_explains_them_and_leads_to_the_operator() {
    let api = api();
    let notes = helm(api, &["install", "noted-crds", &chart("sipwarden-crds"), "--dry-run=client"]);
    let (_, notes) = notes.split_once("\nNOTES:\n").expect("notes");
    // Names of another revision than those that are there; and nothing is kept.
    let commands = commands(notes, &[("helm install", "--dry-run=server --set revision=by-notes")]);
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(run(api, &commands[0]).contains("podSelector"));
    let installed = run(api, &commands[1]);
    assert!(installed.contains("kubectl label namespace voice sipwarden.dev/inject=enabled"), "{installed}");
    assert!(!installed.contains("The kinds of sipwarden are missing"), "{installed}");
}
