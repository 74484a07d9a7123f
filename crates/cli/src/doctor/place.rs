//! The file system that the domain is on, and whether a node can create its files there.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::Check;
use super::machine::{KIB, allows_file_of};
use crate::latency::size;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const PAGE: u64 = 4 * KIB;

pub(super) fn checks(domain: &Path) -> Vec<Check> {
    let directory = match directory(domain) {
        Ok(directory) => directory,
        Err(failed) => return vec![failed],
    };
    let mut checks = vec![file_system(&directory)];
    checks.extend(creation(&directory));
    checks
}

/// Where a node would create its first file: in the domain, or in the directory that the domain will be in.
fn directory(domain: &Path) -> Result<PathBuf, Check> {
    let above = domain.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = if domain.is_dir() { domain } else { above };
    match std::fs::metadata(wanted) {
        Ok(found) if found.is_dir() => Ok(wanted.to_owned()),
        found => {
            let why = found.map_or_else(|error| error.to_string(), |_| "it is not a directory".to_owned());
            let todo = "mount a tmpfs at /dev/shm, or choose a directory on one with LIBRPC_DOMAIN";
            Err(Check::fail("shm", format!("{}: {why}", wanted.display()), todo))
        }
    }
}

fn file_system(directory: &Path) -> Check {
    const NAME: &str = "shm";
    let shown = directory.display();
    let (found, mount) = match (rustix::fs::statfs(directory), rustix::fs::statvfs(directory)) {
        (Ok(found), Ok(mount)) => (found, mount),
        (Err(error), _) | (_, Err(error)) => {
            return Check::fail(NAME, format!("{shown}: {error}"), "mount a tmpfs at /dev/shm");
        }
    };
    if found.f_type as u64 != TMPFS_MAGIC {
        let todo = "mount a tmpfs at /dev/shm, or choose a directory on one with LIBRPC_DOMAIN";
        return Check::fail(NAME, format!("{shown} is not on tmpfs"), todo);
    }
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        let todo = "mount it writable: `mount -o remount,rw /dev/shm`, in a container with the option that made it so";
        return Check::fail(NAME, format!("{shown} is mounted read-only: no node can join"), todo);
    }
    let block = found.f_bsize as u64;
    let (total, free) = (found.f_blocks * block, found.f_bavail * block);
    let (files, free_files) = (found.f_files, found.f_ffree);
    let text = format!("{shown}: {} of {} free, {free_files} of {files} files", size(free), size(total));
    // A total of 0 means no limit. A node takes a page, a domain one more.
    let todo = "remove what fills it (`du -ah /dev/shm`), or enlarge it (`mount -o remount,size=… /dev/shm`)";
    if total > 0 && free < 16 * KIB || files > 0 && free_files < 4 {
        Check::fail(NAME, format!("{text}: no node can join"), todo)
    } else if total > 0 && free < total / 10 || files > 0 && free_files < files / 100 {
        Check::warn(NAME, text, todo)
    } else {
        Check::pass(NAME, text)
    }
}

/// Tries what a node does first: it creates a file without a name, which leaves nothing behind, and allocates a page.
fn creation(directory: &Path) -> Option<Check> {
    const NAME: &str = "creation";
    if !allows_file_of(PAGE) {
        return None; // another check says so
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR);
    let made = file.and_then(|file| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, PAGE));
    let shown = directory.display();
    let todo = match made {
        Ok(()) => return Some(Check::pass(NAME, format!("files can be created in {shown}"))),
        Err(Errno::ACCESS | Errno::PERM) => {
            "make it writable (`chmod 1777 /dev/shm`), or choose another directory with LIBRPC_DOMAIN"
        }
        Err(Errno::NOSPC | Errno::DQUOT) => "free some space, or raise the quota",
        Err(_) => "choose another directory with LIBRPC_DOMAIN",
    };
    let why = made.expect_err("it was handled above");
    Some(Check::fail(NAME, format!("no file can be created in {shown}: {why}"), todo))
}
