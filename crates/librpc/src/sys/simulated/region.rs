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

/// A mapping: its number, and its length in bytes.
#[derive(Debug)]
pub(crate) struct Region(u32, usize);

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
        machine().map(number(fd), &parts, writable).map(|region| Self(region, end))
    }

    /// Its words.
    ///
    /// # Safety
    ///
    /// As of the real one. Here a mistake is a failure of the run.
    pub(crate) unsafe fn words<Access, Owner>(&self, owner: Owner) -> Words<Access, Owner> {
        Words { region: Some(self.0), access: PhantomData, _owner: owner }
    }

    /// How long it is, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.1
    }

    pub(crate) fn populate(&self, _writable: bool) -> bool {
        true
    }

    /// Copies a part that another process may be writing.
    pub(crate) fn copy_to(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.1 && into.len() <= self.1 - offset, "the part is in the region");
        for (at, byte) in into.iter_mut().enumerate() {
            let at = offset + at;
            *byte = machine().load(self.0, at / WORD, false).to_le_bytes()[at % WORD];
        }
    }

    /// The address of a part: of a copy, as in [`Region::slice`].
    pub(crate) fn address(&self, offset: usize, bytes: usize) -> *const u8 {
        let mut copy = vec![0; bytes];
        self.copy_to(offset, &mut copy);
        copy.leak().as_ptr()
    }

    /// A part as a slice. The words of a simulated machine have no address, so it is a copy of what is there now. It is never freed:
    /// a run has few of them.
    ///
    /// # Safety
    ///
    /// As of the real one.
    pub(crate) unsafe fn slice(&self, offset: usize, bytes: usize) -> &[u8] {
        let mut copy = vec![0; bytes];
        self.copy_to(offset, &mut copy);
        copy.leak()
    }

    /// A part to be filled.
    ///
    /// # Safety
    ///
    /// As of the real one. Here a mistake is a failure of the run.
    pub(crate) unsafe fn part(&self, offset: usize, bytes: usize) -> Part {
        assert!(offset.is_multiple_of(WORD), "a part begins with a word");
        Part { region: self.0, offset, bytes: vec![0; bytes] }
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

/// A part of a region that one owner fills: it is written when it is finished.
#[derive(Debug)]
pub(crate) struct Part {
    region: u32,
    offset: usize,
    bytes: Vec<u8>,
}

impl Part {
    /// Others may read it from now on.
    pub(crate) fn finish(self) {
        for (at, chunk) in self.bytes.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..chunk.len()].copy_from_slice(chunk);
            machine().store(self.region, self.offset / WORD + at, u64::from_le_bytes(word), false);
        }
    }
}

impl std::ops::Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::DerefMut for Part {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
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
