//! The topics of an outbox: which subscriptions each of them reaches, and publishing to all of these.
//!
//! A topic's routes are found once, and stand until the registry's change counter moves: in the steady state a publish
//! costs one load more than a send. A subscription that is full, stuck, gone or unwilling delays and stops no other; what
//! it has not got is said in the receipt.

use crate::sys::clock::Instant;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Head;

use crate::policy::Policy;
use crate::registry::view::{Subscription, View};
use crate::registry::{lookup, wait};
use crate::send::backlog::Behind;
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::dial::{self, ConnectError};
use crate::send::error::{PublishError, SendError};
use crate::send::outbox::Outbox;
use crate::send::rate::{Pace, Rate};
use crate::send::route::{Declared, Route};
use crate::send::topics::{Entry, Leg, Topic};
use crate::topic::{BadTopic, MAX_TOPICS, check_topic};

/// What became of one publish.
#[derive(Clone, Copy, Debug)]
#[must_use = "it says which inboxes did not get the message"]
pub struct Receipt<'a> {
    inboxes: usize,
    pending: usize,
    undelivered: &'a [SendError],
}

impl<'a> Receipt<'a> {
    /// How many inboxes got the message: it reaches them even if this process ends or is killed now.
    pub fn inboxes(&self) -> usize {
        self.inboxes
    }

    /// How many inboxes have not been given their channel yet, within the limit. They get the message once they answer, if
    /// this process lives until then. In a private domain that is rare: see [`crate::SendError::Unanswered`].
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// What did not go well: each inbox that did not get the message, with the reason, and what was lost with one that
    /// has gone since the last publish.
    pub fn undelivered(&self) -> &'a [SendError] {
        self.undelivered
    }
}

impl Outbox {
    /// A topic to publish on. It is declared once to each subscription that it reaches, and then travels as a number; a
    /// thousand topics of one outbox need no more channels than one. Does not block.
    ///
    /// # Errors
    ///
    /// [`BadTopic`].
    pub fn topic(&mut self, name: &str) -> Result<Topic, BadTopic> {
        check_topic(name)?;
        let topics = &mut self.topics;
        if let Some(&known) = topics.by_name.get(name) {
            return Ok(Topic(known));
        }
        if topics.list.len() == MAX_TOPICS {
            return Err(BadTopic::TooMany { topic: name.to_owned() });
        }
        let name: Arc<str> = name.into();
        topics.list.push(Entry { name: name.clone(), routes: Vec::new(), version: 0, pace: None, is_offered: false });
        topics.by_name.insert(name, topics.list.len() - 1);
        Ok(Topic(topics.list.len() - 1))
    }

    /// Limits how fast this outbox publishes on a topic; `None`: no limit.
    pub fn limit_topic_rate(&mut self, topic: Topic, rate: Option<Rate>) {
        self.topics.list[topic.0].pace = rate.map(|rate| Box::new(Pace::new(rate)));
    }

    /// Publishes a message to every subscription that wants the topic, and waits up to a limit, for all of them together,
    /// where one is full and lets its senders wait. A subscription for which a publish has waited in vain is *stuck*: until
    /// it moves, no later one waits for it.
    ///
    /// Every subscription gets it whose opening had returned before this began. The node's own get it only if they ask for
    /// it ([`crate::InboxBuilder::own`]).
    ///
    /// # Errors
    ///
    /// [`PublishError`]: nobody got it. That some did not is no error, but said in the receipt.
    #[inline(always)]
    pub fn publish_within(
        &mut self,
        topic: Topic,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Receipt<'_>, PublishError> {
        let (inboxes, pending) = match self.publish_plain(topic, payload) {
            Some(inboxes) => (inboxes, 0),
            None => (self.publish_fully(topic, payload, limit)?, self.pending),
        };
        Ok(Receipt { inboxes, pending, undelivered: &self.undelivered })
    }

