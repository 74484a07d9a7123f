//! Numbered messages of which every byte is checked, for the commands that measure.
//!
//! ```text
//! bytes 0..8    kind (8 bits), number (56 bits); of an end message: how many messages there were
//! bytes 8..16   seed: a hash of the first word
//! bytes 16..24  stamped kinds only: CLOCK_MONOTONIC in ns when it was sent
//! the rest      8-byte words: seed + index of the word; then 0 to 7 zero bytes
//! ```

/// The size of the smallest message. A stamped one needs 8 bytes more.
pub(crate) const MIN_BYTES: usize = 16;
pub(crate) const MIN_STAMPED_BYTES: usize = 24;

const WORD: usize = 8;
const NUMBER_BITS: u32 = 56;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 1,
    /// With the time at which it was sent, at a rate that fills no queue.
    Stamped = 2,
    /// The same, sent as fast as possible, so its latency includes the queue.
    StampedUnderLoad = 3,
    /// The last one.
    End = 4,
}

/// The content of a message that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    /// Only in the stamped kinds.
    pub(crate) sent_ns: u64,
}

/// Nanoseconds of a clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn seed(first: u64) -> u64 {
    let mixed = (first ^ (first >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Writes a message over the whole of `payload`.
pub(crate) fn write(payload: &mut [u8], kind: Kind, number: u64) {
    let first = (kind as u64) << NUMBER_BITS | number;
    let seed = seed(first);
    let (words, rest) = payload.as_chunks_mut::<WORD>();
    for (index, word) in words.iter_mut().enumerate() {
        *word = seed.wrapping_add(index as u64).to_le_bytes();
    }
    words[0] = first.to_le_bytes();
    words[1] = seed.to_le_bytes();
    rest.fill(0);
    if matches!(kind, Kind::Stamped | Kind::StampedUnderLoad) {
        words[2] = now_ns().to_le_bytes();
    }
}

/// Reads a message; `None` if any byte of it differs from what was written.
pub(crate) fn read(payload: &[u8]) -> Option<Content> {
    let (words, rest) = payload.as_chunks::<WORD>();
    let [first, second, others @ ..] = words else { return None };
    let first = u64::from_le_bytes(*first);
    let seed = seed(first);
    let kind = match first >> NUMBER_BITS {
        1 => Kind::Data,
        2 => Kind::Stamped,
        3 => Kind::StampedUnderLoad,
        4 => Kind::End,
        _ => return None,
    };
    let number = first & ((1 << NUMBER_BITS) - 1);
    let (sent_ns, others, from) = match (kind, others) {
        (Kind::Stamped | Kind::StampedUnderLoad, [stamp, others @ ..]) => (u64::from_le_bytes(*stamp), others, 3),
        (Kind::Stamped | Kind::StampedUnderLoad, []) => return None,
        _ => (0, others, 2),
    };
    // Without a branch per word, so that checking costs little compared with the message itself.
    let differs = others.iter().enumerate().fold(0, |differs, (index, word)| {
        differs | (u64::from_le_bytes(*word) ^ seed.wrapping_add(index as u64 + from))
    });
    let whole = u64::from_le_bytes(*second) == seed && differs == 0 && rest.iter().all(|&byte| byte == 0);
    whole.then_some(Content { kind, number, sent_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_but_the_stamp_is_checked() {
        for kind in [Kind::Data, Kind::Stamped, Kind::StampedUnderLoad, Kind::End] {
            for size in [16, 24, 25, 31, 32, 100, 256] {
                let stamped = matches!(kind, Kind::Stamped | Kind::StampedUnderLoad);
                if stamped && size < MIN_STAMPED_BYTES {
                    continue;
                }
                let mut payload = vec![0xaa; size];
                write(&mut payload, kind, 123_456_789);
                let content = read(&payload).expect("a whole message");
                assert_eq!((content.kind, content.number, content.sent_ns > 0), (kind, 123_456_789, stamped));
                for byte in (0..size).filter(|byte| !(stamped && (16..24).contains(byte))) {
                    payload[byte] ^= 0x10;
                    assert_eq!(read(&payload), None, "{kind:?} of {size} bytes, byte {byte}");
                    payload[byte] ^= 0x10;
                }
            }
        }
        assert_eq!(read(b"short"), None);
    }
}
