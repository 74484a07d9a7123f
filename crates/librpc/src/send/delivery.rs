//! Delivering a message to one inbox, in steps that do not wait: push it, connect first, or continue a redelivery.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::link::channel_shared::Failure;
use crate::name::Address;
use crate::policy::Policy;
use crate::registry::lookup;
use crate::registry::target::Target;
use crate::send::channel::{OutboundChannel, Pushed, WaitsFor};
use crate::send::dial;
use crate::send::error::{LoanError, SendError};
use crate::send::message::{Attempt, Delivery, Message, Patience};
use crate::send::redelivery::{Over, Progress, Receiver, Redelivery};
use crate::send::route::{Declared, Loss, RouteId, Way};
use crate::send::routes::{Routes, SLOT_PAUSE_AT_MOST};
use crate::send::task::Task;
use crate::send::topic_name::TopicName;
use crate::send::topics::{InTask, TopicNames, TopicRoute};
use crate::sys::Descriptor;
use crate::sys::clock::Instant;
use crate::sys::slots::SlotMut;
use crate::sys::thread;
use crate::wire::Reason;

/// At most this many times a message is tried again at once, and over at most this many new channels.
const MAX_RETRIES: u32 = 8;
/// How soon a receiver is tried again that ends each connection at once.
const COMES_AND_GOES: Duration = Duration::from_millis(1);
/// How soon the past is tried again that a subscription could not be given for a reason that nobody reports.
const PAST_AGAIN: Duration = Duration::from_millis(100);

/// Copies a message's payload into a slot, for all inboxes.
fn fill(mut slot: SlotMut, message: Message<'_>) {
    slot.copy_from_slice(message.payload);
    if let Some(cell) = message.slot {
        let _ = cell.set(slot.share()); // there was none
    }
}

impl Routes {
    /// Delivers a message, and waits for room until the patience ends.
    pub(crate) fn deliver(
        &mut self,
        way: &mut TopicRoute,
        message: Message<'_>,
        names: &TopicNames,
        patience: Patience,
    ) -> Delivery {
        let last_channel = self.list[way.id.at].channels() + u64::from(MAX_RETRIES);
        loop {
            match self.deliver_in_time(way, message, names, patience, last_channel) {
                Attempt::Over(delivery) => return delivery,
                Attempt::Retry => {}
                Attempt::Wait(what) => self.wait(way.id.at, what, patience.deadline),
                Attempt::NeedsSlot => {
                    let audience = self.audience(way.id.at, message.topic.map(|(number, _)| number));
                    match self.slot(audience, message.bytes(), patience) {
                        Ok(slot) => fill(slot, message),
                        Err(source) => {
                            let node = self.list[way.id.at].to.clone();
                            return Delivery::Failed(SendError::NoMemory { node, source });
                        }
                    }
                }
            }
        }
    }

    /// The same for a task, which is woken when it is to try again.
    pub(crate) fn poll_deliver(
        &mut self,
        way: &mut TopicRoute,
        message: Message<'_>,
        names: &TopicNames,
        patience: Patience,
        task: &Task<'_>,
    ) -> Poll<Delivery> {
        let last_channel = self.list[way.id.at].channels() + u64::from(MAX_RETRIES);
        let InTask { last_channel, blocked_since } =
            *way.in_task.get_or_insert(InTask { last_channel, blocked_since: None });
        let delivery = loop {
            match self.deliver_in_time(way, message, names, patience, last_channel) {
                Attempt::Over(delivery) => break delivery,
                Attempt::Retry => {}
                Attempt::Wait(what) => {
                    if self.is_awaited(way.id.at, what, task) {
                        if what == WaitsFor::Lending
                            && let Some(granted) = self.lending_deadline(way.id.at)
                            && patience.is_over()
                        {
                            task.look_after(granted.saturating_duration_since(Instant::now()));
                        }
                        let blocked_since = blocked_since.or_else(|| Some(Instant::now()));
                        way.in_task = Some(InTask { last_channel, blocked_since });
                        return Poll::Pending;
                    }
                }
                Attempt::NeedsSlot => {
                    let audience = self.audience(way.id.at, message.topic.map(|(number, _)| number));
                    match self.try_slot(audience, message.bytes()) {
                        Ok(slot) => fill(slot, message),
                        Err(LoanError::Exhausted { .. }) if self.can_fit(message.bytes()) && !patience.is_over() => {
                            task.look_after(SLOT_PAUSE_AT_MOST);
                            return Poll::Pending;
                        }
                        Err(source) => {
                            let node = self.list[way.id.at].to.clone();
                            break Delivery::Failed(SendError::NoMemory { node, source });
                        }
                    }
                }
            }
        };
        way.in_task = None;
        if let (Some(since), Some(channel)) = (blocked_since, self.list[way.id.at].channel()) {
            channel.note_blocked(since);
        }
        Poll::Ready(delivery)
    }

