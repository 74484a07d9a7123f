//! The connections of an inbox: senders that come, ring, and go.
//!
//! A channel is taken in when its handshake is done, and released when it was read to its end. A connection with bells that no
//! honest sender rings is closed, with all its channels.

use crate::sys::clock::Instant;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::channel::InboundChannel;
use super::{Found, Receiver};
use crate::link::bell::{self, Bell, Heard};
use crate::link::inbox_shared::Arrival;
use crate::link::ledger::Charge;
use crate::link::segments::Segments;
use crate::receive::message::Departure;
use crate::receive::topic_names::Names;
use crate::receive::turned_away::Told;
use crate::stats::sampling::Stamps;
use crate::sys::socket::Socket;

/// How many channels are taken in at once.
const ARRIVALS_AT_ONCE: usize = 64;
/// A dying process hangs up before it releases its lock: microseconds before, or longer if the scheduler delays it. The
/// departure of its sender is in doubt for this long.
const DOUBT: Duration = Duration::from_millis(100);

/// A sending process.
pub(super) struct Connection {
    pub(super) socket: Arc<Socket>,
    rings: BTreeMap<u32, usize>,
    stray_bells: u32,
    _charge: Option<Charge>,
}

impl Receiver {
    /// Takes in every channel that has arrived. `true`: there was none, and nothing that was found is left.
    pub(crate) fn take_in_arrivals(&mut self) -> bool {
        let had_found = !self.found.is_empty();
        self.take_arrivals();
        self.announce_rest();
        !had_found && self.found.is_empty() && self.arrivals.is_empty()
    }

    /// Takes in new channels, and notices of denied topics.
    pub(super) fn take_arrivals(&mut self) {
        self.is_raised.set(false); // the signal is read, unless more have arrived
        self.arrivals.extend(self.shared.take_arrivals(ARRIVALS_AT_ONCE));
        self.found.extend(self.shared.take_denials().into_iter().map(Found::Denied));
        self.found.extend(self.shared.take_refused().into_iter().map(Found::Refused));
        self.take_in();
    }

