//! `lint`: the checks of the API server and of the compile step, on files.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sipwarden_crds::file::{self, Problem};
use thiserror::Error;

/// What is said of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `-` for standard input.
    pub file: PathBuf,
    /// How many objects in it are ours and were judged.
    pub judged: usize,
    /// How many belong to other API groups.
    pub skipped: usize,
    /// In the order of lines.
    pub problems: Vec<Problem>,
}

/// A file cannot be read.
#[derive(Debug, Error)]
#[error("cannot read {}: {error}", path.display())]
pub struct ReadError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Verdict {
    /// Nothing is wrong with it.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// A line for each problem, or one that says that there is none.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for problem in &self.problems {
            writeln!(f, "{file}: {problem}")?;
        }
        match (self.is_good(), self.skipped) {
            (false, _) => Ok(()),
            (true, 0) => writeln!(f, "{file}: {} judged, none is wrong", self.judged),
            (true, skipped) => writeln!(f, "{file}: {} judged, none is wrong, {skipped} of other kinds", self.judged),
        }
    }
}

/// Judges files, `-` for standard input.
///
/// # Errors
/// A file cannot be read.
pub fn judge(files: &[PathBuf]) -> Result<Vec<Verdict>, ReadError> {
    files.iter().map(|path| judge_file(path)).collect()
}

/// Judges files and reports; true if nothing is wrong with them.
///
/// # Errors
/// A file cannot be read, or nobody reads the report.
pub fn lint(files: &[PathBuf], report: &mut impl io::Write) -> anyhow::Result<bool> {
    let verdicts = judge(files)?;
    for verdict in &verdicts {
        write!(report, "{verdict}")?;
    }
    Ok(verdicts.iter().all(Verdict::is_good))
}

fn judge_file(path: &Path) -> Result<Verdict, ReadError> {
    let text = if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.map_err(|error| ReadError { path: path.to_owned(), error })?;
    let file::Linted { judged, skipped, problems } = file::lint(&text);
    Ok(Verdict { file: path.to_owned(), judged, skipped, problems })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: sipwarden.dev/v1alpha1\nkind: SessionPolicy\nmetadata: {name: a}\nspec: {}\n";

    fn linted(text: &str) -> (bool, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut report = Vec::new();
        let good = lint(&[file.path().to_owned()], &mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        (good, report.replace(file.path().to_str().unwrap(), "FILE"))
    }

    #[test]
    fn what_is_wrong_is_told_by_file_line_and_field() {
        let (good, report) = linted(&GOOD.replace("spec: {}", "spec:\n  timers: {minSE: 10s}"));
        assert!(!good);
        assert!(report.starts_with("FILE: line 5, spec.timers.minSE: "), "{report}");
    }

    #[test]
    fn every_document_is_judged_and_strangers_are_passed_over() {
        let (good, report) = linted(&format!("{GOOD}---\napiVersion: v1\nkind: Service\nmetadata: {{name: b}}\n"));
        assert!(good);
        assert_eq!(report, "FILE: 1 judged, none is wrong, 1 of other kinds\n");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = lint(&["no/such/file".into()], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such/file: "), "{error}");
    }
}
