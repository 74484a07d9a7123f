//! Mappings of shared memory: segments of a file, side by side.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use librpc_ring::{Mapped, ReadOnly, Segment, layout};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// How long a huge page is, in bytes, on most machines. Elsewhere this is an alignment like any other.
const HUGE_PAGE: usize = 2 << 20;

/// The words of a region, which `Owner` keeps mapped.
pub(crate) type Words<Access, Owner> = Mapped<Access, Owner>;

/// A stretch of the address space. It is not inherited by forked children.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address and a length. What is done with the memory goes through `Words`.
unsafe impl Send for Region {}
// SAFETY: nothing in it changes while it is shared.
unsafe impl Sync for Region {}

impl Region {
    /// Maps segments of a file. What was mapped before a failure is unmapped again.
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        segments: impl Iterator<Item = Segment> + Clone,
        writable: bool,
    ) -> Result<Self, Errno> {
        let region = Self::reserve(segments.clone().map(|segment| segment.bytes).sum())?;
        region.fill(fd, segments, writable).inspect_err(|_| {
            // SAFETY: the range was reserved above, and nobody has seen it.
            unsafe { region.unmap() }
        })?;
        Ok(region)
    }

    /// Reserves addresses. Those of a long region begin where a huge page may begin.
    fn reserve(bytes: usize) -> Result<Self, Errno> {
        let spare = if bytes < HUGE_PAGE { 0 } else { HUGE_PAGE };
        let wanted = bytes.checked_add(spare).ok_or(Errno::NOMEM)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let begin = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), wanted, ProtFlags::empty(), flags) }?;
        let begin = NonNull::new(begin.cast::<u8>()).expect("the kernel maps nothing at address 0");
        let before = if spare == 0 { 0 } else { begin.addr().get().wrapping_neg() % HUGE_PAGE };
        // SAFETY: `before` is at most `spare`.
        let base = unsafe { begin.add(before) };
        for (from, bytes) in [(0, before), (before + bytes, spare - before)] {
            if bytes > 0 {
                // SAFETY: a part of what was reserved just now, which nobody has seen. If it fails, some addresses are lost.
                let _ = unsafe { rustix::mm::munmap(begin.add(from).as_ptr().cast(), bytes) };
            }
        }
        Ok(Self { base, bytes })
    }

    fn fill(&self, fd: BorrowedFd<'_>, segments: impl Iterator<Item = Segment>, writable: bool) -> Result<(), Errno> {
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let fixed = MapFlags::SHARED | MapFlags::FIXED;
        for Segment { address_offset, file_offset, bytes } in segments {
            assert!(address_offset + bytes <= self.bytes, "the segments lie side by side");
            // SAFETY: replaces a part of the range that was reserved just now and that nobody uses.
            unsafe {
                let at = self.base.add(address_offset).as_ptr().cast();
                rustix::mm::mmap(at, bytes, access, fixed, fd, file_offset as u64)
            }?;
        }
        // SAFETY: the range is ours; the advice changes what a child inherits.
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, Advice::LinuxDontFork) }
    }

    /// Its words.
    ///
    /// # Safety
    ///
    /// `owner` keeps the region mapped. `Access = Writable` only if it was mapped writable.
    pub(crate) unsafe fn words<Access, Owner>(&self, owner: Owner) -> Words<Access, Owner> {
        // SAFETY: mapped while the owner lives, by this function's contract; page-aligned; no reference to a byte of it is
        // ever made.
        unsafe { Mapped::new(self.base, self.bytes, owner) }
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Maps every page now. `false`: the kernel does not know this, or was interrupted. Then each is mapped when it is touched.
    pub(crate) fn populate(&self, writable: bool) -> bool {
        let populate = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: the range is ours; the advice changes no content.
        let advise = |advice| unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, advice) };
        let _ = advise(Advice::LinuxHugepage); // without it there are small pages
        advise(populate).is_ok()
    }

    fn at(&self, offset: usize, bytes: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset, "the part is in the region");
        // SAFETY: in range by the check.
        unsafe { self.base.add(offset) }
    }

    /// Copies a part that another process may be writing.
    pub(crate) fn copy_to(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `from` is mapped for that length; the destination is private memory, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into.as_mut_ptr(), into.len()) };
        librpc_ring::keep_copy();
    }

    /// The address of a part.
    pub(crate) fn address(&self, offset: usize, bytes: usize) -> *const u8 {
        self.at(offset, bytes).as_ptr()
    }

    /// A part as a slice.
    ///
    /// # Safety
    ///
    /// Nobody writes the part while the slice is used.
    pub(crate) unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
        // SAFETY: mapped for that length, and not written, by this function's contract.
        unsafe { std::slice::from_raw_parts(self.at(offset, bytes).as_ptr(), bytes) }
    }

    /// A part to be filled.
    ///
    /// # Safety
    ///
    /// The region was mapped writable, and stays mapped while the part is used. Nobody else touches the part until then.
    pub(crate) unsafe fn part(&self, offset: usize, bytes: usize) -> Part {
        Part { base: self.at(offset, bytes), bytes }
    }

    /// Unmaps it.
    ///
    /// # Safety
    ///
    /// No words of it are left, and it is unmapped once, by the process that has mapped it.
    pub(crate) unsafe fn unmap(&self) {
        // SAFETY: the stretch was mapped by `map`, and nobody uses it, by this function's contract.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A part of a region that one owner fills.
#[derive(Debug)]
pub(crate) struct Part {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: its owner has the memory for itself, as it would have a vector's.
unsafe impl Send for Part {}
// SAFETY: as above.
unsafe impl Sync for Part {}

impl Part {
    /// Others may read it from now on.
    pub(crate) fn finish(self) {}
}

impl std::ops::Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, and nobody else's, by the contract of `Region::part`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.bytes) }
    }
}

impl std::ops::DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and writable.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.bytes) }
    }
}

/// A page of zeros, which is always there.
pub(crate) fn zeros<Owner>(owner: Owner) -> Words<ReadOnly, Owner> {
    #[repr(align(64))]
    struct Zeros([u64; layout::ACK_BYTES / 8]);
    static ZEROS: Zeros = Zeros([0; layout::ACK_BYTES / 8]);
    let base = NonNull::from(&ZEROS.0).cast::<u8>();
    // SAFETY: a static is there for ever, and this one is never written; reading it through atomics harms nobody.
    unsafe { Mapped::new(base, layout::ACK_BYTES, owner) }
}
