//! The last good config: written whenever one comes into force, read when a start finds no better one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sipwarden_crds::{SidecarConfig, to_annotation};

/// Writes `config` so that a reader, or a start after a crash, finds either the old file or all of the new one.
///
/// # Errors
/// The directory cannot be written to.
pub(super) fn write(path: &Path, config: &SidecarConfig) -> anyhow::Result<()> {
    let text = to_annotation(&config.policy, config);
    if fs::read_to_string(path).is_ok_and(|written| written == text) {
        return Ok(());
    }
    let beside = beside(path);
    let replaced = write_whole(&beside, &text).and_then(|()| fs::rename(&beside, path));
    replaced.with_context(|| format!("cannot write {}", path.display()))
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// In the same directory: a rename is only atomic there.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

#[cfg(test)]
mod tests {
    use sipwarden_crds::file;

    use super::super::content;
    use super::*;

    const POLICY: &str = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\n\
                          metadata: {name: carrier, generation: 7}\n\
                          spec: {timers: {sessionExpires: 10m, credentials: {secretName: trunk-a}}}\n";

    #[test]
    fn what_is_written_reads_as_the_same_config_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("last-good.json");
        let config = file::load(POLICY).expect("a policy").into_config();
        for interval in ["10m", "20m"] {
            let config = file::load(&POLICY.replace("10m", interval)).expect("a policy").into_config();
            write(&path, &config).expect("written");
            assert_eq!(content::read(&path), Ok(config));
        }
        assert_ne!(content::read(&path), Ok(config));
        let names: Vec<_> = fs::read_dir(directory.path()).expect("listed").map(|entry| entry.expect("one")).collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_that_names_the_file() {
        let config = file::load(POLICY).expect("a policy").into_config();
        let error = write(Path::new("/nowhere/last-good.json"), &config).expect_err("no directory");
        assert!(format!("{error:#}").contains("cannot write /nowhere/last-good.json"), "{error:#}");
    }
}
