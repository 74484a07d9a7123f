//! Names: open, link, rename, remove, list.

use super::inode::{Content, Inode, Kind, READ, SEARCH, WRITE};
use super::open_file::{File, Kind as OpenKind};
use super::watch::{ATTRIBUTES, CREATED, DELETED, MOVED_SELF, MOVED_TO};
use super::{Errno, InodeId, Kernel, Mode, OFlags, Outcome, Pid, Stat};

impl Kernel {
    /// `openat`. A new descriptor.
    pub fn open_at(&mut self, pid: Pid, at: i32, path: &str, flags: OFlags, mode: Mode) -> Outcome<i32> {
        self.check_room(pid)?;
        // With O_PATH a file can be neither read nor written.
        let access = if flags.contains(OFlags::PATH) { OFlags::RDONLY } else { flags & OFlags::ACCMODE };
        let (readable, writable) = (access != OFlags::WRONLY, access != OFlags::RDONLY);
        let found = self.walk(pid, at, path, !flags.contains(OFlags::NOFOLLOW));
        let (inode, found_in) = if flags.contains(OFlags::TMPFILE) {
            let directory = found?.existing()?;
            if !self.inode(directory).is_directory() {
                return Err(Errno::NOTDIR);
            }
            if !writable {
                return Err(Errno::INVAL);
            }
            self.may(pid, directory, WRITE | SEARCH)?;
            let made = self.make_regular(pid, directory, mode);
            self.inode_mut(made).is_linkable = true;
            (made, directory)
        } else {
            let found = found?;
            let inode = match found.inode {
                Some(_) if flags.contains(OFlags::CREATE | OFlags::EXCL) => return Err(Errno::EXIST),
                Some(inode) => {
                    self.check_open(pid, inode, flags, readable, writable)?;
                    inode
                }
                None if flags.contains(OFlags::CREATE) => {
                    self.check_entry(pid, found.directory)?;
                    let made = self.make_regular(pid, found.directory, mode);
                    self.add_name(found.directory, &found.name, made);
                    made
                }
                None => return Err(Errno::NOENT),
            };
            (inode, found.directory)
        };
        if flags.contains(OFlags::TRUNC)
            && writable
            && let Ok(content) = self.inode_mut(inode).content_mut()
        {
            content.bytes.clear();
        }
        let file = self.new_open_file(OpenKind::File(File { inode, readable, writable, found_in: Some(found_in) }));
        self.inode_mut(inode).opened += 1;
        Ok(self.install(pid, file))
    }

    fn check_open(&self, pid: Pid, id: InodeId, flags: OFlags, readable: bool, writable: bool) -> Outcome<()> {
        let inode = self.inode(id);
        match &inode.kind {
            Kind::Link(_) => return Err(Errno::LOOP),
            Kind::Directory { .. } if writable => return Err(Errno::ISDIR),
            Kind::Regular(_) | Kind::Socket(_) if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            Kind::Socket(_) => return Err(Errno::NXIO),
            Kind::Directory { .. } | Kind::Regular(_) => {}
        }
        let want = if readable { READ } else { 0 } | if writable { WRITE } else { 0 };
        self.may(pid, id, want)
    }

    fn make_regular(&mut self, pid: Pid, directory: InodeId, mode: Mode) -> InodeId {
        let (user, mode) = self.owner_in(pid, directory, mode.as_raw_mode(), false);
        self.new_inode(Inode::new(Kind::Regular(Content { is_counted: true, ..Content::default() }), user, mode))
    }

    pub(super) fn add_name(&mut self, directory: InodeId, name: &str, inode: InodeId) {
        self.name(directory, name, inode, CREATED);
    }

    fn name(&mut self, directory: InodeId, name: &str, inode: InodeId, change: u32) {
        let entries = self.inode_mut(directory).entries_mut().expect("a directory");
        assert!(entries.insert(name.to_owned(), inode).is_none(), "a name that is free");
        let named = self.inode_mut(inode);
        named.named_in.push(directory);
        named.is_linkable = false;
        self.notify(directory, change);
    }

