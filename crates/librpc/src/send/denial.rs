//! Subscriptions that may not read a topic, or cannot: they are removed from its routes, and their nodes learn why.
//!
//! The decision is made when the topic would be declared on a channel, from what the kernel says about the process at
//! the other end. So it costs a permitted message nothing, and a message that is not permitted is not sent at all. It
//! holds for the life of the channel: when a route gets another channel, it is made again.

use std::sync::Arc;
use std::time::Duration;

use crate::link::readers::Access;
use crate::registry::lookup::Listings;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::schema::{Schema, SchemaMismatch};
use crate::send::error::SendError;
use crate::send::message::Patience;
use crate::send::outbox::Outbox;
use crate::send::route::{RouteId, Way};
use crate::send::routes::Routes;
use crate::send::topic_name::TopicName;
use crate::send::topics::{DeniedRoute, Mismatched, Topic, TopicRoute};
use crate::sys::OsError;
use crate::sys::socket::{Sent, Socket};
use crate::wire::{self, Deny, PROTOCOL, Typed};

impl Routes {
    /// The process at the other end of a route may not read a topic. Its node is notified once.
    pub(super) fn deny(&self, id: RouteId, topic: &str) -> DeniedRoute {
        let route = &self.list[id.at];
        let denied = DeniedRoute { id, channels: route.channels() };
        let Some(subscription) = &route.subscription else { return denied };
        let Access::Denied(whom) = route.access(&self.node.readers, topic) else { return denied };
        let (own, node) = (&*self.node.id, &*route.to);
        let text = format!("topic {topic:?} of node {own:?} may not be read by {whom}");
        tracing::info!(node, inbox = subscription.target.inbox, text, "a subscription is denied a topic");
        self.tell(&subscription.target, topic, text, None);
        denied
    }

    /// A subscription is of another type than the topic. Its node is notified once.
    pub(super) fn mismatch(&self, subscription: &Arc<Subscription>, topic: &TopicName) -> Mismatched {
        let (ours, theirs) = (topic.schema().map(Schema::short), subscription.target.wanted().cloned());
        self.differ(subscription, topic.name(), ours, theirs)
    }

    /// A topic, or a service, is of another type here than there. The other side's node is notified once.
    pub(crate) fn differ(
        &self,
        subscription: &Arc<Subscription>,
        topic: &Arc<str>,
        ours: Option<Schema>,
        theirs: Option<Schema>,
    ) -> Mismatched {
        let target = &subscription.target;
        let mismatch = Arc::new(SchemaMismatch::new(topic, &target.node, target.uid, ours, theirs));
        tracing::warn!(inbox = target.inbox, %mismatch, "an inbox is not reached");
        let listed = |schema: &Option<Schema>| schema.as_ref().map(Into::into);
        let typed = Typed { schema: listed(&mismatch.ours), wanted: listed(&mismatch.theirs) };
        self.tell(target, topic, String::new(), Some(typed));
        Mismatched { subscription: subscription.clone(), mismatch }
    }

    fn tell(&self, target: &Target, topic: &str, text: String, mismatch: Option<Typed>) {
        let node = &*target.node;
        match self.notify(target, topic, text, mismatch) {
            Ok(true) => {}
            Ok(false) => {
                tracing::debug!(node, topic, "a subscription is not told that it is denied a topic: it is gone")
            }
            Err(error) => tracing::debug!(%error, node, topic, "a subscription is not told that it is denied a topic"),
        }
    }

    /// Notifies a subscription's node, over a separate connection. Never waits: the kernel keeps the message.
    fn notify(&self, target: &Target, topic: &str, text: String, mismatch: Option<Typed>) -> Result<bool, OsError> {
        let Some(directory) = self.node.directory() else { return Ok(false) };
        let socket = Socket::connect(&node_file::socket_path(&directory, &target.node)?)?;
        if socket.credentials()?.uid != target.uid {
            return Ok(false);
        }
        let denial = Deny {
            lowest: PROTOCOL,
            highest: PROTOCOL,
            node: self.node.id.to_string(),
            incarnation: *self.node.incarnation.bytes(),
            target: *target.incarnation.bytes(),
            inbox: target.inbox,
            topic: topic.to_owned(),
            text,
            mismatch,
        };
        Ok(socket.send(&wire::encode(&denial), None)? == Sent::Done)
    }

    /// Whether a failed message is no loss: its topic has limited readers, and no process that may read it was ever at
    /// the other end. A subscription that cannot be reached counts as a loss only once it has shown that it may read
    /// the topic.
    pub(super) fn owes_nothing(&self, at: usize, topic: &str, error: &SendError) -> bool {
        let is_by_receiver = matches!(error, SendError::ReceiverGone { .. } | SendError::Refused { .. });
        let is_owed = || matches!(self.list[at].access(&self.node.readers, topic), Access::Granted);
        is_by_receiver && error.undelivered() == 0 && !is_owed()
    }

    /// Whether the process at the other end of a route may read a topic. Connects to it if that is not known.
    fn meet(&mut self, at: usize, topic: &str) -> Access {
        if let Way::Closed = &self.list[at].way {
            self.reach(at, Patience::new(Duration::ZERO));
        }
        self.list[at].access(&self.node.readers, topic)
    }
}

impl Outbox {
    /// Removes the subscriptions that may not read a topic from its routes. Returns how many are known to be allowed to
    /// read it.
    pub(super) fn decide_readers(&mut self, topic: Topic) -> usize {
        let (routes, state) = (&mut self.routes, &mut self.topics.list[topic.0]);
        let mut granted = 0;
        state.routes.retain(|leg| match routes.meet(leg.id.at, state.name.name()) {
            Access::Granted => {
                granted += 1;
                true
            }
            Access::Unknown => true,
            Access::Denied(..) => {
                state.denied.push(routes.deny(leg.id, state.name.name()));
                false
            }
        });
        granted
    }

    /// Forgets subscriptions of another type that have ended.
    pub(super) fn forget_mismatched(&mut self, topic: Topic) {
        let state = &mut self.topics.list[topic.0];
        let Some(directory) = self.node.directory().filter(|_| !state.mismatched.is_empty()) else { return };
        let mut listings = Listings::new(&directory);
        // A failed look decides nothing.
        state.mismatched.retain(|mismatched| listings.contain(&mismatched.subscription.target).unwrap_or(true));
    }

    /// Puts denied subscriptions back on a topic's routes if they have had another channel since. Forgets those that
    /// have ended.
    pub(super) fn reconsider_denied(&mut self, topic: Topic) {
        let (routes, state) = (&mut self.routes, &mut self.topics.list[topic.0]);
        let Some(directory) = self.node.directory().filter(|_| !state.denied.is_empty()) else { return };
        let mut listings = Listings::new(&directory);
        state.denied.retain(|denied| {
            // A failed look decides nothing. There will be another one.
            let is_there = routes.is_there(denied.id, &mut listings).unwrap_or(true);
            let channels = routes.get(denied.id).filter(|_| is_there).map(|route| route.channels());
            if channels.is_some_and(|channels| channels != denied.channels) {
                state.routes.push(TopicRoute::new(denied.id));
            }
            channels == Some(denied.channels)
        });
    }
}
