//! How an inbox finds its next message: it polls the rings that have traffic, and sleeps on the bells of all others.
//!
//! A channel is *active* (polled) or *armed* (it will be rung for). Invariant: a channel that is not active is armed, and
//! its ring was empty in a look after its epoch was stored; so nothing is in it that no bell announces. The work follows
//! the number of active channels, and an inbox without any does nothing at all.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use librpc_ring::{Armed, Consumer, Head, Record};

use crate::admission::Charge;
use crate::arrivals::{Arrival, InboxShared};
use crate::bell::{self, Bell, Heard};
use crate::fault::fault;
use crate::name::Peer;
use crate::names::Names;
use crate::roll::Entry;
use crate::sample::Stamps;
use crate::sys::OsError;
use crate::sys::memory::{Reader, Writer};
use crate::sys::poll::{Poll, Ready};
use crate::sys::socket::Socket;

/// While it polls, an inbox looks at its bells this often, so that armed channels do not starve.
const LOOK_EVERY: Duration = Duration::from_micros(30);
/// How long an adaptive inbox polls before it sleeps: about what sleeping and waking costs.
const SPIN: Duration = Duration::from_micros(50);
/// So many looks without a message, and a channel is armed although others have traffic.
const IDLE_LOOKS: u32 = 8;
/// So many messages from one channel, then it is the next one's turn.
const QUANTUM: u32 = 64;
/// So many messages are consumed before the next look, with a fence, for a sender that waits.
const SETTLE_EVERY: u32 = 64;
/// So many messages in a row are a burst: behind one, polling pauses for a moment, so that the next one can form.
const BURST: u32 = 16;
const PAUSES: u32 = 32;
/// So many polls or messages between two looks at the clock.
const POLLS_PER_CLOCK: u32 = 32;
/// So many rounds of arming and looking, and a call that must not block returns.
const ROUNDS: u32 = 16;
/// The connections' numbers are random; this one is the inbox's own signal.
const SIGNAL: u64 = 0;

/// How an inbox waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Polls for about 50 µs, then sleeps until a message comes: 0 % CPU when idle.
    #[default]
    Adaptive,
    /// Polls without end: the lowest latency, for the price of a core.
    Spin,
    /// Sleeps at once: the least CPU.
    Block,
}

/// How long one call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Now,
    Deadline(Instant),
    Forever,
}

/// Why a sender's channel has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// It has closed its sender; everything that it sent was received.
    Closed,
    /// Its process died; everything that it had committed was received.
    Died,
    /// It has closed the connection, but its node lives.
    Disconnected,
    /// What it wrote cannot be; nothing behind that was received.
    Corrupt(String),
}

/// What a receiver finds next.
#[derive(Debug)]
pub(crate) enum Found {
    Message(Taken),
    Joined(Arc<Peer>),
    Left(Arc<Peer>, Departure),
}

/// A message that was handed out; its payload is in the receiver's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) channel: usize,
    pub(crate) sequence: u64,
    pub(crate) head: Head,
    pub(crate) missed: u64,
}

struct Channel {
    consumer: Consumer<Reader, Writer>,
    peer: Arc<Peer>,
    /// What the sender has declared its topics' numbers to mean.
    topics: Names,
    /// Messages that were overwritten in front of the next one.
    missed: u64,
    stamps: Stamps,
    connection: u64,
    ring: u32,
    socket: Option<Arc<Socket>>,
    active: bool,
    /// Looks since the last message.
    idle_looks: u32,
    /// Messages consumed since the last look that misses no waiting sender.
    unsettled: u32,
    bells: u64,
    /// Nothing more will come: it is read until it is empty, at most this many bytes. A hostile ring never ends.
    drain: Option<u64>,
    _charge: Option<Charge>,
    entry: Entry,
}

impl Channel {
    /// Rings for a sender that waits for what was consumed since the last time.
    fn settle(&mut self) {
        if self.unsettled > 0 {
            self.unsettled = 0;
            if self.consumer.must_ring() {
                self.ring_bell(Bell::Ring(self.ring));
            }
        }
    }

    fn ring_bell(&self, bell: Bell) {
        if let Some(socket) = &self.socket {
            bell.ring(socket);
        }
    }
}

struct Connection {
    socket: Arc<Socket>,
    rings: HashMap<u32, usize>,
    stray_bells: u32,
    _charge: Option<Charge>,
}

/// The channels of an inbox, polled by its owner.
pub(crate) struct Receiver {
    shared: Arc<InboxShared>,
    poll: Poll,
    wait: Wait,
    connections: HashMap<u64, Connection>,
    channels: Vec<Option<Channel>>,
    vacant: Vec<usize>,
    active: Vec<usize>,
    cursor: usize,
    quantum: u32,
    polls: u32,
    /// Messages in a row, without an empty poll between them.
    burst: u32,
    last_look: Instant,
    found: VecDeque<Found>,
    /// Whether another event loop waits for the descriptor.
    foreign: Cell<bool>,
    /// Channels from which something was taken that is not consumed.
    unconsumed: Vec<usize>,
    pub(crate) payload: Vec<u8>,
    ready: Vec<Ready>,
}

