//! Memory for payloads, in equal slots, each with shares.
//!
//! Invariant: a slot is written only through its one [`SlotMut`], and only while nobody has a [`Slot`], which is a share in what it
//! holds. (Each record that lends a slot to another process has a share, too: see `link/lending.rs`.)

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::memory::{Mapping, Part, Shape};
use super::process::random;
use super::{Descriptor, OsError, fork};

/// A memory of equal slots, which this process writes and others map read-only.
pub(crate) struct Slots {
    /// Its number, by which others know it.
    pub(crate) number: u64,
    pub(crate) memfd: Descriptor,
    mapping: Mapping,
    slot_bytes: u64,
    shares: Box<[AtomicU32]>,
    born: fork::Born,
    /// Held until the memory is gone.
    _until_freed: Box<dyn Send + Sync>,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slots({} of {} bytes)", self.shares.len(), self.slot_bytes)
    }
}

impl Slots {
    /// Allocates this many slots, and maps all of them. Takes milliseconds for each ten megabytes.
    pub(crate) fn create(
        slots: usize,
        slot_bytes: u64,
        until_freed: impl Send + Sync + 'static,
    ) -> Result<Arc<Self>, OsError> {
        let (mapping, memfd) = Mapping::create(Shape::Payloads { bytes: slots as u64 * slot_bytes })?;
        let shares = (0..slots).map(|_| AtomicU32::new(0)).collect();
        let (number, born) = (u64::from_ne_bytes(random()), fork::Born::now());
        Ok(Arc::new(Self { number, memfd, mapping, slot_bytes, shares, born, _until_freed: Box::new(until_freed) }))
    }

    /// Takes a slot, to fill this many bytes of it, if nobody has a share in it.
    pub(crate) fn take(self: &Arc<Self>, slot: usize, bytes: u64) -> Option<SlotMut> {
        assert!(bytes <= self.slot_bytes, "a payload fits its slot");
        // Relaxed: only a look, which costs less than an exchange in vain.
        if self.shares[slot].load(Ordering::Relaxed) != 0 {
            return None;
        }
        // Acquire: pairs with the Release in Slot::drop; whoever had a share is done with it.
        self.shares[slot].compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let share = Slot { slots: self.clone(), slot, bytes };
        // SAFETY: there was no share, so there is no other part of this slot; this one's share keeps the mapping.
        let part = unsafe { self.mapping.part(share.offset(), bytes) };
        Some(SlotMut { part, share })
    }

    pub(crate) fn slots(&self) -> usize {
        self.shares.len()
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.slot_bytes * self.slots() as u64
    }

    /// How many slots somebody has a share in.
    pub(crate) fn in_use(&self) -> usize {
        // Relaxed: who gives a slot up meanwhile is seen the next time.
        self.shares.iter().filter(|shares| shares.load(Ordering::Relaxed) > 0).count()
    }
}

/// A slot that is being filled.
#[derive(Debug)]
pub(crate) struct SlotMut {
    part: Part,
    share: Slot,
}

impl SlotMut {
    /// It is filled: from now on it is only read.
    pub(crate) fn share(self) -> Slot {
        self.part.finish();
        self.share
    }

    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.share.slots
    }
}

/// In a forked child, which has no such memory, there are no bytes.
impl Deref for SlotMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.share.slots.born.is_here() { &self.part } else { &[] }
    }
}

impl DerefMut for SlotMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.share.slots.born.is_here() { &mut self.part } else { &mut [] }
    }
}

/// A share in a slot that was filled.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    slot: usize,
    bytes: u64,
}

impl Slot {
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// Where its payload begins in the memory.
    pub(crate) fn offset(&self) -> u64 {
        self.slot as u64 * self.slots.slot_bytes
    }

    /// How long its payload is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The slot to be filled again, if nobody else has a share in it.
    pub(crate) fn into_mut(self) -> Option<SlotMut> {
        // Acquire: pairs with the Release in Slot::drop; whoever had a share is done with it.
        if self.slots.shares[self.slot].load(Ordering::Acquire) != 1 {
            return None;
        }
        // SAFETY: this is the only share, and it is given up, so there is no other part of this slot.
        let part = unsafe { self.slots.mapping.part(self.offset(), self.bytes) };
        Some(SlotMut { part, share: self })
    }

    /// A copy of its payload.
    pub(crate) fn to_box(&self) -> Box<[u8]> {
        let mut copy = vec![0; self.bytes as usize];
        if self.slots.born.is_here() {
            self.slots.mapping.copy_to(self.offset(), &mut copy);
        }
        copy.into()
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        // Relaxed: there is one already.
        self.slots.shares[self.slot].fetch_add(1, Ordering::Relaxed);
        Self { slots: self.slots.clone(), slot: self.slot, bytes: self.bytes }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in Slots::take; what this share has read is read.
        self.slots.shares[self.slot].fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(feature = "simulated")))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_written_by_one_and_free_when_nobody_has_a_share() {
        let slots = Slots::create(2, 4096, ()).expect("there is memory");
        let mut first = slots.take(0, 5).expect("it is free");
        assert!(slots.take(0, 5).is_none(), "it is being filled");
        first.copy_from_slice(b"hello");
        let share = first.share();
        let other = share.clone();
        assert_eq!((share.to_box().as_ref(), share.offset(), slots.in_use()), (&b"hello"[..], 0, 1));
        drop(share);
        assert!(slots.take(0, 5).is_none(), "there is one share left");
        drop(other);
        assert!(slots.take(0, 4096).is_some() && slots.take(1, 1).is_some());
        assert_eq!(slots.in_use(), 0);
    }
}
