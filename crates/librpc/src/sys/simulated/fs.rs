//! Files.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

pub(crate) use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, MemfdFlags, Mode, OFlags, RenameFlags, SealFlags, SeekFrom,
    makedev,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::machine::{self, machine};
use super::{OwnedFd, number};

/// As far as it is asked for.
pub(crate) struct Stat {
    pub(crate) st_dev: u64,
    pub(crate) st_ino: u64,
    pub(crate) st_uid: u32,
    pub(crate) st_gid: u32,
    pub(crate) st_mode: u32,
    pub(crate) st_size: i64,
}

impl From<machine::Stat> for Stat {
    fn from(stat: machine::Stat) -> Self {
        Self {
            st_dev: 1,
            st_ino: stat.inode,
            st_uid: stat.uid,
            st_gid: stat.gid,
            st_mode: stat.mode,
            st_size: stat.bytes as i64,
        }
    }
}

pub(crate) struct StatFs {
    pub(crate) f_type: u64,
}

pub(super) fn text(path: &Path) -> Result<&str, Errno> {
    path.to_str().ok_or(Errno::ILSEQ)
}

pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    openat(CWD, path, flags, mode)
}

pub(crate) fn openat(at: impl AsFd, path: impl AsRef<Path>, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    machine().open_at(number(at), text(path.as_ref())?, flags, mode.as_raw_mode()).map(OwnedFd)
}

pub(crate) fn linkat(
    _from_at: impl AsFd,
    from: impl AsRef<Path>,
    at: impl AsFd,
    name: impl AsRef<Path>,
    _flags: AtFlags,
) -> Result<(), Errno> {
    machine().link(text(from.as_ref())?, number(at), text(name.as_ref())?)
}

pub(crate) fn unlinkat(at: impl AsFd, name: impl AsRef<Path>, _flags: AtFlags) -> Result<(), Errno> {
    machine().unlink_at(number(at), text(name.as_ref())?)
}

pub(crate) fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    machine().stat(number(fd)).map(Stat::from)
}

/// Where the first hole is: no file here has one before its end.
pub(crate) fn seek(fd: impl AsFd, _to: SeekFrom) -> Result<u64, Errno> {
    machine().stat(number(fd)).map(|stat| stat.bytes)
}

pub(crate) fn statat(at: impl AsFd, path: impl AsRef<Path>, _flags: AtFlags) -> Result<Stat, Errno> {
    machine().stat_at(number(at), text(path.as_ref())?).map(Stat::from)
}

pub(crate) fn fstatfs(fd: impl AsFd) -> Result<StatFs, Errno> {
    machine().file_system(number(fd)).map(|f_type| StatFs { f_type })
}

pub(crate) fn statfs(path: impl AsRef<Path>) -> Result<StatFs, Errno> {
    let directory = open(path, OFlags::PATH, Mode::empty())?;
    fstatfs(&directory)
}

pub(crate) fn fallocate(fd: impl AsFd, _flags: FallocateFlags, offset: u64, bytes: u64) -> Result<(), Errno> {
    machine().allocate(number(fd), offset, bytes)
}

pub(crate) fn ftruncate(fd: impl AsFd, bytes: u64) -> Result<(), Errno> {
    machine().truncate(number(fd), bytes)
}

pub(crate) fn mkdir(path: impl AsRef<Path>, mode: Mode) -> Result<(), Errno> {
    machine().make_directory(text(path.as_ref())?, mode.as_raw_mode())
}

pub(crate) fn rmdir(path: impl AsRef<Path>) -> Result<(), Errno> {
    machine().remove_directory(text(path.as_ref())?)
}

pub(crate) fn renameat_with(
    from_at: impl AsFd,
    from: impl AsRef<Path>,
    to_at: impl AsFd,
    to: impl AsRef<Path>,
    flags: RenameFlags,
) -> Result<(), Errno> {
    assert_eq!(flags, RenameFlags::NOREPLACE, "nothing here renames otherwise");
    machine().rename((number(from_at), text(from.as_ref())?), (number(to_at), text(to.as_ref())?))
}

pub(crate) fn chmod(path: impl AsRef<Path>, mode: Mode) -> Result<(), Errno> {
    chmodat(CWD, path, mode, AtFlags::empty())
}

pub(crate) fn fchmod(fd: impl AsFd, mode: Mode) -> Result<(), Errno> {
    machine().set_mode(number(fd), mode.as_raw_mode())
}

pub(crate) fn chmodat(at: impl AsFd, path: impl AsRef<Path>, mode: Mode, _flags: AtFlags) -> Result<(), Errno> {
    machine().set_mode_at(number(at), text(path.as_ref())?, mode.as_raw_mode())
}

pub(crate) fn fchown(fd: impl AsFd, owner: Option<Uid>, group: Option<Gid>) -> Result<(), Errno> {
    assert!(owner.is_none(), "nothing here gives files to other users");
    group.map_or(Ok(()), |group| machine().set_group(number(fd), group.as_raw()))
}

pub(crate) fn memfd_create(_name: &str, _flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    machine().make_memory().map(OwnedFd)
}

pub(crate) fn fcntl_add_seals(fd: impl AsFd, seals: SealFlags) -> Result<(), Errno> {
    machine().add_seals(number(fd), seals)
}

pub(crate) fn fcntl_get_seals(fd: impl AsFd) -> Result<SealFlags, Errno> {
    machine().seals(number(fd))
}

pub(crate) fn flock(fd: impl AsFd, operation: FlockOperation) -> Result<(), Errno> {
    let exclusive = match operation {
        FlockOperation::NonBlockingLockShared => Some(false),
        FlockOperation::NonBlockingLockExclusive => Some(true),
        FlockOperation::Unlock | FlockOperation::NonBlockingUnlock => None,
        _ => panic!("nothing here waits for a file's lock"),
    };
    machine().flock(number(fd), exclusive)
}

/// The names in a directory, all read at once.
pub(crate) struct RawDir(Result<std::vec::IntoIter<String>, Option<Errno>>);

impl RawDir {
    pub(crate) fn new(fd: impl AsFd, _buffer: &mut [MaybeUninit<u8>]) -> Self {
        Self(machine().names(number(fd)).map(Vec::into_iter).map_err(Some))
    }

    pub(crate) fn next(&mut self) -> Option<Result<RawDirEntry, Errno>> {
        match &mut self.0 {
            Ok(names) => names.next().map(|name| Ok(RawDirEntry(CString::new(name).expect("no name has a zero")))),
            Err(errno) => errno.take().map(Err),
        }
    }
}

pub(crate) struct RawDirEntry(CString);

impl RawDirEntry {
    pub(crate) fn file_name(&self) -> &CStr {
        &self.0
    }
}

pub(crate) mod inotify {
    use std::os::fd::AsFd;
    use std::path::Path;

    pub(crate) use rustix::fs::inotify::{CreateFlags, WatchFlags};
    use rustix::io::Errno;

    use super::super::machine::machine;
    use super::super::{OwnedFd, number};

    pub(crate) fn init(_flags: CreateFlags) -> Result<OwnedFd, Errno> {
        machine().make_watcher().map(OwnedFd)
    }

    pub(crate) fn add_watch(fd: impl AsFd, path: impl AsRef<Path>, changes: WatchFlags) -> Result<i32, Errno> {
        machine().watch(number(fd), super::text(path.as_ref())?, changes.bits())
    }

    pub(crate) fn remove_watch(fd: impl AsFd, watch: i32) -> Result<(), Errno> {
        machine().unwatch(number(fd), watch)
    }
}