impl Receiver {
    pub(crate) fn new(shared: Arc<InboxShared>, wait: Wait) -> Result<Self, OsError> {
        let poll = Poll::new()?;
        poll.add(&shared.signal, SIGNAL)?;
        Ok(Self {
            shared,
            poll,
            wait,
            connections: HashMap::new(),
            channels: Vec::new(),
            vacant: Vec::new(),
            active: Vec::new(),
            cursor: 0,
            quantum: QUANTUM,
            polls: 0,
            burst: 0,
            last_look: Instant::now(),
            found: VecDeque::new(),
            foreign: Cell::new(false),
            unconsumed: Vec::new(),
            payload: Vec::new(),
            ready: Vec::new(),
        })
    }

    /// The sender of a message that was taken last.
    pub(crate) fn peer(&self, taken: &Taken) -> &Arc<Peer> {
        &self.channels[taken.channel].as_ref().expect("a channel stays until the next look").peer
    }

    /// The topic of a message that was taken last; empty if it has none.
    pub(crate) fn topic(&self, taken: &Taken) -> &Arc<str> {
        let channel = self.channels[taken.channel].as_ref().expect("a channel stays until the next look");
        channel.topics.of(&taken.head)
    }

    /// Waits for what comes next; `None` when the time is up, or the inbox was stopped or closed.
    pub(crate) fn next(&mut self, until: Until) -> Result<Option<Found>, OsError> {
        let (mut spun_out, mut rounds) = (None, 0);
        loop {
            if self.shared.is_stopped() || self.shared.is_closed() {
                self.settle();
                self.shared.signal.clear(); // another event loop does not spin on it
                return Ok(None);
            }
            if let Some(found) = self.poll_rings() {
                return Ok(Some(found));
            }
            if self.burst > 0 {
                self.settle();
                if std::mem::take(&mut self.burst) >= BURST && until != Until::Now {
                    (0..PAUSES).for_each(|_| std::hint::spin_loop());
                }
            }
            if until == Until::Now && self.foreign.get() {
                // The caller will wait for the descriptor: everything is armed, and the signal is drained. A sender that
                // rings for nothing holds nobody here: then the descriptor stays readable.
                rounds += 1;
                if rounds > ROUNDS {
                    self.shared.signal.raise();
                    return Ok(None);
                }
                if self.arm_all() {
                    self.look(Some(self.last_look))?;
                    if self.active.is_empty() && self.found.is_empty() {
                        return Ok(None);
                    }
                }
                continue;
            }
            if until == Until::Now {
                // Nobody may call again soon: a look that is due is taken now.
                if self.last_look.elapsed() < LOOK_EVERY {
                    return Ok(None);
                }
                self.look(Some(self.last_look))?;
                return Ok(self.poll_rings());
            }
            let polling = self.wait == Wait::Spin || self.wait == Wait::Adaptive && !self.active.is_empty();
            if polling {
                std::hint::spin_loop();
                self.polls += 1;
                if self.polls < POLLS_PER_CLOCK {
                    continue;
                }
                self.polls = 0;
            }
            let now = Instant::now();
            if matches!(until, Until::Deadline(deadline) if now >= deadline) {
                self.look(Some(now))?;
                return Ok(self.poll_rings());
            }
            let spun_out = *spun_out.get_or_insert(now + SPIN);
            if polling && (self.wait == Wait::Spin || now < spun_out) {
                if now - self.last_look >= LOOK_EVERY {
                    self.look(Some(now))?;
                }
            } else if self.arm_all() {
                fault!("arm.armed");
                self.look(match until {
                    Until::Deadline(deadline) => Some(deadline),
                    _ => None,
                })?;
                fault!("wake.woken");
            }
        }
    }

    /// Takes the next record of the rings that have traffic, or an event.
    #[inline]
    fn poll_rings(&mut self) -> Option<Found> {
        if !self.found.is_empty() {
            return self.found.pop_front(); // a sender joins before it says anything
        }
        // Two more than there are: once round the end, and back to a channel whose turn is over if the others have nothing.
        for _ in 0..self.active.len() + 2 {
            let Some(&index) = self.active.get(self.cursor) else {
                self.cursor = 0;
                self.quantum = QUANTUM;
                continue;
            };
            if self.quantum > 0
                && let Some(found) = self.poll_ring(index)
            {
                return Some(found);
            }
            self.cursor += 1;
            self.quantum = QUANTUM;
        }
        None
    }

