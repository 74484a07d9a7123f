//! An inbox for which several threads wait: one of them receives, for all.
//!
//! Whoever waits and finds the inbox free takes it, receives without the lock, and hands what came to the side to which it belongs: a
//! client or a server. The others sleep until something was handed over. When the receiving thread has what it waited for, it puts
//! the inbox back, and wakes them: one of them goes on.
//!
//! Invariant: whatever a waiting thread waits for changes only under the lock, and the thread that changes it wakes the others.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::link::inbox_shared::InboxShared;
use crate::receive::inbox::{Heard, Inbox, RecvError};
use crate::receive::receiver::Until;
use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::reactor::Reactor;
use crate::sys::sync::atomic::{AtomicU64, Ordering};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::tasks::{Tasks, Woken};

/// How many records one call takes that does not wait.
const AT_ONCE: u32 = 1024;
/// After this many records, a call that waits looks at the clock.
const LOOK_EVERY: u32 = 16;
/// A wait without a limit looks again after this time.
const LONGEST: Duration = Duration::from_secs(3600);

/// A client, or a server, as its exchange knows it.
pub(super) trait Side {
    /// Whether [`Side::tend`] may change what somebody waits for.
    fn has_work(&self) -> bool;
    /// Takes what has come.
    fn heard(&mut self, inbox: &mut Inbox, heard: Heard);
    /// Does what has become due. `None`: the inbox is closed. Returns when something is due again, although nothing may have come.
    fn tend(&mut self, inbox: Option<&mut Inbox>) -> Option<Instant>;
    /// Nothing has come, and nothing is there.
    fn idle(&mut self);
}

/// One side, its inbox, and the threads and tasks that wait for it.
#[derive(Debug)]
pub(super) struct Exchange<S> {
    inner: Mutex<Inner<S>>,
    changed: Condvar,
    /// The part of the inbox that other threads reach.
    pub(super) inbox: Arc<InboxShared>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) born: fork::Born,
    /// How many tasks have waited for something else than a call's end.
    visits: AtomicU64,
}

/// A task that waits for something else than a call's end.
pub(super) struct Visit {
    tasks: Arc<Tasks>,
    number: u64,
    born: fork::Born,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.tasks.forget(self.number);
        }
    }
}

/// The numbers of visits begin here, above those of calls.
const FIRST_VISIT: u64 = 1 << 63;

#[derive(Debug)]
pub(super) struct Inner<S> {
    /// `None` while a thread receives, and once it is closed.
    inbox: Option<Box<Inbox>>,
    is_closed: bool,
    waiters: u32,
    /// Whether a task may wait.
    has_tasks: bool,
    /// Whether a task waits that has found the inbox taken: who has it wakes the task.
    has_left_out: bool,
    pub(super) side: S,
}

impl<S: Side> Exchange<S> {
    pub(super) fn new(inbox: Inbox, side: S, reactor: &Arc<Reactor>) -> Self {
        let (shared, tasks) = (inbox.shared().clone(), Tasks::new(reactor, Some(inbox.poll())));
        let (has_tasks, has_left_out) = (false, false);
        let inner = Inner { inbox: Some(Box::new(inbox)), is_closed: false, waiters: 0, has_tasks, has_left_out, side };
        let (inner, born, visits) = (Mutex::new(inner), fork::Born::now(), AtomicU64::new(FIRST_VISIT));
        Self { inner, changed: Condvar::default(), inbox: shared, tasks, born, visits }
    }

    /// A task begins to wait for something else than a call's end.
    pub(super) fn visit(&self) -> Visit {
        // Relaxed: each gets another number, and that is all.
        let number = self.visits.fetch_add(1, Ordering::Relaxed);
        Visit { tasks: self.tasks.clone(), number, born: self.born }
    }

