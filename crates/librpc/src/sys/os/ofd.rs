//! Open-file-description locks on single bytes of a file. None of these calls waits.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// A kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Several may hold it.
    Read,
    /// One may hold it.
    Write,
}

fn one_byte(kind: Kind, byte: u64) -> libc::flock {
    // SAFETY: all-zero is a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = match kind {
        Kind::Read => libc::F_RDLCK,
        Kind::Write => libc::F_WRLCK,
    } as libc::c_short;
    (lock.l_start, lock.l_len) = (byte as libc::off_t, 1);
    lock
}

fn call(fd: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and `lock` is a valid `flock` for the duration of the call.
    match unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, lock) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).expect("the kernel gives a number")),
        _ => Ok(()),
    }
}

/// Takes a lock (`F_OFD_SETLK`); `AGAIN` or `ACCESS` where somebody's lock is in the way.
pub(crate) fn set(fd: impl AsFd, byte: u64, kind: Kind) -> Result<(), Errno> {
    call(fd, libc::F_OFD_SETLK, &mut one_byte(kind, byte))
}

/// The lock that would be in the way of this one (`F_OFD_GETLK`).
pub(crate) fn in_the_way(fd: impl AsFd, byte: u64, kind: Kind) -> Result<Option<Kind>, Errno> {
    let mut lock = one_byte(kind, byte);
    call(fd, libc::F_OFD_GETLK, &mut lock)?;
    Ok(match libc::c_int::from(lock.l_type) {
        libc::F_UNLCK => None,
        libc::F_RDLCK => Some(Kind::Read),
        _ => Some(Kind::Write),
    })
}
