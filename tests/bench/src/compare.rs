//! CPU time and latency per call: the sidecar between a relay that parses nothing and Kamailio.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::peers::{Kind, Setup};
use crate::plan::{Interval, Outcome, Pace, Plan};
use crate::report::{Table, grouped, median};
use crate::rig::Rig;

/// Most that the sidecar's CPU time per call may be of Kamailio's, and of the relay's.
const GOALS: [(Kind, f64); 2] = [(Kind::Kamailio, 0.125), (Kind::Relay, 1.5)];

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Times that each is measured; the figures are medians.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of load before each measurement; Kamailio's transactions live 5 s, and until then it grows.
    #[arg(long, default_value_t = 6)]
    warm_up: u64,
    /// Calls in progress at saturation.
    #[arg(long, default_value_t = 256)]
    open: u64,
}

/// The runs of one kind at one pace.
struct Runs {
    pace: Pace,
    kind: Kind,
    outcomes: Vec<Outcome>,
}

/// Measures each kind at each pace, a round at a time so that the machine's drift hits all alike; returns Markdown.
///
/// # Errors
/// A process that does not start, or dies.
pub(crate) fn run(setup: &Setup, options: &Options) -> Result<String> {
    let paces = [Pace::Open { per_second: 500 }, Pace::Open { per_second: 2000 }, Pace::Closed { open: options.open }];
    let mut all: Vec<Runs> = Vec::new();
    let kinds: Vec<Kind> = setup.taking_part([Kind::Relay, Kind::Sidecar, Kind::Kamailio]).collect();
    for pace in paces {
        all.extend(kinds.iter().map(|&kind| Runs { pace, kind, outcomes: Vec::new() }));
    }
    for round in 1..=options.rounds {
        for &kind in &kinds {
            let mut rig = Rig::start(kind, setup)?;
            for runs in all.iter_mut().filter(|runs| runs.kind == kind) {
                eprintln!("round {round} of {}: {kind:?} at {}", options.rounds, runs.pace);
                runs.outcomes.push(rig.run(&plan(runs.pace, options))?);
            }
        }
    }
    Ok(format!("{}\n{}", figures(&all), ratios(&all)))
}

fn plan(pace: Pace, options: &Options) -> Plan {
    Plan {
        pace,
        interval: Interval::Fixed(1800),
        hold: false,
        calls_max: u64::MAX,
        warm_up: Duration::from_secs(options.warm_up),
        window: Duration::from_secs(options.seconds),
    }
}

fn figures(all: &[Runs]) -> Table {
    let mut table = Table::new(&[
        "Load",
        "Through",
        "Calls/s",
        "CPU s per 1,000 calls",
        "p50 µs",
        "p99 µs",
        "Sent again",
        "Failed",
    ]);
    for Runs { pace, kind, outcomes } in all {
        let middle = |value: fn(&Outcome) -> f64| median(outcomes.iter().map(value));
        table.row([
            pace.to_string(),
            format!("{kind:?}"),
            grouped(middle(Outcome::calls_per_second).round() as u64),
            format!("{:.4}", middle(Outcome::cpu_per_1000)),
            format!("{:.0}", middle(|outcome| outcome.latency_us(0.5))),
            format!("{:.0}", middle(|outcome| outcome.latency_us(0.99))),
            grouped(outcomes.iter().map(|outcome| outcome.resent).sum()),
            grouped(outcomes.iter().map(|outcome| outcome.failed + outcome.shed).sum()),
        ]);
    }
    table
}

/// The sidecar's CPU time over the others', round by round, so that each quotient is of neighbours in time.
fn ratios(all: &[Runs]) -> Table {
    let mut table = Table::new(&["Load", "CPU per call", "Median", "Lowest", "Highest", "Goal"]);
    for sidecar in all.iter().filter(|runs| runs.kind == Kind::Sidecar) {
        for (kind, goal) in GOALS {
            let other = all.iter().find(|runs| runs.kind == kind && runs.pace == sidecar.pace);
            let Some(other) = other else { continue };
            let pairs = sidecar.outcomes.iter().zip(&other.outcomes);
            let quotients: Vec<f64> = pairs.map(|(ours, theirs)| ours.cpu_per_1000() / theirs.cpu_per_1000()).collect();
            table.row([
                sidecar.pace.to_string(),
                format!("Sidecar ÷ {kind:?}"),
                format!("{:.2}", median(quotients.iter().copied())),
                format!("{:.2}", quotients.iter().copied().fold(f64::INFINITY, f64::min)),
                format!("{:.2}", quotients.iter().copied().fold(0.0, f64::max)),
                format!("≤ {goal}"),
            ]);
        }
    }
    table
}
