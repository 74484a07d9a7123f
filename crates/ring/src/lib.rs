//! The byte ring of librpc: one sender, one receiver, memory only, no system calls.
//!
//! Positions are 64-bit byte counts that never wrap. One inequality holds the whole design:
//!
//! ```text
//! consumed ≤ taken ≤ committed ≤ consumed + capacity − 8
//! ```
//!
//! In mode Latest the last ≤ does not hold: there the sender overwrites old records, and the receiver notices.
//!
//! # The path of a message
//!
//! 1. The sender calls [`Producer::push`]. If the record ends past the position up to which there is nothing to check, it
//!    first reads how far the receiver has consumed (`producer.rs`, `depth.rs`).
//! 2. It writes the payload, then a zero word after the record, then stores the record's commit word with release
//!    (`producer.rs`; `record.rs` draws a record). From here on the message outlives its sender.
//! 3. If the receiver sleeps, [`Producer::must_ring`] says so, once per sleep (`waking.rs`).
//! 4. The receiver calls [`Consumer::pop`]: it loads the commit word with acquire, checks it, copies the payload, and stores
//!    `taken` (`consumer.rs`; `latest.rs` in mode Latest). Then the message is handed out.
//! 5. When the message is processed, [`Consumer::consume`] stores `consumed` with release. The sender may overwrite the
//!    record, and if it waits for room, [`Consumer::must_ring`] says so.
//! 6. If the receiver dies first, [`Producer::unprocessed`] lists what it did not process, for its successor
//!    (`unprocessed.rs`).
//!
//! # Who writes what
//!
//! Only the sender writes the *data* memory, and only the receiver writes the *ack* memory. The types say so
//! ([`MemoryMut`] and [`Memory`]), and in librpc the kernel enforces it. All logic is safe code over these two traits, so
//! the same code runs over a shared mapping ([`Mapped`]) and, under loom, over words that detect races.
//!
//! A process that dies anywhere in this crate leaves a ring that its peer can still read or write: no word that the
//! other side trusts is ever half written.

mod producer; //     the sender's side: write, commit, find room
mod push_error; //   why a record was not written
mod record; //       what one message looks like in the ring
mod consumer; //     the receiver's side: find, check, copy, take, consume
mod ahead; //        a look at what is still to come
mod corrupt; //      what is wrong with what the sender wrote
mod unprocessed; //  what a receiver that is gone has left
mod lent; //         payloads outside of the ring, and who holds them
mod latest; //       mode Latest: a sender that overwrites, a receiver that notices
mod racing; //       access to words that even an honest peer may be writing
mod waking; //       sleep and wake-up in both directions, with no wake-up lost
mod counters; //     what has passed through a ring, for anyone to read
mod histogram; //    how long messages took
pub mod layout; //   where each word of the two memories is
mod mapping; //      where each part of the two memories is mapped
mod mode; //         what happens when the receiver does not keep up
mod memory; //       words that another process may write at any time
pub mod fault; //    steps at which a test kills the process

pub use ahead::Ahead;
pub use consumer::Consumer;
pub use corrupt::Corrupt;
pub use counters::{Counters, ReceiverCounters, Returned, SenderCounters, outstanding};
pub use histogram::{Bucket, Histogram};
pub use lent::{Claim, Holds, held, release};
pub use mapping::{Segment, ack_segment, data_segments, is_mappable};
pub use memory::{Mapped, Memory, MemoryMut, ReadOnly, Writable, keep_copy};
pub use mode::Mode;
pub use producer::Producer;
pub use push_error::PushError;
pub use record::{Head, Kind, Lent, OfCall, Plain, Record};
pub use waking::{Armed, stop_waiting, wait_for_receiver};
