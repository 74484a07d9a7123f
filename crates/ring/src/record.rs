//! What one message looks like in the ring.
//!
//! ```text
//! word 0    commit word: payload length (32 bits) | kind (8) | flags (8) | lap (16); zero = not committed yet
//! word 1    sequence number: how many messages were committed in front of it
//! then, as the flags say, in this order: time stamp (ns, CLOCK_MONOTONIC) · topic number · correlation
//! then      the payload, padded to 8 bytes
//! ```
//!
//! The kind is never zero, so a commit word never is. The lap (position ÷ capacity, low 16 bits) and the sequence number
//! tell a record of this round from whatever else may stand there. A topic's declaration is no message: it bears the number
//! of the message that follows it.

use crate::layout::WORD;

/// Bytes of the shortest record: commit word and sequence number.
pub(crate) const MIN_RECORD_BYTES: u64 = 2 * WORD as u64;

/// What a record is for. Stored in the commit word; zero is no kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// A message to the inbox.
    Message = 1,
    /// Binds a topic's name (the payload) to its number on this ring.
    Topic = 2,
    /// A request, with a correlation.
    Request = 3,
    /// The answer to a request, with its correlation.
    Reply = 4,
}

impl Kind {
    /// Whether a record of this kind counts as a message. A topic's declaration does not.
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::Topic)
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Message),
            2 => Some(Self::Topic),
            3 => Some(Self::Request),
            4 => Some(Self::Reply),
            _ => None,
        }
    }
}

const HAS_TIME: u8 = 1;
const HAS_TOPIC: u8 = 2;
const HAS_CORRELATION: u8 = 4;
const REDELIVERED: u8 = 8;
const KNOWN_FLAGS: u8 = HAS_TIME | HAS_TOPIC | HAS_CORRELATION | REDELIVERED;

/// What a record says beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the record is for.
    pub kind: Kind,
    /// When it was sent: ns of `CLOCK_MONOTONIC`, on sampled messages only.
    pub time: Option<u64>,
    /// The number of its topic on this ring.
    pub topic: Option<u64>,
    /// Which request a reply answers.
    pub correlation: Option<u64>,
    /// Whether an earlier incarnation of the receiver may have processed it already.
    pub redelivered: bool,
}

impl Head {
    /// A plain message: nothing optional.
    pub const MESSAGE: Self = Self::of(Kind::Message);

    /// A record of this kind with nothing optional.
    pub const fn of(kind: Kind) -> Self {
        Self { kind, time: None, topic: None, correlation: None, redelivered: false }
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.time.is_some() {
            flags |= HAS_TIME;
        }
        if self.topic.is_some() {
            flags |= HAS_TOPIC;
        }
        if self.correlation.is_some() {
            flags |= HAS_CORRELATION;
        }
        if self.redelivered {
            flags |= REDELIVERED;
        }
        flags
    }

    /// Bytes of the whole record with a payload of this length, padding included.
    #[inline(always)]
    pub fn record_bytes(&self, payload_bytes: usize) -> u64 {
        record_bytes(self.flags(), payload_bytes as u64)
    }

    /// The commit word of a record with this head.
    #[inline(always)]
    pub(crate) fn commit_word(&self, payload_bytes: usize, lap: u64) -> u64 {
        payload_bytes as u64 | (self.kind as u64) << 32 | u64::from(self.flags()) << 40 | lap << 48
    }
}

#[inline(always)]
fn record_bytes(flags: u8, payload_bytes: u64) -> u64 {
    let optional = u64::from((flags & (HAS_TIME | HAS_TOPIC | HAS_CORRELATION)).count_ones());
    (2 + optional + payload_bytes.div_ceil(WORD as u64)) * WORD as u64
}

/// A commit word taken apart, its length not yet compared with anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) kind: Kind,
    flags: u8,
    pub(crate) payload_bytes: usize,
}

impl Commit {
    /// Takes a commit word apart: `None` if no sender writes such a word on this lap.
    #[inline(always)]
    pub(crate) fn decode(word: u64, lap: u64) -> Option<Self> {
        let flags = (word >> 40) as u8;
        let kind = Kind::from_bits((word >> 32) as u8)?;
        (flags & !KNOWN_FLAGS == 0 && word >> 48 == lap).then_some(Self {
            kind,
            flags,
            payload_bytes: word as u32 as usize,
        })
    }

    /// Whether a commit word is that of a message with a topic (`true`), or with nothing beside its payload (`false`).
    #[inline(always)]
    pub(crate) fn plain(word: u64, lap: u64) -> Option<bool> {
        const MESSAGE: u64 = Kind::Message as u64;
        const MESSAGE_OF_TOPIC: u64 = MESSAGE | (HAS_TOPIC as u64) << 8;
        match (word >> 32) ^ lap << 16 {
            MESSAGE => Some(false),
            MESSAGE_OF_TOPIC => Some(true),
            _ => None,
        }
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.flags, self.payload_bytes as u64)
    }

    /// Builds the head from the optional words, asked for in the order in which they stand.
    #[inline(always)]
    pub(crate) fn head(&self, mut next_word: impl FnMut() -> u64) -> Head {
        let mut optional = |flag| (self.flags & flag != 0).then(&mut next_word);
        Head {
            kind: self.kind,
            time: optional(HAS_TIME),
            topic: optional(HAS_TOPIC),
            correlation: optional(HAS_CORRELATION),
            redelivered: self.flags & REDELIVERED != 0,
        }
    }
}

/// The low bits of how often the ring has been gone round at this position, as the commit word carries them.
#[inline(always)]
pub(crate) fn lap(position: u64, capacity: u64) -> u64 {
    (position >> capacity.trailing_zeros()) & 0xffff
}

/// A record that was handed out: a private copy of everything but the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// What it says beside its payload.
    pub head: Head,
    /// Its number: how many messages were committed in front of it, on this ring and on those for which it goes on.
    pub sequence: u64,
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
    /// How many messages directly in front of it were overwritten before the receiver came to them: always 0 in mode
    /// Lossless. A topic's declaration may bear this, too.
    pub missed: u64,
}

/// A message that bore nothing beside its payload but, perhaps, a topic: [`crate::Consumer::pop_plain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plain {
    /// Its number, as in [`Record::sequence`].
    pub sequence: u64,
    /// The number of its topic on this ring.
    pub topic: Option<u64>,
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
}
