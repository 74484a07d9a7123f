//! An outbox: what sends. It owns one channel per inbox that it reaches, and belongs to one thread at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::appear;
use crate::channel::{Channel, Pushed};
use crate::incoming::Reason;
use crate::link::{Link, Target};
use crate::name::{BadNodeId, Incarnation, check_node_id};
use crate::node::Owned;
use crate::registry::{self, ReadError};
use crate::ring::{Failure, Ring};
use crate::sys::{OsError, fork};
use crate::wire::ListedAddress;

/// How long a send waits for room by default.
pub const DEFAULT_SEND_LIMIT: Duration = Duration::from_secs(1);
/// How often the connection to a node that lives may be lost while connecting.
const LOST_CONNECTIONS: u32 = 2;
/// How long a connecting sender waits for the answer of a node that is there.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Why a node could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The id is none.
    #[error(transparent)]
    BadId(#[from] BadNodeId),
    /// There is no living node of this id.
    #[error("node {node:?} is not there (`librpc nodes` shows who is)")]
    NotFound {
        /// The id.
        node: String,
    },
    /// The node lives, but has not opened its inbox.
    #[error("node {node:?} has no inbox")]
    NoInbox {
        /// The id.
        node: String,
    },
    /// The node does not want this sender.
    #[error("node {node:?} refuses ({reason:?}): {text}")]
    Refused {
        /// The id.
        node: String,
        /// Why.
        reason: Reason,
        /// Why, in the receiver's words.
        text: String,
    },
    /// The node, or its file, is not what it should be.
    #[error("node {node:?} cannot be connected to: {why}")]
    Broken {
        /// The id.
        node: String,
        /// What is wrong.
        why: String,
    },
    /// The sender's own node was closed, or belongs to the parent of this forked process.
    #[error("the sending node {node:?} is closed, or was opened before a fork")]
    Closed {
        /// The sender's node.
        node: String,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The receiver has not made room within the limit.
    #[error("node {node:?} has made no room within {limit:?}: its inbox is full")]
    Full {
        /// The receiver.
        node: String,
        /// How long this send has waited.
        limit: Duration,
    },
    /// The message can never fit.
    #[error("a message of {bytes} bytes is over the limit of {max} bytes of node {node:?}")]
    TooLarge {
        /// The receiver.
        node: String,
        /// The message's length in bytes.
        bytes: usize,
        /// The longest message in bytes.
        max: usize,
    },
    /// The receiver is gone. A later send connects again if it has come back by then.
    #[error("node {node:?} is gone; {undelivered} messages sent before were not processed")]
    ReceiverGone {
        /// The receiver.
        node: String,
        /// How many messages it had not processed. Each loss is reported once.
        undelivered: u64,
    },
    /// The receiver does not want this sender, or what it wrote cannot be.
    #[error(
        "node {node:?} cannot be sent to ({reason:?}): {text}; {undelivered} messages sent before were not processed"
    )]
    Refused {
        /// The receiver.
        node: String,
        /// Why.
        reason: Reason,
        /// Why, in words.
        text: String,
        /// How many messages it had not processed. Each loss is reported once.
        undelivered: u64,
    },
    /// The sender's own node was closed.
    #[error("the sending node {node:?} is closed")]
    Closed {
        /// The sender's node.
        node: String,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Why a flush did not find everything processed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time is up.
    #[error("{unprocessed} messages are not processed yet")]
    TimedOut {
        /// How many messages.
        unprocessed: u64,
    },
    /// A receiver is gone or refuses, and what it had not processed is lost. Reported once.
    #[error("{unprocessed} messages were not processed: {cause}")]
    Lost {
        /// How many messages, of all receivers.
        unprocessed: u64,
        /// What became of the first such receiver.
        cause: Box<SendError>,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
}

/// How far a destination has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages sent.
    pub sent: u64,
    /// Messages of these that the receiver has processed.
    pub acknowledged: u64,
}

/// A node that an outbox sends to. Of use with that outbox only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination(usize);

/// What sends: one channel per inbox that it reaches, in order, without a lock.
///
/// It is `Send`, and used by one thread at a time. What it sends to one inbox arrives in the order in which it was sent.
#[derive(Debug)]
pub struct Outbox {
    node: Arc<Owned>,
    routes: Vec<Route>,
    born: u64,
}

/// Where a destination's messages go.
#[derive(Debug)]
struct Route {
    to: Arc<str>,
    channel: Option<Channel>,
    /// Set when the receiver has refused for good.
    refused: Option<(Incarnation, Reason, String)>,
    /// What earlier channels of this route have carried.
    before: Progress,
}

impl Outbox {
    pub(crate) fn new(node: Arc<Owned>) -> Self {
        Self { node, routes: Vec::new(), born: fork::generation() }
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
        if let Some(known) = self.routes.iter().position(|route| &*route.to == node && route.channel.is_some()) {
            return Ok(Destination(known));
        }
        let to: Arc<str> = node.into();
        let channel = Some(self.connect(&to, limit)?);
        let known = self.routes.iter().position(|route| route.to == to);
        let index = known.unwrap_or_else(|| {
            self.routes.push(Route { to, channel: None, refused: None, before: Progress::default() });
            self.routes.len() - 1
        });
        self.routes[index].channel = channel;
        self.routes[index].refused = None;
        Ok(Destination(index))
    }

