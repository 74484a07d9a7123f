//! Descriptors and memory that a forked child must not use.
//!
//! A lock, a socket or a membership lives as long as any copy of its descriptor. A child that inherited one would keep a
//! dead parent looking alive. So every descriptor of this crate is noted in a table, and the child closes them all in an
//! atfork handler before it runs anything else. Everything that was made before the fork bears an older *generation*, and
//! fails in the child with a clear error: one load of a page that the kernel wipes on fork tells.
//!
//! Invariant: a set bit in `OPEN` is a descriptor that a [`Descriptor`] of this process holds. [`GATE`] is held while one
//! is made and noted, and by the forking thread, so no fork falls between.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::{Context, OsError};

/// Descriptors with higher numbers than this are not closed in a child. (No system allows more than 2^20 by default.)
const TABLE: usize = 1 << 20;
static OPEN: [AtomicU64; TABLE / 64] = [const { AtomicU64::new(0) }; TABLE / 64];
static GATE: Mutex<()> = Mutex::new(());
/// How often this process has become a child, plus one. Inherited; the wiped page makes the child count on.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);
static PAGE: OnceLock<&'static AtomicU64> = OnceLock::new();

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Sets up fork detection, once per process.
pub(crate) fn prepare() -> Result<(), OsError> {
    if PAGE.get().is_some() {
        return Ok(());
    }
    // Rounded up to a page. (Asking rustix how long one is ends the process under valgrind.)
    let bytes = size_of::<AtomicU64>();
    let flags = MapFlags::PRIVATE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let page =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) }
            .context(|| "map a page that tells a forked child".into())?;
    // SAFETY: the page was mapped just now, and is ours alone.
    unsafe { rustix::mm::madvise(page, bytes, Advice::LinuxWipeOnFork) }
        .context(|| "have the kernel wipe a page on fork".into())?;
    // SAFETY: mapped for the rest of the process's life, aligned, zeroed, and only used as this atomic.
    let word: &'static AtomicU64 = unsafe { &*page.cast::<AtomicU64>() };
    word.store(GENERATIONS.load(Ordering::Relaxed), Ordering::Relaxed);
    if PAGE.set(word).is_ok() {
        // SAFETY: the three functions live as long as the process, and what they do is allowed in a forked child: they
        // lock and unlock the gate, close descriptors, and use atomics.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child)) };
    }
    Ok(())
}

/// A number that differs between a process and its forked children. One load.
#[inline]
pub(crate) fn generation() -> u64 {
    let Some(page) = PAGE.get() else { return GENERATIONS.load(Ordering::Relaxed) };
    match page.load(Ordering::Relaxed) {
        0 => enter_child(page),
        generation => generation,
    }
}

/// In which process something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Born {
    page: &'static AtomicU64,
    generation: u64,
}

impl Born {
    /// In this one.
    pub(crate) fn now() -> Self {
        let generation = generation();
        Self { page: PAGE.get().copied().unwrap_or(&GENERATIONS), generation }
    }

    /// Whether this is still that process, and no forked child of it. One load.
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.page.load(Ordering::Relaxed) == self.generation || generation() == self.generation
    }
}

/// Keeps every other thread of the process from forking while it is held.
pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before_fork() {
    let guard = gate();
    HELD.with(|held| *held.borrow_mut() = Some(guard));
}

extern "C" fn after_fork() {
    HELD.with(|held| drop(held.borrow_mut().take()));
}

extern "C" fn in_child() {
    generation();
    after_fork();
}

/// Closes what was inherited and starts a generation of its own. Also reached where a fork ran no handlers.
#[cold]
fn enter_child(page: &AtomicU64) -> u64 {
    let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    page.store(generation, Ordering::Relaxed);
    for (index, word) in OPEN.iter().enumerate() {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let fd = (index * 64) as RawFd + bits.trailing_zeros() as RawFd;
            // SAFETY: a noted descriptor belongs to a `Descriptor` of an older generation, which closes nothing here.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            bits &= bits - 1;
        }
    }
    generation
}

fn bit(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let fd = fd as usize;
    OPEN.get(fd / 64).map(|word| (word, 1 << (fd % 64)))
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
        let born = generation(); // before there is a new descriptor: in a child it closes the inherited ones
        let _gate = gate();
        open().map(|fd| Self::note(fd, born))
    }

    fn note(fd: OwnedFd, born: u64) -> Self {
        if let Some((word, bit)) = bit(fd.as_raw_fd()) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Self { fd: ManuallyDrop::new(fd), born }
    }
}

impl Descriptor {
    /// Hands the descriptor over, to be closed elsewhere.
    pub(crate) fn into_owned(self) -> OwnedFd {
        let mut this = ManuallyDrop::new(self);
        let _gate = gate();
        if let Some((word, bit)) = bit(this.fd.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        // SAFETY: taken once, and `self` is never dropped.
        unsafe { ManuallyDrop::take(&mut this.fd) }
    }

    /// Whether it was made by this process, and not by the one that forked it.
    pub(crate) fn is_ours(&self) -> bool {
        self.born == generation()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.born != generation() {
            return; // closed in this child already; the number may be somebody else's
        }
        let _gate = gate();
        if let Some((word, bit)) = bit(self.fd.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        // SAFETY: dropped once, here.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}
