//! Mappings, and the words in them.
//!
//! A mapping is either private memory or a row of parts of one file, as `mmap` with `MAP_FIXED` puts them side by side.
//! An access outside of the mapping, to a read-only page, or past the end of the file would kill the process, so it is
//! a violation.

use super::open_file::{File, Kind};
use super::{Errno, InodeId, Kernel, OpenId, Outcome, Pid, RegionId, SealFlags};

const WORD: u64 = 8;

#[derive(Debug)]
pub(super) struct Region {
    memory: Memory,
    bytes: u64,
    inheritance: Inheritance,
}

#[derive(Debug)]
enum Memory {
    /// Parts of a file, side by side.
    Shared {
        file: OpenId,
        inode: InodeId,
        writable: bool,
        parts: Vec<Part>,
    },
    Private(Vec<u64>),
}

#[derive(Clone, Copy, Debug)]
struct Part {
    offset: u64,
    bytes: u64,
}

/// What a forked child gets of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inheritance {
    Same,
    /// `MADV_DONTFORK`.
    Nothing,
    /// `MADV_WIPEONFORK`.
    Zeros,
}

impl Region {
    pub(super) fn file(&self) -> Option<OpenId> {
        match self.memory {
            Memory::Shared { file, .. } => Some(file),
            Memory::Private(_) => None,
        }
    }

    /// What a child gets of it.
    pub(super) fn forked(&self) -> Option<Self> {
        let memory = match (&self.memory, self.inheritance) {
            (_, Inheritance::Nothing) => return None,
            (Memory::Private(words), Inheritance::Zeros) => Memory::Private(vec![0; words.len()]),
            (Memory::Private(words), _) => Memory::Private(words.clone()),
            (&Memory::Shared { file, inode, writable, ref parts }, _) => {
                Memory::Shared { file, inode, writable, parts: parts.clone() }
            }
        };
        Some(Self { memory, ..*self })
    }
}

impl Kernel {
    fn new_region(&mut self, pid: Pid, region: Region) -> RegionId {
        let id = RegionId(self.next_region);
        self.next_region += 1;
        self.process_mut(pid).regions.insert(id, region);
        id
    }

