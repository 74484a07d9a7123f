//! Memory that an attacker offers: sealed and mapped as an honest one, or not quite.

#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use librpc_ring::{Mapped, Writable};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The seals that the library asks for.
pub(crate) fn seals() -> SealFlags {
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL
}

/// A memory of so many bytes with these seals, and all of it mapped writable: an attacker needs no second showing.
/// It stays mapped until the process ends.
pub(crate) fn memory(bytes: u64, seals: SealFlags) -> anyhow::Result<(Mapped<Writable, Arc<()>>, OwnedFd)> {
    let fd = memfd_create("attack", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let base = unsafe { mmap(null_mut(), bytes as usize, access, MapFlags::SHARED, &fd, 0) }?;
    fcntl_add_seals(&fd, seals)?;
    let base = NonNull::new(base.cast::<u8>()).expect("the kernel maps nothing at address 0");
    // SAFETY: mapped just now, never unmapped, and nobody makes a reference into it.
    Ok((unsafe { Mapped::new(base, bytes as usize, Arc::new(())) }, fd))
}
