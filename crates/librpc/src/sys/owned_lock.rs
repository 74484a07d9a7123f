//! A lock with one owner, who takes it with two plain stores and a load, and visitors, who pay for that.
//!
//! The owner says that it is inside, and looks whether a visitor wants to be; a visitor says that it wants to be, has a barrier in all threads
//! of this process, and looks whether the owner is inside. Of both, at least one sees the other (Dekker; with the barrier of
//! `membarrier(2)` in the place of the owner's fence). A visitor that sees the owner leaves; an owner that sees a visitor waits for it.
//!
//! The idea is that of biased locks: Kawachiya, Koseki, Onodera, "Lock Reservation" (OOPSLA 2002).

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::sys::barrier;
use crate::sys::sync::atomic::{AtomicBool, AtomicU8, Ordering, compiler_fence, fence};
use crate::sys::sync::{Mutex, MutexGuard};

/// Bits of [`Inner::visited`].
const VISITED: u8 = 1;
/// Barriers do not reach this process, so the owner has a fence.
const FENCED: u8 = 2;

struct Inner<T> {
    is_owner_inside: AtomicBool,
    /// 0: nothing keeps the owner from being inside.
    visited: AtomicU8,
    /// A visitor has it from before it says that it wants to be inside until it has left.
    door: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: whoever is inside has the value alone, as with a mutex.
unsafe impl<T: Send> Send for Inner<T> {}
// SAFETY: the same.
unsafe impl<T: Send> Sync for Inner<T> {}

/// The owner's side.
pub(crate) struct Owner<T>(Arc<Inner<T>>);

/// A visitor's side.
pub(crate) struct Visitor<T>(Arc<Inner<T>>);

/// The owner is inside.
pub(crate) struct OwnerInside<'o, T>(&'o Inner<T>);

/// A visitor is inside.
pub(crate) struct VisitorInside<'v, T> {
    inner: &'v Inner<T>,
    _door: MutexGuard<'v, ()>,
}

/// A value with an owner, and with visitors.
pub(crate) fn owned<T>(value: T) -> (Owner<T>, Visitor<T>) {
    made(value, !barrier::is_registered())
}

fn made<T>(value: T, has_own_fence: bool) -> (Owner<T>, Visitor<T>) {
    let inner = Arc::new(Inner {
        is_owner_inside: AtomicBool::new(false),
        visited: AtomicU8::new(if has_own_fence { FENCED } else { 0 }),
        door: Mutex::new(()),
        value: UnsafeCell::new(value),
    });
    (Owner(inner.clone()), Visitor(inner))
}

impl<T> Owner<T> {
    /// The hot path of [`Owner::enter`]. There is one owner, and it is borrowed until it has left. `None`: call that.
    #[inline(always)]
    pub(crate) fn enter_at_once(&mut self) -> Option<OwnerInside<'_, T>> {
        let inner = &*self.0;
        // Relaxed: the barrier of a visitor orders the two.
        inner.is_owner_inside.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // Acquire: what a visitor did is seen.
        if inner.visited.load(Ordering::Acquire) == 0 {
            return Some(OwnerInside(inner));
        }
        inner.is_owner_inside.store(false, Ordering::Release);
        None
    }

    /// Goes inside; waits for a visitor to leave.
    pub(crate) fn enter(&mut self) -> OwnerInside<'_, T> {
        let inner = &*self.0;
        loop {
            inner.is_owner_inside.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // Acquire: what a visitor did is seen.
            if inner.visited.load(Ordering::Acquire) & VISITED == 0 {
                return OwnerInside(inner);
            }
            inner.is_owner_inside.store(false, Ordering::Release);
            drop(inner.door.lock());
        }
    }
}

impl<T> Visitor<T> {
    /// Goes inside, unless somebody is.
    pub(crate) fn try_enter(&self) -> Option<VisitorInside<'_, T>> {
        let inner = &*self.0;
        let door = inner.door.try_lock()?;
        inner.visited.fetch_or(VISITED, Ordering::Relaxed);
        barrier::in_own_threads();
        // Acquire: what the owner did is seen.
        if inner.is_owner_inside.load(Ordering::Acquire) {
            inner.visited.fetch_and(!VISITED, Ordering::Release);
            return None;
        }
        Some(VisitorInside { inner, _door: door })
    }
}

impl<T> Deref for OwnerInside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the owner is inside, so nobody else is.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for OwnerInside<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the owner is inside, so nobody else is, and this is borrowed.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for OwnerInside<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.is_owner_inside.store(false, Ordering::Release);
    }
}

impl<T> Deref for VisitorInside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this visitor has the door, and the owner is not inside, and does not go inside while it is visited.
        unsafe { &*self.inner.value.get() }
    }
}

impl<T> DerefMut for VisitorInside<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and this is borrowed.
        unsafe { &mut *self.inner.value.get() }
    }
}

impl<T> Drop for VisitorInside<'_, T> {
    fn drop(&mut self) {
        self.inner.visited.fetch_and(!VISITED, Ordering::Release); // before the door is open
    }
}

#[cfg(all(test, not(feature = "simulated")))]
mod tests {
    use super::*;

    /// Two numbers that are the same whenever nobody is inside.
    fn count(pair: &mut (u64, u64)) {
        assert_eq!(pair.0, pair.1);
        pair.0 += 1;
        std::hint::black_box(&mut *pair);
        pair.1 += 1;
    }

    #[test]
    fn the_owner_and_visitors_are_never_inside_together() {
        for has_own_fence in [false, true] {
            barrier::prepare();
            let (mut owner, visitor) = made((0_u64, 0_u64), has_own_fence);
            const ROUNDS: u64 = 200_000;
            let done = AtomicBool::new(false);
            let visits = std::thread::scope(|scope| {
                let visiting = scope.spawn(|| {
                    let mut visits = 0;
                    while !done.load(Ordering::Relaxed) {
                        if let Some(mut inside) = visitor.try_enter() {
                            count(&mut inside);
                            visits += 1;
                        }
                    }
                    visits
                });
                for _ in 0..ROUNDS {
                    let mut inside = owner.enter();
                    count(&mut inside);
                }
                done.store(true, Ordering::Relaxed);
                visiting.join().unwrap()
            });
            assert_eq!(*owner.enter(), (ROUNDS + visits, ROUNDS + visits));
        }
    }

    #[test]
    fn an_owner_waits_for_a_visitor_and_a_visitor_leaves() {
        let (mut owner, visitor) = owned(0);
        let inside = owner.enter();
        assert!(visitor.try_enter().is_none());
        drop(inside);
        let mut visiting = visitor.try_enter().expect("nobody is inside");
        assert!(visitor.try_enter().is_none(), "nor a second one");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| *owner.enter());
            while !visitor.0.is_owner_inside.load(Ordering::Relaxed) && !waiting.is_finished() {
                *visiting += 1;
                if *visiting > 1000 {
                    break;
                }
            }
            let seen = *visiting;
            drop(visiting);
            assert_eq!(waiting.join().unwrap(), seen);
        });
    }
}
