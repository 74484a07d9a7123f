//! The content of a measured message. Every byte follows from its number, so that it is written and read in full.
//!
//! ```text
//! bytes 0..8  the number
//! the rest    8-byte words: a hash of the number + index of the word; the last word is cut off at the end of the message
//! ```
//!
//! A message may have any length; one of less than 8 bytes holds the first bytes of its number.

use serde::{Deserialize, Serialize};

const WORD: usize = 8;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The shortest message whose number can be read back.
pub(super) const NUMBER_BYTES: usize = WORD;

/// Writes the message of this number.
#[inline]
pub(super) fn write(message: &mut [u8], number: u64) {
    let mixed = number.wrapping_mul(MIX);
    let (words, rest) = message.as_chunks_mut::<WORD>();
    let full = words.len();
    for (index, word) in words.iter_mut().enumerate() {
        *word = mixed.wrapping_add(index as u64).to_le_bytes();
    }
    rest.copy_from_slice(&mixed.wrapping_add(full as u64).to_le_bytes()[..rest.len()]);
    let number_bytes = message.len().min(WORD);
    message[..number_bytes].copy_from_slice(&number.to_le_bytes()[..number_bytes]);
}

/// The number of a message; `None` if any byte of it is not what was written.
#[inline]
pub(super) fn number(message: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(*message.first_chunk()?);
    is(message, number).then_some(number)
}

/// Whether every byte is that of the message with this number.
#[inline]
pub(super) fn is(message: &[u8], number: u64) -> bool {
    let mixed = number.wrapping_mul(MIX);
    let (words, rest) = message.as_chunks::<WORD>();
    let Some((first, words)) = words.split_first() else { return number.to_le_bytes().starts_with(message) };
    // No branch per word, so that this costs little compared with the message itself.
    let word_differs = |(word, expected): (&[u8; WORD], u64)| u64::from_le_bytes(*word) ^ mixed.wrapping_add(expected);
    let differs = words.iter().zip(1..).map(word_differs).fold(0, |differs, word| differs | word);
    let is_cut = || mixed.wrapping_add(words.len() as u64 + 1).to_le_bytes().starts_with(rest);
    differs | (u64::from_le_bytes(*first) ^ number) == 0 && (rest.is_empty() || is_cut())
}

/// Whether every byte of a part is that of the message with this number. The part begins at a whole word, which is given in bytes.
#[inline]
pub(super) fn part_is(part: &[u8], begin: usize, number: u64) -> bool {
    let (words, rest) = part.as_chunks::<WORD>();
    let word_at = |index: usize| match begin / WORD + index {
        0 => number,
        at => number.wrapping_mul(MIX).wrapping_add(at as u64),
    };
    let Some((first, others)) = words.split_first() else { return word_at(0).to_le_bytes().starts_with(part) };
    let second = word_at(1);
    let word_differs = |(word, at): (&[u8; WORD], u64)| u64::from_le_bytes(*word) ^ second.wrapping_add(at);
    let differs = others.iter().zip(0..).map(word_differs).fold(0, |differs, word| differs | word);
    let is_first = u64::from_le_bytes(*first) == word_at(0);
    differs == 0 && is_first && word_at(words.len()).to_le_bytes().starts_with(rest)
}

/// The messages that have come. Expected are the numbers 0, 1, 2 and so on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(super) struct Tally {
    pub(super) received: u64,
    /// Those that are not, byte by byte, the expected one.
    pub(super) spoilt: u64,
}

impl Tally {
    #[inline]
    pub(super) fn take(&mut self, message: &[u8]) {
        self.spoilt += u64::from(!is(message, self.received));
        self.received += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_checked() {
        for size in [0, 1, 7, 8, 9, 15, 16, 63, 64, 65] {
            let mut message = vec![0xaa; size];
            write(&mut message, 5);
            assert!(is(&message, 5), "{size}");
            assert_eq!(number(&message), (size >= NUMBER_BYTES).then_some(5), "{size}");
            assert_eq!(is(&message, 6), size == 0, "{size}");
            for byte in 0..size {
                message[byte] ^= 0x10;
                assert!(!is(&message, 5), "byte {byte} of {size}");
                message[byte] ^= 0x10;
            }
        }
    }

    #[test]
    fn every_byte_of_a_part_is_checked() {
        let mut message = [0; 100];
        write(&mut message, 5);
        for (begin, end) in [(0, 100), (0, 8), (0, 5), (8, 100), (8, 9), (40, 64), (96, 100), (96, 96)] {
            let mut part = message[begin..end].to_vec();
            assert!(part_is(&part, begin, 5), "{begin}..{end}");
            assert_eq!(part_is(&part, begin, 6), part.is_empty(), "{begin}..{end}");
            for byte in 0..part.len() {
                part[byte] ^= 0x10;
                assert!(!part_is(&part, begin, 5), "byte {byte} of {begin}..{end}");
                part[byte] ^= 0x10;
            }
        }
    }

    #[test]
    fn a_tally_counts_what_was_not_expected() {
        let mut tally = Tally::default();
        let mut message = [0; 20];
        for number in [0, 1, 3, 3] {
            write(&mut message, number);
            tally.take(&message);
        }
        assert_eq!((tally.received, tally.spoilt), (4, 1));
    }
}
