//! Sealed memfds and their mappings.
//!
//! A memory is made, mapped writable by its one writer, and then sealed so that nobody, the writer included, can map it
//! writable again or change its size. A process that receives one checks exactly that before it trusts a byte of it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use librpc_ring::{Memory, MemoryMut, ReadOnly, Segment, Writable, ack_segment, data_segments, layout};

use super::os;
use super::os::fs::{MemfdFlags, SealFlags, SeekFrom};
use super::os::io::Errno;
pub(crate) use super::os::process::page_size;
pub(crate) use super::os::region::Part;
use super::os::region::{self, Region, Words};
use super::{Context, Descriptor, OsError, file, fork};

const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Bytes of one step of an allocation.
const ALLOCATED_AT_ONCE: usize = 32 << 20;

fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// Why a descriptor is not the sealed memory that was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMemory {
    #[error("the descriptor is not a memfd")]
    NotMemory,
    #[error("the memfd has too few seals: {0:#x}")]
    Unsealed(u32),
    #[error("the memfd is not on tmpfs (type {0:#x})")]
    NotTmpfs(u64),
    #[error("the memfd has {found} bytes, not {expected}")]
    Size { found: u64, expected: u64 },
    #[error("the memfd has channel layout version {found}, this process uses version {expected}")]
    Version { found: u64, expected: u64 },
    #[error("the memfd has a hole at byte {at}, which would be filled at this process's expense")]
    Hole { at: u64 },
    #[error(transparent)]
    Os(#[from] OsError),
}

/// How a memory lies in the address space.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A sender's memory: a header and a ring of this many bytes, the ring mapped twice in a row.
    Data { capacity: u64 },
    /// A receiver's memory.
    Ack,
    /// A sender's memory for payloads. All of it is allocated when it is made, so no access to it lacks memory.
    Payloads { bytes: u64 },
    /// One page of the registry.
    Registry,
}

impl Shape {
    /// The segment that is the whole file, and the one that is mapped after it.
    fn segments(self) -> (Segment, Option<Segment>) {
        match self {
            Self::Data { capacity } => {
                let [whole, again] = data_segments(capacity);
                (whole, Some(again))
            }
            Self::Ack => (ack_segment(page_size()), None),
            Self::Payloads { bytes } => (Segment { address_offset: 0, file_offset: 0, bytes: bytes as usize }, None),
            Self::Registry => {
                let bytes = super::file::PAGE as usize;
                (Segment { address_offset: 0, file_offset: 0, bytes }, None)
            }
        }
    }

    fn file_bytes(self) -> u64 {
        self.segments().0.bytes as u64
    }

    /// The former layout version whose memory of this shape has this size, if the size of today's is another one.
    fn former_version(self, bytes: u64) -> Option<u64> {
        match self {
            // Its header had 4,096 bytes.
            Self::Data { capacity } => (bytes == 4096 + capacity).then_some(1),
            // It had no hold words.
            Self::Ack => (bytes == 4096 && self.file_bytes() != 4096).then_some(2),
            Self::Payloads { .. } | Self::Registry => None,
        }
    }
}

/// A promise: a process that lends memory to this one does not write it while it is lent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust(());

impl Trust {
    /// Makes the promise.
    ///
    /// # Safety
    ///
    /// It must hold, for every peer whose memory is read as a slice.
    pub(crate) unsafe fn promise() -> Self {
        Self(())
    }
}

/// A mapping of a memory. It is not inherited by forked children.
#[derive(Debug)]
pub(crate) struct Mapping {
    region: Region,
    writable: bool,
    born: u64,
}

/// Whether the kernel makes memory that nothing is ever executed from.
pub(crate) fn can_seal_execution() -> bool {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    Descriptor::open(|| os::fs::memfd_create("librpc-probe", flags)).is_ok()
}

impl Mapping {
    /// Makes a memory of this shape, zeroed; maps it writable and seals it.
    pub(crate) fn create(shape: Shape) -> Result<(Self, Descriptor), OsError> {
        let bytes = shape.file_bytes();
        let doing = || format!("make shared memory of {bytes} bytes");
        file::check_size(bytes).context(doing)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = Descriptor::open(|| match os::fs::memfd_create("librpc", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => os::fs::memfd_create("librpc", flags),
            made => made,
        })
        .context(doing)?;
        os::fs::ftruncate(&fd, bytes).context(doing)?;
        let mapping = Self::map(fd.as_fd(), shape, true)?;
        if let Shape::Payloads { bytes } = shape {
            // Touching it first lets the kernel use huge pages. What it cannot touch is missing, and that is an error below.
            let is_touched = mapping.populate();
            // In steps: a signal interrupts each, and what it has allocated is undone.
            let mut steps = (0..bytes).step_by(ALLOCATED_AT_ONCE);
            let allocate = |offset| file::allocate(&fd, offset, (bytes - offset).min(ALLOCATED_AT_ONCE as u64));
            steps.try_for_each(allocate).context(doing)?;
            if !is_touched {
                mapping.touch(); // a page that was only allocated counts as a hole
            }
        }
        os::fs::fcntl_add_seals(&fd, seals()).context(|| "seal shared memory".into())?;
        Ok((mapping, fd))
    }

