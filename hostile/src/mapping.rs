//! Memory that an attacker offers: sealed and mapped as an honest peer does it, or with a flaw.

#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use librpc_ring::layout::{DATA_MAGIC, HEADER_BYTES, VERSION, data};
use librpc_ring::{Mapped, MemoryMut, ReadOnly, Writable};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The capacity of every inbox that an attacker sends to, in bytes.
pub(crate) const CAPACITY: u64 = 256 * 1024;
/// The size of a valid ring memory.
pub(crate) const RING_BYTES: u64 = HEADER_BYTES as u64 + CAPACITY;

/// The size of a valid memory for payloads.
pub(crate) const PAYLOADS_BYTES: u64 = 64 * 1024;

/// A valid ring memory, except for its size, its seals, and perhaps one word of its header.
pub(crate) fn ring(bytes: u64, seals: SealFlags, spoilt: Option<(usize, u64)>) -> anyhow::Result<(Words, OwnedFd)> {
    let (words, fd) = memory(bytes, seals)?;
    let header = [(data::MAGIC, DATA_MAGIC), (data::VERSION, VERSION), (data::CAPACITY, CAPACITY)];
    for (word, value) in header.into_iter().chain(spoilt) {
        words.store(word, value, Ordering::Relaxed); // no other process has it yet
    }
    Ok((words, fd))
}

/// Mapped memory.
pub(crate) type Words = Mapped<Writable, Arc<()>>;

/// The seals that the library asks for.
pub(crate) fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// A memory of this many bytes with these seals, mapped writable, once. It stays mapped until the process ends.
pub(crate) fn memory(bytes: u64, seals: SealFlags) -> anyhow::Result<(Words, OwnedFd)> {
    let fd = memfd_create("attack", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    let base = map(&fd, bytes, ProtFlags::READ | ProtFlags::WRITE)?;
    fcntl_add_seals(&fd, seals)?;
    // SAFETY: mapped just now, never unmapped, and nobody makes a reference into it.
    Ok((unsafe { Mapped::new(base, bytes as usize, Arc::new(())) }, fd))
}

/// A memory for payloads, with these seals, of which this part is allocated; the rest are holes.
pub(crate) fn payloads(bytes: u64, seals: SealFlags, allocated: Range<u64>) -> anyhow::Result<(Words, OwnedFd)> {
    let (words, fd) = memory(bytes, SealFlags::empty())?;
    if !allocated.is_empty() {
        let (offset, length) = (allocated.start, allocated.end - allocated.start);
        rustix::fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, offset, length)?;
    }
    for page in (allocated.start..allocated.end.min(bytes)).step_by(4096) {
        words.store(page as usize / 8, 0, Ordering::Relaxed);
    }
    fcntl_add_seals(&fd, seals)?;
    Ok((words, fd))
}

/// A valid memory for payloads.
pub(crate) fn valid_payloads() -> anyhow::Result<(Words, OwnedFd)> {
    payloads(PAYLOADS_BYTES, seals(), 0..PAYLOADS_BYTES)
}

/// Another process's memory, to be read. It stays mapped until this process ends.
pub(crate) fn view(fd: &OwnedFd, bytes: u64) -> anyhow::Result<Mapped<ReadOnly, Arc<()>>> {
    anyhow::ensure!(rustix::fs::fstat(fd)?.st_size as u64 >= bytes, "it is too short");
    let base = map(fd, bytes, ProtFlags::READ)?;
    // SAFETY: as in `memory`.
    Ok(unsafe { Mapped::new(base, bytes as usize, Arc::new(())) })
}

fn map(fd: &OwnedFd, bytes: u64, access: ProtFlags) -> anyhow::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe { mmap(null_mut(), bytes as usize, access, MapFlags::SHARED, fd, 0) }?;
    Ok(NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at address 0"))
}
