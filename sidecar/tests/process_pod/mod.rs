//! As in a pod: the config in a volume that changes as kubelet changes it, the last good one, and the status interface.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use sipwarden_crds::{SidecarConfig, file, to_annotation};
use tempfile::TempDir;

use crate::process_harness::{Options, Sidecar, eventually, http};

const POLICY: &str = "\
apiVersion: sipwarden.dev/v1alpha1
kind: SessionPolicy
metadata: {name: carrier, generation: 3}
spec: {mode: Enforce, timers: {sessionExpires: 10m}}
";

/// What an injected container has mounted.
struct Mounts {
    directory: TempDir,
    written: usize,
}

impl Mounts {
    fn new() -> Mounts {
        let mounts = Mounts { directory: tempfile::tempdir().expect("a directory"), written: 0 };
        for name in ["pod", "state", "credentials"] {
            std::fs::create_dir(mounts.path(name)).expect("made");
        }
        mounts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            policy: Some(self.path("pod/config")),
            last_good: Some(self.path("state/last-good.json")),
            credentials_dir: self.path("credentials"),
            ..Options::default()
        }
    }

    /// The annotation as the downward API shows it.
    fn annotate(&mut self, text: &str) {
        let pod = self.path("pod");
        self.write_volume(&pod, &[("config", text)]);
    }

    /// As kubelet's atomic writer: the new files in a directory of their own, to which a link is swapped.
    fn write_volume(&mut self, volume: &Path, files: &[(&str, &str)]) {
        self.written += 1;
        let data = volume.join("..data");
        let old = std::fs::read_link(&data).ok();
        let new = format!("..2026_11_21_{:04}", self.written);
        std::fs::create_dir_all(volume.join(&new)).expect("made");
        for (name, text) in files {
            std::fs::write(volume.join(&new).join(name), text).expect("written");
        }
        symlink(&new, volume.join("..data_tmp")).expect("linked");
        std::fs::rename(volume.join("..data_tmp"), data).expect("swapped");
        for (name, _) in files {
            // Made with the first content, it points into whatever the data are.
            let _ = symlink(Path::new("..data").join(name), volume.join(name));
        }
        if let Some(old) = old {
            std::fs::remove_dir_all(volume.join(old)).expect("removed");
        }
    }
}

fn config(interval: &str) -> SidecarConfig {
    file::load(&POLICY.replace("10m", interval)).expect("a policy").into_config()
}

fn annotation(config: &SidecarConfig) -> String {
    to_annotation("deployment-asterisk", config)
}

async fn status(sidecar: &Sidecar) -> Value {
    serde_json::from_str(&http(sidecar.status, "GET", "/status", "").await.1).expect("JSON")
}

async fn has_metric(sidecar: &Sidecar, line: &str) -> bool {
    http(sidecar.status, "GET", "/metrics", "").await.1.lines().any(|found| found == line)
}

