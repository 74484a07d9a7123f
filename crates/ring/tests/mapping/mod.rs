//! Anonymous shared memory, mapped as a ring.

#![allow(unsafe_code)]
#![allow(dead_code, reason = "not every test measures")]

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use librpc_ring::{Mapped, ReadOnly, Segment, Writable, ack_segment, data_segments};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A mapping, unmapped when its last user is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: an address. Only dropping it has an effect.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: all that `map` reserved, and the last user is gone.
        unsafe { munmap(self.base.as_ptr(), self.bytes) }.expect("a mapping");
    }
}

/// The smallest capacity that this system can map.
pub(crate) fn smallest_capacity() -> u64 {
    rustix::param::page_size() as u64
}

/// An anonymous file, and how it is mapped.
pub(crate) struct Memfd {
    fd: OwnedFd,
    segments: Vec<Segment>,
}

impl Memfd {
    /// The memory of a sender.
    pub(crate) fn data(capacity: u64) -> Self {
        Self::new(data_segments(capacity).into())
    }

    /// The memory of a receiver.
    pub(crate) fn ack() -> Self {
        Self::new(vec![ack_segment(rustix::param::page_size())])
    }

    fn new(segments: Vec<Segment>) -> Self {
        let fd = memfd_create(c"ring", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&fd, segments[0].bytes as u64).expect("space");
        Self { fd, segments }
    }

    /// How many bytes of the file take memory.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        512 * fstat(&self.fd).expect("a memfd").st_blocks as u64
    }

    fn map<Access>(&self, protection: ProtFlags) -> Mapped<Access, Arc<Mapping>> {
        let bytes = self.segments.iter().map(|segment| segment.bytes).sum();
        // SAFETY: a new range of addresses.
        let base = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) };
        let base = NonNull::new(base.expect("addresses")).expect("not null");
        let mapping = Arc::new(Mapping { base, bytes });
        for segment in &self.segments {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: the segments lie within the range that was just reserved.
            unsafe {
                let at = base.as_ptr().byte_add(segment.address_offset);
                mmap(at, segment.bytes, protection, flags, &self.fd, segment.file_offset as u64)
            }
            .expect("a mapping");
        }
        // SAFETY: these bytes are mapped shared memory, with the access that the callers below ask for. The owner unmaps it,
        // and nobody makes a reference into it.
        unsafe { Mapped::new(base.cast(), bytes, mapping) }
    }

    pub(crate) fn read_only(&self) -> Mapped<ReadOnly, Arc<Mapping>> {
        self.map(ProtFlags::READ)
    }

    pub(crate) fn writable(&self) -> Mapped<Writable, Arc<Mapping>> {
        self.map(ProtFlags::READ | ProtFlags::WRITE)
    }
}
