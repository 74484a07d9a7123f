//! One inbox that an outbox reaches: its channel, and what became of the messages of earlier ones.

use crate::sys::clock::Instant;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Head;

use crate::link::channel_shared::Failure;
use crate::name::{Address, Incarnation};
use crate::registry::view::Subscription;
use crate::send::account::{Account, Reached};
use crate::send::backlog::{Backlog, Kept};
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::error::SendError;
use crate::send::rate::Pace;
use crate::wire::Reason;

/// How long after a failed attempt to reach a subscription the next one is made.
const RETRY: Duration = Duration::from_millis(100);

/// Where a topic's number was last declared: on which channel of a route (0: on none), and in which chunk of its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Declared {
    generation: u64,
    chunk: u64,
}

/// An inbox that an outbox reaches.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) to: Arc<str>,
    pub(crate) channel: Option<OutboundChannel>,
    /// Set when the receiver has refused for good.
    pub(crate) refused: Option<(Incarnation, Reason, Arc<str>)>,
    /// What became of the messages that are in no channel.
    pub(crate) before: Account,
    /// What it leads to, where that is no node's own inbox.
    pub(crate) subscription: Option<Arc<Subscription>>,
    /// A publish has waited for this one in vain: until it moves, none waits again.
    pub(crate) stuck: bool,
    /// When a subscription that could not be reached is tried again.
    pub(crate) retry_at: Option<Instant>,
    /// Whether the sender was told that it is over the high-water mark.
    pub(crate) told_high: bool,
    /// What waits for the receiver to come back; then the channel is in there, too.
    pub(crate) backlog: Option<Box<Backlog>>,
    /// Messages that came back when the wait for their receiver was over.
    pub(crate) returned: Vec<Kept>,
    /// Counts the channels.
    generation: u64,
    /// How fast messages may be sent here.
    pub(crate) pace: Option<Box<Pace>>,
    /// Tells a route from an earlier one at the same place; 0: there is none.
    pub(crate) serial: u64,
}

/// Out of line: what is only said at an end must not move what is done for each message.
#[cold]
#[inline(never)]
fn tell_of_its_end(node: &str, undelivered: u64) {
    match undelivered {
        0 => tracing::debug!(node, "a receiver is gone"),
        _ => tracing::info!(node, undelivered, "a receiver is gone, and has not processed everything"),
    }
}

impl Route {
    pub(crate) fn new(to: Arc<str>, subscription: Option<Arc<Subscription>>, serial: u64) -> Self {
        let (channel, refused, before, stuck, retry_at, told_high, pace) = Default::default();
        let (backlog, returned, generation) = Default::default();
        Self {
            to,
            channel,
            refused,
            before,
            subscription,
            stuck,
            retry_at,
            told_high,
            backlog,
            returned,
            generation,
            pace,
            serial,
        }
    }

    /// Has a new channel.
    pub(crate) fn set_channel(&mut self, channel: OutboundChannel) {
        self.generation += 1;
        self.channel = Some(channel);
        self.refused = None;
    }

    /// The hot path of [`Route::publish`]: a topic that the receiver knows, and nothing else to look at. `false`: nothing was
    /// written.
    #[inline(never)] // the loop over the routes has no registers to spare
    pub(crate) fn publish_plain(&mut self, declared: &Declared, number: u64, payload: &[u8]) -> bool {
        // A lossless ring is one chunk without end; into any other nothing is pushed here.
        let is_declared = *declared == Declared { generation: self.generation, chunk: 0 };
        is_declared && self.channel.as_mut().is_some_and(|channel| channel.push_plain(Some(number), payload))
    }

    /// Writes a message on a topic, and first what the topic's number means where the receiver may not know it.
    /// `may_pend`: also into a ring that only this process has.
    #[inline(never)]
    pub(crate) fn publish(
        &mut self,
        declared: &mut Declared,
        number: u64,
        topic: &str,
        payload: &[u8],
        may_pend: bool,
    ) -> Pushed {
        let Some(channel) = &mut self.channel else { return Pushed::Failed };
        loop {
            // A receiver that is overtaken goes on at the beginning of a chunk, and knows what was declared from there on.
            let here = Declared { generation: self.generation, chunk: channel.chunk() };
            if *declared == here {
                let head = Head { topic: Some(number), ..Head::MESSAGE };
                return if may_pend { channel.push_pending(head, payload) } else { channel.push(head, payload) };
            }
            let pushed = if may_pend { channel.declare_pending(number, topic) } else { channel.declare(number, topic) };
            match pushed {
                Pushed::Yes => *declared = here,
                other => return other,
            }
        }
    }

