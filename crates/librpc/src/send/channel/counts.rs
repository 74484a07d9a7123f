//! What has happened to the messages of a channel.

use std::time::Duration;

use librpc_ring::{Counters, Returned, SenderCounters};

use super::OutboundChannel;
use crate::link::channel_shared::Failure;
use crate::send::account::Account;

impl OutboundChannel {
    /// Counts a message that was dropped, as the inbox's policy demands.
    #[cold]
    pub(crate) fn count_dropped(&mut self) {
        self.producer.note_dropped();
        self.tell();
    }

    /// Counts a message that came back.
    #[cold]
    pub(crate) fn count_returned(&mut self, why: Returned) {
        self.producer.note_returned(why);
        self.tell();
    }

    /// A receiver that sleeps looks at the counts.
    fn tell(&mut self) {
        if self.attached.is_none() {
            self.refresh(); // nothing was pushed since it has answered
        }
        if self.attached.is_some() && self.producer.must_ring() {
            self.ring_bell();
        }
    }

    /// What happened to the messages so far.
    pub(crate) fn account(&mut self) -> Account {
        self.refresh();
        // The depth is read first, so that the greatest depth is never below it.
        let depth = self.producer.depth().unwrap_or_else(|error| {
            self.shared.fail(Failure::Broken(error.to_string()));
            0
        });
        let Counters { sender, receiver, .. } = self.shared.counters();
        let SenderCounters { messages, dropped, returned, .. } = sender;
        Account {
            sent: messages + dropped + returned,
            accepted: messages,
            processed: receiver.processed,
            queued: messages - receiver.processed - receiver.missed,
            dropped: dropped + receiver.missed,
            returned,
            bytes: sender.bytes,
            blocked: Duration::from_nanos(sender.blocked_ns),
            depth,
            depth_max: sender.depth_max,
            capacity: self.producer.capacity(),
        }
    }
}
