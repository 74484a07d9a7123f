//! Access to words that even an honest peer may be writing: plain accesses, made word by word as relaxed atomics.
//!
//! What was read this way cannot be trusted until a fence and a synchronising word have shown that nothing changed meanwhile.

use std::sync::atomic::Ordering;

use crate::layout::WORD;
use crate::memory::{Memory, MemoryMut};

/// A memory without plain accesses: each one becomes a relaxed atomic, so that a race is not a data race.
pub(crate) struct Racing<'a, M>(pub(crate) &'a M);

impl<M: Memory> Memory for Racing<'_, M> {
    #[inline(always)]
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.0.load(word, order)
    }

    #[inline(always)]
    fn get(&self, word: usize) -> u64 {
        // Relaxed: the fences of mode Latest or the commit word order it.
        self.0.load(word, Ordering::Relaxed)
    }

    #[inline(always)]
    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let begin = into.len();
        into.resize(begin + bytes.next_multiple_of(WORD), 0);
        for (at, copy) in into[begin..].chunks_exact_mut(WORD).enumerate() {
            copy.copy_from_slice(&self.get(word + at).to_le_bytes());
        }
        into.truncate(begin + bytes);
    }

    #[inline(always)]
    fn fence(&self, order: Ordering) {
        self.0.fence(order);
    }
}

impl<M: MemoryMut> MemoryMut for Racing<'_, M> {
    #[inline(always)]
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.0.store(word, value, order);
    }

    #[inline(always)]
    fn put(&self, word: usize, value: u64) {
        // Relaxed: as in `get`.
        self.0.store(word, value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn write(&self, word: usize, from: &[u8]) {
        let (words, rest) = from.as_chunks::<WORD>();
        for (at, bytes) in words.iter().enumerate() {
            self.put(word + at, u64::from_le_bytes(*bytes));
        }
        if !rest.is_empty() {
            let mut bytes = [0; WORD];
            bytes[..rest.len()].copy_from_slice(rest);
            self.put(word + words.len(), u64::from_le_bytes(bytes));
        }
    }
}
