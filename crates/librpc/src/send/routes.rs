//! The inboxes that an outbox reaches.
//!
//! Invariant: a route keeps its place until it ends, and only the route of a subscription ends. A topic remembers the
//! place. A new serial number there means that the route has ended, a new listing number that its subscription has
//! changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use crate::link::inbox_shared::InboxShared;
use crate::node_shared::NodeShared;
use crate::policy::Policy;
use crate::registry::lookup::Listings;
use crate::registry::target::Target;
use crate::registry::view::{DurableKey, Subscription};
use crate::schema::Schema;
use crate::send::account::{Account, ReachedInbox};
use crate::send::channel::{OutboundChannel, WaitsFor};
use crate::send::dial::{self, ConnectError};
use crate::send::direct::Direct;
use crate::send::error::{LoanError, SendError};
use crate::send::lent_queue::Reap;
use crate::send::message::{Attempt, Delivery, Patience};
use crate::send::news::News;
use crate::send::pool::{Audience, NoSlot, Pool};
use crate::send::returned::{Returned, ReturnedError, ReturnedMessages};
use crate::send::route::{Loss, Route, RouteId, Way};
use crate::send::task::Task;
use crate::send::topic_name::TopicName;
use crate::send::topics::{TopicNames, TopicRoute};
use crate::sys::clock::Instant;
use crate::sys::slots::SlotMut;
use crate::sys::{OsError, thread};

/// How long a sender sleeps that waits for a slot, at first and at most: nobody reports that a sample was dropped.
const SLOT_PAUSE: Duration = Duration::from_micros(50);
pub(super) const SLOT_PAUSE_AT_MOST: Duration = Duration::from_millis(1);

/// What a flush of one route has found.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    /// Messages that may still be processed.
    pub(crate) unprocessed: u64,
    pub(crate) loss: Option<Loss>,
}

/// How far the flush of one route has got.
enum Flushing {
    /// This many messages are not processed yet.
    Unprocessed(u64),
    Over(Flushed),
}

/// How far a route is connected: [`Routes::connect`].
#[derive(Debug)]
pub(crate) enum Reached {
    /// Its receiver has answered, and is there.
    Open,
    /// It has not answered yet, or is tried again in a moment.
    Later,
    /// The receiver's node is gone.
    Gone,
    /// It will never be connected.
    Failed(SendError),
}

/// The routes of an outbox.
#[derive(Debug)]
pub(crate) struct Routes {
    pub(super) node: Arc<NodeShared>,
    /// A route that has ended leaves a default route in its place.
    pub(crate) list: Vec<Route>,
    pub(super) by_target: HashMap<Target, usize>,
    pub(super) by_durable: HashMap<DurableKey, usize>,
    pub(super) vacant: Vec<usize>,
    pub(super) last_serial: u64,
    /// What happened to the messages to subscriptions that have ended.
    pub(super) ended: Account,
    /// The subscriptions that have ended, which the view must forget.
    pub(super) ended_targets: HashSet<Target>,
    /// What was lost with receivers, and is not reported yet.
    pub(super) losses: Vec<Loss>,
    pub(super) returned: ReturnedMessages,
    pub(super) high_water: Option<f64>,
    /// Each message says when it was sent.
    stamps_all: bool,
    /// How long a publish that does not wait for room waits for receivers that are mapping new memory.
    pub(crate) lending_grace: Duration,
    /// The inbox that is woken when a receiver answers, and when it is gone. Its owner then looks after channels that have failed.
    pub(super) reports_to: Option<Arc<InboxShared>>,
    pub(super) failed: Vec<(RouteId, OutboundChannel)>,
    /// How long to wait for receivers that are gone.
    pub(crate) redelivery: Option<Duration>,
    /// The memory for large payloads.
    pub(crate) pool: Pool,
    /// Marked when something has happened, if somebody asks for that.
    pub(super) news: Arc<OnceLock<Arc<News>>>,
}

