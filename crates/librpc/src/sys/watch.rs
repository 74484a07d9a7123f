//! inotify: something in a directory has changed, or a file has lost a name.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::{Context, Descriptor, OsError};

/// A watched file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mark(i32);

/// A set of watched directories, or of watched files.
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

    /// Watches for a file's loss of a name (or a change of its mode).
    pub(crate) fn add_file(&self, file: &Path) -> Result<Mark, OsError> {
        inotify::add_watch(&self.0, file, WatchFlags::ATTRIB | WatchFlags::DONT_FOLLOW)
            .map(Mark)
            .context(|| format!("watch {}", file.display()))
    }

    /// Watches a file no longer.
    pub(crate) fn remove(&self, mark: Mark) {
        // It fails only where the file is gone, and the watch with it.
        let _ = inotify::remove_watch(&self.0, mark.0);
    }

    /// The files about which something has been reported.
    pub(crate) fn changed(&self) -> Vec<Mark> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut marks = Vec::new();
        while marks.len() < 256 {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::ATTRIB) => marks.push(Mark(event.wd())),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        marks
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
