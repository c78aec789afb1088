//! `sipwarden-bench`: what the sidecar costs, beside a relay that parses nothing and a tuned Kamailio, as ratios
//! measured in one run on loopback.

mod call;
mod compare;
mod expiry;
mod held;
mod load;
mod memory;
mod peers;
mod plan;
mod proc;
mod refresh;
mod refreshes;
mod relay;
mod report;
mod rig;
mod sock;
mod template;
mod wire;

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};

use peers::{Kind, Setup};
use plan::{Interval, Pace, Plan};
use rig::Rig;

/// End-to-end benchmark of the sipwarden sidecar.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
    #[command(flatten)]
    setup: Setup,
}

#[derive(Subcommand)]
enum Cmd {
    /// The floor: relays UDP between two fixed peers and parses nothing.
    Relay {
        /// Where the caller is.
        #[arg(long)]
        remote: SocketAddrV4,
        /// Where the callee is.
        #[arg(long)]
        app: SocketAddrV4,
    },
    /// One run: calls through one kind, or straight from phone to phone.
    Calls {
        /// What stands between the phones.
        #[arg(long, value_enum, default_value_t = Kind::Direct)]
        through: Kind,
        /// Calls per second; saturation when left out.
        #[arg(long)]
        rate: Option<u32>,
        /// Calls in progress at saturation.
        #[arg(long, default_value_t = 256)]
        open: u64,
        /// Seconds of load before the measurement.
        #[arg(long, default_value_t = 1)]
        warm_up: u64,
        /// Measured seconds.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// CPU time and latency per call: relay, sidecar, Kamailio, and the ratios.
    Compare(compare::Options),
    /// Resident memory per established session.
    Memory(memory::Options),
    /// Call rate while many sessions of differing intervals stand.
    Held(held::Options),
    /// Sessions that end in the same second: every BYE, and how late.
    Expiry(expiry::Options),
    /// Sessions that the sidecar refreshes for a callee without timers: CPU, lateness, spread, memory.
    Refresh(refresh::Options),
    /// Everything with its defaults, as Markdown fit for the README.
    All,
}

fn main() -> Result<()> {
    let Cli { command, setup } = Cli::parse();
    run(command, &setup)
}

fn run(command: Cmd, setup: &Setup) -> Result<()> {
    let text = match command {
        Cmd::Relay { remote, app } => return relay::run(remote, app),
        Cmd::Calls { through, rate, open, warm_up, seconds } => {
            let pace = rate.map_or(Pace::Closed { open }, |per_second| Pace::Open { per_second });
            calls(through, pace, warm_up, seconds, setup)?
        }
        Cmd::Compare(options) => compare::run(setup, &options)?,
        Cmd::Memory(options) => memory::run(setup, &options)?,
        Cmd::Held(options) => held::run(setup, &options)?,
        Cmd::Expiry(options) => expiry::run(setup, &options)?,
        Cmd::Refresh(options) => refresh::run(setup, &options)?,
        Cmd::All => return all(setup),
    };
    println!("{text}");
    Ok(())
}

fn calls(through: Kind, pace: Pace, warm_up_s: u64, window_s: u64, setup: &Setup) -> Result<String> {
    let mut rig = Rig::start(through, setup)?;
    let outcome = rig.run(&Plan {
        pace,
        interval: Interval::Fixed(1800),
        hold: false,
        calls_max: u64::MAX,
        warm_up: Duration::from_secs(warm_up_s),
        window: Duration::from_secs(window_s),
    })?;
    let resident_kib = rig.peer.tree().resident_bytes()? / 1024;
    Ok(format!("{through:?} at {pace}: {outcome}, {resident_kib} KiB resident"))
}

/// Runs every part in turn, each with its defaults.
fn all(setup: &Setup) -> Result<()> {
    let parts = [
        ("Calls", "compare"),
        ("Memory per session", "memory"),
        ("Calls over held sessions", "held"),
        ("Sessions that end in the same second", "expiry"),
        ("Sessions that the sidecar refreshes", "refresh"),
    ];
    println!("Made by `{}`.\n{}\n", command_line(), report::machine(setup.kamailio()));
    println!("{}", setup.description());
    for (title, part) in parts {
        println!("\n### {title}\n");
        run(Cli::parse_from(["sipwarden-bench", part]).command, setup)?;
    }
    Ok(())
}

/// The command that was given, as it would be typed in a fresh clone.
fn command_line() -> String {
    let build = "cargo build --release -p sipwarden-sidecar -p sipwarden-bench && target/release/sipwarden-bench";
    std::iter::once(build.to_owned()).chain(std::env::args().skip(1)).collect::<Vec<_>>().join(" ")
}