    /// Delivers a message if there is room. Where it would have to wait, and its patience is over, it has failed.
    fn deliver_in_time(
        &mut self,
        way: &mut TopicRoute,
        message: Message<'_>,
        names: &TopicNames,
        patience: Patience,
        last_channel: u64,
    ) -> Attempt {
        let what = match self.deliver_now(way, message, names, patience) {
            Attempt::Wait(what) => what,
            other => return other,
        };
        let (publishes, may_return) = (message.topic.is_some(), self.may_return(way.id.at));
        let route = &mut self.list[way.id.at];
        // Each return of a receiver that dies again and again is another channel: that is waited for until the patience ends.
        if route.channels() > last_channel && !may_return {
            return Attempt::Over(Delivery::Failed(route.refusal())); // the receiver ends every handshake at once
        }
        let (node, limit) = (route.to.clone(), patience.timeout);
        let (is_over, is_stuck) = (patience.is_over(), publishes && route.is_stuck());
        if is_over && publishes && !limit.is_zero() {
            route.set_stuck();
            self.news.get().filter(|_| !is_stuck).inspect(|news| news.raise());
        }
        let is_lending = what == WaitsFor::Lending;
        if is_lending && !is_stuck && self.lending_deadline(way.id.at).is_some_and(|deadline| Instant::now() < deadline)
        {
            return Attempt::Wait(what);
        }
        let route = &mut self.list[way.id.at];
        Attempt::Over(match route.is_unsent() || is_lending {
            // What is lent is not pushed before the receiver has its memory.
            true if is_lending && (is_over || is_stuck) => Delivery::Failed(SendError::Unanswered { node, limit }),
            // This one waits for the answer. Later publishes do not.
            true if publishes && (is_over || is_stuck) => self.push_pending(way, message, names, limit),
            true if is_over => Delivery::Failed(SendError::Unanswered { node, limit }),
            false if is_stuck => Delivery::Failed(SendError::Stuck { node }),
            false if is_over => Delivery::Failed(SendError::Full { node, limit }),
            _ => return Attempt::Wait(what),
        })
    }

    /// Until when a publish that does not wait otherwise waits for a receiver that is mapping new memory.
    fn lending_deadline(&self, at: usize) -> Option<Instant> {
        let Way::Open(channel) = &self.list[at].way else { return None };
        channel.lends_since()?.checked_add(self.lending_grace)
    }

    /// Waits for a receiver that is mapping new memory, until the grace for it is over. `false`: it is over, or there is none.
    pub(crate) fn waits_for_lending(&mut self, id: RouteId) -> bool {
        let Some(deadline) = self.lending_deadline(id.at).filter(|deadline| Instant::now() < *deadline) else {
            return false;
        };
        if let Way::Open(channel) = &mut self.list[id.at].way {
            channel.wait(WaitsFor::Lending, Some(deadline));
        }
        true
    }

    /// Puts a message into a ring that only this process has.
    fn push_pending(
        &mut self,
        way: &mut TopicRoute,
        message: Message<'_>,
        names: &TopicNames,
        limit: Duration,
    ) -> Delivery {
        while let Some(next) = way.past.front() {
            let (payload, slot) = (&*next.payload, Some(&next.slot));
            let past = Message { topic: message.topic, call: None, payload, slot, past: true };
            match self.push_one_pending(way.id.at, &mut way.declared, past, names, limit) {
                Delivery::Pending | Delivery::Delivered => drop(way.past.pop_front()),
                other => return other,
            }
        }
        self.push_one_pending(way.id.at, &mut way.declared, message, names, limit)
    }

