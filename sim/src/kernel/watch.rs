//! inotify. What has happened is a number of events: nobody here asks which.

use std::collections::BTreeMap;

use super::inode::READ;
use super::open_file::{File, Kind};
use super::{Errno, InodeId, Kernel, Outcome, Pid};

/// Kinds of changes.
pub const MODIFIED: u32 = 0x2;
pub const ATTRIBUTES: u32 = 0x4;
pub const MOVED_TO: u32 = 0x80;
pub const CREATED: u32 = 0x100;
pub const DELETED: u32 = 0x200;
pub const DELETED_SELF: u32 = 0x400;
pub const MOVED_SELF: u32 = 0x800;
const ONLY_DIRECTORIES: u32 = 0x100_0000;
const DO_NOT_FOLLOW: u32 = 0x200_0000;
const ONCE: u32 = 0x8000_0000;

/// An inotify instance.
#[derive(Debug)]
pub(super) struct Watcher {
    uid: u32,
    watched: BTreeMap<InodeId, Watched>,
    next: i32,
    events: u64,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    number: i32,
    changes: u32,
}

impl Watcher {
    pub(super) fn has_news(&self) -> bool {
        self.events > 0
    }
}

impl Kernel {
    /// `inotify_init`.
    pub fn make_watcher(&mut self, pid: Pid) -> Outcome<i32> {
        self.check_room(pid)?;
        let uid = self.process(pid).user.uid;
        let mut count = 0;
        self.each_watcher(|watcher| count += usize::from(watcher.uid == uid));
        if count >= self.machine.watchers {
            return Err(Errno::MFILE);
        }
        let watcher = Watcher { uid, watched: BTreeMap::new(), next: 1, events: 0 };
        let id = self.new_open_file(Kind::Watcher(watcher));
        Ok(self.install(pid, id))
    }

    fn each_watcher(&mut self, mut each: impl FnMut(&mut Watcher)) {
        self.open_files.for_each_mut(|file| {
            if let Kind::Watcher(watcher) = &mut file.kind {
                each(watcher);
            }
        });
    }

    fn watcher(&mut self, pid: Pid, fd: i32) -> Outcome<&mut Watcher> {
        let id = self.look_up(pid, fd)?;
        match &mut self.open_file_mut(id).kind {
            Kind::Watcher(watcher) => Ok(watcher),
            _ => Err(Errno::INVAL),
        }
    }

    /// `inotify_add_watch`. The number is the same for the same file.
    pub fn watch(&mut self, pid: Pid, fd: i32, path: &str, changes: u32) -> Outcome<i32> {
        let inode = self.walk(pid, super::CWD, path, changes & DO_NOT_FOLLOW == 0)?.existing()?;
        if changes & ONLY_DIRECTORIES != 0 && !self.inode(inode).is_directory() {
            return Err(Errno::NOTDIR);
        }
        self.may(pid, inode, READ)?;
        let watcher = self.watcher(pid, fd)?;
        let next = watcher.next;
        let watched = watcher.watched.entry(inode).or_insert(Watched { number: next, changes });
        watched.changes = changes;
        let number = watched.number;
        watcher.next = watcher.next.max(number + 1);
        Ok(number)
    }

    /// `inotify_rm_watch`: who reads the instance hears that the watch has ended.
    pub fn unwatch(&mut self, pid: Pid, fd: i32, number: i32) -> Outcome<()> {
        let watcher = self.watcher(pid, fd)?;
        let Some(&inode) = watcher.watched.iter().find(|(_, watched)| watched.number == number).map(|(id, _)| id)
        else {
            return Err(Errno::INVAL);
        };
        watcher.watched.remove(&inode);
        watcher.events += 1;
        self.changed();
        Ok(())
    }

    /// Reads events: how many. `EAGAIN`: none.
    pub fn read_events(&mut self, pid: Pid, fd: i32, at_most: u64) -> Outcome<u64> {
        let watcher = self.watcher(pid, fd)?;
        if watcher.events == 0 {
            return Err(Errno::AGAIN);
        }
        let read = watcher.events.min(at_most);
        watcher.events -= read;
        Ok(read)
    }

    /// Something has happened to a file, or in a directory.
    pub(super) fn notify(&mut self, inode: InodeId, change: u32) {
        let mut moved = false;
        self.each_watcher(|watcher| {
            let Some(&watched) = watcher.watched.get(&inode).filter(|watched| watched.changes & change != 0) else {
                return;
            };
            watcher.events += 1;
            if watched.changes & ONCE != 0 {
                watcher.watched.remove(&inode);
                watcher.events += 1; // the end of the watch
            }
            moved = true;
        });
        if moved {
            self.changed();
        }
    }

    /// A file was written.
    pub(super) fn modified(&mut self, file: File) {
        self.notify(file.inode, MODIFIED);
        if let Some(directory) = file.found_in {
            self.notify(directory, MODIFIED);
        }
    }

    /// A file is no more.
    pub(super) fn unwatch_inode(&mut self, inode: InodeId) {
        self.notify(inode, DELETED_SELF);
        let mut moved = false;
        self.each_watcher(|watcher| {
            if watcher.watched.remove(&inode).is_some() {
                watcher.events += 1; // the end of the watch
                moved = true;
            }
        });
        if moved {
            self.changed();
        }
    }
}
