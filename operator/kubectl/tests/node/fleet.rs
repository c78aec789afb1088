//! What is said of policies, workloads and the installation: `status`, `check`, `lint`.

use serde_json::{Value, json};
use sipwarden_cluster::product::{App, least, too_long};

use crate::{
    PATIENCE, SOON,
    plugin::{plugin, start},
    stage::{Before, HELD_S, Voice, installed, node, site, voice},
};

/// A pod whose port has no name.
const WITHOUT_NAME: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: nameless, namespace: nameless}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: localhost/busybox:dev
    imagePullPolicy: Never
    args: ["-c", "sleep 3600"]
    ports: [{containerPort: 5060, protocol: UDP}]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"#;

#[test]
fn status_tells_policy_hash_steps_and_calls_as_kubernetes_and_the_sidecars_have_them() {
    let Voice { site, .. } = voice();
    let config = site.get("sidecarconfig", "deployment-app").unwrap();
    let hash = config["spec"]["hash"].as_str().unwrap();

    let live = plugin("status -n voice --live -o json");

    assert_eq!(live.code, 0, "{live:?}");
    let row = json!({
        "namespace": "voice", "workload": "deployment/app", "policy": "carrier", "mode": "Enforce", "hash": hash,
        "pods": 2, "injected": 2, "inStep": 2, "stale": 0, "sessions": HELD_S.len(), "wantsSidecar": true, "notes": [],
    });
    assert_eq!(live.json()["workloads"], json!([row]));
    // The operator asks sidecars twice a minute.
    let wait = ["wait", "sidecarconfig/deployment-app", "--for=jsonpath={.status.sessions}=3", "--timeout=90s"];
    site.kubectl(&wait).unwrap();
    let told = plugin("status -n voice");
    assert_eq!(told.code, 0, "{told:?}");
    let words: Vec<&str> = told.out.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(words, ["deployment/app", "carrier", "Enforce", hash, "2", "2", "2", "0", "3"], "{told:?}");
}

#[test]
fn status_and_check_say_why_a_workload_without_a_port_named_sip_has_no_sidecar() {
    site("nameless");
    node().apply(WITHOUT_NAME).unwrap();
    let why = "no container has a port named sip; name the SIP port so";

    let status = plugin("status -n nameless");
    assert_eq!(status.code, 0, "{status:?}");
    status.says(&[&format!("1 pod without a sidecar: {why}")]);
    let check = plugin("check -n nameless");
    assert_eq!(check.code, 1, "{check:?}");
    check.says(&["FAILED   coverage: ", why]);
    let sessions = plugin("sessions -n nameless");
    assert_eq!(sessions.code, 1, "{sessions:?}");
    assert!(sessions.err.contains("`kubectl sipwarden status` tells why"), "{sessions:?}");
}

fn items(answer: &Value) -> &Vec<Value> {
    answer["items"].as_array().expect("a list of findings")
}

#[test]
fn check_says_before_the_installation_what_is_missing_and_afterwards_that_nothing_is() {
    let Before { pre, whole } = installed();
    assert_eq!(pre.code, 0, "{pre:?}");
    let found = pre.json();
    let level = |check: &str| items(&found).iter().find(|item| item["check"] == check).map(|item| &item["level"]);
    assert_eq!((level("api-server"), level("crds")), (Some(&json!("Ok")), Some(&json!("Warn"))), "{found}");
    assert_eq!(level("operator"), None, "what comes later is not asked for");
    assert_eq!(whole.code, 1, "{whole:?}");
    whole.says(&["FAILED   operator: it has no pods; install charts/sipwarden"]);

    voice();
    let pre = plugin("check --pre -o json");
    assert_eq!((pre.code, &pre.json()["ok"]), (0, &json!(true)), "{pre:?}");
    let whole = plugin("check -n voice -o json");
    assert_eq!(whole.code, 0, "{whole:?}");
    let found = whole.json();
    for item in items(&found) {
        assert_eq!(item["level"], "Ok", "{item}");
        let (check, docs) = (item["check"].as_str().unwrap(), item["docs"].as_str().unwrap());
        assert!(docs.starts_with("https://") && docs.ends_with(&format!("/docs/checks.md#{check}")), "{item}");
    }
    let text = plugin("check -n voice");
    assert!(text.out.ends_with(&format!("{} checks: 0 failed, 0 warnings, 0 not known\n", items(&found).len())));
}

#[test]
fn lint_judges_files_as_the_api_server_does() {
    let Voice { site, .. } = voice();
    let folder = tempfile::tempdir().unwrap();
    for (name, spec, why) in [
        ("good", least(300), None),
        ("empty", json!({}), None),
        ("short", json!({ "timers": { "minSE": "10s" } }), Some(("spec.timers.minSE", "is below 90s"))),
        ("typo", json!({ "timers": { "minSe": "90s" } }), Some(("minSe", "unknown field"))),
        ("type", json!({ "mode": 1 }), Some(("spec.mode", "mode"))),
        ("long", too_long(), Some(("spec.rules", "too long by"))),
    ] {
        let path = folder.path().join(format!("{name}.yaml"));
        std::fs::write(&path, site.policy_text("linted", &spec)).unwrap();
        let applied = site.kubectl(&["apply", "--dry-run=server", "-f", path.to_str().unwrap()]);
        let linted = plugin(&format!("lint {}", path.display()));
        match why {
            None => assert_eq!((applied.is_ok(), linted.code), (true, 0), "{name}: {applied:?} {linted:?}"),
            Some((place, words)) => {
                let error = applied.expect_err(name).to_string();
                assert_eq!(linted.code, 1, "{name}: {linted:?}");
                assert!(linted.out.contains(place) && linted.out.contains(words), "{name}: {linted:?}");
                assert!(error.contains(place) && error.contains(words), "{name}: {error}");
            }
        }
    }
}

/// It is there, and says nothing; kubelet lets it live for half a minute.
#[test]
fn a_sidecar_that_does_not_answer_is_named_and_the_others_are_shown() {
    let site = site("silent");
    site.run_under(&least(90), App::Idle, 2).unwrap();
    let pods = site.pods().unwrap();
    let whole = plugin("status -n silent --live");
    assert_eq!(whole.code, 0, "{whole:?}");

    node().signal_container("silent", &pods[0].name, "sipwarden", "SIGSTOP").unwrap();
    let asked =
        ["sessions", "status --live"].map(|question| start(&format!("{question} -n silent --timeout 5 -o json"), None));
    let [sessions, status] = asked.map(|running| running.end(PATIENCE));
    node().signal_container("silent", &pods[0].name, "sipwarden", "SIGCONT").unwrap();

    assert_eq!((sessions.code, status.code), (4, 4), "{sessions:?} {status:?}");
    let silent = json!([{ "namespace": "silent", "pod": pods[0].name, "error": "no answer within 5 s" }]);
    assert_eq!(sessions.json()["silent"], silent);
    let row = &status.json()["workloads"][0];
    assert_eq!((&row["inStep"], &row["stale"]), (&json!(1), &json!(1)), "{row}");
    assert_eq!(row["notes"], json!([format!("{}: no answer within 5 s", pods[0].name)]));
    site.eventually("every answer", SOON, || (plugin("sessions -n silent").code == 0).then_some(())).unwrap();
}
