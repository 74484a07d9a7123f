//! The byte ring of librpc: one sender, one receiver, memory only, no system calls.
//!
//! `committed` and `consumed` are 64-bit byte counts that never wrap. One inequality holds the whole design:
//!
//! ```text
//! consumed ≤ taken ≤ committed ≤ consumed + capacity − 8
//! ```
//!
//! The *data* memory is written by the sender only, the *ack* memory by the receiver only; the types say so
//! ([`MemoryMut`] against [`Memory`]), and in librpc the kernel enforces it. All logic here is safe code over these two
//! traits, so the same code runs over a shared mapping ([`Mapped`]), and under loom over words that detect races.
//!
//! A process that dies anywhere in here leaves a ring that its peer can go on reading or writing: nothing is ever half
//! done in a word that the other side trusts.

mod consumer; //     the receiver's side: find, check, copy, take, consume
pub mod fault; //    steps at which a test kills the process
pub mod layout; //   where each word of the two memories stands
mod memory; //       words that somebody else may write at any time
mod producer; //     the sender's side: write, commit, find room
mod record; //       what one message looks like in the ring
mod waking; //       sleeping and waking in both directions without losing a wake-up

pub use consumer::{Consumer, Corrupt};
pub use memory::{Mapped, Memory, MemoryMut, ReadOnly, Writable};
pub use producer::{Producer, PushError, outstanding};
pub use record::{Head, Kind, Record};
pub use waking::{Armed, stop_waiting, wait_for_receiver};
