//! The receiver's side: find, check, copy, take, consume.
//!
//! Invariant: `consumed ≤ taken ≤ position`, where `position` is where the receiver looks next. (In mode Latest,
//! `position` may be further ahead, past records that were skipped.) Everything that the sender wrote is read once into
//! a private copy and checked there. A failed check is a value, [`Corrupt`].
//!
//! `taken` is stored before a message is handed out, `consumed` after it was processed. Both outlive a receiver that
//! dies: exactly the records between them may have been handed out without being processed (`unprocessed.rs`).

use std::sync::atomic::{Ordering, compiler_fence};

use crate::corrupt::Corrupt;
use crate::counters::{ReceiverCounters, SenderCounters};
use crate::layout::{self, WORD, ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::record::{Commit, Head, Kind, Lent, OfCall, Plain, Record, lap};

/// The highest number that a ring may begin with. It keeps numbers from overflowing.
const MAX_FIRST: u64 = u64::MAX / 2;

/// A record that was found and checked, but neither copied nor taken yet.
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) sequence: u64,
    pub(crate) payload_bytes: usize,
    pub(crate) payload_word: usize,
    end: u64,
}

/// The reading end of a ring.
#[derive(Debug)]
pub struct Consumer<D, A> {
    pub(crate) data: D,
    pub(crate) ack: A,
    capacity: u64,
    mode: Mode,
    max_record_bytes: u64,
    /// Where to look for the next record.
    pub(crate) position: u64,
    taken: u64,
    consumed: u64,
    /// The number of the next message, if none was skipped.
    pub(crate) sequence: u64,
    /// How many messages may have been skipped since the last record.
    pub(crate) may_miss: u64,
    missed: u64,
    received: u64,
    bytes: u64,
    processed: u64,
    last_received: u64,
    pub(crate) epoch: u64,
    pub(crate) answered: u64,
    /// How many hold words may have been used.
    pub(crate) holds_used: u64,
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Starts at the beginning of a ring of the capacity and mode that the receiver demanded, and writes the ack header.
    ///
    /// # Errors
    ///
    /// [`Corrupt::Version`], [`Corrupt::Header`] or [`Corrupt::First`] if the sender's header says anything else.
    ///
    /// # Panics
    ///
    /// If the capacity is not valid ([`layout::is_valid_capacity`]).
    pub fn new(data: D, ack: A, capacity: u64, mode: Mode) -> Result<Self, Corrupt> {
        assert!(layout::is_valid_capacity(capacity), "capacity {capacity}");
        let header = [
            (data::MAGIC, layout::DATA_MAGIC),
            (data::VERSION, layout::VERSION),
            (data::CAPACITY, capacity),
            (data::MODE, mode.word()),
        ];
        for (word, expected) in header {
            match data.get(word) {
                found if found == expected => {}
                found if word == data::VERSION => return Err(Corrupt::Version { found, expected }),
                found => return Err(Corrupt::Header { word, found, expected }),
            }
        }
        let first = data.get(data::FIRST);
        if first > MAX_FIRST {
            return Err(Corrupt::First { found: first, max: MAX_FIRST });
        }
        ack.put(ack::VERSION, layout::VERSION);
        ack.put(ack::MAGIC, layout::ACK_MAGIC);
        Ok(Self {
            data,
            ack,
            capacity,
            mode,
            max_record_bytes: layout::max_record_bytes(capacity, mode),
            position: 0,
            taken: 0,
            consumed: 0,
            sequence: first,
            may_miss: 0,
            missed: 0,
            received: 0,
            bytes: 0,
            processed: 0,
            last_received: 0,
            epoch: 0,
            answered: 0,
            holds_used: 0,
        })
    }

