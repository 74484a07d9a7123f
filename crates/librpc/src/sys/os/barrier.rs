//! `membarrier(2)`.

pub(crate) const QUERY: i64 = 0;
pub(crate) const GLOBAL_EXPEDITED: i64 = 1 << 1;
pub(crate) const REGISTER_GLOBAL_EXPEDITED: i64 = 1 << 2;

/// Negative if it failed.
pub(crate) fn membarrier(command: i64) -> i64 {
    // SAFETY: the call takes three numbers, and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command as libc::c_long, 0, 0) as i64 }
}
