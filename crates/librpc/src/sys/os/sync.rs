//! Locks and condition variables of one process.
//!
//! No code of the user's runs under a lock of this crate, and none of ours panics there: a poisoned lock is a bug of ours.

use std::sync::TryLockError;
use std::time::Duration;

pub(crate) use std::sync::{MutexGuard, atomic};

const POISONED: &str = "no code panics under a lock of this crate";

/// A lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect(POISONED)
    }

    /// `None`: another thread has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            taken => Some(taken.expect(POISONED)),
        }
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Condvar);

impl Condvar {
    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification, up to a limit.
    pub(crate) fn wait_timeout<'m, T>(&self, guard: MutexGuard<'m, T>, limit: Duration) -> MutexGuard<'m, T> {
        self.0.wait_timeout(guard, limit).expect(POISONED).0
    }

    /// Waits as long as a condition holds.
    pub(crate) fn wait_while<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        self.0.wait_while(guard, condition).expect(POISONED)
    }

    /// Waits as long as a condition holds, up to a limit.
    pub(crate) fn wait_timeout_while<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        limit: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        self.0.wait_timeout_while(guard, limit, condition).expect(POISONED).0
    }
}
