//! Reading and writing.

use std::os::fd::AsFd;

pub(crate) use rustix::io::Errno;

use super::machine::machine;
use super::number;

pub(crate) fn pread(fd: impl AsFd, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    machine().read_at(number(fd), into, offset)
}

pub(crate) fn pwrite(fd: impl AsFd, from: &[u8], offset: u64) -> Result<usize, Errno> {
    machine().write_at(number(fd), from, offset)
}

/// Of an eventfd or an inotify instance. Nothing looks at what is read.
pub(crate) fn read<Buffer>(fd: impl AsFd, _into: Buffer) -> Result<usize, Errno> {
    machine().read(number(fd)).map(|()| 8)
}

/// To an eventfd.
pub(crate) fn write(fd: impl AsFd, from: &[u8]) -> Result<usize, Errno> {
    machine().write(number(fd)).map(|()| from.len())
}
