//! Looking for bytes many at a time. Lines and values are short: what memchr needs to begin costs more than this.

use wide::u8x16;

/// How many bytes are compared at once.
pub(crate) const CHUNK_LEN: usize = 16;
const WORD_LEN: usize = 8;

/// A bit for each byte of `chunk` that is one of `bytes`, the lowest for the first.
#[inline]
pub(crate) fn mask<const N: usize>(chunk: &[u8; CHUNK_LEN], bytes: [u8; N]) -> u32 {
    let chunk = u8x16::new(*chunk);
    let found = bytes.iter().fold(u8x16::splat(0), |found, byte| found | chunk.simd_eq(u8x16::splat(*byte)));
    found.to_bitmask()
}

/// A bit for each byte that both have at the same place.
#[inline]
pub(crate) fn equal(one: &[u8; CHUNK_LEN], other: &[u8; CHUNK_LEN]) -> u32 {
    u8x16::new(*one).simd_eq(u8x16::new(*other)).to_bitmask()
}

#[inline]
fn first(mask: u32) -> Option<usize> {
    (mask != 0).then(|| mask.trailing_zeros() as usize)
}

/// Where one of `bytes` stands first.
#[inline]
pub(crate) fn find_any<const N: usize>(text: &[u8], bytes: [u8; N]) -> Option<usize> {
    let (chunks, rest) = text.as_chunks();
    for (index, chunk) in chunks.iter().enumerate() {
        if let Some(found) = first(mask(chunk, bytes)) {
            return Some(index * CHUNK_LEN + found);
        }
    }
    // What is left over, with bytes before it in which nothing was found.
    match text.last_chunk() {
        _ if rest.is_empty() => None,
        Some(last) => first(mask(last, bytes)).map(|found| text.len() - CHUNK_LEN + found),
        None => find_in_short(text, bytes),
    }
}

/// Where `byte` stands first.
#[inline]
pub(crate) fn find(text: &[u8], byte: u8) -> Option<usize> {
    find_any(text, [byte])
}

/// In less than a chunk: by words.
#[inline]
fn find_in_short<const N: usize>(text: &[u8], bytes: [u8; N]) -> Option<usize> {
    match (text.first_chunk(), text.last_chunk()) {
        (Some(head), Some(tail)) => {
            find_in_word(head, bytes).or_else(|| find_in_word(tail, bytes).map(|found| text.len() - WORD_LEN + found))
        }
        _ => text.iter().position(|other| bytes.contains(other)),
    }
}

#[inline]
fn find_in_word<const N: usize>(word: &[u8; WORD_LEN], bytes: [u8; N]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH_BITS: u64 = ONES << 7;
    let word = u64::from_le_bytes(*word);
    // Zero where the byte is. The lowest borrow of all that subtracting ones makes comes from the first zero.
    let zeros = |differing: u64| differing.wrapping_sub(ONES) & !differing & HIGH_BITS;
    let found = bytes.iter().fold(0, |found, byte| found | zeros(word ^ (ONES * u64::from(*byte))));
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Where bytes that are one of `N` stand in a text, one after the other.
pub(crate) struct Positions<'b, const N: usize> {
    text: &'b [u8],
    bytes: [u8; N],
    /// Where the block at hand begins.
    at: usize,
    /// A bit for each place in the block that was not told yet.
    found: u64,
}

const BLOCK_LEN: usize = 4 * CHUNK_LEN;

