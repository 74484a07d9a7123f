//! A task that waits until it can send.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::registry::lookout::Waiting;
use crate::sys::clock::Instant;
use crate::sys::tasks::{Tasks, Woken};

/// The only task that waits for an outbox: it belongs to one at a time.
const NUMBER: u64 = 0;
/// The background thread, where it shares the outbox.
const BACKGROUND: u64 = 1;
/// What wants to know what happens to the subscriptions.
const EVENTS: u64 = 2;

/// A task that waits. Its waker is left before it looks, so that nothing that changes after the look is missed.
pub(crate) struct Task<'t> {
    pub(crate) tasks: &'t Arc<Tasks>,
    waker: &'t Waker,
    number: u64,
}

impl<'t> Task<'t> {
    /// `until`: when it looks again in any case.
    pub(crate) fn new(tasks: &'t Arc<Tasks>, waker: &'t Waker, until: Option<Instant>) -> Self {
        tasks.wait(NUMBER, waker, until, &mut Woken::default());
        Self { tasks, waker, number: NUMBER }
    }

    /// The background thread, as a task.
    pub(crate) fn in_background(tasks: &'t Arc<Tasks>, waker: &'t Waker) -> Self {
        tasks.wait(BACKGROUND, waker, None, &mut Woken::default());
        Self { tasks, waker, number: BACKGROUND }
    }

    /// What is marked when something has happened, as a task.
    pub(crate) fn for_events(tasks: &'t Arc<Tasks>, waker: &'t Waker) -> Self {
        tasks.wait(EVENTS, waker, None, &mut Woken::default());
        Self { tasks, waker, number: EVENTS }
    }

    /// Has it look again when something has changed in a domain.
    pub(crate) fn watch(&self, waiting: &mut Waiting) {
        waiting.watches_another();
        waiting.wake(self.waker, None);
    }

    /// Has it look again after this time, because nobody reports what it waits for.
    pub(crate) fn look_after(&self, pause: Duration) {
        self.tasks.wait(self.number, self.waker, Some(Instant::now() + pause), &mut Woken::default());
    }
}
