//! The byte layout of a channel's two memories, version 3. Every word is little-endian, 64 bits wide and 8-byte aligned.
//!
//! ```text
//! data memory: header region, then the ring                ack memory: two pages
//! written by the sender only                               written by the receiver only
//! ┌───────┬───────────────────────────────┐                ┌──────┬───────────────────────────────┐
//! │     0 │ magic "LRPCDATA"              │                │    0 │ magic "LRPC_ACK"              │
//! │     8 │ version                       │                │    8 │ version                       │
//! │    16 │ capacity in bytes             │                │   64 │ consumed position             │
//! │    24 │ ring mode                     │                │   72 │ taken position                │
//! │    32 │ number of the first message   │                │   80 │ hold words in use             │
//! │    64 │ waiting epoch                 │                │  128 │ armed epoch                   │
//! │    72 │ closed                        │                │  192 │ messages received             │
//! │   128 │ intent (Latest)               │                │  200 │ messages processed            │
//! │   136 │ mark (Latest)                 │                │  208 │ messages missed (Latest)      │
//! │   192 │ committed position            │                │  216 │ payload bytes received        │
//! │   200 │ messages committed            │                │  224 │ time of the last processed,ns │
//! │   208 │ payload bytes committed       │                │  256 │ sum of the latencies, ns      │
//! │   216 │ messages dropped              │                │  264 │ longest latency, ns           │
//! │   224 │ messages returned             │                │  320 │ 464 latency buckets           │
//! │   232 │ time spent blocked, ns        │                │ 4096 │ 512 hold words                │
//! │   240 │ greatest depth in bytes       │                └──────┴───────────────────────────────┘
//! │   248 │ time of the last sent, ns     │
//! │   256 │ messages turned away          │
//! │   264 │ of those: too large           │
//! │   272 │ no room (published)           │
//! │   280 │ no memory                     │
//! │ 65536 │ ring: `capacity` bytes        │  mapped twice in a row, so that every record is contiguous
//! └───────┴───────────────────────────────┘
//! ```
//!
//! The header region is as long as the largest page in common use, so that the ring begins on a page boundary everywhere
//! (version 1 began it at 4,096, which systems with pages of 16 or 64 KiB cannot map). Only its first 4,096 bytes are ever
//! touched; the rest is a hole in the file and takes no memory. `mapping.rs` says what is mapped where.
//!
//! Words that the other side reads while it runs are on separate cache lines: `waiting` and `closed`, `intent` and `mark`,
//! `consumed` and `taken`, `armed`, and the counters (explained in `counters.rs`). `histogram.rs` explains the buckets, `lent.rs` the hold words: a receiver touches
//! their page only once it receives a lent payload.
//! Reserved bytes are zero.

use crate::mode::Mode;
pub use crate::mode::{MODE_LATEST, MODE_LOSSLESS};

/// First word of the data memory: `LRPCDATA`.
pub const DATA_MAGIC: u64 = u64::from_le_bytes(*b"LRPCDATA");
/// First word of the ack memory: `LRPC_ACK`.
pub const ACK_MAGIC: u64 = u64::from_le_bytes(*b"LRPC_ACK");
/// The version of both layouts and of the records in the ring.
pub const VERSION: u64 = 3;

/// Bytes of a word, the unit of every index here.
pub const WORD: usize = 8;
/// Bytes of the data memory before the ring: a multiple of the page size, up to pages of 64 KiB.
pub const HEADER_BYTES: usize = 65_536;
/// Bytes of the ack memory that are in use. Its file is whole pages of the system ([`crate::ack_segment`]).
pub const ACK_BYTES: usize = 8192;

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
    /// The number of the first message: not 0 if the ring takes over from another one.
    pub const FIRST: usize = 4;
    /// 0, or the epoch of a sender that sleeps until the receiver has consumed enough.
    pub const WAITING: usize = 8;
    /// 1 once the sender has left for good after its last commit, otherwise 0.
    pub const CLOSED: usize = 9;
    /// Mode Latest: no byte at or after this position is being written.
    pub const INTENT: usize = 16;
    /// Mode Latest: a record boundary at which an overtaken receiver continues.
    pub const MARK: usize = 17;
    /// The committed position, for observers: the receiver reads only the records.
    pub const COMMITTED: usize = 24;
    /// How many messages were committed.
    pub const SEQUENCE: usize = 25;
    /// The total length of their payloads in bytes.
    pub const BYTES: usize = 26;
    /// How many messages the sender has dropped instead of pushing them, because the policy says so.
    pub const DROPPED: usize = 27;
    /// How many messages were returned to their sender with an error.
    pub const RETURNED: usize = 28;
    /// How long the sender has waited for room, in ns.
    pub const BLOCKED_NS: usize = 29;
    /// The greatest depth in bytes. Exact from a sixteenth of the capacity on; smaller depths may go unnoticed.
    pub const DEPTH_MAX: usize = 30;
    /// The timestamp of the last message that carries one.
    pub const LAST_SENT: usize = 31;
    /// How many messages were dropped, or returned for one of the reasons below. It changes after them, and seldom, so the receiver may
    /// look at it often.
    pub const TURNED_AWAY: usize = 32;
    /// How many of those returned are too large for the inbox.
    pub const TOO_LARGE: usize = 33;
    /// How many of those returned were published, and found no room in time.
    pub const NO_ROOM: usize = 34;
    /// How many of those returned had no memory, at the sender, for their payload.
    pub const NO_MEMORY: usize = 35;
    /// The ring's first word.
    pub const RING: usize = super::HEADER_BYTES / super::WORD;
}

