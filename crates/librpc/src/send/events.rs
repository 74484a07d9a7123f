//! What happens at a publisher: which subscriptions come, go, and get stuck.

use std::fmt;
use std::sync::Arc;

use crate::name::Incarnation;
use crate::policy::Policy;
use crate::registry::view::Subscription;
use crate::schema::SchemaMismatch;
use crate::send::route::Refusal;
use crate::topic::Pattern;
use crate::wire::Reason;

/// What has happened at a publisher: [`crate::Publisher::try_event`].
///
/// For one subscription: `Came`, any number of times `Stuck` and then `Moves`, and `Gone`; or only `Denied` or `Mismatch`. One that is opened again, or
/// whose node is, is a new one: first the former one is `Gone`, then the new one `Came`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublisherEvent {
    /// A subscription wants the topic. What is published from now on reaches it, unless its node refuses this publisher: then it is `Gone`.
    Came(Arc<MatchedInbox>),
    /// It is gone, or will never take what is published.
    Gone(Arc<MatchedInbox>, SubscriptionEnd),
    /// A publish has waited for it in vain: its inbox is full, and it does not read. Until it moves, no publish waits for it
    /// ([`crate::SendError::Stuck`]).
    Stuck(Arc<MatchedInbox>),
    /// It was stuck, and reads again.
    Moves(Arc<MatchedInbox>),
    /// A subscription wants the topic, and may not read it ([`crate::NodeBuilder::readers`]). It has not come.
    Denied(Arc<MatchedInbox>),
    /// A subscription wants the topic as another type. It has not come.
    Mismatch(Arc<MatchedInbox>, Arc<SchemaMismatch>),
}

impl PublisherEvent {
    /// The subscription.
    pub fn inbox(&self) -> &Arc<MatchedInbox> {
        match self {
            Self::Came(inbox)
            | Self::Gone(inbox, _)
            | Self::Stuck(inbox)
            | Self::Moves(inbox)
            | Self::Denied(inbox)
            | Self::Mismatch(inbox, _) => inbox,
        }
    }
}

/// For people, on one line.
impl fmt::Display for PublisherEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inbox = self.inbox();
        match self {
            Self::Came(_) => write!(f, "{inbox} has come"),
            Self::Gone(_, end) => write!(f, "{inbox} is gone: {end}"),
            Self::Stuck(_) => write!(f, "{inbox} is stuck: its inbox is full, and it does not read"),
            Self::Moves(_) => write!(f, "{inbox} reads again"),
            Self::Denied(_) => write!(f, "{inbox} may not read the topic"),
            Self::Mismatch(_, mismatch) => write!(f, "{inbox} is of another type: {mismatch}"),
        }
    }
}

/// A subscription that wants what a publisher publishes, as its node lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MatchedInbox {
    /// The id of its node.
    pub node: Arc<str>,
    /// The incarnation of its node.
    pub incarnation: Incarnation,
    /// The user of its node: the owner of the node's file.
    pub uid: u32,
    /// Its number at its node, which distinguishes several subscriptions there.
    pub number: u32,
    /// What it subscribes to.
    pub patterns: Arc<[Pattern]>,
    /// What happens to a message when it is full.
    pub policy: Policy,
    /// Capacity of its channel's ring in bytes.
    pub capacity: u64,
    /// The longest message that it takes, in bytes.
    pub max_message: usize,
    /// The name under which it may be taken up again ([`crate::InboxBuilder::durable`]).
    pub durable: Option<Arc<str>>,
}

impl MatchedInbox {
    pub(super) fn of(subscription: &Subscription) -> Arc<Self> {
        let Subscription { target, patterns, durable, .. } = subscription;
        Arc::new(Self {
            node: target.node.clone(),
            incarnation: target.incarnation,
            uid: target.uid,
            number: target.inbox,
            patterns: patterns.clone(),
            policy: target.policy,
            capacity: target.capacity,
            max_message: target.max_message(),
            durable: durable.as_deref().map(Arc::from),
        })
    }
}

/// For people: whose subscription to what it is.
impl fmt::Display for MatchedInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the subscription of node {:?} to ", self.node)?;
        for (at, pattern) in self.patterns.iter().enumerate() {
            write!(f, "{}{pattern}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// Why a subscription is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionEnd {
    /// It was closed, alone or with its node.
    Closed,
    /// Its process has ended without closing it.
    Died,
    /// There is no trace of its node's incarnation any more: it has left; or it has died, and its files were removed before this publisher
    /// looked.
    NodeGone,
    /// It may no longer read the topic ([`crate::NodeBuilder::readers`]).
    Denied,
    /// Its node does not admit this publisher.
    Refused {
        /// Why.
        reason: Reason,
        /// Why, in its node's words.
        text: Arc<str>,
    },
    /// It has written something that is not valid, or says so of this publisher. It gets nothing more.
    Corrupt(Arc<str>),
}

impl SubscriptionEnd {
    pub(super) fn refused(Refusal { reason, text, .. }: &Refusal) -> Self {
        match reason {
            Reason::Unknown => Self::Corrupt(text.clone()),
            &reason => Self::Refused { reason, text: text.clone() },
        }
    }
}

impl fmt::Display for SubscriptionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it was closed"),
            Self::Died => f.write_str("its process has died"),
            Self::NodeGone => f.write_str("its node has left, or has died"),
            Self::Denied => f.write_str("it may no longer read the topic"),
            Self::Refused { reason, text } => write!(f, "it refuses the publisher ({reason:?}): {text}"),
            Self::Corrupt(text) => write!(f, "its channel is not valid: {text}"),
        }
    }
}
