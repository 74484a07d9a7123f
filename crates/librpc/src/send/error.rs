//! Why a message was not sent, or is not processed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Address;
use crate::schema::SchemaMismatch;
use crate::send::dial::ConnectError;
use crate::sys::OsError;
use crate::text::{self, counted};
use crate::wire::Reason;

/// Why a message was not sent.
///
/// The text of an error is the same from call to call while its cause is the same, so that it may be logged once. Numbers that change are in
/// its fields.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The receiver did not make room within the limit.
    #[error("the inbox of node {node:?} has stayed full for {limit:?}")]
    Full {
        /// The receiver.
        node: Arc<str>,
        /// How long this send waited.
        limit: Duration,
    },
    /// The receiver has not been given the channel yet, so the message would not survive this process: it was not sent.
    /// In a shared domain the receiver must admit the sender first. In a private one, this happens when the receiver's
    /// queue or this process's descriptors are used up.
    #[error("node {node:?} has not answered within {limit:?}: the message was not sent")]
    Unanswered {
        /// The receiver.
        node: Arc<str>,
        /// How long this send waited.
        limit: Duration,
    },
    /// The inbox is full, and its policy drops new messages.
    #[error("the inbox of node {node:?} is full: the message was dropped")]
    Dropped {
        /// The receiver.
        node: Arc<str>,
    },
    /// An earlier publish waited for the inbox in vain, and the receiver has made no progress since.
    #[error("node {node:?} is stuck: an earlier publish waited in vain for room in its inbox")]
    Stuck {
        /// The receiver.
        node: Arc<str>,
    },
    /// The inbox is of another type: nothing is sent to it. What was kept for its node's return comes back
    /// ([`crate::Sender::take_returned`]). For a topic it is reported once for each subscription; from then on they are in
    /// [`crate::Publisher::mismatches`].
    #[error("an inbox is not reached: {0}")]
    Mismatch(Arc<SchemaMismatch>),
    /// The sender's own rate limit is used up.
    #[error("the rate limit for {to:?} is used up")]
    RateLimited {
        /// The destination: a node's id, or a topic.
        to: Arc<str>,
        /// How long from now on a message of this size has to wait.
        wait: Duration,
    },
    /// The message can never fit.
    #[error("a message of {} exceeds the limit of node {node:?}, {}", text::bytes(*bytes), text::bytes(*max))]
    TooLarge {
        /// The receiver.
        node: Arc<str>,
        /// The message's length in bytes.
        bytes: usize,
        /// The longest message in bytes.
        max: usize,
    },
    /// There is no memory for a large payload.
    #[error("cannot send to node {node:?}: {source}")]
    NoMemory {
        /// The receiver.
        node: Arc<str>,
        /// Why.
        source: LoanError,
    },
    /// The receiver is gone. A later send connects again if it has come back by then.
    #[error("node {node:?} is gone{}", NotProcessed(*undelivered))]
    ReceiverGone {
        /// The receiver.
        node: Arc<str>,
        /// How many messages it had not processed. Each loss is reported once.
        undelivered: u64,
    },
    /// The receiver refuses this sender, or what it wrote is invalid.
    #[error("cannot send to node {node:?} ({reason:?}): {text}{}", NotProcessed(*undelivered))]
    Refused {
        /// The receiver.
        node: Arc<str>,
        /// Why.
        reason: Reason,
        /// Why, in words.
        text: Arc<str>,
        /// How many messages it had not processed. Each loss is reported once.
        undelivered: u64,
    },
    /// The sender's own node was closed.
    #[error("the sending node {node:?} is closed")]
    Closed {
        /// The sender's node.
        node: Arc<str>,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// The kind of a [`SendError`]: [`SendError::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SendErrorKind {
    /// [`SendError::Full`].
    Full,
    /// [`SendError::Unanswered`].
    Unanswered,
    /// [`SendError::Dropped`].
    Dropped,
    /// [`SendError::Stuck`].
    Stuck,
    /// [`SendError::Mismatch`].
    Mismatch,
    /// [`SendError::RateLimited`].
    RateLimited,
    /// [`SendError::TooLarge`].
    TooLarge,
    /// [`SendError::NoMemory`].
    NoMemory,
    /// [`SendError::ReceiverGone`].
    ReceiverGone,
    /// [`SendError::Refused`].
    Refused,
    /// [`SendError::Closed`].
    Closed,
    /// [`SendError::Forked`].
    Forked,
    /// [`SendError::Os`].
    Os,
}

/// An inbox that has payloads of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The inbox's node.
    pub node: Arc<str>,
    /// What the inbox receives.
    pub address: Address,
    /// How many payloads wait in the inbox.
    pub queued: usize,
    /// How many it has handed out as samples that are not dropped.
    pub held: usize,
    /// Their bytes, together.
    pub bytes: u64,
}

