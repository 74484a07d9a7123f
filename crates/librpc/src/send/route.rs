//! One inbox that an outbox reaches: the way there, and what happened to the messages that took earlier ways.

use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Head, Kind, Returned};

use crate::link::channel_shared::Failure;
use crate::link::readers::{Access, Readers};
use crate::name::{Address, Incarnation, Peer};
use crate::policy::Policy;
use crate::registry::view::Subscription;
use crate::schema::Schema;
use crate::send::account::{Account, ReachedInbox};
use crate::send::channel::{OutboundChannel, Pushed, topic_declaration};
use crate::send::direct::Direct;
use crate::send::error::{Holder, SendError};
use crate::send::lent_queue::Reap;
use crate::send::message::{Call, Message};
use crate::send::rate::Pace;
use crate::send::redelivery::Redelivery;
use crate::sys::clock::Instant;
use crate::sys::slots::Slots;
use crate::wire::Reason;

/// How long after a failed attempt to reach a subscription the next one is made.
const RETRY: Duration = Duration::from_millis(100);

/// Where a topic's number was last declared: on which channel of a route (0: on no channel), and in which chunk of its
/// ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Declared {
    generation: u64,
    chunk: u64,
}

/// A route as others remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteId {
    pub(crate) at: usize,
    pub(crate) serial: u64,
}

/// How an outbox gets messages to an inbox just now.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "the channel is where each message looks, and most routes have one")]
pub(crate) enum Way {
    /// It is not connected. The next message tries to connect.
    #[default]
    Closed,
    /// Over a channel, which may have failed meanwhile.
    Open(OutboundChannel),
    /// The receiver is gone, and its return is waited for.
    Redelivery(Box<Redelivery>),
}

/// Why a receiver does not take this sender.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) reason: Reason,
    pub(crate) text: Arc<str>,
    /// Whether that incarnation will never take it.
    pub(crate) is_final: bool,
}

/// What is lost with a receiver: how many messages, and why.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) messages: u64,
    pub(crate) error: SendError,
}

/// An inbox that an outbox reaches.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) to: Arc<str>,
    /// The subscription that it leads to; `None`: a node's own inbox.
    pub(crate) subscription: Option<Arc<Subscription>>,
    /// What is sent to a node's own inbox; `None`: it leads to a subscription.
    pub(crate) direct: Option<Arc<Direct>>,
    /// Distinguishes a route from another one at the same place. 0: there is no route.
    pub(crate) serial: u64,
    /// Changes with the subscription; no two routes share one. 0: there is no subscription.
    pub(crate) listing: u64,
    pub(crate) way: Way,
    /// Counts the channels.
    generation: u64,
    refusal: Option<Refusal>,
    /// The process at the other end of its last channel, if that matters and was known.
    reader: Option<Arc<Peer>>,
    /// When a subscription that could not be reached is tried again.
    retry_at: Option<Instant>,
    /// What happened to the messages that are no longer on any way.
    pub(crate) before: Account,
    /// A publish waited in vain while the receiver was at this position. No publish waits again until it moves.
    stuck_at: Option<u64>,
    /// Whether it was over the high-water mark at the outbox's last call.
    was_high: bool,
    /// How fast messages may be sent here.
    pub(crate) pace: Option<Box<Pace>>,
}

/// Out of line: code that runs once per channel must not displace code that runs for each message.
#[cold]
#[inline(never)]
fn log_end(node: &str, undelivered: u64) {
    match undelivered {
        0 => tracing::debug!(node, "a receiver is gone"),
        _ => tracing::info!(node, undelivered, "a receiver is gone, and has not processed everything"),
    }
}

impl Route {
    pub(crate) fn new(to: Arc<str>, subscription: Option<Arc<Subscription>>, serial: u64) -> Self {
        Self { to, subscription, serial, listing: serial, ..Self::default() }
    }