    fn remove_name(&mut self, directory: InodeId, name: &str) {
        let entries = self.inode_mut(directory).entries_mut().expect("a directory");
        let inode = entries.remove(name).expect("a name that is there");
        let named_in = &mut self.inode_mut(inode).named_in;
        let at = named_in.iter().position(|&named| named == directory).expect("it was named here");
        named_in.swap_remove(at);
        self.notify(inode, ATTRIBUTES);
        self.let_go(inode);
    }

    /// `mkdirat`.
    pub fn make_directory(&mut self, pid: Pid, at: i32, path: &str, mode: Mode) -> Outcome<()> {
        let found = self.walk(pid, at, path, false)?;
        if found.inode.is_some() {
            return Err(Errno::EXIST);
        }
        self.check_entry(pid, found.directory)?;
        let (user, mode) = self.owner_in(pid, found.directory, mode.as_raw_mode(), true);
        let made = self.new_inode(Inode::directory(Some(found.directory), user, mode));
        self.add_name(found.directory, &found.name, made);
        Ok(())
    }

    /// `rmdir`.
    pub fn remove_directory(&mut self, pid: Pid, at: i32, path: &str) -> Outcome<()> {
        let found = self.walk(pid, at, path, false)?;
        let inode = found.existing()?;
        let entries = self.inode(inode).entries().ok_or(Errno::NOTDIR)?;
        let is_empty = entries.is_empty();
        if found.name == "." {
            return Err(Errno::INVAL);
        }
        self.may_remove(pid, found.directory, inode)?;
        if !is_empty {
            return Err(Errno::NOTEMPTY);
        }
        self.remove_name(found.directory, &found.name);
        self.notify(found.directory, DELETED);
        Ok(())
    }

    /// `unlinkat` of anything but a directory.
    pub fn unlink(&mut self, pid: Pid, at: i32, path: &str) -> Outcome<()> {
        let found = self.walk(pid, at, path, false)?;
        let inode = found.existing()?;
        if self.inode(inode).is_directory() {
            return Err(Errno::ISDIR);
        }
        self.may_remove(pid, found.directory, inode)?;
        self.remove_name(found.directory, &found.name);
        self.notify(found.directory, DELETED);
        Ok(())
    }

    /// `linkat` with `AT_SYMLINK_FOLLOW`: another name for a file, mostly for one without a name.
    pub fn link(&mut self, pid: Pid, from: (i32, &str), to: (i32, &str)) -> Outcome<()> {
        let from = self.walk(pid, from.0, from.1, true);
        let found = self.walk(pid, to.0, to.1, false);
        if from.as_ref().is_err_and(|&errno| errno != Errno::INVAL) {
            return from.map(drop);
        }
        let found = found?;
        if found.inode.is_some() {
            return Err(Errno::EXIST);
        }
        // An open file that is not on this file system.
        let inode = from.map_err(|_| Errno::XDEV)?.existing()?;
        if self.inode(inode).content().is_ok_and(|content| !content.is_counted) {
            return Err(Errno::XDEV);
        }
        self.check_entry(pid, found.directory)?;
        if self.inode(inode).is_directory() {
            return Err(Errno::PERM);
        }
        if self.inode(inode).named_in.is_empty() && !self.inode(inode).is_linkable {
            return Err(Errno::NOENT);
        }
        // `fs.protected_hardlinks`: a file of another user must be readable and writable.
        if self.process(pid).user.uid != self.inode(inode).uid {
            self.may(pid, inode, READ | WRITE).map_err(|_| Errno::PERM)?;
        }
        self.add_name(found.directory, &found.name, inode);
        Ok(())
    }

