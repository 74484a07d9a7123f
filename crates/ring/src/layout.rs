//! The byte layout of a channel's two memories, version 1. Everything is little-endian, 64-bit and 8-aligned.
//!
//! ```text
//! data memory: one header page, then the ring              ack memory: one page
//! written by the sender only                               written by the receiver only
//! ┌──────┬───────────────────────────────┐                 ┌──────┬───────────────────────────────┐
//! │    0 │ magic "LRPCDATA"              │                 │    0 │ magic "LRPC_ACK"              │
//! │    8 │ version                       │                 │    8 │ version                       │
//! │   16 │ capacity in bytes             │                 │   64 │ consumed position             │
//! │   24 │ ring mode                     │                 │   72 │ taken position                │
//! │   32 │ number of the first message   │                 │  128 │ armed epoch                   │
//! │   64 │ waiting epoch                 │                 │  192 │ messages received             │
//! │   72 │ closed                        │                 │  200 │ messages processed            │
//! │  128 │ intent (Latest)               │                 │  208 │ messages missed (Latest)      │
//! │  136 │ mark (Latest)                 │                 │  216 │ payload bytes received        │
//! │  192 │ committed position            │                 │  224 │ time of the last processed,ns │
//! │  200 │ messages committed            │                 │  256 │ sum of the latencies, ns      │
//! │  208 │ payload bytes committed       │                 │  264 │ longest latency, ns           │
//! │  216 │ messages dropped              │                 │  320 │ 464 buckets of the latencies  │
//! │  224 │ messages returned             │                 └──────┴───────────────────────────────┘
//! │  232 │ time spent blocked, ns        │
//! │  240 │ greatest depth in bytes       │
//! │  248 │ time of the last sent, ns     │
//! │ 4096 │ ring: `capacity` bytes        │  mapped twice in a row, so that every record is contiguous
//! └──────┴───────────────────────────────┘
//! ```
//!
//! What the other side looks at while it runs stands on cache lines apart: `waiting` and `closed`, `intent` with `mark`,
//! `consumed` with `taken`, `armed`, and the counters (which `counters.rs` explains). `histogram.rs` explains the buckets.
//! Reserved bytes are zero.

/// First word of the data memory: `LRPCDATA`.
pub const DATA_MAGIC: u64 = u64::from_le_bytes(*b"LRPCDATA");
/// First word of the ack memory: `LRPC_ACK`.
pub const ACK_MAGIC: u64 = u64::from_le_bytes(*b"LRPC_ACK");
/// The version of both layouts and of the records in the ring.
pub const VERSION: u64 = 1;

/// Bytes of a word, the unit of every offset here.
pub const WORD: usize = 8;
/// Bytes in front of the ring in the data memory.
pub const HEADER_BYTES: usize = 4096;
/// Bytes of the ack memory.
pub const ACK_BYTES: usize = 4096;

/// Word indexes in the data memory.
pub mod data {
    /// [`super::DATA_MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 1;
    /// Capacity of the ring in bytes.
    pub const CAPACITY: usize = 2;
    /// [`super::MODE_LOSSLESS`] or [`super::MODE_LATEST`].
    pub const MODE: usize = 3;
    /// The number of the first message: not 0 where the ring goes on for one that was lost.
    pub const FIRST: usize = 4;
    /// 0, or the epoch of a sender that sleeps until the receiver has consumed something.
    pub const WAITING: usize = 8;
    /// 0, or 1 when the sender has left for good after its last commit.
    pub const CLOSED: usize = 9;
    /// Mode Latest: no byte behind this position is being written.
    pub const INTENT: usize = 16;
    /// Mode Latest: a record boundary at which an overtaken receiver goes on.
    pub const MARK: usize = 17;
    /// The committed position, for observers: the receiver looks at the records only.
    pub const COMMITTED: usize = 24;
    /// How many messages were committed.
    pub const SEQUENCE: usize = 25;
    /// How many bytes their payloads have.
    pub const BYTES: usize = 26;
    /// How many messages the sender has dropped, as its policy says, instead of pushing them.
    pub const DROPPED: usize = 27;
    /// How many messages came back to their sender as an error.
    pub const RETURNED: usize = 28;
    /// How long the sender has waited for room, in ns.
    pub const BLOCKED_NS: usize = 29;
    /// The most bytes that were ever unprocessed: exact from a sixteenth of the capacity on.
    pub const DEPTH_MAX: usize = 30;
    /// The time stamp of the last message that bears one.
    pub const LAST_SENT: usize = 31;
    /// The ring's first word.
    pub const RING: usize = super::HEADER_BYTES / super::WORD;
}