    /// Drops a failed channel, and says what is lost with it.
    pub(crate) fn give_up(&mut self, own_node: &Arc<str>) -> SendError {
        let Some(mut channel) = self.channel.take() else {
            return SendError::ReceiverGone { node: self.to.clone(), undelivered: 0 };
        };
        self.stuck = false;
        let account = channel.account();
        self.before += account.ended();
        tell_of_its_end(&self.to, account.queued);
        self.failed(channel.failure(), Some(channel.incarnation()), account.queued, own_node)
    }

    /// What has become of a receiver, as an error; a refusal for good is remembered.
    pub(crate) fn failed(
        &mut self,
        failure: Option<Failure>,
        incarnation: Option<Incarnation>,
        undelivered: u64,
        own_node: &Arc<str>,
    ) -> SendError {
        let node = self.to.clone();
        let (reason, text, lasts) = match failure {
            None | Some(Failure::Gone) => return SendError::ReceiverGone { node, undelivered },
            Some(Failure::NodeClosed) => return SendError::Closed { node: own_node.clone() },
            Some(Failure::Refused { reason, text }) => {
                let reason = Reason::from_number(reason);
                // Other reasons may pass.
                (reason, text, matches!(reason, Reason::NotAdmitted | Reason::Version | Reason::Identity))
            }
            Some(Failure::Broken(text)) => (Reason::Unknown, text, true),
        };
        let text: Arc<str> = text.into();
        if lasts {
            self.refused = incarnation.map(|incarnation| (incarnation, reason, text.clone()));
        }
        SendError::Refused { node, reason, text, undelivered }
    }

    /// Whether a subscription without a channel may be tried again; if so, not again too soon.
    pub(crate) fn may_retry(&mut self) -> bool {
        let now = Instant::now();
        let due = self.retry_at.is_none_or(|at| now >= at);
        if due {
            self.retry_at = Some(now + RETRY);
        }
        due
    }

    /// Counts a message that was not delivered.
    pub(crate) fn count_undelivered(&mut self, error: &SendError) {
        let dropped = matches!(error, SendError::Dropped { .. });
        match &mut self.channel {
            Some(channel) if dropped => channel.count_dropped(),
            Some(channel) => channel.count_returned(),
            None => {
                self.before.sent += 1;
                let sum = if dropped { &mut self.before.dropped } else { &mut self.before.returned };
                *sum += 1;
            }
        }
    }

    /// Why a subscription without a channel is not tried just now.
    pub(crate) fn refusal(&self) -> SendError {
        let node = self.to.clone();
        match self.refused.clone() {
            Some((_, reason, text)) => SendError::Refused { node, reason, text, undelivered: 0 },
            None => SendError::ReceiverGone { node, undelivered: 0 },
        }
    }

    /// What became of the messages so far.
    pub(crate) fn account(&mut self) -> Account {
        let mut account = self.before;
        if let Some(channel) = &mut self.channel {
            account += channel.account();
        }
        if let Some(backlog) = &mut self.backlog {
            account += backlog.account();
        }
        account
    }

    /// What it leads to, and what became of the messages there; `None`: there is no such inbox now.
    pub(crate) fn reached(&mut self) -> Option<Reached> {
        let account = self.account();
        let channel = self.channel.as_mut()?;
        let address = match &self.subscription {
            Some(subscription) => Address::Topics(subscription.patterns.clone()),
            None => Address::Node,
        };
        let (policy, is_high) = (channel.policy(), channel.is_high());
        Some(Reached { node: self.to.clone(), address, policy, account, is_stuck: self.stuck, is_high })
    }

    /// Whether the high-water mark was passed, in either direction, since this was asked last.
    pub(crate) fn has_passed_high_water(&mut self) -> bool {
        let is_high = self.channel.as_mut().is_some_and(OutboundChannel::is_high);
        std::mem::replace(&mut self.told_high, is_high) != is_high
    }
}
