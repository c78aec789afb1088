//! Sessions that the sidecar itself refreshes, for a callee without session timers: what that costs, how late a refresh
//! comes, whether any is lost, and how they are spread.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::peers::{Kind, Setup};
use crate::plan::{Interval, Pace, Plan};
use crate::refreshes::Refresh;
use crate::report::{Table, grouped};
use crate::rig::Rig;
use crate::template::Manners;

/// Most that a refresh may be late, at the 99th percentile.
const LATE_GOAL: Duration = Duration::from_secs(1);

/// Most resident memory per session, with the session description.
const KIB_GOAL: f64 = 2.5;

/// How long after its latest time a refresh is waited for before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A refresh that comes earlier than its earliest time by less than this may be the generator's doing, which on a busy
/// machine sees the 2xx later than the sidecar.
const SEEN_LATE: Duration = Duration::from_secs(1);

/// Set-ups per second while memory is measured, and sessions set up before the first reading: see `memory`.
const MEMORY_PACE: u32 = 1000;
const MEMORY_WARM_UP_SESSIONS: u64 = 40_000;

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Sessions that are refreshed.
    #[arg(long, default_value_t = 50_000)]
    sessions: u64,
    /// The shortest session interval, seconds.
    #[arg(long, default_value_t = 90)]
    least_s: u32,
    /// The longest session interval, seconds.
    #[arg(long, default_value_t = 120)]
    most_s: u32,
    /// Seconds over which the sessions are set up.
    #[arg(long, default_value_t = 45)]
    ramp_s: u32,
    /// Refreshes that each session gets before it is over.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// `refreshJitter` of the policy, one run each: at 0 a refresh has one time, which shows how late it is.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 10])]
    jitter: Vec<u32>,
    /// Refresh by re-INVITE, because the caller has no UPDATE.
    #[arg(long)]
    reinvite: bool,
}

/// What one run saw.
struct Seen {
    refreshes: Vec<Refresh>,
    /// Beyond the latest time of each, rising; zero where it came in time.
    late: Vec<Duration>,
    /// How many came before their earliest time.
    early: u64,
    /// Calls that did not get all their refreshes.
    lost: u64,
    /// Refreshes in each whole second after the last set-up.
    per_second: Vec<u64>,
    cpu: Duration,
    elapsed: Duration,
}

/// Lets the sidecar refresh sessions; returns Markdown.
///
/// # Errors
/// A process that does not start or dies, or a session that could not be set up.
pub(crate) fn run(setup: &Setup, options: &Options) -> Result<String> {
    ensure!(setup.clock_speed == 1, "refreshes are timed by the clock: leave --clock-speed at 1");
    ensure!((90..=options.most_s).contains(&options.least_s), "--least-s is from 90 to --most-s");
    let mut table = Table::new(&[
        "Jitter %",
        "Sessions",
        "Refreshes",
        "per second",
        "CPU share",
        "CPU ms per 1,000",
        "Late p50 ms",
        "Late p99 ms",
        "Latest ms",
        "Early",
        "Sent again",
        "Probes",
        "Lost",
        "Ended",
        "Resident KiB per session",
    ]);
    // First, as it is the shorter part.
    let memory = memory(setup, options)?;
    let mut spread = String::new();
    for &jitter in &options.jitter {
        let mut rig = start(setup, options, jitter)?;
        eprintln!(
            "refresh: {} sessions, jitter {jitter} %, for about {} s",
            options.sessions,
            duration(options).as_secs()
        );
        let seen = refresh(&mut rig, options, jitter)?;
        row(&mut table, &rig, options, jitter, &seen)?;
        spread.push_str(&format!("\nJitter {jitter} %, refreshes per second: {}.\n", histogram(&seen.per_second)));
    }
    let goals = format!("Goals: late p99 ≤ {} ms, none lost, at most {KIB_GOAL} KiB.", LATE_GOAL.as_millis());
    let late = "Late is behind the latest time that jitter allows; without jitter that is the only one.";
    Ok(format!("{table}\n{late}\n{spread}\n{memory}\n{goals}"))
}

fn start(setup: &Setup, options: &Options, jitter: u32) -> Result<Rig> {
    let timers = format!("{{sessionExpires: 30m, minSE: 90s, refresher: Local, refreshJitter: {jitter}}}");
    let manners = Manners { callee_without_timers: true, caller_without_update: options.reinvite };
    Rig::start_with(Kind::Sidecar, &setup.with_timers(timers), manners)
}

fn plan(options: &Options, per_second: u32, sessions: u64) -> Plan {
    let Options { least_s, most_s, .. } = *options;
    Plan {
        pace: Pace::Open { per_second },
        interval: if least_s < most_s {
            Interval::Spread { from_s: least_s, to_s: most_s }
        } else {
            Interval::Fixed(least_s)
        },
        hold: true,
        calls_max: sessions,
        warm_up: Duration::ZERO,
        window: Duration::from_secs(3600),
    }
}

fn refresh(rig: &mut Rig, options: &Options, jitter: u32) -> Result<Seen> {
    let per_second = u32::try_from(options.sessions)?.div_ceil(options.ramp_s.max(1));
    let outcome = rig.run(&plan(options, per_second, options.sessions))?;
    ensure!(outcome.completed == options.sessions, "not every call could be set up: {outcome}");
    let (ready, cpu) = (Instant::now(), rig.peer.tree().cpu()?);
    let deadline = ready + latest(options.most_s) * options.rounds + PATIENCE;
    let lost = |rig: &Rig| options.sessions - rig.phones.refreshes().calls_refreshed(options.rounds);
    while lost(rig) > 0 && Instant::now() < deadline {
        rig.phones.attend(Instant::now() + Duration::from_secs(1))?;
    }
    let elapsed = ready.elapsed();
    let cpu = rig.peer.tree().cpu()?.saturating_sub(cpu);
    Ok(seen(rig, jitter, lost(rig), (ready, elapsed, cpu)))
}

