//! `lint`: the checks of the API server and of the compile step, on files.

use std::{fmt::Write as _, io, path::PathBuf};

use anyhow::Context;
use sipwarden_crds::file;

/// Judges files, `-` for standard input. True if nothing is wrong with them.
///
/// # Errors
/// A file that cannot be read.
pub fn lint(files: &[PathBuf], report: &mut impl io::Write) -> anyhow::Result<bool> {
    let mut good = true;
    for path in files {
        let text =
            if path.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let linted = file::lint(&text);
        let mut told = String::new();
        for problem in &linted.problems {
            writeln!(told, "{}: {problem}", path.display())?;
        }
        if linted.problems.is_empty() {
            let others = match linted.skipped {
                0 => String::new(),
                skipped => format!(", {skipped} of other kinds"),
            };
            writeln!(told, "{}: {} judged, none is wrong{others}", path.display(), linted.judged)?;
        }
        report.write_all(told.as_bytes())?;
        good &= linted.problems.is_empty();
    }
    Ok(good)
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
        assert_eq!(error.to_string(), "cannot read no/such/file");
    }
}
