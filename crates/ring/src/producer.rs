//! The sender's side: write, commit, find room.
//!
//! Invariant: a record of n bytes is written only if `committed + n + 8 ≤ consumed + capacity`; the 8 are the zero word
//! behind it. Commit: payload first, a zero commit word *behind* the record, then the record's commit word with release.
//! A sender that dies before that last store has committed nothing: its receiver goes on seeing zero there.

use std::sync::atomic::Ordering;

use crate::fault::fault;
use crate::layout::{self, WORD, ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::record::{Head, lap};
use crate::waking::Bell;

/// Why a record was not written. The ring is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room until the receiver has consumed more. Wait for this position, never for "any change": the
    /// receiver may consume everything between the look that found the ring full and the next one.
    #[error("the ring is full until position {room_at} is consumed")]
    Full {
        /// The consumed position from which on there is room.
        room_at: u64,
    },
    /// The record can never fit: `max` is the largest payload in bytes.
    #[error("a message of {bytes} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// The payload's length in bytes.
        bytes: usize,
        /// The longest payload in bytes.
        max: usize,
    },
    /// The receiver claims to have consumed what it cannot have.
    #[error("the receiver claims position {claimed}, outside of {consumed} to {committed}")]
    BadConsumed {
        /// What the ack memory says.
        claimed: u64,
        /// What it said before.
        consumed: u64,
        /// What was committed.
        committed: u64,
    },
}

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer<D, A> {
    data: D,
    ack: A,
    capacity: u64,
    committed: u64,
    cached_consumed: u64,
    sequence: u64,
    bell: Bell,
}

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// Starts an empty ring in zeroed memory, and writes the header.
    ///
    /// # Panics
    ///
    /// If the capacity is none ([`layout::is_valid_capacity`]).
    pub fn new(data: D, ack: A, capacity: u64) -> Self {
        assert!(layout::is_valid_capacity(capacity), "capacity {capacity}");
        data.put(data::VERSION, layout::VERSION);
        data.put(data::CAPACITY, capacity);
        data.put(data::MODE, layout::MODE_LOSSLESS);
        data.put(data::MAGIC, layout::DATA_MAGIC);
        Self { data, ack, capacity, committed: 0, cached_consumed: 0, sequence: 0, bell: Bell::default() }
    }

    /// Brings the ack memory of a receiver that has answered: until then the ring was filled beside a page of zeros.
    pub fn set_ack(&mut self, ack: A) {
        self.ack = ack;
    }

    /// Writes and commits one record, and returns its sequence number.
    ///
    /// # Errors
    ///
    /// [`PushError`]; nothing was written then.
    #[inline]
    pub fn push(&mut self, head: Head, payload: &[u8]) -> Result<u64, PushError> {
        let max = layout::max_payload_bytes(self.capacity) as usize;
        if payload.len() > max {
            return Err(PushError::TooLarge { bytes: payload.len(), max });
        }
        let size = head.record_bytes(payload.len());
        if !self.fits(size) {
            self.consumed()?;
            if !self.fits(size) {
                return Err(PushError::Full { room_at: self.committed + size + WORD as u64 - self.capacity });
            }
        }
        let at = self.word_at(self.committed);
        let sequence = self.sequence;
        self.data.put(at + 1, sequence);
        let mut payload_word = at + 2;
        for word in head.optional() {
            self.data.put(payload_word, word);
            payload_word += 1;
        }
        self.data.write(payload_word, payload);
        fault!("commit.payload-written");

        let commit = head.commit_word(payload.len(), lap(self.committed, self.capacity));
        self.committed += size;
        self.sequence += 1;
        self.data.put(self.word_at(self.committed), 0);
        fault!("commit.zero-written");
        // Release: pairs with the Acquire in Consumer::peek; the record and the zero behind it are there first.
        self.data.store(at, commit, Ordering::Release);
        fault!("commit.committed");
        // Relaxed: for observers, who compare them with nothing.
        self.data.store(data::COMMITTED, self.committed, Ordering::Relaxed);
        self.data.store(data::SEQUENCE, self.sequence, Ordering::Relaxed);
        Ok(sequence)
    }

    /// Reads how far the receiver has processed, in bytes.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if that cannot be.
    pub fn consumed(&mut self) -> Result<u64, PushError> {
        // Acquire: pairs with the Release in Consumer::consume; the receiver has read what we are about to overwrite.
        let claimed = self.ack.load(ack::CONSUMED, Ordering::Acquire);
        if claimed < self.cached_consumed || claimed > self.committed || !claimed.is_multiple_of(WORD as u64) {
            let (consumed, committed) = (self.cached_consumed, self.committed);
            return Err(PushError::BadConsumed { claimed, consumed, committed });
        }
        self.cached_consumed = claimed;
        Ok(claimed)
    }

    /// How many messages the receiver has not processed.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the receiver's claim cannot be.
    pub fn outstanding(&mut self) -> Result<u64, PushError> {
        let consumed = self.consumed()?;
        if consumed == self.committed {
            return Ok(0);
        }
        // Between consumed and committed our own records still stand; the first one's sequence number tells.
        let sequence = self.data.get(self.word_at(consumed) + 1);
        if sequence >= self.sequence {
            let (claimed, committed) = (consumed, self.committed);
            return Err(PushError::BadConsumed { claimed, consumed, committed });
        }
        Ok(self.sequence - sequence)
    }

    /// Whether the receiver sleeps and must be woken for what was pushed. True once per sleep.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        self.bell.must_ring(&self.data, &self.ack)
    }

    /// Says that nothing more will be pushed. Needs a bell afterwards: a sleeping receiver does not look.
    pub fn close(&self) {
        // Release: pairs with the Acquire in Consumer::is_closed; the last record is there first.
        self.data.store(data::CLOSED, 1, Ordering::Release);
    }

    /// The position behind the last record, in bytes.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// How many messages were pushed.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline(always)]
    fn fits(&self, size: u64) -> bool {
        self.committed + size + WORD as u64 <= self.cached_consumed + self.capacity
    }

    #[inline(always)]
    fn word_at(&self, position: u64) -> usize {
        data::RING + (position & (self.capacity - 1)) as usize / WORD
    }
}

/// How many messages of a ring are not processed, as any thread of the sender's process can tell: of those that were
/// committed when it looked. A claim that cannot be counts as nothing processed; one that is ahead, as everything.
pub fn outstanding(data: &impl Memory, ack: &impl Memory, capacity: u64) -> u64 {
    let committed = data.load(data::COMMITTED, Ordering::Relaxed);
    let sent = data.load(data::SEQUENCE, Ordering::Relaxed);
    // Acquire: pairs with the Release in Consumer::consume. Behind the others: it may only be ahead of them.
    let consumed = ack.load(ack::CONSUMED, Ordering::Acquire);
    if consumed >= committed {
        return 0;
    }
    if committed - consumed > capacity || !consumed.is_multiple_of(WORD as u64) {
        return sent;
    }
    let first = data.get(data::RING + (consumed & (capacity - 1)) as usize / WORD + 1);
    sent.checked_sub(first).unwrap_or(sent)
}
