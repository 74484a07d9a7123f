//! An outbox: what sends. It owns one channel per inbox that it reaches, and belongs to one thread at a time.

use crate::sys::clock::Instant;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Head;

use crate::name::check_node_id;
use crate::node_shared::Owned;
use crate::policy::Policy;
use crate::registry::lookup;
use crate::send::account::{Account, Reached};
use crate::send::backlog::Behind;
use crate::send::backlog::Kept;
use crate::send::channel::{OutboundChannel, Pushed};
use crate::send::dial::{self, ConnectError};
use crate::send::error::{FlushError, SendError};
use crate::send::rate::{Pace, Rate};
use crate::send::route::Route;
use crate::send::topics::Topics;
use crate::sys::fork;

/// How long a send waits for room by default.
pub const DEFAULT_SEND_LIMIT: Duration = Duration::from_secs(1);

/// A node that an outbox sends to. Of use with that outbox only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination(usize);

/// What sends: one channel per inbox that it reaches, in order, without a lock.
///
/// It is `Send`, and used by one thread at a time. What it sends to one inbox arrives in the order in which it was sent,
/// whatever the topic.
#[derive(Debug)]
pub struct Outbox {
    pub(crate) node: Arc<Owned>,
    /// The inboxes that it reaches: nodes' own, and subscriptions.
    pub(crate) routes: Vec<Route>,
    pub(crate) topics: Topics,
    /// How many inboxes the last publish is pending for.
    pub(crate) pending: usize,
    /// What was not delivered by the last publish.
    pub(crate) undelivered: Vec<SendError>,
    pub(crate) born: fork::Born,
    /// What became of messages to subscriptions that have ended.
    pub(crate) ended: Account,
    serials: u64,
    pub(crate) high_water: Option<f64>,
    /// How long to wait for receivers that are gone.
    pub(crate) redelivery: Option<Duration>,
    /// What came back from subscriptions that have ended.
    pub(crate) returned: Vec<(Arc<str>, Kept)>,
}

impl Outbox {
    pub(crate) fn new(node: Arc<Owned>) -> Self {
        let (routes, topics, undelivered, ended) = Default::default();
        Self {
            node,
            routes,
            topics,
            pending: 0,
            undelivered,
            born: fork::Born::now(),
            ended,
            serials: 0,
            high_water: None,
            redelivery: None,
            returned: Vec::new(),
        }
    }

    /// A serial number for a new route.
    pub(crate) fn serial(&mut self) -> u64 {
        self.serials += 1;
        self.serials
    }