    fn push_one_pending(
        &mut self,
        at: usize,
        declared: &mut Declared,
        message: Message<'_>,
        names: &TopicNames,
        limit: Duration,
    ) -> Delivery {
        let route = &mut self.list[at];
        let pushed = route.push(declared, message, true);
        match self.judge(at, pushed, names) {
            Attempt::Over(Delivery::Delivered) if self.list[at].is_unsent() => Delivery::Pending,
            Attempt::Over(delivery) => delivery,
            Attempt::Retry => Delivery::Failed(self.list[at].refusal()),
            // It is not known yet which process would read it.
            Attempt::Wait(WaitsFor::Room(0) | WaitsFor::Lending) | Attempt::NeedsSlot => {
                Delivery::Failed(SendError::Unanswered { node: self.list[at].to.clone(), limit })
            }
            Attempt::Wait(_) => Delivery::Failed(SendError::Stuck { node: self.list[at].to.clone() }),
        }
    }

    /// Delivers a message if there is room.
    pub(crate) fn deliver_now(
        &mut self,
        way: &mut TopicRoute,
        message: Message<'_>,
        names: &TopicNames,
        patience: Patience,
    ) -> Attempt {
        for _ in 0..MAX_RETRIES {
            if !self.is_valid(way, message.topic.map(|(_, name)| &**name)) {
                return Attempt::Over(Delivery::Ended);
            }
            if !way.past.is_empty()
                && let Some(attempt) = self.deliver_past(way, message.topic, names, patience)
            {
                return attempt;
            }
            match self.try_deliver(way.id.at, message, &mut way.declared, names, patience) {
                Attempt::Retry => {}
                // It does not fit into the ring.
                Attempt::NeedsSlot => {
                    let audience = self.audience(way.id.at, message.topic.map(|(number, _)| number));
                    match self.try_slot(audience, message.bytes()) {
                        Ok(slot) => fill(slot, message),
                        Err(LoanError::Exhausted { .. }) => return Attempt::NeedsSlot,
                        Err(source) => {
                            let node = self.list[way.id.at].to.clone();
                            return Attempt::Over(Delivery::Failed(SendError::NoMemory { node, source }));
                        }
                    }
                }
                other => return other,
            }
        }
        // A receiver that accepts connections and ends each at once, or dies again and again.
        match self.may_return(way.id.at) {
            true => Attempt::Wait(WaitsFor::All),
            false => Attempt::Over(Delivery::Failed(self.list[way.id.at].refusal())),
        }
    }

    /// Delivers what a new subscription gets first. `None`: nothing of it is left.
    pub(crate) fn deliver_past(
        &mut self,
        way: &mut TopicRoute,
        topic: Option<(u64, &Arc<TopicName>)>,
        names: &TopicNames,
        patience: Patience,
    ) -> Option<Attempt> {
        let mut past = std::mem::take(&mut way.past);
        let attempt = loop {
            let next = past.front()?;
            let (payload, slot) = (&*next.payload, Some(&next.slot));
            let message = Message { topic, call: None, payload, slot, past: true };
            match self.deliver_now(way, message, names, patience) {
                Attempt::Over(Delivery::Delivered) => {
                    past.pop_front();
                }
                // What its inbox does not take, because it is too long or nothing is waited for, it misses.
                Attempt::Over(Delivery::Failed(SendError::TooLarge { .. } | SendError::Dropped { .. })) => {
                    past.pop_front();
                }
                attempt => break attempt,
            }
        };
        way.past = past;
        way.listing = 0; // no message goes this way before that
        Some(attempt)
    }