    /// `renameat2`; `replace`: a file that already has the new name loses it.
    pub fn rename(&mut self, pid: Pid, from: (i32, &str), to: (i32, &str), replace: bool) -> Outcome<()> {
        let old = self.walk(pid, from.0, from.1, false)?;
        let new = self.walk(pid, to.0, to.1, false)?;
        let inode = old.existing()?;
        if new.inode.is_some() && !replace {
            return Err(Errno::EXIST);
        }
        if self.is_within(new.directory, inode) {
            return Err(Errno::INVAL);
        }
        if new.inode.is_some_and(|target| self.is_within(old.directory, target)) {
            return Err(Errno::NOTEMPTY);
        }
        self.may_remove(pid, old.directory, inode)?;
        match new.inode {
            Some(target) if target == inode => return Ok(()),
            Some(target) => {
                self.may_remove(pid, new.directory, target)?;
                let (is_directory, was) = (self.inode(inode).is_directory(), self.inode(target));
                match was.entries() {
                    Some(_) if !is_directory => return Err(Errno::ISDIR),
                    Some(entries) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                    None if is_directory => return Err(Errno::NOTDIR),
                    _ => self.remove_name(new.directory, &new.name),
                }
            }
            None => self.check_entry(pid, new.directory)?,
        }
        self.name(new.directory, &new.name, inode, MOVED_TO);
        self.remove_name(old.directory, &old.name); // no watch here asks for this change
        if let Kind::Directory { parent, .. } = &mut self.inode_mut(inode).kind {
            *parent = Some(new.directory);
        }
        self.open_files.for_each_mut(|file| {
            if let OpenKind::File(file) = &mut file.kind
                && (file.inode, file.found_in) == (inode, Some(old.directory))
            {
                file.found_in = Some(new.directory);
            }
        });
        self.notify(inode, MOVED_SELF);
        Ok(())
    }

    /// Whether a directory is another one, or is inside it.
    fn is_within(&self, directory: InodeId, of: InodeId) -> bool {
        let parent = |id: &InodeId| match self.inode(*id).kind {
            Kind::Directory { parent, .. } => parent,
            _ => None,
        };
        std::iter::successors(Some(directory), parent).any(|id| id == of)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, pid: Pid, target: &str, at: i32, path: &str) -> Outcome<()> {
        let found = self.walk(pid, at, path, false)?;
        if found.inode.is_some() {
            return Err(Errno::EXIST);
        }
        self.check_entry(pid, found.directory)?;
        let (user, _) = self.owner_in(pid, found.directory, 0o777, false);
        let made = self.new_inode(Inode::new(Kind::Link(target.to_owned()), user, 0o777));
        self.add_name(found.directory, &found.name, made);
        Ok(())
    }

    /// The names in an open directory, in an arbitrary order.
    pub fn list(&self, pid: Pid, fd: i32) -> Outcome<Vec<String>> {
        let inode = self.inode_of(pid, fd)?;
        Ok(self.inode(inode).entries().ok_or(Errno::NOTDIR)?.keys().cloned().collect())
    }

    /// `fstatat`.
    pub fn stat_at(&self, pid: Pid, at: i32, path: &str, follow: bool) -> Outcome<Stat> {
        Ok(self.stat_of(self.walk(pid, at, path, follow)?.existing()?))
    }

    /// `fstat`.
    pub fn stat(&self, pid: Pid, fd: i32) -> Outcome<Stat> {
        Ok(self.stat_of(self.inode_of(pid, fd)?))
    }

    /// `fchmodat`.
    pub fn chmod_at(&mut self, pid: Pid, at: i32, path: &str, mode: Mode) -> Outcome<()> {
        let inode = self.walk(pid, at, path, true)?.existing()?;
        self.change_mode(pid, inode, mode.as_raw_mode())
    }

    /// `fchmod`.
    pub fn chmod(&mut self, pid: Pid, fd: i32, mode: Mode) -> Outcome<()> {
        let inode = self.inode_of(pid, fd)?;
        self.change_mode(pid, inode, mode.as_raw_mode())
    }

    /// `fchown` of the group only.
    pub fn chgrp(&mut self, pid: Pid, fd: i32, gid: u32) -> Outcome<()> {
        let inode = self.inode_of(pid, fd)?;
        self.change_group(pid, inode, gid)
    }
}
