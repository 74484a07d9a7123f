//! From a path to an inode.

use super::inode::{Kind, SEARCH};
use super::open_file::Kind as OpenKind;
use super::{CWD, Errno, InodeId, Kernel, Outcome, Pid, ROOT};

const MAX_LINKS: u32 = 40;
const MAX_NAME_BYTES: usize = 255;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Found {
    /// The directory that holds the last name, or the path's end if it has no last name.
    pub(super) directory: InodeId,
    pub(super) name: String,
    /// What is there; `None`: nothing.
    pub(super) inode: Option<InodeId>,
}

impl Found {
    pub(super) fn existing(&self) -> Outcome<InodeId> {
        self.inode.ok_or(Errno::NOENT)
    }
}

impl Kernel {
    /// Follows a path, from `at` unless it is absolute. The last name is followed if it is a link and `follow` says so.
    pub(super) fn walk(&self, pid: Pid, at: i32, path: &str, follow: bool) -> Outcome<Found> {
        let start = match (path.starts_with('/'), at) {
            (true, _) => ROOT,
            (false, CWD) => self.process(pid).directory,
            (false, fd) => self.directory_of(pid, fd)?,
        };
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        self.walk_from(pid, start, path, follow, 0)
    }

    fn walk_from(&self, pid: Pid, start: InodeId, path: &str, follow: bool, links: u32) -> Outcome<Found> {
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let mut at = start;
        let mut rest = path;
        if let Some(inner) = path.strip_prefix("/proc/self/fd/") {
            let (number, inner) = inner.split_once('/').map_or((inner, ""), |(number, inner)| (number, inner));
            at = self.inode_of(pid, number.parse().map_err(|_| Errno::NOENT)?)?;
            rest = inner;
        }
        let mut names = rest.split('/').filter(|name| !name.is_empty()).peekable();
        if names.peek().is_none() {
            return Ok(Found { directory: at, name: ".".into(), inode: Some(at) });
        }
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let Kind::Directory { entries, parent } = &self.inode(at).kind else { return Err(Errno::NOTDIR) };
            self.may(pid, at, SEARCH)?;
            if name.len() > MAX_NAME_BYTES {
                return Err(Errno::NAMETOOLONG);
            }
            let next = match name {
                "." => Some(at),
                ".." => Some(parent.unwrap_or(at)),
                name => entries.get(name).copied(),
            };
            let link = next.and_then(|next| match &self.inode(next).kind {
                Kind::Link(target) if !is_last || follow => Some(target),
                _ => None,
            });
            if let Some(target) = link {
                let start = if target.starts_with('/') { ROOT } else { at };
                let remaining: Vec<&str> = std::iter::once(target.as_str()).chain(names).collect();
                return self.walk_from(pid, start, &remaining.join("/"), follow, links + 1);
            }
            match next {
                _ if is_last => return Ok(Found { directory: at, name: name.to_owned(), inode: next }),
                Some(next) => at = next,
                None => return Err(Errno::NOENT),
            }
        }
        unreachable!("the last name returns")
    }

    /// The inode of an open file or directory.
    pub(super) fn inode_of(&self, pid: Pid, fd: i32) -> Outcome<InodeId> {
        match &self.open_file(self.look_up(pid, fd)?).kind {
            OpenKind::File(file) => Ok(file.inode),
            _ => Err(Errno::INVAL),
        }
    }

    fn directory_of(&self, pid: Pid, fd: i32) -> Outcome<InodeId> {
        let inode =
            self.inode_of(pid, fd).map_err(|errno| if errno == Errno::INVAL { Errno::NOTDIR } else { errno })?;
        if self.inode(inode).is_directory() { Ok(inode) } else { Err(Errno::NOTDIR) }
    }
}
