//! One connection from this process to an inbox, shared by all rings that lead there.
//!
//! Invariant: a process has at most one link to an inbox of one incarnation. It is opened by the first ring's handshake
//! ([`crate::outgoing`]), lives as long as a ring does, and its hang-up is the notice that the receiver is gone. The
//! handshakes of further rings run over a passing connection of their own, so that on this one nothing but bells travel,
//! and no descriptor is ever accepted on it.

pub(crate) mod admission; //       who may connect
pub(crate) mod bell; //            what wakes the other end
pub(crate) mod channel_shared; //  the sender's end of a channel, as threads share it
pub(crate) mod inbox_shared; //    an inbox, as threads share it
pub(crate) mod ledger; //          what the peers of each user cost
pub(crate) mod outgoing; //        the sender's side of a handshake

pub use admission::{Admission, Rule};
pub use ledger::Limits;

use crate::sys::sync::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use crate::link::bell::{Bell, Heard};
use crate::link::channel_shared::{Failure, Ring};
use crate::name::Incarnation;
use crate::registry::target::Target;
use crate::sys::fork;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::Socket;

/// The links of a node, by incarnation and number of the inbox.
#[derive(Debug, Default)]
pub(crate) struct Links(Mutex<HashMap<(Incarnation, u32), Weak<Link>>>);

/// A connection to an inbox.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) target: Target,
    links: Weak<Links>,
    reactor: Weak<Reactor>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Rings that lead here, pending ones too. When there are none left, the link closes.
    users: usize,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// No ring has been attached yet; these wait until the first one is.
    Connecting {
        busy: bool,
        waiting: Vec<Arc<Ring>>,
    },
    Open(Open),
    Closed,
}

/// A ring's share in a link.
#[derive(Debug)]
pub(crate) struct Use {
    link: Arc<Link>,
    born: fork::Born,
}

impl Use {
    fn new(link: Arc<Link>) -> Self {
        Self { link, born: fork::Born::now() }
    }
}

impl std::ops::Deref for Use {
    type Target = Arc<Link>;

    fn deref(&self) -> &Arc<Link> {
        &self.link
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // the parent's
        }
        let mut state = self.state();
        state.users -= 1;
        if state.users == 0 {
            let closed = std::mem::replace(&mut state.stage, Stage::Closed);
            drop(state);
            self.forget(closed);
        }
    }
}

#[derive(Debug)]
struct Open {
    socket: Arc<Socket>,
    token: u64,
    /// The connection's number at the receiver.
    connection: u64,
    rings: HashMap<u32, Rung>,
    /// Bells for rings that are not there, since the last ring was attached.
    stray_bells: u32,
}

#[derive(Debug)]
struct Rung {
    ring: Weak<Ring>,
    bells: u64,
}