/// Word indexes in the ack memory.
pub mod ack {
    /// [`super::ACK_MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 1;
    /// Everything before this position has been processed.
    pub const CONSUMED: usize = 8;
    /// Everything before this position may have been handed out.
    pub const TAKEN: usize = 9;
    /// Every hold word from this one on has always been 0.
    pub const HOLDS_USED: usize = 10;
    /// 0 while the receiver polls, otherwise the epoch of its sleep.
    pub const ARMED: usize = 16;
    /// How many messages were taken.
    pub const RECEIVED: usize = 24;
    /// How many of them were processed.
    pub const PROCESSED: usize = 25;
    /// Mode Latest: how many messages were overwritten before the receiver reached them.
    pub const MISSED: usize = 26;
    /// The total length of the payloads of the received messages in bytes.
    pub const BYTES_RECEIVED: usize = 27;
    /// When the last message that carries a timestamp was processed, in ns of the same clock.
    pub const LAST_RECEIVED: usize = 28;
    /// The sum of the counted latencies, in ns.
    pub const LATENCY_SUM: usize = 32;
    /// The longest of them, in ns.
    pub const LATENCY_MAX: usize = 33;
    /// The first word of the histogram: how many latencies were counted in each bucket.
    pub const HISTOGRAM: usize = 40;
    /// How many buckets there are.
    pub const BUCKETS: usize = 29 * 16;
    /// The first hold word: the number of a message whose lent payload must stay as it is, plus 1, or 0.
    pub const HOLDS: usize = 512;
    /// How many hold words there are.
    pub const HOLD_WORDS: usize = 512;
}

/// The smallest capacity in bytes that the format allows. A channel takes whole pages: [`crate::is_mappable`].
pub const MIN_CAPACITY: u64 = 512;
/// The largest capacity in bytes.
pub const MAX_CAPACITY: u64 = 1 << 30;

/// The most bytes that a record takes in addition to its payload: commit word, sequence number, every optional word.
pub const RECORD_OVERHEAD: u64 = 64;

/// The largest record of a ring with this capacity and mode, in bytes: a quarter of the capacity, or in mode Latest an
/// eighth, because the oldest records are overwritten in chunks of that size.
pub const fn max_record_bytes(capacity: u64, mode: Mode) -> u64 {
    match mode {
        Mode::Lossless => capacity / 4,
        Mode::Latest => capacity / 8,
    }
}

/// The largest payload of a ring with this capacity and mode, in bytes, even if the record carries every optional word.
///
/// ```
/// use librpc_ring::{Mode, layout::max_payload_bytes};
/// assert_eq!(max_payload_bytes(256 * 1024, Mode::Lossless), 65_472);
/// assert_eq!(max_payload_bytes(256 * 1024, Mode::Latest), 32_704);
/// ```
pub const fn max_payload_bytes(capacity: u64, mode: Mode) -> u64 {
    max_record_bytes(capacity, mode).saturating_sub(RECORD_OVERHEAD)
}

/// Whether a capacity is a power of two from [`MIN_CAPACITY`] to [`MAX_CAPACITY`].
pub const fn is_valid_capacity(capacity: u64) -> bool {
    capacity.is_power_of_two() && capacity >= MIN_CAPACITY && capacity <= MAX_CAPACITY
}

const _: () = {
    assert!(data::NO_MEMORY < data::RING);
    assert!(data::WAITING / 8 != data::INTENT / 8 && data::INTENT / 8 != data::COMMITTED / 8, "on separate lines");
    assert!(data::INTENT / 8 == data::MARK / 8, "on one line");
    assert!(
        data::COMMITTED.is_multiple_of(8) && data::LAST_SENT / 8 == data::COMMITTED / 8,
        "all counters on one line"
    );
    assert!(
        data::TURNED_AWAY / 8 != data::COMMITTED / 8 && data::NO_MEMORY / 8 == data::TURNED_AWAY / 8,
        "on separate lines"
    );
    assert!(ack::CONSUMED / 8 == ack::TAKEN / 8 && ack::HOLDS_USED / 8 == ack::CONSUMED / 8, "on one line");
    assert!(ack::CONSUMED / 8 != ack::ARMED / 8 && ack::ARMED / 8 != ack::RECEIVED / 8, "on separate lines");
    assert!(ack::RECEIVED.is_multiple_of(8) && ack::LAST_RECEIVED / 8 == ack::RECEIVED / 8, "all counters on one line");
    assert!(
        ack::LATENCY_SUM.is_multiple_of(8) && ack::LATENCY_MAX < ack::HISTOGRAM && ack::HISTOGRAM.is_multiple_of(8),
        "on separate lines"
    );
    assert!(ack::HISTOGRAM + ack::BUCKETS <= ack::HOLDS);
    assert!((ack::HOLDS + ack::HOLD_WORDS) * WORD == ACK_BYTES);
    assert!(data::NO_MEMORY * WORD < 4096, "an idle channel touches one page of the header");
    assert!(
        max_record_bytes(MIN_CAPACITY, Mode::Latest) >= RECORD_OVERHEAD,
        "an empty message with every optional word fits"
    );
};
