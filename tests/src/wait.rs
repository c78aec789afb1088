//! Waiting for conditions instead of sleeping.

use std::thread::sleep;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(10);

/// Asks until there is an answer, or until `limit` has passed.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        sleep(STEP);
    }
}

/// Asks until there is an answer; panics with `what` was awaited when `limit` has passed.
pub fn eventually<T>(what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> T {
    until(limit, ask).unwrap_or_else(|| panic!("waited {limit:?} in vain for {what}"))
}
