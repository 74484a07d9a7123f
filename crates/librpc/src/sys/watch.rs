//! inotify on a directory: something in it has changed.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::{Context, Descriptor, OsError};

/// A set of watched directories.
#[derive(Debug)]
pub(crate) struct Watch(Descriptor);

impl Watch {
    pub(crate) fn new() -> Result<Self, OsError> {
        Descriptor::open(|| inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK))
            .context(|| "make an inotify instance".into())
            .map(Self)
    }

    /// Watches for files that come, go or are written in a directory.
    pub(crate) fn add(&self, directory: &Path) -> Result<(), OsError> {
        let changes = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.0, directory, changes).map(drop).context(|| format!("watch {}", directory.display()))
    }

    /// Forgets what has been reported so far.
    pub(crate) fn drain(&self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        for _ in 0..16 {
            if rustix::io::read(&self.0, &mut buffer).is_err() {
                break;
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
