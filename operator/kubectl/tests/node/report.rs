//! The archive that is sent to whoever helps.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    plugin::plugin,
    stage::{Voice, node, voice},
};

/// Of the namespace's users, who have no place in the archive.
const PASSWORD: &str = "correct-horse-battery-staple";

fn tar(arguments: &[&str], archive: &Path) -> String {
    let output = Command::new("tar").args(arguments).arg("-f").arg(archive).output().expect("tar is there");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The lines of every private key there is, and the password.
fn secrets() -> Vec<String> {
    let template = r#"go-template={{range .items}}{{range .data}}{{base64decode .}}{{"\n"}}{{end}}{{end}}"#;
    let all = node().kubectl(&["get", "secrets", "--all-namespaces", "-o", template]).expect("kubectl gets an answer");
    let mut secret = Vec::new();
    let mut in_key = false;
    for line in all.lines() {
        in_key = (in_key || line.contains("BEGIN") && line.contains("PRIVATE KEY")) && !line.contains("END");
        secret.extend(Some(line.to_owned()).filter(|line| in_key && !line.contains("BEGIN") || line == PASSWORD));
    }
    secret
}

#[test]
fn a_report_has_what_it_names_and_neither_secrets_nor_users() {
    let Voice { site, held, refused, .. } = voice();
    let metadata = json!({ "name": "trunk", "namespace": "voice" });
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": { "password": PASSWORD } });
    node().apply(&secret.to_string()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("report.tar.gz");

    let told = plugin(&format!("report -n voice --file {} -o json", archive.display()));

    assert_eq!(told.code, 0, "{told:?}");
    let answer = told.json();
    assert_eq!(answer["missing"], json!([]));
    let listed = tar(&["-tz"], &archive);
    let names: Vec<&str> = listed.lines().map(|name| name.split_once('/').expect("a folder").1).collect();
    assert_eq!(json!(names), answer["contents"]);
    for pod in site.pods().unwrap() {
        for file in ["status.json", "config.json", "metrics.txt", "sessions.json", "decisions.json"] {
            assert!(names.contains(&format!("sidecars/voice/{}/{file}", pod.name).as_str()), "{file} in {names:?}");
        }
    }
    let text = tar(&["-xzO"], &archive);
    for part in [refused.as_str(), held[0].id(), "sip:…@caller.example", "sipwarden_operator_leading", "\"carrier\""]
    {
        assert!(text.contains(part), "{part}");
    }
    let secrets = secrets();
    assert!(secrets.len() > 2 && secrets.iter().any(|secret| secret == PASSWORD), "a CA's key is among them");
    for secret in secrets.iter().map(String::as_str).chain(["caller@", "callee@"]) {
        assert!(!text.contains(secret), "{secret}");
    }
    let check: Value = serde_json::from_str(&tar(&["-xzO", "--wildcards", "*/check.json"], &archive)).unwrap();
    assert_eq!(check["ok"], true, "{check}");

    let again = plugin(&format!("report -n voice --file {}", archive.display()));
    assert_eq!(again.code, 2, "a file that is there is not written over: {again:?}");
}
