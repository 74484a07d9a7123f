//! Files as the kernel keeps them, and their permissions.

use std::collections::{BTreeMap, BTreeSet};

use super::lock::Held;
use super::watch::ATTRIBUTES;
use super::{Errno, InodeId, Kernel, OpenId, Outcome, Pid, SealFlags, User};

/// A file without its name.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits, with setgid (2000) and sticky (1000).
    pub(super) mode: u32,
    /// The directories that name it, once for each name.
    pub(super) named_in: Vec<InodeId>,
    /// It never had a name, but may get one.
    pub(super) is_linkable: bool,
    /// How many open files and mappings refer to it.
    pub(super) opened: u32,
    pub(super) locks: Vec<Held>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory {
        entries: BTreeMap<String, InodeId>,
        parent: Option<InodeId>,
    },
    Regular(Content),
    /// The socket that was bound here, which may be long gone.
    Socket(OpenId),
    Link(String),
}

/// The bytes of a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Pages that take space. A file may be longer; the rest are holes.
    pub(super) pages: BTreeSet<u64>,
    /// `None`: a file that cannot be sealed.
    pub(super) seals: Option<SealFlags>,
    /// Whether its pages count against those of `/dev/shm`.
    pub(super) is_counted: bool,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    pub size: u64,
    pub is_regular: bool,
    pub is_directory: bool,
    pub is_socket: bool,
}

pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

const STICKY: u32 = 0o1000;
const SETGID: u32 = 0o2000;

impl Inode {
    pub(super) fn new(kind: Kind, user: User, mode: u32) -> Self {
        let User { uid, gid } = user;
        Self { kind, uid, gid, mode, named_in: Vec::new(), is_linkable: false, opened: 0, locks: Vec::new() }
    }

    pub(super) fn directory(parent: Option<InodeId>, user: User, mode: u32) -> Self {
        Self::new(Kind::Directory { entries: BTreeMap::new(), parent }, user, mode)
    }

    /// The entries of a directory; `None`: it is not a directory.
    pub(super) fn entries(&self) -> Option<&BTreeMap<String, InodeId>> {
        match &self.kind {
            Kind::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    pub(super) fn entries_mut(&mut self) -> Outcome<&mut BTreeMap<String, InodeId>> {
        match &mut self.kind {
            Kind::Directory { entries, .. } => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn content(&self) -> Outcome<&Content> {
        match &self.kind {
            Kind::Regular(content) => Ok(content),
            Kind::Directory { .. } => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn content_mut(&mut self) -> Outcome<&mut Content> {
        match &mut self.kind {
            Kind::Regular(content) => Ok(content),
            Kind::Directory { .. } => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

impl Kernel {
    pub(super) fn new_inode(&mut self, inode: Inode) -> InodeId {
        InodeId(self.inodes.add(inode))
    }

    pub(super) fn inode(&self, id: InodeId) -> &Inode {
        self.inodes.get(id.0).expect("an inode that something refers to")
    }

    pub(super) fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        self.inodes.get_mut(id.0).expect("an inode that something refers to")
    }

    pub(super) fn make_system_directory(&mut self, parent: InodeId, name: &str, mode: u32) -> InodeId {
        let made = self.new_inode(Inode::directory(Some(parent), User::ROOT, mode));
        self.add_name(parent, name, made);
        made
    }

    /// Frees an inode to which nothing refers any more.
    pub(super) fn let_go(&mut self, id: InodeId) {
        let inode = self.inode(id);
        if inode.opened > 0 || !inode.named_in.is_empty() || id == super::ROOT {
            return;
        }
        let inode = self.inodes.remove(id.0).expect("it was there a moment ago");
        if let Kind::Regular(Content { pages, is_counted: true, .. }) = &inode.kind {
            self.used_pages -= pages.len() as u64;
        }
        self.unwatch_inode(id);
    }

    /// Whether a process may do this with a file: bits of [`READ`], [`WRITE`], [`SEARCH`].
    pub(super) fn may(&self, pid: Pid, id: InodeId, want: u32) -> Outcome<()> {
        let (process, inode) = (self.process(pid), self.inode(id));
        let granted = match process.user.uid {
            0 => READ | WRITE | SEARCH,
            uid if uid == inode.uid => inode.mode >> 6,
            _ if process.is_in_group(inode.gid) => inode.mode >> 3,
            _ => inode.mode,
        };
        if want & !granted & 7 == 0 { Ok(()) } else { Err(Errno::ACCESS) }
    }

    /// Whether a process may put a new name into a directory, which may have been removed.
    pub(super) fn check_entry(&self, pid: Pid, directory: InodeId) -> Outcome<()> {
        if directory != super::ROOT && self.inode(directory).named_in.is_empty() {
            return Err(Errno::NOENT);
        }
        self.may(pid, directory, WRITE | SEARCH)
    }

    /// Whether a process may take a name out of a directory.
    pub(super) fn may_remove(&self, pid: Pid, directory: InodeId, entry: InodeId) -> Outcome<()> {
        self.may(pid, directory, WRITE | SEARCH)?;
        let (parent, uid) = (self.inode(directory), self.process(pid).user.uid);
        let is_free = parent.mode & STICKY == 0 || uid == 0 || uid == parent.uid || uid == self.inode(entry).uid;
        if is_free { Ok(()) } else { Err(Errno::PERM) }
    }

    /// The owner and the mode of what a process makes in a directory.
    pub(super) fn owner_in(&self, pid: Pid, directory: InodeId, mode: u32, is_directory: bool) -> (User, u32) {
        let (process, parent) = (self.process(pid), self.inode(directory));
        let mut mode = mode & !process.umask & 0o7777;
        let mut user = process.user;
        if parent.mode & SETGID != 0 {
            user.gid = parent.gid;
            mode |= if is_directory { SETGID } else { 0 };
        }
        (user, mode)
    }

    /// Changes the mode, as only the owner and root may.
    pub(super) fn change_mode(&mut self, pid: Pid, id: InodeId, mode: u32) -> Outcome<()> {
        let process = self.process(pid);
        let (uid, is_member) = (process.user.uid, process.is_in_group(self.inode(id).gid));
        let inode = self.inode_mut(id);
        if uid != 0 && uid != inode.uid {
            return Err(Errno::PERM);
        }
        let lost = if uid != 0 && !is_member { SETGID } else { 0 };
        inode.mode = mode & 0o7777 & !lost;
        self.notify(id, ATTRIBUTES);
        Ok(())
    }

    /// Gives a file to one of the owner's groups.
    pub(super) fn change_group(&mut self, pid: Pid, id: InodeId, gid: u32) -> Outcome<()> {
        let process = self.process(pid);
        let (uid, is_member) = (process.user.uid, process.is_in_group(gid));
        let inode = self.inode_mut(id);
        if uid != 0 && (uid != inode.uid || !is_member) {
            return Err(Errno::PERM);
        }
        inode.gid = gid;
        self.notify(id, ATTRIBUTES);
        Ok(())
    }

    pub(super) fn stat_of(&self, id: InodeId) -> Stat {
        let inode = self.inode(id);
        let size = match &inode.kind {
            Kind::Regular(content) => content.bytes.len() as u64,
            _ => 0,
        };
        Stat {
            inode: u64::from(id.0),
            uid: inode.uid,
            gid: inode.gid,
            mode: inode.mode,
            size,
            is_regular: matches!(inode.kind, Kind::Regular(_)),
            is_directory: inode.is_directory(),
            is_socket: matches!(inode.kind, Kind::Socket(_)),
        }
    }
}
