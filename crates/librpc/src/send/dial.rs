//! Connecting to an inbox: found by its node's id, or by what it subscribes to.

use crate::sys::clock::Instant;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::link::channel_shared::{ChannelShared, Failure};
use crate::link::outgoing;
use crate::name::InvalidNodeId;
use crate::node_shared::NodeShared;
use crate::registry::lookup::{self, LookedUp};
use crate::registry::node_file::ReadError;
use crate::registry::target::Target;
use crate::registry::wait;
use crate::schema::{InvalidSchema, SchemaMismatch};
use crate::send::channel::OutboundChannel;
use crate::send::direct::Direct;
use crate::sys::OsError;
use crate::wire::Reason;

/// At most this many attempts to connect to a living node may lose the connection.
const LOST_CONNECTIONS: u32 = 2;
/// How long a connecting sender waits for the answer of a node that is there.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Why a node could not be connected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The id is invalid.
    #[error(transparent)]
    InvalidId(#[from] InvalidNodeId),
    /// The type of the messages has no valid name.
    #[error(transparent)]
    Type(#[from] InvalidSchema),
    /// There is no living node of this id.
    #[error("node {node:?} is not there (`librpc nodes` shows who is)")]
    NotFound {
        /// The id.
        node: Arc<str>,
    },
    /// The node lives, but has not opened its inbox.
    #[error("node {node:?} has no inbox")]
    NoInbox {
        /// The id.
        node: Arc<str>,
    },
    /// The node does not want this sender.
    #[error("node {node:?} refuses ({reason:?}): {text}")]
    Refused {
        /// The id.
        node: Arc<str>,
        /// Why.
        reason: Reason,
        /// Why, in the receiver's words.
        text: String,
    },
    /// The node's inbox is of another type than what is to be sent: [`crate::Node::connect_of`].
    #[error("an inbox is not reached: {0}")]
    Mismatch(Arc<SchemaMismatch>),
    /// The node, or its file, is not what it should be.
    #[error("cannot connect to node {node:?}: {why}")]
    Broken {
        /// The id.
        node: Arc<str>,
        /// What is wrong.
        why: String,
    },
    /// The sender's own node was closed, or belongs to the parent of this forked process.
    #[error("the sending node {node:?} is closed, or was opened before a fork")]
    Closed {
        /// The sender's node.
        node: Arc<str>,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Connects to a node's own inbox, and waits up to a limit for it to appear, and then for its answer.
pub(crate) fn by_id(
    node: &Arc<NodeShared>,
    to: &Arc<str>,
    direct: &Direct,
    limit: Duration,
) -> Result<OutboundChannel, ConnectError> {
    let closed = || ConnectError::Closed { node: node.id.clone() };
    let domain = node.domain().ok_or_else(closed)?;
    let begun = Instant::now();
    let deadline = begun.checked_add(limit);
    let lookout = &node.process().lookout;
    let mut seen_alive = false;
    let mut failures = HashMap::new();
    let mut attempt = || -> Result<Option<OutboundChannel>, ConnectError> {
        loop {
            node.join_anew_if_removed();
            let directory = node.directory().ok_or_else(closed)?;
            let target = match lookup::own_inbox(&directory, to).map_err(unreadable)? {
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
            let channel = to_inbox(node, &target, direct, 0)?;
            if !limit.is_zero() {
                channel.wait_for_answer(Instant::now() + limit.min(ANSWER_LIMIT));
            }
            match channel.failure() {
                None => return Ok(Some(channel)),
                Some(Failure::Gone) => *lost += 1,
                Some(Failure::Refused { reason, text }) => {
                    let reason = Reason::from_number(reason);
                    return Err(ConnectError::Refused { node: to.clone(), reason, text });
                }
                Some(Failure::Broken(why)) => return Err(ConnectError::Broken { node: to.clone(), why }),
                Some(Failure::Mismatch(mismatch)) => return Err(ConnectError::Mismatch(mismatch)),
                Some(Failure::NodeClosed) => return Err(closed()),
            }
        }
    };
    let found =
        if limit.is_zero() { attempt()? } else { wait::wait_for(lookout, domain.path(), deadline, &mut attempt)? };
    found.ok_or_else(|| match seen_alive {
        true => ConnectError::NoInbox { node: to.clone() },
        false => ConnectError::NotFound { node: to.clone() },
    })
}

/// Begins to connect to an inbox. When this returns in a private domain, the kernel holds the channel for the receiver,
/// unless descriptors, memory or the receiver's queue are used up. The first message gets the number `first`.
pub(crate) fn to_target(node: &Arc<NodeShared>, target: &Target, first: u64) -> Result<OutboundChannel, ConnectError> {
    let closed = || ConnectError::Closed { node: node.id.clone() };
    let (reactor, directory) = (node.reactor(), node.directory().ok_or_else(closed)?);
    let charge = node.sending.channel(target.uid, target.capacity).ok_or_else(|| ConnectError::Refused {
        node: target.node.clone(),
        reason: Reason::TooMuch,
        text: format!("node {:?} sends to as many inboxes of uid {} as its own limits allow", node.id, target.uid),
    })?;
    let (id, ended, readers) = (node.id.clone(), node.ended_outgoing.clone(), node.readers.clone());
    let shared = ChannelShared::create(target.clone(), charge, id, node.incarnation, directory, ended, readers)?;
    if !node.remember(&shared) {
        return Err(closed());
    }
    let link = node.links.link(reactor, target);
    // This writes the ring's header, which the receiver checks.
    let channel = OutboundChannel::new(shared.clone(), link.clone(), first, node.payloads.clone(), node.is_private());
    outgoing::begin(reactor, link, shared, node.is_private());
    Ok(channel)
}

/// The same for a node's own inbox, if it takes what is sent.
pub(crate) fn to_inbox(
    node: &Arc<NodeShared>,
    target: &Target,
    direct: &Direct,
    first: u64,
) -> Result<OutboundChannel, ConnectError> {
    direct.compare(node, target).map_err(ConnectError::Mismatch)?;
    let mut channel = to_target(node, target, first)?;
    if let Some(typed) = direct.declaration() {
        channel.set_type(typed);
    }
    Ok(channel)
}

/// The inbox of a node, if it is there.
pub(crate) fn find(node: &Arc<NodeShared>, to: &Arc<str>) -> Result<Option<Target>, ConnectError> {
    node.join_anew_if_removed();
    let closed = || ConnectError::Closed { node: node.id.clone() };
    Ok(match lookup::own_inbox(&*node.directory().ok_or_else(closed)?, to).map_err(unreadable)? {
        LookedUp::Inbox(target) => Some(target),
        LookedUp::Alive | LookedUp::Nobody => None,
    })
}

fn unreadable(error: ReadError) -> ConnectError {
    match error {
        ReadError::Bad { id, why } => ConnectError::Broken { node: id.into(), why },
        ReadError::Os(error) => error.into(),
    }
}