    /// Connects to a node and waits up to 10 s for it to appear. See [`crate::Node::sender_within`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn to(&mut self, node: &str) -> Result<Destination, ConnectError> {
        self.to_within(node, Duration::from_secs(10))
    }

    /// Connects to a node and waits up to a limit for it to appear. See [`crate::Node::sender_within`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn to_within(&mut self, node: &str, limit: Duration) -> Result<Destination, ConnectError> {
        check_node_id(node)?;
        let known = self.routes.iter().position(|route| &*route.to == node && route.subscription.is_none());
        let is_reached = |route: &Route| route.channel.is_some() || route.backlog.is_some();
        if let Some(known) = known.filter(|&known| is_reached(&self.routes[known])) {
            return Ok(Destination(known));
        }
        let to: Arc<str> = node.into();
        let mut channel = dial::by_id(&self.node, &to, limit)?;
        channel.set_high_water(self.high_water);
        let index = known.unwrap_or_else(|| {
            let serial = self.serial();
            self.routes.push(Route::new(to, None, serial));
            self.routes.len() - 1
        });
        self.routes[index].set_channel(channel);
        Ok(Destination(index))
    }

    /// Limits how fast this outbox sends to a node; `None`: no limit.
    pub fn limit_rate(&mut self, to: Destination, rate: Option<Rate>) {
        self.routes[to.0].pace = rate.map(|rate| Box::new(Pace::new(rate)));
    }

    /// Sends a message, and waits up to [`DEFAULT_SEND_LIMIT`] for room.
    ///
    /// Once this has returned `Ok`, the message reaches the receiver even if this process ends or is killed, whether the
    /// receiver is running, stopped, or has not answered yet.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send(&mut self, to: Destination, payload: &[u8]) -> Result<(), SendError> {
        self.send_within(to, payload, DEFAULT_SEND_LIMIT)
    }

    /// Sends a message if there is room. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn try_send(&mut self, to: Destination, payload: &[u8]) -> Result<(), SendError> {
        self.send_within(to, payload, Duration::ZERO)
    }

    /// Sends a message, and waits up to a limit for room.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send_within(&mut self, to: Destination, payload: &[u8], limit: Duration) -> Result<(), SendError> {
        if !self.born.is_here() {
            return Err(SendError::Forked);
        }
        let route = &mut self.routes[to.0];
        if route.pace.is_none()
            && let Some(channel) = &mut route.channel
            && (channel.push_plain(None, payload) || matches!(channel.push(Head::MESSAGE, payload), Pushed::Yes))
        {
            return Ok(());
        }
        self.send_slowly(to, payload, limit).inspect_err(|error| self.routes[to.0].count_undelivered(error))
    }

    #[cold]
    fn send_slowly(&mut self, to: Destination, payload: &[u8], limit: Duration) -> Result<(), SendError> {
        let deadline = Instant::now().checked_add(limit);
        let route = &mut self.routes[to.0];
        if let Some(pace) = &route.pace {
            let limited = |wait| SendError::RateLimited { to: route.to.clone(), wait };
            pace.take(payload.len(), deadline).map_err(limited)?;
        }
        loop {
            if self.routes[to.0].backlog.is_some()
                && let Behind::Kept = self.send_behind(to.0, Head::MESSAGE, payload, deadline)?
            {
                return Ok(());
            }
            if self.routes[to.0].channel.is_none() {
                self.reconnect(to)?;
            }
            let route = &mut self.routes[to.0];
            let Some(channel) = &mut route.channel else { continue };
            let node = route.to.clone();
            match channel.push(Head::MESSAGE, payload) {
                Pushed::Yes => return Ok(()),
                Pushed::TooLarge { bytes, max } => return Err(SendError::TooLarge { node, bytes, max }),
                Pushed::Full { .. } if channel.policy() == Policy::DropNewest => {
                    return Err(SendError::Dropped { node });
                }
                Pushed::Full { room_at } => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return Err(SendError::Full { node, limit });
                    }
                    channel.wait_for(room_at, deadline);
                }
                Pushed::Unsent if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Err(SendError::Unanswered { node, limit });
                }
                Pushed::Unsent => channel.wait_until_sent(deadline),
                Pushed::Failed => match self.give_up(to.0) {
                    // Nothing is lost, so there is nothing to report: perhaps the receiver is back.
                    None | Some(SendError::ReceiverGone { undelivered: 0, .. }) => {}
                    Some(error) => return Err(error),
                },
            }
        }
    }

    /// Connects a route again whose receiver was gone.
    fn reconnect(&mut self, to: Destination) -> Result<(), SendError> {
        let route = &self.routes[to.0];
        let node = route.to.clone();
        if let Some((incarnation, reason, text)) = &route.refused
            && self.node.directory().is_some_and(|directory| lookup::is_alive(&directory, &route.to, *incarnation))
        {
            return Err(SendError::Refused { node, reason: *reason, text: text.clone(), undelivered: 0 });
        }
        let target = route.to.clone();
        match dial::by_id(&self.node, &target, Duration::ZERO) {
            Ok(mut channel) => {
                channel.set_high_water(self.high_water);
                self.routes[to.0].set_channel(channel);
                Ok(())
            }
            Err(ConnectError::Refused { reason, text, .. }) => {
                Err(SendError::Refused { node, reason, text: text.into(), undelivered: 0 })
            }
            Err(ConnectError::Closed { node }) => Err(SendError::Closed { node: node.into() }),
            Err(ConnectError::Os(error)) => Err(error.into()),
            Err(_) => Err(SendError::ReceiverGone { node, undelivered: 0 }),
        }
    }

    /// Drops a route's failed channel, and says what is lost with it; `None`: it is kept for the receiver's return.
    pub(crate) fn give_up(&mut self, route: usize) -> Option<SendError> {
        if self.keep_for_redelivery(route) {
            return None;
        }
        if let Some(error) = self.return_refused(route) {
            return Some(error);
        }
        let own = self.node.id.clone();
        Some(self.routes[route].give_up(&own))
    }

    /// Waits until everything sent and published is processed, up to a limit for all inboxes together.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed.
    pub fn flush(&mut self, limit: Duration) -> Result<(), FlushError> {
        if !self.born.is_here() {
            return Err(FlushError::Forked);
        }
        let deadline = Instant::now().checked_add(limit);
        let (mut late, mut lost, mut cause) = (0, 0, None);
        for index in 0..self.routes.len() {
            let (behind, error) = self.flush_route(index, deadline);
            match error {
                Some(error) => {
                    lost += behind;
                    cause.get_or_insert(error);
                }
                None => late += behind,
            }
        }
        match cause {
            Some(cause) => Err(FlushError::Lost { unprocessed: lost + late, cause: Box::new(cause) }),
            None if late > 0 => Err(FlushError::TimedOut { unprocessed: late }),
            None => Ok(()),
        }
    }

    /// Waits until one inbox has processed everything; returns how many messages it has not, and why it never will.
    fn flush_route(&mut self, index: usize, deadline: Option<Instant>) -> (u64, Option<SendError>) {
        loop {
            match self.redeliver(index) {
                Ok(true) => {}
                Ok(false) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return (self.routes[index].account().queued, None);
                }
                Ok(false) => {
                    self.wait_for_receiver(index, deadline);
                    continue;
                }
                // Where it is not told lost, it is still kept.
                Err(error) => return (error.undelivered() + self.routes[index].account().queued, Some(error)),
            }
            let Some(channel) = &mut self.routes[index].channel else { return (0, None) };
            channel.wait_for_all(deadline);
            let unprocessed = channel.account().queued;
            if channel.is_connected() || unprocessed == 0 {
                return (unprocessed, None);
            }
            if let Some(error) = self.give_up(index) {
                return (unprocessed, Some(error));
            }
        }
    }

    /// The longest message that a destination takes, in bytes; `None` while it is gone.
    pub fn max_message(&self, to: Destination) -> Option<usize> {
        let route = &self.routes[to.0];
        let kept = || route.backlog.as_ref().map(|backlog| backlog.max_message());
        route.channel.as_ref().map(OutboundChannel::max_message).or_else(kept)
    }

    /// Whether a destination's receiver is there, or has not answered yet, as far as is known without asking: the death
    /// of its process is known within milliseconds. Does not block.
    pub fn is_connected(&self, to: Destination) -> bool {
        self.routes[to.0].channel.as_ref().is_some_and(OutboundChannel::is_connected)
    }

    /// What became of the messages to a destination. Does not block.
    pub fn account(&mut self, to: Destination) -> Account {
        if !self.born.is_here() {
            return Account::default();
        }
        self.routes[to.0].account()
    }

    /// Every inbox that this outbox reaches now: how full it is, and what became of the messages to it. Does not block.
    pub fn reached(&mut self) -> Vec<Reached> {
        if !self.born.is_here() {
            return Vec::new();
        }
        self.routes.iter_mut().filter_map(Route::reached).collect()
    }

    /// Has an inbox count as *high* when its ring is filled to this part (0 to 1), until it is filled to half of that.
    /// `None`: no such mark. It costs nothing below the mark; above it, each send looks at what the receiver has processed.
    pub fn set_high_water(&mut self, part: Option<f64>) {
        self.high_water = part;
        let channels = self.routes.iter_mut().filter_map(|route| route.channel.as_mut());
        channels.for_each(|channel| channel.set_high_water(part));
    }

    /// The next inbox that has passed the high-water mark in either direction since this was asked last. Does not block.
    pub fn congestion(&mut self) -> Option<Reached> {
        if !self.born.is_here() {
            return None;
        }
        let passed = self.routes.iter_mut().position(Route::has_passed_high_water)?;
        self.routes[passed].reached()
    }

    /// What became of everything that was sent and published. Does not block.
    pub fn total(&mut self) -> Account {
        let mut total = self.ended;
        if self.born.is_here() {
            self.routes.iter_mut().for_each(|route| total += route.account());
        }
        total
    }
}
