//! The receiver's side: find, check, copy, take, consume.
//!
//! Invariant: `consumed ≤ taken ≤ position of the next look`. Whatever the sender wrote is read once into a private copy
//! and checked there; what fails is [`Corrupt`], a value. A receiver that dies leaves `consumed` (processed) and `taken`
//! (handed out) behind: exactly the records between them were in work.

use std::sync::atomic::Ordering;

use crate::layout::{self, WORD, ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::record::{Commit, Record, lap};

/// What the sender wrote cannot be. The channel is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The header is not one of this layout version.
    #[error("the header's word {word} is {found:#x}, not {expected:#x}")]
    Header {
        /// Index of the word.
        word: usize,
        /// What it is.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// No sender writes such a commit word there.
    #[error("the commit word {word:#018x} at position {position} is none")]
    Commit {
        /// Where it stands.
        position: u64,
        /// What it is.
        word: u64,
    },
    /// The record is longer than any may be.
    #[error("the record at position {position} claims {bytes} bytes, of at most {max}")]
    Length {
        /// Where it stands.
        position: u64,
        /// The length that it claims, in bytes.
        bytes: u64,
        /// The longest record, in bytes.
        max: u64,
    },
    /// The record is not the next one.
    #[error("the record at position {position} bears number {found}, not {expected}")]
    Sequence {
        /// Where it stands.
        position: u64,
        /// The number that it bears.
        found: u64,
        /// The number that comes next.
        expected: u64,
    },
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Consumer<D, A> {
    pub(crate) data: D,
    pub(crate) ack: A,
    capacity: u64,
    position: u64,
    consumed: u64,
    sequence: u64,
    pub(crate) epoch: u64,
    pub(crate) answered: u64,
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Starts at the beginning of a ring of this capacity, which the receiver has demanded. Writes the ack header.
    ///
    /// # Errors
    ///
    /// [`Corrupt::Header`] if the sender's header says anything else.
    ///
    /// # Panics
    ///
    /// If the capacity is none ([`layout::is_valid_capacity`]).
    pub fn new(data: D, ack: A, capacity: u64) -> Result<Self, Corrupt> {
        assert!(layout::is_valid_capacity(capacity), "capacity {capacity}");
        let header = [
            (data::MAGIC, layout::DATA_MAGIC),
            (data::VERSION, layout::VERSION),
            (data::CAPACITY, capacity),
            (data::MODE, layout::MODE_LOSSLESS),
        ];
        for (word, expected) in header {
            let found = data.get(word);
            if found != expected {
                return Err(Corrupt::Header { word, found, expected });
            }
        }
        ack.put(ack::VERSION, layout::VERSION);
        ack.put(ack::MAGIC, layout::ACK_MAGIC);
        Ok(Self { data, ack, capacity, position: 0, consumed: 0, sequence: 0, epoch: 0, answered: 0 })
    }

    /// Looks at the next record without taking it. `None`: there is nothing.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if what stands there is no next record.
    #[inline]
    pub fn peek(&self) -> Result<Option<Record>, Corrupt> {
        let at = self.word_at(self.position);
        // Acquire: pairs with the Release in Producer::push; behind a commit word its record is whole.
        let word = self.data.load(at, Ordering::Acquire);
        if word == 0 {
            return Ok(None);
        }
        let position = self.position;
        let Some(commit) = Commit::decode(word, lap(position, self.capacity)) else {
            return Err(Corrupt::Commit { position, word });
        };
        let (bytes, max) = (commit.record_bytes(), layout::max_record_bytes(self.capacity));
        if bytes > max {
            return Err(Corrupt::Length { position, bytes, max });
        }
        let found = self.data.get(at + 1);
        if found != self.sequence {
            return Err(Corrupt::Sequence { position, found, expected: self.sequence });
        }
        let mut payload_word = at + 2;
        let head = commit.head(|| {
            payload_word += 1;
            self.data.get(payload_word - 1)
        });
        let (payload_bytes, end) = (commit.payload_bytes, position + bytes);
        Ok(Some(Record { head, sequence: found, payload_bytes, payload_word, end }))
    }

    /// Copies a record's payload to the end of `into`, then takes the record: the next look is at the one behind it.
    #[inline]
    pub fn take(&mut self, record: &Record, into: &mut Vec<u8>) {
        debug_assert_eq!(record.sequence, self.sequence, "the record of the last peek");
        self.data.read(record.payload_word, record.payload_bytes, into);
        self.position = record.end;
        self.sequence += 1;
        // Relaxed: read after this process has died, or by observers.
        self.ack.store(ack::TAKEN, self.position, Ordering::Relaxed);
        self.ack.store(ack::RECEIVED, self.sequence, Ordering::Relaxed);
    }

    /// Says that everything taken so far is processed: the sender may overwrite it.
    #[inline]
    pub fn consume(&mut self) {
        if self.consumed != self.position {
            self.consumed = self.position;
            // Release: pairs with the Acquire in Producer::consumed; our reads of these records are done.
            self.ack.store(ack::CONSUMED, self.consumed, Ordering::Release);
        }
    }

    /// Whether something taken is not consumed yet.
    pub fn has_unconsumed(&self) -> bool {
        self.consumed != self.position
    }

    /// Whether the sender has left for good. Look for records once more afterwards: it may have sent before it left.
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release in Producer::close.
        self.data.load(data::CLOSED, Ordering::Acquire) != 0
    }

    /// How many messages were taken.
    pub fn received(&self) -> u64 {
        self.sequence
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline(always)]
    fn word_at(&self, position: u64) -> usize {
        data::RING + (position & (self.capacity - 1)) as usize / WORD
    }
}
