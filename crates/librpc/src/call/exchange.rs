//! An inbox for which several threads wait: one of them receives, for all.
//!
//! Whoever waits and finds the inbox free takes it, receives without the lock, and hands what came to the side to which it belongs: a
//! client or a server. The others sleep until something was handed over. When the receiving thread has what it waited for, it puts
//! the inbox back, and wakes them: one of them goes on.
//!
//! Invariant: whatever a waiting thread waits for changes only under the lock, and the thread that changes it wakes the others.

use std::sync::Arc;
use std::time::Duration;

use crate::link::inbox_shared::InboxShared;
use crate::receive::inbox::{Heard, Inbox, RecvError};
use crate::receive::receiver::Until;
use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};

/// How many records one call takes that does not wait.
const AT_ONCE: u32 = 1024;
/// After this many records, a call that waits looks at the clock.
const LOOK_EVERY: u32 = 16;
/// A wait without a limit looks again after this time.
const LONGEST: Duration = Duration::from_secs(3600);

/// A client, or a server, as its exchange knows it.
pub(super) trait Side {
    /// Takes what has come.
    fn heard(&mut self, inbox: &mut Inbox, heard: Heard);
    /// Does what has become due. `None`: the inbox is closed. Returns when something is due again, although nothing may have come.
    fn tend(&mut self, inbox: Option<&mut Inbox>) -> Option<Instant>;
}

/// One side, its inbox, and the threads that wait for it.
#[derive(Debug)]
pub(super) struct Exchange<S> {
    inner: Mutex<Inner<S>>,
    changed: Condvar,
    /// The part of the inbox that other threads reach.
    pub(super) inbox: Arc<InboxShared>,
    pub(super) born: fork::Born,
}

#[derive(Debug)]
pub(super) struct Inner<S> {
    /// `None` while a thread receives, and once it is closed.
    inbox: Option<Box<Inbox>>,
    is_closed: bool,
    waiters: u32,
    pub(super) side: S,
}

impl<S: Side> Exchange<S> {
    pub(super) fn new(inbox: Inbox, side: S) -> Self {
        let shared = inbox.shared().clone();
        let inner = Mutex::new(Inner { inbox: Some(Box::new(inbox)), is_closed: false, waiters: 0, side });
        Self { inner, changed: Condvar::default(), inbox: shared, born: fork::Born::now() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock()
    }

    fn wake(&self, inner: &Inner<S>) {
        if inner.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// Receives until this finds what it looks for. `None`: the time is up, or the inbox was stopped.
    pub(super) fn wait_for<T>(
        &self,
        until: Until,
        mut find: impl FnMut(&mut S) -> Option<T>,
    ) -> Result<Option<T>, RecvError> {
        let mut inner = self.lock();
        let mut taken = 0;
        loop {
            if let Some(found) = find(&mut inner.side) {
                return Ok(Some(found));
            }
            let Some(mut inbox) = inner.inbox.take() else {
                let left = match until {
                    Until::Now => return Ok(None),
                    Until::Deadline(deadline) => deadline.saturating_duration_since(Instant::now()),
                    Until::Forever => LONGEST,
                };
                if left.is_zero() {
                    return Ok(None);
                }
                // Nothing comes any more, but what waits for room is still sent.
                let due = if inner.is_closed { inner.side.tend(None) } else { None };
                let left = due.map_or(left, |due| left.min(due.saturating_duration_since(Instant::now())));
                inner.waiters += 1;
                inner = self.changed.wait_timeout(inner, left);
                inner.waiters -= 1;
                continue;
            };
            let due = inner.side.tend(Some(&mut inbox));
            if let Some(found) = find(&mut inner.side) {
                self.put_back(&mut inner, inbox);
                return Ok(Some(found));
            }
            drop(inner);
            let heard = inbox.hear(earlier(until, due));
            inner = self.lock();
            let mut is_over = until == Until::Now;
            match heard {
                Ok(Some(heard)) => {
                    inner.side.heard(&mut inbox, heard);
                    taken += 1;
                    is_over &= taken == AT_ONCE;
                    // The clock is read now and then, and when nothing comes.
                    is_over |= taken.is_multiple_of(LOOK_EVERY) && is_past(until);
                }
                Ok(None) => is_over |= self.inbox.has_stopped() || is_past(until),
                Err(error) => {
                    self.put_back(&mut inner, inbox);
                    return Err(error);
                }
            }
            self.put_back(&mut inner, inbox);
            if is_over {
                return Ok(find(&mut inner.side));
            }
        }
    }

    fn put_back(&self, inner: &mut Inner<S>, inbox: Box<Inbox>) {
        match inner.is_closed {
            true => drop(inbox),
            false => inner.inbox = Some(inbox),
        }
        self.wake(inner);
    }

    /// Closes the inbox. Nothing comes any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        let inbox = inner.inbox.take();
        self.wake(&inner);
        drop(inner);
        self.inbox.stop(); // a thread that receives just now drops the inbox
        drop(inbox);
    }
}

fn is_past(until: Until) -> bool {
    matches!(until, Until::Deadline(deadline) if Instant::now() >= deadline)
}

fn earlier(until: Until, due: Option<Instant>) -> Until {
    match (until, due) {
        (until, None) | (until @ Until::Now, _) => until,
        (Until::Deadline(deadline), Some(due)) => Until::Deadline(deadline.min(due)),
        (Until::Forever, Some(due)) => Until::Deadline(due),
    }
}
