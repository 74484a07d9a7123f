//! How much of a ring is unprocessed, and when the sender must look at that again.
//!
//! Invariant: between two looks nothing is new, neither a greatest depth, nor a passed high-water mark, nor a full ring. For
//! each of these there is a position behind which it may come true, reckoned from the consumed position last seen, and
//! the nearest one is where the sender looks next. So a push compares one number, and the line that the receiver writes
//! is read once in a sixteenth of the ring at most.

use crate::layout::{Mode, WORD};

/// What the sender knows about how far the receiver is behind.
#[derive(Debug)]
pub(crate) struct Depth {
    capacity: u64,
    mode: Mode,
    pub(crate) cached_consumed: u64,
    pub(crate) max: u64,
    high_water: Option<u64>,
    is_high: bool,
}

impl Depth {
    pub(crate) fn new(capacity: u64, mode: Mode) -> Self {
        Self { capacity, mode, cached_consumed: 0, max: 0, high_water: None, is_high: false }
    }

    /// Bytes in front of this position that lie in the ring unprocessed, as of the last look.
    pub(crate) fn at(&self, committed: u64) -> u64 {
        (committed - self.cached_consumed).min(self.capacity)
    }

    /// Whether a record that ends there, its zero word included, has room.
    pub(crate) fn has_room(&self, end: u64) -> bool {
        self.mode == Mode::Latest || end <= self.cached_consumed + self.capacity
    }

    /// The last end of a record, its zero word included, with which nothing can be new.
    pub(crate) fn look_at(&self) -> u64 {
        // Below a sixteenth of the ring a greatest depth is not worth looking for. In mode Lossless this is the end of
        // the room at the latest: no depth exceeds capacity − 8.
        let deeper = match self.max {
            max if max >= self.capacity => u64::MAX,
            max => self.cached_consumed + max.max(self.capacity / 16) + WORD as u64,
        };
        let higher = match self.high_water {
            Some(mark) if !self.is_high => self.cached_consumed.saturating_add(mark + WORD as u64 - 1),
            _ => u64::MAX,
        };
        deeper.min(higher)
    }

    /// Takes notice of what is committed, right after a look. `true`: the ring was never so deep.
    pub(crate) fn note(&mut self, committed: u64) -> bool {
        let depth = self.at(committed);
        if let Some(mark) = self.high_water {
            self.is_high = if self.is_high { depth > mark / 2 } else { depth >= mark };
        }
        let deeper = depth > self.max;
        self.max = self.max.max(depth);
        deeper
    }

    pub(crate) fn set_high_water(&mut self, bytes: Option<u64>) {
        // More than the capacity is never reached, and nothing at all is nothing to tell.
        self.high_water = bytes.map(|bytes| bytes.clamp(1, self.capacity + 1));
        self.is_high = false;
    }

    pub(crate) fn is_high(&self) -> bool {
        self.is_high
    }
}
