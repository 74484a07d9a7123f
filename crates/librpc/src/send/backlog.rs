//! What waits for a receiver's return: the messages that it had not processed, and those sent since.
//!
//! Invariant: the messages are in the order in which they were sent, each exactly once: a message is in the ring to the
//! receiver or here. They take no more room than the ring that they were in. All of this is private memory of the
//! sender: it ends with the sender, and a former receiver that still maps the ring sees none of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use librpc_ring::{Head, Mode, layout};

use crate::kept::KeptCount;
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::returned::Returned;

/// A message that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) head: Head,
    pub(crate) sequence: u64,
    pub(crate) payload: Box<[u8]>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.head.record_bytes(self.payload.len())
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
    /// Bytes in the ring of a receiver that has hung up, but may still be reading.
    bytes_in_doubt: u64,
    /// As many bytes as the ring had.
    capacity: u64,
    /// The number of the next message that is sent.
    next: u64,
    /// The topics of the messages, by number.
    topics: BTreeMap<u64, Arc<str>>,
    /// How many messages the node's outboxes keep.
    all: Arc<KeptCount>,
}

impl Backlog {
    pub(crate) fn new(all: Arc<KeptCount>) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
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
        self.bytes_in_doubt = channel.account().depth;
    }

    /// Takes what a channel's receiver has not processed, ahead of everything else.
    pub(crate) fn absorb(&mut self, channel: &mut OutboundChannel) -> Absorbed {
        let mut taken = Vec::new();
        let lost = channel.unprocessed(|head, sequence, payload| {
            taken.push(Kept { head, sequence, payload: payload.into() });
        });
        self.bytes_in_doubt = 0;
        let in_work = taken.iter().filter(|kept| kept.head.redelivered).count() as u64;
        let kept = taken.len() as u64;
        self.all.add(kept);
        for kept in taken.into_iter().rev() {
            self.bytes += kept.bytes();
            self.messages.push_front(kept);
        }
        Absorbed { kept, in_work, lost }
    }

    /// Remembers a topic's name, which is needed when the topic is declared again.
    pub(crate) fn name_topic(&mut self, number: u64, name: &Arc<str>) {
        self.topics.entry(number).or_insert_with(|| name.clone());
    }

    /// The name of a message's topic; `None`: it has none.
    pub(crate) fn topic(&self, head: &Head) -> Option<&Arc<str>> {
        head.topic.and_then(|number| self.topics.get(&number))
    }

    /// Keeps a message that is sent while the receiver is not there.
    pub(crate) fn push(&mut self, head: Head, payload: &[u8]) -> Pushed {
        let max = self.max_message();
        if payload.len() > max {
            return Pushed::TooLarge { bytes: payload.len(), max };
        }
        let kept = Kept { head, sequence: self.next, payload: payload.into() };
        if self.bytes_in_doubt + self.bytes + kept.bytes() > self.capacity {
            return Pushed::Full { room_at: u64::MAX };
        }
        self.next += 1;
        self.bytes += kept.bytes();
        self.messages.push_back(kept);
        self.all.add(1);
        Pushed::Yes
    }

    /// The longest message that is kept, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        layout::max_payload_bytes(self.capacity, Mode::Lossless) as usize
    }

    pub(crate) fn front(&self) -> Option<&Kept> {
        self.messages.front()
    }

    /// Takes out the oldest message.
    pub(crate) fn pop(&mut self) -> Option<Kept> {
        let kept = self.messages.pop_front()?;
        self.bytes -= kept.bytes();
        self.all.remove(1);
        Some(kept)
    }

    /// A kept message in the form in which the application gets it back.
    pub(crate) fn returned(&self, node: &Arc<str>, kept: Kept) -> Returned {
        let topic = self.topic(&kept.head).cloned().unwrap_or_default();
        let Kept { head, sequence, payload } = kept;
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