impl Routes {
    pub(crate) fn new(node: Arc<NodeShared>) -> Self {
        let pool = Pool::new(node.payloads.clone());
        Self {
            node,
            pool,
            list: Vec::new(),
            by_target: HashMap::new(),
            by_durable: HashMap::new(),
            vacant: Vec::new(),
            last_serial: 0,
            ended: Account::default(),
            ended_targets: HashSet::new(),
            losses: Vec::new(),
            returned: ReturnedMessages::default(),
            high_water: None,
            stamps_all: false,
            lending_grace: Duration::ZERO,
            reports_to: None,
            failed: Vec::new(),
            redelivery: None,
            news: Arc::default(),
        }
    }

    /// Marked from now on when something has happened.
    pub(super) fn news(&self) -> &Arc<News> {
        self.news.get().unwrap_or_else(|| {
            let news = News::new(self.node.reactor());
            self.news.get_or_init(|| news)
        })
    }

    /// The route to a node's own inbox for messages of this type, connected; waits up to a limit for the node.
    pub(crate) fn node_route(
        &mut self,
        node: &str,
        schema: Option<&Schema>,
        limit: Duration,
    ) -> Result<usize, ConnectError> {
        let known = self.list.iter().position(|route| route.leads_to(node, schema));
        if let Some(known) = known.filter(|&known| !matches!(self.list[known].way, Way::Closed)) {
            return Ok(known);
        }
        let (to, direct): (Arc<str>, _) = (node.into(), known.and_then(|known| self.list[known].direct.clone()));
        let direct = direct.unwrap_or_else(|| Direct::new(schema.cloned()));
        let channel = dial::by_id(&self.node, &to, &direct, limit)?;
        let at = known.unwrap_or_else(|| self.insert(to, None).at);
        self.list[at].direct = Some(direct);
        self.open(at, channel);
        Ok(at)
    }

    /// Whether there is a route to a node's own inbox for messages of this type that is not closed.
    pub(crate) fn reaches(&self, node: &str, schema: Option<&Schema>) -> bool {
        self.list.iter().any(|route| route.leads_to(node, schema) && !matches!(route.way, Way::Closed))
    }

    /// The route to a subscription: the existing one, or a new one, which the first message connects.
    pub(crate) fn subscription_route(&mut self, subscription: Arc<Subscription>, names: &TopicNames) -> RouteId {
        let known = self.by_target.get(&subscription.target).copied();
        let Some(at) = known.or_else(|| self.taken_up_by(&subscription, names)) else {
            return self.insert(subscription.target.node.clone(), Some(subscription));
        };
        self.follow(at, &subscription);
        self.id(at)
    }

    /// Whether there is a route to the durable subscription of this name.
    pub(crate) fn has_durable(&self, subscription: &Subscription) -> bool {
        subscription.durable_key().is_some_and(|key| self.by_durable.contains_key(&key))
    }

    pub(crate) fn id(&self, at: usize) -> RouteId {
        RouteId { at, serial: self.list[at].serial }
    }

    /// The route, if it has not ended.
    pub(crate) fn get(&mut self, id: RouteId) -> Option<&mut Route> {
        self.list.get_mut(id.at).filter(|route| route.serial == id.serial)
    }

    /// A route has a new channel.
    pub(super) fn open(&mut self, at: usize, mut channel: OutboundChannel) {
        channel.set_high_water(self.high_water);
        channel.stamp_all(self.stamps_all);
        if let Some(inbox) = &self.reports_to {
            channel.report_to(inbox);
        }
        self.list[at].set_channel(channel);
    }

    /// Whoever may read a message to this route. Where everybody may read everything, the memory is the same for all.
    pub(crate) fn audience(&self, at: usize, topic: Option<u64>) -> Audience {
        match topic {
            _ if self.node.is_private() && self.node.readers.is_empty() => Audience::All,
            Some(topic) => Audience::Topic(topic),
            None => Audience::Route(self.list[at].serial),
        }
    }

