//! Files and directories of the registry.
//!
//! Everything is opened without following links and without blocking: in a shared domain a name may lead to anything.
//! The caller bounds what is read. No call here exceeds the file-size limit, which the kernel enforces with a signal.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use super::os::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawDir, RenameFlags};
pub(crate) use super::os::io::Errno;

use super::{Context, Descriptor, OsError, os};

/// The registry's files take whole pages of this many bytes.
pub(crate) const PAGE: u64 = 4096;

const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

impl Access {
    fn flags(self) -> OFlags {
        let access = match self {
            Self::Read => OFlags::RDONLY,
            Self::ReadWrite => OFlags::RDWR,
        };
        access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC
    }
}

/// What kind of file something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Socket,
    Link,
    Other,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Regular => "a regular file",
            Self::Directory => "a directory",
            Self::Socket => "a socket",
            Self::Link => "a symbolic link",
            Self::Other => "a special file",
        })
    }
}

/// What the kernel says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Device and inode: no other file has the same.
    pub(crate) identity: (u64, u64),
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The access mode, without the file's type.
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
}

impl Stat {
    fn of(stat: &os::fs::Stat) -> Self {
        Self {
            identity: (stat.st_dev, stat.st_ino),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            kind: match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Kind::Regular,
                FileType::Directory => Kind::Directory,
                FileType::Socket => Kind::Socket,
                FileType::Symlink => Kind::Link,
                _ => Kind::Other,
            },
        }
    }
}

/// Opens a directory by its path.
pub(crate) fn open_directory(path: &Path) -> Result<Descriptor, OsError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Descriptor::open(|| os::fs::open(path, flags, Mode::empty())).context(|| format!("open {}", path.display()))
}

/// Opens a file of a directory.
pub(crate) fn open(directory: &Descriptor, name: &str, access: Access) -> Result<Descriptor, Errno> {
    Descriptor::open(|| os::fs::openat(directory, name, access.flags(), Mode::empty()))
}

/// Opens an open file once more, to read it.
pub(crate) fn reopen(file: &Descriptor) -> Result<Descriptor, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Descriptor::open(|| os::fs::open(proc_path(file), flags, Mode::empty()))
}

/// A path made absolute by the current directory.
pub(crate) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    // Rebuilt from its parts, it has no slash at its end, through which the kernel would follow a link.
    std::path::absolute(path).map(|path| path.components().collect())
}

/// The name of an open file, for calls that take only paths. It stays valid whatever happens to the directories above.
pub(crate) fn proc_path(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// Makes a file that has no name yet: it vanishes with its descriptor.
pub(crate) fn make_nameless(directory: &Descriptor, mode: u32) -> Result<Descriptor, Errno> {
    let mode = Mode::from_raw_mode(mode);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = Descriptor::open(|| os::fs::openat(directory, ".", flags, mode))?;
    os::fs::fchmod(&file, mode)?; // whatever the umask
    Ok(file)
}

/// Gives a file a name in a directory, unless the name is taken (`EXIST`).
pub(crate) fn give_name(directory: &Descriptor, file: &Descriptor, name: &str) -> Result<(), Errno> {
    os::fs::linkat(CWD, proc_path(file), directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Removes a name from a directory.
pub(crate) fn unlink(directory: &Descriptor, name: &str) -> Result<(), Errno> {
    os::fs::unlinkat(directory, name, AtFlags::empty())
}

/// Renames a file within a directory, unless the new name is taken (`EXIST`).
pub(crate) fn rename_at(directory: &Descriptor, from: &str, to: &str) -> Result<(), Errno> {
    os::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE)
}

/// What an open file is.
pub(crate) fn stat(file: &Descriptor) -> Result<Stat, Errno> {
    os::fs::fstat(file).map(|stat| Stat::of(&stat))
}

/// What a name in a directory leads to.
pub(crate) fn stat_at(directory: &Descriptor, name: &str) -> Result<Stat, Errno> {
    os::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stat::of(&stat))
}

/// What a path leads to.
pub(crate) fn stat_path(path: &Path) -> Result<Stat, Errno> {
    os::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Stat::of(&stat))
}

/// Reads bytes at an offset; fewer at the file's end.
pub(crate) fn read_at(file: &Descriptor, into: &mut [u8], offset: u64) -> Result<usize, Errno> {
    retry_interrupted(|| os::io::pread(file, &mut *into, offset))
}

/// Writes bytes at an offset.
pub(crate) fn write_at(file: &Descriptor, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    check_size(offset + bytes.len() as u64)?;
    // On tmpfs a write is short only at a limit; the next one then says which.
    let mut written = 0;
    while written < bytes.len() {
        match retry_interrupted(|| os::io::pwrite(file, &bytes[written..], offset + written as u64))? {
            0 => return Err(Errno::NOSPC),
            more => written += more,
        }
    }
    Ok(())
}

