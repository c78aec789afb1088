//! This workspace: where it is, and its programs.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The repository.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).expect("this crate is in tests/cluster").to_owned()
}

/// The charts of this repository.
pub fn charts() -> PathBuf {
    repository().join("charts")
}

/// A program of this workspace, built now with the profile of this one, so that it is never an old one.
pub fn built(program: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("a program knows its own path")?;
    let profile = own.ancestors().nth(2).context("tests and benches are built in target/PROFILE/deps")?;
    let mut build = Command::new(env!("CARGO"));
    // Of its package alone, dependencies would have other features than in the tests, and be built once more.
    build.args(["build", "--quiet", "--workspace", "--bin", program]);
    if profile.file_name() == Some(OsStr::new("release")) {
        build.arg("--release");
    }
    ensure!(build.status().context("cannot run cargo")?.success(), "cargo cannot build {program}; see above");
    fs::canonicalize(profile.join(program)).with_context(|| format!("{program} was not built here"))
}
