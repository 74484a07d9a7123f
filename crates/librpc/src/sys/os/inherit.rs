//! What a forked child has of its parent's memory.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Bits of the table of descriptors. (No system allows more than 2^20 by default.)
pub(crate) const NOTED: usize = 1 << 20;

/// A static of which each process has its own; a forked child begins with a copy.
macro_rules! per_process {
    (static $name:ident: $type:ty = $value:expr;) => {
        static $name: $type = $value;
    };
}
pub(crate) use per_process;

/// A static of which each thread has its own. That of a thread that forks, the child's one thread inherits.
macro_rules! per_thread {
    (static $name:ident: $type:ty = $value:expr;) => {
        thread_local! {
            static $name: $type = const { $value };
        }
    };
}
pub(crate) use per_thread;

/// A word that a child finds as its parent left it, or, once it has a page of its own ([`WipedWord`]), wiped.
pub(crate) type Word = &'static AtomicU64;

/// One that a child finds as its parent left it.
pub(crate) fn kept(word: &'static AtomicU64) -> Word {
    word
}

/// Where the one word that children find wiped is kept.
pub(crate) struct WipedWord(AtomicPtr<AtomicU64>);

impl WipedWord {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<Word> {
        // Acquire: pairs with the Release in `make`, which comes after the word was written.
        let page = self.0.load(Ordering::Acquire);
        // SAFETY: null, or a page that `make` has mapped for the rest of the process's life, and that is only ever used as
        // this atomic.
        unsafe { page.as_ref() }
    }

    /// Makes it, unless another thread does so at the same time. `first` is called before anybody else can find it.
    pub(crate) fn make(&self, value: u64, first: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
        // Rounded up to a page. (Asking rustix for the size of one ends the process under valgrind.)
        let bytes = size_of::<AtomicU64>();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let page = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) }?;
        // SAFETY: the page was mapped just now, and is ours alone.
        unsafe { rustix::mm::madvise(page, bytes, Advice::LinuxWipeOnFork) }?;
        let page = page.cast::<AtomicU64>();
        // SAFETY: mapped, aligned, zeroed, and used by nobody else yet.
        unsafe { &*page }.store(value, Ordering::Relaxed);
        first()?;
        // Release: pairs with the Acquire in `get`.
        if self.0.compare_exchange(ptr::null_mut(), page, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: another thread was faster, and nobody knows of this page.
            let _ = unsafe { rustix::mm::munmap(page.cast(), bytes) };
        }
        Ok(())
    }
}

/// Has functions called around each fork: before it and after it in the parent, and in the child. Registered twice, they are
/// called twice.
pub(crate) fn at_fork(before: extern "C" fn(), after: extern "C" fn(), in_child: extern "C" fn()) -> Result<(), Errno> {
    let (before, after, in_child) = (before as unsafe extern "C" fn(), after as _, in_child as _);
    // SAFETY: the three functions live as long as the process, and are safe to call.
    match unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) } {
        0 => Ok(()),
        failed => Err(Errno::from_raw_os_error(failed)),
    }
}
