//! An upgrade of the release with calls up.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sipwarden_cluster::product::{App, NAMESPACE};
use sipwarden_cluster::workspace::{charts, repository};

use crate::{PATIENCE, alone, cluster, least, site};

/// The charts of the newest commit that has others than these, written below `folder`. None where the history holds
/// none: in the first commit of charts, or in a shallow clone.
fn previous_charts(folder: &Path) -> Option<PathBuf> {
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*"]).args(arguments).current_dir(repository());
        git
    };
    let log = git(&["log", "--max-count=2", "--format=%H", "--", "charts/sipwarden", "charts/sipwarden-crds"]).output();
    let commits = String::from_utf8(log.ok()?.stdout).ok()?;
    let differs = |commit: &&str| {
        let paths = ["charts/sipwarden", "charts/sipwarden-crds"];
        git(&[&["diff", "--quiet", commit, "--"], &paths[..]].concat()).status().is_ok_and(|status| !status.success())
    };
    let commit = commits.lines().find(differs)?;
    let mut archive = git(&["archive", commit, "charts"]).stdout(Stdio::piped()).spawn().ok()?;
    let target = folder.join("previous");
    std::fs::create_dir_all(&target).ok()?;
    let tar = Command::new("tar").arg("-x").arg("-C").arg(&target).stdin(archive.stdout.take()?).status();
    (tar.ok()?.success() && archive.wait().ok()?.success()).then(|| target.join("charts"))
}

#[test]
fn the_charts_are_upgraded_with_calls_up() {
    let _alone = alone();
    let cluster = cluster();
    match previous_charts(cluster.scratch()) {
        Some(previous) => {
            println!("from the charts of the commit before");
            cluster.upgrade_crds(&previous).unwrap();
            cluster.upgrade_sipwarden(&previous, &["operator.log=debug"]).unwrap();
        }
        None => {
            println!("from these charts with other values: the history has no others");
            cluster.upgrade_sipwarden(&charts(), &["operator.log=debug"]).unwrap();
        }
    }
    let site = site("upgrade");
    site.run_under(&least(100), App::Sip, 1).unwrap();
    let service = site.service().unwrap();
    let mut call = site.call(1800).unwrap();
    let pods = site.pods().unwrap();

    cluster.upgrade_crds(&charts()).unwrap();
    cluster.upgrade_sipwarden(&charts(), &["operator.log=info"]).unwrap();

    call.check().unwrap();
    assert_eq!(site.pods().unwrap(), pods, "running pods are left alone");
    cluster.call(service, 1800).unwrap().hang_up().unwrap();
    site.policy("carrier", &least(200)).unwrap();
    site.eventually("a change after the upgrade", PATIENCE, || site.refuses_below(200, service)).unwrap();
    call.check().unwrap();
    call.hang_up().unwrap();
    let deployment =
        ["-n", NAMESPACE, "get", "deployment", "sipwarden-operator", "-o", "jsonpath={.status.readyReplicas}"];
    assert_eq!(cluster.kubectl(&deployment).unwrap(), "2");
}
