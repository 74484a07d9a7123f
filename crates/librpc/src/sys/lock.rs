//! Two kinds of locks that the kernel releases when their holder dies: open-file-description locks say who is alive,
//! `flock` counts the members of a domain. None of these calls waits.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

fn whole_file(kind: libc::c_int) -> libc::flock {
    // SAFETY: all-zero is a valid `flock`: from byte 0 to the end, whatever that will be.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock
}

fn call(fd: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open, and `lock` is a valid `flock` for the duration of the call.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Takes the write lock. `false`: somebody holds a lock on it.
pub(crate) fn try_own(fd: impl AsFd) -> io::Result<bool> {
    match call(fd, libc::F_OFD_SETLK, &mut whole_file(libc::F_WRLCK)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else holds the write lock. A read lock, which any reader could take, does not count.
pub(crate) fn is_owned(fd: impl AsFd) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_RDLCK);
    call(fd, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Becomes one of the members: `false` while a last member is clearing up.
pub(crate) fn try_share(fd: impl AsFd) -> io::Result<bool> {
    flock(fd, FlockOperation::NonBlockingLockShared)
}

/// Gives the membership up, and becomes the only holder if nobody else is a member.
pub(crate) fn try_last(fd: impl AsFd) -> io::Result<bool> {
    flock(fd, FlockOperation::NonBlockingLockExclusive)
}

/// Gives the membership up at once: a child that is being spawned may hold a copy of the descriptor for a moment.
pub(crate) fn release(fd: impl AsFd) -> io::Result<()> {
    flock(fd, FlockOperation::Unlock).map(drop)
}

fn flock(fd: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(fd, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