impl<'b, const N: usize> Positions<'b, N> {
    #[inline]
    pub(crate) fn of(text: &'b [u8], bytes: [u8; N]) -> Positions<'b, N> {
        let mut positions = Positions { text, bytes, at: 0, found: 0 };
        positions.look();
        positions
    }

    /// Goes on behind what is before `at`.
    #[inline]
    pub(crate) fn skip_to(&mut self, at: usize) {
        while at >= self.at + BLOCK_LEN && self.look_further() {}
        let passed = at.saturating_sub(self.at);
        self.found = if passed < BLOCK_LEN { self.found >> passed << passed } else { 0 };
    }

    #[inline]
    fn look_further(&mut self) -> bool {
        let more = self.text.len() - self.at > BLOCK_LEN;
        if more {
            self.at += BLOCK_LEN;
            self.look();
        }
        more
    }

    #[inline]
    fn look(&mut self) {
        let rest = &self.text[self.at..];
        self.found = match rest.first_chunk() {
            Some(block) => in_block(block, self.bytes),
            None => in_rest(rest, self.bytes),
        };
    }
}

#[inline]
fn in_block<const N: usize>(block: &[u8; BLOCK_LEN], bytes: [u8; N]) -> u64 {
    let (chunks, _) = block.as_chunks();
    chunks.iter().rev().fold(0, |found, chunk| found << CHUNK_LEN | u64::from(mask(chunk, bytes)))
}

/// In less than a block.
#[inline]
fn in_rest<const N: usize>(rest: &[u8], bytes: [u8; N]) -> u64 {
    let Some(last) = rest.last_chunk() else {
        let mut chunk = [0; CHUNK_LEN];
        chunk[..rest.len()].copy_from_slice(rest);
        let inside = (1 << rest.len()) - 1;
        return u64::from(mask(&chunk, bytes) & inside);
    };
    let (chunks, _) = rest.as_chunks();
    // The last chunk tells some places a second time.
    let last = u64::from(mask(last, bytes)) << (rest.len() - CHUNK_LEN);
    chunks
        .iter()
        .enumerate()
        .fold(last, |found, (index, chunk)| found | u64::from(mask(chunk, bytes)) << (index * CHUNK_LEN))
}

impl<const N: usize> Iterator for Positions<'_, N> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            if !self.look_further() {
                return None;
            }
        }
        let place = self.at + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands() {
        // Those that differ from it by a bit, and those that a borrow could change.
        for other in [b'x', 0, b'\n' ^ 1, b'\n' ^ 0x80, 0xff] {
            for len in 0..70 {
                let mut text = vec![other; len];
                assert_eq!(find(&text, b'\n'), None);
                text.extend_from_slice(&[b'\n', other, b'\n']);
                for from in 0..=len {
                    assert_eq!(find(&text[from..], b'\n'), Some(len - from), "{other} from {from} of {len}");
                    assert_eq!(find(&text[from..len], b'\n'), None, "{other} from {from} to {len}");
                }
                assert_eq!(find(&text[len + 1..], b'\n'), Some(1));
            }
        }
    }

    #[test]
    fn the_first_of_several_bytes_is_found() {
        for len in 0..40 {
            let text = [&vec![b'x'; len][..], b";=;"].concat();
            for bytes in [[b';', b'='], [b'=', b';']] {
                assert_eq!(find_any(&text, bytes), Some(len), "{len}");
                assert_eq!(find_any(&text[..len], bytes), None, "{len}");
            }
        }
    }

    #[test]
    fn positions_are_told_in_order_and_may_be_skipped() {
        for len in 0..300 {
            let text: Vec<u8> = (0..len).map(|at| if at % 7 == 3 || at % 64 > 61 { b'\n' } else { 0 }).collect();
            let expected = || (0..len).filter(|at| text[*at] == b'\n');
            assert!(Positions::of(&text, [b'\n', b'x']).eq(expected()), "{len}");
            for from in (0..len + 2).step_by(5) {
                let mut positions = Positions::of(&text, [b'\n']);
                let first = positions.next();
                positions.skip_to(from);
                let expected = expected().filter(|at| *at >= from && Some(*at) != first);
                assert!(positions.eq(expected), "from {from} of {len}");
            }
        }
    }

    #[test]
    fn what_fills_up_a_short_text_is_not_found() {
        assert_eq!(Positions::of(b"ab", [0]).count(), 0);
    }
}