    /// The same as [`Exchange::poll_for`] for a visit, up to a deadline. `None`: the time is up.
    pub(super) fn poll_visit<T>(
        &self,
        context: &Context<'_>,
        visit: &Visit,
        until: Option<Instant>,
        find: impl FnMut(&mut S) -> Option<T>,
    ) -> Poll<Result<Option<T>, RecvError>> {
        Poll::Ready(Ok(match self.poll_for(context, (visit.number, until), find)? {
            Poll::Ready(found) => Some(found),
            Poll::Pending if until.is_some_and(|until| Instant::now() >= until) => None,
            Poll::Pending => return Poll::Pending,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock()
    }

    /// Wakes the threads that wait, and adds the tasks to `woken`. The caller drops that once it no longer holds the lock.
    fn wake(&self, inner: &mut Inner<S>, woken: &mut Woken) {
        if inner.waiters > 0 {
            self.changed.notify_all();
        }
        inner.has_left_out = false;
        if std::mem::take(&mut inner.has_tasks) {
            self.tasks.take(woken);
        }
    }

    /// Receives until this finds what it looks for. `None`: the time is up, or the inbox was stopped.
    pub(super) fn wait_for<T>(
        &self,
        until: Until,
        mut find: impl FnMut(&mut S) -> Option<T>,
    ) -> Result<Option<T>, RecvError> {
        let mut woken = Woken::default(); // dropped after the lock
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
                let due = inner.is_closed.then(|| {
                    inner.side.idle();
                    inner.side.tend(None)
                });
                let due = due.flatten();
                let left = due.map_or(left, |due| left.min(due.saturating_duration_since(Instant::now())));
                inner.waiters += 1;
                inner = self.changed.wait_timeout(inner, left);
                inner.waiters -= 1;
                continue;
            };
            let had_work = inner.side.has_work();
            let due = inner.side.tend(Some(&mut inbox));
            if had_work && let Some(found) = find(&mut inner.side) {
                self.put_back(&mut inner, inbox, &mut woken);
                return Ok(Some(found));
            }
            drop(inner);
            let heard = inbox.hear(earlier(until, due));
            inner = self.lock();
            let mut is_over = until == Until::Now;
            let mut has_changed = true;
            match heard {
                Ok(Some(heard)) => {
                    inner.side.heard(&mut inbox, heard);
                    taken += 1;
                    is_over &= taken == AT_ONCE;
                    // The clock is read now and then, and when nothing comes.
                    is_over |= taken.is_multiple_of(LOOK_EVERY) && is_past(until);
                }
                Ok(None) => {
                    inner.side.idle();
                    is_over |= self.inbox.has_stopped() || is_past(until);
                    // Its descriptor announces what comes: the tasks that watch it sleep on. If each of them woke the others by looking,
                    // two would never sleep.
                    has_changed = had_work || inner.has_left_out || !self.inbox.is_announcing();
                }
                Err(error) => {
                    self.put_back(&mut inner, inbox, &mut woken);
                    return Err(error);
                }
            }
            match has_changed || inner.is_closed || inner.waiters > 0 {
                true => self.put_back(&mut inner, inbox, &mut woken),
                false => inner.inbox = Some(inbox),
            }
            if is_over {
                return Ok(find(&mut inner.side));
            }
            if !woken.is_empty() {
                drop(inner);
                woken.wake();
                inner = self.lock();
            }
        }
    }

    /// Looks for a task, which is woken when it is to look again. `number`: which one it is; `until`: when it is to look in any case.
    pub(super) fn poll_for<T>(
        &self,
        context: &Context<'_>,
        (number, until): (u64, Option<Instant>),
        mut find: impl FnMut(&mut S) -> Option<T>,
    ) -> Result<Poll<T>, RecvError> {
        // From now on, a look that finds nothing leaves the inbox so that it announces what comes.
        if let Some(inbox) = &self.lock().inbox {
            inbox.watch();
        }
        if let Some(found) = self.wait_for(Until::Now, &mut find)? {
            return Ok(Poll::Ready(found));
        }
        let mut woken = Woken::default(); // dropped after the lock
        let mut inner = self.lock();
        let inner = &mut *inner;
        // Another thread may have taken something meanwhile. If it still has the inbox, it does what has become due.
        let due = match (&mut inner.inbox, inner.is_closed) {
            (None, false) => None,
            (inbox, _) => inner.side.tend(inbox.as_deref_mut()),
        };
        if let Some(found) = find(&mut inner.side) {
            return Ok(Poll::Ready(found));
        }
        inner.has_tasks = true;
        let until = until.into_iter().chain(due).min();
        self.tasks.wait(number, context.waker(), until, &mut woken);
        match inner.inbox.is_some() {
            true if self.inbox.is_announcing() => self.tasks.watch()?,
            // More may be in it than one look takes, or a thread has put it back meanwhile.
            true => self.tasks.take(&mut woken),
            false => inner.has_left_out = true, // the thread that has it wakes the task
        }
        Ok(Poll::Pending)
    }

    /// Changes the side. If `change` returns true, all threads and tasks that wait look again.
    pub(super) fn change(&self, change: impl FnOnce(&mut S) -> bool) {
        let mut woken = Woken::default();
        let mut inner = self.lock();
        if change(&mut inner.side) {
            self.wake(&mut inner, &mut woken);
            self.inbox.nudge(); // a thread that receives just now
        }
    }

    fn put_back(&self, inner: &mut Inner<S>, inbox: Box<Inbox>, woken: &mut Woken) {
        match inner.is_closed {
            true => drop(inbox),
            false => inner.inbox = Some(inbox),
        }
        self.wake(inner, woken);
    }

    /// Whether the inbox is closed: its server, or the last of its clients, was dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Closes the inbox. Nothing comes any more.
    pub(super) fn close(&self) {
        let mut woken = Woken::default();
        let mut inner = self.lock();
        inner.is_closed = true;
        let inbox = inner.inbox.take();
        self.wake(&mut inner, &mut woken);
        drop(inner);
        self.inbox.stop(); // a thread that receives just now drops the inbox
        drop(inbox);
    }
}

impl<S> Drop for Exchange<S> {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.tasks.close();
        }
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::name::Address;
    use crate::receive::builder::InboxBuilder;
    use crate::{Domain, Node};

