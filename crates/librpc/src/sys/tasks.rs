//! Tasks: futures that wait without a thread of their own. The process's background thread wakes them.
//!
//! A task that finds nothing leaves its waker here. It is woken, and looks again, when the descriptor that is watched for it may have
//! something, when whoever changes what it waits for takes the wakers, and when its time is up. Every waker is cloned, called and dropped
//! without a lock: it is the user's code, and may drop a whole task.
//!
//! Invariant: a waker is here before its task looks for the last time. So whatever changes after that look finds it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::Waker;

use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::poll::{Poll, Ready};
use crate::sys::reactor::{Reactor, Source};
use crate::sys::sync::Mutex;

/// The tasks that wait for one thing: an inbox, an outbox, a change in a domain.
pub(crate) struct Tasks {
    token: u64,
    reactor: Weak<Reactor>,
    /// An inbox's.
    poll: Option<Arc<Poll>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By their numbers, such as those of their calls.
    wakers: BTreeMap<u64, Waker>,
    is_watched: bool,
    /// When the background thread wakes them in any case.
    deadline: Option<Instant>,
    is_closed: bool,
}

impl State {
    fn take(&mut self, into: &mut Woken) {
        into.0.extend(std::mem::take(&mut self.wakers).into_values());
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.state.lock().wakers.len())
    }
}

/// Wakers that are called when this is dropped.
#[derive(Default)]
pub(crate) struct Woken(Vec<Waker>);

impl Woken {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls them. The caller holds no lock. One that panics ends neither the background thread nor the wait of another task.
    pub(crate) fn wake(&mut self) {
        for waker in self.0.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("the waker of a task has panicked");
            }
        }
    }
}

impl Drop for Woken {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            self.wake();
        }
    }
}

impl Tasks {
    /// `poll`: what is watched for them, if anything.
    pub(crate) fn new(reactor: &Arc<Reactor>, poll: Option<Arc<Poll>>) -> Arc<Self> {
        let (token, reactor) = (reactor.token(), Arc::downgrade(reactor));
        Arc::new(Self { token, reactor, poll, state: Mutex::default() })
    }

    /// Has a task woken, at this time in any case. What `woken` gets is called, and dropped, without a lock.
    pub(crate) fn wait(self: &Arc<Self>, number: u64, waker: &Waker, until: Option<Instant>, woken: &mut Woken) {
        let waker = waker.clone(); // made without the lock, and dropped without it
        let mut state = self.state.lock();
        let Some(reactor) = self.reactor.upgrade().filter(|_| !state.is_closed) else {
            woken.0.push(waker); // it sees that the node is closed
            return;
        };
        let is_known = state.wakers.get(&number).is_some_and(|known| known.will_wake(&waker));
        if !is_known && let Some(former) = state.wakers.insert(number, waker) {
            woken.0.push(former); // another task's, which no longer waits
        }
        if let Some(until) = until
            && state.deadline.is_none_or(|deadline| until < deadline)
        {
            state.deadline = Some(until);
            reactor.deadline(self.token, self.clone(), Some(until));
        }
    }

    /// Has the tasks woken once the descriptor is ready.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<(), OsError> {
        let mut state = self.state.lock();
        if let (Some(reactor), Some(poll)) = (self.reactor.upgrade(), &self.poll)
            && !state.is_watched
            && !state.is_closed
        {
            // If it fails, the background thread knows of no deadline, either.
            reactor.watch(self.token, &**poll, self.clone()).inspect_err(|_| state.deadline = None)?;
            state.is_watched = true;
        }
        Ok(())
    }

    /// A task waits no longer.
    pub(crate) fn forget(&self, number: u64) {
        let waker = self.state.lock().wakers.remove(&number);
        drop(waker); // without a lock
    }

    /// Wakes all tasks. The caller holds no lock.
    pub(crate) fn wake(&self) {
        let mut woken = Woken::default(); // dropped after the lock
        self.take(&mut woken);
    }

    /// Has the background thread wake all tasks: for a caller that holds locks.
    pub(crate) fn wake_soon(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if let Some(reactor) = self.reactor.upgrade()
            && !state.wakers.is_empty()
            && !state.is_closed
        {
            let now = Instant::now();
            state.deadline = Some(now);
            reactor.deadline(self.token, self.clone(), Some(now));
        }
    }

    /// Takes all wakers, to be called without a lock.
    pub(crate) fn take(&self, into: &mut Woken) {
        self.state.lock().take(into);
    }

    /// What they wait for has ended: nobody waits any more.
    pub(crate) fn close(&self) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        state.is_closed = true;
        state.take(&mut woken);
        let reactor = self.reactor.upgrade();
        if let (Some(reactor), Some(poll)) = (&reactor, &self.poll)
            && std::mem::take(&mut state.is_watched)
        {
            reactor.unwatch(&**poll);
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
        if std::mem::take(&mut state.is_watched)
            && let Some(poll) = &self.poll
        {
            reactor.unwatch(&**poll);
        }
        state.take(&mut woken);
        drop(state);
    }

    fn expired(self: Arc<Self>, _reactor: &Arc<Reactor>, _token: u64) {
        let mut woken = Woken::default();
        let mut state = self.state.lock();
        state.deadline = None;
        state.take(&mut woken);
        drop(state);
    }
}
