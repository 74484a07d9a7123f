//! Telling an inbox's node why it does not get something: its process may not read it, or it is of another type.
//!
//! It is said over a connection of its own, once, and never waited for: the kernel keeps the message. What cannot be sent just now, because
//! descriptors, memory or room in a queue are used up, the background thread sends a little later. A crash before that leaves a node
//! that does not know; the next sender decides, and tells, for itself.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::link::readers::Access;
use crate::name::{Address, Peer};
use crate::node_shared::NodeShared;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::schema::{Schema, SchemaMismatch};
use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::file::Errno;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::wire::{self, Deny, PROTOCOL, Typed};

/// How soon a notice that could not be sent is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// At most this many notices of a node wait to be sent.
const MAX_WAITING: u32 = 64;

/// Why an inbox does not get a topic, or what is sent to its node.
#[derive(Clone)]
pub(crate) enum Why {
    /// It may not read it: in words.
    NotRead(Arc<str>),
    /// It is of another type.
    Mismatch(Arc<SchemaMismatch>),
}

/// Tells an inbox's node why it does not get a topic. `false`: its process may not read the topic, or is not there to be asked.
pub(crate) fn tell(own: &Arc<NodeShared>, target: &Target, topic: &Arc<str>, why: Why) -> bool {
    let (node, name) = (&*target.node, &**topic);
    match notify(own, target, topic, &why) {
        Ok(Some(may_read)) => return may_read,
        Ok(None) => {
            tracing::debug!(node, topic = name, "a subscription is not told that it is denied a topic: it is gone")
        }
        Err(error) if error.is_passing() && wait(own, target, topic, why) => {
            tracing::debug!(%error, node, topic = name, "a subscription is told later that it is denied a topic");
        }
        Err(error) => {
            tracing::debug!(%error, node, topic = name, "a subscription is not told that it is denied a topic")
        }
    }
    !is_restricted(own, target, topic)
}

fn is_restricted(own: &NodeShared, target: &Target, topic: &str) -> bool {
    matches!(target.address, Address::Topics(_)) && own.readers.restrict(topic)
}

/// A notice that could not be sent yet. It is counted by its node.
struct Waiting {
    own: Weak<NodeShared>,
    target: Target,
    topic: Arc<str>,
    why: Why,
}

/// Has the background thread send a notice. `false`: too many wait.
fn wait(own: &Arc<NodeShared>, target: &Target, topic: &Arc<str>, why: Why) -> bool {
    {
        let mut waiting = own.waiting_notices.lock();
        if *waiting >= MAX_WAITING {
            return false;
        }
        *waiting += 1;
    }
    let (own, reactor) = (Arc::downgrade(own), own.reactor());
    let waiting = Arc::new(Waiting { own, target: target.clone(), topic: topic.clone(), why });
    reactor.deadline(reactor.token(), waiting, Some(Instant::now() + AGAIN));
    true
}

impl Source for Waiting {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {}

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, token: u64) {
        let Self { target, topic, why, .. } = &*self;
        match self.own.upgrade().map(|own| notify(&own, target, topic, why)) {
            Some(Err(error)) if error.is_passing() => reactor.deadline(token, self, Some(Instant::now() + AGAIN)),
            _ => drop(reactor.forget(token)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(own) = self.own.upgrade() {
            *own.waiting_notices.lock() -= 1;
        }
    }
}

/// Notifies a subscription's node, over a separate connection. Never waits: the kernel keeps the message. Returns whether the
/// process may read the topic; `None`: it is gone.
fn notify(own: &NodeShared, target: &Target, topic: &str, why: &Why) -> Result<Option<bool>, OsError> {
    let Some(directory) = own.directory() else { return Ok(None) };
    let socket = Socket::connect(&node_file::socket_path(&directory, &target.node)?)?;
    let Credentials { pid, uid, gid } = socket.credentials()?;
    if uid != target.uid {
        return Ok(None); // another user's node of the same name
    }
    let is_restricted = is_restricted(own, target, topic);
    let denied = match (why, is_restricted) {
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
        (_, Some(text)) => (text, None),
        (Why::NotRead(text), None) => (text.to_string(), None),
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
    match socket.send(&wire::encode(&denial), None)? {
        Sent::Done => Ok(Some(may_read)),
        Sent::HungUp => Ok(None),
        Sent::QueueFull | Sent::NoMemory => Err(OsError::new("send to a peer", Errno::NOBUFS)),
    }
}

/// Why a process may not read a topic, in words.
pub(crate) fn not_read_by(own: &NodeShared, target: &Target, topic: &str, whom: &str) -> String {
    let (own, node) = (&*own.id, &*target.node);
    let text = format!("topic {topic:?} of node {own:?} may not be read by {whom}");
    tracing::info!(node, inbox = target.inbox, text, "a subscription is denied a topic");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::send::dial;
    use crate::{Domain, Node};

    #[test]
    fn no_more_than_a_bounded_number_of_notices_wait_to_be_sent() {
        let domain = Domain::at(format!("/dev/shm/librpc_unit_notice_{}", std::process::id()));
        let open = |id: &str| Node::builder(id).domain(domain.clone()).open().expect("it opens");
        let (source, sink) = (open("source"), open("sink"));
        let _inbox = sink.inbox().expect("it has none");
        let own = source.shared();
        let target = dial::find(own, &"sink".into()).expect("it can be read").expect("it has an inbox");
        let waits = || wait(own, &target, &"t".into(), Why::NotRead("no".into()));
        *own.waiting_notices.lock() = MAX_WAITING;
        assert!(!waits());
        *own.waiting_notices.lock() = MAX_WAITING - 1;
        assert!(waits());
        let begun = Instant::now();
        while *own.waiting_notices.lock() != MAX_WAITING - 1 {
            assert!(begun.elapsed() < Duration::from_secs(60), "it is sent");
            std::thread::yield_now();
        }
    }
}
