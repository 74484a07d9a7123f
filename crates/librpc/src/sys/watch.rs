//! inotify: a directory's entries have changed, or a file was removed.

use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::os::fs::inotify::{self, CreateFlags, WatchFlags};

use super::dispose::dispose;
use super::{Context, Descriptor, OsError, os};

/// What is to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Every change of a directory's entries.
    Entries,
    /// The next sign that a file may have lost its name. Reported once; then the watch is gone.
    Removal,
}

impl Interest {
    fn flags(self) -> WatchFlags {
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        match self {
            Self::Entries => {
                let entries = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MODIFY | WatchFlags::DELETE;
                itself | entries | WatchFlags::ONLYDIR
            }
            // A file that is open somewhere lives on without a name: what the kernel reports then is the count of its
            // names, as a changed attribute.
            Self::Removal => itself | WatchFlags::ATTRIB | WatchFlags::ONESHOT | WatchFlags::DONT_FOLLOW,
        }
    }
}

/// An inotify instance.
///
/// Closing one waits for the kernel's own work: milliseconds as a rule, over a second on a loaded machine. So an
/// expendable thread closes it.
#[derive(Debug)]
pub(crate) struct Watch(ManuallyDrop<Descriptor>);

impl Watch {
    pub(crate) fn new() -> Result<Self, OsError> {
        Descriptor::open(|| inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK))
            .context(|| "make an inotify instance".into())
            .map(|descriptor| Self(ManuallyDrop::new(descriptor)))
    }

    /// Watches what a path leads to. Returns the watch's number: the same for the same file, another for another file.
    pub(crate) fn add(&self, path: &Path, interest: Interest) -> Result<i32, OsError> {
        inotify::add_watch(&*self.0, path, interest.flags()).context(|| format!("watch {}", path.display()))
    }

    /// Ends a watch.
    pub(crate) fn remove(&self, watch: i32) {
        // It fails only for a watch that has ended with its file.
        let _ = inotify::remove_watch(&*self.0, watch);
    }

    /// Forgets what has been reported so far.
    pub(crate) fn drain(&self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        for _ in 0..16 {
            // What cannot be read now is reported again.
            if os::io::read(&*self.0, &mut buffer).is_err() {
                break;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: taken once, because it is dropped once.
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
