//! A file to which a role only appends. It survives the role, whose next run goes on from its last entry.
//!
//! Invariant: an entry is in the file as a whole or not at all, whenever the role is killed. The kernel does not interrupt a `write` within
//! a page, and entries whose length is a power of two do not cross the end of one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};

/// What can be an entry.
pub(crate) trait Entry: FromBytes + IntoBytes + Immutable + Copy {}

impl<E: FromBytes + IntoBytes + Immutable + Copy> Entry for E {}

pub(crate) struct Record<E> {
    file: File,
    last: Option<E>,
}

impl<E: Entry> Record<E> {
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let last = read(&path)?.pop();
        Ok(Self { file: OpenOptions::new().append(true).create(true).open(path)?, last })
    }

    pub(crate) fn add(&mut self, entry: E) -> std::io::Result<()> {
        const { assert!(size_of::<E>().is_power_of_two()) };
        self.last = Some(entry);
        self.file.write_all(entry.as_bytes())
    }

    pub(crate) fn last(&self) -> Option<E> {
        self.last
    }
}

/// Everything that is on record, from the oldest on.
pub(crate) fn read<E: Entry>(path: &PathBuf) -> anyhow::Result<Vec<E>> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let entries = bytes.chunks(size_of::<E>()).map(E::read_from_bytes);
    entries.map(|entry| entry.map_err(|_| anyhow::anyhow!("{}: an entry is cut off", path.display()))).collect()
}
