//! An object that one thread or task uses at a time. Who uses it takes it out, and puts it back.
//!
//! Another user waits (of a sender), or gets an error that says so (of an inbox). The lock is held for a moment only, and only with the GIL:
//! so a fork never finds it locked.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

use crate::blocking::block_on;
use crate::errors;

/// How often this process was forked off another.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// In a forked child, before anything else.
#[pyfunction]
pub(crate) fn _forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// In which process this is: another number in each forked child.
pub(crate) fn process() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Why an object cannot be used.
enum Unusable {
    Closed,
    Forked,
    InUse(User),
}

/// Who uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Thread(ThreadId),
    /// A task of this thread's event loop.
    Task(ThreadId),
    /// A thread of the bindings, on behalf of one that no longer waits, perhaps.
    Helper,
}

impl User {
    pub(crate) fn thread() -> Self {
        Self::Thread(thread::current().id())
    }

    pub(crate) fn task() -> Self {
        Self::Task(thread::current().id())
    }
}

pub(crate) struct Handle<T> {
    /// What it is, for errors: "inbox".
    what: &'static str,
    process: u64,
    slot: Mutex<Slot<T>>,
}

struct Slot<T> {
    value: Option<Box<T>>,
    user: Option<User>,
    is_closed: bool,
    waiting: Vec<Waker>,
}

impl<T: Send> Handle<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Arc<Self> {
        let slot = Slot { value: Some(Box::new(value)), user: None, is_closed: false, waiting: Vec::new() };
        Arc::new(Self { what, process: process(), slot: Mutex::new(slot) })
    }

    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        self.slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn try_take(self: &Arc<Self>, user: User) -> Result<Guard<T>, Unusable> {
        if self.process != process() {
            return Err(Unusable::Forked);
        }
        let mut slot = self.slot();
        if slot.is_closed {
            return Err(Unusable::Closed);
        }
        match slot.value.take() {
            Some(value) => {
                slot.user = Some(user);
                Ok(Guard { handle: self.clone(), value: Some(value) })
            }
            None => Err(Unusable::InUse(slot.user.unwrap_or(User::Helper))),
        }
    }

    fn error(&self, py: Python<'_>, unusable: &Unusable) -> PyErr {
        let what = self.what;
        match unusable {
            Unusable::Closed => errors::closed(py, what),
            Unusable::Forked => errors::forked(py, what),
            Unusable::InUse(user @ User::Thread(_)) if *user == User::thread() => {
                errors::in_use(py, format!("this thread uses this {what} just now: a signal handler cannot"))
            }
            Unusable::InUse(User::Thread(_) | User::Helper) => {
                errors::in_use(py, format!("another thread uses this {what} just now"))
            }
            Unusable::InUse(User::Task(_)) => errors::in_use(py, format!("a task waits for this {what} just now")),
        }
    }

    /// Takes it for a moment, or fails if it is in use.
    pub(crate) fn take(self: &Arc<Self>, py: Python<'_>) -> PyResult<Guard<T>> {
        self.try_take(User::thread()).map_err(|unusable| self.error(py, &unusable))
    }

    /// The same for a task.
    pub(crate) fn take_for_task(self: &Arc<Self>, py: Python<'_>) -> PyResult<Guard<T>> {
        self.try_take(User::task()).map_err(|unusable| self.error(py, &unusable))
    }

    /// Takes it once it is free. It fails if this very thread has it, in a task or below a signal handler: that would wait for ever.
    pub(crate) fn wait(self: &Arc<Self>, py: Python<'_>) -> PyResult<Guard<T>> {
        match self.try_take(User::thread()) {
            Ok(guard) => Ok(guard),
            Err(in_use @ Unusable::InUse(user)) if user == User::task() || user == User::thread() => {
                Err(self.error(py, &in_use))
            }
            Err(Unusable::InUse(_)) => {
                let taken = block_on(py, self.clone().when_free(User::thread()), None, false)?;
                taken.expect("it has no time limit")
            }
            Err(unusable) => Err(self.error(py, &unusable)),
        }
    }

    /// Takes it once it is free, in a task.
    pub(crate) async fn when_free(self: Arc<Self>, user: User) -> PyResult<Guard<T>> {
        std::future::poll_fn(|context| self.poll_take(context, user)).await
    }

    fn poll_take(self: &Arc<Self>, context: &Context<'_>, user: User) -> Poll<PyResult<Guard<T>>> {
        // A blocked thread polls without the GIL.
        Python::attach(|py| match self.try_take(user) {
            Ok(guard) => Poll::Ready(Ok(guard)),
            Err(Unusable::InUse(_)) => {
                self.slot().waiting.push(context.waker().clone());
                Poll::Pending
            }
            Err(unusable) => Poll::Ready(Err(self.error(py, &unusable))),
        })
    }

    /// Closes it. What it is goes to the caller, unless somebody uses it: then it ends when that user puts it back.
    pub(crate) fn close(&self) -> Option<Box<T>> {
        if self.process != process() {
            return None;
        }
        let (value, waiting) = {
            let mut slot = self.slot();
            slot.is_closed = true;
            (slot.value.take(), std::mem::take(&mut slot.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        value
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.process != process() || self.slot().is_closed
    }
}

/// It is in use as long as this is there.
pub(crate) struct Guard<T: Send> {
    handle: Arc<Handle<T>>,
    value: Option<Box<T>>,
}

impl<T: Send> Guard<T> {
    /// From now on a thread of the bindings uses it, which goes on if its owner stops waiting.
    pub(crate) fn hand_over(&self) {
        self.handle.slot().user = Some(User::Helper);
    }
}

impl<T: Send> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("it is put back when this is dropped")
    }
}

impl<T: Send> DerefMut for Guard<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("it is put back when this is dropped")
    }
}

impl<T: Send> Drop for Guard<T> {
    fn drop(&mut self) {
        let mut value = self.value.take();
        let waiting = {
            let mut slot = self.handle.slot();
            slot.user = None;
            if !slot.is_closed {
                slot.value = value.take();
            }
            std::mem::take(&mut slot.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
        drop(value); // it was closed meanwhile
    }
}
