//! What one message looks like in the ring.
//!
//! ```text
//! word 0    commit word: payload length (32 bits) | kind (8) | flags (8) | lap (16); zero = not committed yet
//! word 1    sequence number: how many messages were committed before it
//! then      the optional words that the flags announce, in this order:
//!           timestamp (ns, CLOCK_MONOTONIC) · topic number · correlation · deadline (ns, CLOCK_MONOTONIC)
//! then      the payload, padded to 8 bytes; with the flag `lent`, it is a [`Lent`], which says where the payload is
//! ```
//!
//! The kind is never zero, so neither is a commit word. The lap (position ÷ capacity, low 16 bits) and the sequence number
//! distinguish a record of this round from leftover words. Some kinds are no messages ([`Kind::is_counted`]): such a record carries the
//! number of the message that follows it.

use crate::layout::WORD;

/// Bytes of the shortest record: commit word and sequence number.
pub(crate) const MIN_RECORD_BYTES: u64 = 2 * WORD as u64;

/// What a record is for. Stored in the commit word; zero is not a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// A message to the inbox.
    Message = 1,
    /// Declares a topic: binds its name (the payload) to a number on this ring.
    Topic = 2,
    /// A request. It carries a correlation, and perhaps a deadline. Everything below concerns the request of its correlation.
    Request = 3,
    /// The only reply to a request.
    Reply = 4,
    /// One part of a reply.
    Part = 5,
    /// There are no more parts.
    End = 6,
    /// There is no reply, or no more of it: why.
    Failure = 7,
    /// The caller no longer waits.
    Cancel = 8,
    /// The caller takes more parts: how many.
    Credit = 9,
    /// Where this sender, a caller, takes replies.
    Caller = 10,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Message,
        Self::Topic,
        Self::Request,
        Self::Reply,
        Self::Part,
        Self::End,
        Self::Failure,
        Self::Cancel,
        Self::Credit,
        Self::Caller,
    ];

    /// Whether a record of this kind counts as a message. Declarations, and what is only said about a request, do not.
    pub const fn is_counted(self) -> bool {
        !matches!(self, Self::Topic | Self::Cancel | Self::Credit | Self::Caller)
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1..=10 => Some(Self::ALL[bits as usize - 1]),
            _ => None,
        }
    }
}

const HAS_TIME: u8 = 1;
const HAS_TOPIC: u8 = 2;
const HAS_CORRELATION: u8 = 4;
const REDELIVERED: u8 = 8;
const LENT: u8 = 16;
const HAS_DEADLINE: u8 = 32;
const PAST: u8 = 64;
const OPTIONAL: u8 = HAS_TIME | HAS_TOPIC | HAS_CORRELATION | HAS_DEADLINE;
const KNOWN_FLAGS: u8 = OPTIONAL | REDELIVERED | LENT | PAST;

/// What a record carries in addition to its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the record is for.
    pub kind: Kind,
    /// When it was sent, in ns of `CLOCK_MONOTONIC`. Only sampled messages carry it.
    pub time: Option<u64>,
    /// The number of its topic on this ring.
    pub topic: Option<u64>,
    /// The number that the caller has given a request, and under which it is answered.
    pub correlation: Option<u64>,
    /// Until when a request is of use, in ns of `CLOCK_MONOTONIC`.
    pub deadline: Option<u64>,
    /// Whether an earlier incarnation of the receiver may have processed it already.
    pub redelivered: bool,
    /// Whether the payload is not in the ring, but lent: the ring has a [`crate::Lent`] in its place.
    pub lent: bool,
    /// Whether it was published before the subscription, and kept for it.
    pub past: bool,
}

impl Head {
    /// A message without optional words.
    pub const MESSAGE: Self = Self::of(Kind::Message);

    /// A record of this kind without optional words.
    pub const fn of(kind: Kind) -> Self {
        let (redelivered, lent, past) = (false, false, false);
        Self { kind, time: None, topic: None, correlation: None, deadline: None, redelivered, lent, past }
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
        if self.deadline.is_some() {
            flags |= HAS_DEADLINE;
        }
        if self.redelivered {
            flags |= REDELIVERED;
        }
        if self.lent {
            flags |= LENT;
        }
        if self.past {
            flags |= PAST;
        }
        flags
    }

    /// The length in bytes of the whole record with such a payload, including padding.
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
    let optional = u64::from((flags & OPTIONAL).count_ones());
    (2 + optional + payload_bytes.div_ceil(WORD as u64)) * WORD as u64
}