#[tokio::test]
async fn a_pod_that_nobody_configured_observes_until_its_annotation_comes() {
    let mut mounts = Mounts::new();
    mounts.annotate("");
    let sidecar = Sidecar::start(mounts.options()).await;
    let first = status(&sidecar).await;
    for (field, value) in [("policy", "built-in"), ("source", "BuiltIn"), ("mode", "Observe")] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!((&first["generation"], &first["error"]), (&0.into(), &Value::Null), "{first}");
    assert_eq!(http(sidecar.status, "GET", "/readyz", "").await.0, 200);

    let config = config("10m");
    mounts.annotate(&annotation(&config));
    eventually("the annotation is obeyed", async || status(&sidecar).await["source"] == "File").await;
    let obeyed = status(&sidecar).await;
    assert_eq!((&obeyed["hash"], &obeyed["generation"]), (&config.hash.as_str().into(), &3.into()), "{obeyed}");
    assert_eq!((&obeyed["policy"], &obeyed["sessions"]), (&"carrier".into(), &0.into()), "{obeyed}");
    assert!(obeyed["ageS"].as_f64().expect("a number") < 10.0, "{obeyed}");
    let info = format!(
        r#"sipwarden_policy_info{{generation="3",hash="{}",mode="Enforce",name="carrier",source="File"}} 1"#,
        config.hash
    );
    assert!(has_metric(&sidecar, &info).await);
    let kept = std::fs::read_to_string(mounts.path("state/last-good.json")).expect("kept");
    assert_eq!(file::load(&kept).expect("a config").into_config(), config);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_config_whose_directory_comes_later_is_found() {
    let mounts = Mounts::new();
    let path = mounts.path("later/config");
    let sidecar = Sidecar::start(Options { policy: Some(path.clone()), ..mounts.options() }).await;
    assert_eq!(status(&sidecar).await["source"], "BuiltIn", "it has looked already");
    std::fs::create_dir(mounts.path("later")).expect("made");
    std::fs::write(path, annotation(&config("10m"))).expect("written");
    eventually("it is obeyed", async || status(&sidecar).await["source"] == "File").await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_swap_of_the_volume_is_obeyed_within_100_ms() {
    let mut mounts = Mounts::new();
    mounts.annotate(&annotation(&config("10m")));
    let sidecar = Sidecar::start(mounts.options()).await;
    let mut took = Vec::new();
    for minutes in 11..=15 {
        let config = config(&format!("{minutes}m"));
        let start = Instant::now();
        mounts.annotate(&annotation(&config));
        eventually("it is obeyed", async || status(&sidecar).await["hash"] == config.hash.as_str()).await;
        took.push(start.elapsed());
    }
    // Whatever else runs on this machine can only make it slower.
    let fastest = took.iter().min().expect("some");
    assert!(*fastest < Duration::from_millis(100), "{took:?}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_bad_annotation_changes_nothing_and_is_told_also_after_a_restart() {
    let mut mounts = Mounts::new();
    let good = config("10m");
    mounts.annotate(&annotation(&good));
    let sidecar = Sidecar::start(mounts.options()).await;
    mounts.annotate(&annotation(&good).replace("10m", "10 minutes"));
    eventually("it is refused", async || has_metric(&sidecar, "sipwarden_policy_problems 1").await).await;
    let refused = status(&sidecar).await;
    assert_eq!((&refused["hash"], &refused["source"]), (&good.hash.as_str().into(), &"File".into()), "{refused}");
    assert!(refused["error"].as_str().expect("an error").contains("spec.timers.sessionExpires"), "{refused}");
    assert!(has_metric(&sidecar, r#"sipwarden_policy_reloads_total{result="Refused"} 1"#).await);
    sidecar.stop().await;

    let sidecar = Sidecar::start(mounts.options()).await;
    let after = status(&sidecar).await;
    assert_eq!((&after["hash"], &after["source"]), (&good.hash.as_str().into(), &"LastGood".into()), "{after}");
    assert!(after["error"].is_string(), "{after}");
    assert!(has_metric(&sidecar, r#"sipwarden_policy_reloads_total{result="Refused"} 1"#).await);

    mounts.annotate(&annotation(&config("20m")));
    eventually("a good one is obeyed", async || status(&sidecar).await["source"] == "File").await;
    assert_eq!(status(&sidecar).await["error"], Value::Null);
    assert!(has_metric(&sidecar, "sipwarden_policy_problems 0").await);
    sidecar.stop().await;
}

#[tokio::test]
async fn an_annotation_that_is_taken_away_leaves_the_policy_in_force() {
    let mut mounts = Mounts::new();
    let config = config("10m");
    mounts.annotate(&annotation(&config));
    let sidecar = Sidecar::start(mounts.options()).await;
    mounts.annotate("");
    eventually("it is noticed", async || status(&sidecar).await["source"] == "LastGood").await;
    let after = status(&sidecar).await;
    assert_eq!((&after["hash"], &after["error"]), (&config.hash.as_str().into(), &Value::Null), "{after}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_new_generation_that_reads_the_same_is_told() {
    let mut mounts = Mounts::new();
    let config = config("10m");
    mounts.annotate(&annotation(&config));
    let sidecar = Sidecar::start(mounts.options()).await;
    mounts.annotate(&annotation(&SidecarConfig { generation: 4, ..config }));
    eventually("it is told", async || status(&sidecar).await["generation"] == 4).await;
    assert!(has_metric(&sidecar, "sipwarden_policy_generation 4").await);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_secret_that_comes_later_is_read_and_its_password_shown_nowhere() {
    let mut mounts = Mounts::new();
    mounts.annotate(&annotation(&config("10m, credentials: {secretName: trunk-a}")));
    let sidecar = Sidecar::start(mounts.options()).await;
    let missing = status(&sidecar).await;
    assert_eq!(missing["source"], "File", "{missing}");
    assert!(missing["error"].as_str().expect("an error").contains("trunk-a/username does not exist"), "{missing}");

    let secret = mounts.path("credentials/trunk-a");
    std::fs::create_dir(&secret).expect("made");
    mounts.write_volume(&secret, &[("username", "alice"), ("password", "hunter2")]);
    eventually("the Secret is read", async || status(&sidecar).await["error"].is_null()).await;
    for path in ["/status", "/config", "/metrics"] {
        let (code, text) = sidecar.get(path).await;
        assert_eq!(code, 200);
        assert!(!text.contains("hunter2") && !text.contains("alice"), "{text}");
    }
    assert!(sidecar.get("/config").await.1.contains("trunk-a"), "the name of the Secret is no secret");
    sidecar.stop().await;
}

#[tokio::test]
async fn the_status_interface_shows_no_call_and_changes_nothing() {
    let mut mounts = Mounts::new();
    mounts.annotate(&annotation(&config("10m")));
    let sidecar = Sidecar::start(mounts.options()).await;
    let ask = async |method: &str, path: &str| http(sidecar.status, method, path, "").await;
    for (path, text) in [("/livez", "ok\n"), ("/readyz", "ready\n")] {
        assert_eq!(ask("GET", path).await, (200, text.to_owned()));
    }
    let shown: Value = serde_json::from_str(&ask("GET", "/config").await.1).expect("JSON");
    assert_eq!(shown["config"]["timers"]["sessionExpires"], "10m", "{shown}");
    assert_eq!((&shown["source"], &shown["workers"]), (&"File".into(), &1.into()), "{shown}");
    for (method, path) in [
        ("GET", "/sessions"),
        ("GET", "/sessions/0-1"),
        ("POST", "/sessions/0-1/end"),
        ("POST", "/sessions/0-1/refresh"),
        ("PUT", "/log-filter"),
    ] {
        assert_eq!(ask(method, path).await.0, 404, "{method} {path}");
    }
    for path in ["/livez", "/readyz", "/metrics", "/status", "/config"] {
        assert_eq!(ask("POST", path).await.0, 405, "{path}");
        assert_eq!(sidecar.get(path).await.0, 200, "the admin interface has {path} too");
    }

    let pending = sidecar.readiness.guard("certificates");
    assert_eq!(ask("GET", "/readyz").await, (503, "pending: certificates\n".to_owned()));
    assert_eq!(ask("GET", "/livez").await.0, 200);
    drop(pending);
    sidecar.stop().await;
}
