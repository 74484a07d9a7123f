//! An inbox as the background thread and other threads see it: where finished channels wait until the inbox takes them.

use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, AtomicU8, Ordering, compiler_fence, fence};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Waker;

use librpc_ring::Consumer;

use crate::link::ledger::Charge;
use crate::link::segments::{SegmentTable, Tables};
use crate::name::{Address, Incarnation, Peer};
use crate::policy::Policy;
use crate::registry;
use crate::registry::node_file::{self, ReadError};
use crate::schema::Schema;
use crate::stats::channels::{ChannelGuard, ChannelTable};
use crate::stats::ended::EndedTable;
use crate::stats::{Denial, Refused};
use crate::sys::memory::{Mapping, Reader, Writer};
use crate::sys::poll::Signal;
use crate::sys::socket::{Credentials, Socket};
use crate::sys::{Descriptor, OsError, barrier};

/// Its owner has ended every receive.
const STOPPED: u8 = 1;
/// The node was closed.
const CLOSED: u8 = 2;
/// Something has changed that its owner is to look at.
const NUDGED: u8 = 4;

/// How many denials an inbox remembers.
const DENIALS: usize = 8;
/// How many refusals wait for its owner.
const REFUSED: usize = 8;

/// A node that may connect: its id, its incarnation, its user.
pub(crate) type Invited = (Arc<str>, Incarnation, u32);

/// A channel that has just been connected.
pub(crate) struct Arrival {
    /// The connection's number, and the ring's on it.
    pub(crate) connection: u64,
    pub(crate) ring: u32,
    /// The first ring of a connection brings its socket.
    pub(crate) socket: Option<Arc<Socket>>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) consumer: Consumer<Reader, Writer>,
    /// Its sender has no fence of its own.
    pub(crate) is_fenced: bool,
    pub(crate) charge: Charge,
    pub(crate) guard: ChannelGuard,
    /// What its sender has lent.
    pub(crate) lent: Arc<SegmentTable>,
    /// The receiver's memory, which has its hold words.
    pub(crate) ack: Arc<Mapping>,
}

/// What an inbox is to be.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) capacity: u64,
    /// The longest message that it takes, in bytes.
    pub(crate) max_message: u64,
    pub(crate) policy: Policy,
    /// Whether it wants what its own node publishes, too.
    pub(crate) receive_own: bool,
    /// The name under which a subscription may be taken up again.
    pub(crate) durable: Option<String>,
    pub(crate) history: usize,
    pub(crate) schemas: Arc<[Schema]>,
    /// Only senders that its owner has invited may connect.
    pub(crate) by_invitation: bool,
}

/// The part of an inbox that other threads reach.
pub(crate) struct InboxShared {
    pub(crate) number: u32,
    pub(crate) address: Address,
    pub(crate) capacity: u64,
    /// The longest message that it takes, in bytes.
    pub(crate) max_message: u64,
    pub(crate) policy: Policy,
    /// Whether it wants what its own node publishes, too.
    pub(crate) receive_own: bool,
    /// The name under which a subscription may be taken up again.
    pub(crate) durable: Option<String>,
    /// How many of the messages that a publisher keeps of each topic it wants, at most.
    pub(crate) history: usize,
    /// What its messages must be; for a service, its requests and its replies. Empty: anything.
    pub(crate) schemas: Arc<[Schema]>,
    /// Wakes the inbox: something has arrived, or it is to stop.
    pub(crate) signal: Signal,
    /// Its channels, as its statistics see them.
    pub(crate) channels: Arc<ChannelTable>,
    directory: Arc<Descriptor>,
    /// Its server hands out no more requests, but still hears what is said of those that it has handed out.
    is_winding_down: AtomicBool,
    /// Bits: [`STOPPED`], [`CLOSED`], and [`NUDGED`], which ends nothing, but has to be looked at as often.
    ended: AtomicU8,
    /// [`InboxShared::is_announcing`].
    is_announcing: AtomicBool,
    /// Wait sets, which are woken when the descriptor ceases to announce all that comes.
    onlookers: Mutex<Vec<Waker>>,
    /// The kernel cannot have a barrier in this process's threads, so each message has a fence.
    pub(crate) has_own_fence: bool,
    /// Who may connect; `None`: whom the node admits.
    invited: Option<Mutex<BTreeSet<Invited>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The inbox takes nothing more.
    shut: bool,
    arrivals: VecDeque<Arrival>,
    connections: BTreeMap<u64, Connection>,
    denials: Denials,
    /// Who was refused by the node, and its owner does not know.
    refused: Vec<Arc<Refused>>,
}