    /// Takes the next message of a ring, and learns the topics that are declared in front of it.
    #[inline]
    fn poll_ring(&mut self, index: usize) -> Option<Found> {
        loop {
            let channel = self.channels[index].as_mut().expect("an active channel is there");
            if channel.drain == Some(0) {
                return Some(self.leave(index, None));
            }
            let had_unconsumed = channel.consumer.has_unconsumed();
            self.payload.clear();
            let record = match channel.consumer.pop(&mut self.payload) {
                Ok(Some(record)) => record,
                Ok(None) if channel.drain.is_some() => return Some(self.leave(index, None)),
                Ok(None) => return None,
                Err(corrupt) => return Some(self.leave(index, Some(Departure::Corrupt(corrupt.to_string())))),
            };
            if !had_unconsumed {
                self.unconsumed.push(index);
            }
            if let Some(left) = &mut channel.drain {
                *left = left.saturating_sub(record.head.record_bytes(record.payload_bytes));
            }
            channel.missed += record.missed;
            if channel.topics.is_expected(&self.shared.address, &record.head) {
                fault!("consume.taken");
                return Some(Found::Message(self.taken(index, &record)));
            }
            if let Err(why) = channel.topics.learn(&self.shared.address, &record.head, &self.payload) {
                return Some(self.leave(index, Some(Departure::Corrupt(why))));
            }
            channel.entry.declared(&self.payload);
            // Learnt is processed, unless a message in front of it is not.
            if !had_unconsumed {
                channel.consumer.consume();
                self.unconsumed.pop();
            }
            self.quantum -= 1;
            if self.quantum == 0 {
                return None;
            }
        }
    }

    #[inline]
    fn taken(&mut self, index: usize, record: &Record) -> Taken {
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        channel.idle_looks = 0;
        let missed = std::mem::take(&mut channel.missed);
        channel.stamps.taken(record.head.time);
        self.quantum -= 1;
        self.burst = self.burst.saturating_add(1);
        self.polls += 1;
        if self.polls >= POLLS_PER_CLOCK {
            self.polls = 0;
            self.look_if_due();
        }
        Taken { channel: index, sequence: record.sequence, head: record.head, missed }
    }

    /// A look at the bells of other channels while this one is busy.
    fn look_if_due(&mut self) {
        let now = Instant::now();
        if now - self.last_look >= LOOK_EVERY
            && let Err(error) = self.look(Some(now))
        {
            tracing::warn!(%error, "an inbox cannot look at its bells");
        }
    }

    /// Everything that was taken is processed, and every sender that waits for it is rung for. `lazily`: one that goes to
    /// sleep at this very moment may be missed until [`Receiver::settle`], and a fence for each message is saved.
    #[inline]
    pub(crate) fn consume(&mut self, lazily: bool) {
        while let Some(index) = self.unconsumed.pop() {
            let Some(channel) = &mut self.channels[index] else { continue };
            channel.stamps.processed(&mut channel.consumer);
            channel.consumer.consume();
            fault!("consume.consumed");
            channel.unsettled += 1;
            if channel.consumer.sees_waiting() {
                channel.ring_bell(Bell::Ring(channel.ring));
            } else if !lazily || channel.unsettled >= SETTLE_EVERY {
                channel.settle();
            }
        }
    }

    /// Finds the waiting senders that were missed.
    fn settle(&mut self) {
        for &index in &self.active {
            self.channels[index].as_mut().expect("an active channel is there").settle();
        }
    }

    /// Has every active channel announce sleep; `true` if all of them may.
    fn arm_all(&mut self) -> bool {
        let mut at = 0;
        while at < self.active.len() {
            if !self.arm(at) {
                at += 1;
            }
        }
        self.active.is_empty() && self.found.is_empty()
    }

    /// Has an active channel announce sleep; `false` if it stays active, for there is something in it.
    fn arm(&mut self, at: usize) -> bool {
        let index = self.active[at];
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        if channel.drain.is_some() {
            return false;
        }
        channel.settle();
        match channel.consumer.arm() {
            Armed::Sleep => {
                channel.active = false;
                self.active.swap_remove(at);
                true
            }
            Armed::Awake => {
                channel.consumer.disarm();
                if channel.consumer.is_closed() {
                    channel.drain = Some(channel.consumer.capacity());
                }
                false
            }
        }
    }