    /// Checks a received descriptor and maps it read-only. Nothing here can block, whatever the descriptor is.
    pub(crate) fn receive(fd: impl AsFd, shape: Shape) -> Result<Self, BadMemory> {
        let fd = fd.as_fd();
        // Only memory file systems answer this; it is asked first because others may be slow to answer anything.
        let found = os::fs::fcntl_get_seals(fd).map_err(|_| BadMemory::NotMemory)?;
        if !found.contains(seals()) {
            return Err(BadMemory::Unsealed(found.bits()));
        }
        let kind = os::fs::fstatfs(fd).context(|| "look at received memory".into())?.f_type as u64;
        if kind != TMPFS_MAGIC {
            return Err(BadMemory::NotTmpfs(kind));
        }
        let stat = os::fs::fstat(fd).context(|| "look at received memory".into())?;
        let (found, expected) = (stat.st_size as u64, shape.file_bytes());
        if let Some(found) = shape.former_version(found) {
            return Err(BadMemory::Version { found, expected: layout::VERSION });
        }
        if found != expected {
            return Err(BadMemory::Size { found, expected });
        }
        if matches!(shape, Shape::Payloads { .. }) {
            // The seals forbid to make holes afterwards. How much memory the file has says nothing: it may be after its end.
            let at = os::fs::seek(fd, SeekFrom::Hole(0)).context(|| "look at received memory".into())?;
            if at < expected {
                return Err(BadMemory::Hole { at });
            }
        }
        Ok(Self::map(fd, shape, false)?)
    }

    /// Maps the first page of a file of a private domain read-only: one that no other user could truncate.
    pub(crate) fn registry_page(fd: std::os::fd::BorrowedFd<'_>) -> Result<Self, OsError> {
        Self::map(fd, Shape::Registry, false)
    }

    fn map(fd: BorrowedFd<'_>, shape: Shape, writable: bool) -> Result<Self, OsError> {
        let (whole, again) = shape.segments();
        // No thread forks until a child would not inherit it.
        let (born, _gate) = (fork::generation(), fork::gate());
        let region = Region::map(fd, std::iter::once(whole).chain(again), writable);
        Ok(Self { region: region.context(|| "map shared memory".into())?, writable, born })
    }

    /// Maps every page of a memory for payloads now, huge ones where the kernel allows that, so that no access waits for the
    /// kernel. `false`: not every one.
    pub(crate) fn populate(&self) -> bool {
        self.region.populate(self.writable)
    }

    /// Writes to every page of a memory that was just made.
    fn touch(&self) {
        // SAFETY: the mapping is borrowed for as long as there are words of it.
        let words: Words<Writable, &Self> = unsafe { self.region.words(self) };
        let pages = (0..self.region.bytes()).step_by(page_size());
        pages.for_each(|at| words.store(at / layout::WORD, 0, Ordering::Relaxed)); // no other process has it yet
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.region.bytes() as u64
    }

    /// Copies a part of a memory that its maker may be writing. A part out of range is our own mistake.
    pub(crate) fn copy_to(&self, offset: u64, into: &mut [u8]) {
        self.region.copy_to(offset as usize, into);
    }

    /// Appends a copy of a part of a memory that its maker may be writing.
    pub(crate) fn append_to(&self, offset: u64, bytes: u64, into: &mut Vec<u8>) {
        self.borrowed().read(offset as usize / layout::WORD, bytes as usize, into);
    }

    /// The words of the memory, to be read while it is borrowed.
    pub(crate) fn borrowed(&self) -> Words<ReadOnly, &Self> {
        // SAFETY: the mapping is borrowed for as long as there are words of it.
        unsafe { self.region.words(self) }
    }

    /// The address of a part.
    pub(crate) fn address(&self, offset: u64, bytes: u64) -> *const u8 {
        self.region.address(offset as usize, bytes as usize)
    }

    /// A part of a memory whose maker is trusted not to write it, as long as somebody here has it.
    pub(crate) fn trusted(&self, offset: u64, bytes: u64, _trust: &Trust) -> &[u8] {
        // SAFETY: nobody writes it, as the maker of the token has promised.
        unsafe { self.region.slice(offset as usize, bytes as usize) }
    }

    /// A part of a memory that was made here, to be filled.
    ///
    /// # Safety
    ///
    /// No other [`Part`] that is not finished overlaps it, and the mapping outlives it.
    pub(crate) unsafe fn part(&self, offset: u64, bytes: u64) -> Part {
        assert!(self.writable, "only the maker of a memory writes it");
        // SAFETY: by this function's contract.
        unsafe { self.region.part(offset as usize, bytes as usize) }
    }

    /// The memory, to be read.
    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        // SAFETY: the owner, this mapping, keeps the region mapped.
        unsafe { self.region.words(Some(self.clone())) }
    }

    /// The memory, to be written: by this process, which made it.
    pub(crate) fn writer(self: &Arc<Self>) -> Writer {
        assert!(self.writable, "only the maker of a memory writes it");
        // SAFETY: as in `reader`, and mapped writable.
        unsafe { self.region.words(self.clone()) }
    }
}

