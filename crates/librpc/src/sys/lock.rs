//! Two kinds of locks that the kernel releases when their holder dies: open-file-description locks say who is alive,
//! `flock` counts the members of a domain. None of these calls waits.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use super::os::fs::FlockOperation;
use super::os::io::Errno;
use super::os::ofd::{self, Kind};
use super::os::{self, path};

/// The byte whose write lock is a node's life.
const LIFE: u64 = 0;
/// The byte whose write lock a sweeper holds: another one, so that no sweeper ever looks like life.
const SWEEP: u64 = 1;

/// Takes the lock of the living. `false`: somebody holds a lock there.
///
/// Through a second lock, an `flock`, the kernel shows others the number of the process in their own pid namespace:
/// [`Holders`].
pub(crate) fn try_own(fd: impl AsFd) -> io::Result<bool> {
    Ok(try_write_lock(&fd, LIFE)? && try_last(&fd)?)
}

/// Which process has locked which file with an `flock` for itself, as the kernel shows it to this process.
#[derive(Debug, Default)]
pub(crate) struct Holders(BTreeMap<(u64, u64), u32>);

impl Holders {
    /// All that there are now; none where the kernel does not show them.
    ///
    /// The kernel shows a page of them at a time, and passes over some where locks come and go between two pages: what was
    /// missed once is hardly missed twice.
    pub(crate) fn now() -> Self {
        let locks = [(); 2].map(|()| path::text("/proc/locks").unwrap_or_default());
        Self(locks.iter().flat_map(|locks| locks.lines()).filter_map(Self::holder).collect())
    }

    /// The process that has locked the file of this device and inode. It still does, unless it has died since.
    pub(crate) fn of(&self, identity: (u64, u64)) -> Option<u32> {
        self.0.get(&identity).copied()
    }

    /// `1: FLOCK  ADVISORY  WRITE 2076 fe:00:5719436 0 EOF`
    fn holder(line: &str) -> Option<((u64, u64), u32)> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[_, "FLOCK", _, "WRITE", pid, file, ..] = &words[..] else { return None };
        let mut parts = file.split(':');
        let mut number = |radix| parts.next().and_then(|part| u64::from_str_radix(part, radix).ok());
        let (major, minor, inode) = (number(16)?, number(16)?, number(10)?);
        let device = os::fs::makedev(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
        Some(((device, inode), pid.parse().ok()?))
    }
}

/// Takes the lock of sweepers. `false`: another sweeper is at work. In a shared domain a reader may hold a read lock there:
/// it keeps nobody from sweeping.
pub(crate) fn try_sweep(fd: impl AsFd) -> io::Result<bool> {
    if try_write_lock(&fd, SWEEP)? {
        return Ok(true);
    }
    if is_write_locked(&fd, SWEEP)? {
        return Ok(false);
    }
    // A reader, or a sweeper that has just died.
    Ok(try_write_lock(&fd, SWEEP)? || is_read_locked(&fd, SWEEP)?)
}

fn is_read_locked(fd: impl AsFd, byte: u64) -> io::Result<bool> {
    Ok(ofd::in_the_way(fd, byte, Kind::Write)? == Some(Kind::Read))
}

fn try_write_lock(fd: impl AsFd, byte: u64) -> io::Result<bool> {
    match ofd::set(fd, byte, Kind::Write) {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether somebody else holds the lock of the living. A read lock, which any reader could take, does not count.
pub(crate) fn is_owned(fd: impl AsFd) -> io::Result<bool> {
    is_write_locked(fd, LIFE)
}

fn is_write_locked(fd: impl AsFd, byte: u64) -> io::Result<bool> {
    // A reader's lock is in the way of writers alone.
    Ok(ofd::in_the_way(fd, byte, Kind::Read)?.is_some())
}

/// Becomes one of the members: `false` while a last member is clearing up.
pub(crate) fn try_share(fd: impl AsFd) -> io::Result<bool> {
    flock(fd, FlockOperation::NonBlockingLockShared)
}

/// Gives the membership up, and becomes the only holder if nobody else is a member.
pub(crate) fn try_last(fd: impl AsFd) -> io::Result<bool> {
    flock(fd, FlockOperation::NonBlockingLockExclusive)
}

/// Gives the membership up at once: a child that is being spawned may hold a copy of the descriptor for a moment.
pub(crate) fn release(fd: impl AsFd) -> io::Result<()> {
    flock(fd, FlockOperation::Unlock).map(drop)
}

fn flock(fd: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    match os::fs::flock(fd, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readers_lock_does_not_count_as_life() {
        let path = format!("/dev/shm/librpc_unit_lock_{}", std::process::id());
        let open = || std::fs::File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let (reader, owner, looker) = (open(), open(), open());
        std::fs::remove_file(&path).unwrap();
        // Opened thrice under one name, before it had none.
        ofd::set(&reader, LIFE, Kind::Read).unwrap();
        assert!(!is_owned(&looker).unwrap(), "whoever may read a file may lock it so");
        drop(reader);
        // A program that another test is starting may hold a copy of it until its exec.
        let begun = std::time::Instant::now();
        while !try_write_lock(&owner, LIFE).unwrap() {
            assert!(begun.elapsed().as_secs() < 20, "nobody holds the lock");
            std::thread::yield_now();
        }
        assert!(is_owned(&looker).unwrap());
    }
}