    /// How often it was told that its inbox is closed.
    #[derive(Debug, Default)]
    struct Told(u32);

    impl Side for Told {
        fn has_work(&self) -> bool {
            true
        }

        fn heard(&mut self, _: &mut Inbox, _: Heard) {}

        fn tend(&mut self, inbox: Option<&mut Inbox>) -> Option<Instant> {
            self.0 += u32::from(inbox.is_none());
            None
        }

        fn idle(&mut self) {}
    }

    /// How often a task was woken.
    #[derive(Default)]
    struct Counted(std::sync::atomic::AtomicU32);

    impl std::task::Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Nothing comes, and it does nothing by itself.
    #[derive(Debug)]
    struct Idle;

    impl Side for Idle {
        fn has_work(&self) -> bool {
            false
        }

        fn heard(&mut self, _: &mut Inbox, _: Heard) {}

        fn tend(&mut self, _: Option<&mut Inbox>) -> Option<Instant> {
            None
        }

        fn idle(&mut self) {}
    }

    /// Otherwise two tasks that wait for the replies of one client wake each other for ever, and so does one that looks twice.
    #[test]
    fn a_task_that_looks_and_finds_nothing_wakes_no_other() {
        let domain = Domain::at(format!("/dev/shm/librpc_unit_{}_lookers", std::process::id()));
        let node = Node::builder("node").domain(domain).open().unwrap();
        let inbox = InboxBuilder::new(node.owned(), Ok(Address::Replies)).open().unwrap();
        let exchange = Exchange::new(inbox, Idle, node.shared().reactor());
        let woken: [Arc<Counted>; 2] = Default::default();
        for round in 0..3 {
            for (number, counted) in woken.iter().enumerate() {
                let waker = Waker::from(counted.clone());
                let polled = exchange.poll_for(&Context::from_waker(&waker), (number as u64, None), |_| None::<()>);
                assert!(polled.unwrap().is_pending());
                let times = woken.each_ref().map(|counted| counted.0.load(std::sync::atomic::Ordering::Relaxed));
                assert_eq!(times, [0, 0], "in round {round}, by task {number}");
            }
        }
        exchange.inbox.nudge();
        while woken.iter().any(|counted| counted.0.load(std::sync::atomic::Ordering::Relaxed) == 0) {
            std::thread::yield_now(); // something has come: the background thread wakes both
        }
    }

    /// Otherwise the calls of a dead server would count as looked for, although nobody has looked.
    #[test]
    fn a_task_does_not_take_an_inbox_that_a_thread_has_for_a_closed_one() {
        let domain = Domain::at(format!("/dev/shm/librpc_unit_{}_exchange", std::process::id()));
        let node = Node::builder("node").domain(domain).open().unwrap();
        let inbox = InboxBuilder::new(node.owned(), Ok(Address::Replies)).open().unwrap();
        let exchange = Exchange::new(inbox, Told::default(), node.shared().reactor());
        std::thread::scope(|scope| {
            let receiving = scope.spawn(|| exchange.wait_for(Until::Forever, |_| None::<()>));
            while exchange.lock().inbox.is_some() {
                std::thread::yield_now();
            }
            let polled = exchange.poll_for(&Context::from_waker(Waker::noop()), (1, None), |_| None::<()>);
            let told = exchange.lock().side.0;
            exchange.inbox.stop();
            assert!(receiving.join().unwrap().unwrap().is_none());
            assert!(polled.unwrap().is_pending());
            assert_eq!(told, 0);
        });
    }
}
