//! A sender's hello: what it wants, and who it is.

use crate::sys::OwnedFd;
use std::sync::Arc;

use crate::link::inbox_shared::{InboxShared, NotAnnounced};
use crate::name::{Incarnation, Peer, check_node_id};
use crate::node_shared::NodeShared;
use crate::registry::node_file::{self, ReadError};
use crate::rendezvous::step::{Next, Wanted};
use crate::sys::memory::{BadMemory, Mapping, Shape};
use crate::sys::socket::{Credentials, Socket};
use crate::sys::{barrier, process};
use crate::wire::{self, Data, FENCED_BY_RECEIVER, Hello, PROTOCOL, Reason, Versions};

/// Whether a peer's versions are none of ours, and what is said then.
pub(super) fn other_version(who: &str, versions: Versions) -> Option<Next> {
    let Versions { lowest, highest } = versions;
    (!versions.include_ours()).then(|| {
        let text = format!("{who} speaks versions {lowest} to {highest} of the handshake, the node version {PROTOCOL}");
        Next::Refuse(Reason::Version, text)
    })
}

/// Looks at a hello and takes it out of the socket, with its memory. `Err`: it goes no further.
pub(super) fn look(
    node: &Arc<NodeShared>,
    socket: &Arc<Socket>,
    owner: Credentials,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> Result<Wanted, Next> {
    let bad = |why: &dyn std::fmt::Display| Next::refuse(Reason::BadHandshake, why.to_string());
    let versions: Versions = wire::decode(bytes).map_err(|error| bad(&error))?;
    if let Some(next) = other_version("the sender", versions) {
        return Err(next);
    }
    let hello: Hello = wire::decode(bytes).map_err(|error| bad(&error))?;
    // Where strangers may connect, nothing is taken from them before they are admitted.
    let expected = usize::from(hello.data.is_some());
    if descriptors.len() != expected || hello.data.is_some() && !node.is_private() {
        return Err(Next::refuse(Reason::BadHandshake, "unexpected descriptors"));
    }
    if hello.target != *node.incarnation.bytes() {
        return Err(Next::refuse(Reason::Restarted, "the node was opened again"));
    }
    let no_inbox = || Next::refuse(Reason::NoInbox, "there is no such inbox");
    let inbox = node.inbox(hello.inbox).ok_or_else(no_inbox)?;
    // What has come with a hello is delivered also if its sender is dead by now.
    let is_trusted = hello.data.is_some();
    let peer = Arc::new(identify(node, (&hello.node, hello.incarnation), owner, socket.peer_groups(), is_trusted)?);
    let memory = match (&hello.data, descriptors) {
        (Some(data), [memory]) => {
            let terms = Data { capacity: inbox.capacity, policy: inbox.policy.number() };
            Some(receive(data, &terms, memory)?)
        }
        _ => None,
    };
    socket.skip();
    let announced = match hello.opens {
        true => {
            let announced = InboxShared::announce(&inbox, hello.connection, owner, socket);
            Some(announced.map_err(|why| match why {
                NotAnnounced::Shut => no_inbox(),
                NotAnnounced::Taken => Next::refuse(Reason::BadHandshake, "the connection's number is taken"),
            })?)
        }
        false => None,
    };
    let is_fenced = hello.features & FENCED_BY_RECEIVER != 0 && barrier::is_available();
    Ok(Wanted { peer, inbox, connection: hello.connection, announced, is_fenced, memory, owner })
}

/// Checks a sender's memory, and maps it.
pub(super) fn receive(data: &Data, terms: &Data, memory: &OwnedFd) -> Result<Arc<Mapping>, Next> {
    if data != terms {
        return Err(Next::refuse(Reason::BadHandshake, "the memory does not have the inbox's terms"));
    }
    match Mapping::receive(memory, Shape::Data { capacity: terms.capacity }) {
        Ok(memory) => Ok(Arc::new(memory)),
        Err(BadMemory::Os(error)) => {
            tracing::warn!(%error, "a sender's memory is mapped later");
            Err(Next::Again)
        }
        Err(error) => Err(Next::refuse(Reason::BadHandshake, error.to_string())),
    }
}

/// Who a sender is. In a shared domain a node is the user that owns its file, and it lives. In a private domain the kernel
/// lets nobody in but the user, and a sender whose memory has come may be dead by now: its messages are delivered all the
/// same, so its word is taken for its name (`is_trusted`).
pub(super) fn identify(
    node: &NodeShared,
    (id, incarnation): (&str, [u8; 16]),
    owner: Credentials,
    groups: Vec<u32>,
    is_trusted: bool,
) -> Result<Peer, Next> {
    let Credentials { pid, uid, gid } = owner;
    let incarnation = Incarnation::from_bytes(incarnation);
    let directory = node.directory().ok_or_else(|| Next::refuse(Reason::NoInbox, "the node is closed"))?;
    check_node_id(id).map_err(|bad| Next::refuse(Reason::Identity, bad.to_string()))?;
    let peer = || Peer { node: id.into(), incarnation, pid, uid, gid, groups: groups.into() };
    if is_trusted && (uid == process::uid() || uid == 0) {
        return Ok(peer());
    }
    match node_file::read(&directory, id) {
        Ok(Some(file)) if file.alive && file.uid == uid && file.incarnation == incarnation => Ok(peer()),
        // A failure on our side, which may pass.
        Err(ReadError::Os(error)) => Err(Next::refuse(Reason::Busy, error.to_string())),
        // So may this: the domain was removed, and one of the two has not joined again yet.
        Ok(None) => Err(Next::refuse(Reason::Busy, format!("there is no node {id:?} here just now"))),
        _ => {
            let why = format!("there is no node {id:?} of uid {uid} with this incarnation");
            Err(Next::Refuse(Reason::Identity, why))
        }
    }
}
