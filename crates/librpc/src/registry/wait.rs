//! Waiting for something to appear in a domain: one inotify instance per process, only while somebody waits.
//!
//! Where the user's inotify instances are used up, the waiter looks every 20 ms instead.
//!
//! Invariant: who goes to sleep watches the directory that the path leads to, and has looked behind that. A look may find
//! that the domain was removed, and make it anew: the former directory, which is still watched, says nothing any more.

use crate::sys::clock::Instant;
use crate::sys::sync::{Condvar, Mutex};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::watch::Watch;

const SLOW_POLL: Duration = Duration::from_millis(20);

/// The waiters of this process.
pub(crate) struct Waiters {
    reactor: Arc<Reactor>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Waiters {
    pub(crate) fn new(reactor: &Arc<Reactor>) -> Arc<Self> {
        Arc::new(Self { reactor: reactor.clone(), state: Mutex::default(), changed: Condvar::default() })
    }
}

#[derive(Default)]
struct State {
    waiters: u32,
    /// What is watched while somebody waits; `None` if that is not possible.
    watched: Option<(Arc<Watched>, u64)>,
    changes: u64,
}

struct Watched {
    watch: Watch,
    waiters: Weak<Waiters>,
}

impl Source for Watched {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {
        self.watch.drain();
        if let Some(waiters) = self.waiters.upgrade() {
            waiters.state.lock().changes += 1;
            waiters.changed.notify_all();
        }
    }
}

/// Looks until there is something to return or the deadline has come: at once, and whenever the directory has changed.
pub(crate) fn wait_for<T, E>(
    waiters: &Arc<Waiters>,
    directory: &Path,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    let mut waiting = Waiting::begin(waiters, directory);
    loop {
        let seen = waiting.changes();
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if waiting.watches_another() {
            continue;
        }
        if !waiting.wait(seen, deadline) {
            return Ok(None);
        }
    }
}

struct Waiting<'w> {
    waiters: &'w Arc<Waiters>,
    directory: &'w Path,
    /// The watch's number; `None`: the directory is not watched.
    watch: Option<i32>,
}

impl<'w> Waiting<'w> {
    fn begin(waiters: &'w Arc<Waiters>, directory: &'w Path) -> Self {
        let mut state = waiters.state.lock();
        state.waiters += 1;
        if state.watched.is_none() {
            state.watched = Watch::new()
                .and_then(|watch| {
                    let watched = Arc::new(Watched { watch, waiters: Arc::downgrade(waiters) });
                    let token = waiters.reactor.token();
                    waiters.reactor.watch(token, &watched.watch, watched.clone())?;
                    Ok((watched, token))
                })
                .inspect_err(|error| tracing::debug!(%error, "waiting by looking again and again"))
                .ok();
        }
        drop(state);
        let mut this = Self { waiters, directory, watch: None };
        this.watches_another();
        this
    }

    /// Watches what the path leads to now; `true`: that is another directory than before.
    fn watches_another(&mut self) -> bool {
        let state = self.waiters.state.lock();
        let watch = state.watched.as_ref().and_then(|(watched, _)| watched.watch.add(self.directory).ok());
        std::mem::replace(&mut self.watch, watch) != watch
    }

    fn changes(&self) -> u64 {
        self.waiters.state.lock().changes
    }

    /// Waits for a change behind the ones that were seen; `false` when the deadline has come.
    fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let Waiters { state, changed, .. } = &**self.waiters;
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        let limit = if self.watch.is_some() { left.min(Duration::from_secs(86_400)) } else { left.min(SLOW_POLL) };
        let state = state.lock();
        let unchanged = |state: &mut State| state.changes == seen;
        drop(changed.wait_timeout_while(state, limit, unchanged));
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.waiters.state.lock();
        state.waiters -= 1;
        if state.waiters == 0
            && let Some((watched, token)) = state.watched.take()
        {
            drop(state);
            self.waiters.reactor.unwatch(&watched.watch);
            drop(self.waiters.reactor.forget(token));
        }
    }
}
