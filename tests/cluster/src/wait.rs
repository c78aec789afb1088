//! Waiting for conditions with a bound.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// For what the operator and kubelet do in less than a second when nothing else is going on.
pub const SOON: Duration = Duration::from_secs(30);
/// For what takes the start of a process, or a lease to run out.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is asked for. Most answers cost a kubectl process.
const STEP: Duration = Duration::from_millis(50);

/// Asks until there is an answer; after `limit` the error names `what` was awaited.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        sleep(STEP);
    }
}