    /// The same for the background thread, which is woken when it is to try again. `false`: the subscription has ended.
    ///
    /// # Errors
    ///
    /// The route, if its subscription may not read the topic.
    pub(crate) fn poll_past(
        &mut self,
        way: &mut TopicRoute,
        topic: (u64, &Arc<TopicName>),
        names: &TopicNames,
        task: &Task<'_>,
    ) -> Result<bool, RouteId> {
        // Its deadline is past: it never waits.
        let patience = Patience { timeout: Duration::ZERO, deadline: Some(Instant::now()) };
        for _ in 0..MAX_RETRIES {
            if !self.is_valid(way, Some(topic.1)) {
                return Ok(false);
            }
            match self.deliver_past(way, Some(topic), names, patience) {
                None => return Ok(true),
                Some(Attempt::Wait(what)) if self.is_awaited(way.id.at, what, task) => return Ok(true),
                Some(Attempt::Wait(_) | Attempt::Retry) => {}
                Some(Attempt::NeedsSlot) => break,
                Some(Attempt::Over(Delivery::Ended)) => return Ok(false),
                Some(Attempt::Over(Delivery::Denied)) => return Err(way.id),
                Some(Attempt::Over(Delivery::Lost(error))) => {
                    self.losses.push(Loss { messages: error.undelivered(), error });
                }
                // The next publish says why, or a later look succeeds.
                Some(Attempt::Over(_)) => break,
            }
        }
        task.look_after(PAST_AGAIN);
        Ok(true)
    }

    /// Tries once to deliver a message.
    pub(crate) fn try_deliver(
        &mut self,
        at: usize,
        message: Message<'_>,
        declared: &mut Declared,
        names: &TopicNames,
        patience: Patience,
    ) -> Attempt {
        let route = &mut self.list[at];
        let pushed = match &mut route.way {
            Way::Closed => return self.reach(at, patience),
            Way::Open(_) => route.push(declared, message, false),
            Way::Redelivery(_) => match self.redeliver(at) {
                Ok(true) => return Attempt::Retry,
                Ok(false) => self.keep(at, message),
                Err(loss) => return Attempt::Over(Delivery::Lost(loss.error)),
            },
        };
        self.judge(at, pushed, names)
    }

    /// What to do after a push.
    fn judge(&mut self, at: usize, pushed: Pushed, names: &TopicNames) -> Attempt {
        let route = &mut self.list[at];
        let node = route.to.clone();
        Attempt::Over(match pushed {
            Pushed::Yes => Delivery::Delivered,
            Pushed::TooLarge { bytes, max } => Delivery::Failed(SendError::TooLarge { node, bytes, max }),
            Pushed::Full { .. } if route.policy() == Policy::DropNewest => {
                Delivery::Failed(SendError::Dropped { node })
            }
            Pushed::Held if route.policy() != Policy::Block => Delivery::Failed(SendError::Dropped { node }),
            Pushed::Full { room_at } => return Attempt::Wait(WaitsFor::Room(room_at)),
            Pushed::Held => return Attempt::Wait(WaitsFor::Release),
            Pushed::Unsent => return Attempt::Wait(WaitsFor::Room(0)),
            Pushed::NeedsSlot => return Attempt::NeedsSlot,
            Pushed::Unlent => return Attempt::Wait(WaitsFor::Lending),
            Pushed::NotLent(reason, text) => {
                Delivery::Failed(SendError::Refused { node, reason, text, undelivered: 0 })
            }
            Pushed::Denied => Delivery::Denied,
            Pushed::Failed => match self.give_up(at, names) {
                // Nothing is lost, so there is nothing to report: perhaps the receiver is back.
                None | Some(Loss { error: SendError::ReceiverGone { undelivered: 0, .. }, .. }) => {
                    return Attempt::Retry;
                }
                Some(Loss { messages: 0, error }) => Delivery::Failed(error),
                Some(Loss { error, .. }) => Delivery::Lost(error),
            },
        })
    }

    fn keep(&mut self, at: usize, message: Message<'_>) -> Pushed {
        match &mut self.list[at].way {
            Way::Redelivery(redelivery) => redelivery.keep(message),
            _ => Pushed::Failed,
        }
    }