    /// Takes the next record and appends its payload to `into`. Returns `None` if there is nothing to take now. One
    /// call copies one record, or at most two in mode Latest, whatever the sender does meanwhile.
    ///
    /// `taken` is stored before this returns, in program order, so a message that was handed out is always found
    /// flagged if this process dies. A receiver whose ring may be taken over while its process lives must check for
    /// that *after* this call and before it hands the message out (`unprocessed.rs` says how).
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the next record is not valid. Then nothing is taken, and `into` is as it was.
    #[inline(always)]
    pub fn pop(&mut self, into: &mut Vec<u8>) -> Result<Option<Record>, Corrupt> {
        if self.mode == Mode::Latest {
            return self.pop_latest(into);
        }
        let at = self.word_at(self.position);
        let word = self.commit_word(&self.data, at);
        if let Some(Plain { sequence, topic, payload_bytes }) = self.take_plain(at, word, into, |_| true) {
            let head = Head { topic, ..Head::MESSAGE };
            return Ok(Some(Record { head, sequence, payload_bytes, missed: 0 }));
        }
        if let Some(of_call) = self.take_of_call(at, word, into, |_| true) {
            let OfCall { kind, correlation, deadline, sequence, payload_bytes } = of_call;
            let head = Head { correlation: Some(correlation), deadline, ..Head::of(kind) };
            return Ok(Some(Record { head, sequence, payload_bytes, missed: 0 }));
        }
        let Some(found) = self.find(&self.data, at, word)? else { return Ok(None) };
        let begin = into.len();
        self.data.read(found.payload_word, found.payload_bytes, into);
        if found.head.lent {
            self.hold(found.sequence);
        }
        self.take(&found, &into[begin..]).inspect_err(|_| into.truncate(begin)).map(Some)
    }

    /// The fast path of [`Consumer::pop`]: takes the next record of a lossless ring if it is a message with no optional word
    /// except, perhaps, a topic, and `is_expected` accepts that topic. Nearly all messages are like this, and it takes a third
    /// of the instructions. Returns `None` if nothing was taken: call [`Consumer::pop`] then.
    #[inline(always)]
    pub fn pop_plain(&mut self, into: &mut Vec<u8>, is_expected: impl FnOnce(Option<u64>) -> bool) -> Option<Plain> {
        let at = self.word_at(self.position);
        self.take_plain(at, self.commit_word(&self.data, at), into, is_expected)
    }

    #[inline(always)]
    fn take_plain(
        &mut self,
        at: usize,
        word: u64,
        into: &mut Vec<u8>,
        is_expected: impl FnOnce(Option<u64>) -> bool,
    ) -> Option<Plain> {
        let has_topic = Commit::plain(word, lap(self.position, self.capacity))?;
        let (payload_word, end) = self.find_short(at, word, usize::from(has_topic))?;
        let (sequence, payload_bytes) = (self.sequence, word as u32 as usize);
        let topic = has_topic.then(|| self.data.get(at + 2));
        if !is_expected(topic) {
            return None;
        }
        self.take_short(payload_word, payload_bytes, end, into);
        Some(Plain { sequence, topic, payload_bytes })
    }

    /// The same as [`Consumer::pop_plain`] for what belongs to a call: a request, a reply or a part of one that has only its
    /// correlation and, perhaps, a deadline, if `is_expected` accepts its kind.
    #[inline(always)]
    pub fn pop_of_call(&mut self, into: &mut Vec<u8>, is_expected: impl FnOnce(Kind) -> bool) -> Option<OfCall> {
        let at = self.word_at(self.position);
        self.take_of_call(at, self.commit_word(&self.data, at), into, is_expected)
    }

    #[inline(always)]
    fn take_of_call(
        &mut self,
        at: usize,
        word: u64,
        into: &mut Vec<u8>,
        is_expected: impl FnOnce(Kind) -> bool,
    ) -> Option<OfCall> {
        let (kind, has_deadline) = Commit::of_call(word, lap(self.position, self.capacity))?;
        let (payload_word, end) = self.find_short(at, word, 1 + usize::from(has_deadline))?;
        if !is_expected(kind) {
            return None;
        }
        let (sequence, payload_bytes) = (self.sequence, word as u32 as usize);
        let (correlation, deadline) = (self.data.get(at + 2), has_deadline.then(|| self.data.get(at + 3)));
        self.take_short(payload_word, payload_bytes, end, into);
        Some(OfCall { kind, correlation, deadline, sequence, payload_bytes })
    }

