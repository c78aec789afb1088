//! The program `sipwarden-cluster`: a node that is left up for a person. In a directory of the test's own, so that a
//! node that a person has up stays as it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use sipwarden_cluster::product::repository;
use sipwarden_cluster::wait::eventually;

/// A directory for runs; what is up in it ends with the test.
struct Runs(PathBuf);

impl Runs {
    fn new() -> Runs {
        let path = std::env::temp_dir().join(format!("sipwarden-cli-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Runs(path)
    }

    fn cluster(&self, command: &str) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sipwarden-cluster"));
        program.arg(command).env("TMPDIR", &self.0).output().expect("the program is built")
    }

    /// In a shell that takes the environment of the node, as told.
    fn shell(&self, folder: &Path, commands: &str) -> Output {
        let environment = printed(&self.cluster("env"));
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &format!("{environment}\n{commands}")]).current_dir(folder);
        shell.output().expect("there is a shell")
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.cluster("down");
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_node_stays_up_until_it_is_taken_down() {
    let runs = Runs::new();
    assert!(printed(&runs.cluster("status")).contains("No cluster is up"));

    let told = printed(&runs.cluster("up"));
    assert!(told.contains("kubectl get pods -A"), "{told}");
    assert!(!runs.cluster("up").status.success(), "there is one node at most");

    assert!(printed(&runs.shell(&runs.0, "kubectl get nodes -o name && helm list")).contains("node/node"));
    assert!(printed(&runs.cluster("status")).contains("coredns"));

    the_quick_start_of_the_readme_works(&runs);

    printed(&runs.cluster("down"));
    assert!(printed(&runs.cluster("status")).contains("No cluster is up"));
    let left = std::fs::read_dir(runs.0.join("sipwarden-cluster-0")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["lock"]);
}

/// Word for word, with the application that is there to try it, in a folder with what the words name.
fn the_quick_start_of_the_readme_works(runs: &Runs) {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README is there");
    let folder = runs.0.join("quick-start");
    std::fs::create_dir(&folder).expect("a directory can be made");
    std::os::unix::fs::symlink(repository().join("charts"), folder.join("charts")).expect("a link can be made");
    let policy = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    std::fs::write(folder.join("policy.yaml"), policy.expect("README has a policy")).expect("the folder is ours");
    let section = readme.split("\n## On Kubernetes\n").nth(1).expect("README has the section");
    let commands = section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("it has commands");
    assert!(commands.contains("helm") && commands.contains("kubectl rollout restart"), "{commands}");

    let application = repository().join("tests/cluster/voice.yaml");
    printed(&runs.shell(&folder, &format!("kubectl apply -f {}", application.display())));
    let (install, use_it) = commands.split_at(commands.find("kubectl label").expect("the namespace is labelled"));
    printed(&runs.shell(&folder, install));
    await_injection(runs);
    let told = printed(&runs.shell(&folder, use_it));

    assert!(told.contains("carrier"), "{told}");
    printed(&runs.shell(&folder, "kubectl -n voice rollout status deployment/uas --timeout=120s"));
    let sidecars = "kubectl -n voice get pods -o jsonpath='{.items[*].spec.initContainers[*].name}'";
    let injected = || (printed(&runs.shell(&folder, sidecars)).trim() == "sipwarden sipwarden").then_some(());
    eventually("sidecars in both pods", Duration::from_secs(60), injected).expect("it comes true in time");
    let ready = "kubectl -n voice wait sessionpolicy/carrier --for=condition=Ready --timeout=60s";
    printed(&runs.shell(&folder, ready));
}

/// A person types more slowly than kube-proxy and the API server come to know the webhook.
fn await_injection(runs: &Runs) {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: probe, namespace: probe}\nspec:\n  containers:\n  \
               - {name: app, image: app, ports: [{name: sip, containerPort: 5060, protocol: UDP}]}\n";
    std::fs::write(runs.0.join("probe.yaml"), pod).expect("the folder is ours");
    let namespace = "kubectl create namespace probe && kubectl label namespace probe sipwarden.dev/inject=enabled";
    printed(&runs.shell(&runs.0, namespace));
    let ask = "kubectl create -f probe.yaml --dry-run=server -o jsonpath='{.spec.initContainers[*].name}'";
    let injects = || (String::from_utf8_lossy(&runs.shell(&runs.0, ask).stdout) == "sipwarden").then_some(());
    eventually("the webhook to inject", Duration::from_secs(60), injects).expect("it comes true in time");
    printed(&runs.shell(&runs.0, "kubectl delete namespace probe --wait=false"));
}
