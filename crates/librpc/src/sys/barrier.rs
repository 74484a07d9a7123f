//! A memory barrier in other processes: `membarrier(2)`. Whoever sleeps pays for it, so that whoever sends need not.

use std::sync::OnceLock;

const QUERY: libc::c_long = 0;
const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;

fn membarrier(command: libc::c_long) -> libc::c_long {
    // SAFETY: the call takes three numbers, and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Has the barriers of other processes count for this one; `false`: the kernel cannot.
pub(crate) fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    // A forked child's memory is registered as its parent's was.
    *REGISTERED.get_or_init(|| membarrier(REGISTER_GLOBAL_EXPEDITED) == 0)
}

/// Whether this process can have a barrier in others.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| membarrier(QUERY) & GLOBAL_EXPEDITED != 0 && membarrier(GLOBAL_EXPEDITED) == 0)
}

/// A full barrier in every running thread of every process that has registered.
pub(crate) fn everywhere() {
    // It cannot fail once it has succeeded, but for a sandbox that was entered since: then processes sleep less soundly.
    if membarrier(GLOBAL_EXPEDITED) != 0 {
        tracing::error!("membarrier is not allowed any more: a wake-up may be late");
    }
}

/// A full barrier here and in every running thread of this process, if it has registered.
pub(crate) fn in_own_threads() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    if register() {
        everywhere();
    }
}
