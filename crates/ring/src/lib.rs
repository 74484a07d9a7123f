//! The byte ring of librpc: one sender, one receiver, memory only, no system calls.
//!
//! `committed` and `consumed` are 64-bit byte counts that never wrap. One inequality holds the whole design:
//!
//! ```text
//! consumed ≤ taken ≤ committed ≤ consumed + capacity − 8
//! ```
//!
//! In mode Latest the last ≤ does not hold: there the sender overwrites, and the receiver notices.
//!
//! The *data* memory is written by the sender only, the *ack* memory by the receiver only; the types say so
//! ([`MemoryMut`] against [`Memory`]), and in librpc the kernel enforces it. All logic here is safe code over these two
//! traits, so the same code runs over a shared mapping ([`Mapped`]), and under loom over words that detect races.
//!
//! A process that dies anywhere in here leaves a ring that its peer can go on reading or writing: nothing is ever half
//! done in a word that the other side trusts.

mod consumer; //     the receiver's side: find, check, copy, take, consume
mod counters; //     what has gone through a ring, for anyone to see
mod depth; //        how much is unprocessed, and when the sender must look at that
pub mod fault; //    steps at which a test kills the process
mod histogram; //    how long messages were under way
mod latest; //       mode Latest: a sender that overwrites, a receiver that notices
pub mod layout; //   where each word of the two memories stands
mod memory; //       words that somebody else may write at any time
mod producer; //     the sender's side: write, commit, find room
mod racing; //       the same where even an honest peer may write
mod record; //       what one message looks like in the ring
mod waking; //       sleeping and waking in both directions without losing a wake-up

pub use consumer::{Consumer, Corrupt};
pub use counters::{Counters, ReceiverCounters, SenderCounters, outstanding};
pub use histogram::{Bucket, Histogram};
pub use layout::Mode;
pub use memory::{Mapped, Memory, MemoryMut, ReadOnly, Writable};
pub use producer::{Producer, PushError};
pub use record::{Head, Kind, Plain, Record};
pub use waking::{Armed, stop_waiting, wait_for_receiver};
