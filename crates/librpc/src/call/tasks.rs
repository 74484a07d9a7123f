//! Tasks that wait for calls, without a thread of their own: the process's background thread watches the inbox for them.
//!
//! A task that finds nothing leaves its waker here, under the lock of the exchange. It is woken, and looks again, when the inbox may have
//! something, when another thread has taken something from it, and when its time is up. Every waker is called without a lock: it is the
//! user's code.
//!
//! Invariant: while a waker is here, the inbox's descriptor is watched, or a thread receives, which wakes them when it puts the inbox back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::poll::{Poll, Ready};
use crate::sys::reactor::{Reactor, Source};
use crate::sys::sync::Mutex;

/// The tasks that wait for one inbox.
pub(super) struct Tasks {
    token: u64,
    reactor: Weak<Reactor>,
    /// The inbox's.
    poll: Arc<Poll>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the numbers of their calls.
    wakers: BTreeMap<u64, Waker>,
    is_watched: bool,
    /// When the background thread wakes them in any case.
    deadline: Option<Instant>,
    is_closed: bool,
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.state.lock().wakers.len())
    }
}

/// Wakers that are called when this is dropped.
#[derive(Default)]
pub(super) struct Woken(BTreeMap<u64, Waker>);

impl Woken {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls them. The caller holds no lock.
    pub(super) fn wake(&mut self) {
        std::mem::take(&mut self.0).into_values().for_each(Waker::wake);
    }
}

impl Drop for Woken {
    fn drop(&mut self) {
        self.wake();
    }
}

impl Tasks {
    pub(super) fn new(reactor: &Arc<Reactor>, poll: Arc<Poll>) -> Arc<Self> {
        let (token, reactor) = (reactor.token(), Arc::downgrade(reactor));
        Arc::new(Self { token, reactor, poll, state: Mutex::default() })
    }

    /// Has a task woken. `is_free`: no thread has the inbox, so its descriptor is to be watched. What `woken` gets is called, and dropped,
    /// without a lock.
    pub(super) fn wait(
        self: &Arc<Self>,
        number: u64,
        waker: &Waker,
        until: Option<Instant>,
        is_free: bool,
        woken: &mut Woken,
    ) -> Result<(), OsError> {
        let mut state = self.state.lock();
        let Some(reactor) = self.reactor.upgrade().filter(|_| !state.is_closed) else {
            woken.0.insert(number, waker.clone()); // it sees that the node is closed
            return Ok(());
        };
        let is_known = state.wakers.get(&number).is_some_and(|known| known.will_wake(waker));
        if !is_known && let Some(former) = state.wakers.insert(number, waker.clone()) {
            woken.0.insert(number, former); // another task's, which no longer has the call
        }
        if is_free && !state.is_watched {
            reactor.watch(self.token, &*self.poll, self.clone())?;
            state.is_watched = true;
        }
        if let Some(until) = until
            && state.deadline.is_none_or(|deadline| until < deadline)
        {
            state.deadline = Some(until);
            reactor.deadline(self.token, self.clone(), Some(until));
        }
        Ok(())
    }

    /// A task waits no longer.
    pub(super) fn forget(&self, number: u64) {
        let waker = self.state.lock().wakers.remove(&number);
        drop(waker); // without a lock
    }

    /// Takes all wakers, to be called without a lock.
    pub(super) fn take(&self, into: &mut Woken) {
        into.0.append(&mut self.state.lock().wakers);
    }

    /// The inbox is closed: nobody waits for it any more.
    pub(super) fn close(&self) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        state.is_closed = true;
        woken.0.append(&mut state.wakers);
        let reactor = self.reactor.upgrade();
        if let Some(reactor) = &reactor
            && std::mem::take(&mut state.is_watched)
        {
            reactor.unwatch(&*self.poll);
        }
        drop(state);
        drop(reactor.and_then(|reactor| reactor.forget(self.token)));
    }
}

impl Source for Tasks {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        // Until a task has looked at it, the inbox stays ready.
        if std::mem::take(&mut state.is_watched) {
            reactor.unwatch(&*self.poll);
        }
        woken.0.append(&mut state.wakers);
        drop(state);
    }

    fn expired(self: Arc<Self>, _reactor: &Arc<Reactor>, _token: u64) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        state.deadline = None;
        woken.0.append(&mut state.wakers);
        drop(state);
    }
}
