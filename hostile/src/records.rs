//! A ring of the attacker's, written word by word, and one of the victim's, read so.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{HEADER_BYTES, ack, data};
use librpc_ring::{Kind, Mapped, Memory, MemoryMut, ReadOnly};

use crate::mapping::{CAPACITY, Words};

/// Flags of a record.
const HAS_TIME: u64 = 1;
pub(crate) const HAS_TOPIC: u64 = 2;
pub(crate) const HAS_CORRELATION: u64 = 4;
pub(crate) const LENT: u64 = 16;
pub(crate) const HAS_DEADLINE: u64 = 32;
/// No record here is longer: as much as a ring of [`CAPACITY`] takes.
const LONGEST: u64 = CAPACITY / 4;

/// A ring that is written word by word.
pub(crate) struct Records {
    words: Words,
    position: u64,
    number: u64,
}

impl Records {
    pub(crate) fn new(words: Words) -> Self {
        Self { words, position: 0, number: 0 }
    }

    /// How many messages were committed.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Commits a record with these words after its head, of which the last `bytes` bytes are the payload.
    pub(crate) fn commit(&mut self, kind: Kind, flags: u64, after: &[u64], bytes: u64) {
        let at = |position: u64| data::RING + (position & (CAPACITY - 1)) as usize / 8;
        let end = self.position + 16 + 8 * after.len() as u64;
        for (position, word) in (self.position + 16..).step_by(8).zip(after) {
            self.words.store(at(position), *word, Ordering::Relaxed);
        }
        self.words.store(at(end), 0, Ordering::Relaxed);
        self.words.store(at(self.position + 8), self.number, Ordering::Relaxed);
        let lap = (self.position / CAPACITY) & 0xffff;
        // Release: pairs with the Acquire in Consumer::pop.
        self.words.store(at(self.position), bytes | (kind as u64) << 32 | flags << 40 | lap << 48, Ordering::Release);
        self.position = end;
        self.number += u64::from(kind.is_counted());
    }

    /// Commits a record of a call.
    pub(crate) fn say(&mut self, kind: Kind, number: Option<u64>, deadline: Option<u64>, payload: &[u8]) {
        self.say_with(0, kind, (number, deadline), payload);
    }

    /// The same; the payload is where this place says.
    pub(crate) fn say_lent(&mut self, kind: Kind, number: u64, place: librpc_ring::Lent) {
        self.say_with(LENT, kind, (Some(number), None), &place.encode());
    }

    fn say_with(&mut self, flags: u64, kind: Kind, (number, deadline): (Option<u64>, Option<u64>), payload: &[u8]) {
        let flag = |word: Option<u64>, flag| if word.is_some() { flag } else { 0 };
        let flags = flags | flag(number, HAS_CORRELATION) | flag(deadline, HAS_DEADLINE);
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let words: Vec<u64> = number.into_iter().chain(deadline).chain(payload.chunks(8).map(word)).collect();
        self.commit(kind, flags, &words, payload.len() as u64);
    }

    /// Whether the longest record would overwrite nothing that the receiver has not consumed.
    pub(crate) fn has_room(&self, acks: &Mapped<ReadOnly, Arc<()>>) -> bool {
        // Acquire: pairs with the Release of the receiver's acknowledgement.
        let consumed = acks.load(ack::CONSUMED, Ordering::Acquire);
        self.position + LONGEST + 8 <= consumed + CAPACITY
    }
}

/// How far a ring of the victim's is read.
pub(crate) struct Reading {
    capacity: u64,
    /// Everything before this position was read.
    pub(crate) position: u64,
}

/// A record of the victim's: its kind, the call that it belongs to, and its payload.
pub(crate) type Read = (u64, Option<u64>, Vec<u8>);

impl Reading {
    /// At the beginning of a ring in a memory of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self { capacity: bytes - HEADER_BYTES as u64, position: 0 }
    }

    /// The next record, if there is one.
    pub(crate) fn next(&mut self, ring: &Mapped<ReadOnly, Arc<()>>) -> Option<Read> {
        let load = |position: u64, order| ring.load(data::RING + (position & (self.capacity - 1)) as usize / 8, order);
        // Acquire: pairs with the Release of the sender's commit.
        let commit = load(self.position, Ordering::Acquire);
        if commit == 0 || commit >> 48 != (self.position / self.capacity) & 0xffff {
            return None;
        }
        let (kind, flags, bytes) = (commit >> 32 & 0xff, commit >> 40 & 0xff, u64::from(commit as u32));
        let optional = flags & (HAS_TIME | HAS_TOPIC | HAS_CORRELATION | HAS_DEADLINE);
        let before = u64::from((flags & (HAS_TIME | HAS_TOPIC)).count_ones());
        let words = self.position + 16;
        let number = (flags & HAS_CORRELATION != 0).then(|| load(words + 8 * before, Ordering::Relaxed));
        let from = words + 8 * u64::from(optional.count_ones());
        let end = from + bytes.next_multiple_of(8);
        let bytes_of = |position| load(position, Ordering::Relaxed).to_le_bytes();
        let mut payload: Vec<u8> = (from..end).step_by(8).flat_map(bytes_of).collect();
        payload.truncate(bytes as usize);
        self.position = end;
        Some((kind, number, payload))
    }
}
