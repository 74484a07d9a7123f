//! What has passed through a ring, for anyone to read: a line of counters in each memory, written by its one writer.
//!
//! ```text
//! processed ≤ received,   received + missed ≤ committed messages,   bytes received ≤ bytes committed
//! ```
//!
//! This holds at every moment for an observer that reads from left to right. Each side counts before it publishes: the
//! sender before it stores the commit word, the receiver `received` before `processed` before `consumed`. Each side
//! stores with release the words on which counters of the other side depend, and observers load them with acquire. At
//! rest the sum is exact: committed = processed + missed + queued. A sender that dies between counter and commit word
//! has counted one message that will never be received.

use std::sync::atomic::Ordering;

use crate::layout::{ack, data};
use crate::memory::Memory;

/// Why a message was returned to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Returned {
    /// It is too large for the inbox.
    TooLarge,
    /// It was published, and found no room in time.
    NoRoom,
    /// The sender had no memory for its payload.
    NoMemory,
    /// Something else. The sender has the message, and may try again: one to a node that found no room, for example.
    Other,
}

/// What a sender has counted on one ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SenderCounters {
    /// The position after the last record, in bytes.
    pub committed: u64,
    /// Messages committed.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Messages dropped instead of being committed, because the policy says so.
    pub dropped: u64,
    /// Messages returned to the sender with an error.
    pub returned: u64,
    /// Those of them that are too large for the inbox.
    pub too_large: u64,
    /// Those of them that were published, and found no room in time.
    pub no_room: u64,
    /// Those of them for whose payloads the sender had no memory.
    pub no_memory: u64,
    /// Time spent waiting for room, in ns.
    pub blocked_ns: u64,
    /// The greatest depth: the most bytes that were ever unprocessed. Exact from a sixteenth of the capacity on. A
    /// smaller depth counts only if [`crate::Producer::depth`] was called at that time, so compare this with the
    /// current depth.
    pub depth_max: u64,
    /// The timestamp of the last message that carries one, in ns; 0 if none did.
    pub last_sent: u64,
}

impl SenderCounters {
    /// How many messages the inbox will never see: those dropped, and those returned for a reason that trying again does not mend at once.
    pub fn turned_away(&self) -> u64 {
        let Self { dropped, too_large, no_room, no_memory, .. } = self;
        [too_large, no_room, no_memory].into_iter().fold(*dropped, |sum, more| sum.saturating_add(*more))
    }

    /// Reads the counters in the data memory. If a peer wrote them, any value is possible.
    pub fn read(data: &impl Memory) -> Self {
        // Acquire: pairs with nothing. It keeps these loads in order, after those of ReceiverCounters::read.
        let word = |word| data.load(word, Ordering::Acquire);
        Self {
            committed: word(data::COMMITTED),
            messages: word(data::SEQUENCE),
            bytes: word(data::BYTES),
            dropped: word(data::DROPPED),
            returned: word(data::RETURNED),
            too_large: word(data::TOO_LARGE),
            no_room: word(data::NO_ROOM),
            no_memory: word(data::NO_MEMORY),
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
    /// Messages taken.
    pub received: u64,
    /// Messages overwritten before the receiver reached them; 0 in mode Lossless.
    pub missed: u64,
    /// Bytes of the payloads of the received messages.
    pub bytes: u64,
    /// When the last message that carries a timestamp was processed, in ns; 0 if none was.
    pub last_received: u64,
}

impl ReceiverCounters {
    /// Reads the counters in the ack memory. If a peer wrote them, any value is possible.
    pub fn read(ack: &impl Memory) -> Self {
        // Acquire: pairs with the Release in Consumer::take, Consumer::count and Consumer::consume. What was counted before is
        // seen in the fields below, and in the sender's counters if they are read afterwards.
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

/// What has passed through one ring, as both sides have counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// The sender's side.
    pub sender: SenderCounters,
    /// The receiver's side.
    pub receiver: ReceiverCounters,
}

impl Counters {
    /// Reads both sides, in any process and thread, at any time. Values that two honest sides cannot have counted are reduced:
    /// `processed ≤ received` and `received + missed ≤ messages` hold for the result, whatever a peer has written.
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
        self.sender.messages.saturating_sub(self.receiver.processed).saturating_sub(self.receiver.missed)
    }
}

/// How many of the messages that are committed at the time of the call are neither processed nor missed, as any thread of
/// either side can read. A receiver that claims more than was committed has processed everything: it can only understate its
/// own work.
pub fn outstanding(data: &impl Memory, ack: &impl Memory) -> u64 {
    // Acquire: pairs with nothing. It keeps these loads before those of the receiver's words, which may only be newer.
    let (committed, messages) =
        (data.load(data::COMMITTED, Ordering::Acquire), data.load(data::SEQUENCE, Ordering::Acquire));
    // Acquire: pairs with the Release in Consumer::consume; the receiver's counters are at least as new.
    if ack.load(ack::CONSUMED, Ordering::Acquire) >= committed {
        return 0;
    }
    messages.saturating_sub(settled(ack))
}

/// How many messages the receiver claims to have processed or missed.
pub(crate) fn settled(ack: &impl Memory) -> u64 {
    // Relaxed: they follow the Acquire load of the consumed position, and may be newer.
    let word = |word| ack.load(word, Ordering::Relaxed);
    word(ack::PROCESSED).saturating_add(word(ack::MISSED))
}