    /// Waits until another attempt to deliver a message may succeed, up to a deadline.
    pub(super) fn wait(&mut self, at: usize, what: WaitsFor, deadline: Option<Instant>) {
        let granted = self.lending_deadline(at).filter(|_| what == WaitsFor::Lending);
        let deadline = deadline.map(|deadline| granted.map_or(deadline, |granted| granted.max(deadline)));
        let comes_and_goes = what == WaitsFor::All && self.may_return(at);
        match &mut self.list[at].way {
            Way::Closed if comes_and_goes => {
                let left =
                    deadline.map_or(COMES_AND_GOES, |deadline| deadline.saturating_duration_since(Instant::now()));
                thread::sleep(left.min(COMES_AND_GOES));
            }
            Way::Closed => {}
            Way::Open(channel) => channel.wait(what, deadline),
            Way::Redelivery(redelivery) => redelivery.wait(deadline),
        }
    }

    /// Whether a task has to wait for this. If so, it is woken when that may be over.
    pub(super) fn is_awaited(&mut self, at: usize, what: WaitsFor, task: &Task<'_>) -> bool {
        let comes_and_goes = what == WaitsFor::All && self.may_return(at);
        match &mut self.list[at].way {
            Way::Closed if comes_and_goes => {
                task.look_after(COMES_AND_GOES);
                true
            }
            Way::Closed => false,
            Way::Open(channel) => channel.is_awaited(what, task),
            Way::Redelivery(redelivery) => redelivery.is_awaited(task),
        }
    }

    /// Connects a route that has no channel.
    pub(super) fn reach(&mut self, at: usize, patience: Patience) -> Attempt {
        let reached = match (self.node.directory(), self.list[at].subscription.clone()) {
            (None, _) => Err(Delivery::Failed(SendError::Closed { node: self.node.id.clone() })),
            (Some(directory), None) => self.reach_node(at, &directory),
            (Some(directory), Some(to)) => self.reach_subscription(at, &to.target, &directory, patience),
        };
        match reached {
            Ok(channel) => {
                self.open(at, channel);
                Attempt::Retry
            }
            Err(delivery) => Attempt::Over(delivery),
        }
    }

    fn reach_node(&mut self, at: usize, directory: &Descriptor) -> Result<OutboundChannel, Delivery> {
        let route = &self.list[at];
        let to = route.to.clone();
        if let Some(incarnation) = route.final_refusal().and_then(|refusal| refusal.incarnation) {
            match lookup::is_alive(directory, &to, incarnation) {
                Ok(true) => return Err(Delivery::Failed(route.refusal())),
                Ok(false) => {}
                Err(error) => return Err(Delivery::Failed(error.into())),
            }
        }
        let direct = route.direct.as_ref().expect("it leads to a node's own inbox");
        let connected = dial::by_id(&self.node, &to, direct, Duration::ZERO);
        connected.map_err(|error| Delivery::Failed(SendError::from_connect(error, to)))
    }

    fn reach_subscription(
        &mut self,
        at: usize,
        target: &Target,
        directory: &Descriptor,
        patience: Patience,
    ) -> Result<OutboundChannel, Delivery> {
        let route = &mut self.list[at];
        if !route.may_retry() {
            return Err(Delivery::Failed(route.refusal()));
        }
        // A new one was listed just now. A process that dies hangs up a moment before the kernel drops its lock.
        if route.was_tried() {
            route.retry_later();
            let stays = match target.address {
                Address::Replies => lookup::is_alive(directory, &target.node, target.incarnation),
                _ => lookup::stays_listed(directory, target, patience.deadline),
            };
            match stays {
                Ok(true) => {}
                Ok(false) => {
                    self.end(at);
                    return Err(Delivery::Ended);
                }
                Err(error) => {
                    let error = error.into();
                    route.attempt_failed(&error);
                    return Err(Delivery::Failed(error));
                }
            }
        }
        if route.final_refusal().is_some() {
            return Err(Delivery::Failed(route.refusal()));
        }
        dial::to_target(&self.node, target, 0).map_err(|error| {
            let error = SendError::from_connect(error, route.to.clone());
            route.attempt_failed(&error);
            Delivery::Failed(error)
        })
    }