    /// Where the payload of a record of this commit word is, and where the record ends. `None`: it needs other checks.
    #[inline(always)]
    fn find_short(&self, at: usize, word: u64, optional: usize) -> Option<(usize, u64)> {
        let payload_bytes = u64::from(word as u32);
        let bytes = ((2 + optional) * WORD) as u64 + payload_bytes.next_multiple_of(WORD as u64);
        let needs_more =
            bytes > self.max_record_bytes || self.data.get(at + 1) != self.sequence || self.mode == Mode::Latest;
        (!needs_more).then_some((at + 2 + optional, self.position + bytes))
    }

    #[inline(always)]
    fn take_short(&mut self, payload_word: usize, payload_bytes: usize, end: u64, into: &mut Vec<u8>) {
        self.data.read(payload_word, payload_bytes, into);
        self.advance(end);
        self.count(payload_bytes as u64);
    }

    /// Whether [`Consumer::pop`] would return something: a record, or corruption.
    #[inline]
    pub fn has_record(&self) -> bool {
        // Relaxed: pop looks again, with Acquire.
        self.data.load(self.word_at(self.position), Ordering::Relaxed) != 0
            || (self.mode == Mode::Latest && self.is_overtaken())
    }

    /// How many messages the sender has turned away, as it says: [`SenderCounters::turned_away`]. What it has counted of them is at
    /// least as new in [`Consumer::sender_counters`] afterwards.
    #[inline]
    pub fn turned_away(&self) -> u64 {
        // Acquire: pairs with the Release in Producer::note_turned_away.
        self.data.load(data::TURNED_AWAY, Ordering::Acquire)
    }

    /// What the sender says that it has counted.
    pub fn sender_counters(&self) -> SenderCounters {
        SenderCounters::read(&self.data)
    }

    /// The word at the place of the next record's commit word.
    #[inline(always)]
    pub(crate) fn commit_word(&self, data: &impl Memory, at: usize) -> u64 {
        // Acquire: pairs with the Release in Producer::commit; if the commit word is there, the whole record is.
        data.load(at, Ordering::Acquire)
    }

    pub(crate) fn find(&self, data: &impl Memory, at: usize, word: u64) -> Result<Option<Found>, Corrupt> {
        let position = self.position;
        if word == 0 {
            return Ok(None);
        }
        let Some(commit) = Commit::decode(word, lap(position, self.capacity)) else {
            return Err(Corrupt::Commit { position, word });
        };
        let (bytes, max) = (commit.record_bytes(), self.max_record_bytes);
        if bytes > max {
            return Err(Corrupt::Length { position, bytes, max });
        }
        let sequence = data.get(at + 1);
        if sequence.wrapping_sub(self.sequence) > self.may_miss {
            return Err(Corrupt::Sequence { position, found: sequence, expected: self.sequence });
        }
        let mut payload_word = at + 2;
        let head = commit.head(|| {
            payload_word += 1;
            data.get(payload_word - 1)
        });
        Ok(Some(Found { head, sequence, payload_bytes: commit.payload_bytes, payload_word, end: position + bytes }))
    }

    /// Takes a record whose payload is copied. If it is lent, the copy is a [`Lent`].
    #[inline(always)]
    pub(crate) fn take(&mut self, found: &Found, payload: &[u8]) -> Result<Record, Corrupt> {
        let Found { head, sequence, payload_bytes, end, .. } = *found;
        let counted = match head.lent {
            false => payload_bytes as u64,
            true => self.lent_bytes(&head, payload)?,
        };
        let missed = sequence - self.sequence;
        if missed != 0 {
            self.missed += missed;
            // Release: pairs with the Acquire in ReceiverCounters::read; the sender had counted these messages before.
            self.ack.store(ack::MISSED, self.missed, Ordering::Release);
        }
        if self.may_miss != 0 {
            self.may_miss = 0;
        }
        self.sequence = sequence;
        self.advance(end);
        if head.kind.is_counted() {
            self.count(counted);
        }
        Ok(Record { head, sequence, payload_bytes, missed })
    }

    /// The length of a lent payload.
    #[cold]
    fn lent_bytes(&mut self, head: &Head, payload: &[u8]) -> Result<u64, Corrupt> {
        match Lent::decode(payload) {
            Some(lent) if head.kind.is_counted() => Ok(lent.bytes),
            _ => {
                self.let_go();
                Err(Corrupt::Lent { position: self.position, bytes: payload.len() })
            }
        }
    }