    /// Looks at the bells and the arrivals, and waits for them until the given time (`None`: without limit).
    fn look(&mut self, until: Option<Instant>) -> Result<(), OsError> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.wait(until, &mut ready)?;
        for event in &ready {
            match event.token {
                SIGNAL => {
                    for arrival in self.shared.take_arrivals() {
                        self.arrived(arrival);
                    }
                }
                connection => self.bells(connection, event.hung_up),
            }
        }
        self.ready = ready;
        self.last_look = Instant::now();
        let mut at = 0;
        while at < self.active.len() {
            let channel = self.channels[self.active[at]].as_mut().expect("an active channel is there");
            channel.idle_looks += 1;
            if channel.idle_looks < IDLE_LOOKS || !self.arm(at) {
                at += 1;
            }
        }
        Ok(())
    }

    /// Takes a new channel in.
    fn arrived(&mut self, arrival: Arrival) {
        let Arrival { connection, ring, socket, peer, consumer, charge, entry } = arrival;
        let mut charge = Some(charge);
        if let Some(socket) = socket {
            if let Err(error) = self.poll.add(&*socket, connection) {
                tracing::warn!(%error, peer = &*peer.node, "a connection cannot be watched, and is closed");
                return self.shared.forget(connection);
            }
            // The first ring is paid for as long as the connection lasts, whatever becomes of the ring.
            let _charge = charge.take();
            let connected = Connection { socket, rings: HashMap::new(), stray_bells: 0, _charge };
            self.connections.insert(connection, connected);
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() - 1
        });
        // A ring may arrive behind its connection's end: then it is read to its end, and there is nobody to ring for.
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
        let (topics, active, idle_looks, unsettled, bells, _charge) = (Names::default(), false, 0, 0, 0, charge);
        let stamps = Stamps::default();
        let channel = Channel {
            consumer,
            peer,
            topics,
            missed: 0,
            stamps,
            connection,
            ring,
            socket,
            active,
            idle_looks,
            unsettled,
            bells,
            drain,
            _charge,
            entry,
        };
        self.channels[index] = Some(channel);
        self.activate(index);
    }

    fn activate(&mut self, index: usize) {
        let channel = self.channels[index].as_mut().expect("only channels that are there are activated");
        channel.idle_looks = 0;
        if !channel.active {
            channel.active = true;
            channel.consumer.disarm();
            self.active.push(index);
        }
    }

    /// Reads a connection's bells.
    fn bells(&mut self, number: u64, hung_up: bool) {
        let Some(socket) = self.connections.get(&number).map(|connection| connection.socket.clone()) else { return };
        let heard = bell::hear(&socket, hung_up, |bell| match bell {
            Bell::Ring(ring) => self.bell(number, ring),
            Bell::Reset(_) => false,
        });
        match heard {
            Heard::Bells => {}
            Heard::Many => {
                let rings: Vec<usize> = self.connections[&number].rings.values().copied().collect();
                rings.into_iter().for_each(|index| self.activate(index));
            }
            Heard::HungUp => self.hung_up(number),
            Heard::Dishonest => {
                tracing::warn!("a sender rings what no sender rings: disconnected");
                self.hung_up(number);
            }
        }
    }

    /// A bell for a ring; `false` if no honest sender would have rung it.
    fn bell(&mut self, number: u64, ring: u32) -> bool {
        let connection = self.connections.get_mut(&number).expect("the caller has looked it up");
        let Some(&index) = connection.rings.get(&ring) else {
            // It may be on its way to us: then it will be polled first.
            connection.stray_bells += 1;
            return connection.stray_bells < bell::STRAY;
        };
        self.activate(index);
        let channel = self.channels[index].as_mut().expect("a listed ring is there");
        channel.bells += 1;
        // One for each sleep, one when it was attached, one when it is closed.
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
            self.activate(index);
        }
    }

    /// Lets go of a channel, which is empty or corrupt.
    fn leave(&mut self, index: usize, departure: Option<Departure>) -> Found {
        let channel = self.channels[index].take().expect("a leaving channel is there");
        self.vacant.push(index);
        self.active.retain(|&active| active != index);
        self.unconsumed.retain(|&unconsumed| unconsumed != index);
        if let Some(connection) = self.connections.get_mut(&channel.connection) {
            connection.rings.remove(&channel.ring);
        }
        let departure = departure.unwrap_or_else(|| self.departure(&channel));
        match &departure {
            Departure::Corrupt(why) => {
                tracing::warn!(peer = &*channel.peer.node, why, "a sender's ring is corrupt, and is closed");
                channel.ring_bell(Bell::Reset(channel.ring));
            }
            Departure::Died => tracing::info!(peer = &*channel.peer.node, pid = channel.peer.pid, "a sender has died"),
            departure => tracing::debug!(peer = &*channel.peer.node, ?departure, "a sender has left"),
        }
        Found::Left(channel.peer, departure)
    }

    fn departure(&self, channel: &Channel) -> Departure {
        if channel.consumer.is_closed() {
            return Departure::Closed;
        }
        if self.shared.is_alive(&channel.peer) { Departure::Disconnected } else { Departure::Died }
    }

    /// What another event loop may wait for. It is readable at first: what is there already is to be looked at.
    pub(crate) fn descriptor(&self) -> &Poll {
        if !self.foreign.replace(true) {
            self.shared.signal.raise();
        }
        &self.poll
    }
}
