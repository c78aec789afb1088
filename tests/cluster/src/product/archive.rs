//! The archive of sipwarden's image: where it is, and whether it is of this tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use crate::tools;
use crate::workspace::repository;

/// Names an archive of the image, whatever it was built from.
const VARIABLE: &str = "SIPWARDEN_IMAGE_ARCHIVE";
/// Where `charts/image/build` leaves it.
const FILE: &str = "sipwarden-image.tar";
/// What both programs are built from, within this repository.
const SOURCES: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "sidecar/src",
    "sidecar/sip/src",
    "sidecar/session-timer/src",
    "sidecar/shard/src",
    "crds/src",
    "operator/src",
    "otlp/src",
];

/// What `SIPWARDEN_IMAGE_ARCHIVE` names, else what `charts/image/build` built; an error that says what to run where
/// that is missing, or older than the sources: a test of yesterday's image would prove nothing.
pub fn image_archive() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "{VARIABLE} names {}, which is no file", path.display());
        return Ok(path);
    }
    let path = tools::cache()?.join(FILE);
    let Ok(built) = fs::metadata(&path).and_then(|data| data.modified()) else {
        bail!("no image of sipwarden: run charts/image/build, or name an archive in {VARIABLE}");
    };
    let root = repository();
    let mut newest = None;
    SOURCES.iter().try_for_each(|source| find_newest(&root.join(source), &mut newest))?;
    match newest {
        Some((changed, source)) if changed > built => {
            bail!("{} is older than {}: run charts/image/build", path.display(), source.display())
        }
        _ => Ok(path),
    }
}

/// The same, for who can wait: what is missing or old is built, which takes minutes the first time.
pub fn ensure_image() -> Result<PathBuf> {
    if let Err(reason) = image_archive() {
        eprintln!("{reason}: building it");
        let status = Command::new(repository().join("charts/image/build")).status();
        ensure!(status.context("cannot run charts/image/build")?.success(), "charts/image/build failed; see above");
    }
    image_archive()
}

fn find_newest(path: &Path, newest: &mut Option<(SystemTime, PathBuf)>) -> Result<()> {
    let data = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    if data.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        return entries.into_iter().try_for_each(|entry| find_newest(&entry?.path(), newest));
    }
    let changed = data.modified()?;
    if newest.as_ref().is_none_or(|(other, _)| changed > *other) {
        *newest = Some((changed, path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_of_a_tree_is_found() {
        let folder = std::env::temp_dir().join(format!("sipwarden-newest-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        let hour = |hours: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(hours * 3600);
        for (name, time) in [("a", hour(2)), ("deep/er/b", hour(3)), ("deep/c", hour(1))] {
            let file = fs::File::create(folder.join(name)).unwrap();
            file.set_modified(time).unwrap();
        }

        let mut newest = None;
        find_newest(&folder, &mut newest).unwrap();

        assert_eq!(newest, Some((hour(3), folder.join("deep/er/b"))));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn everything_the_programs_are_built_from_is_looked_at() {
        for source in SOURCES {
            assert!(repository().join(source).exists(), "{source} has moved");
        }
        let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
        let paths = manifest.lines().filter_map(|line| line.split_once("{ path = \"")?.1.split('"').next());
        let ours: Vec<_> = paths.filter(|path| !path.starts_with("tests")).map(|path| format!("{path}/src")).collect();
        assert!(ours.len() > 1 && ours.iter().all(|source| SOURCES.contains(&source.as_str())), "{ours:?}");
    }
}