    fn connect(&self, to: &Arc<str>, limit: Duration) -> Result<Channel, ConnectError> {
        let closed = || ConnectError::Closed { node: self.node.id.to_string() };
        let domain = self.node.domain().ok_or_else(closed)?;
        let begun = Instant::now();
        let deadline = begun.checked_add(limit);
        let reactor = self.node.reactor();
        let mut seen_alive = false;
        let mut failures = HashMap::new();
        let mut attempt = || -> Result<Option<Channel>, ConnectError> {
            loop {
                self.node.join_anew_if_removed();
                let directory = self.node.directory().ok_or_else(closed)?;
                let target = match look_up(&directory, to)? {
                    LookedUp::Inbox(target) => target,
                    LookedUp::Alive => {
                        seen_alive = true;
                        return Ok(None);
                    }
                    LookedUp::Nobody => return Ok(None),
                };
                // A connection may be lost although the node lives; but the file of one that dies may stay for a while.
                let lost = failures.entry((target.incarnation, target.inbox)).or_insert(0);
                if *lost > LOST_CONNECTIONS {
                    return Ok(None);
                }
                let ring =
                    Ring::create(Link::to(reactor, &target), self.node.id.clone(), self.node.incarnation, directory)?;
                if !self.node.remember(&ring) {
                    return Err(closed());
                }
                let channel = Channel::new(ring.clone()); // writes the ring's header: the receiver checks it
                ring.link.connect(reactor, ring.clone());
                if !limit.is_zero() {
                    ring.wait_for_answer(Instant::now() + limit.min(ANSWER_LIMIT));
                }
                match ring.failure() {
                    None => return Ok(Some(channel)),
                    Some(Failure::Gone) => *lost += 1,
                    Some(Failure::Refused { reason, text }) => {
                        let reason = Reason::from_number(reason);
                        return Err(ConnectError::Refused { node: to.to_string(), reason, text });
                    }
                    Some(Failure::Broken(why)) => return Err(ConnectError::Broken { node: to.to_string(), why }),
                    Some(Failure::NodeClosed) => return Err(closed()),
                }
            }
        };
        let found = if limit.is_zero() {
            attempt()?
        } else {
            appear::wait_for(reactor, domain.path(), deadline, &mut attempt)?
        };
        found.ok_or_else(|| match seen_alive {
            true => ConnectError::NoInbox { node: to.to_string() },
            false => ConnectError::NotFound { node: to.to_string() },
        })
    }

