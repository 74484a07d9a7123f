//! A memory barrier in other processes: `membarrier(2)`. The side that sleeps pays for it, so that the side that sends need not.

use std::sync::atomic::{AtomicBool, Ordering};

use super::here;
use crate::sys::os::barrier::{GLOBAL_EXPEDITED, QUERY, REGISTER_GLOBAL_EXPEDITED, membarrier};

/// What has been found out. A forked child inherits it: its memory is registered as its parent's was.
pub(super) struct State {
    pub(super) is_registered: AtomicBool,
    pub(super) is_available: AtomicBool,
}

impl State {
    pub(super) const fn new() -> Self {
        Self { is_registered: AtomicBool::new(false), is_available: AtomicBool::new(false) }
    }
}

fn can_be_had() -> bool {
    let commands = membarrier(QUERY);
    commands > 0 && commands & GLOBAL_EXPEDITED != 0
}

/// Has the barriers of other processes count for this one, and finds out whether it can have some itself, where that is not
/// known yet. Called when a node is opened, before it starts a thread: registering a process of one thread takes a
/// microsecond, one of several threads waits for the kernel for milliseconds.
pub(crate) fn prepare() {
    let state = &here().barriers;
    // Relaxed, here and below: nothing else is published by these. Two threads may do this twice.
    if !state.is_registered.load(Ordering::Relaxed) {
        state.is_registered.store(membarrier(REGISTER_GLOBAL_EXPEDITED) == 0, Ordering::Relaxed);
        state.is_available.store(can_be_had() && membarrier(GLOBAL_EXPEDITED) == 0, Ordering::Relaxed);
    }
}

/// Whether the barriers of other processes count for this one.
pub(crate) fn is_registered() -> bool {
    here().barriers.is_registered.load(Ordering::Relaxed)
}

/// Whether this process can have a barrier in others.
pub(crate) fn is_available() -> bool {
    here().barriers.is_available.load(Ordering::Relaxed)
}

/// A full barrier in every running thread of every process that has registered. `false`: a sandbox that was entered
/// since forbids it, and what another process is writing just now may not be seen.
#[must_use]
pub(crate) fn everywhere() -> bool {
    let done = membarrier(GLOBAL_EXPEDITED) == 0;
    if !done && here().barriers.is_available.swap(false, Ordering::Relaxed) {
        tracing::error!("membarrier is not allowed any more: sleeping receivers look again every millisecond");
    }
    done
}

/// A full barrier here and in every running thread of this process, if it has registered.
pub(crate) fn in_own_threads() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    // Where the barrier is forbidden by now, every core has emptied its store buffer long before this sleep ends.
    if is_registered() && !everywhere() {
        crate::sys::thread::sleep(std::time::Duration::from_millis(1));
    }
}
