//! Anonymous shared memory, mapped as a ring.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use librpc_ring::{Mapped, ReadOnly, Writable};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping, unmapped when its last user is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: an address; only dropping it does anything.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the whole of what `map` has reserved, and the last user is gone.
        unsafe { munmap(self.base.as_ptr(), self.bytes) }.expect("a mapping");
    }
}

/// Anonymous shared memory: `header` bytes, then `ring` bytes that every mapping shows twice in a row.
pub(crate) struct Memfd {
    fd: OwnedFd,
    header: usize,
    ring: usize,
}

impl Memfd {
    pub(crate) fn new(header: usize, ring: usize) -> Self {
        let fd = memfd_create(c"ring", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&fd, (header + ring) as u64).expect("space");
        Self { fd, header, ring }
    }

    fn map<Access>(&self, protection: ProtFlags) -> Mapped<Access, Arc<Mapping>> {
        let bytes = self.header + 2 * self.ring;
        // SAFETY: a new range of addresses.
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base = NonNull::new(base.expect("addresses")).expect("not null");
        let mapping = Arc::new(Mapping { base, bytes });
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let show = |at: usize, bytes: usize, offset: usize| {
            if bytes > 0 {
                // SAFETY: within the range just reserved.
                unsafe { mmap(base.as_ptr().byte_add(at), bytes, protection, flags, &self.fd, offset as u64) }
                    .expect("a mapping");
            }
        };
        show(0, self.header + self.ring, 0);
        show(self.header + self.ring, self.ring, self.header);
        // SAFETY: one shared mapping of these bytes, with the access that the callers below ask for; the owner unmaps
        // it, and nobody makes a reference into it.
        unsafe { Mapped::new(base.cast(), bytes, mapping) }
    }

    pub(crate) fn read_only(&self) -> Mapped<ReadOnly, Arc<Mapping>> {
        self.map(ProtFlags::READ)
    }

    pub(crate) fn writable(&self) -> Mapped<Writable, Arc<Mapping>> {
        self.map(ProtFlags::READ | ProtFlags::WRITE)
    }
}
