//! Waiting for conditions with a bound.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

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
