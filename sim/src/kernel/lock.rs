//! `flock` and open-file-description locks. Both belong to the open file: they last until its last reference is gone,
//! the process that has it. None of these calls waits.

use super::open_file::{File, Kind};
use super::{Errno, InodeId, Kernel, OpenId, Outcome, Pid};

/// A lock that a process requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub exclusive: bool,
    pub kind: LockKind,
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// `flock`: the whole file. Independent of the other kind.
    Whole,
    /// `F_OFD_SETLK`: this byte.
    Byte(u64),
}

/// A lock that an open file holds.
#[derive(Debug)]
pub(super) struct Held {
    by: OpenId,
    lock: Lock,
}

impl Kernel {
    fn lockable(&self, pid: Pid, fd: i32) -> Outcome<(OpenId, File)> {
        let id = self.look_up(pid, fd)?;
        match &self.open_file(id).kind {
            Kind::File(file) => Ok((id, *file)),
            _ => Err(Errno::INVAL),
        }
    }

    fn conflict(&self, inode: InodeId, by: OpenId, wanted: Lock) -> Option<Lock> {
        let conflicts =
            |held: &&Held| held.by != by && held.lock.kind == wanted.kind && (held.lock.exclusive || wanted.exclusive);
        self.inode(inode).locks.iter().find(conflicts).map(|held| held.lock)
    }

    /// Takes a lock, or fails with `EAGAIN`. An existing lock of the same kind on the same bytes is converted. `flock`
    /// drops it first, and so loses it if the new one is not granted.
    pub fn lock(&mut self, pid: Pid, fd: i32, lock: Lock) -> Outcome<()> {
        let (by, file) = self.lockable(pid, fd)?;
        let is_byte = matches!(lock.kind, LockKind::Byte(_));
        if is_byte && !(if lock.exclusive { file.writable } else { file.readable }) {
            return Err(Errno::BADF);
        }
        let conflict = self.conflict(file.inode, by, lock);
        if conflict.is_none() || !is_byte {
            self.inode_mut(file.inode).locks.retain(|held| held.by != by || held.lock.kind != lock.kind);
        }
        if conflict.is_some() {
            return Err(Errno::AGAIN);
        }
        self.inode_mut(file.inode).locks.push(Held { by, lock });
        Ok(())
    }

    /// Releases a lock.
    pub fn unlock(&mut self, pid: Pid, fd: i32, kind: LockKind) -> Outcome<()> {
        let (by, file) = self.lockable(pid, fd)?;
        self.inode_mut(file.inode).locks.retain(|held| held.by != by || held.lock.kind != kind);
        Ok(())
    }

    /// `F_OFD_GETLK`: a lock of another open file that would conflict.
    pub fn blocking_lock(&self, pid: Pid, fd: i32, lock: Lock) -> Outcome<Option<Lock>> {
        let (by, file) = self.lockable(pid, fd)?;
        Ok(self.conflict(file.inode, by, lock))
    }

    pub(super) fn drop_locks(&mut self, inode: InodeId, by: OpenId) {
        self.inode_mut(inode).locks.retain(|held| held.by != by);
    }
}
