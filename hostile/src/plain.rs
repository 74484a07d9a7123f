//! Ring memory in which every word can be spoilt, before the library looks and while it looks.
//!
//! Invariant: what the library itself has written stays readable as it is in the cells; only what it is *told* may be a
//! lie, as if a peer were writing at that very moment. An access out of range panics: that would be a fault of the library.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{ACK_BYTES, WORD, data};
use librpc_ring::{Memory, MemoryMut};

use crate::random::Random;

/// Words that both sides reach.
#[derive(Clone)]
pub(crate) struct Plain(Rc<Inner>);

struct Inner {
    words: Vec<Cell<u64>>,
    /// Where the ring begins, if it is shown twice.
    ring: Option<usize>,
    reads: Cell<u64>,
    /// One read in 2^this finds something else than what stands there; 64: none.
    lies: Cell<u32>,
    random: Cell<u64>,
}

impl Plain {
    /// A data memory with a ring of this capacity.
    pub(crate) fn data(capacity: u64) -> Self {
        Self::new(data::RING + capacity as usize / WORD, Some(data::RING))
    }

    /// An ack memory.
    pub(crate) fn ack() -> Self {
        Self::new(ACK_BYTES / WORD, None)
    }

    fn new(words: usize, ring: Option<usize>) -> Self {
        let words = vec![Cell::new(0); words];
        Self(Rc::new(Inner { words, ring, reads: Cell::new(0), lies: Cell::new(64), random: Cell::new(1) }))
    }

    #[inline(always)]
    pub(crate) fn cell(&self, word: usize) -> &Cell<u64> {
        match self.0.ring {
            // The second showing of the ring, and nothing behind it.
            Some(ring) if word >= self.0.words.len() => &self.0.words[ring..][word - self.0.words.len()],
            _ => &self.0.words[word],
        }
    }

    /// From now on one read in 2^`lies` is spoilt.
    pub(crate) fn lie(&self, lies: u32, random: &mut Random) {
        self.0.lies.set(lies);
        self.0.random.set(random.next());
    }

    /// How many words were read.
    pub(crate) fn reads(&self) -> u64 {
        self.0.reads.get()
    }

    #[inline(always)]
    fn told(&self, word: usize) -> u64 {
        self.0.reads.set(self.0.reads.get() + 1);
        let truth = self.cell(word).get();
        if self.0.lies.get() >= 64 {
            return truth;
        }
        let mut random = Random::new(self.0.random.get());
        let draw = random.next();
        self.0.random.set(draw);
        match draw.trailing_zeros() >= self.0.lies.get() {
            true => match draw >> 61 {
                0 => 0,
                1 => random.next(),
                2..=4 => truth.wrapping_add(8 * (draw >> 32 & 0x1ff)),
                _ => truth ^ 1 << (draw >> 32 & 63),
            },
            false => truth,
        }
    }
}

impl Memory for Plain {
    #[inline(always)]
    fn load(&self, word: usize, _: Ordering) -> u64 {
        self.told(word)
    }

    #[inline(always)]
    fn get(&self, word: usize) -> u64 {
        self.told(word)
    }

    #[inline(always)]
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let end = into.len() + bytes;
        (word..word + bytes.div_ceil(WORD)).for_each(|word| into.extend_from_slice(&self.told(word).to_le_bytes()));
        into.truncate(end);
    }

    #[inline(always)]
    fn fence(&self, _: Ordering) {}
}

impl MemoryMut for Plain {
    #[inline(always)]
    fn store(&self, word: usize, value: u64, _: Ordering) {
        self.cell(word).set(value);
    }

    #[inline(always)]
    fn put(&self, word: usize, value: u64) {
        self.cell(word).set(value);
    }

    #[inline(always)]
    fn write(&self, word: usize, from: &[u8]) {
        for (word, chunk) in (word..).zip(from.chunks(WORD)) {
            let mut bytes = self.cell(word).get().to_le_bytes();
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.cell(word).set(u64::from_le_bytes(bytes));
        }
    }
}