/// The topics that an inbox was denied last, with serial numbers, in order.
#[derive(Default)]
struct Denials {
    list: VecDeque<(u64, Arc<Denial>)>,
    last: u64,
    /// Up to which one its owner knows them.
    taken: u64,
}

struct Connection {
    owner: Credentials,
    next_ring: u32,
    /// `None` until its first channel has arrived.
    socket: Option<Arc<Socket>>,
    /// The socket of the handshake that opens it.
    opening: Weak<Socket>,
    /// Channels that have arrived before the first one.
    waiting: Vec<Arrival>,
    /// What its channels' senders have lent, by ring.
    lent: Tables,
}

/// A connection whose opening handshake is under way. Dropped before that is done, the channels that have waited for it
/// are handed over without it: they are read to the end.
pub(crate) struct Announced {
    inbox: Arc<InboxShared>,
    connection: Option<u64>,
}

impl Announced {
    /// Its first channel arrives.
    pub(crate) fn finish(mut self) {
        self.connection = None;
    }
}

/// An inbox waits for its connections by their numbers, and under this one for its own signal.
pub(crate) const SIGNAL: u64 = 0;

/// Why a connection is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnnounced {
    /// The inbox takes nothing more.
    Shut,
    /// There is one of this number already, or it is [`SIGNAL`].
    Taken,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Some(connection) = self.connection else { return };
        let Some(gone) = self.inbox.state().connections.remove(&connection) else { return };
        gone.waiting.into_iter().for_each(|arrival| self.inbox.arrived(arrival));
    }
}

impl Connection {
    fn is_of(&self, owner: Credentials) -> bool {
        (self.owner.pid, self.owner.uid) == (owner.pid, owner.uid)
    }
}

impl std::fmt::Debug for InboxShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("number", &self.number).field("address", &self.address).finish()
    }
}

impl InboxShared {
    pub(crate) fn new(
        number: u32,
        settings: Settings,
        directory: Arc<Descriptor>,
        ended: Arc<EndedTable>,
    ) -> Result<Arc<Self>, OsError> {
        let Settings { address, capacity, max_message, policy, receive_own, durable, history, schemas, by_invitation } =
            settings;
        Ok(Arc::new(Self {
            number,
            channels: ChannelTable::new(address.clone(), ended),
            address,
            capacity,
            max_message,
            policy,
            receive_own,
            durable,
            history,
            schemas,
            signal: Signal::new()?,
            directory,
            is_winding_down: AtomicBool::new(false),
            ended: AtomicU8::new(0),
            is_announcing: AtomicBool::new(false),
            onlookers: Mutex::default(),
            has_own_fence: !barrier::is_registered(),
            invited: by_invitation.then(Mutex::default),
            state: Mutex::default(),
        }))
    }

    /// Whether a peer's node lives. What a dead one has left is swept.
    pub(crate) fn is_alive(&self, peer: &Peer) -> Result<bool, ReadError> {
        let life =
            node_file::read_life(&self.directory, &peer.node)?.filter(|life| life.incarnation == peer.incarnation);
        if life.is_some_and(|life| life.alive) {
            return Ok(true);
        }
        if life.is_some()
            && let Err(error) = registry::sweep(&self.directory, &peer.node)
        {
            tracing::debug!(%error, node = &*peer.node, "a dead node could not be swept");
        }
        Ok(false)
    }

    fn state(&self) -> crate::sys::sync::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Knows a connection whose opening handshake is under way.
    pub(crate) fn announce(
        inbox: &Arc<Self>,
        connection: u64,
        owner: Credentials,
        socket: &Arc<Socket>,
    ) -> Result<Announced, NotAnnounced> {
        let mut state = inbox.state();
        if state.shut {
            return Err(NotAnnounced::Shut);
        }
        if connection == SIGNAL || state.connections.contains_key(&connection) {
            return Err(NotAnnounced::Taken);
        }
        let opening = Arc::downgrade(socket);
        let announced =
            Connection { owner, next_ring: 0, socket: None, opening, waiting: Vec::new(), lent: Tables::new() };
        state.connections.insert(connection, announced);
        Ok(Announced { inbox: inbox.clone(), connection: Some(connection) })
    }

    /// Whether there is a connection of this number, of this process.
    pub(crate) fn knows(&self, connection: u64, owner: Credentials) -> bool {
        self.state().connections.get(&connection).is_some_and(|found| found.is_of(owner))
    }