    /// Leaves a route's failed channel. Returns what is lost with it; `None`: it is kept for the receiver's return.
    pub(super) fn give_up(&mut self, at: usize, names: &TopicNames) -> Option<Loss> {
        if self.keep_for_redelivery(at, names) {
            return None;
        }
        if self.reports_to.is_some() {
            return self.set_aside(at);
        }
        if let Some(loss) = self.return_refused(at, names) {
            return Some(loss);
        }
        let route = &mut self.list[at];
        let Way::Open(mut channel) = route.close() else {
            return Some(route.failed(None, None, 0, &self.node.id));
        };
        let account = channel.account();
        route.before += account.ended();
        Some(route.failed(channel.failure(), Some(channel.incarnation()), account.queued, &self.node.id))
    }

    /// Keeps what a receiver that is gone has not processed, if the outbox redelivers and the receiver may return.
    /// `false`: it keeps nothing.
    pub(super) fn keep_for_redelivery(&mut self, at: usize, names: &TopicNames) -> bool {
        let Some(limit) = self.redelivery else { return false };
        let may_return = self.may_return(at);
        let route = &mut self.list[at];
        let is_kept = |channel: &mut OutboundChannel| {
            may_return
                && channel.policy() != Policy::DropOldest
                && matches!(channel.failure(), None | Some(Failure::Gone))
        };
        if !route.channel().is_some_and(is_kept) {
            return false;
        }
        self.begin_redelivery(at, limit, names).is_some()
    }

    /// A receiver has refused for good, or is corrupt. Its messages come back.
    fn return_refused(&mut self, at: usize, names: &TopicNames) -> Option<Loss> {
        let limit = self.redelivery?;
        let channel = self.list[at].channel()?;
        let failure = channel.failure()?;
        if channel.policy() == Policy::DropOldest || !matches!(failure, Failure::Refused { .. } | Failure::Broken(_)) {
            return None;
        }
        let progress = self.begin_redelivery(at, limit, names)?.end(Some(failure));
        self.take_progress(at, progress).err()
    }

    fn begin_redelivery(&mut self, at: usize, limit: Duration, names: &TopicNames) -> Option<&mut Redelivery> {
        let route = &mut self.list[at];
        let Way::Open(channel) = route.close() else { return None };
        let to =
            Receiver { to: route.to.clone(), subscription: route.subscription.clone(), direct: route.direct.clone() };
        let redelivery = Redelivery::new(self.node.clone(), to, channel, limit, |number| names.get(number));
        route.way = Way::Redelivery(Box::new(redelivery));
        match &mut route.way {
            Way::Redelivery(redelivery) => Some(redelivery),
            _ => None,
        }
    }

    /// Delivers what is kept if the receiver is back. `true`: everything is in its ring.
    pub(super) fn redeliver(&mut self, at: usize) -> Result<bool, Loss> {
        let Way::Redelivery(redelivery) = &mut self.list[at].way else { return Ok(true) };
        let progress = redelivery.advance();
        self.take_progress(at, progress)
    }

    fn take_progress(&mut self, at: usize, progress: Progress) -> Result<bool, Loss> {
        let route = &mut self.list[at];
        let Way::Redelivery(redelivery) = &mut route.way else { return Ok(true) };
        let past = redelivery.take_past();
        route.before += past.account;
        self.returned.add(past.returned);
        let now = redelivery.subscription().cloned();
        let node = route.to.clone();
        let outcome = match progress {
            Progress::Waits => Ok(false),
            Progress::Done(channel) => {
                self.open(at, channel);
                Ok(true)
            }
            Progress::CameBack(messages) => {
                let text = "it takes shorter messages or other topics than before, or may not read them".into();
                let error = SendError::Refused { node, reason: Reason::Unknown, text, undelivered: messages };
                Err(Loss { messages, error })
            }
            Progress::Lost(messages) => {
                Err(Loss { messages, error: SendError::ReceiverGone { node, undelivered: messages } })
            }
            Progress::Over(Over { failure, incarnation, messages }) => {
                route.close();
                Err(route.failed(failure, incarnation, messages, &self.node.id))
            }
        };
        if let Some(now) = now {
            self.follow(at, &now);
        }
        outcome
    }
}
