//! What a call costs while many sessions of differing intervals stand.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::peers::{Kind, Setup};
use crate::plan::{Interval, Pace, Plan};
use crate::report::{Table, grouped};
use crate::rig::Rig;

/// Intervals all differ, none ends while the benchmark runs, none is above what the policy admits.
const INTERVAL: Interval = Interval::Spread { from_s: 1000, to_s: 1800 };

const PACE: Pace = Pace::Closed { open: 256 };

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Sessions held while the call rate is measured, rising.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20_000, 1_000_000])]
    held: Vec<u64>,
    /// Most sessions that Kamailio is given.
    #[arg(long, default_value_t = 20_000)]
    kamailio_held_max: u64,
    /// Measured seconds at each number of sessions.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Measures whole calls at saturation over more and more held sessions; returns Markdown.
///
/// # Errors
/// A process that does not start or dies, or a session that could not be set up.
pub(crate) fn run(setup: &Setup, options: &Options) -> Result<String> {
    let heads = ["Through", "Sessions held", "Calls/s", "of the first", "CPU s per 1,000 calls", "p99 µs", "Failed"];
    let mut table = Table::new(&heads);
    for kind in setup.taking_part([Kind::Sidecar, Kind::Kamailio]) {
        let mut rig = Rig::start(kind, setup)?;
        let mut standing = 0;
        let mut first = None;
        for &held in options.held.iter().filter(|&&held| kind != Kind::Kamailio || held <= options.kamailio_held_max) {
            eprintln!("held: {kind:?} with {held} sessions");
            let set_up = rig.run(&plan(true, held - standing, 0, 600))?;
            ensure!(set_up.completed == held - standing, "{kind:?}: {} of the held calls failed", set_up.failed);
            standing = held;
            let outcome = rig.run(&plan(false, u64::MAX, 6, options.seconds))?;
            let rate = outcome.calls_per_second();
            table.row([
                format!("{kind:?}"),
                grouped(held),
                grouped(rate.round() as u64),
                format!("{:.2}", rate / *first.get_or_insert(rate)),
                format!("{:.4}", outcome.cpu_per_1000()),
                format!("{:.0}", outcome.latency_us(0.99)),
                grouped(outcome.failed),
            ]);
        }
    }
    Ok(table.to_string())
}

fn plan(hold: bool, calls_max: u64, warm_up_s: u64, window_s: u64) -> Plan {
    Plan {
        pace: PACE,
        interval: INTERVAL,
        hold,
        calls_max,
        warm_up: Duration::from_secs(warm_up_s),
        window: Duration::from_secs(window_s),
    }
}
