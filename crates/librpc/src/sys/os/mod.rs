//! The system calls as rustix and libc offer them, and what the standard library makes of them.
//!
//! Everything that this crate asks of the machine goes through here. The simulator (`sim/`) replaces this room by one with
//! the same names, which leads to a model of the kernel.

pub(crate) mod barrier; //   `membarrier`
pub(crate) mod clock; //     the time that both sides of a channel understand
pub(crate) mod inherit; //   what a forked child has of its parent's memory
pub(crate) mod ofd; //       open-file-description locks
pub(crate) mod option; //    options of sockets
pub(crate) mod path; //      what is read by its path alone
pub(crate) mod process; //   this process and others, as the kernel shows them
pub(crate) mod region; //    mappings of shared memory
pub(crate) mod sync; //      locks and condition variables
pub(crate) mod thread; //    a thread that takes no signals

pub(crate) use std::os::fd::OwnedFd;

pub(crate) use rustix::{event, fs, io, net};