    /// Takes a slot for a payload, if there is one.
    pub(crate) fn try_slot(&mut self, audience: Audience, bytes: usize) -> Result<SlotMut, LoanError> {
        let Self { list, pool, redelivery, .. } = self;
        let all = if redelivery.is_some() { Reap::Held } else { Reap::Gone };
        let taken = pool.take(audience, bytes as u64, all, |how| list.iter_mut().for_each(|route| route.reap(how)));
        if pool.take_retired() {
            list.iter_mut().for_each(|route| route.forget_memories(|segment| pool.has(segment)));
        }
        match taken {
            Ok(slot) => {
                // Everybody may read it.
                if audience == Audience::All {
                    list.iter_mut().for_each(|route| route.lend_ahead(slot.slots()));
                }
                Ok(slot)
            }
            Err(NoSlot::Os(error)) => Err(LoanError::Os(Arc::new(error))),
            Err(NoSlot::Exhausted) => {
                let ((used, limit), holders) = (pool.used(), list.iter_mut().filter_map(Route::holder).collect());
                Err(LoanError::Exhausted { bytes, used, limit, holders })
            }
        }
    }

    /// The same, and waits for one until the patience ends.
    pub(crate) fn slot(&mut self, audience: Audience, bytes: usize, patience: Patience) -> Result<SlotMut, LoanError> {
        let mut pause = SLOT_PAUSE;
        loop {
            match self.try_slot(audience, bytes) {
                Err(LoanError::Exhausted { .. }) if self.can_fit(bytes) && !patience.is_over() => {
                    thread::sleep(pause);
                    pause = (2 * pause).min(SLOT_PAUSE_AT_MOST);
                }
                taken => return taken,
            }
        }
    }

    /// Whether a payload of this size fits into the limit for payloads at all.
    pub(super) fn can_fit(&self, bytes: usize) -> bool {
        bytes as u64 <= self.pool.limit()
    }

    /// How many bytes of payloads there may be, in all.
    pub(super) fn payload_bytes(&self) -> u64 {
        self.pool.limit()
    }

    /// Whether a slot may be lent to this audience.
    pub(crate) fn may_lend(&self, slot: &SlotMut, audience: Audience) -> bool {
        self.pool.is_for(slot.slots(), audience)
    }

    /// Gives back the memory for payloads that is not used.
    pub(crate) fn give_back_unused(&mut self) {
        let Self { list, pool, .. } = self;
        list.iter_mut().for_each(|route| route.reap(Reap::Released));
        pool.give_back_unused(Instant::now());
        pool.take_retired();
        list.iter_mut().for_each(|route| route.forget_memories(|segment| pool.has(segment)));
    }

    /// The same as [`Routes::new`], but an inbox is woken when a receiver answers, and when it is gone, and what has failed is kept
    /// until [`Routes::take_failed`].
    pub(crate) fn reporting_to(node: Arc<NodeShared>, inbox: Arc<InboxShared>) -> Self {
        Self { reports_to: Some(inbox), ..Self::new(node) }
    }

    /// Takes the channels whose receivers are gone, with their routes, which are closed.
    pub(crate) fn take_failed(&mut self) -> Vec<(RouteId, OutboundChannel)> {
        for at in 0..self.list.len() {
            if matches!(&self.list[at].way, Way::Open(channel) if !channel.is_connected()) {
                self.set_aside(at);
            }
        }
        std::mem::take(&mut self.failed)
    }

    /// Keeps a channel that has failed for [`Routes::take_failed`], and closes its route. Returns why it has failed.
    pub(super) fn set_aside(&mut self, at: usize) -> Option<Loss> {
        let id = self.id(at);
        let Way::Open(channel) = self.list[at].close() else { return None };
        let (failure, incarnation) = (channel.failure(), channel.incarnation());
        self.failed.push((id, channel));
        Some(self.list[at].failed(failure, Some(incarnation), 0, &self.node.id))
    }

