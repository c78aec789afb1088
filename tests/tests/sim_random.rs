//! Random calls through the sidecar, judged by the invariants and the reference model after every step.
//!
//! `SIPWARDEN_SIM_SEED` reruns one seed, `SIPWARDEN_SIM_SEEDS` sets how many are run.

use std::collections::BTreeMap;

use sipwarden_tests::sim::World;
use sipwarden_tests::sim::plan::{random_acting_world, random_world};
use sipwarden_tests::sim::trace;

const SEEDS: u64 = 300;
/// Where sidecars stand in, more happens in each.
const ACTING_SEEDS: u64 = 150;
const CALLS: u64 = 6;
const MOST_STEPS: u64 = 200_000;

/// What must have happened somewhere: ends of sessions, and what left the sidecar.
const WANTED: [&str; 12] = [
    "Bye",
    "Expired",
    "Response",
    "Forgotten",
    "422 INVITE",
    "422 UPDATE",
    "481 UPDATE",
    "487 INVITE",
    "491 INVITE",
    "400 INVITE",
    "PRACK",
    "INFO",
];

/// How often what happened; a run in which something never happens tells nothing about it.
type Happened = BTreeMap<String, u64>;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// What must have happened where sidecars stand in.
const WANTED_ACTING: [&str; 21] = [
    "Bye",
    "Expired",
    "RefreshFailed",
    "AppGone",
    "ActsForApp",
    "Retried",
    "RefreshSent",
    "Refreshed",
    "NotRefreshed",
    "AnsweredForApp",
    "ProbeSent",
    "ProbeFailed",
    "Glare",
    "TimerOff",
    "422 INVITE",
    "422 UPDATE",
    "491 INVITE",
    "481 OPTIONS",
    "488 INVITE",
    "PRACK",
    "CANCEL",
];

fn run(mut world: World, seed: u64, happened: &mut Happened) {
    if let Err(error) = world.finish(MOST_STEPS) {
        let trace = trace::text(&world.log, &error);
        panic!("{trace}seed {seed}, at {} ms: {error}\nrerun with SIPWARDEN_SIM_SEED={seed}", world.now);
    }
    count(&world, happened);
}

fn count(world: &World, happened: &mut Happened) {
    let word = |text: String| text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned();
    let ends = world.reference.dialogs.iter().filter_map(|dialog| dialog.end);
    let held = (0..2).filter_map(|number| world.watch(number)).flat_map(|watch| &watch.dialogs);
    let ends = ends.chain(held.filter_map(|held| held.end)).map(|end| word(format!("{end:?}")));
    let told = world.events.iter().map(|(_, _, event)| word(format!("{:?}", event.kind)));
    let crossed = world.log.iter().map(|crossing| crossing.kind());
    ends.chain(told).chain(crossed).for_each(|what| *happened.entry(what).or_default() += 1);
}

/// Runs the worlds of the seeds that are asked for; each of `wanted` must have happened in one of them.
fn run_all(most: u64, world_of: impl Fn(u64) -> World, wanted: &[&str]) {
    let mut happened = Happened::new();
    if let Some(seed) = number("SIPWARDEN_SIM_SEED") {
        return run(world_of(seed), seed, &mut happened);
    }
    let seeds = number("SIPWARDEN_SIM_SEEDS").unwrap_or(most);
    (1..=seeds).for_each(|seed| run(world_of(seed), seed, &mut happened));
    println!("{happened:?}");
    let never: Vec<_> = wanted.iter().filter(|what| !happened.contains_key(**what)).collect();
    assert!(never.is_empty() || seeds < most, "never happened: {never:?}");
}

#[test]
fn random_calls_keep_every_invariant() {
    run_all(SEEDS, |seed| random_world(seed, CALLS), &WANTED);
}

#[test]
fn random_calls_of_apps_without_timers_keep_every_invariant() {
    run_all(ACTING_SEEDS, |seed| random_acting_world(seed, CALLS), &WANTED_ACTING);
}
