//! A sender hands over a memory for payloads. It is the process at the other end of one of the inbox's connections, so it was
//! admitted when that was made.

use std::sync::Arc;

use crate::fault::fault;
use crate::link::segments::Segment;
use crate::node_shared::NodeShared;
use crate::rendezvous::hello::other_version;
use crate::rendezvous::step::{Next, Offered};
use crate::sys::OwnedFd;
use crate::sys::memory::{BadMemory, Mapping, Shape, page_size};
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::wire::{self, Answer, Lend, Reason, Versions};

/// A memory that is longer is not mapped page by page at once: that would hold up other handshakes.
const POPULATED: u64 = 64 << 20;

/// Looks at what is offered, and takes it where it has come along.
pub(super) fn look(
    node: &Arc<NodeShared>,
    socket: &Arc<Socket>,
    owner: Credentials,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> Next {
    let Lend { lowest, highest, target, inbox, connection, ring, segment, bytes } = match wire::decode(bytes) {
        Ok(lend) => lend,
        Err(error) => return Next::refuse(Reason::BadHandshake, error.to_string()),
    };
    if let Some(next) = other_version("the sender", Versions { lowest, highest }) {
        return next;
    }
    if target != *node.incarnation.bytes() {
        return Next::refuse(Reason::Restarted, "the node was opened again");
    }
    let Some(inbox) = node.inbox(inbox) else { return Next::refuse(Reason::NoInbox, "there is no such inbox") };
    let Some(table) = inbox.lent(connection, owner, ring) else {
        return Next::refuse(Reason::UnknownConnection, "this process has no such channel");
    };
    if bytes == 0 || !bytes.is_multiple_of(page_size() as u64) || bytes > isize::MAX as u64 {
        return Next::refuse(Reason::BadHandshake, "the memory does not consist of whole pages");
    }
    let Some(charge) = node.ledger.segment(owner.uid, bytes) else {
        let text = format!(
            "with {bytes} bytes more, what node {:?} maps of uid {} would exceed a limit (Limits::mapped_bytes_per_user, \
             channels_per_user)",
            node.id, owner.uid
        );
        return Next::Refuse(Reason::TooMuch, text);
    };
    let offered = Offered { table, segment, bytes, charge };
    match (node.is_private(), descriptors) {
        (true, [_]) => take(socket, offered, descriptors),
        // No descriptor is accepted before this.
        (false, []) => {
            socket.skip();
            socket.accept_descriptors(true);
            match socket.send(&wire::encode(&Answer::Ready), None) {
                Ok(Sent::Done) => Next::Memory(offered),
                _ => Next::HangUp,
            }
        }
        _ => Next::refuse(Reason::BadHandshake, "unexpected descriptors"),
    }
}

/// Checks and maps the memory, and says so.
pub(super) fn take(socket: &Arc<Socket>, offered: Offered, descriptors: &[OwnedFd]) -> Next {
    let [memory] = descriptors else { return Next::refuse(Reason::BadHandshake, "one memory was expected") };
    let mapping = match Mapping::receive(memory, Shape::Payloads { bytes: offered.bytes }) {
        Ok(mapping) => mapping,
        Err(BadMemory::Os(error)) => {
            tracing::warn!(%error, "a sender's memory for payloads is mapped later");
            return Next::MemoryAgain(offered);
        }
        Err(error) => return Next::refuse(Reason::BadHandshake, error.to_string()),
    };
    socket.skip();
    if !socket.shut_to_descriptors() {
        return Next::refuse(Reason::BadHandshake, "an unexpected message after the memory");
    }
    let Offered { table, segment, bytes, charge } = offered;
    if bytes <= POPULATED {
        mapping.populate();
    }
    fault!("lend.mapped");
    // It is known before the sender learns that it is.
    if let Err(why) = table.add(Segment::new(segment, mapping, socket.clone(), charge)) {
        return Next::refuse(Reason::TooMuch, why);
    }
    match socket.send(&wire::encode(&Answer::Lent), None) {
        Ok(Sent::Done) => Next::Attached,
        // The sender offers it again. It must see the hang-up, so nothing here may have the socket.
        _ => {
            table.forget(segment);
            Next::HangUp
        }
    }
}