/// A memory that is read; `None` owns the page of zeros.
pub(crate) type Reader = Words<ReadOnly, Option<Arc<Mapping>>>;
/// A memory that is written.
pub(crate) type Writer = Words<Writable, Arc<Mapping>>;

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.born == fork::generation() {
            // SAFETY: all words of it own a share of this, so none is left; it is dropped once.
            unsafe { self.region.unmap() };
        }
    }
}

/// A page of zeros for a sender whose receiver has not answered: it never consumes, and it never sleeps.
pub(crate) fn no_ack() -> Reader {
    region::zeros(None)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    const CAPACITY: u64 = 65_536; // a page, wherever this runs
    const BYTES: u64 = layout::HEADER_BYTES as u64 + CAPACITY;

    fn memfd(more: MemfdFlags, bytes: u64, seals: SealFlags) -> Result<OwnedFd, Errno> {
        let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | more)?;
        rustix::fs::ftruncate(&fd, bytes)?;
        rustix::fs::fcntl_add_seals(&fd, seals)?;
        Ok(fd)
    }

    fn received(fd: impl AsFd) -> Result<Mapping, BadMemory> {
        Mapping::receive(fd, Shape::Data { capacity: CAPACITY })
    }

    #[test]
    fn only_sealed_memory_of_the_agreed_size_is_accepted() {
        let plain = MemfdFlags::empty();
        assert!(received(memfd(plain, BYTES, seals()).unwrap()).is_ok());
        assert!(received(memfd(plain, BYTES, seals() | SealFlags::EXEC).unwrap()).is_ok(), "one seal more");
        for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
            let fd = memfd(plain, BYTES, seals() - missing).unwrap();
            assert!(matches!(received(fd), Err(BadMemory::Unsealed(_))), "without {missing:?}");
        }
        for bytes in [0, 4096, BYTES - 1, BYTES + 1, BYTES + 4096] {
            let fd = memfd(plain, bytes, seals()).unwrap();
            assert!(matches!(received(fd), Err(BadMemory::Size { found, .. }) if found == bytes));
        }
    }

    /// Whoever touches a hole pays for the page.
    #[test]
    fn memory_for_payloads_has_no_holes() {
        use rustix::fs::{FallocateFlags, fallocate};
        let shape = Shape::Payloads { bytes: BYTES };
        let sparse = |offset: u64, bytes: u64| {
            let fd = memfd(MemfdFlags::empty(), BYTES, SealFlags::empty()).unwrap();
            if bytes > 0 {
                fallocate(&fd, FallocateFlags::KEEP_SIZE, offset, bytes).unwrap();
            }
            rustix::fs::fcntl_add_seals(&fd, seals()).unwrap();
            fd
        };
        for fd in [sparse(0, 0), sparse(BYTES, BYTES)] {
            assert!(matches!(Mapping::receive(fd, shape), Err(BadMemory::Hole { at: 0 })));
        }
        let (_mapping, whole) = Mapping::create(shape).unwrap();
        assert_eq!(Mapping::receive(whole, shape).unwrap().bytes(), BYTES);
    }

    /// As on a kernel that does not populate.
    #[test]
    fn memory_that_is_touched_page_by_page_has_no_holes() {
        let fd = memfd(MemfdFlags::empty(), BYTES, SealFlags::empty()).unwrap();
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, BYTES).unwrap();
        let shape = Shape::Payloads { bytes: BYTES };
        Mapping::map(fd.as_fd(), shape, true).unwrap().touch();
        rustix::fs::fcntl_add_seals(&fd, seals()).unwrap();
        assert!(Mapping::receive(fd, shape).is_ok());
    }

    #[test]
    fn memory_of_layout_version_1_is_refused_by_name() {
        let fd = memfd(MemfdFlags::empty(), 4096 + CAPACITY, seals()).unwrap();
        let refused = received(fd).unwrap_err().to_string();
        assert_eq!(refused, "the memfd has channel layout version 1, this process uses version 3");
    }

    #[test]
    fn a_descriptor_that_is_not_memory_is_refused() {
        let (pipe, _other) = rustix::pipe::pipe().unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        for fd in [OwnedFd::from(std::fs::File::open("/dev/null").unwrap()), std::fs::File::open("/").unwrap().into()] {
            assert!(matches!(received(fd), Err(BadMemory::NotMemory)));
        }
        assert!(matches!(received(pipe), Err(BadMemory::NotMemory)));
        assert!(matches!(received(socket), Err(BadMemory::NotMemory)));
    }

    /// Huge pages can be sealed all the same, but run out: touching one is then a SIGBUS.
    #[test]
    fn huge_pages_are_refused() {
        if let Ok(fd) = memfd(MemfdFlags::HUGETLB, 0, seals()) {
            assert!(matches!(received(fd), Err(BadMemory::NotTmpfs(_))));
        }
    }
}
