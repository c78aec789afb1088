//! A ring of entries, each with a text, bounded in bytes. It takes its room once; when there is none left the oldest goes.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use sipwarden_session_timer::Time;

/// Entries are kept this long at most.
pub const KEPT: Duration = Duration::from_secs(3600);

/// Entries with a head `H` each, numbered in rising order.
pub struct Ring<H> {
    entries: VecDeque<Entry<H>>,
    text: VecDeque<u8>,
    most_entries: usize,
    most_text: usize,
    /// Bytes of text that have gone.
    gone: u64,
    pushed: u64,
    lost: u64,
    /// When the newest of those lost was kept.
    last_lost: Option<Time>,
}

struct Entry<H> {
    number: u64,
    at: Time,
    /// Where its text ends, counted over all texts there ever were.
    end: u64,
    head: H,
}

/// An entry as it was read.
#[derive(Clone, Debug)]
pub struct Read<H> {
    /// Its number.
    pub number: u64,
    /// When it was kept.
    pub at: Time,
    /// The fixed part.
    pub head: H,
    /// The rest.
    pub text: Vec<u8>,
}

/// The text of an entry, to look at.
pub struct Text<'a> {
    whole: &'a VecDeque<u8>,
    range: Range<usize>,
}

impl<H: Clone> Ring<H> {
    /// Takes `bytes` for entries whose text has about `text_len` bytes; too few are none.
    pub fn new(bytes: usize, text_len: usize) -> Ring<H> {
        let most_entries = bytes / (size_of::<Entry<H>>() + text_len);
        let most_text = most_entries * text_len;
        Ring {
            entries: VecDeque::with_capacity(most_entries),
            text: VecDeque::with_capacity(most_text),
            most_entries,
            most_text,
            gone: 0,
            pushed: 0,
            lost: 0,
            last_lost: None,
        }
    }

    /// Keeps an entry, whose text is `parts` one behind the other. Returns how many were lost to it: pushed out before
    /// their hour was over, or itself, when it is too large for this ring.
    pub fn push(&mut self, number: u64, now: Time, head: H, parts: &[&[u8]]) -> u64 {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.most_entries == 0 || len > self.most_text / 4 {
            self.lost += 1;
            self.last_lost = Some(now);
            return 1;
        }
        while self.entries.front().is_some_and(|oldest| now.since(oldest.at) >= KEPT) {
            self.pop();
        }
        let before = self.lost;
        while self.entries.len() == self.most_entries || self.text.len() + len > self.most_text {
            self.last_lost = self.pop();
            self.lost += 1;
        }
        parts.iter().for_each(|part| self.text.extend(*part));
        let end = self.gone + self.text.len() as u64;
        self.entries.push_back(Entry { number, at: now, end, head });
        self.pushed += 1;
        self.lost - before
    }

    /// How many entries it holds.
    pub fn held(&self) -> usize {
        self.entries.len()
    }

    /// The number and time of the oldest.
    pub fn oldest(&self) -> Option<(u64, Time)> {
        self.entries.front().map(|entry| (entry.number, entry.at))
    }

    /// How many were lost before their hour was over.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Was anything lost that was kept at `time` or later?
    pub fn lost_since(&self, time: Time) -> bool {
        self.last_lost.is_some_and(|lost| lost >= time)
    }

    /// How many were ever kept.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Of all that were ever kept, those from the `next`th on, at most `most`; before them, how many of those have gone.
    pub fn read_from(&self, next: u64, most: usize) -> (u64, Vec<Read<H>>) {
        let first = self.pushed - self.entries.len() as u64;
        let start = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        let read = (start.min(self.entries.len())..self.entries.len()).take(most).map(|index| self.read(index));
        (first.saturating_sub(next), read.collect())
    }

    /// The last `most` of those with a number below `before`, oldest first.
    pub fn read_before(&self, before: u64, most: usize) -> Vec<Read<H>> {
        let end = self.entries.partition_point(|entry| entry.number < before);
        (end.saturating_sub(most)..end).map(|index| self.read(index)).collect()
    }

    /// Looks at the first `most` of those with a number above `after`: those wanted, and the number to go on behind, while
    /// there are more.
    pub fn find_after(
        &self,
        after: u64,
        most: usize,
        wanted: impl Fn(&H, &Text) -> bool,
    ) -> (Vec<Read<H>>, Option<u64>) {
        let start = self.entries.partition_point(|entry| entry.number <= after);
        let end = self.entries.len().min(start + most);
        let is_wanted =
            |index: &usize| wanted(&self.entries[*index].head, &Text { whole: &self.text, range: self.range(*index) });
        let found = (start..end).filter(is_wanted).map(|index| self.read(index)).collect();
        (found, (end < self.entries.len() && end > start).then(|| self.entries[end - 1].number))
    }

