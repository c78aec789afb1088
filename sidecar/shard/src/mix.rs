//! A fast hash of what a request says, for names of its transaction and its way.
//!
//! It is no MAC, and need not be one. Seed and key are outputs of SipHash, the seed another one for each call, so nobody can
//! tell what it makes of a call he has no part in. Who has a part in it sees what it makes: he may work out the seed of that
//! call and make two requests of his own that hash alike, which harms only these. What must not be forged, the way back of
//! responses, is sealed with SipHash, under a key about which seeds and this key tell nothing.

/// What each byte of length adds, so that lengths differ in all bits.
const LENGTH_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Sixteen bytes at a time, by folded multiplication as wyhash does.
pub(super) struct Mix {
    state: u64,
    key: u64,
}

impl Mix {
    pub(super) fn new(seed: u64, key: u64) -> Mix {
        Mix { state: seed, key }
    }

    /// Take in two numbers.
    #[inline]
    pub(super) fn numbers(&mut self, one: u64, other: u64) {
        let product = u128::from(self.state ^ one) * u128::from(self.key ^ other);
        self.state = product as u64 ^ (product >> 64) as u64;
    }

    /// Take in a text and its length.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) {
        // Turned, so that the lengths of texts that follow each other do not add up. An empty text is one, too.
        self.state = self.state.rotate_left(29).wrapping_add(LENGTH_STEP.wrapping_mul(text.len() as u64 + 1));
        let (chunks, rest) = text.as_chunks();
        chunks.iter().for_each(|chunk| self.chunk(chunk));
        // What is left over, with what is before it.
        match text.last_chunk() {
            _ if rest.is_empty() => {}
            Some(last) => self.chunk(last),
            None => self.short(text),
        }
    }

    #[inline]
    fn chunk(&mut self, chunk: &[u8; 16]) {
        let words = u128::from_le_bytes(*chunk);
        self.numbers(words as u64, (words >> 64) as u64);
    }

    /// Take in less than a chunk: two words that overlap, or one that is not full.
    #[inline]
    fn short(&mut self, text: &[u8]) {
        match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => self.numbers(u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => self.numbers(text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        }
    }

    /// The hash of all that was taken in.
    pub(super) fn value(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash(seed: u64, key: u64, texts: &[&[u8]]) -> u64 {
        let mut mix = Mix::new(seed, key);
        texts.iter().for_each(|text| mix.text(text));
        mix.value()
    }

    #[test]
    fn a_byte_a_length_and_a_border_make_another_hash() {
        let mut seen = HashSet::new();
        let mut is_new = |texts: &[&[u8]]| assert!(seen.insert(hash(1, 2, texts)), "{texts:?}");
        for len in 0..50 {
            let text = vec![b'a'; len];
            is_new(&[&text]);
            for at in 0..len {
                let mut changed = text.clone();
                changed[at] = b'b';
                is_new(&[&changed]);
            }
            (0..=len).for_each(|at| is_new(&[&text[..at], &text[at..]]));
        }
    }

    #[test]
    fn seed_and_key_make_another_hash() {
        let texts: &[&[u8]] = &[b"sip:bob@example.com", b"1928301774"];
        let hashes = HashSet::from([hash(1, 2, texts), hash(3, 2, texts), hash(1, 4, texts), hash(2, 1, texts)]);
        assert_eq!(hashes.len(), 4);
    }

    #[test]
    fn hashes_spread_over_the_bits_that_loops_are_told_by() {
        let ways: HashSet<u32> =
            (0..10_000).map(|call| hash(7, 9, &[format!("sip:{call}@example.com").as_bytes()]) as u32).collect();
        assert!(ways.len() > 9_990, "{}", ways.len());
    }
}