    /// Connects a route, in steps that do not wait.
    pub(crate) fn connect(&mut self, id: RouteId) -> Reached {
        let Some(route) = self.get(id) else { return Reached::Gone };
        if matches!(route.way, Way::Closed)
            && let Attempt::Over(delivery) = self.reach(id.at, Patience::new(Duration::ZERO))
        {
            let route = &self.list[id.at];
            return match delivery {
                Delivery::Failed(error @ SendError::Closed { .. }) => Reached::Failed(error),
                Delivery::Failed(error) if route.final_refusal().is_some() => Reached::Failed(error),
                Delivery::Failed(_) => Reached::Later,
                _ => Reached::Gone,
            };
        }
        match self.get(id).map(|route| &route.way) {
            Some(Way::Open(channel)) if channel.is_open() => Reached::Open,
            _ => Reached::Later,
        }
    }

    /// Forgets a route.
    pub(crate) fn remove(&mut self, id: RouteId) {
        if self.get(id).is_some() {
            self.end(id.at);
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    fn insert(&mut self, to: Arc<str>, subscription: Option<Arc<Subscription>>) -> RouteId {
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.list.push(Route::default());
            self.list.len() - 1
        });
        if let Some(subscription) = &subscription {
            self.index(at, subscription);
        }
        self.list[at] = Route::new(to, subscription, self.next_serial());
        self.id(at)
    }

    fn index(&mut self, at: usize, subscription: &Subscription) {
        self.by_target.insert(subscription.target.clone(), at);
        if let Some(key) = subscription.durable_key() {
            self.by_durable.insert(key, at);
        }
    }

    fn unindex(&mut self, at: usize, subscription: &Subscription) {
        if self.by_target.get(&subscription.target) == Some(&at) {
            self.by_target.remove(&subscription.target);
        }
        if let Some(key) = subscription.durable_key()
            && self.by_durable.get(&key) == Some(&at)
        {
            self.by_durable.remove(&key);
        }
    }

    /// Makes a route lead to its subscription as it is listed now. The topics that use the route must be checked again,
    /// because the subscription may no longer want them.
    pub(super) fn follow(&mut self, at: usize, next: &Arc<Subscription>) {
        let former = self.list[at].subscription.replace(next.clone());
        if former.as_ref().is_some_and(|former| Arc::ptr_eq(former, next)) {
            return;
        }
        if let Some(former) = former {
            self.unindex(at, &former);
        }
        self.index(at, next);
        self.list[at].listing = self.next_serial();
    }

    /// The route of the durable subscription that this one takes up again.
    fn taken_up_by(&mut self, next: &Arc<Subscription>, names: &TopicNames) -> Option<usize> {
        let at = *self.by_durable.get(&next.durable_key()?)?;
        if matches!(self.list[at].way, Way::Closed) {
            // Nothing was sent to the former one, or it came back. If its route stayed, what it gets next would come here, too.
            self.list[at].forget_refusal();
            return Some(at);
        }
        // Its end may not have been noticed yet.
        if !matches!(self.list[at].way, Way::Redelivery(_)) && !self.keep_for_redelivery(at, names) {
            return None;
        }
        if let Way::Redelivery(redelivery) = &mut self.list[at].way {
            redelivery.follow(next.clone());
        }
        Some(at)
    }

    /// Whether what an inbox does not process is kept for its return.
    pub(super) fn may_return(&self, at: usize) -> bool {
        let may_return = |subscription: &Arc<Subscription>| subscription.durable.is_some();
        let route = &self.list[at];
        let is_kept = self.redelivery.is_some() && route.policy() != Policy::DropOldest;
        is_kept && route.subscription.as_ref().is_none_or(may_return)
    }

