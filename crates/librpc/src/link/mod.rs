//! One connection from a node to an inbox, shared by all channels of that node that lead there.
//!
//! Invariant: a node has at most one link to an inbox. The socket of the handshake that *opens* it becomes the connection:
//! bells travel on it, and its hang-up is the notice that the receiver is gone. The handshakes of further channels run over
//! passing sockets of their own, so that on the lasting one nothing but bells travels. The sender chooses the connection's
//! number. It connects for a further channel only after the opening hello was sent, so a receiver always finds the opening
//! hello before those of the others. The link lives as long as a channel uses it, pending ones included.
//!
//! A sender that dies hangs up on everything at once. What it has handed over is in the receiver's socket queue, or mapped
//! there.

pub(crate) mod admission; //       who may connect
pub(crate) mod readers; //         who may read a topic
pub(crate) mod ledger; //          what the peers of each user cost
pub(crate) mod bell; //            what wakes the other end
pub(crate) mod channel_shared; //  the sender's end of a channel, as threads share it
pub(crate) mod inbox_shared; //    an inbox, as threads share it
pub(crate) mod outgoing; //        the sender's side of a handshake
pub(crate) mod lending; //         handing memories for payloads to inboxes, and what was lent
pub(crate) mod segments; //        memories for payloads that were handed to an inbox

pub use admission::{Admission, Rule};
pub use ledger::Limits;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use crate::link::bell::{Bell, Heard};
use crate::link::channel_shared::{Attached, ChannelShared, Failure};
use crate::registry::target::Target;
use crate::sys::fork;
use crate::sys::memory::Mapping;
use crate::sys::poll::Ready;
use crate::sys::process::random;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::Socket;
use crate::sys::sync::{Mutex, MutexGuard};

/// The links of a node. The key is all that describes an inbox: a stranger may copy a part of it.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<Target, Weak<Link>>>);

/// A connection to an inbox.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) target: Target,
    /// The connection's number. It is random, so that no other process can guess it.
    pub(crate) connection: u64,
    links: Weak<Links>,
    reactor: Weak<Reactor>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Channels that lead here, pending ones too. When there are none left, the link closes.
    users: usize,
    stage: Stage,
    /// The channels that are not attached yet: they fail with the handshake that opens the connection.
    pending: Vec<Weak<ChannelShared>>,
}

#[derive(Debug)]
enum Stage {
    /// No hello was sent, or the receiver wants it sent once more.
    New,
    /// The opening hello was sent. These channels were answered before it was.
    Opening(Vec<Answered>),
    Open(Open),
    Closed,
}

/// A channel that the receiver has attached.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) channel: Arc<ChannelShared>,
    pub(crate) number: u32,
    pub(crate) ack: Arc<Mapping>,
    pub(crate) is_fenced_by_receiver: bool,
}

/// A channel's share in a link.
#[derive(Debug)]
pub(crate) struct LinkRef {
    link: Arc<Link>,
    born: fork::Born,
}

impl LinkRef {
    fn new(link: Arc<Link>) -> Self {
        Self { link, born: fork::Born::now() }
    }
}

impl Clone for LinkRef {
    fn clone(&self) -> Self {
        self.link.state().users += 1;
        Self::new(self.link.clone())
    }
}

impl std::ops::Deref for LinkRef {
    type Target = Arc<Link>;

    fn deref(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for LinkRef {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // the parent's
        }
        let mut state = self.link.state();
        state.users -= 1;
        if state.users == 0 {
            let closed = std::mem::replace(&mut state.stage, Stage::Closed);
            drop(state);
            self.link.forget(closed);
        }
    }
}

#[derive(Debug)]
struct Open {
    socket: Arc<Socket>,
    token: u64,
    channels: BTreeMap<u32, Rung>,
    /// At this many entries, those of channels that were dropped are removed.
    purge_at: usize,
    /// Bells for channels that are not there, since the last one was attached.
    stray_bells: u32,
}

#[derive(Debug)]
struct Rung {
    channel: Weak<ChannelShared>,
    bells: u64,
}

impl Open {
    /// Knows a channel by its number; `false`: the number is in use.
    fn insert(&mut self, number: u32, channel: &Arc<ChannelShared>) -> bool {
        if self.channels.len() >= self.purge_at {
            self.channels.retain(|_, rung| rung.channel.strong_count() > 0);
            self.purge_at = 2 * self.channels.len() + 16;
        }
        self.stray_bells = 0;
        let is_new = !self.channels.contains_key(&number);
        if is_new {
            self.channels.insert(number, Rung { channel: Arc::downgrade(channel), bells: 0 });
        }
        is_new
    }
}

