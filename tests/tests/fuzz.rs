//! Runs the fuzz targets for a bounded number of random inputs. `BOLERO_RANDOM_ITERATIONS` runs them longer,
//! `BOLERO_RANDOM_SEED` repeats the one a failure names.

use std::sync::atomic::{AtomicUsize, Ordering};

use bolero::{ValueGenerator, check, produce};
use sipwarden_session_timer::Leg;
use sipwarden_tests::fuzz::{self, Mutation, Step};

/// Which seed, and what is done to it.
type Mutant = (u8, Vec<Mutation>);

fn mutants() -> impl ValueGenerator<Output = Mutant> {
    (produce::<u8>(), produce::<Vec<Mutation>>().with().len(0usize..=4))
}

fn bytes_of(seeds: &[Vec<u8>], (seed, mutations): &Mutant) -> Vec<u8> {
    fuzz::mutate(&seeds[usize::from(*seed) % seeds.len()], mutations)
}

#[test]
fn every_message_of_rfc_4475_keeps_the_promises() {
    for seed in fuzz::seeds() {
        fuzz::framing(&seed, 1..=3);
        fuzz::index(&seed);
        fuzz::edit_round_trip(&seed);
        for leg in Leg::BOTH {
            fuzz::sequence(&[
                (0, Step::Packet(leg, seed.clone())),
                (10, Step::Packet(leg.other(), seed.clone())),
                (10, Step::Answer(0, 200, Vec::new())),
            ]);
        }
    }
}

#[test]
fn a_tag_without_a_value_breaks_nothing() {
    let invite = String::from_utf8(fuzz::call()[0].clone()).expect("text");
    for tag in [";tag", ";tag=", ";tag=a"] {
        let invite = invite.replace(";tag=a", tag).into_bytes();
        let answer = Step::Answer(0, 200, Vec::new());
        assert_eq!(
            fuzz::sequence(&[(0, Step::Packet(Leg::Remote, invite)), (9, answer)]),
            usize::from(tag == ";tag=a")
        );
    }
}

#[test]
fn framing_does_not_depend_on_how_a_stream_is_cut() {
    let seeds = fuzz::seeds();
    let streams = (mutants(), mutants(), produce::<u8>());
    check!().with_generator(streams).with_iterations(20_000).for_each(|(first, second, size)| {
        let stream = [bytes_of(&seeds, first), bytes_of(&seeds, second)].concat();
        let size = usize::from(*size) + 1;
        fuzz::framing(&stream, size..=size);
    });
}

#[test]
fn whatever_is_indexed_can_be_read() {
    let seeds = fuzz::seeds();
    check!()
        .with_generator(mutants())
        .with_iterations(80_000)
        .for_each(|mutant| fuzz::index(&bytes_of(&seeds, mutant)));
}

#[test]
fn edits_change_only_what_they_name() {
    let seeds = fuzz::seeds();
    check!().with_generator(mutants()).with_iterations(80_000).for_each(|mutant| {
        fuzz::edit_round_trip(&bytes_of(&seeds, mutant));
    });
}

#[test]
fn no_sequence_of_messages_breaks_a_shard() {
    let (call, seeds) = (fuzz::call(), fuzz::seeds());
    let sessions = AtomicUsize::new(0);
    // Pause, what kind of step, a number for it, mutations of which most are left out.
    let step = (produce::<u16>(), produce::<u8>(), produce::<u8>(), produce::<Vec<Mutation>>().with().len(0usize..=2));
    let steps = produce::<Vec<_>>().with().values(step).len(1usize..=14);
    check!().with_generator(steps).with_iterations(10_000).for_each(|raw| {
        let mut steps = vec![(0, Step::Packet(Leg::Remote, call[0].clone()))];
        steps.extend(raw.iter().map(|(pause, kind, number, mutations)| {
            let mutations = if kind % 3 == 0 { mutations.clone() } else { Vec::new() };
            let leg = if kind % 2 == 0 { Leg::Local } else { Leg::Remote };
            let step = match kind % 8 {
                0 => Step::Packet(leg, bytes_of(&seeds, &(*number, mutations))),
                1..4 => Step::Packet(Leg::Remote, bytes_of(&call, &(*number, mutations))),
                _ => Step::Answer(number % 3, [200, 200, 180, 422, 481][usize::from(*number) % 5], mutations),
            };
            (u32::from(*pause) / (1 + u32::from(*kind)), step)
        }));
        sessions.fetch_add(fuzz::sequence(&steps), Ordering::Relaxed);
    });
    assert!(sessions.into_inner() > 0, "no sequence got as far as a session");
}