    /// A subscription is gone for good.
    pub(super) fn end(&mut self, at: usize) {
        let mut route = std::mem::take(&mut self.list[at]);
        self.ended += route.account().ended();
        if let Some(subscription) = &route.subscription {
            self.unindex(at, subscription);
            self.ended_targets.insert(subscription.target.clone());
        }
        self.vacant.push(at);
    }

    /// Takes the subscriptions that have ended. One that is listed again is a new one.
    pub(crate) fn take_ended(&mut self) -> HashSet<Target> {
        std::mem::take(&mut self.ended_targets)
    }

    /// Releases the channels of receivers that are gone. The next publish or flush reports what is lost with them.
    pub(crate) fn forget_gone(&mut self, names: &TopicNames) {
        for at in 0..self.list.len() {
            let is_gone = self.list[at].subscription.is_some()
                && matches!(&self.list[at].way, Way::Open(channel) if !channel.is_connected());
            if is_gone
                && let Some(loss) = self.give_up(at, names)
                && loss.messages > 0
            {
                self.losses.push(loss);
            }
        }
    }

    /// Takes what was lost and is not reported yet.
    pub(crate) fn take_losses(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.losses)
    }

    /// Whether there is a loss that is not reported yet.
    pub(crate) fn has_losses(&self) -> bool {
        !self.losses.is_empty()
    }

    /// Whether a topic's route is as the topic knows it.
    pub(crate) fn is_known(&self, way: &TopicRoute) -> bool {
        let route = &self.list[way.id.at];
        way.listing == route.listing && (route.is_connected() || matches!(route.way, Way::Redelivery(_)))
    }

    /// Whether a subscription is still there. If not, it has ended.
    pub(crate) fn is_there(&mut self, id: RouteId, listings: &mut Listings<'_>) -> Result<bool, OsError> {
        let Some(route) = self.get(id) else { return Ok(false) };
        let is_listed = match (&route.way, &route.subscription) {
            (Way::Closed, Some(subscription)) => listings.contain(&subscription.target)?,
            _ => true,
        };
        if !is_listed {
            self.end(id.at);
        }
        Ok(is_listed)
    }

    /// Whether a topic's route leads to a subscription that wants the topic, as it is listed now.
    pub(crate) fn is_valid(&mut self, way: &mut TopicRoute, topic: Option<&TopicName>) -> bool {
        let Some(route) = self.get(way.id) else { return false };
        if way.listing != route.listing {
            let takes = |topic: &TopicName| {
                route.subscription.as_ref().is_some_and(|to| to.takes(topic.name(), topic.schema()))
            };
            if !topic.is_none_or(takes) {
                return false;
            }
            // While something of the past is left, no message takes the fast path.
            if way.past.is_empty() {
                way.listing = route.listing;
            }
        }
        true
    }

    /// Waits until one inbox has processed everything, up to a deadline.
    pub(crate) fn flush(&mut self, at: usize, deadline: Option<Instant>, names: &TopicNames) -> Flushed {
        loop {
            match self.flush_now(at, names) {
                Flushing::Over(flushed) => return flushed,
                Flushing::Unprocessed(unprocessed) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Flushed { unprocessed, loss: None };
                }
                Flushing::Unprocessed(_) => self.wait(at, WaitsFor::All, deadline),
            }
        }
    }

    /// The same for a task, which is woken when it is to look again.
    pub(crate) fn poll_flush(
        &mut self,
        at: usize,
        deadline: Option<Instant>,
        names: &TopicNames,
        task: &Task<'_>,
    ) -> Poll<Flushed> {
        loop {
            match self.flush_now(at, names) {
                Flushing::Over(flushed) => return Poll::Ready(flushed),
                Flushing::Unprocessed(unprocessed) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Poll::Ready(Flushed { unprocessed, loss: None });
                }
                Flushing::Unprocessed(_) if self.is_awaited(at, WaitsFor::All, task) => return Poll::Pending,
                Flushing::Unprocessed(_) => {}
            }
        }
    }

    /// Looks whether one inbox has processed everything, and gives up what is gone.
    fn flush_now(&mut self, at: usize, names: &TopicNames) -> Flushing {
        loop {
            let loss = match self.redeliver(at) {
                Ok(true) => None,
                Ok(false) => return Flushing::Unprocessed(self.list[at].account().queued),
                Err(loss) => Some(loss),
            };
            // What is still kept is not lost.
            let unprocessed = match &mut self.list[at].way {
                Way::Redelivery(redelivery) => redelivery.account().queued,
                Way::Closed => 0,
                Way::Open(channel) if loss.is_some() => channel.account().queued,
                Way::Open(channel) => match (channel.is_drained(), channel.is_connected(), channel.account().queued) {
                    (false, true, unprocessed) => return Flushing::Unprocessed(unprocessed),
                    (_, false, 1..) => match self.give_up(at, names) {
                        None => continue,
                        loss => return Flushing::Over(Flushed { unprocessed: 0, loss }),
                    },
                    (.., unprocessed) => unprocessed,
                },
            };
            return Flushing::Over(Flushed { unprocessed, loss });
        }
    }

    /// Advances every redelivery once, as far as it can without waiting: the last chance before the outbox is dropped.
    /// Returns how many messages are lost with the outbox.
    pub(crate) fn finish(&mut self, names: &TopicNames) -> u64 {
        let mut kept = 0;
        for at in 0..self.list.len() {
            if matches!(&self.list[at].way, Way::Open(channel) if !channel.is_connected()) {
                self.keep_for_redelivery(at, names);
            }
            while self.redeliver(at).is_err() {}
            if let Way::Redelivery(redelivery) = &self.list[at].way {
                kept += redelivery.kept();
            }
        }
        kept
    }

    /// Takes the messages that have come back. Once the node is closed, these are all messages that are kept.
    pub(crate) fn take_returned(&mut self) -> Result<Vec<Returned>, ReturnedError> {
        if self.node.directory().is_none() {
            for at in 0..self.list.len() {
                let loss = self.redeliver(at).err();
                self.losses.extend(loss);
            }
        }
        self.returned.take()
    }

    /// The longest message that a node's own inbox takes; `None`: the inbox is gone.
    pub(crate) fn max_message(&mut self, at: usize) -> Result<Option<usize>, SendError> {
        let route = &self.list[at];
        let is_known = match &route.way {
            Way::Open(channel) => channel.is_connected(),
            Way::Redelivery(_) => true,
            Way::Closed => false,
        };
        if is_known {
            return Ok(route.max_message());
        }
        match dial::find(&self.node, &route.to) {
            Ok(target) => Ok(target.map(|target| target.max_message())),
            Err(ConnectError::Broken { .. }) => Ok(None),
            Err(error) => Err(SendError::from_connect(error, route.to.clone())),
        }
    }

    pub(crate) fn stamp_all(&mut self, all: bool) {
        self.stamps_all = all;
        self.list.iter_mut().filter_map(Route::channel).for_each(|channel| channel.stamp_all(all));
    }

    pub(crate) fn set_high_water(&mut self, part: Option<f64>) {
        self.high_water = part;
        self.list.iter_mut().filter_map(Route::channel).for_each(|channel| channel.set_high_water(part));
    }

    pub(crate) fn inboxes(&mut self) -> Vec<ReachedInbox> {
        self.list.iter_mut().filter_map(Route::inbox).collect()
    }

    /// The next inbox that has passed the high-water mark. Inboxes that are gone do not count.
    pub(crate) fn next_high_water_change(&mut self) -> Option<ReachedInbox> {
        let passed = |route: &mut Route| if route.has_passed_high_water() { route.inbox() } else { None };
        self.list.iter_mut().find_map(passed)
    }

    pub(crate) fn total(&mut self) -> Account {
        let mut total = self.ended;
        self.list.iter_mut().for_each(|route| total += route.account());
        total
    }
}
