//! The program `sipwarden-cluster`: a node that is left up for a person. In a directory of the test's own, so that a
//! node that a person has up stays as it is.

use std::path::PathBuf;
use std::process::{Command, Output};

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

    // As told: a shell that takes the environment uses the node.
    let environment = printed(&runs.cluster("env"));
    let shell =
        Command::new("sh").arg("-c").arg(format!("{environment}\nkubectl get nodes -o name && helm list")).output();
    assert!(printed(&shell.unwrap()).contains("node/node"));
    assert!(printed(&runs.cluster("status")).contains("coredns"));

    printed(&runs.cluster("down"));
    assert!(printed(&runs.cluster("status")).contains("No cluster is up"));
    let left = std::fs::read_dir(runs.0.join("sipwarden-cluster-0")).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["lock"]);
}