    /// Maps parts of a file, each an offset and a length in bytes, side by side and shared.
    pub fn map(&mut self, pid: Pid, fd: i32, parts: &[(u64, u64)], writable: bool) -> Outcome<RegionId> {
        let file = self.look_up(pid, fd)?;
        let Kind::File(File { inode, readable, writable: may_write, .. }) = self.open_file(file).kind else {
            return Err(Errno::NODEV);
        };
        let seals = self.inode(inode).content().map_err(|_| Errno::NODEV)?.seals.unwrap_or(SealFlags::empty());
        if !readable || writable && !may_write {
            return Err(Errno::ACCESS);
        }
        if writable && seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
            return Err(Errno::PERM);
        }
        let mut bytes = 0;
        for &(offset, length) in parts {
            // An address and an offset that do not begin with a page cannot be mapped.
            if length == 0 || offset % self.machine.page != 0 || bytes % self.machine.page != 0 {
                return Err(Errno::INVAL);
            }
            bytes += length;
        }
        self.refer(file);
        let parts = parts.iter().map(|&(offset, bytes)| Part { offset, bytes }).collect();
        let memory = Memory::Shared { file, inode, writable, parts };
        Ok(self.new_region(pid, Region { memory, bytes, inheritance: Inheritance::Same }))
    }

    /// Maps private memory, zeroed.
    pub fn map_private(&mut self, pid: Pid, bytes: u64) -> RegionId {
        let memory = Memory::Private(vec![0; bytes.div_ceil(WORD) as usize]);
        self.new_region(pid, Region { memory, bytes, inheritance: Inheritance::Same })
    }

    /// `MADV_DONTFORK`.
    pub fn keep_from_children(&mut self, pid: Pid, region: RegionId) {
        self.region_mut(pid, region).inheritance = Inheritance::Nothing;
    }

    /// `MADV_WIPEONFORK`.
    pub fn wipe_in_children(&mut self, pid: Pid, region: RegionId) {
        self.region_mut(pid, region).inheritance = Inheritance::Zeros;
    }

    fn region_mut(&mut self, pid: Pid, region: RegionId) -> &mut Region {
        self.process_mut(pid).regions.get_mut(&region).expect("a mapping of this process")
    }

    /// `munmap`.
    pub fn unmap(&mut self, pid: Pid, region: RegionId) {
        match self.process_mut(pid).regions.remove(&region) {
            Some(region) => {
                if let Some(file) = region.file() {
                    self.release(file);
                }
            }
            None => self.violation(format!("process {pid} unmaps {region:?}, which it does not map")),
        }
    }

    pub(super) fn is_mapped_writable(&self, of: InodeId) -> bool {
        let regions = self.processes.values().flat_map(|process| process.regions.values());
        regions
            .into_iter()
            .any(|region| matches!(region.memory, Memory::Shared { inode, writable: true, .. } if inode == of))
    }

    /// Reads a word.
    pub fn load(&mut self, pid: Pid, region: RegionId, word: usize) -> u64 {
        match self.place(pid, region, word, false) {
            Ok(Place::Private) => match &self.region_mut(pid, region).memory {
                Memory::Private(words) => words[word],
                Memory::Shared { .. } => unreachable!("it was private a moment ago"),
            },
            Ok(Place::File(inode, offset)) => {
                let bytes = &self.inode(inode).content().expect("a file that was mapped").bytes;
                // After the end of the file, its last page contains zeros.
                let at = |at: usize| bytes.get(at).copied().unwrap_or(0);
                u64::from_le_bytes(std::array::from_fn(|byte| at(offset + byte)))
            }
            Err(text) => {
                self.violation(text);
                0
            }
        }
    }

    /// Writes a word.
    pub fn store(&mut self, pid: Pid, region: RegionId, word: usize, value: u64) {
        match self.place(pid, region, word, true) {
            Ok(Place::Private) => match &mut self.region_mut(pid, region).memory {
                Memory::Private(words) => words[word] = value,
                Memory::Shared { .. } => unreachable!("it was private a moment ago"),
            },
            Ok(Place::File(inode, offset)) => {
                if self.take_pages(inode, offset as u64, offset as u64 + WORD).is_err() {
                    return self.violation(format!("SIGBUS: process {pid} writes where there is no space"));
                }
                let bytes = &mut self.inode_mut(inode).content_mut().expect("a file that was mapped").bytes;
                if let Some(to) = bytes.get_mut(offset..offset + WORD as usize) {
                    to.copy_from_slice(&value.to_le_bytes());
                }
            }
            Err(text) => self.violation(text),
        }
    }

    fn place(&self, pid: Pid, id: RegionId, word: usize, writes: bool) -> Result<Place, String> {
        let at = word as u64 * WORD;
        let does = if writes { "writes" } else { "reads" };
        let Some(region) = self.process(pid).regions.get(&id) else {
            return Err(format!("SIGSEGV: process {pid} {does} word {word} of {id:?}, which it does not map"));
        };
        if at + WORD > region.bytes.next_multiple_of(WORD) {
            return Err(format!(
                "SIGSEGV: process {pid} {does} word {word} of {id:?}, which has {} bytes",
                region.bytes
            ));
        }
        let Memory::Shared { inode, writable, parts, .. } = &region.memory else { return Ok(Place::Private) };
        if writes && !writable {
            return Err(format!("SIGSEGV: process {pid} writes word {word} of {id:?}, which is read-only"));
        }
        let mut left = at;
        let part = parts.iter().find(|part| {
            let is_here = left < part.bytes;
            left -= if is_here { 0 } else { part.bytes };
            is_here
        });
        let offset = part.expect("it is within the parts").offset + left;
        let size = self.inode(*inode).content().map_or(0, |content| content.bytes.len() as u64);
        if offset >= size.next_multiple_of(self.machine.page) {
            return Err(format!("SIGBUS: process {pid} {does} byte {offset} of a file of {size}"));
        }
        Ok(Place::File(*inode, offset as usize))
    }
}

enum Place {
    Private,
    File(InodeId, usize),
}
