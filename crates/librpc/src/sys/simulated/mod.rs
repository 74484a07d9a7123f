//! The system calls of a simulated machine, under the names of the real room (`os`): the feature `simulated` puts this
//! one in its place. The machine itself is whatever the simulator (`sim/`) installs.

pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod event;
pub(crate) mod fs;
pub(crate) mod inherit;
pub(crate) mod io;
pub mod machine; //          what a machine has to offer
pub(crate) mod net;
pub(crate) mod ofd;
pub(crate) mod option;
pub(crate) mod path;
pub(crate) mod process;
pub(crate) mod region;
pub(crate) mod sync;
pub(crate) mod thread;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};

use machine::machine;

/// An owned descriptor of the simulated machine.
#[derive(Debug)]
pub(crate) struct OwnedFd(pub(in crate::sys) RawFd);

impl FromRawFd for OwnedFd {
    unsafe fn from_raw_fd(fd: RawFd) -> Self {
        Self(fd)
    }
}

impl AsRawFd for OwnedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number is not -1. It names nothing on the real machine, and is never given to it: all that takes a
        // descriptor goes through this room, which hands the number to the simulated one.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        machine().close(self.0);
    }
}

fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}
