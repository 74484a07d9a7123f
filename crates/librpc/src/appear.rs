//! Waiting for something to appear in a domain: one inotify instance per process, only while somebody waits.
//!
//! Where the user's inotify instances are used up, the waiter looks every 20 ms instead.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::reactor::{Reactor, Source};
use crate::sys::poll::Ready;
use crate::sys::watch::Watch;

const SLOW_POLL: Duration = Duration::from_millis(20);

/// The waiters of this process.
#[derive(Default)]
pub(crate) struct Waiters {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiters: u32,
    /// What is watched while somebody waits; `None` if that is not possible.
    watched: Option<(Arc<Watched>, u64)>,
    changes: u64,
}

struct Watched(Watch);

impl Source for Watched {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        self.0.drain();
        reactor.waiters.state.lock().expect("no panic under this lock").changes += 1;
        reactor.waiters.changed.notify_all();
    }
}

/// Looks until there is something to return or the deadline has come: at once, and whenever the directory has changed.
pub(crate) fn wait_for<T, E>(
    reactor: &Arc<Reactor>,
    directory: &Path,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    let waiting = Waiting::begin(reactor, directory);
    loop {
        let seen = waiting.changes();
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if !waiting.wait(seen, deadline) {
            return Ok(None);
        }
    }
}

struct Waiting<'r> {
    reactor: &'r Arc<Reactor>,
    is_watched: bool,
}

impl<'r> Waiting<'r> {
    fn begin(reactor: &'r Arc<Reactor>, directory: &Path) -> Self {
        let mut state = reactor.waiters.state.lock().expect("no panic under this lock");
        state.waiters += 1;
        if state.watched.is_none() {
            state.watched = Watch::new()
                .and_then(|watch| {
                    let (watched, token) = (Arc::new(Watched(watch)), reactor.token());
                    reactor.watch(token, &watched.0, watched.clone())?;
                    Ok((watched, token))
                })
                .inspect_err(|error| tracing::debug!(%error, "waiting by looking again and again"))
                .ok();
        }
        let is_watched = state.watched.as_ref().is_some_and(|(watched, _)| watched.0.add(directory).is_ok());
        Self { reactor, is_watched }
    }

    fn changes(&self) -> u64 {
        self.reactor.waiters.state.lock().expect("no panic under this lock").changes
    }

    /// Waits for a change behind the ones that were seen; `false` when the deadline has come.
    fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let Waiters { state, changed } = &self.reactor.waiters;
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        let limit = if self.is_watched { left.min(Duration::from_secs(86_400)) } else { left.min(SLOW_POLL) };
        let state = state.lock().expect("no panic under this lock");
        let unchanged = |state: &mut State| state.changes == seen;
        drop(changed.wait_timeout_while(state, limit, unchanged).expect("no panic under this lock"));
        true
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.reactor.waiters.state.lock().expect("no panic under this lock");
        state.waiters -= 1;
        if state.waiters == 0
            && let Some((watched, token)) = state.watched.take()
        {
            drop(state);
            self.reactor.unwatch(&watched.0);
            drop(self.reactor.forget(token));
        }
    }
}
