//! Random calls through the sidecar, judged by the invariants and the reference model after every step.
//!
//! `SIPWARDEN_SIM_SEED` reruns one seed, `SIPWARDEN_SIM_SEEDS` sets how many are run.

use std::collections::BTreeMap;

use sipwarden_tests::sim::World;
use sipwarden_tests::sim::plan::random_world;
use sipwarden_tests::sim::trace;

const SEEDS: u64 = 300;
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

fn run(seed: u64, happened: &mut Happened) {
    let mut world = random_world(seed, CALLS);
    if let Err(error) = world.finish(MOST_STEPS) {
        let trace = trace::text(&world.log, &error);
        panic!("{trace}seed {seed}, at {} ms: {error}\nrerun with SIPWARDEN_SIM_SEED={seed}", world.now);
    }
    count(&world, happened);
}

fn count(world: &World, happened: &mut Happened) {
    let ends = world.reference.dialogs.iter().filter_map(|dialog| dialog.end).map(|end| format!("{end:?}"));
    let ends = ends.map(|end| end.split('(').next().unwrap_or_default().to_owned());
    let left = world.log.iter().filter(|crossing| !crossing.arrives).map(|crossing| crossing.kind());
    ends.chain(left).for_each(|what| *happened.entry(what).or_default() += 1);
}

#[test]
fn random_calls_keep_every_invariant() {
    let mut happened = Happened::new();
    if let Some(seed) = number("SIPWARDEN_SIM_SEED") {
        return run(seed, &mut happened);
    }
    let seeds = number("SIPWARDEN_SIM_SEEDS").unwrap_or(SEEDS);
    (1..=seeds).for_each(|seed| run(seed, &mut happened));
    println!("{happened:?}");
    let never: Vec<_> = WANTED.iter().filter(|what| !happened.contains_key(**what)).collect();
    assert!(never.is_empty() || seeds < SEEDS, "never happened: {never:?}");
}
