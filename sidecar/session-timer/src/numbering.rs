//! The CSeq space of one direction of a dialog, shared by the side that speaks and by the requests we send in its name.
//!
//! A number of ours stands behind all that the side has used; what the side sends from then on is shifted past it. A
//! shift holds from one number of the side on, so that retransmissions, ACK, CANCEL and responses of older requests keep
//! the mapping they began with.

/// CSeq numbers are below 2^31 (RFC 3261 §8.1.1.5).
const MOST: u32 = (1 << 31) - 1;
/// Shifts remembered. One is added when the side has spoken since our last number; what is older than the oldest has
/// long been answered.
const SHIFTS: usize = 3;

/// Numbers as the side sends them (`own`) and as they leave us (`leaving`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// The highest own number.
    own: Option<u32>,
    /// The highest leaving number, ours included.
    leaving: Option<u32>,
    /// What is added to numbers before the first shift.
    base: u32,
    /// Ascending; the first `count` hold.
    shifts: [Shift; SHIFTS],
    count: u8,
}

/// From this own number on, this much is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shift {
    from: u32,
    by: u32,
}

impl Numbering {
    /// The side sent a request with this number, perhaps again: the number it leaves with.
    pub(crate) fn pass(&mut self, number: u32) -> u32 {
        self.own = self.own.max(Some(number));
        let leaving = self.leaves_as(number);
        self.leaving = self.leaving.max(Some(leaving));
        leaving
    }

    /// The number that a request of the side left with: for what refers to it (ACK, CANCEL, RAck).
    pub(crate) fn leaves_as(&self, number: u32) -> u32 {
        let shift = self.shifts().iter().rev().find(|shift| shift.from <= number);
        match number.checked_add(shift.map_or(self.base, |shift| shift.by)) {
            Some(leaving) if leaving <= MOST => leaving,
            // The peer will refuse what is beyond the end of its space; that is better than what wraps.
            _ => number,
        }
    }

    /// The side's number of a request that left with this one; `None` for a number of ours.
    pub(crate) fn came_as(&self, leaving: u32) -> Option<u32> {
        let shifts = self.shifts();
        let mut before = None;
        for shift in shifts.iter().rev() {
            if let Some(own) = leaving.checked_sub(shift.by).filter(|own| *own >= shift.from) {
                return Some(own).filter(|own| before.is_none_or(|before| *own < before));
            }
            before = Some(shift.from);
        }
        let own = leaving.checked_sub(self.base)?;
        Some(own).filter(|own| before.is_none_or(|before| *own < before))
    }

    /// A number for a request of ours; `None` at the end of the space. A side that never spoke has an empty space (RFC
    /// 3261 §12.2.1.1): it begins behind `other`, the other direction's last number, which no peer can take for an old one.
    pub(crate) fn reserve(&mut self, other: Option<u32>) -> Option<u32> {
        let number = self.leaving.or(other).unwrap_or(0) + 1;
        if number > MOST {
            return None;
        }
        self.leaving = Some(number);
        match self.own {
            Some(own) => self.shift(own + 1, number - own),
            None => self.shift(0, number + 1),
        }
        Some(number)
    }

    /// The side's newest request goes out once more, as another: its number from now on. `None` when the side has sent
    /// another since, or the space ends.
    pub(crate) fn renumber(&mut self, number: u32) -> Option<u32> {
        let leaving = self.leaving.filter(|leaving| *leaving < MOST)? + 1;
        if self.own != Some(number) {
            return None;
        }
        self.leaving = Some(leaving);
        self.shift(number, leaving - number);
        Some(leaving)
    }

    /// Does any number leave as another than it came?
    pub(crate) fn is_shifted(&self) -> bool {
        self.count > 0
    }

    /// The highest number that left, ours included.
    pub(crate) fn highest(&self) -> Option<u32> {
        self.leaving
    }

    fn shifts(&self) -> &[Shift] {
        &self.shifts[..usize::from(self.count)]
    }

