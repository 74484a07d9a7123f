//! How much of a ring is unprocessed, and when the sender must check that again.
//!
//! Invariant: between two checks nothing changes that the sender must notice: there is no new greatest depth, the high-water
//! mark is not passed, the ring is not full. Each of these can come true only past a certain position, computed from the
//! consumed position that was last seen, and the nearest of them is where the sender checks next. So a push compares one
//! number, and the line that the receiver writes is read at most once in a sixteenth of the ring.

use std::sync::atomic::Ordering;

use crate::layout::{WORD, data};
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::producer::Producer;
use crate::push_error::PushError;

/// What the sender knows about how far the receiver lags.
#[derive(Debug)]
pub(crate) struct Depth {
    capacity: u64,
    mode: Mode,
    pub(crate) cached_consumed: u64,
    max: u64,
    high_water: Option<u64>,
    is_high: bool,
}

impl Depth {
    pub(crate) fn new(capacity: u64, mode: Mode) -> Self {
        Self { capacity, mode, cached_consumed: 0, max: 0, high_water: None, is_high: false }
    }

    /// The unprocessed bytes in the ring before this position, as of the last check.
    pub(crate) fn at(&self, committed: u64) -> u64 {
        (committed - self.cached_consumed).min(self.capacity)
    }

    /// Whether there is room for a record that ends there, including its zero word.
    pub(crate) fn has_room(&self, end: u64) -> bool {
        self.mode == Mode::Latest || end <= self.cached_consumed + self.capacity
    }

    /// A record that ends past this position, including its zero word, needs a check.
    fn check_at(&self) -> u64 {
        // Depths below a sixteenth of the ring are not worth a check. In mode Lossless this is at most the end of the free
        // room, because no depth exceeds capacity − 8.
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

    /// Notes the depth after a check. Returns `true` if it is the greatest so far.
    fn note(&mut self, committed: u64) -> bool {
        let depth = self.at(committed);
        if let Some(mark) = self.high_water {
            self.is_high = if self.is_high { depth > mark / 2 } else { depth >= mark };
        }
        let is_deeper = depth > self.max;
        self.max = self.max.max(depth);
        is_deeper
    }

    fn set_high_water(&mut self, bytes: Option<u64>) {
        // A mark above the capacity is never reached, and an empty ring is never high.
        self.high_water = bytes.map(|bytes| bytes.clamp(1, self.capacity + 1));
        self.is_high = false;
    }
}

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// Bytes of records that are not processed now; in mode Latest, those of them that are still in the ring. The greatest
    /// depth ([`crate::SenderCounters::depth_max`]) is at least as much from here on.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the receiver's position is not valid.
    pub fn depth(&mut self) -> Result<u64, PushError> {
        self.consumed()?;
        self.note_depth();
        Ok(self.depth.at(self.counters.committed))
    }

    /// Sets a high-water mark in bytes of depth (at least 1), or removes it: see [`Producer::is_high`]. The mark costs a push
    /// nothing: it is one more reason to take the slow path, whose position is computed beforehand.
    pub fn set_high_water(&mut self, bytes: Option<u64>) {
        self.depth.set_high_water(bytes);
        // A bad claim is reported by the next push that takes the slow path.
        let _ = self.consumed();
        self.note_depth();
    }

    /// Whether the depth has reached the high-water mark, and has not fallen to half of it since.
    ///
    /// While the mark is not reached, this reads a private word: asking after each push misses nothing. While it is, each call
    /// reads the receiver's consumed position, which costs the transfer of a cache line if that has moved.
    #[inline]
    pub fn is_high(&mut self) -> bool {
        if self.depth.is_high && self.consumed().is_ok() {
            self.note_depth();
        }
        self.depth.is_high
    }

    /// After a check: notes the depth, and computes where to check next.
    pub(crate) fn note_depth(&mut self) {
        let committed = self.counters.committed;
        if self.depth.note(committed) {
            self.counters.depth_max = self.depth.max;
            // Relaxed: nothing depends on it.
            self.data.store(data::DEPTH_MAX, self.depth.max, Ordering::Relaxed);
        }
        self.check_at = self.depth.check_at().min(self.announced.check_at(committed));
    }
}
