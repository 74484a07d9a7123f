//! What waits for a receiver's return: the messages that it had not processed, and those sent since.
//!
//! Invariant: the messages are in the order in which they were sent, each exactly once: a message is in the ring to the
//! receiver or here. They take no more room than the ring that they were in. All of this is private memory of the
//! sender: it ends with the sender, and a former receiver that still maps the ring sees none of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use librpc_ring::{Head, Lent, Mode, layout};

use crate::kept::KeptCount;
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::message::Message;
use crate::send::pool::slot_bytes;
use crate::send::returned::Returned;
use crate::send::topic_name::TopicName;
use crate::sys::OsError;
use crate::sys::slots::{Slot, Slots};

/// A message that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) head: Head,
    pub(crate) sequence: u64,
    pub(crate) payload: Payload,
}

/// The payload of a message that is kept.
#[derive(Debug)]
pub(crate) enum Payload {
    Copy(Box<[u8]>),
    Slot(Slot),
}

impl Kept {
    /// How many bytes of a ring it takes.
    fn bytes(&self) -> u64 {
        self.head.record_bytes(match &self.payload {
            Payload::Copy(bytes) => bytes.len(),
            Payload::Slot(_) => Lent::BYTES,
        })
    }

    /// How many bytes of a pool it takes.
    fn lent_bytes(&self) -> u64 {
        match &self.payload {
            Payload::Copy(_) => 0,
            Payload::Slot(slot) => slot.bytes(),
        }
    }

    /// How long its payload is, in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        match &self.payload {
            Payload::Copy(bytes) => bytes.len(),
            Payload::Slot(slot) => slot.bytes() as usize,
        }
    }
}

/// How many messages were taken out of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Absorbed {
    pub(crate) kept: u64,
    /// Those of them that the receiver may have been given.
    pub(crate) in_work: u64,
    /// Those that could not be found.
    pub(crate) lost: u64,
}

/// The messages that wait for a receiver.
#[derive(Debug)]
pub(crate) struct Backlog {
    messages: VecDeque<Kept>,
    bytes: u64,
    /// Bytes of payloads in slots, and how many there may be; the longest message of the inbox that is gone.
    lent_bytes: u64,
    max_lent_bytes: u64,
    max_message: usize,
    /// Bytes in the ring of a receiver that has hung up, but may still be reading.
    bytes_in_doubt: u64,
    /// As many bytes as the ring had.
    capacity: u64,
    /// The number of the next message that is sent.
    next: u64,
    /// The topics of the messages, by number.
    topics: BTreeMap<u64, Arc<TopicName>>,
    /// How many messages the node's outboxes keep.
    all: Arc<KeptCount>,
}

