//! What a frame contains.
//!
//! ```text
//! bytes 0..8    when its camera began, in ns: one that was killed begins anew
//! bytes 8..16   its number
//! bytes 16..24  the checksum of what follows
//! the rest      words that follow from the first two; the last one may be cut off
//! ```

const WORD: usize = 8;
pub(crate) const HEAD: usize = 3 * WORD;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// The sums of the checksum, side by side: each word goes into one of them.
const LANES: usize = 8;

/// A checksum that depends on the place of every byte. A part begins at a whole number of lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksum([u64; LANES]);

impl Checksum {
    pub(crate) fn add(&mut self, part: &[u8]) {
        for words in part.chunks(LANES * WORD) {
            for (lane, word) in self.0.iter_mut().zip(words.chunks(WORD)) {
                let mut bytes = [0; WORD];
                bytes[..word.len()].copy_from_slice(word);
                *lane = (*lane ^ u64::from_le_bytes(bytes)).wrapping_mul(MIX);
            }
        }
    }

    pub(crate) fn end(self) -> u64 {
        self.0.iter().fold(1, |sum: u64, lane| (sum ^ lane).wrapping_mul(MIX).rotate_left(23))
    }
}

/// The first words of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) camera: u64,
    pub(crate) number: u64,
    pub(crate) checksum: u64,
}

impl Head {
    pub(crate) fn read(bytes: [u8; HEAD]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at * WORD..][..WORD].try_into().expect("a word"));
        Self { camera: word(0), number: word(1), checksum: word(2) }
    }
}

pub(crate) fn write(frame: &mut [u8], camera: u64, number: u64) {
    let (head, rest) = frame.split_at_mut(HEAD);
    let mut word = (camera ^ number).wrapping_mul(MIX);
    for chunk in rest.chunks_mut(WORD) {
        word = word.wrapping_add(MIX);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    let mut checksum = Checksum::default();
    checksum.add(rest);
    for (at, word) in [camera, number, checksum.end()].into_iter().enumerate() {
        head[at * WORD..][..WORD].copy_from_slice(&word.to_le_bytes());
    }
}
