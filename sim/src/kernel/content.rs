//! The bytes of a file: read, write, size, seals, space.

use super::inode::{Content, Inode, Kind};
use super::open_file::{File, Kind as OpenKind};
use super::{Errno, InodeId, Kernel, Outcome, Pid, SealFlags};

impl Kernel {
    fn file(&self, pid: Pid, fd: i32) -> Outcome<File> {
        match &self.open_file(self.look_up(pid, fd)?).kind {
            OpenKind::File(file) => Ok(*file),
            _ => Err(Errno::INVAL),
        }
    }

    /// `pread`: how many bytes were read.
    pub fn read_at(&self, pid: Pid, fd: i32, into: &mut [u8], offset: u64) -> Outcome<usize> {
        let file = self.file(pid, fd)?;
        if !file.readable {
            return Err(Errno::BADF);
        }
        let bytes = &self.inode(file.inode).content()?.bytes;
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    /// `pwrite`: how many bytes were written.
    pub fn write_at(&mut self, pid: Pid, fd: i32, from: &[u8], offset: u64) -> Outcome<usize> {
        let file = self.file(pid, fd)?;
        if !file.writable {
            return Err(Errno::BADF);
        }
        let end = offset + from.len() as u64;
        self.check_file_limit(pid, end)?;
        let content = self.inode(file.inode).content()?;
        let seals = content.seals.unwrap_or(SealFlags::empty());
        let size = content.bytes.len() as u64;
        if seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::PERM);
        }
        let end = match seals.contains(SealFlags::GROW) {
            // It writes page by page, up to the first one that would grow.
            true => (offset..=end).rev().find(|&at| at <= size && (at == end || at % self.machine.page == 0)),
            false => Some(end),
        };
        let end = end.filter(|&end| end > offset).ok_or(Errno::PERM)?;
        let (grows, count) = (end > size, (end - offset) as usize);
        self.take_pages(file.inode, offset, end)?;
        let content = self.inode_mut(file.inode).content_mut()?;
        if grows {
            content.bytes.resize(end as usize, 0);
        }
        content.bytes[offset as usize..end as usize].copy_from_slice(&from[..count]);
        self.modified(file);
        Ok(count)
    }

    /// `fallocate` with no flags.
    pub fn allocate(&mut self, pid: Pid, fd: i32, offset: u64, bytes: u64) -> Outcome<()> {
        let file = self.file(pid, fd)?;
        if !file.writable {
            return Err(Errno::BADF);
        }
        let end = offset + bytes;
        self.check_file_limit(pid, end)?;
        let content = self.inode(file.inode).content()?;
        let grows = end > content.bytes.len() as u64;
        if grows && content.seals.is_some_and(|seals| seals.contains(SealFlags::GROW)) {
            return Err(Errno::PERM);
        }
        self.take_pages(file.inode, offset, end)?;
        if grows {
            self.inode_mut(file.inode).content_mut()?.bytes.resize(end as usize, 0);
        }
        self.modified(file);
        Ok(())
    }

    /// `ftruncate`.
    pub fn truncate(&mut self, pid: Pid, fd: i32, bytes: u64) -> Outcome<()> {
        let file = self.file(pid, fd)?;
        if !file.writable {
            return Err(Errno::INVAL);
        }
        self.check_file_limit(pid, bytes)?;
        let page = self.machine.page;
        let content = self.inode_mut(file.inode).content_mut()?;
        let (seals, now) = (content.seals.unwrap_or(SealFlags::empty()), content.bytes.len() as u64);
        if bytes < now && seals.contains(SealFlags::SHRINK) || bytes > now && seals.contains(SealFlags::GROW) {
            return Err(Errno::PERM);
        }
        content.bytes.resize(bytes as usize, 0);
        let kept = content.pages.len();
        content.pages.retain(|&number| number * page < bytes);
        let freed = if content.is_counted { kept - content.pages.len() } else { 0 };
        self.used_pages -= freed as u64;
        self.modified(file);
        Ok(())
    }

    /// A file longer than the limit of the process would end it by a signal.
    fn check_file_limit(&mut self, pid: Pid, bytes: u64) -> Outcome<()> {
        match self.process(pid).file_limit {
            Some(limit) if bytes > limit => {
                self.violation(format!("SIGXFSZ: process {pid} makes a file of {bytes} bytes, and may make {limit}"));
                Err(Errno::FBIG)
            }
            _ => Ok(()),
        }
    }

    /// Takes space for a part of a file.
    pub(super) fn take_pages(&mut self, id: InodeId, from: u64, to: u64) -> Outcome<()> {
        let (page, left) = (self.machine.page, self.machine.pages - self.used_pages);
        let content = self.inode_mut(id).content_mut()?;
        let wanted = from / page..to.div_ceil(page);
        let missing = wanted.clone().filter(|number| !content.pages.contains(number)).count() as u64;
        if content.is_counted && missing > left {
            return Err(Errno::NOSPC);
        }
        content.pages.extend(wanted);
        let counted = if content.is_counted { missing } else { 0 };
        self.used_pages += counted;
        Ok(())
    }

    /// `memfd_create` with `MFD_ALLOW_SEALING`.
    pub fn make_memory(&mut self, pid: Pid) -> Outcome<i32> {
        self.check_room(pid)?;
        let content = Content { seals: Some(SealFlags::empty()), ..Content::default() };
        let inode = self.new_inode(Inode::new(Kind::Regular(content), self.process(pid).user, 0o777));
        let file = self.new_open_file(OpenKind::File(File { inode, readable: true, writable: true, found_in: None }));
        self.inode_mut(inode).opened += 1;
        Ok(self.install(pid, file))
    }

    /// `F_ADD_SEALS`.
    pub fn add_seals(&mut self, pid: Pid, fd: i32, seals: SealFlags) -> Outcome<()> {
        let file = self.file(pid, fd)?;
        if !file.writable {
            return Err(Errno::PERM);
        }
        let is_mapped_writable = self.is_mapped_writable(file.inode);
        let content = self.inode_mut(file.inode).content_mut()?;
        let Some(now) = content.seals else { return Err(Errno::PERM) };
        if now.contains(SealFlags::SEAL) {
            return Err(Errno::PERM);
        }
        if seals.contains(SealFlags::WRITE) && is_mapped_writable {
            return Err(Errno::BUSY);
        }
        content.seals = Some(now | seals);
        Ok(())
    }

    /// `F_GET_SEALS`.
    pub fn seals(&self, pid: Pid, fd: i32) -> Outcome<SealFlags> {
        let content = self.inode(self.file(pid, fd)?.inode).content().map_err(|_| Errno::INVAL)?;
        // A plain file on tmpfs carries the seal against seals.
        Ok(content.seals.unwrap_or(SealFlags::SEAL))
    }
}
