//! Publishing: which subscriptions a topic reaches, and getting a message to all of them.
//!
//! A topic's routes are looked up once, and hold until the registry's change counter moves. In the steady state a
//! publish costs one load more than a send. A subscription that is full, stuck, gone or unwilling neither delays nor
//! stops the others; the receipt says what it did not get.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use crate::registry::lookup::Listings;
use crate::registry::view::{Subscription, View};
use crate::registry::wait;
use crate::schema::{Schema, SchemaMismatch};
use crate::send::error::{PublishError, SendError};
use crate::send::loan::{Loan, LoanMemory, UnsentLoan};
use crate::send::message::{Attempt, Delivery, Message, Patience};
use crate::send::outbox::{DEFAULT_SEND_TIMEOUT, Outbox};
use crate::send::rate::{Pace, Rate};
use crate::send::routes::Routes;
use crate::send::topics::{Topic, TopicNames, TopicRoute, TopicState};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::topic::InvalidTopic;

/// At most this many subscriptions of another type are remembered for a topic.
const MAX_MISMATCHED: usize = 64;

/// The outcome of one publish.
#[derive(Clone, Copy, Debug)]
#[must_use = "it says which inboxes did not get the message"]
pub struct Receipt<'a> {
    inboxes: usize,
    pending: usize,
    undelivered: &'a [SendError],
}

impl<'a> Receipt<'a> {
    pub(super) fn new(inboxes: usize, pending: usize, undelivered: &'a [SendError]) -> Self {
        Self { inboxes, pending, undelivered }
    }

    /// How many inboxes got it, and for how many it is pending.
    pub(super) fn counts(self) -> (usize, usize) {
        (self.inboxes, self.pending)
    }

    /// How many inboxes got the message: it reaches them even if this process ends or is killed now.
    pub fn inboxes(&self) -> usize {
        self.inboxes
    }

    /// How many inboxes have not been given their channel yet, within the limit. They get the message once they answer, if
    /// this process lives until then. In a private domain that is rare: see [`crate::SendError::Unanswered`].
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Each inbox that did not get the message, with the reason, and each loss with an inbox that has gone since the last
    /// publish ([`SendError::undelivered`] is more than 0).
    pub fn undelivered(&self) -> &'a [SendError] {
        self.undelivered
    }
}

/// A message that is being published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publication<'p> {
    pub(super) topic: Topic,
    pub(super) payload: &'p [u8],
    /// Where its payload is or will be, if it does not go into rings.
    pub(super) slot: &'p OnceCell<Slot>,
    pub(super) patience: Patience,
}

impl Publication<'_> {
    pub(super) fn bytes(&self) -> usize {
        self.slot.get().map_or(self.payload.len(), |slot| slot.bytes() as usize)
    }
}

impl Outbox {
    /// A topic to publish on. It is declared once to each subscription that it reaches, and then sent as a number. A
    /// thousand topics of one outbox need no more channels than one topic. Does not block.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`].
    pub fn topic(&mut self, name: &str) -> Result<Topic, InvalidTopic> {
        self.topics.declare(name, None)
    }

