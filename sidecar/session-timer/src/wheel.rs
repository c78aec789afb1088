//! A two-level timer wheel: entries are put in and fall out when due. Nothing is ever taken out early; the owner keeps
//! the truth (when something is really due) and ignores or re-inserts an entry that comes too soon. So re-arming a
//! session, the most frequent thing to happen to one, costs nothing here.

use crate::Time;

/// Milliseconds of one slot of the first level: no entry fires early, and none later than this after its time.
const TICK_MS: u64 = 16;
const SLOT_BITS: u32 = 12;
const SLOTS: usize = 1 << SLOT_BITS;
const MASK: u64 = SLOTS as u64 - 1;

/// The first level spans 65 s in ticks, the second 74 h in blocks of 65 s; what lies beyond waits in the last block.
pub(crate) struct Wheel<T> {
    /// The last tick that was fully handled.
    cursor: u64,
    ticks: Level<T>,
    blocks: Level<T>,
    next: Option<u64>,
}

#[derive(Clone, Copy)]
struct Entry<T> {
    tick: u64,
    key: T,
}

struct Level<T> {
    slots: Vec<Vec<Entry<T>>>,
    occupied: [u64; SLOTS / 64],
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Wheel<T> {
        Wheel { cursor: 0, ticks: Level::new(), blocks: Level::new(), next: None }
    }

    /// `key` comes out of the first [`Self::advance`] at or after `at`.
    pub(crate) fn insert(&mut self, at: Time, key: T) {
        let tick = at.as_millis().div_ceil(TICK_MS).max(self.cursor + 1);
        let fires_or_moves = self.place(Entry { tick, key });
        self.next = Some(self.next.map_or(fires_or_moves, |next| next.min(fires_or_moves)));
    }

    /// Append every key due at `now` to `due`.
    pub(crate) fn advance(&mut self, now: Time, due: &mut Vec<T>) {
        let now_tick = now.as_millis() / TICK_MS;
        while let Some(tick) = self.next.filter(|&tick| tick <= now_tick) {
            if tick & MASK == 0 {
                for entry in self.blocks.take((tick >> SLOT_BITS) & MASK) {
                    // The cursor is one behind while a block is spread, so that its first tick still has a slot.
                    self.cursor = tick - 1;
                    self.place(entry);
                }
            }
            self.cursor = tick;
            due.extend(self.ticks.take(tick & MASK).into_iter().map(|entry| entry.key));
            self.next = self.find_next();
        }
        // Safe to skip: no slot between the old cursor and here is occupied, and no block begins unspread in between.
        self.cursor = self.cursor.max(now_tick);
    }

    /// When [`Self::advance`] next has something to do.
    pub(crate) fn next(&self) -> Option<Time> {
        self.next.map(|tick| Time::from_millis(tick * TICK_MS))
    }

    /// Returns the tick at which the entry fires or is moved to the first level.
    fn place(&mut self, entry: Entry<T>) -> u64 {
        // The slot of `cursor` itself is free again: it is the one of a full turn later.
        if entry.tick <= self.cursor + SLOTS as u64 {
            self.ticks.put(entry.tick & MASK, entry);
            return entry.tick;
        }
        let last_block = (self.cursor >> SLOT_BITS) + MASK;
        let block = (entry.tick >> SLOT_BITS).min(last_block);
        self.blocks.put(block & MASK, entry);
        block << SLOT_BITS
    }

    fn find_next(&self) -> Option<u64> {
        let tick = self.ticks.next_after(self.cursor);
        let block = self.blocks.next_after(self.cursor >> SLOT_BITS).map(|block| block << SLOT_BITS);
        match (tick, block) {
            (Some(tick), Some(block)) => Some(tick.min(block)),
            (tick, block) => tick.or(block),
        }
    }
}

impl<T> Level<T> {
    fn new() -> Level<T> {
        Level { slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(), occupied: [0; SLOTS / 64] }
    }

    fn put(&mut self, slot: u64, entry: Entry<T>) {
        self.slots[slot as usize].push(entry);
        self.occupied[slot as usize / 64] |= 1 << (slot % 64);
    }

    fn take(&mut self, slot: u64) -> Vec<Entry<T>> {
        self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
        std::mem::take(&mut self.slots[slot as usize])
    }

    /// The first occupied position after `position`, counted on round the circle.
    fn next_after(&self, position: u64) -> Option<u64> {
        let start = position + 1;
        let words = self.occupied.len() as u64;
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index as usize];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                return Some((start / 64 + step) * 64 + u64::from(word.trailing_zeros()));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel<u32>, now: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(Time::from_millis(now), &mut due);
        due
    }

    #[test]
    fn an_entry_fires_at_its_time_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.insert(Time::from_millis(1000), 1);
        assert!(fired(&mut wheel, 999).is_empty());
        assert_eq!(fired(&mut wheel, 1000 + TICK_MS), [1]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn an_entry_in_the_past_fires_at_the_next_advance() {
        let mut wheel = Wheel::new();
        assert!(fired(&mut wheel, 10_000).is_empty());
        wheel.insert(Time::from_millis(5), 1);
        assert_eq!(fired(&mut wheel, 10_000 + TICK_MS), [1]);
    }

    #[test]
    fn an_entry_beyond_the_second_level_still_fires_on_time() {
        let mut wheel = Wheel::new();
        let week = 7 * 24 * 3600 * 1000;
        wheel.insert(Time::from_millis(week), 1);
        let mut at = 0;
        let seen = loop {
            let Some(next) = wheel.next() else { panic!("lost") };
            assert!(next.as_millis() > at, "progress");
            at = next.as_millis();
            if !fired(&mut wheel, at).is_empty() {
                break at;
            }
        };
        assert!((week..week + TICK_MS).contains(&seen), "{seen}");
    }

    proptest! {
        #[test]
        fn every_entry_fires_once_within_a_tick_of_its_time(
            steps in prop::collection::vec((0u64..200_000, 0u64..400_000_000), 1..60)
        ) {
            let mut wheel = Wheel::new();
            let mut now = 0;
            let mut open: Vec<(u32, u64)> = Vec::new();
            let check = |wheel: &mut Wheel<u32>, open: &mut Vec<(u32, u64)>, now: u64| {
                for key in fired(wheel, now) {
                    let position = open.iter().position(|&(k, _)| k == key).expect("fired once");
                    let (_, at) = open.swap_remove(position);
                    prop_assert!(at <= now, "early: {at} at {now}");
                }
                for &(_, at) in open.iter() {
                    prop_assert!(at + TICK_MS > now, "late: {at} at {now}");
                }
                Ok(())
            };
            for (key, (step, after)) in steps.into_iter().enumerate() {
                now += step;
                check(&mut wheel, &mut open, now)?;
                open.push((key as u32, now + after));
                wheel.insert(Time::from_millis(now + after), key as u32);
            }
            while let Some(next) = wheel.next() {
                now = now.max(next.as_millis());
                check(&mut wheel, &mut open, now)?;
            }
            prop_assert!(open.is_empty());
        }
    }
}
