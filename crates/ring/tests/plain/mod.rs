//! Ring memory for one thread: words that a test can read and overwrite, and that count how often they are read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{ACK_BYTES, WORD, data};
use librpc_ring::{Memory, MemoryMut};

/// One memory; a clone is another mapping of it. An access out of range panics.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    words: Rc<[Cell<u64>]>,
    mirrored: bool,
    reads: Rc<Cell<usize>>,
}

impl Plain {
    /// The memory of a sender whose ring has this capacity, in bytes.
    pub(crate) fn data(capacity: u64) -> Self {
        Self::zeroed(data::RING + capacity as usize / WORD, true)
    }

    /// The memory of a receiver.
    pub(crate) fn ack() -> Self {
        Self::zeroed(ACK_BYTES / WORD, false)
    }

    fn zeroed(words: usize, mirrored: bool) -> Self {
        Self { words: (0..words).map(|_| Cell::new(0)).collect(), mirrored, reads: Rc::default() }
    }

    /// The word with this index, for a test to read or overwrite.
    pub(crate) fn cell(&self, word: usize) -> &Cell<u64> {
        if self.mirrored && word >= self.words.len() {
            // The second mapping of the ring. There is nothing after it.
            return &self.words[data::RING..][word - self.words.len()];
        }
        &self.words[word]
    }

    /// How many words were read.
    #[allow(dead_code, reason = "not every test counts")]
    pub(crate) fn reads(&self) -> usize {
        self.reads.get()
    }
}

impl Memory for Plain {
    fn load(&self, word: usize, _: Ordering) -> u64 {
        self.get(word)
    }

    fn get(&self, word: usize) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.cell(word).get()
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let end = into.len() + bytes;
        (word..word + bytes.div_ceil(WORD)).for_each(|word| into.extend(self.get(word).to_le_bytes()));
        into.truncate(end);
    }

    fn fence(&self, _: Ordering) {}
}

impl MemoryMut for Plain {
    fn store(&self, word: usize, value: u64, _: Ordering) {
        self.put(word, value);
    }

    fn put(&self, word: usize, value: u64) {
        self.cell(word).set(value);
    }

    fn write(&self, word: usize, from: &[u8]) {
        for (word, chunk) in (word..).zip(from.chunks(WORD)) {
            // The bytes after the last one stay as they are: nobody may rely on them.
            let mut bytes = self.cell(word).get().to_le_bytes();
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.put(word, u64::from_le_bytes(bytes));
        }
    }
}