    /// The hot path: the routes are as they were, and every inbox takes the message at once. `None`: there is more to it. What
    /// it returns fits into registers: a receipt that is built here and copied by its caller would wait for all stores.
    #[inline(never)]
    fn publish_plain(&mut self, topic: Topic, payload: &[u8]) -> Option<usize> {
        if !self.born.is_here() || !self.topics.is_as_seen() || !self.undelivered.is_empty() {
            return None;
        }
        let entry = &mut self.topics.list[topic.0];
        if entry.version != self.topics.version || entry.pace.is_some() {
            return None;
        }
        let inboxes = entry.offer(&mut self.routes, topic, payload);
        entry.is_offered = inboxes < entry.routes.len();
        (!entry.is_offered).then_some(inboxes)
    }

    /// Publishes a message that some have got already, or that nobody has.
    #[cold]
    #[inline(never)]
    fn publish_fully(&mut self, topic: Topic, payload: &[u8], limit: Duration) -> Result<usize, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        self.pending = 0;
        if !std::mem::take(&mut self.topics.list[topic.0].is_offered) {
            if !self.topics.are_current(topic) {
                self.find_routes(topic)?;
            }
            self.undelivered.clear();
            let entry = &mut self.topics.list[topic.0];
            entry.wait_for_pace(payload.len(), limit)?;
            entry.offer(&mut self.routes, topic, payload);
        }
        let has_it = |leg: &&Leg| !leg.behind;
        let inboxes = self.topics.list[topic.0].routes.iter().filter(has_it).count();
        Ok(inboxes + self.publish_slowly(topic, payload, limit)?)
    }

    /// How many subscriptions want a topic just now. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn subscribers(&mut self, topic: Topic) -> Result<usize, PublishError> {
        if !self.born.is_here() {
            return Err(PublishError::Forked);
        }
        self.find_routes(topic)?;
        let Self { topics, routes, .. } = self;
        let legs = &topics.list[topic.0].routes;
        let is_there = |leg: &&Leg| {
            let route = &routes[leg.route];
            route.serial == leg.serial && route.channel.as_ref().is_none_or(OutboundChannel::is_connected)
        };
        Ok(legs.iter().filter(is_there).count())
    }

    /// Waits up to a limit until a subscription wants a topic; `false`: there is none.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn wait_for_subscriber(&mut self, topic: Topic, limit: Duration) -> Result<bool, PublishError> {
        let Some(domain) = self.node.domain() else { return Err(self.closed()) };
        let (node, deadline) = (self.node.clone(), Instant::now().checked_add(limit));
        let look = || Ok::<_, PublishError>(Some(self.subscribers(topic)?).filter(|&subscribers| subscribers > 0));
        Ok(wait::wait_for(&node.process().lookout, domain.path(), deadline, look)?.is_some())
    }

    /// The longest message that every subscription of a topic takes, in bytes; `None`: there is no subscription.
    pub fn max_topic_message(&self, topic: Topic) -> Option<usize> {
        let legs = self.topics.list[topic.0].routes.iter();
        legs.filter_map(|leg| self.routes[leg.route].channel.as_ref()).map(OutboundChannel::max_message).min()
    }

    pub(crate) fn closed(&self) -> PublishError {
        PublishError::Closed { node: self.node.id.clone() }
    }

    /// Looks for subscriptions that a topic does not reach yet.
    #[cold]
    fn find_routes(&mut self, topic: Topic) -> Result<(), PublishError> {
        let Entry { name, version: since, .. } = &self.topics.list[topic.0];
        let ask = |view: &mut View| {
            let counter = view.refresh()?;
            let wanted = view.since(*since).filter(|subscription| subscription.wants(name));
            Ok((counter, view.watch.again(), view.version(), wanted.cloned().collect::<Vec<_>>()))
        };
        let (counter, watch, version, wanted) = self.node.ask_view(ask)?.ok_or_else(|| self.closed())?;
        self.topics.watch = Some((watch, counter));
        self.topics.version = version;
        for subscription in wanted.into_iter().rev() {
            if subscription.own || subscription.target.incarnation != self.node.incarnation {
                let leg = self.leg_to(subscription);
                let legs = &mut self.topics.list[topic.0].routes;
                // A durable subscription that is back has its leg already.
                if !legs.iter().any(|known| (known.route, known.serial) == (leg.route, leg.serial)) {
                    legs.push(leg);
                }
            }
        }
        self.topics.list[topic.0].version = version;
        Ok(())
    }

    /// The way to a subscription: over the channel that there is, or a new one.
    fn leg_to(&mut self, subscription: Arc<Subscription>) -> Leg {
        let key = (subscription.target.incarnation, subscription.target.inbox);
        let known = self.topics.by_inbox.get(&key).copied().or_else(|| self.taken_up_by(&subscription));
        let route = match known {
            Some(route) => route,
            None => {
                let (to, serial) = (subscription.target.node.clone(), self.serial());
                let new = Route::new(to, Some(subscription), serial);
                let route = self.topics.vacant.pop().unwrap_or(self.routes.len());
                match self.routes.get_mut(route) {
                    Some(vacant) => *vacant = new,
                    None => self.routes.push(new),
                }
                self.topics.by_inbox.insert(key, route);
                // What fails here is tried again, and told, by the publish that follows.
                let _ = self.reach(route, false);
                route
            }
        };
        Leg { route, serial: self.routes[route].serial, declared: Declared::default(), behind: false }
    }

    /// Connects to a subscription that has no channel, if it is still there and not to be left alone for a while.
    fn reach(&mut self, route: usize, again: bool) -> Result<Reached, PublishError> {
        let Some(directory) = self.node.directory() else { return Err(self.closed()) };
        let reached = &mut self.routes[route];
        let (node, subscription) = (reached.to.clone(), reached.subscription.clone());
        let subscription = subscription.expect("only ways to subscriptions are reached so");
        if again && !reached.may_retry() {
            return Ok(Reached::NotYet(reached.refusal()));
        }
        // A process that dies hangs up a moment before the kernel drops its lock.
        let is_there = if again { lookup::stays_listed } else { lookup::is_listed };
        if !is_there(&directory, &subscription.target) {
            self.end(route);
            return Ok(Reached::Ended);
        }
        let reached = &mut self.routes[route];
        if reached.refused.is_some() {
            return Ok(Reached::NotYet(reached.refusal()));
        }
        match dial::to_target(&self.node, &subscription.target, 0) {
            Ok(mut channel) => {
                channel.set_high_water(self.high_water);
                reached.set_channel(channel);
                Ok(Reached::Yes)
            }
            Err(ConnectError::Closed { .. }) => Err(self.closed()),
            Err(ConnectError::Os(error)) => Ok(Reached::NotYet(error.into())),
            Err(ConnectError::Refused { reason, text, .. }) => {
                Ok(Reached::NotYet(SendError::Refused { node, reason, text: text.into(), undelivered: 0 }))
            }
            Err(_) => Ok(Reached::NotYet(SendError::ReceiverGone { node, undelivered: 0 })),
        }
    }

    /// A subscription is gone for good.
    pub(crate) fn end(&mut self, route: usize) {
        let vacant = Route::new("".into(), None, 0);
        let mut ended = std::mem::replace(&mut self.routes[route], vacant);
        self.ended += ended.account().ended();
        self.returned.extend(ended.returned.drain(..).map(|kept| (ended.to.clone(), kept)));
        if let Some(subscription) = &ended.subscription {
            self.topics.by_inbox.remove(&(subscription.target.incarnation, subscription.target.inbox));
        }
        self.topics.vacant.push(route);
    }

    /// Publishes to the subscriptions that did not take the message at once; returns how many have got it now.
    #[cold]
    fn publish_slowly(&mut self, topic: Topic, payload: &[u8], limit: Duration) -> Result<usize, PublishError> {
        let deadline = Instant::now().checked_add(limit);
        let entry = &mut self.topics.list[topic.0];
        let (name, mut legs) = (entry.name.clone(), std::mem::take(&mut entry.routes));
        let (mut inboxes, mut failed) = (0, None);
        legs.retain_mut(|leg| {
            if failed.is_some() || !std::mem::take(&mut leg.behind) {
                return true;
            }
            let message = (topic.0 as u64, &*name, payload);
            match self.deliver_late(leg, message, limit, deadline) {
                Ok(Late::Delivered) => {
                    inboxes += 1;
                    true
                }
                Ok(Late::Pending) => {
                    self.pending += 1;
                    true
                }
                Ok(Late::Not(error)) => {
                    self.routes[leg.route].count_undelivered(&error);
                    self.undelivered.push(error);
                    true
                }
                Ok(Late::Ended) => false,
                Err(error) => {
                    failed = Some(error);
                    true
                }
            }
        });
        self.topics.list[topic.0].routes = legs;
        failed.map_or(Ok(inboxes), Err)
    }

    fn deliver_late(
        &mut self,
        leg: &mut Leg,
        (number, name, payload): (u64, &str, &[u8]),
        limit: Duration,
        deadline: Option<Instant>,
    ) -> Result<Late, PublishError> {
        loop {
            let route = &mut self.routes[leg.route];
            if route.serial != leg.serial || route.subscription.as_ref().is_some_and(|wanted| !wanted.wants(name)) {
                return Ok(Late::Ended);
            }
            if route.backlog.is_some() {
                match self.send_behind(leg.route, Head { topic: Some(number), ..Head::MESSAGE }, payload, deadline) {
                    Ok(Behind::Kept) => return Ok(Late::Delivered),
                    Ok(Behind::Through) => continue,
                    Err(SendError::Closed { .. }) => return Err(self.closed()),
                    // It is still kept, or what is not came back, and may be asked for.
                    Err(error) if self.routes[leg.route].backlog.is_some() => return Ok(Late::Not(error)),
                    Err(error) => {
                        self.undelivered.push(error);
                        self.end(leg.route);
                        return Ok(Late::Ended);
                    }
                }
            }
            if route.channel.is_none() {
                match self.reach(leg.route, true)? {
                    Reached::Yes => {}
                    Reached::NotYet(error) => return Ok(Late::Not(error)),
                    Reached::Ended => return Ok(Late::Ended),
                }
                continue;
            }
            let node = route.to.clone();
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let may_pend = route.stuck || is_over;
            let pushed = route.publish(&mut leg.declared, number, name, payload, may_pend);
            let Some(channel) = &mut route.channel else { continue };
            match pushed {
                // It waits for an answer: no later publish does.
                Pushed::Yes if channel.is_unsent() => {
                    route.stuck = !limit.is_zero();
                    return Ok(Late::Pending);
                }
                Pushed::Yes => {
                    route.stuck = false;
                    return Ok(Late::Delivered);
                }
                Pushed::Unsent => channel.wait_until_sent(deadline),
                Pushed::TooLarge { bytes, max } => return Ok(Late::Not(SendError::TooLarge { node, bytes, max })),
                Pushed::Full { .. } if channel.policy() == Policy::DropNewest => {
                    return Ok(Late::Not(SendError::Dropped { node }));
                }
                Pushed::Full { .. } if route.stuck => return Ok(Late::Not(SendError::Stuck { node })),
                Pushed::Full { room_at } => {
                    if is_over {
                        route.stuck = !limit.is_zero();
                        return Ok(Late::Not(SendError::Full { node, limit }));
                    }
                    channel.wait_for(room_at, deadline);
                }
                Pushed::Failed => match self.give_up(leg.route) {
                    None | Some(SendError::ReceiverGone { undelivered: 0, .. }) => {}
                    Some(SendError::Closed { .. }) => return Err(self.closed()),
                    // What is lost is told once; then the subscription is looked for again.
                    Some(gone @ SendError::ReceiverGone { .. }) => self.undelivered.push(gone),
                    Some(error) => return Ok(Late::Not(error)),
                },
            }
        }
    }
}

/// How reaching a subscription went.
enum Reached {
    Yes,
    /// Not now, and why not.
    NotYet(SendError),
    /// There is no such subscription any more.
    Ended,
}

/// How delivering to a subscription went that did not take the message at once.
enum Late {
    Delivered,
    /// It is in a ring that only this process has.
    Pending,
    Not(SendError),
    Ended,
}
