//! Subscriptions that may not read a topic, or cannot: they are removed from its routes, and their nodes learn why.
//!
//! The decision is made when the topic would be declared on a channel, from what the kernel says about the process at
//! the other end. So it costs a permitted message nothing, and a message that is not permitted is not sent at all. It
//! holds for the life of the channel: when a route gets another channel, it is made again.

use std::sync::Arc;
use std::time::Duration;

use crate::link::readers::Access;
use crate::registry::lookup::Listings;
use crate::registry::view::Subscription;
use crate::schema::{Schema, SchemaMismatch};
use crate::send::error::SendError;
use crate::send::message::Patience;
use crate::send::notice::{Why, not_read_by, tell};
use crate::send::outbox::Outbox;
use crate::send::route::{RouteId, Way};
use crate::send::routes::Routes;
use crate::send::topic_name::TopicName;
use crate::send::topics::{DeniedRoute, Mismatched, Topic, TopicRoute};

impl Routes {
    /// The process at the other end of a route may not read a topic. Its node is notified once.
    pub(super) fn deny(&self, id: RouteId, topic: &Arc<str>) -> DeniedRoute {
        let route = &self.list[id.at];
        let denied = DeniedRoute { id, channels: route.channels() };
        let Some(subscription) = &route.subscription else { return denied };
        let Access::Denied(whom) = route.access(&self.node.readers, topic) else { return denied };
        let text = not_read_by(&self.node, &subscription.target, topic, &whom);
        tell(&self.node, &subscription.target, topic, Why::NotRead(text.into()));
        denied
    }

    /// A subscription is of another type than the topic. Its node is notified once. `None`: it may not read the topic, so it does not
    /// learn of what type that is, and its publisher owes it nothing.
    pub(super) fn mismatch(&self, subscription: &Arc<Subscription>, topic: &TopicName) -> Option<Mismatched> {
        let (ours, theirs) = (topic.schema().map(Schema::short), subscription.target.wanted().cloned());
        self.differ(subscription, topic.name(), ours, theirs)
    }

    /// A topic, or a service, is of another type here than there. The other side's node is notified once. `None`: it may not read the
    /// topic.
    pub(crate) fn differ(
        &self,
        subscription: &Arc<Subscription>,
        topic: &Arc<str>,
        ours: Option<Schema>,
        theirs: Option<Schema>,
    ) -> Option<Mismatched> {
        let target = &subscription.target;
        let mismatch = Arc::new(SchemaMismatch::new(topic, &target.node, target.uid, ours, theirs));
        if !tell(&self.node, target, topic, Why::Mismatch(mismatch.clone())) {
            return None;
        }
        tracing::warn!(inbox = target.inbox, %mismatch, "an inbox is not reached");
        Some(Mismatched { subscription: subscription.clone(), mismatch })
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

    /// Forgets subscriptions of another type that have ended, also those that no receipt has named: whoever opens and closes
    /// them would fill the memory of a publisher that does not publish. One that is listed again is found again: its node may only
    /// have missed its files.
    pub(super) fn forget_mismatched(&mut self, topic: Topic) {
        let state = &mut self.topics.list[topic.0];
        let Some(directory) = self.node.directory().filter(|_| !state.mismatched.is_empty()) else { return };
        let mut listings = Listings::new(&directory);
        // A failed look decides nothing.
        let ended = &mut self.routes.ended_targets;
        state.mismatched.retain(|mismatched| {
            let stays = listings.contain(&mismatched.subscription.target).unwrap_or(true);
            if !stays {
                ended.insert(mismatched.subscription.target.clone());
            }
            stays
        });
        let known = &state.mismatched;
        state.unreported.retain(|new| known.iter().any(|known| Arc::ptr_eq(&known.mismatch, new)));
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
