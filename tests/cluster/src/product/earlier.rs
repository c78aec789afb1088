//! Charts to upgrade from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where there is no history: these of an earlier commit, as `git archive` gives them. A release will do as well.
const KEPT: &[u8] = include_bytes!("charts-02031ec.tgz");
const KEPT_ORIGIN: &str = "commit 02031ec, kept as an archive because the history has no charts but these";
const CHARTS: [&str; 2] = ["charts/sipwarden", "charts/sipwarden-crds"];

/// Charts that are not those of this tree.
pub struct EarlierCharts {
    /// The folder of the charts.
    pub folder: PathBuf,
    /// Whose they were.
    pub origin: String,
}

impl EarlierCharts {
    /// Writes below `folder` the charts of the newest commit that has others than the tree of `repository`; where the
    /// history has none, as in a shallow clone, those that are kept for that.
    pub fn write(repository: &Path, folder: &Path) -> Result<EarlierCharts> {
        let (archive, origin) = match newest_commit_with_others(repository) {
            Some(commit) => {
                let archive = git(repository, &["archive", "--format=tar.gz", &commit, "charts"])?;
                (archive, format!("commit {commit}"))
            }
            None => (KEPT.to_vec(), KEPT_ORIGIN.to_owned()),
        };
        fs::create_dir_all(folder).context("cannot make a folder for the charts")?;
        let file = folder.join("charts.tgz");
        fs::write(&file, archive).context("cannot write the charts")?;
        let mut tar = Command::new("tar");
        let status = tar.arg("-xzf").arg(&file).arg("-C").arg(folder).status().context("cannot run tar")?;
        ensure!(status.success(), "tar cannot read {}", file.display());
        Ok(EarlierCharts { folder: folder.join("charts"), origin })
    }
}

/// Of the last two commits of the charts one has others, unless the history ends before it.
fn newest_commit_with_others(repository: &Path) -> Option<String> {
    let log = git(repository, &[&["log", "--max-count=2", "--format=%H", "--"], &CHARTS[..]].concat()).ok()?;
    let log = String::from_utf8(log).ok()?;
    let differs = |commit: &&str| git(repository, &[&["diff", "--quiet", commit, "--"], &CHARTS[..]].concat()).is_err();
    log.lines().find(differs).map(str::to_owned)
}

fn git(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "-C"]).arg(repository).args(arguments);
    let output = git.output().context("cannot run git")?;
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::charts;

    const FILE: &str = "charts/sipwarden/values.yaml";

    fn commit(repository: &Path, values: &str) {
        fs::create_dir_all(repository.join("charts/sipwarden")).unwrap();
        fs::write(repository.join(FILE), values).unwrap();
        git(repository, &["add", "."]).unwrap();
        let author = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        git(repository, &[&author, &["commit", "--quiet", "--message", values][..]].concat()).unwrap();
    }

    #[test]
    fn the_charts_are_those_of_the_commit_before_or_of_a_shallow_clone_the_kept_ones() {
        let folder = std::env::temp_dir().join(format!("sipwarden-charts-{}", std::process::id()));
        let origin = folder.join("origin");
        fs::create_dir_all(&origin).unwrap();
        git(&origin, &["init", "--quiet"]).unwrap();
        for values in ["a: 1", "a: 2", "a: 3"] {
            commit(&origin, values);
        }
        let of_history = |name: &str, values: &str| {
            let earlier = EarlierCharts::write(&origin, &folder.join(name)).unwrap();
            assert_eq!(fs::read_to_string(earlier.folder.join("sipwarden/values.yaml")).unwrap(), values);
            assert!(earlier.origin.starts_with("commit ") && !earlier.origin.contains("kept"), "{}", earlier.origin);
        };
        of_history("clean", "a: 2");
        fs::write(origin.join(FILE), "a: 4").unwrap();
        of_history("changed", "a: 3");

        let url = format!("file://{}", origin.display());
        git(&folder, &["clone", "--quiet", "--depth", "1", &url, "shallow"]).unwrap();
        for (name, repository) in [("of-shallow", folder.join("shallow")), ("of-none", folder.join("no-repository"))] {
            let earlier = EarlierCharts::write(&repository, &folder.join(name)).unwrap();
            assert_eq!(earlier.origin, KEPT_ORIGIN);
            let mut diff = Command::new("diff");
            diff.arg("-rq").arg(earlier.folder.join("sipwarden")).arg(charts().join("sipwarden"));
            assert_eq!(diff.output().unwrap().status.code(), Some(1), "nothing would be upgraded");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