    /// Numbers a new ring on its connection, and knows its table from now on. One whose connection is gone needs no number.
    /// `None`: the inbox takes nothing more.
    pub(crate) fn number_ring(&self, connection: u64, owner: Credentials, table: &Arc<SegmentTable>) -> Option<u32> {
        let mut state = self.state();
        if state.shut {
            return None;
        }
        let Some(found) = state.connections.get_mut(&connection).filter(|found| found.is_of(owner)) else {
            return Some(0);
        };
        let ring = found.next_ring;
        found.next_ring = ring.checked_add(1)?;
        found.lent.retain(|_, other| other.strong_count() > 0);
        found.lent.insert(ring, Arc::downgrade(table));
        Some(ring)
    }

    /// What the sender of this channel has lent; `None`: it has no such channel.
    pub(crate) fn lent(&self, connection: u64, owner: Credentials, ring: u32) -> Option<Arc<SegmentTable>> {
        let state = self.state();
        let found = state.connections.get(&connection).filter(|found| found.is_of(owner))?;
        found.lent.get(&ring)?.upgrade()
    }

    /// A connection is gone: no further ring may be added to it.
    pub(crate) fn forget(&self, connection: u64) {
        self.state().connections.remove(&connection);
    }

    /// Hands a channel to the inbox, and wakes it.
    pub(crate) fn arrived(&self, arrival: Arrival) {
        let mut state = self.state();
        if state.shut {
            drop(state);
            return drop(arrival); // its sender sees the hang-up
        }
        let mut waiting = Vec::new();
        if let Some(found) = state.connections.get_mut(&arrival.connection) {
            match &arrival.socket {
                Some(socket) => {
                    found.socket = Some(socket.clone());
                    waiting = std::mem::take(&mut found.waiting);
                }
                None if found.socket.is_none() => return found.waiting.push(arrival),
                None => {}
            }
        }
        state.arrivals.push_back(arrival);
        state.arrivals.extend(waiting);
        drop(state);
        self.signal.raise();
    }

