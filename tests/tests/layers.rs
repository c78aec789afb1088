//! Who may use whom, as ARCHITECTURE.md says: read from the manifests, so that a new arrow has to be argued there.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// What each of our crates may use of ours, apart from tests.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("sipwarden-sip", &[]),
    ("sipwarden-session-timer", &["sipwarden-sip"]),
    ("sipwarden-shard", &["sipwarden-sip", "sipwarden-session-timer"]),
    ("sipwarden-crds", &[]),
    ("sipwarden-otlp", &[]),
    (
        "sipwarden-sidecar",
        &["sipwarden-sip", "sipwarden-session-timer", "sipwarden-shard", "sipwarden-crds", "sipwarden-otlp"],
    ),
    ("sipwarden-operator", &["sipwarden-crds", "sipwarden-otlp"]),
    ("kubectl-sipwarden", &["sipwarden-crds", "sipwarden-operator"]),
];

/// What must not be among everything that comes with the sidecar: a client of Kubernetes, and HTTP/2, which would be an eighth of it.
const FOREIGN_TO_THE_SIDECAR: [&str; 3] = ["h2", "kube-client", "kube-runtime"];

/// What the sans-IO crates must not depend on directly.
const IO: [&str; 5] = ["tokio", "mio", "socket2", "nix", "rand"];

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// Direct dependencies of each of our packages, dev-dependencies aside.
fn direct_dependencies(package: &str) -> BTreeSet<String> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"]))
            .expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages.iter().find(|candidate| candidate["name"] == package).expect("our package");
    let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"] != "dev")
        .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn each_crate_uses_only_the_layers_below_it() {
    for (package, allowed) in ALLOWED {
        let ours: BTreeSet<String> =
            direct_dependencies(package).into_iter().filter(|name| name.contains("sipwarden")).collect();
        let allowed: BTreeSet<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(ours, allowed, "{package}");
    }
}

#[test]
fn the_wire_the_core_and_the_shard_depend_on_no_io() {
    for package in ["sipwarden-sip", "sipwarden-session-timer", "sipwarden-shard"] {
        for name in direct_dependencies(package) {
            assert!(!IO.contains(&name.as_str()), "{package} uses {name}");
        }
    }
}

#[test]
fn the_sidecar_holds_no_kubernetes_client_and_no_http_2() {
    let tree = cargo(&["tree", "--offline", "-p", "sipwarden-sidecar", "-e", "normal", "--prefix", "none"]);
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("sipwarden-crds"), "the tree is that of the sidecar");
    for foreign in FOREIGN_TO_THE_SIDECAR {
        assert!(!names.contains(foreign), "{foreign} comes with the sidecar");
    }
}
