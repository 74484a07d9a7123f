//! The operating system, and the only unsafe code about it: what the rest of the crate asks for, in safe functions.
#![allow(unsafe_code)]

pub(crate) mod clock; //      moments of the clock that all processes share
pub(crate) mod file; //       files and directories of the registry
pub(crate) mod kernel; //     optional features of the kernel, probed
pub(crate) mod lock; //       open-file-description locks (liveness) and flock (membership)
pub(crate) mod memory; //     sealed memfds and their mappings
#[cfg(not(feature = "simulated"))]
mod os; //                    the system calls themselves
#[cfg(feature = "simulated")]
#[path = "simulated/mod.rs"]
mod os; //                    the same of a simulated machine
pub(crate) mod owned_lock; // a lock that costs its owner next to nothing
pub(crate) mod poll; //       epoll and eventfd
pub(crate) mod process; //    what this process has once, and what the kernel says about others
pub(crate) mod reactor; //    the one background thread of a process
pub(crate) mod runtime; //    runtimes that watch a descriptor themselves
pub(crate) mod slots; //      memory for payloads, in equal slots
pub(crate) mod socket; //     SOCK_SEQPACKET: listen, connect, messages, descriptors, credentials
pub(crate) mod tasks; //      futures that wait without a thread
pub(crate) mod watch; //      inotify on a directory

use std::borrow::Cow;
use std::io;

pub use kernel::Kernel;
#[cfg(feature = "simulated")]
pub use os::machine;
pub(crate) use os::{OwnedFd, sync, thread};
pub(crate) use process::descriptor::Descriptor;
pub(crate) use process::{barrier, dispose, fork};

/// A system call that failed: what it was for, and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {source}{}", hint(.source))]
pub struct OsError {
    /// What was tried, with the name of the file or node.
    pub doing: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl OsError {
    pub(crate) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// Whether what was lacking may be there again in a moment: descriptors (also those that
    /// are in a queue), memory, room in a queue.
    pub(crate) fn is_passing(&self) -> bool {
        use Errno as E;
        use os::io::Errno;
        let passing = [E::AGAIN, E::INTR, E::MFILE, E::NFILE, E::NOMEM, E::NOBUFS, E::TOOMANYREFS];
        passing.into_iter().any(|errno| self.is(errno))
    }

    /// Whether the kernel answered with this number.
    pub(crate) fn is(&self, errno: os::io::Errno) -> bool {
        self.source.raw_os_error() == Some(errno.raw_os_error())
    }
}

/// What a user can do about a resource that is used up.
fn hint(error: &io::Error) -> Cow<'static, str> {
    use os::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC) => " (free some space on that tmpfs, or enlarge it)".into(),
        Some(Errno::MFILE) => " (this process has used up its descriptors: raise `ulimit -n`)".into(),
        Some(Errno::NFILE) => " (the machine has used up its descriptors)".into(),
        Some(Errno::NOMEM | Errno::NOBUFS) => " (memory or a limit on it is used up)".into(),
        Some(Errno::FBIG) => {
            let limit = file::size_limit().map_or("no limit now".into(), |limit| format!("{limit} bytes at most"));
            format!(" (the file-size limit of this process: {limit}; raise `ulimit -f`, or LimitFSIZE= in systemd)")
                .into()
        }
        _ => "".into(),
    }
}

pub(crate) trait Context<T> {
    /// Says what a failed call was for.
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, OsError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, doing: impl FnOnce() -> String) -> Result<T, OsError> {
        self.map_err(|source| OsError::new(doing(), source))
    }
}
