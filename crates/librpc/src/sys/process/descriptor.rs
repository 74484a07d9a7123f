//! Descriptors that a forked child does not keep.
//!
//! A lock, a socket or a membership lives as long as any copy of its descriptor: a child that kept one would keep a dead
//! parent looking alive. So every descriptor is noted in a table, and the child closes all of them.
//!
//! Invariant: a set bit in the table is a descriptor that a [`Descriptor`] of this process holds; the gate is held while one
//! is made and noted, or closed, so no fork falls between.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{fork, here};
use crate::sys::os::OwnedFd;
use crate::sys::os::inherit::NOTED;

/// The descriptors that are open, a bit for each. Those of higher numbers are not closed in a child.
pub(super) struct Table(pub(super) [AtomicU64; NOTED / 64]);

impl Table {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; NOTED / 64])
    }

    fn set(&self, fd: impl AsFd, is_open: bool) {
        let fd = fd.as_fd().as_raw_fd() as usize;
        let Some(word) = self.0.get(fd / 64) else { return };
        let bit = 1 << (fd % 64);
        // Relaxed: the gate orders what threads do here, and the one thread of a child sees what its parent's had written.
        match is_open {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Closes every descriptor that is noted, in a forked child.
    pub(super) fn close_all(&self) {
        for (index, word) in self.0.iter().enumerate() {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let fd = (index * 64) as RawFd + bits.trailing_zeros() as RawFd;
                // SAFETY: a noted descriptor belongs to a `Descriptor` of an older generation, which closes nothing here.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
                bits &= bits - 1;
            }
        }
    }
}

/// An owned descriptor that a forked child does not keep.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    born: u64,
}

impl Descriptor {
    /// Makes a descriptor with `open`, which must not block.
    pub(crate) fn open<E>(open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        let born = fork::generation(); // before there is a new descriptor: in a child it closes the inherited ones
        let _gate = fork::gate();
        let fd = open()?;
        here().open.set(&fd, true);
        Ok(Self { fd: ManuallyDrop::new(fd), born })
    }

    /// Hands the descriptor over, to be closed elsewhere.
    pub(crate) fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        let _gate = fork::gate();
        here().open.set(&*this.fd, false);
        // SAFETY: taken once, and `self` is never dropped.
        unsafe { ManuallyDrop::take(&mut this.fd) }
    }

    /// Whether it was made by this process, and not by the one that forked it.
    pub(crate) fn is_ours(&self) -> bool {
        self.born == fork::generation()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        if self.is_ours() {
            return self.fd.as_fd();
        }
        // The number was closed in this child, and may be another file's by now: nobody's is used instead.
        // SAFETY: the kernel never gives this number away (`nr_open` is less), so nothing is done to any file through it.
        unsafe { BorrowedFd::borrow_raw(RawFd::MAX) }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if !self.is_ours() {
            return; // closed in this child already
        }
        let _gate = fork::gate();
        here().open.set(&*self.fd, false);
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}
