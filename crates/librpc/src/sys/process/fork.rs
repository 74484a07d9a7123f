//! What tells a forked child from its parent.
//!
//! A child has a copy of everything but the mappings, the other threads, and the descriptors of this crate, which it closes
//! before it runs anything else. Whatever was made before the fork carries an older *generation* and fails in the child with
//! a clear error: one load of a page that the kernel wipes on fork shows it.
//!
//! Invariant: the forking thread holds the gate. So a child finds everything behind the gate unlocked, every descriptor of
//! this crate noted, and every mapping marked as one that children do not inherit. All other locks of this crate belong to
//! handles of the parent, which a child never reaches.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{MutexGuard, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{Gated, here};
use crate::sys::{Context, OsError};

/// Counts how often this process, or the one that it is a fork of, has become a child.
pub(super) struct Generation {
    /// Set by [`prepare`], and never changed again: a word of 0 in a child that has not counted yet.
    page: AtomicPtr<AtomicU64>,
    /// One more than the number of forks. Inherited; the wiped page has the child count on.
    counted: AtomicU64,
}

impl Generation {
    pub(super) const fn new() -> Self {
        Self { page: AtomicPtr::new(std::ptr::null_mut()), counted: AtomicU64::new(1) }
    }

    #[inline(always)]
    fn page(&self) -> Option<&'static AtomicU64> {
        // Acquire: pairs with the Release in `prepare`, which comes after the word was written.
        let page = self.page.load(Ordering::Acquire);
        // SAFETY: null, or a page that `prepare` has mapped for the rest of the process's life, and that is only ever used
        // as this atomic.
        unsafe { page.as_ref() }
    }
}

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, Gated>>> = const { RefCell::new(None) };
}

/// Sets up fork detection, once per process. Threads that do so at the same time do not wait for one another: a child that
/// is forked meanwhile sets it up by itself.
pub(crate) fn prepare() -> Result<(), OsError> {
    let generation = &here().generation;
    if generation.page().is_some() {
        return Ok(());
    }
    // Rounded up to a page. (Asking rustix for the size of one ends the process under valgrind.)
    let bytes = size_of::<AtomicU64>();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }
        .context(|| "map a page that tells a forked child".into())?;
    // SAFETY: the page was mapped just now, and is ours alone.
    unsafe { rustix::mm::madvise(page, bytes, Advice::LinuxWipeOnFork) }
        .context(|| "have the kernel wipe a page on fork".into())?;
    let page = page.cast::<AtomicU64>();
    // SAFETY: mapped, aligned, zeroed, and used by nobody else yet.
    unsafe { &*page }.store(generation.counted.load(Ordering::Relaxed), Ordering::Relaxed);
    // The handlers first: whoever finds the page relies on them. Registered twice, they do the same as once.
    // SAFETY: the three functions live as long as the process, and what they do is allowed in a forked child: they lock and
    // unlock the gate, close descriptors, and use atomics.
    let failed = unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    if failed != 0 {
        let error = std::io::Error::from_raw_os_error(failed);
        return Err(OsError::new("have a forked child close what it inherits", error));
    }
    // Release: pairs with the Acquire in `Generation::page`.
    let none = std::ptr::null_mut();
    if generation.page.compare_exchange(none, page, Ordering::Release, Ordering::Relaxed).is_err() {
        // SAFETY: another thread was faster, and nobody knows of this page.
        let _ = unsafe { rustix::mm::munmap(page.cast(), bytes) };
    }
    Ok(())
}

/// A number that differs between a process and its forked children. Two loads.
#[inline]
pub(crate) fn generation() -> u64 {
    let Some(page) = here().generation.page() else { return unprepared() };
    match page.load(Ordering::Relaxed) {
        0 => enter_child(page),
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
    page: &'static AtomicU64,
    generation: u64,
}

impl Born {
    /// In this one.
    pub(crate) fn now() -> Self {
        let generation = generation();
        let here = &here().generation;
        Self { page: here.page().unwrap_or(&here.counted), generation }
    }

    /// Whether this is still that process, and no forked child of it. One load.
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.page.load(Ordering::Relaxed) == self.generation || generation() == self.generation
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

/// Locks the gate, for a moment: nothing that may block is done while it is held, and nothing that locks it again.
pub(in crate::sys) fn gate() -> Gate {
    let generation = generation();
    let mut gated = lock();
    gated.enter(generation);
    Gate(gated)
}

/// Does something that no thread forks in the middle of, such as making a value that others would wait for. Not for anything
/// that makes or closes descriptors.
#[cfg(feature = "fault-points")]
pub(crate) fn undivided<T>(act: impl FnOnce() -> T) -> T {
    let _gate = gate();
    act()
}

fn lock() -> MutexGuard<'static, Gated> {
    here().gate.lock().unwrap_or_else(PoisonError::into_inner)
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
    // Without a page nothing was made yet, and no handler is the place to map one.
    if here().generation.page().is_some() {
        generation();
    }
    after_fork();
}

/// Closes what was inherited and starts a generation of its own. Also reached where a fork ran no handlers.
#[cold]
fn enter_child(page: &AtomicU64) -> u64 {
    let here = here();
    let generation = here.generation.counted.fetch_add(1, Ordering::Relaxed) + 1;
    page.store(generation, Ordering::Relaxed);
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
