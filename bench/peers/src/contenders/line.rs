//! Two words in shared memory, each written by one side and on cache lines of its own. The limits are built on them.

use std::fs::File;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::contender::{Job, eventually};

/// The words are two cache lines apart, because processors fetch lines in pairs.
const APART_BYTES: usize = 256;
const MAPPED_BYTES: usize = 4096;

pub(crate) struct Lines {
    ours: NonNull<AtomicU64>,
    theirs: NonNull<AtomicU64>,
}

impl Lines {
    pub(crate) fn open(job: &Job) -> anyhow::Result<Self> {
        let path = job.place.join("lines");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(MAPPED_BYTES as u64)?;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice; nobody cuts the file while the measurement lasts.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), MAPPED_BYTES, protection, flags, file.as_fd(), 0)? };
        let (ours, theirs) = job.directions(0, APART_BYTES);
        let word = |offset| {
            // SAFETY: the offset lies within the mapping, which is page aligned and is never unmapped.
            NonNull::new(unsafe { base.byte_add(offset) }.cast()).expect("a mapping is not at null")
        };
        let lines = Self { ours: word(ours), theirs: word(theirs) };
        lines.meet()?;
        Ok(lines)
    }

    /// Announces this side, and waits for the other one. A number is stored plus one, because zero means "nothing yet".
    fn meet(&self) -> anyhow::Result<()> {
        self.store(u64::MAX);
        eventually("the other side does not come", || match self.load() {
            0 => Err(anyhow::anyhow!("its word is still zero")),
            _ => Ok(()),
        })
    }

    #[inline]
    pub(crate) fn store(&self, value: u64) {
        // SAFETY: the word is mapped and aligned as long as the process lives, and accessed atomically only.
        unsafe { self.ours.as_ref() }.store(value, Ordering::Release); // pairs with the Acquire of the other side's `load`
    }

    #[inline]
    pub(crate) fn load(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.theirs.as_ref() }.load(Ordering::Acquire) // pairs with the Release of the other side's `store`
    }
}
