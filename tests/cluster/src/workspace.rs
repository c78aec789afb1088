//! This workspace: where it is, its programs, and the pages that code writes.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Pages are written instead of compared.
const WRITE: &str = "SIPWARDEN_WRITE";

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
    // Of its package alone, or without a test along with it, dependencies would have other features than in the tests, and be
    // built once more.
    build.args(["build", "--quiet", "--workspace", "--bin", program, "--test", "api_only"]);
    if profile.file_name() == Some(OsStr::new("release")) {
        build.arg("--release");
    }
    ensure!(build.status().context("cannot run cargo")?.success(), "cargo cannot build {program}; see above");
    fs::canonicalize(profile.join(program)).with_context(|| format!("{program} was not built here"))
}

/// Holds a page of the repository to what code has to say in it; with `SIPWARDEN_WRITE` the page is written. Panics where it
/// differs.
#[track_caller]
pub fn assert_written(page: &str, expected: &str) {
    let path = repository().join(page);
    if env::var_os(WRITE).is_some() {
        fs::write(&path, expected).unwrap_or_else(|error| panic!("cannot write {page}: {error}"));
    }
    let written = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {page}: {error}"));
    assert!(written == expected, "{page} differs from the code; this test writes it with {WRITE}=1:\n{expected}");
}
