//! How a forked child is distinguished from its parent.
//!
//! A child has a copy of everything but the mappings, the other threads, and the descriptors of this crate, which it closes
//! before it runs anything else. Whatever was made before the fork carries an older *generation* and fails in the child with
//! a clear error: one load of a page that the kernel wipes on fork shows it.
//!
//! Invariant: the forking thread holds the gate. So a child finds everything that the gate protects unlocked, every descriptor of
//! this crate noted, and every mapping marked as one that children do not inherit. All other locks of this crate belong to
//! handles of the parent, which a child never reaches.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Gated, here};
use crate::sys::os::inherit::{self, WipedWord, Word, per_thread};
use crate::sys::sync::MutexGuard;
use crate::sys::{Context, OsError};

/// Counts how often this process, or the one that it is a fork of, has become a child.
pub(super) struct Generation {
    /// Made by [`prepare`]: 0 in a child that has not counted yet.
    pub(super) word: WipedWord,
    /// One more than the number of forks. Inherited; the wiped word has the child count on.
    pub(super) counted: AtomicU64,
}

impl Generation {
    pub(super) const fn new() -> Self {
        Self { word: WipedWord::new(), counted: AtomicU64::new(1) }
    }
}

per_thread! {
    static HELD: RefCell<Option<MutexGuard<'static, Gated>>> = RefCell::new(None);
}

/// Sets up fork detection, once per process. Threads that do so at the same time do not wait for one another: a child that
/// is forked meanwhile sets it up by itself.
pub(crate) fn prepare() -> Result<(), OsError> {
    let Generation { word, counted } = &here().generation;
    if word.get().is_some() {
        return Ok(());
    }
    // The handlers first: a thread that finds the word relies on them. Registered twice, they do the same as once. What they do is
    // allowed in a forked child: they lock and unlock the gate, close descriptors, and use atomics.
    word.make(counted.load(Ordering::Relaxed), || inherit::at_fork(before_fork, after_fork, in_child))
        .context(|| "have a forked child know that it is one".into())
}

/// A number that differs between a process and its forked children. Two loads.
#[inline]
pub(crate) fn generation() -> u64 {
    let Some(word) = here().generation.word.get() else { return unprepared() };
    match word.load(Ordering::Relaxed) {
        0 => enter_child(word),
        generation => generation,
    }
}

/// Something is made before the first node was opened.
#[cold]
fn unprepared() -> u64 {
    match prepare() {
        Ok(()) => generation(),
        Err(error) => {
            tracing::warn!(%error, "a forked child will not know that it is one");
            here().generation.counted.load(Ordering::Relaxed)
        }
    }
}

/// In which process something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    word: Word,
    generation: u64,
}

impl Born {
    /// In this one.
    pub(crate) fn now() -> Self {
        let generation = generation();
        let here = &here().generation;
        Self { word: here.word.get().unwrap_or_else(|| inherit::kept(&here.counted)), generation }
    }

    /// Whether this is still that process, and no forked child of it. One load.
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.word.load(Ordering::Relaxed) == self.generation || generation() == self.generation
    }
}

/// The gate, locked: what a forked child needs is in it, and no other thread of the process forks until this is dropped.
pub(in crate::sys) struct Gate(MutexGuard<'static, Gated>);

impl Deref for Gate {
    type Target = Gated;

    fn deref(&self) -> &Gated {
        &self.0
    }
}

impl DerefMut for Gate {
    fn deref_mut(&mut self) -> &mut Gated {
        &mut self.0
    }
}

/// Locks the gate, briefly: while it is held, nothing may block, and nothing may lock it again.
pub(in crate::sys) fn gate() -> Gate {
    let generation = generation();
    let mut gated = lock();
    gated.enter(generation);
    Gate(gated)
}

/// Does something that no thread forks in the middle of, such as making a value that others would wait for. Not for anything
/// that makes or closes descriptors.
#[cfg(all(feature = "fault-points", not(feature = "simulated")))]
pub(crate) fn undivided<T>(act: impl FnOnce() -> T) -> T {
    let _gate = gate();
    act()
}

fn lock() -> MutexGuard<'static, Gated> {
    here().gate.lock()
}

extern "C" fn before_fork() {
    HELD.with_borrow_mut(|held| {
        held.get_or_insert_with(lock);
    });
}

extern "C" fn after_fork() {
    HELD.with_borrow_mut(|held| drop(held.take()));
}

extern "C" fn in_child() {
    // Without the word nothing was made yet, and no handler is the place to map one.
    if here().generation.word.get().is_some() {
        generation();
    }
    after_fork();
}

/// Closes what was inherited and starts a generation of its own. Also reached where a fork ran no handlers.
#[cold]
fn enter_child(word: Word) -> u64 {
    let here = here();
    let generation = here.generation.counted.fetch_add(1, Ordering::Relaxed) + 1;
    word.store(generation, Ordering::Relaxed);
    here.open.close_all();
    generation
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the child would find the gate locked by a thread that it does not have.
    #[test]
    fn no_thread_forks_while_another_one_holds_the_gate() {
        let held = gate();
        let (says, number) = std::sync::mpsc::channel();
        let forking = std::thread::spawn(move || {
            // SAFETY: a number of this thread's.
            says.send(unsafe { libc::gettid() }).expect("the test listens");
            // SAFETY: the child locks the gate, with an alarm clock in case it is locked for ever, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: sets the clock.
                unsafe { libc::alarm(10) };
                drop(gate());
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) }
            }
            let mut status = 0;
            // SAFETY: waits for a child of this process, and fills an int.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            (waited == child, status)
        });
        let stat = format!("/proc/self/task/{}/stat", number.recv().expect("the thread says it"));
        // It sleeps at the gate, or, where nothing holds it there, for its child.
        while !std::fs::read_to_string(&stat).is_ok_and(|text| text.contains(") S ")) {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(forking.join().expect("it does not panic"), (true, 0), "the child has come through the gate");
    }
}