/// A decoded commit word. Its length has not been checked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) kind: Kind,
    flags: u8,
    pub(crate) payload_bytes: usize,
}

impl Commit {
    /// Decodes a commit word; `None` if it is not valid on this lap.
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

    /// Recognises the commit word of a plain message: with a topic (`true`) or without any optional word (`false`).
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

    /// Recognises the commit word of a request, a reply or a part of one that is as nearly all are: with a correlation, with a
    /// deadline (`true`) or without one, and with nothing else.
    #[inline(always)]
    pub(crate) fn of_call(word: u64, lap: u64) -> Option<(Kind, bool)> {
        const fn of(kind: Kind, flags: u8) -> u64 {
            kind as u64 | (flags as u64) << 8
        }
        const REQUEST: u64 = of(Kind::Request, HAS_CORRELATION);
        const REQUEST_IN_TIME: u64 = of(Kind::Request, HAS_CORRELATION | HAS_DEADLINE);
        const REPLY: u64 = of(Kind::Reply, HAS_CORRELATION);
        const PART: u64 = of(Kind::Part, HAS_CORRELATION);
        match (word >> 32) ^ lap << 16 {
            REQUEST_IN_TIME => Some((Kind::Request, true)),
            REQUEST => Some((Kind::Request, false)),
            REPLY => Some((Kind::Reply, false)),
            PART => Some((Kind::Part, false)),
            _ => None,
        }
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        record_bytes(self.flags, self.payload_bytes as u64)
    }

    /// Builds the head. `next_word` returns the optional words in the order in which they are stored.
    #[inline(always)]
    pub(crate) fn head(&self, mut next_word: impl FnMut() -> u64) -> Head {
        let mut optional = |flag| (self.flags & flag != 0).then(&mut next_word);
        Head {
            kind: self.kind,
            time: optional(HAS_TIME),
            topic: optional(HAS_TOPIC),
            correlation: optional(HAS_CORRELATION),
            deadline: optional(HAS_DEADLINE),
            redelivered: self.flags & REDELIVERED != 0,
            lent: self.flags & LENT != 0,
            past: self.flags & PAST != 0,
        }
    }
}

/// How many times the sender has gone round the ring at this position: the low 16 bits, as the commit word carries them.
#[inline(always)]
pub(crate) fn lap(position: u64, capacity: u64) -> u64 {
    (position >> capacity.trailing_zeros()) & 0xffff
}

/// A record that was taken: a private copy of everything but the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// What it carries in addition to its payload.
    pub head: Head,
    /// Its number: how many messages were committed before it, on this ring and on those that it took over from.
    pub sequence: u64,
    /// Bytes of the payload that the ring had: those of a [`crate::Lent`] if it is lent.
    pub payload_bytes: usize,
    /// How many messages just before it were overwritten before the receiver reached them: always 0 in mode Lossless. A
    /// topic declaration may report this, too.
    pub missed: u64,
}

/// A message with no optional word except, perhaps, a topic: [`crate::Consumer::pop_plain`].
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

/// A request, a reply or a part of one with no optional word except its correlation and, perhaps, a deadline:
/// [`crate::Consumer::pop_of_call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfCall {
    /// Which of them it is.
    pub kind: Kind,
    /// The number that the caller has given the request.
    pub correlation: u64,
    /// As in [`Head::deadline`].
    pub deadline: Option<u64>,
    /// Its number, as in [`Record::sequence`].
    pub sequence: u64,
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
}

/// Where a lent payload is. The receiver must check it: any value is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lent {
    /// The sender's random number of the memory.
    pub segment: u64,
    /// Where the payload begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

impl Lent {
    /// How many bytes of a ring it takes.
    pub const BYTES: usize = 3 * WORD;

    /// As the ring has it.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut encoded = [0; Self::BYTES];
        let words = [self.segment, self.offset, self.bytes];
        encoded.as_chunks_mut().0.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
        encoded
    }

    /// Reads what a ring has; `None` if the length is wrong.
    pub fn decode(encoded: &[u8]) -> Option<Self> {
        let (words, []) = encoded.as_chunks::<WORD>() else { return None };
        let &[segment, offset, bytes] = words else { return None };
        let [segment, offset, bytes] = [segment, offset, bytes].map(u64::from_le_bytes);
        Some(Self { segment, offset, bytes })
    }
}
