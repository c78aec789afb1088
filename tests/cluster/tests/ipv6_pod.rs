//! What is injected into a pod, started as the kubelet would start it where the pod has an IPv6 address only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, id};

use serde_json::{Value, json};
use sipwarden_cluster::workspace::built;
use sipwarden_crds::{SessionPolicy, compile, to_annotation};
use sipwarden_operator::inject::{NamespaceFacts, Settings, inject};

/// The pod's address in a network that has nothing but loopback.
const POD_IP: &str = "::1";
/// `$1` is the sidecar's program, `$2` where the application listens; the rest are the sidecar's arguments.
const POD: &str = r#"
set -eu
ip link set lo up
program=$1 app=$2
shift 2
"$program" answer --listen "udp:$app" &
"$program" "$@" &
for try in $(seq 100); do
    curl --silent --fail "http://[::1]:8643/readyz" && break || sleep 0.1
done
curl --silent --show-error --fail http://127.0.0.1:8643/livez
"$program" call "udp:[::1]:15060" --uri sip:600@pbx.example.com
"#;

/// What the sidecar of a pod is started with, with its files below `root`.
fn sidecar_arguments(app_address: &str, root: &Path) -> Vec<String> {
    let pod = json!({
        "metadata": { "name": "pbx", "annotations": { "sipwarden.dev/app-address": app_address } },
        "spec": { "containers": [
            { "name": "pbx", "ports": [{ "name": "sip", "containerPort": 5060, "protocol": "UDP" }] },
        ] },
    });
    let settings = Settings::new("default", "localhost/sipwarden:dev");
    let typed = serde_json::from_value(pod.clone()).expect("a pod");
    let injection = inject(&typed, &NamespaceFacts::selected_for("default"), &settings, None);
    let mut injected = pod;
    json_patch::patch(&mut injected, &injection.expect("it can have a sidecar").patch).expect("a patch of the pod");
    let sidecar = &injected["spec"]["initContainers"][0];
    assert_eq!(sidecar["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "status.podIP");
    let arguments = sidecar["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    // The kubelet puts an IPv6 address there without brackets.
    let arguments = arguments.map(|text| text.replace("$(POD_IP)", POD_IP));
    arguments.map(|text| if text.starts_with('/') { format!("{}{text}", root.display()) } else { text }).collect()
}

/// The pod's files: a policy that enforces.
fn files(name: &str) -> PathBuf {
    let root = std::env::temp_dir().join(format!("sipwarden-ipv6-{name}-{}", id()));
    for folder in ["etc/sipwarden/pod", "var/lib/sipwarden"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let config = compile(&SessionPolicy::new("carrier", Default::default())).expect("the default policy is valid");
    fs::write(root.join("etc/sipwarden/pod/config"), to_annotation("pod-pbx", &config)).expect("a file");
    root
}

fn run(app_address: &str, app: &str) -> Output {
    let program = built("sipwarden-sidecar").expect("the sidecar");
    let root = files(app_address);
    let mut pod = Command::new("unshare");
    pod.args(["--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", POD, "pod"]);
    pod.arg(program).arg(app).args(sidecar_arguments(app_address, &root));
    let output = pod.output().expect("unshare runs");
    fs::remove_dir_all(root).expect("the folder is ours");
    output
}

#[test]
fn calls_come_in_and_probes_are_answered() {
    for (app_address, app) in [("Loopback", "127.0.0.1:5060"), ("PodIP", "[::1]:5060")] {
        let Output { status, stdout, stderr } = run(app_address, app);
        let [told, log] = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(status.success(), "{app_address}: {told}{log}");
    }
}
