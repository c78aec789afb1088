//! The documentation as its tests see it: pages with their commands, files, links and anchors, and where commands run.

pub mod decisions;
mod page;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

pub use page::{Block, Link, Mark, Page, Picture, slug};
pub use run::{Place, Runner, Step, tells};
use sipwarden_cluster::workspace::repository;

/// All pages whose commands are run, in the order in which they are: each finds what the ones before it left.
pub fn pages() -> Vec<Page> {
    let first = ["docs/getting-started.md", "docs/kubernetes.md"].map(PathBuf::from);
    // The policy of the README selects all pods of the namespace: those of recipes would be in conflict with it.
    let more = ["README.md", "charts/sipwarden-crds/README.md", "charts/sipwarden/README.md", RUNBOOK];
    let more = more.map(PathBuf::from);
    let mut all = first.to_vec();
    all.extend(markdown_in("docs").into_iter().filter(|path| !first.contains(path)));
    all.extend(more);
    all.iter().map(|path| Page::read(path)).collect()
}

/// Pages for those who work on the code: their links are followed, their commands are known to exist.
pub fn pages_for_developers() -> Vec<Page> {
    ["ARCHITECTURE.md", "CONTRIBUTING.md"].iter().map(|path| Page::read(Path::new(path))).collect()
}

const RUNBOOK: &str = "charts/sipwarden/files/alerts/RUNBOOK.md";

/// Paths of the Markdown files in a folder of the repository and below it, sorted.
fn markdown_in(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(repository().join(&folder)).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for entry in entries.map(|entry| entry.expect("a readable folder")) {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