/// What the sending of a hello has come to.
pub(crate) enum Begun {
    /// It was sent; whether it opens the connection.
    Sent { opens: bool },
    /// It was not; why not is the caller's business.
    Not,
    /// The link is closed.
    Closed,
}

impl Links {
    /// A share in the link to this inbox: the one that there is, or a new one.
    pub(crate) fn link(self: &Arc<Self>, reactor: &Arc<Reactor>, target: &Target) -> LinkRef {
        let mut links = self.0.lock();
        if let Some(link) = links.get(target).and_then(Weak::upgrade) {
            let mut state = link.state();
            if !matches!(state.stage, Stage::Closed) {
                state.users += 1;
                drop(state);
                return LinkRef::new(link);
            }
        }
        let state = Mutex::new(State { users: 1, stage: Stage::New, pending: Vec::new() });
        let link = Arc::new(Link {
            target: target.clone(),
            connection: u64::from_ne_bytes(random()),
            links: Arc::downgrade(self),
            reactor: Arc::downgrade(reactor),
            state,
        });
        links.insert(target.clone(), Arc::downgrade(&link));
        LinkRef::new(link)
    }
}

impl Link {
    /// What runs its handshakes; `None` once the process has no node left.
    pub(crate) fn reactor(&self) -> Option<Arc<Reactor>> {
        self.reactor.upgrade()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Sends a channel's hello with `send`, which must not block. Its argument says whether the hello opens the connection;
    /// it returns whether the hello was sent. No other channel's hello is sent meanwhile.
    pub(crate) fn begin(&self, channel: &Arc<ChannelShared>, send: impl FnOnce(bool) -> bool) -> Begun {
        let mut state = self.state();
        let opens = match state.stage {
            Stage::New => true,
            Stage::Opening(_) | Stage::Open(_) => false,
            Stage::Closed => return Begun::Closed,
        };
        if !send(opens) {
            return Begun::Not;
        }
        if opens {
            state.stage = Stage::Opening(Vec::new());
        }
        let is_it = |other: &Weak<ChannelShared>| std::ptr::eq(other.as_ptr(), Arc::as_ptr(channel));
        if !state.pending.iter().any(is_it) {
            state.pending.push(Arc::downgrade(channel));
        }
        Begun::Sent { opens }
    }

    /// The receiver has attached the channel whose handshake opens the connection, and keeps its socket.
    pub(crate) fn opened(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        first: Answered,
        socket: Arc<Socket>,
        bells: &[Bell],
    ) {
        let token = reactor.token();
        let mut open = Open { socket: socket.clone(), token, channels: BTreeMap::new(), purge_at: 16, stray_bells: 0 };
        let mut state = self.state();
        let Stage::Opening(early) = &mut state.stage else {
            drop(state);
            return first.channel.fail_attached(first.ack);
        };
        let mut answered = std::mem::take(early);
        answered.insert(0, first);
        let mut doubled = Vec::new();
        answered.retain_mut(|one| {
            let is_new = open.insert(one.number, &one.channel);
            if !is_new {
                doubled.push((one.channel.clone(), one.ack.clone()));
            }
            is_new
        });
        let is_attached = |other: &Weak<ChannelShared>| {
            other.strong_count() == 0
                || answered.iter().any(|one| std::ptr::eq(other.as_ptr(), Arc::as_ptr(&one.channel)))
        };
        state.pending.retain(|other| !is_attached(other));
        state.stage = Stage::Open(open);
        drop(state);
        if let Err(error) = reactor.watch(token, &socket, self.clone()) {
            tracing::warn!(%error, node = &*self.target.node, "a connection cannot be watched, and is closed");
            self.hung_up();
        }
        doubled.into_iter().for_each(|(channel, ack)| channel.fail_attached(ack));
        for Answered { channel, number, ack, is_fenced_by_receiver } in answered {
            channel.attach(Attached { ack, socket: socket.clone(), number, is_fenced_by_receiver });
        }
        for &bell in bells {
            self.bell(bell);
        }
    }

    /// The receiver has attached a further channel.
    pub(crate) fn attached(&self, answered: Answered) {
        let mut state = self.state();
        let channel = answered.channel.clone();
        state.pending.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&channel)) && other.strong_count() > 0);
        let socket = match &mut state.stage {
            Stage::Opening(_) => {
                state.pending.push(Arc::downgrade(&channel));
                let Stage::Opening(early) = &mut state.stage else { return };
                return early.push(answered);
            }
            Stage::Open(open) => open.insert(answered.number, &channel).then(|| open.socket.clone()),
            Stage::New | Stage::Closed => None,
        };
        drop(state);
        let Answered { number, ack, is_fenced_by_receiver, .. } = answered;
        match socket {
            Some(socket) => channel.attach(Attached { ack, socket, number, is_fenced_by_receiver }),
            // The connection is lost: the receiver reads what there is, and nobody rings.
            None => channel.fail_attached(ack),
        }
    }

    /// The opening hello was not answered: the next one opens the connection.
    pub(crate) fn opens_later(&self) {
        let mut state = self.state();
        let early = match &mut state.stage {
            Stage::Opening(early) => std::mem::take(early),
            _ => return,
        };
        state.stage = Stage::New;
        drop(state);
        early.into_iter().for_each(|one| one.channel.fail_attached(one.ack));
    }

    /// The connection will not be opened: the node's other channels get the same answer.
    pub(crate) fn refused(&self, failure: &Failure) {
        let mut state = self.state();
        let Stage::Opening(_) = state.stage else { return };
        let closed = std::mem::replace(&mut state.stage, Stage::Closed);
        let pending = std::mem::take(&mut state.pending);
        drop(state);
        if let Stage::Opening(early) = &closed {
            early.iter().for_each(|one| one.channel.fail_attached(one.ack.clone()));
        }
        pending.iter().filter_map(Weak::upgrade).for_each(|channel| channel.fail(failure.clone()));
        self.forget(closed);
    }

    /// The receiver is gone: every channel hears it.
    fn hung_up(&self) {
        let closed = std::mem::replace(&mut self.state().stage, Stage::Closed);
        tracing::debug!(node = &*self.target.node, inbox = self.target.inbox, "a receiver has hung up");
        if let Stage::Open(open) = &closed {
            for rung in open.channels.values() {
                if let Some(channel) = rung.channel.upgrade() {
                    channel.fail(Failure::Gone);
                }
            }
        }
        self.forget(closed);
    }

    fn forget(&self, closed: Stage) {
        if let Stage::Open(open) = closed
            && let Some(reactor) = self.reactor.upgrade()
        {
            reactor.unwatch(&open.socket);
            drop(reactor.forget(open.token));
        }
        let Some(links) = self.links.upgrade() else { return };
        let mut links = links.0.lock();
        if links.get(&self.target).is_some_and(|link| std::ptr::eq(link.as_ptr(), self)) {
            links.remove(&self.target);
        }
    }

    /// Hands a bell to its channel; `false` if no honest receiver would have rung it.
    fn bell(&self, bell: Bell) -> bool {
        let mut state = self.state();
        let Stage::Open(open) = &mut state.stage else { return true };
        let (Bell::Ring(number) | Bell::Reset(number)) = bell;
        let Some(rung) = open.channels.get_mut(&number) else {
            // A channel that was dropped just now may still be rung for.
            open.stray_bells += 1;
            return open.stray_bells < bell::STRAY;
        };
        rung.bells += 1;
        let bells = rung.bells;
        let Some(channel) = rung.channel.upgrade() else {
            open.channels.remove(&number);
            return true;
        };
        drop(state);
        match bell {
            Bell::Ring(_) => channel.rung(),
            Bell::Reset(_) => channel
                .fail(Failure::Broken("the receiver has closed the channel: it is corrupt, or over a limit".into())),
        }
        bells <= channel.epochs() + 1
    }

    fn ring_all(&self) {
        let channels: Vec<_> = match &self.state().stage {
            Stage::Open(open) => open.channels.values().filter_map(|rung| rung.channel.upgrade()).collect(),
            _ => return,
        };
        channels.iter().for_each(|channel| channel.rung());
    }
}

impl Source for Link {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, ready: Ready) {
        let socket = match &self.state().stage {
            Stage::Open(open) => open.socket.clone(),
            _ => return,
        };
        match bell::hear(&socket, ready.hung_up, |bell| self.bell(bell)) {
            Heard::Bells => {}
            Heard::Many => self.ring_all(),
            Heard::HungUp => self.hung_up(),
            Heard::Dishonest => {
                tracing::warn!(node = &*self.target.node, "a receiver rings what no receiver rings: disconnected");
                socket.hang_up(); // the rings' holders have a share in it, and may be in no hurry
                self.hung_up();
            }
        }
    }
}
