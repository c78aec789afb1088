//! What stands in a file that shall hold a policy.

use std::io::ErrorKind;
use std::path::Path;

use sipwarden_crds::{SidecarConfig, file};

/// A file larger than this is no policy.
const MAX_LEN: u64 = 1 << 20;

/// Why a file gives no policy. Each text names the file or the policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no file, or nothing in it: nobody has configured this sidecar.
    #[error("cannot read {0}")]
    NotConfigured(String),
    /// It cannot be read.
    #[error("cannot read {0}")]
    Unreadable(String),
    /// One problem a line, each with line and field.
    #[error("{0}")]
    Invalid(String),
}

/// Reads a policy file.
///
/// # Errors
/// It cannot be read, or what is wrong with it.
pub fn read(path: &Path) -> Result<SidecarConfig, Fault> {
    parse(path, &text_of(path)?)
}

/// What a policy file says; never nothing but white space.
pub(super) fn text_of(path: &Path) -> Result<String, Fault> {
    let unreadable = |error: std::io::Error| {
        let told = format!("{}: {error}", path.display());
        if error.kind() == ErrorKind::NotFound { Fault::NotConfigured(told) } else { Fault::Unreadable(told) }
    };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_LEN {
        return Err(Fault::Unreadable(format!("{}: it is larger than {MAX_LEN} bytes", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    if text.trim().is_empty() {
        return Err(Fault::NotConfigured(format!("{}: it is empty", path.display())));
    }
    Ok(text)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<SidecarConfig, Fault> {
    file::load(text).map(file::Loaded::into_config).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{}: {problem}", path.display())).collect();
        Fault::Invalid(lines.join("\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_an_empty_file_say_that_nobody_configured_us() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("config");
        assert!(matches!(read(&path), Err(Fault::NotConfigured(told)) if told.contains("config: No such file")));
        std::fs::write(&path, " \n").expect("written");
        assert!(matches!(read(&path), Err(Fault::NotConfigured(told)) if told.contains("it is empty")));
    }

    #[test]
    fn what_is_no_policy_is_a_fault_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(matches!(read(directory.path()), Err(Fault::Unreadable(_))));
        let path = directory.path().join("config");
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(matches!(read(&path), Err(Fault::Unreadable(_))));
        std::fs::write(&path, "kind: Pod\n").expect("written");
        assert!(matches!(read(&path), Err(Fault::Invalid(told)) if told.contains("config: line 1")));
    }
}
