//! Where log lines go: standard error, as text or JSON, through a filter that can be changed at run time.

use std::io::IsTerminal;

use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::cli::LogFormat;

/// What is logged unless told otherwise.
pub const DEFAULT_FILTER: &str = "info";

/// Changes the filter. Cheap to clone.
#[derive(Clone)]
pub struct LogFilter {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

/// Why a filter was not set.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// It cannot be read.
    #[error("not a filter such as info or sipwarden=debug: {0}")]
    Syntax(#[from] ParseError),
    /// The logs of this process are somebody else's.
    #[error("logging was not set up here")]
    NotOurs,
}

impl LogFilter {
    /// Starts logging. Where the filter cannot be read it is [`DEFAULT_FILTER`], and the log says so: a call is worth more
    /// than its log, and in a pod the application waits for the sidecar to start.
    ///
    /// # Errors
    /// Something logs already.
    pub fn start(format: LogFormat, filter: &str) -> anyhow::Result<LogFilter> {
        let (filter, unreadable) = match EnvFilter::try_new(filter) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        };
        let (filter, handle) = reload::Layer::new(filter);
        start(format, filter)?;
        if let Some(error) = unreadable {
            tracing::warn!(%error, "the log filter cannot be read; it is {DEFAULT_FILTER}");
        }
        Ok(LogFilter { handle: Some(handle) })
    }

    /// For a process that logs by itself: nothing can be changed.
    pub fn not_ours() -> LogFilter {
        LogFilter { handle: None }
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// It cannot be read, or there is none to replace.
    pub fn set(&self, filter: &str) -> Result<(), LogFilterError> {
        let filter = EnvFilter::try_new(filter.trim())?;
        let handle = self.handle.as_ref().ok_or(LogFilterError::NotOurs)?;
        handle.reload(filter).map_err(|_| LogFilterError::NotOurs)
    }
}

fn start(format: LogFormat, filter: reload::Layer<EnvFilter, Registry>) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_changes_nothing() {
        let (_layer, handle) = reload::Layer::new(EnvFilter::new("info"));
        let filter = LogFilter { handle: Some(handle.clone()) };
        assert!(matches!(filter.set("sipwarden=nonsense"), Err(LogFilterError::Syntax(_))));
        assert_eq!(handle.with_current(ToString::to_string).expect("alive"), "info");
        filter.set(" sipwarden=debug\n").expect("a filter");
        assert_eq!(handle.with_current(ToString::to_string).expect("alive"), "sipwarden=debug");
    }
}
