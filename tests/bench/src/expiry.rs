//! Many sessions that end in the same second: is every BYE sent to both sides, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::call::{Hangup, Phone};
use crate::peers::{Kind, Setup};
use crate::plan::{Interval, Pace, Plan};
use crate::report::{Table, grouped, median};
use crate::rig::Rig;

/// Set-ups per second.
const SET_UPS_PER_SECOND: u32 = 4000;

/// How long after its time a BYE is still waited for: a transaction's life, 64 × T1.
const PATIENCE: Duration = Duration::from_secs(33);

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Sessions that end together.
    #[arg(long, default_value_t = 20_000)]
    sessions: u64,
}

/// When one kind ends a session that nobody refreshes.
struct Rule {
    /// Seconds before the end of the interval.
    margin_s: u32,
    /// The shortest interval for which that is so, seconds.
    least_s: u32,
    /// How many times as fast as ours its clock runs.
    speed: u32,
}

/// Lets sessions through the sidecar and through Kamailio end in one second; returns Markdown.
///
/// # Errors
/// A process that does not start or dies, or a session that could not be set up.
pub(crate) fn run(setup: &Setup, options: &Options) -> Result<String> {
    let lateness = ["Late p50 s", "Late p99 s", "Latest s", "Earliest s"];
    let heads = [&["Through", "Sessions", "BYE seen", "Missing", "Sent again"][..], &lateness].concat();
    let mut table = Table::new(&heads);
    let setup = &setup.with_kamailio_allocator("fm");
    for kind in setup.taking_part([Kind::Sidecar, Kind::Kamailio]) {
        // RFC 4028 §10: min(32, interval / 3) before the end, which is 32 s from 96 s on. Kamailio waits to the end.
        let rule = match kind {
            Kind::Sidecar => Rule { margin_s: 32, least_s: 96, speed: setup.clock_speed },
            _ => Rule { margin_s: 0, least_s: 90, speed: 1 },
        };
        expire(kind, setup, options.sessions, &rule, &mut table)?;
    }
    Ok(format!("{table}\nKamailio here with the {} allocator.", setup.kamailio_allocator()))
}

fn expire(kind: Kind, setup: &Setup, sessions: u64, rule: &Rule, table: &mut Table) -> Result<()> {
    let mut rig = Rig::start(kind, setup)?;
    let set_up_s = sessions as f64 / f64::from(SET_UPS_PER_SECOND) + 1.0;
    let shortest_s = f64::from(rule.least_s - rule.margin_s) / f64::from(rule.speed);
    let at = Instant::now() + Duration::from_secs_f64(set_up_s + shortest_s);
    eprintln!("expiry: {kind:?}, sessions end in {:.0} s", set_up_s + shortest_s);
    let outcome = rig.run(&Plan {
        pace: Pace::Open { per_second: SET_UPS_PER_SECOND },
        interval: Interval::EndingAt { at, margin_s: rule.margin_s, speed: rule.speed },
        hold: true,
        calls_max: sessions,
        warm_up: Duration::ZERO,
        window: Duration::from_secs(60),
    })?;
    ensure!(outcome.completed == sessions, "{kind:?}: {} calls failed", outcome.failed);
    let wanted = sessions as usize;
    rig.phones.await_hangups(at + PATIENCE, |hangups| {
        hangups.len() >= 2 * wanted
            && [Phone::Uac, Phone::Uas].iter().all(|&at| first_seen(hangups, at).len() == wanted)
    })?;
    let fate = if rig.peer.tree().cpu().is_ok() { "" } else { " (crashed)" };
    for phone in [Phone::Uac, Phone::Uas] {
        let seen = first_seen(rig.phones.hangups(), phone);
        let came = rig.phones.hangups().iter().filter(|hangup| hangup.phone == phone).count();
        let late = lateness(&rig, &seen, rule);
        let at = |quantile: f64| late.get((late.len() as f64 * quantile) as usize).or(late.last());
        let show = |seconds: Option<&f64>| seconds.map_or("none".to_owned(), |seconds| format!("{seconds:.2}"));
        table.row([
            format!("{kind:?}{fate}, {}", if phone == Phone::Uac { "caller" } else { "callee" }),
            grouped(sessions),
            grouped(seen.len() as u64),
            grouped(sessions - seen.len() as u64),
            grouped((came - seen.len()) as u64),
            format!("{:.2}", median(late.iter().copied())),
            show(at(0.99)),
            show(late.last()),
            show(late.first()),
        ]);
    }
    Ok(())
}

fn first_seen(hangups: &[Hangup], phone: Phone) -> HashMap<u64, Instant> {
    let mut seen = HashMap::new();
    for hangup in hangups.iter().filter(|hangup| hangup.phone == phone) {
        seen.entry(hangup.number).or_insert(hangup.at);
    }
    seen
}

/// Seconds from due to seen, rising; negative is early.
fn lateness(rig: &Rig, seen: &HashMap<u64, Instant>, rule: &Rule) -> Vec<f64> {
    let mut late: Vec<f64> = rig
        .phones
        .held()
        .filter_map(|(number, held)| {
            let lived = seen.get(&number)?.duration_since(held.answered).as_secs_f64();
            Some(lived - f64::from(held.interval_s - rule.margin_s) / f64::from(rule.speed))
        })
        .collect();
    late.sort_by(f64::total_cmp);
    late
}
