//! Open-file-description locks on single bytes of a file.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::machine::machine;
use super::number;

/// A kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

pub(crate) fn set(fd: impl AsFd, byte: u64, kind: Kind) -> Result<(), Errno> {
    machine().lock_byte(number(fd), byte, kind == Kind::Write)
}

pub(crate) fn in_the_way(fd: impl AsFd, byte: u64, kind: Kind) -> Result<Option<Kind>, Errno> {
    let found = machine().byte_lock_in_the_way(number(fd), byte, kind == Kind::Write)?;
    Ok(found.map(|exclusive| if exclusive { Kind::Write } else { Kind::Read }))
}