    /// A topic to publish on, whose messages are of this type: see [`crate::PublisherBuilder::schema`].
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`]; [`InvalidTopic::OtherType`] if this outbox publishes on it already as another type.
    pub fn typed_topic(&mut self, name: &str, schema: Schema) -> Result<Topic, InvalidTopic> {
        self.topics.declare(name, Some(schema))
    }

    /// The subscriptions that want a topic as another type, as far as they were found by the last publish. None of its messages
    /// reaches them. At most 64. Does not block.
    pub fn mismatches(&self, topic: Topic) -> Vec<Arc<SchemaMismatch>> {
        self.topics.list[topic.0].mismatched.iter().map(|mismatched| mismatched.mismatch.clone()).collect()
    }

    /// Limits how fast this outbox publishes on a topic; `None`: no limit.
    pub fn limit_topic_rate(&mut self, topic: Topic, rate: Option<Rate>) {
        self.topics.list[topic.0].pace = rate.map(|rate| Box::new(Pace::new(rate)));
    }

    /// Publishes a message, and waits up to [`DEFAULT_SEND_TIMEOUT`] where inboxes are full. See [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, that is not an error: the receipt names them.
    #[inline(always)]
    pub fn publish(&mut self, topic: Topic, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.publish_timeout(topic, payload, DEFAULT_SEND_TIMEOUT)
    }

    /// Publishes a message to those inboxes that have room. Does not block. See [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, that is not an error: the receipt names them.
    #[inline(always)]
    pub fn try_publish(&mut self, topic: Topic, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.publish_timeout(topic, payload, Duration::ZERO)
    }

    /// Publishes a message to every subscription that wants the topic, and waits up to a limit, for all of them together,
    /// where one is full and lets its senders wait. A subscription for which a publish has waited in vain is *stuck*: until
    /// it has processed something, no later one waits for it.
    ///
    /// Every subscription that was open before this call began gets the message. The node's own subscriptions get it only
    /// if they ask for it ([`crate::InboxBuilder::receive_own`]).
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, that is not an error: the receipt names them.
    #[inline(always)]
    pub fn publish_timeout(
        &mut self,
        topic: Topic,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Receipt<'_>, PublishError> {
        let (inboxes, pending) = match self.publish_plain(topic, payload) {
            Some(inboxes) => (inboxes, 0),
            None => (self.publish_fully(topic, payload, timeout)?, self.pending),
        };
        Ok(Receipt { inboxes, pending, undelivered: &self.undelivered })
    }

    /// Publishes a loan: it is written once, for all inboxes, and copied only where [`Outbox::send_loan`] would. Otherwise as
    /// [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`UnsentLoan`] has the [`PublishError`], and the loan, if no subscription got it. If only some did not, that is not an error:
    /// the receipt names them.
    pub fn publish_loan(
        &mut self,
        topic: Topic,
        loan: impl Into<Loan>,
        timeout: Duration,
    ) -> Result<Receipt<'_>, UnsentLoan<PublishError>> {
        let inboxes = self.publish_whole_loan(topic, loan.into(), timeout)?;
        Ok(Receipt { inboxes, pending: self.pending, undelivered: &self.undelivered })
    }

    fn publish_whole_loan(
        &mut self,
        topic: Topic,
        loan: Loan,
        timeout: Duration,
    ) -> Result<usize, UnsentLoan<PublishError>> {
        let audience = self.routes.audience(0, Some(topic.number()));
        match loan {
            Loan { memory: LoanMemory::Slot(slot), audience: made_for } if self.routes.may_lend(&slot, audience) => {
                let cell = OnceCell::from(slot.share());
                self.publish_slot(topic, &cell, timeout).map_err(|error| UnsentLoan::from_slot(error, cell, made_for))
            }
            loan => {
                let published = match self.publish_plain(topic, &loan) {
                    Some(inboxes) => {
                        self.pending = 0;
                        Ok(inboxes)
                    }
                    None => self.publish_fully(topic, &loan, timeout),
                };
                published.map_err(|error| UnsentLoan { error, loan: Some(loan) })
            }
        }
    }

    /// Publishes what is in a slot: at once where every inbox takes it.
    fn publish_slot(&mut self, topic: Topic, slot: &OnceCell<Slot>, timeout: Duration) -> Result<usize, PublishError> {
        if self.born.is_here()
            && self.undelivered.is_empty()
            && let Some(state) = self.topics.current(topic)
            && state.pace.is_none()
        {
            let inboxes = state.offer_slot(&mut self.routes.list, topic, slot);
            if let (Some(history), Some(slot)) = (&mut state.history, slot.get()) {
                history.add_slot(slot);
            }
            state.is_offered = inboxes < state.routes.len();
            if !state.is_offered {
                self.pending = 0;
                return Ok(inboxes);
            }
        }
        self.publish_whole(topic, &[], slot, timeout)
    }

    /// The hot path: the routes have not changed, and every inbox takes the message at once. `None`: call
    /// [`Self::publish_fully`]. The result fits into registers: a caller that copies a receipt built here would wait
    /// for all stores.
    #[inline(never)]
    pub(super) fn publish_plain(&mut self, topic: Topic, payload: &[u8]) -> Option<usize> {
        if !self.born.is_here() || !self.undelivered.is_empty() {
            return None;
        }
        let state = self.topics.current(topic)?;
        if state.pace.is_some() {
            return None;
        }
        let inboxes = state.offer(&mut self.routes.list, topic, payload);
        if let Some(history) = &mut state.history {
            history.add(payload);
        }
        state.is_offered = inboxes < state.routes.len();
        (!state.is_offered).then_some(inboxes)
    }

    /// Publishes a message that some inboxes may have got already.
    #[cold]
    #[inline(never)]
    pub(super) fn publish_fully(
        &mut self,
        topic: Topic,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<usize, PublishError> {
        self.publish_whole(topic, payload, &OnceCell::new(), timeout)
    }

    /// The same for a payload that is in a slot, or may be put into this one.
    fn publish_whole(
        &mut self,
        topic: Topic,
        payload: &[u8],
        slot: &OnceCell<Slot>,
        timeout: Duration,
    ) -> Result<usize, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        let publication = Publication { topic, payload, slot, patience: Patience::new(timeout) };
        if !self.is_offered(topic) {
            let state = &mut self.topics.list[topic.0];
            let deadline = publication.patience.deadline;
            let paced = state.pace.as_mut().map_or(Ok(()), |pace| pace.wait(publication.bytes(), deadline));
            paced.map_err(|wait| PublishError::RateLimited { topic: state.name.name().clone(), wait })?;
            self.offer(publication)?;
        }
        let mut inboxes = self.reached(topic);
        // A full inbox must not delay the others, so the first pass does not wait, and the second does.
        inboxes += self.pass(publication, |routes, leg, message, names| {
            match routes.deliver_now(leg, message, names, publication.patience) {
                Attempt::Over(delivery) => Some(delivery),
                Attempt::Wait(_) | Attempt::NeedsSlot | Attempt::Retry => None,
            }
        })?;
        inboxes += self.pass(publication, |routes, leg, message, names| {
            Some(routes.deliver(leg, message, names, publication.patience))
        })?;
        self.published(publication, inboxes);
        Ok(inboxes)
    }

    /// Whether the hot path has offered the message to all inboxes already.
    pub(super) fn is_offered(&mut self, topic: Topic) -> bool {
        self.pending = 0;
        std::mem::take(&mut self.topics.list[topic.0].is_offered)
    }

    /// Offers a message to every subscription that wants it. Those that have not got it are behind.
    pub(super) fn offer(&mut self, publication: Publication<'_>) -> Result<(), PublishError> {
        let Publication { topic, payload, slot, .. } = publication;
        if self.topics.current(topic).is_none() {
            self.find_routes(topic)?;
        }
        self.undelivered = self.routes.take_losses().into_iter().map(|loss| loss.error).collect();
        let unreported = std::mem::take(&mut self.topics.list[topic.0].unreported);
        self.undelivered.extend(unreported.into_iter().map(SendError::Mismatch));
        let (state, list) = (&mut self.topics.list[topic.0], &mut self.routes.list);
        match slot.get() {
            Some(_) => state.offer_slot(list, topic, slot),
            None => state.offer(list, topic, payload),
        };
        match (&mut state.history, slot.get()) {
            (Some(history), Some(slot)) => history.add_slot(slot),
            (Some(history), None) => history.add(payload),
            (None, _) => {}
        }
        Ok(())
    }

    /// How many inboxes have got the message.
    pub(super) fn reached(&self, topic: Topic) -> usize {
        self.topics.list[topic.0].routes.iter().filter(|route| !route.is_behind).count()
    }

    /// Whether an inbox has not got the message, and may still get it.
    pub(super) fn is_behind(&self, topic: Topic) -> bool {
        self.topics.list[topic.0].routes.iter().any(|route| route.is_behind)
    }

    /// Nobody gets the message any more.
    pub(super) fn end_publication(&mut self, topic: Topic) {
        for leg in &mut self.topics.list[topic.0].routes {
            (leg.is_behind, leg.in_task) = (false, None);
        }
    }

    /// A message is published. One that no subscription accepted costs no tokens, unless there was no subscription.
    pub(super) fn published(&mut self, publication: Publication<'_>, inboxes: usize) {
        if let Some(pace) = &mut self.topics.list[publication.topic.0].pace
            && (inboxes + self.pending > 0 || self.undelivered.is_empty())
        {
            pace.take(publication.bytes());
        }
    }

    /// Tries to deliver a message to each inbox that is behind, as `deliver` does it. An inbox for which that returns `None` stays
    /// behind. Returns how many inboxes have got it now.
    pub(super) fn pass(
        &mut self,
        publication: Publication<'_>,
        mut deliver: impl FnMut(&mut Routes, &mut TopicRoute, Message<'_>, &TopicNames) -> Option<Delivery>,
    ) -> Result<usize, PublishError> {
        let Publication { topic, payload, slot, .. } = publication;
        let state = &mut self.topics.list[topic.0];
        let (name, mut legs) = (state.name.clone(), std::mem::take(&mut state.routes));
        let message =
            Message { topic: Some((topic.number(), &name)), call: None, payload, slot: Some(slot), past: false };
        let (mut inboxes, mut closed, mut denied) = (0, None, Vec::new());
        legs.retain_mut(|leg| {
            while leg.is_behind && closed.is_none() {
                let Some(delivery) = deliver(&mut self.routes, leg, message, &self.topics.names) else {
                    return true;
                };
                match delivery {
                    Delivery::Delivered => inboxes += 1,
                    Delivery::Pending => self.pending += 1,
                    Delivery::Ended => return false,
                    Delivery::Denied => {
                        denied.push(self.routes.deny(leg.id, name.name()));
                        return false;
                    }
                    Delivery::Lost(SendError::Closed { node }) | Delivery::Failed(SendError::Closed { node }) => {
                        closed = Some(PublishError::Closed { node });
                    }
                    // The loss is reported, then the message is tried again.
                    Delivery::Lost(error) => {
                        self.undelivered.push(error);
                        continue;
                    }
                    Delivery::Failed(error) if self.routes.owes_nothing(leg.id.at, name.name(), &error) => {}
                    Delivery::Failed(error) => {
                        self.routes.list[leg.id.at].count_undelivered(&error, true);
                        self.undelivered.push(error);
                    }
                }
                leg.is_behind = false;
            }
            true
        });
        let state = &mut self.topics.list[topic.0];
        state.routes = legs;
        state.denied.extend(denied);
        match closed {
            None => Ok(inboxes),
            Some(closed) => {
                self.end_publication(topic);
                Err(closed)
            }
        }
    }

    /// How many subscriptions want a topic just now, and may read it ([`crate::NodeBuilder::readers`]). Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn subscribers(&mut self, topic: Topic) -> Result<usize, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        self.find_routes(topic)?;
        if self.routes.has_losses() || self.topics.has_unreported(topic) {
            self.topics.look_again(); // the next publish reports them
        }
        let directory = self.node.directory().ok_or_else(|| self.closed())?;
        let Self { routes, topics, .. } = self;
        let state = &mut topics.list[topic.0];
        let (name, mut listings, mut failed) = (state.name.clone(), Listings::new(&directory), None);
        state.routes.retain_mut(|leg| {
            let is_there = routes.is_valid(leg, Some(&name)).then(|| routes.is_there(leg.id, &mut listings));
            match is_there {
                Some(Ok(is_there)) => is_there,
                Some(Err(error)) => {
                    failed = Some(error);
                    true
                }
                None => false,
            }
        });
        match failed {
            Some(error) => Err(error.into()),
            None if self.node.readers.restrict(name.name()) => Ok(self.decide_readers(topic)),
            None => Ok(state.routes.len()),
        }
    }

    /// Waits up to a limit until a subscription wants a topic. `false`: the time is up.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn wait_for_subscriber(&mut self, topic: Topic, timeout: Duration) -> Result<bool, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        let domain = self.node.domain().ok_or_else(|| self.closed())?;
        let (node, deadline) = (self.node.clone(), Instant::now().checked_add(timeout));
        let look = || Ok::<_, PublishError>(Some(self.subscribers(topic)?).filter(|&subscribers| subscribers > 0));
        Ok(wait::wait_for(&node.process().lookout, domain.path(), deadline, look)?.is_some())
    }

    /// The longest message that every subscription of a topic takes, in bytes; `None`: there is no subscription. Does not
    /// block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn max_topic_message(&mut self, topic: Topic) -> Result<Option<usize>, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        let routes = &self.routes;
        let is_up_to_date = |state: &mut TopicState| state.routes.iter().all(|leg| routes.is_known(leg));
        if !self.topics.current(topic).is_some_and(is_up_to_date) {
            self.subscribers(topic)?;
        }
        let legs = &self.topics.list[topic.0].routes;
        Ok(legs.iter().filter_map(|leg| self.routes.list[leg.id.at].max_message()).min())
    }

    /// Why subscriptions cannot be looked up.
    pub(super) fn closed(&self) -> PublishError {
        match self.born.is_here() {
            true => PublishError::Closed { node: self.node.id.clone() },
            false => PublishError::Forked,
        }
    }

    /// Finds the subscriptions that a topic does not reach yet.
    #[cold]
    pub(super) fn find_routes(&mut self, topic: Topic) -> Result<(), PublishError> {
        let (routes, state) = (&mut self.routes, &self.topics.list[topic.0]);
        let ask = |view: &mut View| {
            view.forget(&routes.take_ended());
            let counter = view.refresh()?;
            // A durable subscription may have returned with fewer patterns. Its route must know that for every topic.
            let is_of_use = |subscription: &&Arc<Subscription>| {
                subscription.wants(state.name.name()) || routes.has_durable(subscription)
            };
            let wanted = view.since(state.version).filter(is_of_use);
            Ok((counter, view.watch.again(), view.version(), wanted.cloned().collect::<Vec<_>>()))
        };
        let answer = self.node.ask_view(ask)?;
        let (counter, watch, version, mut wanted) = answer.ok_or_else(|| self.closed())?;
        let is_own = |subscription: &Subscription| {
            let target = &subscription.target;
            (&target.node, target.incarnation) == (&self.node.id, self.node.incarnation)
        };
        wanted.retain(|subscription| subscription.own || !is_own(subscription));
        let names = &self.topics.names;
        let name = self.topics.list[topic.0].name.clone();
        let mut mismatched = Vec::new();
        let found = wanted.into_iter().rev().filter_map(|found| {
            let (wants, takes) = (found.wants(name.name()), found.takes(name.name(), name.schema()));
            if wants && !takes {
                mismatched.push(found.clone());
            }
            if !takes && !self.routes.has_durable(&found) {
                return None;
            }
            let history = found.history;
            let route = self.routes.subscription_route(found, names);
            takes.then_some((route, history))
        });
        let found = found.collect();
        self.reconsider_denied(topic);
        self.forget_mismatched(topic);
        let state = &mut self.topics.list[topic.0];
        // Its owner may list the same one as another type each time.
        mismatched
            .retain(|new| !state.mismatched.iter().any(|known| known.subscription.target.is_same_inbox(&new.target)));
        mismatched.truncate(MAX_MISMATCHED.saturating_sub(state.mismatched.len()));
        for subscription in mismatched {
            let Some(mismatched) = self.routes.mismatch(&subscription, &name) else { continue };
            state.unreported.push(mismatched.mismatch.clone());
            state.mismatched.push(mismatched);
        }
        state.add(found);
        state.version = version;
        self.topics.seen(watch, counter, version);
        self.routes.forget_gone(&self.topics.names);
        Ok(())
    }
}
