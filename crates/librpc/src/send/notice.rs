//! Telling an inbox's node why it does not get something: its process may not read it, or it is of another type.
//!
//! It is said over a connection of its own, once, and never waited for: the kernel keeps the message. A crash before that leaves a node
//! that does not know; the next sender decides, and tells, for itself.

use crate::link::readers::Access;
use crate::name::{Address, Peer};
use crate::node_shared::NodeShared;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::schema::{Schema, SchemaMismatch};
use crate::sys::OsError;
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::wire::{self, Deny, PROTOCOL, Typed};

/// Why an inbox does not get a topic, or what is sent to its node.
pub(crate) enum Why<'m> {
    /// It may not read it: in words.
    NotRead(String),
    /// It is of another type.
    Mismatch(&'m SchemaMismatch),
}

/// Tells an inbox's node why it does not get a topic. `false`: its process may not read the topic, or is not there to be asked.
pub(crate) fn tell(own: &NodeShared, target: &Target, topic: &str, why: Why<'_>) -> bool {
    let node = &*target.node;
    let is_restricted = matches!(target.address, Address::Topics(_)) && own.readers.restrict(topic);
    match notify(own, target, topic, why, is_restricted) {
        Ok(Some(may_read)) => may_read,
        Ok(None) => {
            tracing::debug!(node, topic, "a subscription is not told that it is denied a topic: it is gone");
            !is_restricted
        }
        Err(error) => {
            tracing::debug!(%error, node, topic, "a subscription is not told that it is denied a topic");
            !is_restricted
        }
    }
}

/// Notifies a subscription's node, over a separate connection. Never waits: the kernel keeps the message. Returns whether the
/// process may read the topic; `None`: it is gone.
fn notify(
    own: &NodeShared,
    target: &Target,
    topic: &str,
    why: Why<'_>,
    is_restricted: bool,
) -> Result<Option<bool>, OsError> {
    let Some(directory) = own.directory() else { return Ok(None) };
    let socket = Socket::connect(&node_file::socket_path(&directory, &target.node)?)?;
    let Credentials { pid, uid, gid } = socket.credentials()?;
    if uid != target.uid {
        return Ok(None); // another user's node of the same name
    }
    let denied = match (&why, is_restricted) {
        (Why::Mismatch(_), true) => {
            let (node, incarnation, groups) = (target.node.clone(), target.incarnation, socket.peer_groups().into());
            let reader = Peer { node, incarnation, pid, uid, gid, groups };
            match own.readers.access(topic, uid, Some(&reader)) {
                Access::Denied(whom) => Some(not_read_by(own, target, topic, &whom)),
                Access::Granted | Access::Unknown => None,
            }
        }
        _ => None,
    };
    let may_read = denied.is_none();
    let listed = |schema: &Option<Schema>| schema.as_ref().map(Into::into);
    let (text, mismatch) = match (why, denied) {
        (_, Some(text)) | (Why::NotRead(text), None) => (text, None),
        (Why::Mismatch(mismatch), None) => {
            let (schema, wanted) = (listed(&mismatch.ours), listed(&mismatch.theirs));
            (String::new(), Some(Typed { schema, wanted }))
        }
    };
    let denial = Deny {
        lowest: PROTOCOL,
        highest: PROTOCOL,
        node: own.id.to_string(),
        incarnation: *own.incarnation.bytes(),
        target: *target.incarnation.bytes(),
        inbox: target.inbox,
        topic: topic.to_owned(),
        text,
        mismatch,
    };
    Ok((socket.send(&wire::encode(&denial), None)? == Sent::Done).then_some(may_read))
}

/// Why a process may not read a topic, in words.
pub(crate) fn not_read_by(own: &NodeShared, target: &Target, topic: &str, whom: &str) -> String {
    let (own, node) = (&*own.id, &*target.node);
    let text = format!("topic {topic:?} of node {own:?} may not be read by {whom}");
    tracing::info!(node, inbox = target.inbox, text, "a subscription is denied a topic");
    text
}
