//! Random numbers that a seed repeats (splitmix64).

use std::ops::Range;

/// The only source of chance in a simulation.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator of its own, so that who draws more does not change what others draw.
    pub fn fork(&mut self) -> Rng {
        Rng(self.draw())
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of the range, its start when it is empty.
    pub fn range(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start + self.draw() % width
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.draw() % items.len() as u64) as usize]
    }

    /// `value` in `percent` of 100 cases.
    pub fn maybe<T>(&mut self, percent: u64, value: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        self.chance(percent).then(|| value(self))
    }
}
