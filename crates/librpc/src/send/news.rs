//! That something may have happened at a publisher: for the threads, tasks and wait sets that wait for it.
//!
//! Invariant: whoever waits has left its waker, or has the lock, before it sees that there is nothing. A look for events takes the mark
//! first. So what changes during a look, or after it, is seen by another look.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Wake};

use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::reactor::Reactor;
use crate::sys::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::tasks::{Tasks, Woken};

/// A mark, and those that wait for it.
pub(crate) struct News {
    /// The next look may find something.
    is_there: AtomicBool,
    /// Threads sleep under this lock.
    lock: Mutex<()>,
    changed: Condvar,
    tasks: Arc<Tasks>,
    visits: AtomicU64,
    born: fork::Born,
}

/// Takes no lock, which a thread of the parent's may have in a forked child.
impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("News")
    }
}

impl News {
    /// The first look finds what there is.
    pub(super) fn new(reactor: &Arc<Reactor>) -> Arc<Self> {
        Arc::new(Self {
            is_there: AtomicBool::new(true),
            lock: Mutex::default(),
            changed: Condvar::default(),
            tasks: Tasks::new(reactor, None),
            visits: AtomicU64::new(0),
            born: fork::Born::now(),
        })
    }

    pub(crate) fn is_there(&self) -> bool {
        // SeqCst: pairs with the swap in `raise`.
        self.is_there.load(Ordering::SeqCst)
    }

    /// A look begins.
    pub(super) fn take(&self) {
        // SeqCst: what changes from here on sets the mark again.
        self.is_there.store(false, Ordering::SeqCst);
    }

    /// The next look is to look, although nothing has changed: this one has failed. Wakes nobody.
    pub(super) fn mark(&self) {
        self.is_there.store(true, Ordering::SeqCst);
    }

    /// Wakes everybody. The caller may hold locks: the background thread calls the wakers.
    pub(super) fn raise(&self) {
        // SeqCst: pairs with the load in `is_there`, before which a waker was left.
        if !self.is_there.swap(true, Ordering::SeqCst) {
            drop(self.lock.lock()); // a thread that has seen no mark sleeps by now
            self.changed.notify_all();
            self.tasks.wake_soon();
        }
    }

    /// Sleeps until there is a mark, or the deadline.
    pub(super) fn wait(&self, deadline: Option<Instant>) {
        let lock = self.lock.lock();
        let is_quiet = |_: &mut ()| !self.is_there();
        match deadline {
            None => drop(self.changed.wait_while(lock, is_quiet)),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                drop(self.changed.wait_timeout_while(lock, left, is_quiet));
            }
        }
    }

    /// A task, or a wait set, begins to wait.
    pub(crate) fn visit(&self) -> Visit {
        // Relaxed: each gets another number, and that is all.
        let number = self.visits.fetch_add(1, Ordering::Relaxed);
        Visit { tasks: self.tasks.clone(), number, born: self.born }
    }

    /// The outbox is dropped.
    pub(super) fn close(&self) {
        self.tasks.close();
    }
}

/// What changes in the domain, or in a channel, calls this.
impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.raise();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise();
    }
}

/// A task, or a wait set, that waits.
pub(crate) struct Visit {
    tasks: Arc<Tasks>,
    number: u64,
    born: fork::Born,
}

impl Visit {
    /// Leaves a waker. To be done before the look after which it waits.
    pub(crate) fn leave_waker(&self, context: &Context<'_>) {
        self.tasks.wait(self.number, context.waker(), None, &mut Woken::default());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.tasks.forget(self.number);
        }
    }
}