/// Why there is no memory for a large payload.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoanError {
    /// All of the node's memory for payloads is in use.
    #[error(
        "no memory for a payload of {bytes} bytes: there may be {limit} bytes (Limits::payload_bytes){}",
        Holders(holders)
    )]
    Exhausted {
        /// The payload's length in bytes.
        bytes: usize,
        /// How much memory for payloads the node has, in bytes.
        used: u64,
        /// How much it may have, in bytes.
        limit: u64,
        /// The inboxes that have payloads of this outbox.
        holders: Vec<Holder>,
    },
    /// The node was closed.
    #[error("node {node:?} is closed")]
    Closed {
        /// The node.
        node: Arc<str>,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// The system has no memory for it.
    #[error(transparent)]
    Os(Arc<OsError>),
}

struct Holders<'a>(&'a [Holder]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Holder { node, .. }) in self.0.iter().enumerate() {
            write!(f, "{}{node:?}", if at == 0 { ", which these nodes have: " } else { ", " })?;
        }
        Ok(())
    }
}

/// What is lost with an error, if anything is: each loss is reported once.
struct NotProcessed(u64);

impl fmt::Display for NotProcessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lost => write!(f, "; {} sent before will not be processed there", counted(lost, "message", "messages")),
        }
    }
}

/// Why a flush ended before everything was processed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The time is up.
    #[error("{} not processed yet", counted(*unprocessed, "message is", "messages are"))]
    TimedOut {
        /// How many messages.
        unprocessed: u64,
    },
    /// Receivers are gone or refuse. What they had not processed is lost or came back. Reported once.
    #[error("{} not processed: {}{}", counted(*lost, "message was", "messages were"), Listed(causes), Later(*unprocessed))]
    Lost {
        /// How many messages, of all such receivers.
        lost: u64,
        /// How many other messages are not processed yet.
        unprocessed: u64,
        /// What happened to each such receiver, with its own number of messages.
        causes: Vec<SendError>,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
}

struct Listed<'a>(&'a [SendError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(at, error)| {
            f.write_str(if at > 0 { "; " } else { "" })?;
            fmt::Display::fmt(error, f)
        })
    }
}

struct Later(u64);

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 { write!(f, "; {} not processed yet", counted(self.0, "more is", "more are")) } else { Ok(()) }
    }
}

impl SendError {
    /// The error of a send to a node that could not be connected to.
    pub(crate) fn from_connect(error: ConnectError, node: Arc<str>) -> Self {
        let refused = |node, reason, text: String| Self::Refused { node, reason, text: text.into(), undelivered: 0 };
        match error {
            ConnectError::Refused { reason, text, .. } => refused(node, reason, text),
            ConnectError::Broken { why, .. } => refused(node, Reason::Unknown, why),
            ConnectError::Closed { node } => Self::Closed { node },
            ConnectError::Mismatch(mismatch) => Self::Mismatch(mismatch),
            ConnectError::Os(error) => error.into(),
            ConnectError::InvalidId(_)
            | ConnectError::Type(_)
            | ConnectError::NotFound { .. }
            | ConnectError::NoInbox { .. } => Self::ReceiverGone { node, undelivered: 0 },
        }
    }

    /// The node whose inbox did not get the message, or that sends it; `None`: it is about neither.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Full { node, .. }
            | Self::Unanswered { node, .. }
            | Self::Dropped { node }
            | Self::Stuck { node }
            | Self::TooLarge { node, .. }
            | Self::NoMemory { node, .. }
            | Self::ReceiverGone { node, .. }
            | Self::Refused { node, .. }
            | Self::Closed { node } => Some(node),
            Self::Mismatch(mismatch) => Some(&mismatch.node),
            Self::RateLimited { .. } | Self::Forked | Self::Os(_) => None,
        }
    }

    /// What kind of error it is: for a `match`, or to count errors by it.
    pub fn kind(&self) -> SendErrorKind {
        match self {
            Self::Full { .. } => SendErrorKind::Full,
            Self::Unanswered { .. } => SendErrorKind::Unanswered,
            Self::Dropped { .. } => SendErrorKind::Dropped,
            Self::Stuck { .. } => SendErrorKind::Stuck,
            Self::Mismatch(_) => SendErrorKind::Mismatch,
            Self::RateLimited { .. } => SendErrorKind::RateLimited,
            Self::TooLarge { .. } => SendErrorKind::TooLarge,
            Self::NoMemory { .. } => SendErrorKind::NoMemory,
            Self::ReceiverGone { .. } => SendErrorKind::ReceiverGone,
            Self::Refused { .. } => SendErrorKind::Refused,
            Self::Closed { .. } => SendErrorKind::Closed,
            Self::Forked => SendErrorKind::Forked,
            Self::Os(_) => SendErrorKind::Os,
        }
    }

    /// How many messages that were sent earlier are lost with this error.
    pub fn undelivered(&self) -> u64 {
        match self {
            Self::ReceiverGone { undelivered, .. } | Self::Refused { undelivered, .. } => *undelivered,
            _ => 0,
        }
    }
}

/// Why nothing could be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The publisher's own rate limit is used up.
    #[error("the rate limit for {topic:?} is used up")]
    RateLimited {
        /// The topic.
        topic: Arc<str>,
        /// How long from now on a message of this size has to wait.
        wait: Duration,
    },
    /// The publisher's node was closed.
    #[error("the publishing node {node:?} is closed")]
    Closed {
        /// The node.
        node: Arc<str>,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// The subscriptions cannot be read.
    #[error(transparent)]
    Os(#[from] OsError),
}
