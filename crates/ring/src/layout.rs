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
//! │   64 │ waiting epoch                 │                 │  128 │ armed epoch                   │
//! │   72 │ closed                        │                 │  192 │ receiver's counters (8 words) │
//! │  128 │ intent (Latest)               │                 │  256 │ reserved: latency histogram   │
//! │  136 │ mark (Latest)                 │                 └──────┴───────────────────────────────┘
//! │  192 │ committed position            │
//! │  200 │ sequence: messages committed  │
//! │  208 │ sender's counters (6 words)   │
//! │ 4096 │ ring: `capacity` bytes        │  mapped twice in a row, so that every record is contiguous
//! └──────┴───────────────────────────────┘
//! ```
//!
//! What the other side looks at while it runs stands on cache lines apart: `waiting` and `closed`, `consumed` with
//! `taken`, `armed`, and the counters. Reserved bytes are zero.

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
    /// How many messages were committed, for observers.
    pub const SEQUENCE: usize = 25;
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
    /// How many messages were handed out, for observers.
    pub const RECEIVED: usize = 24;
}

/// Ring mode: the sender never passes the consumed position.
pub const MODE_LOSSLESS: u64 = 0;
/// Ring mode: the sender never waits, the receiver may be overtaken. Reserved; not spoken by this version.
pub const MODE_LATEST: u64 = 1;

/// The smallest capacity of a ring in bytes that the formats can hold. A real channel takes whole pages.
pub const MIN_CAPACITY: u64 = 256;
/// The largest capacity of a ring in bytes.
pub const MAX_CAPACITY: u64 = 1 << 30;

/// Bytes that a message may cost beside its payload: commit word, sequence number, and every optional word.
pub const RECORD_OVERHEAD: u64 = 64;

/// The largest record of a ring with this capacity, in bytes.
pub const fn max_record_bytes(capacity: u64) -> u64 {
    capacity / 4
}

/// The largest payload of a ring with this capacity, in bytes, whatever else the record carries.
///
/// ```
/// assert_eq!(librpc_ring::layout::max_payload_bytes(256 * 1024), 65_472);
/// ```
pub const fn max_payload_bytes(capacity: u64) -> u64 {
    max_record_bytes(capacity).saturating_sub(RECORD_OVERHEAD)
}

/// Whether a ring can have this capacity: a power of two within the limits.
pub const fn is_valid_capacity(capacity: u64) -> bool {
    capacity.is_power_of_two() && capacity >= MIN_CAPACITY && capacity <= MAX_CAPACITY
}

const _: () = {
    assert!(data::SEQUENCE < data::RING);
    assert!(data::WAITING / 8 != data::COMMITTED / 8, "lines apart");
    assert!(ack::CONSUMED / 8 == ack::TAKEN / 8, "one line for both");
    assert!(ack::CONSUMED / 8 != ack::ARMED / 8, "lines apart");
    assert!(ack::RECEIVED * WORD < ACK_BYTES);
    assert!(max_record_bytes(MIN_CAPACITY) >= RECORD_OVERHEAD, "an empty message with every optional word fits");
};
