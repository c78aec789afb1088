//! The program `sipwarden-cluster`: a node that is left up for a person. In a directory of the test's own, so that a
//! node that a person has up stays as it is.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sipwarden_cluster::workspace::repository;

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

    what_up_tells_of_is_there(&runs);

    printed(&runs.cluster("down"));
    assert!(printed(&runs.cluster("status")).contains("No cluster is up"));
    let left = std::fs::read_dir(runs.0.join("sipwarden-cluster-0")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["lock"]);
}

/// The application to try sipwarden with runs, and the image of sipwarden is there by the name that its chart has for it.
fn what_up_tells_of_is_there(runs: &Runs) {
    let run =
        "kubectl apply -f tests/cluster/voice.yaml && kubectl -n voice rollout status deployment/uas --timeout=120s";
    printed(&runs.shell(&repository(), run));
    let deployment = "helm template sipwarden charts/sipwarden --show-only templates/deployment.yaml";
    let rendered = printed(&runs.shell(&repository(), deployment));
    let image = rendered.lines().find_map(|line| line.trim().strip_prefix("image: ")).expect("it has an image");
    let image = image.trim_matches('"');
    let run =
        format!("run told --image={image} --image-pull-policy=Never --restart=Never --command -- /sipwarden-sidecar");
    let ended = "wait --for=jsonpath={.status.phase}=Succeeded pod/told --timeout=60s";
    printed(&runs.shell(&runs.0, &format!("kubectl {run} --version && kubectl {ended}")));
}
