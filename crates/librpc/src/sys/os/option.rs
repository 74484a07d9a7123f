//! Options of sockets that rustix does not have.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Since Linux 6.16: whether a socket takes descriptors. Not in libc yet.
const SO_PASSRIGHTS: libc::c_int = 83;

/// What the kernel says of the process at the other end, from when it connected or began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// 0 if the process is in a pid namespace that is not visible from here.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Says whether a socket takes descriptors (`SO_PASSRIGHTS`).
pub(crate) fn accept_descriptors(socket: impl AsFd, accept: bool) -> io::Result<()> {
    let value = libc::c_int::from(accept);
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the value is an int of the length given.
    match unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const value).cast(), bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Who is at the other end. (Not through rustix, whose type has no place for the pid 0 of an invisible process.)
pub(crate) fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the buffer is a `ucred` of the length given.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut bytes) };
    match result {
        0 => Ok(Credentials { pid: found.pid as u32, uid: found.uid, gid: found.gid }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The supplementary groups of the process at the other end; fails if there are more than 1,024.
pub(crate) fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 1024];
    let mut bytes = size_of_val(&groups[..]) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and the buffer has the length given.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut bytes)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}
