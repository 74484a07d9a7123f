//! The one background thread of a process: it answers who connects, notices who goes, and wakes tasks. No code of
//! the user's runs here but the wakers of tasks.
//!
//! It sleeps without limit while nothing happens; only an unfinished handshake sets a deadline. It lives as long as a
//! node of this process does.

use crate::sys::clock::Instant;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::sync::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::poll::{Poll, Ready, Signal};
use crate::sys::{Context, OsError, dispose, thread};

/// What the thread watches.
pub(crate) trait Source: Send + Sync {
    /// Its descriptor is ready.
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, ready: Ready);
    /// Its deadline has come, and is cleared.
    fn expired(self: Arc<Self>, _reactor: &Arc<Reactor>, _token: u64) {}
    /// Another one has taken its place. It has itself forgotten when it has nothing left to do.
    fn retire(self: Arc<Self>, reactor: &Arc<Reactor>, token: u64) {
        drop(reactor.forget(token));
    }
}

/// The thread's table of what it watches.
pub(crate) struct Reactor {
    poll: Poll,
    wake: Signal,
    tokens: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sources: BTreeMap<u64, Arc<dyn Source>>,
    deadlines: BTreeSet<(Instant, u64)>,
    by_token: HashMap<u64, Instant>,
    stopped: bool,
}

const WAKE: u64 = 0;
/// How soon what could not be closed is tried again.
const CLOSE_AGAIN: Duration = Duration::from_millis(100);

impl Reactor {
    /// Starts the thread.
    pub(crate) fn start() -> Result<Arc<Self>, OsError> {
        let (poll, wake) = (Poll::new()?, Signal::new()?);
        poll.add(&wake, WAKE)?;
        let tokens = AtomicU64::new(WAKE + 1);
        let reactor = Arc::new(Self { poll, wake, tokens, table: Mutex::default() });
        let running = reactor.clone();
        thread::spawn("librpc", move || running.run()).context(|| "start librpc's thread".into())?;
        Ok(reactor)
    }

    /// Has the thread end.
    pub(crate) fn stop(&self) {
        self.table().stopped = true;
        self.wake.raise();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// A token for something that is to be watched.
    pub(crate) fn token(&self) -> u64 {
        self.tokens.fetch_add(1, Ordering::Relaxed)
    }

    /// Watches a source's descriptor.
    pub(crate) fn watch(&self, token: u64, fd: impl AsFd, source: Arc<dyn Source>) -> Result<(), OsError> {
        self.table().sources.insert(token, source);
        self.poll.add(fd, token).inspect_err(|_| drop(self.forget(token)))
    }

    /// Stops watching a descriptor; its source stays known, for its deadline.
    pub(crate) fn unwatch(&self, fd: impl AsFd) {
        self.poll.remove(fd);
    }

    /// Knows a source no longer. The caller drops what is returned where it holds no lock.
    pub(crate) fn forget(&self, token: u64) -> Option<Arc<dyn Source>> {
        let mut table = self.table();
        table.set_deadline(token, None);
        table.sources.remove(&token)
    }

    /// Has a source end whose place another one has taken. Called where no lock is held.
    pub(crate) fn retire(self: &Arc<Self>, token: u64) {
        let source = self.table().sources.get(&token).cloned();
        if let Some(source) = source {
            source.retire(self, token);
        }
    }

    /// Sets or clears the deadline of a source, which may have no descriptor.
    pub(crate) fn deadline(&self, token: u64, source: Arc<dyn Source>, deadline: Option<Instant>) {
        let mut table = self.table();
        table.sources.insert(token, source);
        table.set_deadline(token, deadline);
        let is_next = deadline.is_some() && table.deadlines.first().is_some_and(|&(_, first)| first == token);
        drop(table);
        if is_next {
            self.wake.raise();
        }
    }

    fn run(self: Arc<Self>) {
        let mut ready = Vec::new();
        loop {
            let until = {
                let table = self.table();
                if table.stopped {
                    return;
                }
                table.deadlines.first().map(|&(at, _)| at)
            };
            let closes_later = (!dispose::go_on()).then(|| Instant::now() + CLOSE_AGAIN);
            let until = until.into_iter().chain(closes_later).min();
            if let Err(error) = self.poll.wait(until, &mut ready) {
                tracing::error!(%error, "librpc's thread cannot wait, and ends");
                return;
            }
            for &event in &ready {
                if event.token == WAKE {
                    self.wake.clear();
                    continue;
                }
                let source = self.table().sources.get(&event.token).cloned();
                if let Some(source) = source {
                    source.ready(&self, event);
                }
            }
            loop {
                let expired = self.table().expire(Instant::now());
                let Some((token, source)) = expired else { break };
                source.expired(&self, token);
            }
        }
    }
}

impl Table {
    fn set_deadline(&mut self, token: u64, deadline: Option<Instant>) {
        if let Some(at) = self.by_token.remove(&token) {
            self.deadlines.remove(&(at, token));
        }
        if let Some(at) = deadline {
            self.by_token.insert(token, at);
            self.deadlines.insert((at, token));
        }
    }

    fn expire(&mut self, now: Instant) -> Option<(u64, Arc<dyn Source>)> {
        let &(at, token) = self.deadlines.first()?;
        if at > now {
            return None;
        }
        self.set_deadline(token, None);
        self.sources.get(&token).cloned().map(|source| (token, source))
    }
}
