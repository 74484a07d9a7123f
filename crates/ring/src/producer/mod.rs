//! The sender's side: write, commit, find room.
//!
//! Invariant in mode Lossless: a record of n bytes is written only if `committed + n + 8 ≤ consumed + capacity`; the 8 bytes
//! are for the zero word after it. (`latest.rs` has the invariant of mode Latest.)
//!
//! Commit: first the payload, then a zero word *after* the record, then the record's commit word with release. A sender that
//! dies before that last store has committed nothing: its receiver still sees zero there.

mod depth; // when a push has more to look at than the ring's next record

use std::sync::atomic::Ordering;

use self::depth::Depth;
use crate::counters::{Returned, SenderCounters, settled};
use crate::fault::fault;
use crate::latest::Announced;
use crate::layout::{self, WORD, ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::push_error::PushError;
use crate::racing::Racing;
use crate::record::{Head, Kind, lap};
use crate::waking::Bell;

/// How far ahead of the write position, in bytes, the sender prefetches lines for writing. Stores complete in order, so one
/// cache miss holds up all later stores. A sender on a distant core would otherwise fetch only as many lines at a time as
/// its store buffer holds messages.
const AHEAD: u64 = 1024;
const LINE: usize = 64;

/// The writing end of a ring.
#[derive(Debug)]
pub struct Producer<D, A> {
    pub(crate) data: D,
    pub(crate) ack: A,
    pub(crate) capacity: u64,
    pub(crate) mode: Mode,
    first: u64,
    max_payload_bytes: usize,
    max_plain_bytes: usize,
    /// A record that ends past this position, including its zero word, takes the slow path, which makes every check that
    /// the fast path skips.
    pub(crate) check_at: u64,
    pub(crate) depth: Depth,
    /// Whether the receiver lagged by some messages at the last check. Then this is a stream, and lines are prefetched.
    /// In a dialogue a prefetch would only cost time.
    runs_ahead: bool,
    pub(crate) announced: Announced,
    pub(crate) counters: SenderCounters,
    bell: Bell,
}

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// Starts an empty ring in zeroed memory, and writes the header.
    ///
    /// # Panics
    ///
    /// If the capacity is not valid ([`layout::is_valid_capacity`]).
    pub fn new(data: D, ack: A, capacity: u64, mode: Mode) -> Self {
        Self::continuing(data, ack, capacity, mode, 0)
    }

    /// Starts a ring that takes over from one whose receiver is gone: its first message carries this number.
    ///
    /// # Panics
    ///
    /// If the capacity is not valid ([`layout::is_valid_capacity`]).
    pub fn continuing(data: D, ack: A, capacity: u64, mode: Mode, first: u64) -> Self {
        assert!(layout::is_valid_capacity(capacity), "capacity {capacity}");
        let max_payload_bytes = layout::max_payload_bytes(capacity, mode) as usize;
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
            max_payload_bytes,
            max_plain_bytes: max_payload_bytes,
            check_at: 0,
            depth: Depth::new(capacity, mode),
            runs_ahead: false,
            announced: Announced::new(capacity, mode),
            counters: SenderCounters::default(),
            bell: Bell::default(),
        }
    }

    /// Makes [`Producer::push_plain`] take no longer payloads than this.
    pub fn limit_plain(&mut self, bytes: usize) {
        self.max_plain_bytes = bytes.min(self.max_payload_bytes);
    }

    /// Sets the ack memory of a receiver that has answered. Until then the sender reads a page of zeros.
    pub fn set_ack(&mut self, ack: A) {
        self.ack = ack;
    }

    /// Writes and commits one record, and returns its sequence number. A topic declaration gets the number of the message that
    /// follows it. In mode Latest there is always room.
    ///
    /// # Errors
    ///
    /// [`PushError`]: nothing was written.
    #[inline(always)]
    pub fn push(&mut self, head: Head, payload: &[u8]) -> Result<u64, PushError> {
        if payload.len() > self.max_payload_bytes {
            return Err(PushError::TooLarge { bytes: payload.len(), max: self.max_payload_bytes });
        }
        let size = head.record_bytes(payload.len());
        if self.counters.committed + size + WORD as u64 > self.check_at {
            return self.push_slowly(head, payload, size);
        }
        Ok(self.write(head, payload, size))
    }

    /// The fast path of [`Producer::push`]: writes and commits a message with no optional word except, perhaps, a topic, into
    /// a lossless ring, if nothing needs a check. Returns `false` if nothing was written: call [`Producer::push`] then.
    #[inline(always)]
    pub fn push_plain(&mut self, topic: Option<u64>, payload: &[u8]) -> bool {
        self.push_at_once(Head { topic, ..Head::MESSAGE }, payload)
    }

    /// The same for a record that belongs to a call, and has only its correlation and, perhaps, a deadline.
    #[inline(always)]
    pub fn push_of_call(&mut self, kind: Kind, correlation: u64, deadline: Option<u64>, payload: &[u8]) -> bool {
        self.push_at_once(Head { correlation: Some(correlation), deadline, ..Head::of(kind) }, payload)
    }

    #[inline(always)]
    fn push_at_once(&mut self, head: Head, payload: &[u8]) -> bool {
        if payload.len() > self.max_plain_bytes || self.mode == Mode::Latest {
            return false;
        }
        let size = head.record_bytes(payload.len());
        if self.counters.committed + size + WORD as u64 > self.check_at {
            return false;
        }
        self.lay(&self.data, head, payload, size);
        self.commit(head, payload.len(), size);
        true
    }

    /// The slow path of [`Producer::push`]: the ring may be full, the depth may be the greatest so far or pass the high-water
    /// mark, or a chunk may begin.
    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, head: Head, payload: &[u8], size: u64) -> Result<u64, PushError> {
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

    /// Writes everything but the commit word.
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
        put(head.deadline);
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
        // Relaxed, all of them: the Release of the commit word orders them. A message is counted before it is published.
        self.data.store(data::COMMITTED, self.counters.committed, Ordering::Relaxed);
        if head.kind.is_counted() {
            self.counters.messages += 1;
            // Wrapping: a lent payload may be shorter than what the ring has of it, and was counted as that much less.
            self.counters.bytes = self.counters.bytes.wrapping_add(payload_bytes as u64);
            self.data.store(data::SEQUENCE, self.counters.messages, Ordering::Relaxed);
            self.data.store(data::BYTES, self.counters.bytes, Ordering::Relaxed);
        }
        if let Some(time) = head.time {
            self.counters.last_sent = time;
            self.data.store(data::LAST_SENT, time, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in Consumer::commit_word; the record and the zero word after it are there first.
        self.data.store(at, commit, Ordering::Release);
        fault!("commit.committed");
        if self.runs_ahead {
            for line in (0..size.min(AHEAD)).step_by(LINE) {
                self.data.will_write(at + (AHEAD + line) as usize / WORD);
            }
        }
        sequence
    }

    /// Reads the position up to which the receiver has processed or, in mode Latest, skipped everything.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the claim is not valid.
    pub fn consumed(&mut self) -> Result<u64, PushError> {
        // Acquire: pairs with the Release in Consumer::consume; the receiver has finished reading what is overwritten next.
        let claimed = self.ack.load(ack::CONSUMED, Ordering::Acquire);
        let (consumed, committed) = (self.depth.cached_consumed, self.counters.committed);
        if claimed < consumed || claimed > committed || !claimed.is_multiple_of(WORD as u64) {
            return Err(PushError::BadConsumed { claimed, consumed, committed });
        }
        self.depth.cached_consumed = claimed;
        Ok(claimed)
    }

    /// How many messages the receiver has neither processed nor, in mode Latest, missed, according to its counters. 0 if it
    /// claims more than was sent.
    ///
    /// # Errors
    ///
    /// [`PushError::BadConsumed`] if the receiver's position is not valid.
    pub fn outstanding(&mut self) -> Result<u64, PushError> {
        if self.consumed()? == self.counters.committed {
            return Ok(0);
        }
        Ok(self.counters.messages.saturating_sub(settled(&self.ack)))
    }

    /// Counts a message that was dropped instead of being pushed. Ring the bell afterwards, as after a push.
    pub fn note_dropped(&mut self) {
        // Relaxed, here and below: TURNED_AWAY announces these words.
        self.counters.dropped += 1;
        self.data.store(data::DROPPED, self.counters.dropped, Ordering::Relaxed);
        self.note_turned_away();
    }

    /// Counts a message that was returned to its sender with an error. Ring the bell afterwards, as after a push.
    pub fn note_returned(&mut self, why: Returned) {
        let counted = match why {
            Returned::TooLarge => Some((data::TOO_LARGE, &mut self.counters.too_large)),
            Returned::NoRoom => Some((data::NO_ROOM, &mut self.counters.no_room)),
            Returned::NoMemory => Some((data::NO_MEMORY, &mut self.counters.no_memory)),
            Returned::Other => None,
        };
        let is_turned_away = counted.is_some();
        if let Some((word, sum)) = counted {
            *sum += 1;
            self.data.store(word, *sum, Ordering::Relaxed);
        }
        self.counters.returned += 1;
        self.data.store(data::RETURNED, self.counters.returned, Ordering::Relaxed);
        if is_turned_away {
            self.note_turned_away();
        }
    }

    fn note_turned_away(&self) {
        // Release: pairs with the Acquire in Consumer::turned_away.
        self.data.store(data::TURNED_AWAY, self.counters.turned_away(), Ordering::Release);
    }

    /// Adds to the time spent waiting for room, in ns.
    pub fn note_blocked(&mut self, ns: u64) {
        self.counters.blocked_ns = self.counters.blocked_ns.saturating_add(ns);
        self.data.store(data::BLOCKED_NS, self.counters.blocked_ns, Ordering::Relaxed);
    }

    /// Announces that the receiver, before it sleeps, executes a barrier that covers this process, too. From now on no fence
    /// follows a commit.
    pub fn set_fenced_by_receiver(&mut self) {
        self.bell.is_fenced_by_receiver = true;
    }

    /// After [`Producer::push`]: whether the receiver sleeps and must be woken. True once per sleep.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        self.bell.must_ring(&self.data, &self.ack)
    }

    /// Announces that nothing more will be pushed. Ring the bell afterwards: a sleeping receiver does not look.
    pub fn close(&self) {
        // Release: pairs with the Acquire in Consumer::is_closed; the last record is there first.
        self.data.store(data::CLOSED, 1, Ordering::Release);
    }

    /// The number of the chunk in which the next record begins; always 0 in mode Lossless. It changes with
    /// [`Producer::skip_all`], too.
    ///
    /// In mode Latest a topic declaration may be overwritten before the receiver reaches it. So declare a topic again in each
    /// chunk that uses it: while the current chunk is not the one in which the last declaration began, declare, then push the
    /// message. This ends if a declaration takes at most half a chunk (a sixteenth of the capacity).
    ///
    /// The guarantee: a receiver that was overtaken continues at the first record of a chunk, so for every record from there
    /// on it sees all declarations that began in the same chunk.
    #[inline]
    pub fn chunk(&self) -> u64 {
        self.announced.part(self.counters.committed)
    }

    /// The position after the last record, in bytes.
    pub fn committed(&self) -> u64 {
        self.counters.committed
    }

    /// The number of the next message.
    pub fn sequence(&self) -> u64 {
        self.first + self.counters.messages
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
    pub(crate) fn word_at(&self, position: u64) -> usize {
        data::RING + (position & (self.capacity - 1)) as usize / WORD
    }
}