    /// Takes nothing more, and hangs up on every sender, also on those that the inbox has not seen yet.
    pub(crate) fn shut(&self) {
        let mut state = self.state();
        state.shut = true;
        let (arrivals, connections) = (std::mem::take(&mut state.arrivals), std::mem::take(&mut state.connections));
        drop(state);
        for connection in connections.values() {
            let opening = || connection.opening.upgrade();
            if let Some(socket) = connection.socket.clone().or_else(opening) {
                socket.hang_up();
            }
        }
        drop(connections);
        drop(arrivals);
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_shut(&self) -> bool {
        self.state().shut
    }

    /// Takes what has arrived, in order, at most this many. While there are more, the inbox stays awake.
    pub(crate) fn take_arrivals(&self, most: usize) -> Vec<Arrival> {
        let mut state = self.state();
        if state.arrivals.len() <= most {
            self.signal.clear();
        }
        let most = most.min(state.arrivals.len());
        state.arrivals.drain(..most).collect()
    }

    /// A topic may not be read: its owner is to know. An older denial of the same topic by the same node is forgotten, and so
    /// is the oldest one where there are too many.
    pub(crate) fn denied(&self, denial: Arc<Denial>) {
        let mut state = self.state();
        if state.shut {
            return;
        }
        let denials = &mut state.denials;
        denials.list.retain(|(_, old)| (&old.by, old.uid, &old.topic) != (&denial.by, denial.uid, &denial.topic));
        if denials.list.len() == DENIALS {
            denials.list.pop_front();
        }
        denials.last += 1;
        denials.list.push_back((denials.last, denial));
        drop(state);
        self.signal.raise();
    }

    /// The node has refused somebody: its owner is to know.
    pub(crate) fn refused(&self, refused: Arc<Refused>) {
        let mut state = self.state();
        if state.shut {
            return;
        }
        state.refused.retain(|old| (old.uid, old.reason) != (refused.uid, refused.reason));
        if state.refused.len() < REFUSED {
            state.refused.push(refused);
        }
        drop(state);
        self.signal.raise();
    }

    /// Takes what the owner does not know of those who were refused.
    pub(crate) fn take_refused(&self) -> Vec<Arc<Refused>> {
        std::mem::take(&mut self.state().refused)
    }

    /// Takes the denials that were not taken yet. They stay in the list.
    pub(crate) fn take_denials(&self) -> Vec<Arc<Denial>> {
        let mut state = self.state();
        let Denials { list, last, taken } = &mut state.denials;
        let before = std::mem::replace(taken, *last);
        list.iter().filter(|(serial, _)| *serial > before).map(|(_, denial)| denial.clone()).collect()
    }

    /// The denials after this serial number.
    pub(crate) fn denials_after(&self, serial: u64) -> Vec<(u64, Arc<Denial>)> {
        self.state().denials.list.iter().filter(|(other, _)| *other > serial).cloned().collect()
    }

    /// Ends every receive, now and later.
    pub(crate) fn stop(&self) {
        // Release/Acquire only so that the receiver sees what the other thread wrote before it stopped it.
        self.ended.fetch_or(STOPPED, Ordering::Release);
        self.signal.raise();
    }

    /// Ends every receive of requests, now and later.
    pub(crate) fn wind_down(&self) {
        // Release/Acquire only so that the server sees what the other thread wrote before it stopped it.
        self.is_winding_down.store(true, Ordering::Release);
        self.nudge();
    }

    /// Whether no more requests are to be handed out.
    pub(crate) fn is_winding_down(&self) -> bool {
        self.is_winding_down.load(Ordering::Acquire)
    }

    /// Has its owner look at something: its receive returns.
    pub(crate) fn nudge(&self) {
        // Release: pairs with the Acquire in `take_nudge`; its owner sees what has changed.
        self.ended.fetch_or(NUDGED, Ordering::Release);
        self.signal.raise();
    }

    /// Whether it was nudged since the last call, and has not ended.
    pub(crate) fn take_nudge(&self) -> bool {
        let before = self.ended.load(Ordering::Acquire);
        before == NUDGED && self.ended.fetch_and(!NUDGED, Ordering::Acquire) == NUDGED
    }

    /// Whether it was stopped or closed.
    pub(crate) fn has_stopped(&self) -> bool {
        self.ended.load(Ordering::Acquire) & (STOPPED | CLOSED) != 0
    }

    /// Lets a node connect.
    pub(crate) fn invite(&self, node: Invited) {
        if let Some(invited) = &self.invited {
            invited.lock().insert(node);
        }
    }

    /// No longer lets a node connect.
    pub(crate) fn disinvite(&self, node: &Invited) {
        if let Some(invited) = &self.invited {
            invited.lock().remove(node);
        }
    }

    /// Whether a node was invited; `None`: the inbox asks for no invitation.
    pub(crate) fn has_invited(&self, peer: &Peer) -> Option<bool> {
        let invited = self.invited.as_ref()?;
        Some(invited.lock().contains(&(peer.node.clone(), peer.incarnation, peer.uid)))
    }

    /// Whether the descriptor announces all that comes: the last receive was for an event loop, and has found nothing.
    pub(crate) fn is_announcing(&self) -> bool {
        // SeqCst: a wait set first notes that it is to be woken. It sees that this has ended, or `set_announcing` sees that note.
        self.is_announcing.load(Ordering::SeqCst)
    }

    /// Called by the inbox's owner.
    pub(crate) fn set_announcing(&self, is_announcing: bool) {
        // Relaxed: only the owner changes it.
        if self.is_announcing.load(Ordering::Relaxed) != is_announcing {
            // SeqCst: pairs with the load in `is_announcing`.
            self.is_announcing.store(is_announcing, Ordering::SeqCst);
            if !is_announcing {
                self.onlookers.lock().iter().for_each(Waker::wake_by_ref); // no code of the user's
            }
        }
    }

    /// Has a wait set woken when something was taken, and there may be more.
    pub(crate) fn add_onlooker(&self, waker: Waker) {
        self.onlookers.lock().push(waker);
    }

    pub(crate) fn remove_onlooker(&self, waker: &Waker) {
        self.onlookers.lock().retain(|other| !other.will_wake(waker));
    }

    /// Whether it was stopped or closed, or nudged: [`InboxShared::take_nudge`] says which.
    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    /// The node was closed under the inbox. No message that is taken after the hang-up is handed out, so each that was is
    /// seen as taken by a sender that takes over.
    pub(crate) fn close(&self) {
        self.ended.fetch_or(CLOSED, Ordering::Release);
        // Pairs with the fence in `has_ended_meanwhile`: the end is seen there, or `taken` is stored before the hang-up.
        barrier::in_own_threads();
        self.shut();
        self.signal.raise();
    }

    /// After a message was taken, and before it is handed out: whether the inbox was stopped or closed meanwhile. If it was
    /// closed, its sender may have taken over already, without having seen that the message was taken.
    pub(crate) fn has_ended_meanwhile(&self) -> bool {
        // Pairs with the barrier in `close`.
        if self.has_own_fence {
            fence(Ordering::SeqCst);
        }
        self.has_ended_in_run()
    }

    /// The same, unless each message [has a fence of its own](InboxShared::has_own_fence).
    #[inline(always)]
    pub(crate) fn has_ended_in_run(&self) -> bool {
        // The barrier in `close` makes up for the rest.
        compiler_fence(Ordering::SeqCst);
        self.has_ended()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Acquire) & CLOSED != 0
    }
}