    /// Moves to the next record. From here on, everything before it may have been handed out.
    #[inline(always)]
    fn advance(&mut self, end: u64) {
        (self.position, self.taken) = (end, end);
        // Relaxed: the sender reads it when this receiver is gone.
        self.ack.store(ack::TAKEN, end, Ordering::Relaxed);
        // Pairs with the kill, or with the barrier of a thread that closes the inbox: nothing that the caller does with the
        // message moves before this store. No instruction.
        compiler_fence(Ordering::SeqCst);
    }

    /// Counts a message.
    #[inline(always)]
    fn count(&mut self, bytes: u64) {
        self.sequence += 1;
        self.received += 1;
        // Wrapping: a lent payload may claim any length.
        self.bytes = self.bytes.wrapping_add(bytes);
        // Release: both pair with the Acquire in ReceiverCounters::read; the sender had counted this message before.
        self.ack.store(ack::RECEIVED, self.received, Ordering::Release);
        self.ack.store(ack::BYTES_RECEIVED, self.bytes, Ordering::Release);
    }

    /// Announces that everything taken so far is processed. The sender may overwrite it.
    #[inline(always)]
    pub fn consume(&mut self) {
        if self.consumed != self.taken {
            self.consumed = self.taken;
            self.processed = self.received;
            // Release: pairs with the Acquire in ReceiverCounters::read; these messages were counted as received before.
            self.ack.store(ack::PROCESSED, self.processed, Ordering::Release);
            // Release: pairs with the Acquire in Producer::consumed; this side has finished reading these records.
            self.ack.store(ack::CONSUMED, self.consumed, Ordering::Release);
        }
    }

    /// Takes back the last message, which had this head and length: it is not handed out, and no further message is
    /// taken (`unprocessed.rs` says when). A sender that takes over in the meantime may still flag it. `payload` is what the ring
    /// had.
    #[cold]
    pub fn untake(&mut self, head: &Head, payload: &[u8]) {
        let begin = self.taken - head.record_bytes(payload.len());
        let counted = match Lent::decode(payload) {
            Some(lent) if head.lent => lent.bytes,
            _ => payload.len() as u64,
        };
        if head.lent {
            self.let_go();
        }
        (self.position, self.taken) = (begin, begin);
        self.sequence -= 1;
        self.received -= 1;
        self.bytes = self.bytes.wrapping_sub(counted);
        // Release: as in `count`.
        self.ack.store(ack::RECEIVED, self.received, Ordering::Release);
        self.ack.store(ack::BYTES_RECEIVED, self.bytes, Ordering::Release);
        // Relaxed: as in `advance`.
        self.ack.store(ack::TAKEN, begin, Ordering::Relaxed);
    }

    /// Notes when a message that carries a timestamp was processed, in ns of the same clock.
    pub fn note_received_at(&mut self, ns: u64) {
        self.last_received = ns;
        // Relaxed: nothing depends on it.
        self.ack.store(ack::LAST_RECEIVED, ns, Ordering::Relaxed);
    }

    /// Whether something taken is not consumed yet.
    pub fn has_unconsumed(&self) -> bool {
        self.consumed != self.taken
    }

    /// Whether the sender has left for good. Look for records once more after this: it may have sent some before it left.
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with the Release in Producer::close.
        self.data.load(data::CLOSED, Ordering::Acquire) != 0
    }

    /// How many messages were taken.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What this side has counted, from its private copy.
    pub fn counters(&self) -> ReceiverCounters {
        ReceiverCounters {
            processed: self.processed,
            received: self.received,
            missed: self.missed,
            bytes: self.bytes,
            last_received: self.last_received,
        }
    }

    /// The ring's mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The capacity in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn max_record_bytes(&self) -> u64 {
        self.max_record_bytes
    }

    #[inline(always)]
    pub(crate) fn word_at(&self, position: u64) -> usize {
        data::RING + (position & (self.capacity - 1)) as usize / WORD
    }
}