impl Link {
    /// A share in the link to this inbox: the one that there is, or a new one.
    pub(crate) fn to(of: &Arc<Links>, reactor: &Arc<Reactor>, target: &Target) -> Use {
        let mut links = of.0.lock();
        let key = (target.incarnation, target.inbox);
        if let Some(link) = links.get(&key).and_then(Weak::upgrade) {
            let mut state = link.state();
            if !matches!(state.stage, Stage::Closed) {
                state.users += 1;
                drop(state);
                return Use::new(link);
            }
        }
        let stage = Stage::Connecting { busy: false, waiting: Vec::new() };
        let state = Mutex::new(State { users: 1, stage });
        let link = Arc::new(Self {
            target: target.clone(),
            links: Arc::downgrade(of),
            reactor: Arc::downgrade(reactor),
            state,
        });
        links.insert(key, Arc::downgrade(&link));
        Use::new(link)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state().stage, Stage::Closed)
    }

    /// Starts the handshake of a ring; its outcome is seen in the ring.
    pub(crate) fn connect(self: &Arc<Self>, reactor: &Arc<Reactor>, ring: Arc<Ring>) {
        let mut state = self.state();
        let connection = match &mut state.stage {
            Stage::Connecting { busy: true, waiting } => return waiting.push(ring),
            Stage::Connecting { busy, .. } => {
                *busy = true;
                None
            }
            Stage::Open(open) => Some(open.connection),
            Stage::Closed => {
                drop(state);
                return ring.fail(Failure::Gone);
            }
        };
        drop(state);
        outgoing::begin(reactor, ring, connection);
    }

    /// A ring is not to be connected any more.
    pub(crate) fn abandon(&self, ring: &Arc<Ring>) {
        let mut abandoned = None;
        if let Stage::Connecting { waiting, .. } = &mut self.state().stage
            && let Some(at) = waiting.iter().position(|other| Arc::ptr_eq(other, ring))
        {
            abandoned = Some(waiting.remove(at));
        }
        drop(abandoned); // where the state is not locked
    }

    /// A ring was attached, under a number that no other ring has. The first one brings the socket that the link keeps.
    /// `None`: the link is closed.
    pub(crate) fn attached(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        ring: &Arc<Ring>,
        number: u32,
        first: Option<(Arc<Socket>, u64)>,
    ) -> Option<Arc<Socket>> {
        let mut state = self.state();
        let rung = Rung { ring: Arc::downgrade(ring), bells: 0 };
        let Some((socket, connection)) = first else {
            let Stage::Open(open) = &mut state.stage else { return None };
            open.stray_bells = 0;
            let socket = open.socket.clone();
            return match open.rings.entry(number) {
                Entry::Occupied(_) => None,
                Entry::Vacant(vacant) => {
                    vacant.insert(rung);
                    Some(socket)
                }
            };
        };
        let token = reactor.token();
        let rings = HashMap::from([(number, rung)]);
        let open = Stage::Open(Open { socket: socket.clone(), token, connection, rings, stray_bells: 0 });
        let waiting = match std::mem::replace(&mut state.stage, open) {
            Stage::Connecting { waiting, .. } => waiting,
            other => {
                state.stage = other;
                return None;
            }
        };
        drop(state);
        if let Err(error) = reactor.watch(token, &socket, self.clone()) {
            tracing::warn!(%error, node = &*self.target.node, "a connection cannot be watched, and is closed");
            self.hung_up();
            waiting.iter().for_each(|ring| ring.fail(Failure::Gone));
            return None;
        }
        for ring in waiting {
            outgoing::begin(reactor, ring, Some(connection));
        }
        Some(socket)
    }

    /// The first ring's handshake has failed. What is wrong with the receiver is wrong for all that wait; a refusal may be
    /// for the first one alone, and the next one tries.
    pub(crate) fn first_failed(self: &Arc<Self>, reactor: &Arc<Reactor>, failure: &Failure) {
        let mut state = self.state();
        let Stage::Connecting { busy, waiting } = &mut state.stage else { return };
        if matches!(failure, Failure::Gone | Failure::Broken(_)) || waiting.is_empty() {
            *busy = false;
            let waiting = std::mem::take(waiting);
            drop(state);
            waiting.iter().for_each(|ring| ring.fail(failure.clone()));
            return;
        }
        let next = waiting.remove(0);
        drop(state);
        outgoing::begin_later(reactor, next);
    }

    /// A ring is dropped.
    pub(crate) fn release(&self, number: u32) {
        if let Stage::Open(open) = &mut self.state().stage {
            open.rings.remove(&number);
        }
    }

    /// The receiver is gone: every ring hears it.
    fn hung_up(&self) {
        let closed = std::mem::replace(&mut self.state().stage, Stage::Closed);
        tracing::debug!(node = &*self.target.node, inbox = self.target.inbox, "a receiver has hung up");
        if let Stage::Open(open) = &closed {
            for rung in open.rings.values() {
                if let Some(ring) = rung.ring.upgrade() {
                    ring.fail(Failure::Gone);
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
        links.retain(|_, link| link.strong_count() > 0 && !std::ptr::eq(link.as_ptr(), self));
    }

    /// Hands a bell to its ring; `false` if no honest receiver would have rung it.
    fn bell(&self, bell: Bell) -> bool {
        let mut state = self.state();
        let Stage::Open(open) = &mut state.stage else { return true };
        let (Bell::Ring(number) | Bell::Reset(number)) = bell;
        let Some(rung) = open.rings.get_mut(&number) else {
            // A ring that was dropped just now may still be rung for.
            open.stray_bells += 1;
            return open.stray_bells < bell::STRAY;
        };
        rung.bells += 1;
        let bells = rung.bells;
        let Some(ring) = rung.ring.upgrade() else { return true };
        drop(state);
        match bell {
            Bell::Ring(_) => ring.rung(),
            Bell::Reset(_) => ring.fail(Failure::Broken("the receiver found the ring corrupt".into())),
        }
        bells <= ring.epochs() + 1
    }

    fn ring_all(&self) {
        let rings: Vec<_> = match &self.state().stage {
            Stage::Open(open) => open.rings.values().filter_map(|rung| rung.ring.upgrade()).collect(),
            _ => return,
        };
        rings.iter().for_each(|ring| ring.rung());
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
