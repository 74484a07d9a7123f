//! Redelivery: an outbox goes on when the receiver is back, with what the one before had not processed.
//!
//! When a receiver is gone, the outbox takes the unprocessed messages out of the ring, keeps them, and keeps what is sent
//! meanwhile, as much as the ring would hold. When the same address is there in a new incarnation, everything goes to it in
//! order, in a fresh ring whose numbers go on; what had been handed out is flagged. All of this happens in the outbox's own
//! calls (send, publish, flush). A sender that dies has lost what it keeps: then both were dead.

use crate::sys::clock::Instant;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Head;

use crate::link::channel_shared::Failure;
use crate::policy::Policy;
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::registry::{lookup, wait};
use crate::send::backlog::{Backlog, Behind, Brought, Kept};
use crate::send::channel::Pushed;
use crate::send::dial::{self, ConnectError};
use crate::send::error::SendError;
use crate::send::outbox::Outbox;
use crate::wire::Reason;

/// A sender that is held back by a receiver that is gone looks for it at least this often, whatever it is told.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A message that came back: [`Outbox::take_returned`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// The node that it was for.
    pub node: Arc<str>,
    /// Its topic; empty if it was sent to the node itself.
    pub topic: Arc<str>,
    /// Its number, as in [`crate::Message::sequence`].
    pub sequence: u64,
    /// Whether the receiver was given it, and may have processed it.
    pub was_in_work: bool,
    /// What was sent.
    pub payload: Box<[u8]>,
}

impl Outbox {
    /// Has this outbox survive its receivers: when one is gone, what it had not processed is kept, and what is sent
    /// meanwhile, as much as its ring holds, and delivered when the same node opens its inbox again, or a subscription of
    /// the same node with the same durable name, within this time. Then messages arrive in order; the one that was in work
    /// is flagged ([`crate::Message::is_redelivered`]), and each keeps its number: what stands behind one that the next
    /// incarnation does not take follows once everything in front of it is processed. `None`, the default: what is not
    /// processed is reported at once.
    ///
    /// It happens in this outbox's own calls: sending, publishing, flushing. When the time is over, the next of these says
    /// [`SendError::ReceiverGone`] with the number of messages, and [`Outbox::take_returned`] has them. What is kept ends
    /// with this outbox: flush it before it is dropped.
    pub fn set_redelivery(&mut self, limit: Option<Duration>) {
        self.redelivery = limit;
    }

    /// The messages that came back when the wait for their receivers was over, each once.
    pub fn take_returned(&mut self) -> Vec<Returned> {
        let Self { routes, topics, .. } = self;
        let no_topic: Arc<str> = "".into();
        let name = |head: &Head| {
            let entry = head.topic.and_then(|number| topics.list.get(number as usize));
            entry.map_or_else(|| no_topic.clone(), |entry| entry.name.clone())
        };
        let mut all = std::mem::take(&mut self.returned);
        for route in routes {
            let node = route.to.clone();
            all.extend(route.returned.drain(..).map(|kept| (node.clone(), kept)));
        }
        let returned = |(node, Kept { head, sequence, payload }): (Arc<str>, Kept)| Returned {
            node,
            topic: name(&head),
            sequence,
            was_in_work: head.redelivered,
            payload,
        };
        all.into_iter().map(returned).collect()
    }

    /// Keeps what a receiver that is gone has not processed, if that is wanted and it may come back; `false`: not so.
    pub(crate) fn keep_for_redelivery(&mut self, index: usize) -> bool {
        let Some(limit) = self.redelivery else { return false };
        let route = &mut self.routes[index];
        let may_return = route.subscription.as_ref().is_none_or(|subscription| subscription.durable.is_some());
        let is_kept = |channel: &crate::send::channel::OutboundChannel| {
            may_return && channel.policy() != Policy::Latest && matches!(channel.failure(), None | Some(Failure::Gone))
        };
        if !route.channel.as_ref().is_some_and(is_kept) {
            return false;
        }
        let Some(channel) = route.channel.take() else { return false };
        let mut backlog = Box::new(Backlog::new(&route.to, limit, self.node.kept.clone()));
        tracing::info!(parent: &backlog.span, node = &*route.to, ?limit, "a receiver is gone: its return is waited for");
        backlog.doubt(channel);
        route.backlog = Some(backlog);
        route.stuck = false;
        self.settle(index);
        true
    }

    /// Takes what a receiver that has hung up has not processed, once its kernel lock, or it, has said what that is;
    /// `false`: it is in doubt.
    fn settle(&mut self, index: usize) -> bool {
        let Some(directory) = self.node.directory() else { return false };
        let route = &mut self.routes[index];
        let Some(backlog) = &mut route.backlog else { return true };
        let span = backlog.span.clone();
        let _span = span.enter();
        match backlog.settle(|target| lookup::is_listed(&directory, target)) {
            Some(account) => {
                route.before += account;
                true
            }
            None => false,
        }
    }

