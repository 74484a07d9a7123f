//! The content of a message, and how it is checked: every word follows from the message's number.
//!
//! The sender writes every byte and the receiver reads every byte, so no contender gains by skipping that.

use serde::{Deserialize, Serialize};

/// The smallest message: only its number.
pub(crate) const MIN_BYTES: usize = 8;
/// Set in the number of the last message.
pub(crate) const LAST: u64 = 1 << 63;
/// Set in the number of the message with which measuring begins.
pub(crate) const BEGIN: u64 = 1 << 62;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Writes the message with this number. The length is a multiple of 8.
#[inline]
pub(crate) fn write(number: u64, into: &mut [u8]) {
    let mixed = number.wrapping_mul(MIX);
    let (first, others) = into.split_at_mut(MIN_BYTES);
    first.copy_from_slice(&number.to_le_bytes());
    for (index, word) in others.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&mixed.wrapping_add(index as u64).to_le_bytes());
    }
}

/// The number of a received message; `None` if any word of it differs from what was written.
#[inline]
pub(crate) fn read(message: &[u8]) -> Option<u64> {
    let (first, others) = message.split_at_checked(MIN_BYTES)?;
    let number = word(first);
    let mixed = number.wrapping_mul(MIX);
    let differing = |sum, (index, bytes)| sum | (word(bytes) ^ mixed.wrapping_add(index as u64));
    let difference = others.chunks_exact(8).enumerate().fold(0, differing);
    (difference == 0).then_some(number)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("chunks of eight"))
}

/// The messages that one side has received.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Tally {
    /// Whole, and in order.
    pub(crate) received: u64,
    /// With a wrong length or a wrong word.
    pub(crate) corrupt: u64,
    /// Received twice, or after a later one.
    pub(crate) disordered: u64,
    /// The number that is expected next.
    pub(crate) next: u64,
}

impl Tally {
    /// Counts a message of a known length. `None` if it is corrupt; otherwise its number, with the flags.
    #[inline]
    pub(crate) fn take(&mut self, message: &[u8], bytes: usize) -> Option<u64> {
        let Some(flagged) = read(message).filter(|_| message.len() == bytes) else {
            self.corrupt += 1;
            return None;
        };
        let number = flagged & !(LAST | BEGIN);
        if number >= self.next {
            self.received += 1; // those between are missing: the sender knows how many there were
            self.next = number + 1;
        } else {
            self.disordered += 1;
        }
        Some(flagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_bit_is_found() {
        let mut message = [0; 72];
        write(5 | LAST, &mut message);
        assert_eq!(read(&message), Some(5 | LAST));
        for bit in 0..message.len() * 8 {
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&message), None, "bit {bit}");
            message[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_tally_counts_what_comes_twice_late_or_spoilt() {
        let mut tally = Tally::default();
        let mut take = |number, bytes| {
            let mut message = vec![0; bytes];
            write(number, &mut message);
            tally.take(&message, 16)
        };
        assert_eq!([take(0, 16), take(1 | BEGIN, 16), take(4, 16)], [Some(0), Some(1 | BEGIN), Some(4)]);
        assert_eq!([take(4, 16), take(2, 16), take(5, 24)], [Some(4), Some(2), None]);
        assert_eq!((tally.received, tally.disordered, tally.corrupt, tally.next), (3, 2, 1, 5));
    }
}