fn seen(rig: &Rig, jitter: u32, lost: u64, (ready, elapsed, cpu): (Instant, Duration, Duration)) -> Seen {
    let intervals: Vec<u32> = intervals(rig);
    let refreshes = rig.phones.refreshes().seen().to_vec();
    let mut late = Vec::with_capacity(refreshes.len());
    let mut early = 0;
    let mut per_second = vec![0; elapsed.as_secs() as usize];
    for refresh in &refreshes {
        let latest = latest(intervals[refresh.number as usize]);
        late.push(refresh.after.saturating_sub(latest));
        early += u64::from(refresh.after + SEEN_LATE < latest * (100 - jitter) / 100);
        let second = refresh.at.checked_duration_since(ready).map(|since| since.as_secs() as usize);
        if let Some(count) = second.and_then(|second| per_second.get_mut(second)) {
            *count += 1;
        }
    }
    late.sort();
    Seen { refreshes, late, early, lost, per_second, cpu, elapsed }
}

/// By call number.
fn intervals(rig: &Rig) -> Vec<u32> {
    let mut intervals = Vec::new();
    for (number, held) in rig.phones.held() {
        intervals.resize(intervals.len().max(number as usize + 1), 0);
        intervals[number as usize] = held.interval_s;
    }
    intervals
}

/// When the sidecar refreshes at the latest if nothing is in its way, after the 2xx: half the interval less a guard, which
/// is a twentieth of it and at most 5 s. Jitter makes it earlier.
fn latest(interval_s: u32) -> Duration {
    let interval = Duration::from_secs(interval_s.into());
    interval / 2 - (interval / 20).min(Duration::from_secs(5))
}

fn duration(options: &Options) -> Duration {
    Duration::from_secs(options.ramp_s.into()) + latest(options.most_s) * options.rounds
}

fn row(table: &mut Table, rig: &Rig, options: &Options, jitter: u32, seen: &Seen) -> Result<()> {
    let millis = |quantile: f64| {
        let index = ((seen.late.len() as f64 * quantile) as usize).min(seen.late.len().saturating_sub(1));
        seen.late.get(index).map_or("none".to_owned(), |late| format!("{:.1}", late.as_secs_f64() * 1000.0))
    };
    let in_window: u64 = seen.per_second.iter().sum();
    let kib = rig.peer.tree().resident_bytes()? as f64 / 1024.0 / options.sessions as f64;
    table.row([
        jitter.to_string(),
        grouped(options.sessions),
        grouped(seen.refreshes.len() as u64),
        format!("{:.0}", in_window as f64 / seen.elapsed.as_secs_f64()),
        format!("{:.1} %", seen.cpu.as_secs_f64() * 100.0 / seen.elapsed.as_secs_f64()),
        format!("{:.1}", seen.cpu.as_secs_f64() * 1e6 / in_window.max(1) as f64),
        millis(0.5),
        millis(0.99),
        millis(1.0),
        grouped(seen.early),
        grouped(rig.phones.refreshes().repeats()),
        grouped(rig.phones.refreshes().probes()),
        grouped(seen.lost),
        grouped(rig.phones.hangups().len() as u64),
        format!("{kib:.2}"),
    ]);
    Ok(())
}

/// Counts in their order from the first refresh on, and the highest against their mean.
fn histogram(per_second: &[u64]) -> String {
    let quiet = per_second.iter().take_while(|&&count| count == 0).count();
    let busy = &per_second[quiet..];
    let counts: Vec<String> = busy.iter().map(u64::to_string).collect();
    let mean = busy.iter().sum::<u64>() as f64 / busy.len().max(1) as f64;
    let highest = busy.iter().copied().max().unwrap_or_default();
    format!("none for {quiet} s, then {}; the highest is {:.2} of the mean", counts.join(" "), highest as f64 / mean)
}

/// Memory of sessions that wait for their first refresh: nothing but set-ups goes on between the two readings.
fn memory(setup: &Setup, options: &Options) -> Result<String> {
    eprintln!("refresh: memory");
    let mut rig = start(setup, options, 10)?;
    let long = Options { least_s: 1800, most_s: 1800, ..options.clone() };
    let mut hold = |sessions: u64| -> Result<u64> {
        let outcome = rig.run(&plan(&long, MEMORY_PACE, sessions))?;
        ensure!(outcome.completed == sessions, "not every call could be set up: {outcome}");
        rig.peer.tree().resident_bytes()
    };
    let before = hold(MEMORY_WARM_UP_SESSIONS)?;
    let added = hold(options.sessions)?.saturating_sub(before);
    Ok(format!(
        "Resident memory per session that waits for its refresh, session description included: {:.2} KiB ({} KiB for {}).",
        added as f64 / options.sessions as f64 / 1024.0,
        grouped(added / 1024),
        grouped(options.sessions)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_time_is_half_the_interval_less_a_guard() {
        assert_eq!(latest(90), Duration::from_millis(40_500));
        assert_eq!(latest(1800), Duration::from_secs(895));
    }

    #[test]
    fn a_histogram_begins_with_the_first_refresh_and_tells_its_highest_second() {
        assert_eq!(histogram(&[0, 0, 10, 30, 20]), "none for 2 s, then 10 30 20; the highest is 1.50 of the mean");
    }
}
