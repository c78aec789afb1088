//! A bench for the core: it stands where the router stands, moves time, and imitates the router's part: every INVITE
//! that starts a dialog leaves with two Record-Route values, every request with a Via.

mod bench;
mod call;
mod wire;

use std::time::Duration;

use sipwarden_session_timer::{Leg, Mode, Policy, Timers};

pub(crate) use bench::{Bench, Elapsed, LOCAL, LOCAL_TCP, REMOTE, REMOTE_TCP, Sent};
pub(crate) use call::{Call, established, refreshed};
pub(crate) use wire::Wire;

pub(crate) const TIMER: &str = "Supported: timer";

/// Whole seconds.
pub(crate) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 30 minutes, at least `min_se_s`.
pub(crate) fn at_least(min_se_s: u32) -> Timers {
    Timers::new(1800, min_se_s, 7200).expect("a valid policy")
}

/// `timers` after `change`.
pub(crate) fn changed(mut timers: Timers, change: impl FnOnce(&mut Timers)) -> Timers {
    change(&mut timers);
    timers
}

pub(crate) fn policy(mode: Mode, timers: Timers) -> Policy {
    Policy { name: "test".into(), mode, timers, rules: Vec::new() }
}

/// Caller and callee, either way round.
pub(crate) fn both_directions(test: impl Fn(Leg)) {
    Leg::BOTH.into_iter().for_each(test);
}
