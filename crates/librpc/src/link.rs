//! One connection from this process to an inbox, shared by all rings that lead there.
//!
//! Invariant: a process has at most one link to an inbox of one incarnation. It is opened by the first ring's handshake
//! ([`crate::outgoing`]), lives as long as a ring does, and its hang-up is the notice that the receiver is gone. The
//! handshakes of further rings run over a passing connection of their own, so that on this one nothing but bells travel,
//! and no descriptor is ever accepted on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::name::Incarnation;
use crate::outgoing;
use crate::reactor::{Reactor, Source};
use crate::ring::{Failure, Ring};
use crate::sys::poll::Ready;
use crate::sys::socket::{MAX_MESSAGE_BYTES, Received, Socket};
use crate::sys::{Descriptor, OsError};
use crate::wire::Bell;

/// Bells that were read in one go: so many mean that the queue may have been full, and others not rung.
pub(crate) const MANY_BELLS: usize = 32;
/// How many bells are read in one go.
pub(crate) const BELLS_AT_ONCE: usize = 256;

/// An inbox as its node's file describes it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: Arc<str>,
    pub(crate) incarnation: Incarnation,
    /// The owner of the node's file: the listener must be this user's.
    pub(crate) uid: u32,
    pub(crate) inbox: u32,
    pub(crate) capacity: u64,
    /// The domain's directory.
    pub(crate) directory: Arc<Descriptor>,
}

/// The links of this process, by incarnation and number of the inbox.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<(Incarnation, u32), Weak<Link>>>);

/// A connection to an inbox.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) target: Target,
    reactor: Weak<Reactor>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// No ring has been attached yet; these wait until the first one is.
    Connecting {
        busy: bool,
        waiting: Vec<Arc<Ring>>,
    },
    Open(Open),
    Closed,
}

#[derive(Debug)]
struct Open {
    socket: Arc<Socket>,
    token: u64,
    /// The connection's number at the receiver.
    connection: u64,
    rings: HashMap<u32, Rung>,
}

#[derive(Debug)]
struct Rung {
    ring: Weak<Ring>,
    bells: u64,
}

