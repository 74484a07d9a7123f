//! Ring memory of one thread. A test can read and spoil every word of it, count the reads, and have reads return something
//! else than what is stored.
//!
//! Invariant: what the library writes stays in the cells unchanged. Only the value that a read *returns* may be a lie,
//! as if the peer were writing at that very moment. An access out of range panics, because it would be a bug of the
//! library.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{ACK_BYTES, WORD, data};
use librpc_ring::{Memory, MemoryMut};

use crate::random::Random;

/// A memory of the ring. A clone is another mapping of the same memory.
#[derive(Clone, Debug)]
pub struct RingMemory(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    words: Vec<Cell<u64>>,
    /// Where the ring begins, if it is mapped a second time after the end.
    ring: Option<usize>,
    reads: Cell<usize>,
    /// One read in 2^this returns a lie; 64: no read does.
    lies: Cell<u32>,
    random: Cell<u64>,
}

impl RingMemory {
    /// The memory of a sender whose ring has this capacity, in bytes.
    pub fn data(capacity: u64) -> Self {
        Self::new(data::RING + capacity as usize / WORD, Some(data::RING))
    }

    /// The memory of a receiver.
    pub fn ack() -> Self {
        Self::new(ACK_BYTES / WORD, None)
    }

    fn new(words: usize, ring: Option<usize>) -> Self {
        let words = vec![Cell::new(0); words];
        Self(Rc::new(Inner { words, ring, reads: Cell::new(0), lies: Cell::new(64), random: Cell::new(1) }))
    }

    /// The word at this index, for a test to read or spoil.
    #[inline(always)]
    pub fn cell(&self, word: usize) -> &Cell<u64> {
        match self.0.ring {
            // The second mapping of the ring. Nothing follows it.
            Some(ring) if word >= self.0.words.len() => &self.0.words[ring..][word - self.0.words.len()],
            _ => &self.0.words[word],
        }
    }

    /// From now on, one read in 2^`lies` returns a lie. 64 ends that.
    pub fn lie(&self, lies: u32, random: &mut Random) {
        self.0.lies.set(lies);
        self.0.random.set(random.next());
    }

    /// How many words have been read.
    pub fn reads(&self) -> usize {
        self.0.reads.get()
    }

    #[inline(always)]
    fn returned(&self, word: usize) -> u64 {
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

impl Memory for RingMemory {
    #[inline(always)]
    fn load(&self, word: usize, _: Ordering) -> u64 {
        self.returned(word)
    }

    #[inline(always)]
    fn get(&self, word: usize) -> u64 {
        self.returned(word)
    }

    #[inline(always)]
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let end = into.len() + bytes;
        (word..word + bytes.div_ceil(WORD)).for_each(|word| into.extend_from_slice(&self.returned(word).to_le_bytes()));
        into.truncate(end);
    }

    #[inline(always)]
    fn fence(&self, _: Ordering) {}
}

impl MemoryMut for RingMemory {
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