impl Backlog {
    /// `max_lent_bytes`: how many bytes of payloads in slots may be kept.
    pub(crate) fn new(all: Arc<KeptCount>, max_lent_bytes: u64) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            lent_bytes: 0,
            max_lent_bytes,
            max_message: 0,
            bytes_in_doubt: 0,
            capacity: 0,
            next: 0,
            topics: BTreeMap::new(),
            all,
        }
    }

    /// The receiver of a channel has hung up, and may still read what is in it.
    pub(crate) fn doubt(&mut self, channel: &mut OutboundChannel) {
        self.next = self.next.max(channel.sequence());
        self.capacity = self.capacity.max(channel.capacity());
        self.max_message = self.max_message.max(channel.max_message());
        self.bytes_in_doubt = channel.account().depth;
    }

    /// Takes what a channel's receiver has not processed, ahead of everything else.
    pub(crate) fn absorb(&mut self, channel: &mut OutboundChannel) -> Absorbed {
        let mut taken = Vec::new();
        let mut unknown = 0;
        let mut lost = channel.unprocessed(|head, sequence, payload| {
            taken.push(Kept { head, sequence, payload: Payload::Copy(payload.into()) });
        });
        // What was lent is still there: the records' shares are given back with the channel.
        taken.retain_mut(|kept| {
            if kept.head.lent {
                kept.head.lent = false;
                let Some(slot) = channel.slot(kept.sequence) else {
                    unknown += 1;
                    return false;
                };
                kept.payload = Payload::Slot(slot);
            }
            true
        });
        lost += unknown;
        self.bytes_in_doubt = 0;
        let in_work = taken.iter().filter(|kept| kept.head.redelivered).count() as u64;
        let kept = taken.len() as u64;
        self.all.add(kept);
        for kept in taken.into_iter().rev() {
            self.bytes += kept.bytes();
            self.lent_bytes += kept.lent_bytes();
            self.messages.push_front(kept);
        }
        Absorbed { kept, in_work, lost }
    }

    /// Remembers a topic's name, which is needed when the topic is declared again.
    pub(crate) fn name_topic(&mut self, number: u64, name: &Arc<TopicName>) {
        self.topics.entry(number).or_insert_with(|| name.clone());
    }

    /// The name of a message's topic; `None`: it has none.
    pub(crate) fn topic(&self, head: &Head) -> Option<&Arc<TopicName>> {
        head.topic.and_then(|number| self.topics.get(&number))
    }

    /// Keeps a message that is sent while the receiver is not there.
    pub(crate) fn push(&mut self, message: Message<'_>) -> Pushed {
        let payload = match message.lent() {
            Some(slot) => Payload::Slot(slot.clone()),
            None if message.bytes() > layout::max_payload_bytes(self.capacity, Mode::Lossless) as usize => {
                return Pushed::NeedsSlot;
            }
            None => Payload::Copy(message.payload.into()),
        };
        let kept = Kept { head: message.head(), sequence: self.next, payload };
        let lent_bytes = self.lent_bytes + kept.lent_bytes();
        if self.bytes_in_doubt + self.bytes + kept.bytes() > self.capacity
            || (lent_bytes > self.max_lent_bytes && self.lent_bytes > 0)
        {
            return Pushed::Full { room_at: u64::MAX };
        }
        self.next += 1;
        self.bytes += kept.bytes();
        self.lent_bytes = lent_bytes;
        self.messages.push_back(kept);
        self.all.add(1);
        Pushed::Yes
    }

    /// Moves the payload of the oldest message to a slot of its own.
    pub(crate) fn move_first_to_slot(&mut self) -> Result<(), OsError> {
        let Some(Kept { payload, .. }) = self.messages.front_mut() else { return Ok(()) };
        let Payload::Copy(bytes) = &*payload else { return Ok(()) };
        let (long, before) = (bytes.len() as u64, self.bytes);
        let slots = Slots::create(1, slot_bytes(long), ())?;
        let Some(mut slot) = slots.take(0, long) else { return Ok(()) };
        slot.copy_from_slice(bytes);
        *payload = Payload::Slot(slot.share());
        self.lent_bytes += long;
        self.bytes = self.messages.iter().map(Kept::bytes).sum();
        debug_assert!(self.bytes <= before, "a slot takes less of a ring");
        Ok(())
    }

    /// The longest message that is kept, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        self.max_message
    }

    pub(crate) fn front(&self) -> Option<&Kept> {
        self.messages.front()
    }

    /// Takes out the oldest message.
    pub(crate) fn pop(&mut self) -> Option<Kept> {
        let kept = self.messages.pop_front()?;
        self.bytes -= kept.bytes();
        self.lent_bytes -= kept.lent_bytes();
        self.all.remove(1);
        Some(kept)
    }

    /// A kept message in the form in which the application gets it back.
    pub(crate) fn returned(&self, node: &Arc<str>, kept: Kept) -> Returned {
        let topic = self.topic(&kept.head).map(|topic| topic.name().clone()).unwrap_or_default();
        let Kept { head, sequence, payload } = kept;
        let payload = match payload {
            Payload::Copy(payload) => payload,
            Payload::Slot(slot) => slot.to_box(),
        };
        Returned { node: node.clone(), topic, sequence, was_in_work: head.redelivered, payload }
    }

    /// The number of the oldest message, or of the next.
    pub(crate) fn first(&self) -> u64 {
        self.messages.front().map_or(self.next, |kept| kept.sequence)
    }

    /// The number of the next message that is sent.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn len(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.all.remove(self.len());
    }
}
