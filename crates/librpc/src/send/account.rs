//! What happened to the messages: every message that was sent is in exactly one of these sums.

use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Address;
use crate::policy::Policy;

/// What happened to the messages for one inbox, or for several inboxes together.
///
/// While no call is running, `sent = processed + queued + dropped + returned` exactly. A message that is published to
/// three inboxes counts three times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Account {
    /// Messages that the outbox was asked to send.
    pub sent: u64,
    /// Those of them that were put into the inbox's ring.
    pub accepted: u64,
    /// Those that the receiver has processed.
    pub processed: u64,
    /// Those that are in its inbox.
    pub queued: u64,
    /// Those that the inbox's policy has dropped: new ones ([`crate::Policy::DropNewest`]), or overwritten ones of which
    /// the receiver knows ([`crate::Policy::DropOldest`]).
    pub dropped: u64,
    /// Those that were returned with an error, or are counted in one: there was no room, or the receiver is gone.
    pub returned: u64,
    /// Bytes of payload that were put into inboxes.
    pub bytes: u64,
    /// How long sends have waited for room.
    pub blocked: Duration,
    /// Bytes of the ring that are in use now. For several inboxes, this field and the next two are those of the fullest
    /// one.
    pub depth: u64,
    /// The highest depth so far, in bytes: never below `depth`. A depth below a sixteenth of the ring counts only if it was asked for at
    /// that time.
    pub depth_max: u64,
    /// Capacity of the ring, in bytes; 0 before there is a channel, as can be before the first publish.
    pub capacity: u64,
}

/// One inbox that an outbox reaches, and what happened to the messages to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReachedInbox {
    /// The id of its node.
    pub node: Arc<str>,
    /// What it receives.
    pub address: Address,
    /// What happens to a message when the inbox is full.
    pub policy: Policy,
    /// What happened to the messages.
    pub account: Account,
    /// Whether publishes skip it until it has processed something.
    pub is_stuck: bool,
    /// Whether it is over the high-water mark ([`crate::Outbox::set_high_water`]).
    pub is_high: bool,
}

impl Account {
    /// The account once the inbox is gone: what was queued counts as returned.
    pub(crate) fn ended(self) -> Self {
        Self { queued: 0, returned: self.returned + self.queued, depth: 0, ..self }
    }

    /// The account once the inbox is gone, with `kept` messages for its next incarnation, and `lost` messages lost.
    pub(crate) fn moved(self, kept: u64, lost: u64) -> Self {
        let accepted = self.accepted.saturating_sub(kept);
        Self {
            sent: self.sent.saturating_sub(kept),
            accepted,
            processed: accepted.saturating_sub(lost),
            queued: 0,
            returned: self.returned + lost,
            depth: 0,
            ..self
        }
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.processed += other.processed;
        self.queued += other.queued;
        self.dropped += other.dropped;
        self.returned += other.returned;
        self.bytes += other.bytes;
        self.blocked += other.blocked;
        if other.depth >= self.depth {
            (self.depth, self.capacity) = (other.depth, other.capacity);
        }
        self.depth_max = self.depth_max.max(other.depth_max);
    }
}
