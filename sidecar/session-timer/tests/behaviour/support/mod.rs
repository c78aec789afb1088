//! A bench for the core: it stands where the router stands, moves time, and imitates the router's part: every INVITE
//! that starts a dialog leaves with two Record-Route values, every request with a Via.

mod bench;
mod call;
mod wire;

use std::time::Duration;

use sipwarden_session_timer::{ActForApp, Leg, Mode, Policy, Timers};

pub(crate) use bench::{Bench, Elapsed, LOCAL, LOCAL_TCP, REMOTE, REMOTE_TCP, Sent};
pub(crate) use call::{Call, established, refreshed};
pub(crate) use wire::Wire;

pub(crate) const TIMER: &str = "Supported: timer";
pub(crate) const ALLOW_UPDATE: &str = "Allow: INVITE, ACK, BYE, CANCEL, UPDATE";
pub(crate) const ALLOW: &str = "Allow: INVITE, ACK, BYE, CANCEL";
pub(crate) const SDP_LOCAL: &str = "v=0\r\no=pbx 1 1 IN IP4 127.0.0.1\r\ns=-\r\nm=audio 4000 RTP/AVP 0\r\n";
pub(crate) const SDP_REMOTE: &str = "v=0\r\no=phone 7 1 IN IP4 192.0.2.7\r\ns=-\r\nm=audio 6000 RTP/AVP 0\r\n";

/// Whole seconds.
pub(crate) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// 30 minutes, at least `min_se_s`; the application speaks for itself or not at all.
pub(crate) fn at_least(min_se_s: u32) -> Timers {
    changed(standing_in(min_se_s), |timers| timers.act_for_app = ActForApp::Never)
}

/// 30 minutes, at least `min_se_s`, without jitter; the sidecar stands in for an application without timers.
pub(crate) fn standing_in(min_se_s: u32) -> Timers {
    changed(Timers::new(1800, min_se_s, 7200).expect("a valid policy"), |timers| timers.refresh_jitter_percent = 0)
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
