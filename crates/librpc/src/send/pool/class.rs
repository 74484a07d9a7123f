//! The memories of one slot size and one audience.
//!
//! It grows by new memories, never by longer ones: the first has a few slots, and each further one as many as there are.

use std::sync::Arc;
use std::time::Duration;

use super::Audience;
use crate::fault::fault;
use crate::link::lending::Payloads;
use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::memory::page_size;
use crate::sys::slots::{SlotMut, Slots};

/// The smallest slot, in bytes.
const SMALLEST: u64 = if cfg!(feature = "simulated") { 4096 } else { 16_384 };
/// The first memory has as many slots as fit into this, at least one.
const FIRST_BYTES: u64 = if cfg!(feature = "simulated") { 8192 } else { 4 << 20 };
/// A further memory has at most this many bytes, unless one slot is longer.
const MOST_BYTES: u64 = 256 << 20;
/// The most memories of an outbox: fewer than a receiver maps for one channel.
const MOST_MEMORIES: usize = 60;
/// A memory of which no slot was used for this long is given back.
pub(crate) const UNUSED: Duration = Duration::from_secs(10);

/// How long the slots are that payloads of this length get, in bytes: at most a quarter longer.
pub(crate) fn slot_bytes(bytes: u64) -> u64 {
    let bytes = bytes.max(SMALLEST);
    let step = (bytes.next_power_of_two() / 8).max(page_size() as u64);
    bytes.next_multiple_of(step)
}

/// A memory, and when a slot of it was last taken.
#[derive(Debug)]
struct Memory {
    slots: Arc<Slots>,
    used: Instant,
}

/// The memories of one slot size and one audience.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) audience: Audience,
    pub(crate) slot_bytes: u64,
    memories: Vec<Memory>,
}

impl Class {
    pub(crate) fn new(audience: Audience, slot_bytes: u64) -> Self {
        Self { audience, slot_bytes, memories: Vec::new() }
    }

    /// Takes a free slot, if there is one: the first, so that as few as possible are in use, and stay in the caches.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant) -> Option<SlotMut> {
        self.memories.iter_mut().find_map(|memory| {
            let taken = (0..memory.slots.slots()).find_map(|slot| memory.slots.take(slot, bytes))?;
            memory.used = now;
            Some(taken)
        })
    }

    /// Makes a new memory, where `memories` are there already, of all classes. `false`: there may be no more.
    pub(crate) fn grow(&mut self, payloads: &Arc<Payloads>, memories: usize) -> Result<bool, OsError> {
        if memories >= MOST_MEMORIES {
            return Ok(false);
        }
        let there: u64 = self.memories.iter().map(|memory| memory.slots.slots() as u64).sum();
        let most = (MOST_BYTES / self.slot_bytes).max(1);
        let wanted = if there == 0 { (FIRST_BYTES / self.slot_bytes).max(1) } else { there.min(most) };
        // One slot is enough where more would be too many.
        for slots in [wanted, 1] {
            let Some(reserved) = payloads.reserve(slots * self.slot_bytes) else { continue };
            let slots = Slots::create(slots as usize, self.slot_bytes, reserved)?;
            fault!("lend.grown");
            tracing::debug!(slots = slots.slots(), slot_bytes = self.slot_bytes, "a memory for payloads is made");
            self.memories.push(Memory { slots, used: Instant::now() });
            return Ok(true);
        }
        Ok(false)
    }

    /// Gives back the memories of which no slot is in use, and none was for a while (`at_once`: whenever that was).
    pub(crate) fn give_back(&mut self, now: Instant, at_once: bool) {
        let is_unused = |memory: &Memory| memory.slots.in_use() == 0 && (at_once || now - memory.used >= UNUSED);
        let before = self.memories.len();
        self.memories.retain(|memory| !is_unused(memory));
        if self.memories.len() < before {
            fault!("lend.retired");
        }
    }

    pub(crate) fn memories(&self) -> usize {
        self.memories.len()
    }

    pub(crate) fn has(&self, segment: u64) -> bool {
        self.memories.iter().any(|memory| memory.slots.number == segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_at_most_a_quarter_longer_than_their_payloads() {
        for bytes in (0..40).map(|power| 1 << power).flat_map(|power: u64| [power - 1, power, power + 1, power * 5 / 4])
        {
            let slot = slot_bytes(bytes);
            assert!(slot >= bytes && slot.is_multiple_of(page_size() as u64), "{bytes}: {slot}");
            assert!(bytes < SMALLEST || slot <= bytes + bytes / 4 + page_size() as u64, "{bytes}: {slot}");
        }
        assert_eq!(slot_bytes(8 << 20), 8 << 20);
    }

    #[test]
    fn a_class_grows_within_its_limit_and_gives_back_what_is_unused() {
        let payloads = Payloads::new(8 << 20);
        let mut class = Class::new(Audience::All, 1 << 20);
        let mut taken = Vec::new();
        loop {
            match class.take(5, Instant::now()) {
                Some(slot) => taken.push(slot),
                None if matches!(class.grow(&payloads, 0), Ok(true)) => {}
                None => break,
            }
        }
        assert_eq!((taken.len(), payloads.used(), class.memories()), (8, (8 << 20, 8 << 20), 2));
        class.give_back(Instant::now(), true);
        assert_eq!(class.memories(), 2, "all are in use");
        taken.truncate(4);
        class.give_back(Instant::now(), false);
        assert_eq!(class.memories(), 2, "it was in use just now");
        class.give_back(Instant::now(), true);
        assert_eq!((class.memories(), payloads.used().0), (1, 4 << 20));
        drop(taken);
        class.give_back(Instant::now() + UNUSED, false);
        assert_eq!((class.memories(), payloads.used().0), (0, 0));
    }
}
