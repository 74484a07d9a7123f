//! inotify on a directory: something in it has changed.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::dispose::dispose;
use super::{Context, Descriptor, OsError};

/// A set of watched directories.
///
/// Closing one waits for the kernel's own work, milliseconds mostly, over a second on a loaded machine: an expendable
/// thread does it.
#[derive(Debug)]
pub(crate) struct Watch(ManuallyDrop<Descriptor>);

impl Watch {
    pub(crate) fn new() -> Result<Self, OsError> {
        Descriptor::open(|| inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK))
            .context(|| "make an inotify instance".into())
            .map(|descriptor| Self(ManuallyDrop::new(descriptor)))
    }

    /// Watches for files that come, go or are written in a directory. The number is the same for the same directory,
    /// and another where another one has taken its place.
    pub(crate) fn add(&self, directory: &Path) -> Result<i32, OsError> {
        let changes = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&*self.0, directory, changes).context(|| format!("watch {}", directory.display()))
    }

    /// Forgets what has been reported so far.
    pub(crate) fn drain(&self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        for _ in 0..16 {
            if rustix::io::read(&*self.0, &mut buffer).is_err() {
                break;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: taken once, for it is dropped once.
        let descriptor = unsafe { ManuallyDrop::take(&mut self.0) };
        if descriptor.is_ours() {
            dispose(vec![descriptor.into_owned()], ());
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
