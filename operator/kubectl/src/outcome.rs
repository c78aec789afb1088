//! How a command ends, for people and for scripts.

use std::{error::Error as _, fmt::Write as _, io, path::PathBuf, process::ExitCode};

use thiserror::Error;

/// A command that did what it was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to remark.
    Fine,
    /// What was asked about is not as it should be, or not there.
    Findings,
    /// Some sidecars did not answer: what was shown is not all.
    Incomplete,
}

/// A command that could not do what it was asked to do.
#[derive(Debug, Error)]
pub enum Failure {
    /// Something asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing of what was asked for.
    #[error("{0}")]
    Nothing(String),
    /// There is no way to the cluster.
    #[error("no way to a cluster: {0}; check --kubeconfig, KUBECONFIG and --context")]
    Kubeconfig(String),
    /// The API server did not do its part.
    #[error("cannot {doing}: {}", told(error))]
    Cluster {
        /// What was tried.
        doing: String,
        /// What came of it.
        error: Box<kube::Error>,
    },
    /// Nobody could be shown the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// The result has no such form.
    #[error("cannot write the result: {0}")]
    Form(String),
}

impl Outcome {
    /// As the documentation has it.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Fine => 0,
            Self::Findings => 1,
            Self::Incomplete => 4,
        })
    }

    /// What remains to be said when both have happened.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Incomplete, _) | (_, Self::Incomplete) => Self::Incomplete,
            (Self::Findings, _) | (_, Self::Findings) => Self::Findings,
            (Self::Fine, Self::Fine) => Self::Fine,
        }
    }
}

impl Failure {
    /// For `map_err`: what was tried.
    pub fn cluster(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Cluster { doing, error: Box::new(error) }
    }

    /// For `map_err`: the file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }

    /// As the documentation has it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Nothing(_) => 1,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Kubeconfig(_) | Self::Cluster { .. } | Self::Output(_) | Self::Form(_) => 3,
        })
    }

    /// Whoever read the output went away, which is no fault: `| head` does.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The API server's own words where there are any, else all that is known of the cause.
pub fn told(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_weighs_more_than_what_was_found() {
        assert_eq!(Outcome::Fine.and(Outcome::Fine), Outcome::Fine);
        assert_eq!(Outcome::Findings.and(Outcome::Fine), Outcome::Findings);
        assert_eq!(Outcome::Findings.and(Outcome::Incomplete), Outcome::Incomplete);
    }

    #[test]
    fn the_api_servers_words_are_kept() {
        let status = kube::core::Status::failure("pods is forbidden: User \"eve\" cannot list", "Forbidden");
        let failure = Failure::cluster("list pods")(kube::Error::Api(Box::new(status)));
        assert_eq!(failure.to_string(), "cannot list pods: pods is forbidden: User \"eve\" cannot list");
    }
}
