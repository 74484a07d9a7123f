//! The sender's side: write, commit, find room.
//!
//! Invariant (mode Lossless): a record of n bytes is written only if `committed + n + 8 ≤ consumed + capacity`; the 8 are the
//! zero word behind it. Mode Latest has another one: `latest.rs`. Commit: payload first, a zero commit word *behind* the record, then the record's commit word with release.
//! A sender that dies before that last store has committed nothing: its receiver goes on seeing zero there.

use std::sync::atomic::Ordering;

use crate::counters::{SenderCounters, settled};
use crate::depth::Depth;
use crate::fault::fault;
use crate::latest::Announced;
use crate::layout::{self, Mode, WORD, ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::racing::Racing;
use crate::record::{Commit, Head, lap};
use crate::waking::Bell;

/// So many bytes in front of what is being written the receiver is asked to give its cache lines away. A store waits for its
/// line, and all later stores with it: without this a sender on a distant core has as many lines under way as its store
/// buffer holds messages, and that is few where a message is more than its copy.
const AHEAD: u64 = 1024;
const LINE: usize = 64;

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
    mode: Mode,
    first: u64,
    max_payload_bytes: usize,
    /// A record that ends behind this, its zero word included, is preceded by a look at all that is not looked at else.
    look_at: u64,
    depth: Depth,
    /// The receiver was some messages behind when this was looked at: a stream. For a dialogue, asking for lines ahead is one
    /// more thing to wait for.
    runs_ahead: bool,
    announced: Announced,
    counters: SenderCounters,
    bell: Bell,
}

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// Starts an empty ring in zeroed memory, and writes the header.
    ///
    /// # Panics
    ///
    /// If the capacity is none ([`layout::is_valid_capacity`]).
    pub fn new(data: D, ack: A, capacity: u64, mode: Mode) -> Self {
        Self::going_on(data, ack, capacity, mode, 0)
    }

    /// The same for a ring that takes over from one whose receiver is gone: its first message bears this number.
    ///
    /// # Panics
    ///
    /// If the capacity is none ([`layout::is_valid_capacity`]).
    pub fn going_on(data: D, ack: A, capacity: u64, mode: Mode, first: u64) -> Self {
        assert!(layout::is_valid_capacity(capacity), "capacity {capacity}");
        data.put(data::VERSION, layout::VERSION);
        data.put(data::CAPACITY, capacity);
        data.put(data::MODE, mode.word());
        data.put(data::FIRST, first);
        data.put(data::MAGIC, layout::DATA_MAGIC);
        Self {
            data,
            ack,
            capacity,
            mode,
            first,
            max_payload_bytes: layout::max_payload_bytes(capacity, mode) as usize,
            look_at: 0,
            depth: Depth::new(capacity, mode),
            runs_ahead: false,
            announced: Announced::new(capacity, mode),
            counters: SenderCounters::default(),
            bell: Bell::default(),
        }
    }

    /// Brings the ack memory of a receiver that has answered: until then the ring was filled beside a page of zeros.
    pub fn set_ack(&mut self, ack: A) {
        self.ack = ack;
    }

    /// Writes and commits one record, and returns its sequence number. A topic's declaration gets the number of the message
    /// that follows it. In mode Latest there is always room.
    ///
    /// # Errors
    ///
    /// [`PushError`]; nothing was written then.
    #[inline(always)]
    pub fn push(&mut self, head: Head, payload: &[u8]) -> Result<u64, PushError> {
        if payload.len() > self.max_payload_bytes {
            return Err(PushError::TooLarge { bytes: payload.len(), max: self.max_payload_bytes });
        }
        let size = head.record_bytes(payload.len());
        if self.counters.committed + size + WORD as u64 > self.look_at {
            return self.push_looking(head, payload, size);
        }
        Ok(self.write(head, payload, size))
    }

    /// Writes and commits a message that bears nothing but, perhaps, a topic, into a lossless ring, if there is nothing to look
    /// at, as nearly always. `false`: nothing was written, and [`Producer::push`] knows better.
    #[inline(always)]
    pub fn push_plain(&mut self, topic: Option<u64>, payload: &[u8]) -> bool {
        let head = Head { topic, ..Head::MESSAGE };
        if payload.len() > self.max_payload_bytes || self.mode == Mode::Latest {
            return false;
        }
        let size = head.record_bytes(payload.len());
        if self.counters.committed + size + WORD as u64 > self.look_at {
            return false;
        }
        self.lay(&self.data, head, payload, size);
        self.commit(head, payload.len(), size);
        true
    }

    /// [`Producer::push`] where something may be new: a full ring, a greater depth, a passed mark, a new chunk.
    #[cold]
    #[inline(never)]
    fn push_looking(&mut self, head: Head, payload: &[u8], size: u64) -> Result<u64, PushError> {
        let position = self.counters.committed;
        let end = position + size + WORD as u64;
        self.consumed()?;
        self.runs_ahead = self.depth.at(position) > 2 * size.max(AHEAD / 4);
        if !self.depth.has_room(end) {
            return Err(PushError::Full { room_at: end - self.capacity });
        }
        self.announced.announce(&self.data, end);
        let sequence = self.write(head, payload, size);
        self.announced.mark(&self.data, position);
        self.note_depth();
        Ok(sequence)
    }

    #[inline(always)]
    fn write(&mut self, head: Head, payload: &[u8], size: u64) -> u64 {
        match self.mode {
            Mode::Lossless => self.lay(&self.data, head, payload, size),
            Mode::Latest => self.lay(&Racing(&self.data), head, payload, size),
        }
        self.commit(head, payload.len(), size)
    }

    /// Everything but the commit word.
    #[inline(always)]
    fn lay(&self, data: &impl MemoryMut, head: Head, payload: &[u8], size: u64) {
        let at = self.word_at(self.counters.committed);
        data.put(at + 1, self.sequence());
        let mut payload_word = at + 2;
        let mut put = |word: Option<u64>| {
            if let Some(word) = word {
                data.put(payload_word, word);
                payload_word += 1;
            }
        };
        put(head.time);
        put(head.topic);
        put(head.correlation);
        data.write(payload_word, payload);
        fault!("commit.payload-written");
        data.put(self.word_at(self.counters.committed + size), 0);
        fault!("commit.zero-written");
    }

    #[inline(always)]
    fn commit(&mut self, head: Head, payload_bytes: usize, size: u64) -> u64 {
        let (at, sequence) = (self.word_at(self.counters.committed), self.sequence());
        let commit = head.commit_word(payload_bytes, lap(self.counters.committed, self.capacity));
        self.counters.committed += size;
        // Relaxed: the commit word's Release orders them. What it publishes has been counted.
        self.data.store(data::COMMITTED, self.counters.committed, Ordering::Relaxed);
        if head.kind.is_counted() {
            self.counters.messages += 1;
            self.counters.bytes += payload_bytes as u64;
            self.data.store(data::SEQUENCE, self.counters.messages, Ordering::Relaxed);
            self.data.store(data::BYTES, self.counters.bytes, Ordering::Relaxed);
        }
        if let Some(time) = head.time {
            self.counters.last_sent = time;
            self.data.store(data::LAST_SENT, time, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in Consumer::find; the record and the zero behind it are there first.
        self.data.store(at, commit, Ordering::Release);
        fault!("commit.committed");
        if self.runs_ahead {
            for line in (0..size.min(AHEAD)).step_by(LINE) {
                self.data.will_write(at + (AHEAD + line) as usize / WORD);
            }
        }
        sequence
    }

    /// Reads how far the receiver has processed, or in mode Latest skipped, in bytes.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if that cannot be.
    pub fn consumed(&mut self) -> Result<u64, PushError> {
        // Acquire: pairs with the Release in Consumer::consume; the receiver has read what we are about to overwrite.
        let claimed = self.ack.load(ack::CONSUMED, Ordering::Acquire);
        let (consumed, committed) = (self.depth.cached_consumed, self.counters.committed);
        if claimed < consumed || claimed > committed || !claimed.is_multiple_of(WORD as u64) {
            return Err(PushError::BadConsumed { claimed, consumed, committed });
        }
        self.depth.cached_consumed = claimed;
        Ok(claimed)
    }

    /// How many messages the receiver has neither processed nor, in mode Latest, missed.
    ///
    /// The receiver's counters say so: what it claims too much counts as everything.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the receiver's position cannot be.
    pub fn outstanding(&mut self) -> Result<u64, PushError> {
        if self.consumed()? == self.counters.committed {
            return Ok(0);
        }
        Ok(self.counters.messages.saturating_sub(settled(&self.ack)))
    }

    /// Bytes of records that are not processed now; in mode Latest those that still stand in the ring.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the receiver's position cannot be.
    pub fn depth(&mut self) -> Result<u64, PushError> {
        self.consumed()?;
        Ok(self.depth.at(self.counters.committed))
    }

    /// Sets a high-water mark in bytes of depth, at least 1, or none: [`Producer::is_high`] tells of it. It costs a push
    /// nothing: the mark is one more reason for the look that a push takes behind a position reckoned beforehand.
    pub fn set_high_water(&mut self, bytes: Option<u64>) {
        self.depth.set_high_water(bytes);
        // A bad claim is told by the next push that looks.
        let _ = self.consumed();
        self.note_depth();
    }

    /// Whether the high-water mark was reached, and the depth has not fallen to half of it since.
    ///
    /// While it was not, this is a look at a private word: asking after each push misses no passage. While it was, each
    /// call looks at the receiver's consumed position, which costs a cache line's way if that has moved.
    #[inline]
    pub fn is_high(&mut self) -> bool {
        if self.depth.is_high() && self.consumed().is_ok() {
            self.note_depth();
        }
        self.depth.is_high()
    }

    /// After a look: takes notice of the depth, and reckons where to look next.
    fn note_depth(&mut self) {
        let committed = self.counters.committed;
        if self.depth.note(committed) {
            self.counters.depth_max = self.depth.max;
            // Relaxed: depends on nothing, as the three counters below.
            self.data.store(data::DEPTH_MAX, self.depth.max, Ordering::Relaxed);
        }
        self.look_at = self.depth.look_at().min(self.announced.look_at(committed));
    }

    /// Counts a message that was dropped instead of being pushed.
    pub fn note_dropped(&mut self) {
        self.counters.dropped += 1;
        self.data.store(data::DROPPED, self.counters.dropped, Ordering::Relaxed);
    }

    /// Counts this many messages that came back to the sender as an error.
    pub fn note_returned(&mut self, messages: u64) {
        self.counters.returned += messages;
        self.data.store(data::RETURNED, self.counters.returned, Ordering::Relaxed);
    }

    /// Adds to the time spent waiting for room, in ns.
    pub fn note_blocked(&mut self, ns: u64) {
        self.counters.blocked_ns += ns;
        self.data.store(data::BLOCKED_NS, self.counters.blocked_ns, Ordering::Relaxed);
    }

    /// Says that the receiver has a barrier that is one for this process, too, between announcing its sleep and looking
    /// again: from now on no fence follows a commit.
    pub fn set_fenced_by_receiver(&mut self) {
        self.bell.is_fenced_by_receiver = true;
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

    /// In which chunk the next record will begin; always 0 in mode Lossless.
    ///
    /// In mode Latest a topic's declaration may be overwritten before the receiver has come to it, so a topic is declared anew
    /// in each chunk in which it is used: while the chunk is not the one in which the last declaration began, declare; then
    /// push the message. This ends if a declaration takes at most half a chunk (a sixteenth of the capacity).
    /// The guarantee: a receiver that was overtaken goes on at the first record of a chunk, so it sees, of every
    /// record from there on, all declarations that began in the same chunk.
    #[inline]
    pub fn chunk(&self) -> u64 {
        self.announced.chunk(self.counters.committed)
    }

    /// The position behind the last record, in bytes.
    pub fn committed(&self) -> u64 {
        self.counters.committed
    }

    /// The number of the next message.
    pub fn sequence(&self) -> u64 {
        self.first + self.counters.messages
    }

    /// Calls `each` with every message that the receiver has not processed, in order: its head, its number, its payload. Those
    /// that were in work, handed out but not processed, are flagged as redelivered. Returns how many there are beside these
    /// that could not be found, for what the receiver claims is no boundary of a record: 0 for an honest one.
    ///
    /// Of use when the receiver is gone; in mode Latest nothing is kept.
    pub fn unprocessed(&mut self, mut each: impl FnMut(Head, u64, &[u8])) -> u64 {
        if self.mode == Mode::Latest {
            return 0;
        }
        let before = self.depth.cached_consumed;
        let claimed = self.consumed().unwrap_or(before);
        let Some(begin) = [claimed, before].into_iter().find(|&begin| self.walk(begin, |_, _| {})) else {
            return self.counters.messages.saturating_sub(settled(&self.ack));
        };
        // Relaxed: the receiver is gone.
        let taken = self.ack.load(ack::TAKEN, Ordering::Relaxed);
        let mut payload = Vec::new();
        self.walk(begin, |position, commit| {
            let at = self.word_at(position);
            let mut word = at + 2;
            let head = commit.head(|| {
                word += 1;
                self.data.get(word - 1)
            });
            if head.kind.is_counted() {
                payload.clear();
                self.data.read(word, commit.payload_bytes, &mut payload);
                let redelivered = head.redelivered || position < taken;
                each(Head { redelivered, ..head }, self.data.get(at + 1), &payload);
            }
        });
        0
    }

    /// Goes over our own records from a position to the last one; `false` if that is not where a record begins.
    fn walk(&self, begin: u64, mut each: impl FnMut(u64, Commit)) -> bool {
        let (mut position, mut sequence) = (begin, None);
        while position < self.counters.committed {
            let at = self.word_at(position);
            let (word, found) = (self.data.get(at), self.data.get(at + 1));
            let Some(commit) = Commit::decode(word, lap(position, self.capacity)) else { return false };
            if sequence.is_some_and(|expected| found != expected) {
                return false;
            }
            sequence = Some(found + u64::from(commit.kind.is_counted()));
            each(position, commit);
            position += commit.record_bytes();
        }
        position == self.counters.committed && sequence.is_none_or(|next| next == self.sequence())
    }

    /// What this side has counted, from its private copy.
    pub fn counters(&self) -> SenderCounters {
        self.counters
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The ring's mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    #[inline(always)]
    fn word_at(&self, position: u64) -> usize {
        data::RING + (position & (self.capacity - 1)) as usize / WORD
    }
}
