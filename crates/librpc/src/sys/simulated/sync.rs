//! Locks and condition variables of one simulated process.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::inherit::Inherit;
use super::machine::machine;

/// Words that threads of one process share: others may come in between any two accesses.
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::Ordering;

    use super::machine;

    pub(crate) fn fence(_order: Ordering) {
        machine().point();
    }

    pub(crate) fn compiler_fence(_order: Ordering) {
        machine().point();
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(std::sync::atomic::$name);

            #[allow(dead_code, reason = "not each of them is used for each type")]
            impl $name {
                pub(crate) const fn new(value: $value) -> Self {
                    Self(std::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    machine().point();
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    machine().point();
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    machine().point();
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    machine().point();
                    self.0.fetch_or(value, order)
                }

                pub(crate) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                    machine().point();
                    self.0.fetch_and(value, order)
                }
            }
        };
    }

    atomic!(AtomicBool, bool);
    atomic!(AtomicU8, u8);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);

    macro_rules! counter {
        ($name:ident, $value:ty) => {
            impl $name {
                pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                    machine().point();
                    self.0.fetch_add(value, order)
                }
            }
        };
    }

    counter!(AtomicU32, u32);
    counter!(AtomicU64, u64);
}

/// A lock.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    /// Names it, once it was used. (Not by its address, at which another one may be later.)
    id: AtomicUsize,
    is_locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a thread that reaches the value holds the lock, alone.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// A lock that is held.
#[derive(Debug)]
pub(crate) struct MutexGuard<'m, T> {
    of: &'m Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { id: AtomicUsize::new(0), is_locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    fn key(&self) -> usize {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        match self.id.load(Ordering::Relaxed) {
            0 => {
                let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
                self.id.store(id, Ordering::Relaxed);
                id
            }
            id => id,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        machine().before_lock(self.key());
        self.lock_now()
    }

    /// `None`: another thread has it.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        machine().point();
        if self.is_locked.swap(true, Ordering::Relaxed) {
            return None;
        }
        machine().took_lock(self.key());
        Some(MutexGuard { of: self })
    }

    fn lock_now(&self) -> MutexGuard<'_, T> {
        while self.is_locked.swap(true, Ordering::Relaxed) {
            machine().wait(self.key(), None, "a lock");
        }
        machine().took_lock(self.key());
        MutexGuard { of: self }
    }

    fn release(&self) {
        self.is_locked.store(false, Ordering::Relaxed);
        machine().released_lock(self.key());
    }
}

/// A forked child has a lock of its own, of the same name. (If another thread held it, the machine remembers that it is locked
/// for ever.)
impl<T: Inherit> Inherit for Mutex<T> {
    fn copy(&self) -> Self {
        // SAFETY: no reference to the value is in use: the thread that forks is here, and no other one runs meanwhile. What
        // another thread was in the middle of, a child would copy as it is, too.
        let value = unsafe { &*self.value.get() }.copy();
        Self { id: self.key().into(), ..Self::new(value) }
    }
}

impl<'m, T> MutexGuard<'m, T> {
    /// Gives the lock up, and says which it was. Nobody runs in between.
    fn unlock(self) -> &'m Mutex<T> {
        let of = ManuallyDrop::new(self).of;
        of.release();
        of
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock.
        unsafe { &*self.of.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread holds the lock.
        unsafe { &mut *self.of.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.of.release();
        machine().point();
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    /// It is known by its address, and so must have one of its own.
    _byte: u8,
}

impl Condvar {
    fn key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn notify_all(&self) {
        machine().notify_all(self.key());
    }

    /// `false`: the time has come.
    fn wait_until<'m, T>(&self, guard: MutexGuard<'m, T>, limit: Option<Duration>) -> (MutexGuard<'m, T>, bool) {
        let lock = guard.unlock();
        let limit = limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let notified = machine().wait(self.key(), limit, "a condition variable");
        (lock.lock_now(), notified)
    }

    pub(crate) fn wait_timeout<'m, T>(&self, guard: MutexGuard<'m, T>, limit: Duration) -> MutexGuard<'m, T> {
        self.wait_until(guard, Some(limit)).0
    }

    pub(crate) fn wait_while<'m, T>(
        &self,
        mut guard: MutexGuard<'m, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        while condition(&mut guard) {
            guard = self.wait_until(guard, None).0;
        }
        guard
    }

    pub(crate) fn wait_timeout_while<'m, T>(
        &self,
        mut guard: MutexGuard<'m, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'m, T> {
        let begun = crate::sys::clock::Instant::now();
        while condition(&mut guard) {
            let Some(left) = limit.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else { break };
            guard = self.wait_until(guard, Some(left)).0;
        }
        guard
    }
}