    fn shift(&mut self, from: u32, by: u32) {
        let mut count = usize::from(self.count);
        // A shift that nothing was sent under holds no more.
        while count > 0 && self.shifts[count - 1].from >= from {
            count -= 1;
        }
        if count == SHIFTS {
            self.base = self.shifts[0].by;
            self.shifts.rotate_left(1);
            count -= 1;
        }
        self.shifts[count] = Shift { from, by };
        self.count = count as u8 + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_pass_unchanged_until_one_is_reserved() {
        let mut numbers = Numbering::default();
        assert_eq!([5, 6, 6, 9].map(|number| numbers.pass(number)), [5, 6, 6, 9]);
        assert_eq!(numbers.reserve(None), Some(10));
        assert_eq!(numbers.reserve(None), Some(11));
        assert_eq!([10, 11, 9, 10].map(|number| numbers.pass(number)), [12, 13, 9, 12]);
        assert_eq!(
            [9, 10, 11, 12, 13].map(|leaving| numbers.came_as(leaving)),
            [Some(9), None, None, Some(10), Some(11)]
        );
    }

    #[test]
    fn what_comes_in_the_wrong_order_never_gets_a_number_of_ours() {
        let mut numbers = Numbering::default();
        numbers.pass(1);
        assert_eq!(numbers.reserve(None), Some(2));
        assert_eq!((numbers.pass(3), numbers.pass(2)), (4, 3));
    }

    #[test]
    fn a_side_that_never_spoke_starts_behind_ours() {
        let mut numbers = Numbering::default();
        assert_eq!(numbers.reserve(Some(100)), Some(101));
        assert_eq!(numbers.reserve(Some(100)), Some(102));
        assert!(numbers.pass(0) > 102);
        assert!(numbers.pass(1) > 103);
        let mut high = Numbering::default();
        high.reserve(Some(5));
        assert_eq!(high.pass(MOST), MOST, "it is beyond ours as it is");
    }

    #[test]
    fn a_request_that_goes_out_again_has_the_next_number_from_then_on() {
        let mut numbers = Numbering::default();
        numbers.pass(7);
        assert_eq!((numbers.renumber(7), numbers.renumber(7)), (Some(8), Some(9)));
        assert_eq!((numbers.leaves_as(7), numbers.pass(8)), (9, 10));
        assert_eq!([7, 8, 9, 10].map(|leaving| numbers.came_as(leaving)), [None, None, Some(7), Some(8)]);
        assert_eq!(numbers.renumber(7), None, "no longer the newest");
    }

    #[test]
    fn the_space_ends_before_it_wraps() {
        let mut numbers = Numbering::default();
        numbers.pass(MOST);
        assert_eq!((numbers.reserve(None), numbers.renumber(MOST)), (None, None));
    }

    proptest! {
        /// No number leaves twice for different requests, order is kept, and every answer finds its request.
        #[test]
        fn numbers_stay_unique_ordered_and_reversible(
            start in 0u32..5000, other in prop::option::of(0u32..5000),
            steps in prop::collection::vec((0u8..6, 1u32..4), 1..60),
        ) {
            let mut numbers = Numbering::default();
            let mut own = start;
            let mut left: Vec<(u32, Option<u32>)> = Vec::new();
            for (step, gap) in steps {
                match step {
                    0..3 => {
                        own += gap;
                        let leaving = numbers.pass(own);
                        left.push((leaving, Some(own)));
                    }
                    3 if left.last().is_some_and(|(_, number)| number.is_some()) => {
                        let (_, number) = left.last_mut().expect("one");
                        let again = number.take().expect("of the side");
                        let leaving = numbers.renumber(again).expect("the newest");
                        left.push((leaving, Some(again)));
                    }
                    _ => left.push((numbers.reserve(other).expect("far from the end"), None)),
                }
                prop_assert!(left.is_sorted_by(|(one, _), (next, _)| one < next), "{left:?}");
                let newest = left.len().saturating_sub(4);
                for &(leaving, number) in &left[newest..] {
                    prop_assert_eq!(numbers.came_as(leaving), number, "{:?} in {:?}", leaving, left);
                    if let Some(number) = number {
                        prop_assert_eq!(numbers.leaves_as(number), leaving);
                    }
                }
            }
        }
    }
}
