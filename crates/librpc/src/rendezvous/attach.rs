//! The end of a sender's handshake: its memory is checked, answered with ours, and handed to the inbox as a channel.

use std::os::fd::AsFd;

use crate::sys::OwnedFd;
use crate::text::counted;
use std::sync::Arc;

use librpc_ring::Consumer;

use crate::fault::fault;
use crate::link::inbox_shared::Arrival;
use crate::link::ledger::Charge;
use crate::link::segments::SegmentTable;
use crate::node_shared::NodeShared;
use crate::rendezvous::hello;
use crate::rendezvous::step::{Next, Wanted};
use crate::stats::channels::ChannelRecord;
use crate::sys::memory::{Mapping, Shape};
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::wire::{self, Answer, Attached, Data, PROTOCOL, Reason, Terms};

/// A sender is admitted: its memory is attached, or it gets the terms that its memory must have.
pub(super) fn admitted(node: &NodeShared, socket: &Arc<Socket>, owner: Credentials, wanted: Wanted) -> Next {
    let Data { capacity, policy } = wanted.terms();
    let Some(charge) = node.ledger.channel(owner.uid, capacity) else {
        let text = format!("uid {} has as many channels as node {:?} allows", owner.uid, node.id);
        return Next::Refuse(Reason::TooMuch, text);
    };
    if wanted.has_memory() {
        return finish(socket, owner, wanted, charge);
    }
    let terms = Terms { version: PROTOCOL, features: wanted.features(), capacity, policy };
    socket.accept_descriptors(true);
    let sent = socket.send(&wire::encode(&Answer::Terms(terms)), None);
    fault!("accept.terms-sent");
    if matches!(sent, Ok(Sent::Done)) { Next::Data(wanted, charge) } else { Next::HangUp }
}

/// The message that was due after the terms, with the sender's memory.
pub(super) fn data(
    socket: &Arc<Socket>,
    owner: Credentials,
    mut wanted: Wanted,
    charge: Charge,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> Next {
    let data = wire::decode::<Data>(bytes);
    let (Ok(data), [memory]) = (data, descriptors) else {
        let text =
            counted(descriptors.len(), "descriptor", "descriptors") + ", instead of one memory with the agreed terms";
        return Next::Refuse(Reason::BadHandshake, text);
    };
    match hello::receive(&data, &wanted.terms(), memory) {
        Ok(memory) => wanted.memory = Some(memory),
        Err(Next::Again) => return Next::DataAgain(wanted, charge),
        Err(next) => return next,
    }
    socket.skip();
    finish(socket, owner, wanted, charge)
}

/// Answers, and hands the channel over. A sender that is gone has left its messages in the memory: they are read all the
/// same.
pub(super) fn finish(socket: &Arc<Socket>, owner: Credentials, wanted: Wanted, charge: Charge) -> Next {
    let Some(data) = wanted.memory.clone() else { return Next::HangUp };
    // What follows could carry descriptors, and its reader would have to close them. An honest sender waits.
    if !socket.shut_to_descriptors() {
        return Next::refuse(Reason::BadHandshake, "an unexpected message after the memory");
    }
    let (ack, memfd) = match Mapping::create(Shape::Ack) {
        Ok(made) => made,
        Err(error) => {
            tracing::warn!(%error, peer = &*wanted.peer.node, "a channel is attached later");
            return Next::AttachAgain(wanted, charge);
        }
    };
    fault!("accept.mapped");
    let ack = Arc::new(ack);
    let (capacity, policy) = (wanted.inbox.capacity, wanted.inbox.policy);
    let consumer = match Consumer::new(data.reader(), ack.writer(), capacity, policy.mode()) {
        Ok(consumer) => consumer,
        Err(corrupt) => return Next::refuse(Reason::BadHandshake, corrupt.to_string()),
    };
    let lent = Arc::new(SegmentTable::default());
    let Some(ring) = wanted.inbox.number_ring(wanted.connection, owner, &lent) else {
        return Next::refuse(Reason::NoInbox, "there is no such inbox any more");
    };
    let answer = Answer::Attached(Attached { ring, features: wanted.features() });
    let sent = socket.send(&wire::encode(&answer), Some(memfd.as_fd()));
    fault!("accept.attached");
    match sent {
        Ok(Sent::Done | Sent::HungUp) => {}
        Ok(Sent::QueueFull | Sent::NoMemory) => return Next::AttachAgain(wanted, charge),
        Err(error) if error.is_passing() => return Next::AttachAgain(wanted, charge),
        Err(_) => return Next::HangUp,
    }
    let Wanted { peer, inbox, connection, announced, is_fenced, .. } = wanted;
    let socket = announced.map(|announced| {
        announced.finish();
        socket.clone()
    });
    let record =
        ChannelRecord { peer: peer.clone(), inbox: inbox.number, ring, policy, capacity, data, ack: ack.clone() };
    let guard = inbox.channels.add(record);
    inbox.arrived(Arrival { connection, ring, socket, peer, consumer, is_fenced, charge, guard, lent, ack });
    Next::Attached
}