    fn read(&self, index: usize) -> Read<H> {
        let Entry { number, at, ref head, .. } = self.entries[index];
        Read { number, at, head: head.clone(), text: self.text.range(self.range(index)).copied().collect() }
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).map_or(self.gone, |before| self.entries[before].end);
        let place = |at: u64| usize::try_from(at - self.gone).expect("what is kept fits in memory");
        place(start)..place(self.entries[index].end)
    }

    /// Drops the oldest, and says when it was kept.
    fn pop(&mut self) -> Option<Time> {
        let entry = self.entries.pop_front()?;
        let len = usize::try_from(entry.end - self.gone).expect("what is kept fits in memory");
        self.text.drain(..len);
        self.gone = entry.end;
        Some(entry.at)
    }
}

impl Text<'_> {
    /// Is it `bytes`?
    pub fn is(&self, bytes: &[u8]) -> bool {
        self.range.len() == bytes.len() && self.starts_with(bytes)
    }

    /// Does it begin with `bytes`?
    pub fn starts_with(&self, bytes: &[u8]) -> bool {
        self.range.len() >= bytes.len()
            && self.whole.range(self.range.start..self.range.start + bytes.len()).eq(bytes.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn texts(read: &[Read<u32>]) -> Vec<String> {
        read.iter().map(|entry| String::from_utf8(entry.text.clone()).expect("text")).collect()
    }

    #[test]
    fn an_entry_is_read_as_it_was_kept() {
        let mut ring = Ring::new(4096, 16);
        ring.push(5, at(1), 7_u32, &[b"one", b" two"]);
        ring.push(9, at(2), 8, &[]);
        let read = ring.read_from(0, 10).1;
        assert_eq!((read[0].number, read[0].at, read[0].head), (5, at(1), 7));
        assert_eq!(texts(&read), ["one two", ""]);
        assert_eq!(texts(&ring.read_from(1, 10).1), [""]);
        assert_eq!(texts(&ring.read_before(9, 10)), ["one two"]);
        assert_eq!((ring.oldest(), ring.lost()), (Some((5, at(1))), 0));
    }

    #[test]
    fn after_an_hour_an_entry_goes_and_is_not_lost() {
        let mut ring = Ring::new(4096, 16);
        ring.push(1, at(0), 0_u32, &[b"old"]);
        ring.push(2, at(3599), 0, &[b"young"]);
        assert_eq!(ring.held(), 2);
        assert_eq!(ring.push(3, at(3600), 0, &[b"new"]), 0);
        assert_eq!(texts(&ring.read_from(0, 10).1), ["young", "new"]);
        assert_eq!(ring.lost(), 0);
    }

    #[test]
    fn what_does_not_fit_is_lost_and_counted() {
        let mut none = Ring::new(0, 16);
        assert_eq!((none.push(1, at(0), 0_u32, &[b"x"]), none.held(), none.lost()), (1, 0, 1));
        let mut small = Ring::new(size_of::<Entry<u32>>() + 16, 16);
        assert_eq!(small.push(1, at(0), 0_u32, &[&[b'x'; 17]]), 1, "larger than all");
        assert_eq!(small.push(2, at(0), 0, &[b"x"]), 0);
        assert_eq!(small.push(3, at(0), 0, &[b"y"]), 1, "the one before it");
        let (missed, left) = small.read_from(0, 10);
        assert_eq!((missed, texts(&left)), (1, vec!["y".to_owned()]));
        assert!(small.read_from(2, 10).1.is_empty());
    }

    #[test]
    fn entries_are_found_a_few_at_a_time() {
        let mut ring = Ring::new(8192, 8);
        for number in 1..=10_u64 {
            ring.push(number, at(0), number as u32, &[if number % 2 == 0 { b"even" } else { b"odd" }]);
        }
        let (mut found, mut after) = (Vec::new(), Some(0));
        while let Some(behind) = after {
            let (some, next) = ring.find_after(behind, 3, |head, text| *head > 2 && text.starts_with(b"ev"));
            found.extend(some.into_iter().map(|entry| entry.number));
            after = next;
        }
        assert_eq!(found, [4, 6, 8, 10]);
        assert!(ring.find_after(10, 3, |_, _| true).0.is_empty());
    }

    proptest! {
        #[test]
        fn it_never_takes_more_than_its_room(lens in prop::collection::vec(0usize..200, 1..300)) {
            let bytes = 4096;
            let mut ring = Ring::new(bytes, 40);
            let room = (ring.entries.capacity(), ring.text.capacity());
            let mut kept = VecDeque::new();
            for (number, len) in lens.iter().enumerate() {
                let text = vec![number as u8; *len];
                let before = ring.lost();
                let lost = ring.push(number as u64, at(0), number, &[&text]);
                prop_assert_eq!(ring.lost() - before, lost);
                kept.push_back(text);
                prop_assert_eq!((ring.entries.capacity(), ring.text.capacity()), room);
                let size = ring.entries.len() * size_of::<Entry<usize>>() + ring.text.len();
                prop_assert!(size <= bytes);
            }
            for entry in ring.read_from(0, usize::MAX).1 {
                prop_assert_eq!(&entry.text, &kept[entry.head]);
            }
            prop_assert_eq!(ring.held() as u64 + ring.lost(), lens.len() as u64);
        }
    }
}
