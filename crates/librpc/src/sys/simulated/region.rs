//! Mappings of shared memory: words that the simulated machine holds.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use librpc_ring::layout::WORD;
use librpc_ring::{Memory, MemoryMut, ReadOnly, Segment, Writable};
use rustix::io::Errno;

use super::machine::machine;
use super::number;

/// The words of a region, which `Owner` keeps mapped.
#[derive(Debug)]
pub(crate) struct Words<Access, Owner> {
    /// `None`: all zeros.
    region: Option<u32>,
    access: PhantomData<fn() -> Access>,
    _owner: Owner,
}

/// A mapping.
#[derive(Debug)]
pub(crate) struct Region(u32);

impl Region {
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        segments: impl Iterator<Item = Segment> + Clone,
        writable: bool,
    ) -> Result<Self, Errno> {
        let mut end = 0;
        let mut parts = Vec::new();
        for Segment { address_offset, file_offset, bytes } in segments {
            assert_eq!(address_offset, end, "the segments lie side by side");
            parts.push((file_offset as u64, bytes));
            end += bytes;
        }
        machine().map(number(fd), &parts, writable).map(Self)
    }

    /// Its words.
    ///
    /// # Safety
    ///
    /// As of the real one. Here a mistake is a failure of the run.
    pub(crate) unsafe fn words<Access, Owner>(&self, owner: Owner) -> Words<Access, Owner> {
        Words { region: Some(self.0), access: PhantomData, _owner: owner }
    }

    /// Unmaps it.
    ///
    /// # Safety
    ///
    /// As of the real one. Here a mistake is a failure of the run.
    pub(crate) unsafe fn unmap(&self) {
        machine().unmap(self.0);
    }
}

/// Zeros that are always there.
pub(crate) fn zeros<Owner>(owner: Owner) -> Words<ReadOnly, Owner> {
    Words { region: None, access: PhantomData, _owner: owner }
}

impl<Access, Owner> Words<Access, Owner> {
    fn load_as(&self, word: usize, synchronising: bool) -> u64 {
        self.region.map_or(0, |region| machine().load(region, word, synchronising))
    }
}

impl<Access, Owner> Memory for Words<Access, Owner> {
    fn load(&self, word: usize, _order: Ordering) -> u64 {
        self.load_as(word, true)
    }

    fn get(&self, word: usize) -> u64 {
        self.load_as(word, false)
    }

    fn read(&self, word: usize, bytes: usize, into: &mut Vec<u8>) {
        let end = into.len() + bytes;
        (word..word + bytes.div_ceil(WORD)).for_each(|word| into.extend(self.get(word).to_le_bytes()));
        into.truncate(end);
    }

    fn fence(&self, _order: Ordering) {
        machine().fence();
    }
}

impl<Owner> Words<Writable, Owner> {
    fn store_as(&self, word: usize, value: u64, synchronising: bool) {
        machine().store(self.region.expect("zeros are never written"), word, value, synchronising);
    }
}

impl<Owner> MemoryMut for Words<Writable, Owner> {
    fn store(&self, word: usize, value: u64, _order: Ordering) {
        self.store_as(word, value, true);
    }

    fn put(&self, word: usize, value: u64) {
        self.store_as(word, value, false);
    }

    fn write(&self, word: usize, from: &[u8]) {
        for (word, chunk) in (word..).zip(from.chunks(WORD)) {
            let mut bytes = [0; WORD];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.put(word, u64::from_le_bytes(bytes));
        }
    }
}