    /// A receiver has refused for good, or is corrupt: its messages come back.
    pub(crate) fn return_refused(&mut self, index: usize) -> Option<SendError> {
        let limit = self.redelivery?;
        let route = &mut self.routes[index];
        let has_refused = |channel: &mut crate::send::channel::OutboundChannel| {
            let failure = channel.failure();
            (channel.policy() != Policy::Latest
                && matches!(failure, Some(Failure::Refused { .. } | Failure::Broken(_))))
            .then_some(failure)
        };
        let failure = has_refused(route.channel.as_mut()?)?;
        let mut backlog = Box::new(Backlog::new(&route.to, limit, self.node.kept.clone()));
        backlog.doubt(route.channel.take()?);
        route.backlog = Some(backlog);
        route.stuck = false;
        Some(self.give_up_kept(index, failure))
    }

    /// Sends a message behind what is kept: keeps it, too, unless the receiver is back and everything else is through. Waits
    /// up to a deadline if there is no room.
    pub(crate) fn send_behind(
        &mut self,
        index: usize,
        head: Head,
        payload: &[u8],
        deadline: Option<Instant>,
    ) -> Result<Behind, SendError> {
        let begun = Instant::now();
        loop {
            if self.redeliver(index)? {
                return Ok(Behind::Through);
            }
            let route = &mut self.routes[index];
            let node = route.to.clone();
            let Some(backlog) = &mut route.backlog else { return Ok(Behind::Through) };
            match backlog.keep(head, payload) {
                Pushed::Yes => return Ok(Behind::Kept),
                Pushed::TooLarge { bytes, max } => return Err(SendError::TooLarge { node, bytes, max }),
                _ if backlog.policy() == Policy::DropNewest => return Err(SendError::Dropped { node }),
                _ if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                    return Err(SendError::Full { node, limit: begun.elapsed() });
                }
                _ => self.wait_for_receiver(index, deadline),
            }
        }
    }

    /// Brings what is kept to the receiver if it is back. `true`: everything is through.
    pub(crate) fn redeliver(&mut self, index: usize) -> Result<bool, SendError> {
        loop {
            let Some(backlog) = &mut self.routes[index].backlog else { return Ok(true) };
            if backlog.channel.is_none() {
                if self.node.directory().is_none() {
                    return Err(SendError::Closed { node: self.node.id.clone() });
                }
                if backlog.is_over() {
                    return Err(self.give_up_kept(index, None));
                }
                if !backlog.may_look() || !self.settle(index) || !self.find_again(index)? {
                    return Ok(false);
                }
            }
            let Self { routes, topics, .. } = self;
            let route = &mut routes[index];
            let Some(backlog) = &mut route.backlog else { return Ok(true) };
            let wanted = |number: u64| {
                let name = &*topics.list.get(number as usize)?.name;
                route.subscription.as_ref().is_none_or(|subscription| subscription.wants(name)).then_some(name)
            };
            let mut left = Vec::new();
            let brought = backlog.bring(wanted, &mut left);
            let came_back = left.len() as u64;
            route.before.sent += came_back;
            route.before.accepted += came_back;
            route.before.returned += came_back;
            route.returned.extend(left);
            if came_back > 0 {
                let node = &*route.to;
                tracing::warn!(parent: &backlog.span, node, came_back, "a receiver that is back does not take these any more");
                let text = "it takes shorter messages, or other topics, than before".into();
                let (node, reason) = (route.to.clone(), Reason::Unknown);
                return Err(SendError::Refused { node, reason, text, undelivered: came_back });
            }
            match brought {
                Brought::Some => return Ok(false),
                Brought::Gap => route.before += backlog.leave_drained(),
                Brought::All => {
                    let channel = backlog.channel.take();
                    let ((messages, in_work), span) = (backlog.brought, backlog.span.clone());
                    route.backlog = None;
                    if let Some(mut channel) = channel {
                        channel.set_high_water(self.high_water);
                        route.set_channel(channel);
                        let node = &*route.to;
                        tracing::info!(parent: &span, node, messages, in_work, "everything that was kept is redelivered");
                    }
                    return Ok(true);
                }
                Brought::Failed => {
                    let Some(channel) = backlog.channel.take() else { return Ok(false) };
                    let failure = channel.failure();
                    backlog.doubt(channel);
                    if let Some(failure) = failure.filter(|failure| *failure != Failure::Gone) {
                        return Err(self.give_up_kept(index, Some(failure)));
                    }
                }
            }
        }
    }

    /// Looks for the next incarnation of a receiver, and begins to connect to it; `false`: it is not there.
    fn find_again(&mut self, index: usize) -> Result<bool, SendError> {
        let route = &self.routes[index];
        let (to, former) = (route.to.clone(), route.subscription.clone());
        let found = match &former {
            None => match dial::find(&self.node, &to) {
                Ok(found) => found,
                Err(ConnectError::Closed { node }) => return Err(SendError::Closed { node: node.into() }),
                Err(ConnectError::Os(error)) => return Err(error.into()),
                Err(_) => None,
            },
            Some(former) => {
                let found = self.node.ask_view(|view| {
                    view.refresh()?;
                    Ok(view.successor(former).cloned())
                })?;
                let next = found.ok_or_else(|| SendError::Closed { node: self.node.id.clone() })?;
                next.map(|next| self.follow(index, former, next))
            }
        };
        let Some(backlog) = &mut self.routes[index].backlog else { return Ok(false) };
        let Some(target) = found.filter(|target| backlog.is_another(target)) else { return Ok(false) };
        match dial::to_target(&self.node, &target, backlog.first()) {
            Ok(channel) => {
                backlog.set_channel(channel);
                let (node, messages) = (&*to, backlog.len());
                tracing::debug!(parent: &backlog.span, node, messages, "a receiver is back: it is brought what was kept");
                Ok(true)
            }
            Err(ConnectError::Os(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// A durable subscription is back: its route leads to the new one.
    fn follow(&mut self, index: usize, former: &Subscription, next: Arc<Subscription>) -> Target {
        let key = |subscription: &Subscription| (subscription.target.incarnation, subscription.target.inbox);
        self.topics.by_inbox.remove(&key(former));
        self.topics.by_inbox.insert(key(&next), index);
        let target = next.target.clone();
        self.routes[index].subscription = Some(next);
        target
    }

    /// The route of the durable subscription that this one takes up again.
    pub(crate) fn taken_up_by(&mut self, next: &Arc<Subscription>) -> Option<usize> {
        let is_former = |former: &Arc<Subscription>| next.takes_up(former);
        let index = self.routes.iter().position(|route| route.subscription.as_ref().is_some_and(is_former))?;
        // Its end may not have been noticed yet.
        if self.routes[index].backlog.is_none() && !self.keep_for_redelivery(index) {
            return None;
        }
        let former = self.routes[index].subscription.clone()?;
        self.follow(index, &former, next.clone());
        if let Some(backlog) = &mut self.routes[index].backlog {
            backlog.look_at_once();
        }
        Some(index)
    }

    /// Waits until a receiver may be back, or may have made room.
    pub(crate) fn wait_for_receiver(&mut self, index: usize, deadline: Option<Instant>) {
        let Some(backlog) = &mut self.routes[index].backlog else { return };
        if backlog.channel.is_some() {
            return backlog.wait_for_room(deadline);
        }
        if backlog.is_in_doubt() {
            // Nothing tells of a lock that the kernel drops, and it is a matter of moments.
            return crate::sys::thread::sleep(Duration::from_millis(1));
        }
        let until = [deadline, backlog.until(), Some(Instant::now() + LOOK_AGAIN)].into_iter().flatten().min();
        let Some(domain) = self.node.domain() else { return };
        let node = self.node.clone();
        let look = || -> Result<Option<()>, SendError> {
            if let Some(backlog) = &mut self.routes[index].backlog {
                backlog.look_at_once();
            }
            let found = self.find_again(index)?;
            Ok(found.then_some(()))
        };
        if let Err(error) = wait::wait_for(&node.process().lookout, domain.path(), until, look) {
            tracing::debug!(%error, "a receiver that is gone is not looked for just now");
            crate::sys::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The wait for a receiver is over: what is kept comes back.
    fn give_up_kept(&mut self, index: usize, why: Option<Failure>) -> SendError {
        let route = &mut self.routes[index];
        let Some(mut backlog) = route.backlog.take() else {
            return SendError::ReceiverGone { node: route.to.clone(), undelivered: 0 };
        };
        let span = backlog.span.clone();
        let _span = span.enter();
        route.before += backlog.settle(|_| false).unwrap_or_default();
        let undelivered = backlog.len();
        route.returned.extend(std::iter::from_fn(|| backlog.pop()));
        route.before.sent += undelivered;
        route.before.accepted += undelivered;
        route.before.returned += undelivered;
        let redelivered = backlog.brought.0;
        tracing::warn!(
            node = &*route.to,
            undelivered,
            redelivered,
            "the wait for a receiver is over: what was kept comes back"
        );
        route.failed(why, backlog.gone(), undelivered, &self.node.id)
    }
}