    /// Takes in new channels. If the system cannot watch one more connection at the moment, that one waits, and so do
    /// all later ones, because they may belong to the same connection.
    pub(super) fn take_in(&mut self) {
        while let Some(arrival) = self.arrivals.pop_front() {
            if let Some(socket) = &arrival.socket
                && let Err(error) = self.poll.add(&**socket, arrival.connection)
            {
                tracing::warn!(%error, peer = &*arrival.peer.node, "a connection cannot be watched just now");
                return self.arrivals.push_front(arrival);
            }
            self.arrived(arrival);
        }
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Arrival { connection, ring, socket, peer, consumer, is_fenced, charge, guard, lent, ack } = arrival;
        let topics = Names::new(self.shared.address.clone(), self.shared.schemas.first().cloned(), charge.names());
        let mut charge = Some(charge);
        if let Some(socket) = socket {
            // The first ring is paid for as long as the connection lasts, whatever becomes of the ring.
            let _charge = charge.take();
            let connected = Connection { socket, rings: BTreeMap::new(), stray_bells: 0, _charge };
            self.connections.insert(connection, connected);
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() - 1
        });
        // A ring may arrive after the end of its connection. Then it is read to its end, and no sender is woken.
        let (socket, drain) = match self.connections.get_mut(&connection) {
            Some(found) => {
                found.rings.insert(ring, index);
                found.stray_bells = 0;
                (Some(found.socket.clone()), None)
            }
            None => (None, Some(consumer.capacity())),
        };
        tracing::debug!(peer = &*peer.node, pid = peer.pid, "a sender has joined");
        self.found.push_back(Found::Joined(peer.clone()));
        self.last_serial += 1;
        self.channels[index] = Some(InboundChannel {
            serial: self.last_serial,
            consumer,
            is_fenced,
            peer,
            topics,
            missed: 0,
            stamps: Stamps::default(),
            connection,
            ring,
            socket,
            active: false,
            idle_looks: 0,
            is_listed: false,
            unsettled: 0,
            bells: 0,
            told: Told::default(),
            drain,
            in_doubt_until: None,
            segments: Segments::new(lent),
            ack,
            _charge: charge,
            guard,
        });
        self.activate(index);
    }

    /// How the sender of a channel that was read to its end has left. `None`: it hung up without a word, and its node
    /// still seems to live. If the node is dying, that shows within moments.
    pub(super) fn departure(&mut self, index: usize) -> Option<Departure> {
        let channel = self.channels[index].as_mut().expect("a drained channel is there");
        if channel.consumer.is_closed() {
            return Some(Departure::Closed);
        }
        match self.shared.is_alive(&channel.peer) {
            Ok(false) => return Some(Departure::Died),
            Ok(true) => {}
            Err(error) => tracing::debug!(%error, peer = &*channel.peer.node, "whether a sender lives is not known"),
        }
        let now = Instant::now();
        (now >= *channel.in_doubt_until.get_or_insert(now + DOUBT)).then_some(Departure::Disconnected)
    }

    /// Reads a connection's bells.
    pub(super) fn bells(&mut self, number: u64, hung_up: bool) {
        let Some(socket) = self.connections.get(&number).map(|connection| connection.socket.clone()) else {
            return self.memory_retired(number);
        };
        let heard = bell::hear(&socket, hung_up, |bell| match bell {
            Bell::Ring(ring) => self.bell(number, ring),
            Bell::Reset(_) => false,
        });
        match heard {
            Heard::Bells => {}
            Heard::Many => {
                self.has_left_some = true; // perhaps
                let rings: Vec<usize> = self.connections[&number].rings.values().copied().collect();
                rings.into_iter().for_each(|index| self.activate(index));
            }
            Heard::HungUp => self.hung_up(number),
            Heard::Dishonest => {
                tracing::warn!("a sender rings without a reason, and is disconnected");
                self.hung_up(number);
            }
        }
    }

    /// A bell for a ring; `false` if no honest sender would have rung it.
    fn bell(&mut self, number: u64, ring: u32) -> bool {
        self.bells_heard += 1;
        let connection = self.connections.get_mut(&number).expect("the caller has looked it up");
        let Some(&index) = connection.rings.get(&ring) else {
            // It may be on its way: then it will be polled first.
            connection.stray_bells += 1;
            return connection.stray_bells < bell::STRAY;
        };
        self.activate(index);
        let channel = self.channels[index].as_mut().expect("a listed ring is there");
        channel.bells += 1;
        // One for each sleep, one when it was attached, and one when it is closed.
        channel.bells <= channel.consumer.epochs() + 2
    }

    /// A connection is gone: what its rings still hold is read to the end.
    fn hung_up(&mut self, number: u64) {
        let Some(connection) = self.connections.remove(&number) else { return };
        self.poll.remove(&*connection.socket);
        self.shared.forget(number);
        for index in connection.rings.into_values() {
            let channel = self.channels[index].as_mut().expect("a listed ring is there");
            channel.drain.get_or_insert(channel.consumer.capacity());
            channel.socket = None; // a peer that is disconnected learns it now, not when the ring was read
            self.activate(index);
        }
    }

    /// Ends the channel of this serial number, because its sender has written what no honest one would.
    pub(crate) fn expel(&mut self, serial: u64, why: String) {
        let is_it = |channel: &Option<InboundChannel>| channel.as_ref().is_some_and(|channel| channel.serial == serial);
        if let Some(index) = self.channels.iter().position(is_it) {
            self.doubtful.retain(|&doubtful| doubtful != index); // it may have hung up meanwhile
            let left = self.leave(index, Departure::Corrupt(why));
            self.found.push_back(left);
            self.announce_rest();
        }
    }

    /// Releases a channel, which is empty or corrupt.
    pub(super) fn leave(&mut self, index: usize, departure: Departure) -> Found {
        let channel = self.channels[index].take().expect("a leaving channel is there");
        self.unwatch_memories(&channel);
        self.vacant.push(index);
        self.active.retain(|&active| active != index);
        self.unconsumed.retain(|&unconsumed| unconsumed != index);
        // A ring that arrived after the end of its connection is not among those of a later one of the same number.
        if let Some(connection) = self.connections.get_mut(&channel.connection)
            && connection.rings.get(&channel.ring) == Some(&index)
        {
            connection.rings.remove(&channel.ring);
        }
        let peer = &*channel.peer.node;
        match &departure {
            Departure::Corrupt(why) => {
                tracing::warn!(peer, why, "a sender's ring is corrupt, and is closed");
                channel.ring_bell(Bell::Reset(channel.ring));
            }
            Departure::Mismatch(mismatch) => {
                tracing::warn!(%mismatch, "a sender of another type is closed");
                channel.ring_bell(Bell::Reset(channel.ring));
            }
            Departure::TooMuch(why) => {
                tracing::warn!(peer, why, "a sender's channel costs too much, and is closed");
                channel.ring_bell(Bell::Reset(channel.ring));
            }
            Departure::Died => tracing::info!(peer, pid = channel.peer.pid, "a sender has died"),
            departure => tracing::debug!(peer, ?departure, "a sender has left"),
        }
        Found::Left(Box::new((channel.peer, departure, channel.serial)))
    }
}