/// Allocates space, so that no later write or mapping runs out of it.
pub(crate) fn allocate(file: &Descriptor, offset: u64, bytes: u64) -> Result<(), Errno> {
    check_size(offset + bytes)?;
    retry_interrupted(|| os::fs::fallocate(file, FallocateFlags::empty(), offset, bytes))
}

/// The longest file that this process may make (`ulimit -f`), in bytes; `None`: no limit.
pub(crate) fn size_limit() -> Option<u64> {
    os::process::file_size_limit()
}

/// Whether a file may become this long: `FBIG` if not. The kernel itself would end the process with SIGXFSZ.
pub(crate) fn check_size(bytes: u64) -> Result<(), Errno> {
    if size_limit().is_some_and(|limit| bytes > limit) { Err(Errno::FBIG) } else { Ok(()) }
}

/// Repeats a call that a signal has interrupted.
pub(crate) fn retry_interrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes a directory.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), Errno> {
    os::fs::mkdir(path, Mode::from_raw_mode(mode))
}

/// Removes a directory, if it is empty.
pub(crate) fn remove_directory(path: &Path) -> Result<(), Errno> {
    os::fs::rmdir(path)
}

/// Renames a directory, unless the new name is taken (`EXIST`).
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Errno> {
    os::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)
}

/// Sets the access mode of what a path leads to.
pub(crate) fn set_mode_of_path(path: &Path, mode: u32) -> Result<(), Errno> {
    os::fs::chmod(path, Mode::from_raw_mode(mode))
}

/// Sets the access mode of an open file.
pub(crate) fn set_mode(file: &Descriptor, mode: u32) -> Result<(), Errno> {
    os::fs::fchmod(file, Mode::from_raw_mode(mode))
}

/// Sets the access mode of what a name in a directory leads to.
pub(crate) fn set_mode_at(directory: &Descriptor, name: &str, mode: u32) -> Result<(), Errno> {
    os::fs::chmodat(directory, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Gives an open file to a group.
pub(crate) fn set_group(file: &Descriptor, gid: u32) -> Result<(), Errno> {
    os::fs::fchown(file, None, Some(rustix::process::Gid::from_raw(gid)))
}

/// Whether a file is on tmpfs.
pub(crate) fn is_tmpfs(file: impl AsFd) -> Result<bool, Errno> {
    Ok(os::fs::fstatfs(file)?.f_type as u64 == TMPFS_MAGIC)
}

/// Whether what a path leads to is on tmpfs.
pub(crate) fn is_path_on_tmpfs(path: &Path) -> Result<bool, Errno> {
    Ok(os::fs::statfs(path)?.f_type as u64 == TMPFS_MAGIC)
}

/// Calls `visit` with the names in a directory, `.` and `..` included, until it returns `false`. Names that are not UTF-8
/// are left out. The size of `buffer` sets how many names are read at once.
pub(crate) fn each_name(
    directory: &Descriptor,
    buffer: &mut [MaybeUninit<u8>],
    mut visit: impl FnMut(&str) -> bool,
) -> Result<(), OsError> {
    let doing = || "list a directory".to_owned();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = match Descriptor::open(|| os::fs::openat(directory, ".", flags, Mode::empty())) {
        Ok(own) => own,
        Err(Errno::NOENT) => return Ok(()), // removed in the meantime
        Err(errno) => return Err(OsError::new(doing(), errno)),
    };
    let mut entries = RawDir::new(&own, buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(()),
            entry => entry.context(doing)?,
        };
        if let Ok(name) = entry.file_name().to_str()
            && !visit(name)
        {
            break;
        }
    }
    Ok(())
}

/// The random number that the kernel chose when the machine was started.
pub(crate) fn boot_id() -> Result<[u8; 16], OsError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = os::path::text(path).context(|| format!("read {path}"))?;
    let digits = text.trim().replace('-', "");
    let id = u128::from_str_radix(&digits, 16).map_err(|_| {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "not a hexadecimal number");
        OsError::new(format!("read {path}"), error)
    })?;
    Ok(id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux interrupts `fallocate` on tmpfs for every signal before version 6.6, and later only for one that is fatal.
    #[test]
    fn a_call_that_a_signal_has_interrupted_is_repeated() {
        let mut answers = vec![Err(Errno::NOSPC), Ok(7), Err(Errno::INTR), Err(Errno::INTR)];
        assert_eq!(retry_interrupted(|| answers.pop().unwrap()), Ok(7));
        assert_eq!(retry_interrupted(|| answers.pop().unwrap()), Err(Errno::NOSPC));
    }

    #[test]
    fn a_path_is_made_absolute_without_a_slash_at_its_end() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute(Path::new("a/./b/")).unwrap(), here.join("a/b"));
        assert_eq!(absolute(Path::new("/a//b/")).unwrap().as_os_str(), "/a/b");
    }
}