    /// Sends a message, and waits up to [`DEFAULT_SEND_LIMIT`] for room.
    ///
    /// Once this has returned `Ok`, the message reaches the receiver even if this process is killed, unless the sender is
    /// still pending (see [`crate::Node::sender_within`]).
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
        if self.born != fork::generation() {
            return Err(SendError::Forked);
        }
        if let Some(channel) = &mut self.routes[to.0].channel
            && let Pushed::Yes = channel.push(payload)
        {
            return Ok(());
        }
        self.send_slowly(to, payload, limit)
    }

    #[cold]
    fn send_slowly(&mut self, to: Destination, payload: &[u8], limit: Duration) -> Result<(), SendError> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            if self.routes[to.0].channel.is_none() {
                self.reconnect(to)?;
            }
            let route = &mut self.routes[to.0];
            let Some(channel) = &mut route.channel else { continue };
            match channel.push(payload) {
                Pushed::Yes => return Ok(()),
                Pushed::TooLarge { bytes, max } => {
                    return Err(SendError::TooLarge { node: route.to.to_string(), bytes, max });
                }
                Pushed::Full { room_at } => {
                    if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                        return Err(SendError::Full { node: route.to.to_string(), limit });
                    }
                    channel.wait_for(room_at, deadline);
                }
                Pushed::Failed => match self.give_up(to) {
                    // Nothing is lost, so there is nothing to report: perhaps the receiver is back.
                    SendError::ReceiverGone { undelivered: 0, .. } => {}
                    error => return Err(error),
                },
            }
        }
    }

    /// Connects a route again whose receiver was gone.
    fn reconnect(&mut self, to: Destination) -> Result<(), SendError> {
        let route = &self.routes[to.0];
        let node = route.to.to_string();
        if let Some((incarnation, reason, text)) = &route.refused
            && self.node.directory().is_some_and(|directory| is_alive(&directory, &route.to, *incarnation))
        {
            return Err(SendError::Refused { node, reason: *reason, text: text.clone(), undelivered: 0 });
        }
        let target = route.to.clone();
        match self.connect(&target, Duration::ZERO) {
            Ok(channel) => {
                self.routes[to.0].channel = Some(channel);
                Ok(())
            }
            Err(ConnectError::Refused { reason, text, .. }) => {
                Err(SendError::Refused { node, reason, text, undelivered: 0 })
            }
            Err(ConnectError::Closed { node }) => Err(SendError::Closed { node }),
            Err(ConnectError::Os(error)) => Err(error.into()),
            Err(_) => Err(SendError::ReceiverGone { node, undelivered: 0 }),
        }
    }

    /// Drops a failed channel, and says what is lost with it.
    fn give_up(&mut self, to: Destination) -> SendError {
        let own = self.node.id.to_string();
        let route = &mut self.routes[to.0];
        let node = route.to.to_string();
        let Some(mut channel) = route.channel.take() else {
            return SendError::ReceiverGone { node, undelivered: 0 };
        };
        let progress = channel.progress();
        let undelivered = progress.sent - progress.acknowledged;
        route.before.sent += progress.sent;
        route.before.acknowledged += progress.acknowledged;
        match channel.failure() {
            None | Some(Failure::Gone) => SendError::ReceiverGone { node, undelivered },
            Some(Failure::NodeClosed) => SendError::Closed { node: own },
            Some(Failure::Refused { reason, text }) => {
                let reason = Reason::from_number(reason);
                // Other reasons may pass.
                if matches!(reason, Reason::NotAdmitted | Reason::Version | Reason::Identity) {
                    route.refused = Some((channel.incarnation(), reason, text.clone()));
                }
                SendError::Refused { node, reason, text, undelivered }
            }
            Some(Failure::Broken(text)) => {
                route.refused = Some((channel.incarnation(), Reason::Unknown, text.clone()));
                SendError::Refused { node, reason: Reason::Unknown, text, undelivered }
            }
        }
    }

    /// Waits until everything sent is processed, up to a limit for all destinations together.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed.
    pub fn flush(&mut self, limit: Duration) -> Result<(), FlushError> {
        if self.born != fork::generation() {
            return Err(FlushError::Forked);
        }
        let deadline = Instant::now().checked_add(limit);
        let (mut late, mut lost, mut cause) = (0, 0, None);
        for index in 0..self.routes.len() {
            let Some(channel) = &mut self.routes[index].channel else { continue };
            channel.wait_for_all(deadline);
            let progress = channel.progress();
            let unprocessed = progress.sent - progress.acknowledged;
            if channel.is_connected() {
                late += unprocessed;
            } else if unprocessed > 0 {
                lost += unprocessed;
                let error = self.give_up(Destination(index));
                cause.get_or_insert(error);
            }
        }
        match cause {
            Some(cause) => Err(FlushError::Lost { unprocessed: lost + late, cause: Box::new(cause) }),
            None if late > 0 => Err(FlushError::TimedOut { unprocessed: late }),
            None => Ok(()),
        }
    }

    /// The longest message that a destination takes, in bytes; `None` while it is gone.
    pub fn max_message(&self, to: Destination) -> Option<usize> {
        self.routes[to.0].channel.as_ref().map(Channel::max_message)
    }

    /// Whether a destination's receiver is there, or has not answered yet, as far as is known without asking: the death
    /// of its process is known within milliseconds. Does not block.
    pub fn is_connected(&self, to: Destination) -> bool {
        self.routes[to.0].channel.as_ref().is_some_and(Channel::is_connected)
    }

    /// How many messages were sent to a destination, and how many of these are processed. Does not block.
    pub fn progress(&mut self, to: Destination) -> Progress {
        let route = &mut self.routes[to.0];
        let mut progress = route.before;
        if let Some(channel) = &mut route.channel
            && self.born == fork::generation()
        {
            let now = channel.progress();
            progress.sent += now.sent;
            progress.acknowledged += now.acknowledged;
        }
        progress
    }
}

/// Whether this incarnation of a node lives.
fn is_alive(directory: &crate::sys::Descriptor, node: &str, incarnation: Incarnation) -> bool {
    matches!(registry::read(directory, node), Ok(Some(file)) if file.alive && file.incarnation == incarnation)
}

enum LookedUp {
    Inbox(Target),
    Alive,
    Nobody,
}

/// Finds a node's own inbox.
fn look_up(directory: &crate::sys::Descriptor, node: &Arc<str>) -> Result<LookedUp, ConnectError> {
    let file = match registry::read(directory, node) {
        Ok(Some(file)) if file.alive => file,
        Ok(_) => return Ok(LookedUp::Nobody),
        Err(ReadError::Bad { id, why }) => return Err(ConnectError::Broken { node: id, why }),
        Err(ReadError::Os(error)) => return Err(error.into()),
    };
    let Some(inbox) = file.inboxes.iter().find(|inbox| inbox.address == ListedAddress::Node) else {
        return Ok(LookedUp::Alive);
    };
    let capacity = inbox.capacity;
    if !librpc_ring::layout::is_valid_capacity(capacity) || capacity < 4096 {
        return Err(ConnectError::Broken { node: node.to_string(), why: format!("a capacity of {capacity} bytes") });
    }
    Ok(LookedUp::Inbox(Target {
        node: node.clone(),
        incarnation: file.incarnation,
        uid: file.uid,
        inbox: inbox.number,
        capacity,
    }))
}
