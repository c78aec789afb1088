//! Looking for bytes many at a time. Lines and values are short: what memchr needs to begin costs more than this.

use wide::u8x16;

/// How many bytes are compared at once.
const CHUNK_LEN: usize = 16;
const WORD_LEN: usize = 8;

/// A bit for each byte of `chunk` that is one of `bytes`, the lowest for the first.
#[inline]
pub(crate) fn mask<const N: usize>(chunk: &[u8; CHUNK_LEN], bytes: [u8; N]) -> u32 {
    let chunk = u8x16::new(*chunk);
    let found = bytes.iter().fold(u8x16::splat(0), |found, byte| found | chunk.simd_eq(u8x16::splat(*byte)));
    found.to_bitmask()
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

/// Where the line feeds of a text stand, one after the other.
pub(crate) struct LineFeeds<'b> {
    text: &'b [u8],
    /// Where the block at hand begins.
    at: usize,
    /// A bit for each line feed of the block that was not told yet.
    found: u64,
}

const BLOCK_LEN: usize = 4 * CHUNK_LEN;

impl<'b> LineFeeds<'b> {
    pub(crate) fn of(text: &'b [u8]) -> LineFeeds<'b> {
        let mut feeds = LineFeeds { text, at: 0, found: 0 };
        feeds.look();
        feeds
    }

    fn look(&mut self) {
        let rest = &self.text[self.at..];
        self.found = match rest.first_chunk() {
            Some(block) => in_block(block),
            None => {
                let mut block = [0; BLOCK_LEN];
                block[..rest.len()].copy_from_slice(rest);
                in_block(&block)
            }
        };
    }
}

#[inline]
fn in_block(block: &[u8; BLOCK_LEN]) -> u64 {
    let (chunks, _) = block.as_chunks();
    chunks.iter().rev().fold(0, |found, chunk| found << CHUNK_LEN | u64::from(mask(chunk, [b'\n'])))
}

impl Iterator for LineFeeds<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            if self.text.len() - self.at <= BLOCK_LEN {
                return None;
            }
            self.at += BLOCK_LEN;
            self.look();
        }
        let feed = self.at + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(feed)
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
    fn line_feeds_are_told_in_order() {
        for len in 0..300 {
            let text: Vec<u8> = (0..len).map(|at| if at % 7 == 3 || at % 64 > 61 { b'\n' } else { b'x' }).collect();
            let expected = (0..len).filter(|at| text[*at] == b'\n');
            assert!(LineFeeds::of(&text).eq(expected), "{len}");
        }
    }
}