impl Link {
    /// The link to this inbox: the one that there is, or a new one.
    pub(crate) fn to(reactor: &Arc<Reactor>, target: &Target) -> Arc<Self> {
        let mut links = reactor.links.0.lock().expect("no panic under this lock");
        let key = (target.incarnation, target.inbox);
        if let Some(link) = links.get(&key).and_then(Weak::upgrade)
            && !matches!(*link.state(), State::Closed)
        {
            return link;
        }
        let state = Mutex::new(State::Connecting { busy: false, waiting: Vec::new() });
        let link = Arc::new(Self { target: target.clone(), reactor: Arc::downgrade(reactor), state });
        links.insert(key, Arc::downgrade(&link));
        link
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Starts the handshake of a ring; its outcome is seen in the ring.
    pub(crate) fn connect(self: &Arc<Self>, reactor: &Arc<Reactor>, ring: Arc<Ring>) {
        let mut state = self.state();
        let connection = match &mut *state {
            State::Connecting { busy: true, waiting } => return waiting.push(ring),
            State::Connecting { busy, .. } => {
                *busy = true;
                None
            }
            State::Open(open) => Some(open.connection),
            State::Closed => {
                drop(state);
                return ring.fail(Failure::Gone);
            }
        };
        drop(state);
        outgoing::begin(reactor, ring, connection);
    }

    /// A ring was attached. The first one brings the socket that the link keeps.
    pub(crate) fn attached(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        ring: &Arc<Ring>,
        number: u32,
        first: Option<(Arc<Socket>, u64)>,
    ) -> Result<Option<Arc<Socket>>, OsError> {
        let mut state = self.state();
        let rung = Rung { ring: Arc::downgrade(ring), bells: 0 };
        if let (State::Connecting { waiting, .. }, Some((socket, connection))) = (&mut *state, first) {
            let waiting = std::mem::take(waiting);
            let token = reactor.token();
            let rings = HashMap::from([(number, rung)]);
            *state = State::Open(Open { socket: socket.clone(), token, connection, rings });
            drop(state);
            reactor.watch(token, &socket, self.clone())?;
            for ring in waiting {
                outgoing::begin(reactor, ring, Some(connection));
            }
            return Ok(Some(socket));
        }
        let State::Open(open) = &mut *state else { return Ok(None) };
        open.rings.insert(number, rung);
        Ok(Some(open.socket.clone()))
    }

    /// The first ring's handshake has failed: the next one that waits tries.
    pub(crate) fn first_failed(self: &Arc<Self>, reactor: &Arc<Reactor>) {
        let mut state = self.state();
        let State::Connecting { busy, waiting } = &mut *state else { return };
        if waiting.is_empty() {
            *busy = false;
            return;
        }
        let next = waiting.remove(0);
        drop(state);
        outgoing::begin(reactor, next, None);
    }

    /// A ring is dropped: the last one closes the connection.
    pub(crate) fn release(&self, number: u32) {
        let mut state = self.state();
        let State::Open(open) = &mut *state else { return };
        open.rings.remove(&number);
        if open.rings.is_empty() {
            let closed = std::mem::replace(&mut *state, State::Closed);
            drop(state);
            self.forget(closed);
        }
    }

    /// The receiver is gone: every ring hears it.
    fn hung_up(&self) {
        let closed = std::mem::replace(&mut *self.state(), State::Closed);
        if let State::Open(open) = &closed {
            for rung in open.rings.values() {
                if let Some(ring) = rung.ring.upgrade() {
                    ring.fail(Failure::Gone);
                }
            }
        }
        self.forget(closed);
    }

    fn forget(&self, closed: State) {
        let (State::Open(open), Some(reactor)) = (closed, self.reactor.upgrade()) else { return };
        reactor.unwatch(&open.socket);
        drop(reactor.forget(open.token));
        let mut links = reactor.links.0.lock().expect("no panic under this lock");
        links.retain(|_, link| link.strong_count() > 0 && !std::ptr::eq(link.as_ptr(), self));
    }

    /// Hands a bell to its ring; `false` if no honest receiver would have rung it.
    fn bell(&self, bell: Bell) -> bool {
        let mut state = self.state();
        let State::Open(open) = &mut *state else { return true };
        let (Bell::Ring(number) | Bell::Reset(number)) = bell;
        // A ring that was dropped just now may still be rung for.
        let Some(rung) = open.rings.get_mut(&number) else { return true };
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
        let rings: Vec<_> = match &*self.state() {
            State::Open(open) => open.rings.values().filter_map(|rung| rung.ring.upgrade()).collect(),
            _ => return,
        };
        rings.iter().for_each(|ring| ring.rung());
    }
}

impl Source for Link {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, ready: Ready) {
        let socket = match &*self.state() {
            State::Open(open) => open.socket.clone(),
            _ => return,
        };
        let mut message = [0; MAX_MESSAGE_BYTES];
        let mut bells = 0;
        while bells < BELLS_AT_ONCE {
            match socket.receive(&mut message) {
                Ok(Received::Message { bytes, descriptors, .. }) => {
                    bells += 1;
                    let stray = !descriptors.is_empty();
                    crate::sys::memory::dispose(descriptors);
                    let honest = !stray && Bell::decode(&message[..bytes]).is_some_and(|bell| self.bell(bell));
                    if !honest {
                        tracing::warn!(
                            node = &*self.target.node,
                            "a receiver rings what no receiver rings: disconnected"
                        );
                        return self.hung_up();
                    }
                }
                Ok(Received::Nothing) if ready.hung_up => return self.hung_up(),
                Ok(Received::Nothing) => break,
                Ok(Received::HungUp) | Err(_) => return self.hung_up(),
            }
        }
        if bells >= MANY_BELLS {
            self.ring_all();
        }
    }
}
