//! Feeds mutated messages, files and declarations to everything that decodes bytes of other processes.
//!
//! An *execution* is one message, file or series of declarations that the library decodes.

use librpc::fuzzing::{DOORS, samples};
use testkit::Random;

use crate::ring::Tally;

/// No handshake message is longer. A file may be longer, but its contents are bounded in any case.
const LONGEST: usize = 4096;
const MESSAGES_PER_SCENE: u64 = 4096;

/// One scene: mutated messages of honest peers.
pub(crate) fn doors(seed: u64) -> Tally {
    let mut random = Random::new(seed);
    let (samples, mut tally) = (samples(), Tally::default());
    let mut bytes = Vec::with_capacity(2 * LONGEST);
    for _ in 0..MESSAGES_PER_SCENE {
        let (door, sample) = &samples[random.below(samples.len() as u64) as usize];
        bytes.clear();
        bytes.extend_from_slice(sample);
        for _ in 0..1 + random.below(4) {
            mutate(&mut random, &mut bytes, &samples);
        }
        bytes.truncate(LONGEST);
        let door = if random.once_in(32) { random.below(DOORS.len() as u64) as usize } else { *door };
        tally.executions += 1;
        match DOORS[door].1(&bytes) {
            true => tally.taken += 1,
            false => tally.refused += 1,
        }
    }
    tally
}

pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>, samples: &[(usize, Vec<u8>)]) {
    if bytes.is_empty() {
        bytes.push(random.next() as u8);
        return;
    }
    let at = random.below(bytes.len() as u64) as usize;
    match random.below(12) {
        0..=2 => bytes[at] ^= 1 << random.below(8),
        3 => bytes[at] = random.next() as u8,
        // The first byte of a CBOR item: another type, or a length without the bytes.
        4 => bytes[at] = (random.below(8) << 5 | [24, 25, 26, 27, 31, 0, 1, 23][random.below(8) as usize]) as u8,
        5 => bytes.truncate(at),
        6 => bytes.insert(at, random.next() as u8),
        7 => drop(bytes.remove(at)),
        8 => {
            let word = random.odd().to_be_bytes();
            (at..bytes.len()).zip(word).for_each(|(at, byte)| bytes[at] = byte);
        }
        9 => {
            let other = &samples[random.below(samples.len() as u64) as usize].1;
            let from = random.below(other.len() as u64) as usize;
            bytes.splice(at.., other[from..].iter().copied());
        }
        // Endless nesting, or thousands of items.
        10 => bytes.extend(std::iter::repeat_n(
            [0x81, 0x9f, 0xa1, 0xd8, 0x00, 0x5f][random.below(6) as usize],
            4096 - bytes.len().min(4096),
        )),
        _ => {
            let part = bytes[at..].to_vec();
            (0..random.below(8)).for_each(|_| bytes.extend_from_slice(&part));
        }
    }
}
