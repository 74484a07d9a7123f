//! What has gone through a ring, for anyone to see: in each memory a line of counters, written by its one writer.
//!
//! ```text
//! processed ≤ received,   received + missed ≤ committed messages,   bytes received ≤ bytes committed
//! ```
//!
//! This holds under way, too, for whoever reads from the left to the right: each side counts before it publishes (the sender
//! in front of the commit word, the receiver `received` in front of `processed` in front of `consumed`), stores what the
//! other's counters depend on with release, and readers load with acquire. At rest the sum is exact: committed = processed +
//! missed + queued. A sender that dies between counter and commit word has counted one message that nobody will ever see.

use std::sync::atomic::Ordering;

use crate::layout::{ack, data};
use crate::memory::Memory;

/// What a sender has counted on one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderCounters {
    /// The position behind the last record, in bytes.
    pub committed: u64,
    /// Messages committed.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Messages dropped, by a policy that asked for it, instead of being committed.
    pub dropped: u64,
    /// Messages that came back to the sender as an error.
    pub returned: u64,
    /// Time spent waiting for room, in ns.
    pub blocked_ns: u64,
    /// The most bytes that ever lay in the ring unprocessed; below a sixteenth of the capacity, of what was seen.
    pub depth_max: u64,
    /// The time stamp of the last message that bears one, in ns; 0 if none did.
    pub last_sent: u64,
}

impl SenderCounters {
    /// Reads them as they stand in the data memory. From a peer they are input: any value is possible.
    pub fn read(data: &impl Memory) -> Self {
        // Acquire: pairs with nothing; as the reads of ReceiverCounters::read come before it, so they stay.
        let word = |word| data.load(word, Ordering::Acquire);
        Self {
            committed: word(data::COMMITTED),
            messages: word(data::SEQUENCE),
            bytes: word(data::BYTES),
            dropped: word(data::DROPPED),
            returned: word(data::RETURNED),
            blocked_ns: word(data::BLOCKED_NS),
            depth_max: word(data::DEPTH_MAX),
            last_sent: word(data::LAST_SENT),
        }
    }
}

/// What a receiver has counted on one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverCounters {
    /// Messages processed.
    pub processed: u64,
    /// Messages handed out.
    pub received: u64,
    /// Messages overwritten before the receiver came to them; 0 in mode Lossless.
    pub missed: u64,
    /// Bytes of the payloads of the received messages.
    pub bytes: u64,
    /// When the last message that bears a time stamp was processed, in ns; 0 if none was.
    pub last_received: u64,
}

impl ReceiverCounters {
    /// Reads them as they stand in the ack memory. From a peer they are input: any value is possible.
    pub fn read(ack: &impl Memory) -> Self {
        // Acquire: pairs with the Release in Consumer::take and Consumer::consume; what was counted before is seen below,
        // in the order of the fields, and in the sender's counters if they are read afterwards.
        let word = |word| ack.load(word, Ordering::Acquire);
        Self {
            processed: word(ack::PROCESSED),
            received: word(ack::RECEIVED),
            missed: word(ack::MISSED),
            bytes: word(ack::BYTES_RECEIVED),
            last_received: word(ack::LAST_RECEIVED),
        }
    }
}

/// What has gone through one ring, from both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The sender's side.
    pub sender: SenderCounters,
    /// The receiver's side.
    pub receiver: ReceiverCounters,
}

impl Counters {
    /// Reads both sides, in any process and thread, at any time. What two honest sides cannot have counted is cut down to
    /// what they can: the module's inequalities hold for the result, whatever a peer has written.
    pub fn read(data: &impl Memory, ack: &impl Memory) -> Self {
        let mut receiver = ReceiverCounters::read(ack);
        let sender = SenderCounters::read(data);
        receiver.received = receiver.received.min(sender.messages);
        receiver.processed = receiver.processed.min(receiver.received);
        receiver.missed = receiver.missed.min(sender.messages - receiver.received);
        receiver.bytes = receiver.bytes.min(sender.bytes);
        Self { sender, receiver }
    }

    /// Messages that were committed, but are neither processed nor missed.
    pub fn queued(&self) -> u64 {
        self.sender.messages - self.receiver.processed - self.receiver.missed
    }
}

/// How many messages of a ring are neither processed nor missed, of those that were committed when it looked, as any thread
/// of either side can tell. A claim that is ahead counts as everything: the receiver can only understate its own work.
pub fn outstanding(data: &impl Memory, ack: &impl Memory) -> u64 {
    // Acquire: what the receiver has counted since may only be ahead of this.
    let (committed, messages) =
        (data.load(data::COMMITTED, Ordering::Acquire), data.load(data::SEQUENCE, Ordering::Acquire));
    // Acquire: pairs with the Release in Consumer::consume; its counts are at least as new.
    if ack.load(ack::CONSUMED, Ordering::Acquire) >= committed {
        return 0;
    }
    messages.saturating_sub(settled(ack))
}

/// How many messages the receiver claims to be done with.
pub(crate) fn settled(ack: &impl Memory) -> u64 {
    // Relaxed: behind the Acquire of the consumed position; newer is as good.
    let word = |word| ack.load(word, Ordering::Relaxed);
    word(ack::PROCESSED).saturating_add(word(ack::MISSED))
}
