//! Memory whose writer is interrupted after each store, so that a test sees every state that another process may see.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use librpc_ring::{Memory, MemoryMut};

use crate::plain::Plain;

/// What happens after each store.
pub(crate) type Step = Rc<dyn Fn()>;

/// Memory whose writer is interrupted after each store.
pub(crate) struct Stepped {
    pub(crate) memory: Plain,
    pub(crate) step: Step,
}

impl Memory for Stepped {
    fn load(&self, word: usize, order: Ordering) -> u64 {
        self.memory.load(word, order)
    }

    fn get(&self, word: usize) -> u64 {
        self.memory.get(word)
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        self.memory.read(word, bytes, into);
    }

    fn fence(&self, _: Ordering) {}
}

impl MemoryMut for Stepped {
    fn store(&self, word: usize, value: u64, order: Ordering) {
        self.memory.store(word, value, order);
        (self.step)();
    }

    fn put(&self, word: usize, value: u64) {
        self.memory.put(word, value);
        (self.step)();
    }

    fn write(&self, word: usize, from: &[u8]) {
        self.memory.write(word, from);
        (self.step)();
    }
}
