//! Resident memory per established session.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::peers::{Kind, Setup};
use crate::plan::{Interval, Pace, Plan};
use crate::report::{Table, grouped};
use crate::rig::Rig;

/// Set-ups per second.
const PACE: Pace = Pace::Open { per_second: 1000 };

/// Sessions held before the first reading: set up over longer than a transaction lives, which is 64 × T1 = 32 s.
const WARM_UP_SESSIONS: u64 = 40_000;

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Sessions held between the two readings.
    #[arg(long, default_value_t = 50_000)]
    sessions: u64,
}

/// Holds sessions through the sidecar and through Kamailio; returns Markdown.
///
/// # Errors
/// A process that does not start or dies, or a session that could not be set up.
pub(crate) fn run(setup: &Setup, options: &Options) -> Result<String> {
    let mut table = Table::new(&["Through", "Sessions", "Resident before", "Resident after", "KiB per session"]);
    for kind in setup.taking_part([Kind::Sidecar, Kind::Kamailio]) {
        eprintln!("memory: {kind:?}");
        let mut rig = Rig::start(kind, setup)?;
        // Transactions live for seconds and come from the same memory: before the first reading they have all they need,
        // and the pace stays the same, so what is added by the second is sessions.
        hold(&mut rig, WARM_UP_SESSIONS)?;
        let before = rig.peer.tree().resident_bytes()?;
        hold(&mut rig, options.sessions)?;
        let after = rig.peer.tree().resident_bytes()?;
        table.row([
            format!("{kind:?}"),
            grouped(options.sessions),
            format!("{} KiB", grouped(before / 1024)),
            format!("{} KiB", grouped(after / 1024)),
            format!("{:.2}", after.saturating_sub(before) as f64 / options.sessions as f64 / 1024.0),
        ]);
    }
    Ok(table.to_string())
}

fn hold(rig: &mut Rig, sessions: u64) -> Result<()> {
    let outcome = rig.run(&Plan {
        pace: PACE,
        interval: Interval::Fixed(1800),
        hold: true,
        calls_max: sessions,
        warm_up: Duration::ZERO,
        window: Duration::from_secs(600),
    })?;
    ensure!(outcome.completed == sessions, "{} of {sessions} calls failed", outcome.failed);
    Ok(())
}