    /// Whether it leads to this node's own inbox, for messages of this type.
    pub(crate) fn leads_to(&self, node: &str, schema: Option<&Schema>) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.schema() == schema) && &*self.to == node
    }

    pub(crate) fn set_channel(&mut self, channel: OutboundChannel) {
        self.generation += 1;
        self.way = Way::Open(channel);
        (self.refusal, self.stuck_at) = (None, None);
    }

    /// Takes the way and leaves a closed one.
    pub(crate) fn close(&mut self) -> Way {
        self.stuck_at = None;
        if let Way::Open(channel) = &self.way {
            self.reader = channel.reader().or(self.reader.take());
        }
        std::mem::take(&mut self.way)
    }

    /// Whether the process at the other end may read a topic. Without a channel, the last answer counts.
    pub(crate) fn access(&self, readers: &Readers, topic: &str) -> Access {
        match &self.way {
            Way::Open(channel) => channel.access(topic),
            _ => match &self.subscription {
                Some(subscription) => readers.access(topic, subscription.target.uid, self.reader.as_deref()),
                None => Access::Granted,
            },
        }
    }

    /// How many channels it has had.
    pub(crate) fn channels(&self) -> u64 {
        self.generation
    }

    pub(crate) fn channel(&mut self) -> Option<&mut OutboundChannel> {
        match &mut self.way {
            Way::Open(channel) => Some(channel),
            _ => None,
        }
    }

    /// The hot path of [`Route::push`]: the receiver knows the topic, and nothing else needs a check. `false`: nothing
    /// was written.
    #[inline(never)] // the loop over the routes has no registers to spare
    pub(crate) fn push_plain(&mut self, declared: &Declared, number: u64, payload: &[u8]) -> bool {
        // A lossless ring is one endless chunk. This pushes into no other ring.
        let is_declared = *declared == Declared { generation: self.generation, chunk: 0 };
        let Way::Open(channel) = &mut self.way else { return false };
        is_declared && channel.push_plain(Some(number), payload)
    }

    /// The hot path of [`Route::push`] for a record that belongs to a call: the receiver knows the caller. `false`: nothing was
    /// written.
    #[inline(always)]
    pub(crate) fn push_of_call(&mut self, declared: &Declared, call: &Call<'_>, payload: &[u8]) -> bool {
        let Way::Open(channel) = &mut self.way else { return false };
        let is_declared = call.caller.is_none() || declared.generation == self.generation;
        is_declared && channel.push_of_call(call.kind, call.number, call.deadline, payload)
    }

    /// Writes a message, and before it the declaration of its topic if the receiver may not know that. Before that, it
    /// decides whether the receiver may read the topic, once for each channel. `may_pend`: also into a ring that only
    /// this process has.
    #[inline(never)]
    pub(crate) fn push(&mut self, declared: &mut Declared, message: Message<'_>, may_pend: bool) -> Pushed {
        let Way::Open(channel) = &mut self.way else { return Pushed::Failed };
        let push = if may_pend { OutboundChannel::push_pending } else { OutboundChannel::push };
        let declare = if may_pend { OutboundChannel::declare_pending } else { OutboundChannel::declare };
        if let Some(slot) = message.lent()
            && let Err(not_prepared) = channel.prepare_slot(slot)
        {
            return not_prepared;
        }
        let push = |channel: &mut OutboundChannel| match message.lent() {
            Some(slot) => channel.push_slot(message.head(), slot),
            None => push(channel, message.head(), message.payload),
        };
        let Some((number, topic)) = message.topic else {
            // A caller says first where it takes replies.
            if let Some(caller) = message.call.and_then(|call| call.caller)
                && declared.generation != self.generation
            {
                match declare(channel, Head::of(Kind::Caller), caller) {
                    Pushed::Yes => *declared = Declared { generation: self.generation, chunk: 0 },
                    other => return other,
                }
            }
            return push(channel);
        };
        loop {
            // A receiver that is overtaken continues at the beginning of a chunk, and sees what is declared from there
            // on.
            let here = Declared { generation: self.generation, chunk: channel.chunk() };
            if *declared == here {
                return push(channel);
            }
            if declared.generation != self.generation
                && let Err(undeclared) = channel.may_declare(topic.name())
            {
                return undeclared;
            }
            match declare(channel, topic_declaration(number), channel.declaration(topic)) {
                Pushed::Yes => *declared = here,
                other => return other,
            }
        }
    }

    /// Takes back what its receiver is done with.
    pub(crate) fn reap(&mut self, how: Reap) {
        match &mut self.way {
            Way::Open(channel) => channel.reap(how),
            Way::Redelivery(redelivery) => redelivery.reap(),
            Way::Closed => {}
        }
    }

    /// The memories of which `is_there` says no are retired.
    pub(crate) fn forget_memories(&mut self, is_there: impl Fn(u64) -> bool) {
        if let Way::Open(channel) = &mut self.way {
            channel.forget_memories(is_there);
        }
    }

    /// What its receiver has of this outbox's payloads, if anything.
    pub(crate) fn holder(&mut self) -> Option<Holder> {
        let Way::Open(channel) = &mut self.way else { return None };
        let (queued, held, bytes) = channel.lent();
        let address = self.address();
        (bytes > 0).then(|| Holder { node: self.to.clone(), address, queued, held, bytes })
    }

    /// Whether only this process has its ring.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(&self.way, Way::Open(channel) if channel.is_unsent())
    }

    /// What happened to the receiver, as an error. A refusal is remembered.
    pub(crate) fn failed(
        &mut self,
        failure: Option<Failure>,
        incarnation: Option<Incarnation>,
        undelivered: u64,
        own_node: &Arc<str>,
    ) -> Loss {
        log_end(&self.to, undelivered);
        let node = self.to.clone();
        let error = match failure {
            None | Some(Failure::Gone) => SendError::ReceiverGone { node, undelivered },
            Some(Failure::NodeClosed) => SendError::Closed { node: own_node.clone() },
            Some(Failure::Mismatch(mismatch)) => SendError::Mismatch(mismatch),
            Some(Failure::Refused { reason, text }) => {
                let reason = Reason::from_number(reason);
                // Other reasons may pass.
                let is_final = matches!(reason, Reason::NotAdmitted | Reason::Version | Reason::Identity);
                self.refused(Refusal { incarnation, reason, text: text.into(), is_final }, undelivered)
            }
            Some(Failure::Broken(text)) => {
                let refusal = Refusal { incarnation, reason: Reason::Unknown, text: text.into(), is_final: true };
                self.refused(refusal, undelivered)
            }
        };
        Loss { messages: undelivered, error }
    }

    fn refused(&mut self, refusal: Refusal, undelivered: u64) -> SendError {
        let (node, reason, text) = (self.to.clone(), refusal.reason, refusal.text.clone());
        self.refusal = Some(refusal);
        SendError::Refused { node, reason, text, undelivered }
    }

    /// The refusal that is final for this sender, if there is one.
    pub(crate) fn final_refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref().filter(|refusal| refusal.is_final)
    }

    /// It leads to another subscription from now on, which nobody has tried.
    pub(crate) fn forget_refusal(&mut self) {
        (self.refusal, self.retry_at) = (None, None);
    }

    /// Whether the subscription was connected before, or could not be.
    pub(crate) fn was_tried(&self) -> bool {
        self.generation > 0 || self.retry_at.is_some()
    }

    /// Whether a subscription may be tried now, or again.
    pub(crate) fn may_retry(&self) -> bool {
        self.retry_at.is_none_or(|at| Instant::now() >= at)
    }

    /// An attempt to connect begins. The next one has to wait for a while.
    pub(crate) fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }

    /// An attempt to connect has failed. Until the next one, messages fail for the same reason.
    pub(crate) fn attempt_failed(&mut self, error: &SendError) {
        self.retry_later();
        match error {
            SendError::Refused { reason, text, .. } => {
                let (reason, text) = (*reason, text.clone());
                self.refusal = Some(Refusal { incarnation: None, reason, text, is_final: false });
            }
            // This says nothing about the receiver.
            SendError::Os(_) => self.retry_at = Some(Instant::now()),
            _ => self.refusal = None,
        }
    }

    /// Why no attempt is made just now.
    pub(crate) fn refusal(&self) -> SendError {
        let node = self.to.clone();
        match self.refusal.clone() {
            Some(Refusal { reason, text, .. }) => SendError::Refused { node, reason, text, undelivered: 0 },
            None => SendError::ReceiverGone { node, undelivered: 0 },
        }
    }

    /// Counts a message that was not delivered, and has its receiver know.
    pub(crate) fn count_undelivered(&mut self, error: &SendError, is_published: bool) {
        let is_dropped = matches!(error, SendError::Dropped { .. });
        let why = match error {
            SendError::TooLarge { .. } => Returned::TooLarge,
            SendError::NoMemory { .. } => Returned::NoMemory,
            SendError::Full { .. } | SendError::Stuck { .. } | SendError::Unanswered { .. } if is_published => {
                Returned::NoRoom
            }
            _ => Returned::Other,
        };
        match &mut self.way {
            Way::Open(channel) if is_dropped => channel.count_dropped(),
            Way::Open(channel) => channel.count_returned(why),
            _ => {
                self.before.sent += 1;
                let sum = if is_dropped { &mut self.before.dropped } else { &mut self.before.returned };
                *sum += 1;
            }
        }
    }

    /// Has its receiver map a memory of which a payload is being written.
    pub(crate) fn lend_ahead(&mut self, slots: &Arc<Slots>) {
        if let Way::Open(channel) = &mut self.way {
            channel.lend_ahead(slots);
        }
    }

    /// A number that grows as the receiver makes progress.
    fn position(&mut self) -> Option<u64> {
        match &mut self.way {
            Way::Closed => None,
            Way::Open(channel) => channel.consumed(),
            Way::Redelivery(redelivery) => Some(redelivery.position()),
        }
    }

    /// Whether a publish waited for it in vain, and it has not moved since.
    pub(crate) fn is_stuck(&mut self) -> bool {
        self.stuck_at.is_some_and(|at| self.position() == Some(at))
    }

    /// Where the receiver was when a publish waited in vain.
    pub(crate) fn stuck_at(&self) -> Option<u64> {
        self.stuck_at
    }

    /// A publish waited for it in vain.
    pub(crate) fn set_stuck(&mut self) {
        self.stuck_at = self.position();
    }

    /// The longest message that its receiver takes, in bytes; `None`: it is not known.
    pub(crate) fn max_message(&self) -> Option<usize> {
        match (&self.way, &self.subscription) {
            (Way::Open(channel), _) => Some(channel.max_message()),
            (Way::Redelivery(redelivery), _) => Some(redelivery.max_message()),
            (Way::Closed, Some(subscription)) => Some(subscription.target.max_message()),
            (Way::Closed, None) => None,
        }
    }

    /// Whether its receiver is there, or has not answered yet, as far as is known without asking.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(&self.way, Way::Open(channel) if channel.is_connected())
    }

    /// What happens to a message when the inbox is full.
    pub(crate) fn policy(&self) -> Policy {
        match &self.way {
            Way::Open(channel) => channel.policy(),
            Way::Redelivery(redelivery) => redelivery.policy(),
            Way::Closed => Policy::Block,
        }
    }

    /// What happened to the messages so far.
    pub(crate) fn account(&mut self) -> Account {
        let mut account = self.before;
        match &mut self.way {
            Way::Open(channel) => account += channel.account(),
            Way::Redelivery(redelivery) => account += redelivery.account(),
            Way::Closed => {}
        }
        account
    }

    /// What the inbox receives that it leads to.
    fn address(&self) -> Address {
        self.subscription.as_ref().map_or(Address::Node, |subscription| subscription.target.address.clone())
    }

    /// The inbox that it leads to, and what happened to the messages there; `None`: there is no such inbox now.
    pub(crate) fn inbox(&mut self) -> Option<ReachedInbox> {
        let (account, is_stuck) = (self.account(), self.is_stuck());
        let channel = self.channel()?;
        let (policy, is_high) = (channel.policy(), channel.is_high());
        Some(ReachedInbox { node: self.to.clone(), address: self.address(), policy, account, is_stuck, is_high })
    }

    /// Whether the high-water mark was passed, in either direction, since the last call.
    pub(crate) fn has_passed_high_water(&mut self) -> bool {
        let is_high = self.channel().is_some_and(OutboundChannel::is_high);
        std::mem::replace(&mut self.was_high, is_high) != is_high
    }
}