/// Word indexes in the ack memory.
pub mod ack {
    /// [`super::ACK_MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 1;
    /// Everything in front of this position has been processed.
    pub const CONSUMED: usize = 8;
    /// Everything in front of this position has been handed out.
    pub const TAKEN: usize = 9;
    /// 0 while the receiver polls, otherwise the epoch of its sleep.
    pub const ARMED: usize = 16;
    /// How many messages were handed out.
    pub const RECEIVED: usize = 24;
    /// How many of them were processed.
    pub const PROCESSED: usize = 25;
    /// Mode Latest: how many messages were overwritten before the receiver came to them.
    pub const MISSED: usize = 26;
    /// How many bytes the payloads of the received messages have.
    pub const BYTES_RECEIVED: usize = 27;
    /// When the last message that bears a time stamp was processed, in ns of the same clock.
    pub const LAST_RECEIVED: usize = 28;
    /// The sum of the latencies that were counted, in ns.
    pub const LATENCY_SUM: usize = 32;
    /// The longest of them, in ns.
    pub const LATENCY_MAX: usize = 33;
    /// The first of the histogram's words: how many latencies there were in each bucket.
    pub const HISTOGRAM: usize = 40;
    /// How many buckets there are.
    pub const BUCKETS: usize = 29 * 16;
}

/// The header's word for [`Mode::Lossless`].
pub const MODE_LOSSLESS: u64 = 0;
/// The header's word for [`Mode::Latest`].
pub const MODE_LATEST: u64 = 1;

/// What happens when the receiver does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The sender never passes the consumed position: it finds the ring full.
    Lossless,
    /// The sender never waits: it overwrites the oldest records, and the receiver goes on at newer ones.
    Latest,
}

impl Mode {
    /// The word that stands for it in the header.
    pub const fn word(self) -> u64 {
        match self {
            Self::Lossless => MODE_LOSSLESS,
            Self::Latest => MODE_LATEST,
        }
    }

    /// What a header's word stands for; `None` if for no mode of this version.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            MODE_LOSSLESS => Some(Self::Lossless),
            MODE_LATEST => Some(Self::Latest),
            _ => None,
        }
    }
}

/// The smallest capacity of a ring in bytes that the formats can hold. A real channel takes whole pages.
pub const MIN_CAPACITY: u64 = 512;
/// The largest capacity of a ring in bytes.
pub const MAX_CAPACITY: u64 = 1 << 30;

/// Bytes that a message may cost beside its payload: commit word, sequence number, and every optional word.
pub const RECORD_OVERHEAD: u64 = 64;

/// The largest record of a ring with this capacity and mode, in bytes. An eighth in mode Latest, which overwrites the
/// oldest records in chunks of that size.
pub const fn max_record_bytes(capacity: u64, mode: Mode) -> u64 {
    match mode {
        Mode::Lossless => capacity / 4,
        Mode::Latest => capacity / 8,
    }
}

/// The largest payload of a ring with this capacity and mode, in bytes, whatever else the record carries.
///
/// ```
/// use librpc_ring::{Mode, layout::max_payload_bytes};
/// assert_eq!(max_payload_bytes(256 * 1024, Mode::Lossless), 65_472);
/// assert_eq!(max_payload_bytes(256 * 1024, Mode::Latest), 32_704);
/// ```
pub const fn max_payload_bytes(capacity: u64, mode: Mode) -> u64 {
    max_record_bytes(capacity, mode).saturating_sub(RECORD_OVERHEAD)
}

/// Whether a ring can have this capacity: a power of two within the limits.
pub const fn is_valid_capacity(capacity: u64) -> bool {
    capacity.is_power_of_two() && capacity >= MIN_CAPACITY && capacity <= MAX_CAPACITY
}

const _: () = {
    assert!(data::LAST_SENT < data::RING);
    assert!(data::WAITING / 8 != data::INTENT / 8 && data::INTENT / 8 != data::COMMITTED / 8, "lines apart");
    assert!(data::INTENT / 8 == data::MARK / 8, "one line for both");
    assert!(
        data::COMMITTED.is_multiple_of(8) && data::LAST_SENT / 8 == data::COMMITTED / 8,
        "one line for all counters"
    );
    assert!(ack::CONSUMED / 8 == ack::TAKEN / 8, "one line for both");
    assert!(ack::CONSUMED / 8 != ack::ARMED / 8 && ack::ARMED / 8 != ack::RECEIVED / 8, "lines apart");
    assert!(
        ack::RECEIVED.is_multiple_of(8) && ack::LAST_RECEIVED / 8 == ack::RECEIVED / 8,
        "one line for all counters"
    );
    assert!(
        ack::LATENCY_SUM.is_multiple_of(8) && ack::LATENCY_MAX < ack::HISTOGRAM && ack::HISTOGRAM.is_multiple_of(8),
        "lines apart"
    );
    assert!((ack::HISTOGRAM + ack::BUCKETS) * WORD <= ACK_BYTES);
    assert!(
        max_record_bytes(MIN_CAPACITY, Mode::Latest) >= RECORD_OVERHEAD,
        "an empty message with every optional word fits"
    );
};
