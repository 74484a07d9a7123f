//! A model of the kernel: the part of Linux that librpc uses, as data that one thread steps.
//!
//! Invariant: an object lives exactly while something refers to it. Descriptors, mappings and messages in flight refer
//! to an open file; names and open files refer to an inode. No number is used twice in one run, not even that of a
//! descriptor, so every use after a close is detected. It is a *violation*: a bug of the program, for which no error
//! value is enough.
//!
//! No call blocks here. Where a real process would sleep ([`Kernel::ready`]), the call answers "nothing yet", and the
//! scheduler waits.

mod content; //    the bytes of a file: read, write, size, seals, space
mod directory; //  names: open, link, rename, remove, list
mod inode; //      files as the kernel keeps them, and who may do what with them
mod lock; //       `flock` and open-file-description locks
mod memory; //     mappings, and the words in them
mod message; //    what travels on a socket, descriptors included
mod open_file; //  open files, and what happens at the last close
mod path; //       from a path to an inode
mod poll; //       epoll and eventfd
mod process; //    processes: descriptors, fork, death
mod table; //      numbers that are never used twice
mod socket; //     `SOCK_SEQPACKET` sockets: bind, listen, connect, accept
mod watch; //      inotify

use std::collections::BTreeMap;

pub use inode::Stat;
pub use lock::{Lock, LockKind};
pub use message::{Receive, Received};
pub use poll::{IN, Ready};
pub use process::{CWD, Pid, Stage, User};
pub use rustix::fs::{Mode, OFlags, SealFlags};
pub use rustix::io::Errno;
pub use socket::Credentials;

use inode::Inode;
use open_file::OpenFile;
use process::Process;
use table::Table;

/// The kernel's answer.
pub type Outcome<T> = Result<T, Errno>;

/// Names an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InodeId(u32);

/// Names an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenId(u32);

/// Names a mapping. A forked child has its parent's mappings under the same names, just as it has them at the same
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegionId(pub u32);

/// What differs between machines.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of a page.
    pub page: u64,
    /// Pages that `/dev/shm` has.
    pub pages: u64,
    /// How many descriptors a process may have.
    pub descriptors: usize,
    /// How many inotify instances a user may have.
    pub watchers: usize,
    /// A socket refuses another message while this many bytes of it are unread. A short message counts as about 800
    /// bytes.
    pub send_buffer: usize,
    /// The most connections that may wait for one listener to accept them, whatever it requests.
    pub backlog: usize,
    /// Whether a socket can refuse descriptors (`SO_PASSRIGHTS`, Linux 6.16).
    pub refuses_descriptors: bool,
    /// Whether there is `membarrier`.
    pub has_barriers: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            page: 4096,
            pages: 1 << 18,
            descriptors: 1024,
            watchers: 128,
            send_buffer: 212_992,
            backlog: 4096,
            refuses_descriptors: true,
            has_barriers: true,
        }
    }
}

/// The simulated kernel.
#[derive(Debug)]
pub struct Kernel {
    pub machine: Machine,
    inodes: Table<Inode>,
    open_files: Table<OpenFile>,
    processes: BTreeMap<Pid, Process>,
    next_region: u32,
    used_pages: u64,
    /// Counts everything that may have made something ready. A waiting thread looks again when this has moved.
    changes: u64,
    violations: Vec<String>,
}

/// The root directory.
const ROOT: InodeId = InodeId(0);

impl Kernel {
    /// A machine that has just been started: `/dev/shm` is empty, and there is one process, the first one.
    pub fn new(machine: Machine) -> Self {
        let mut kernel = Self {
            machine,
            inodes: Table::default(),
            open_files: Table::default(),
            processes: BTreeMap::new(),
            next_region: 1,
            used_pages: 0,
            changes: 0,
            violations: Vec::new(),
        };
        let root = kernel.new_inode(Inode::directory(None, User::ROOT, 0o755));
        assert_eq!(root, ROOT);
        let dev = kernel.make_system_directory(root, "dev", 0o755);
        kernel.make_system_directory(dev, "shm", 0o1777);
        kernel.make_system_directory(root, "tmp", 0o1777);
        kernel
    }

    /// Moves whenever something may have become ready.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn changed(&mut self) {
        self.changes += 1;
    }

    /// The program has made a mistake for which no error value is enough.
    pub fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Takes the mistakes of the program since the last call.
    pub fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// The files, open files and processes that a machine without librpc does not have.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        self.list_names(ROOT, "", &mut left);
        let at_boot = ["/dev", "/dev/shm", "/tmp"];
        left.retain(|path| !at_boot.contains(&path.as_str()));
        left.extend(self.open_files.iter().map(|(id, file)| format!("open file {id}: {file:?}")));
        left.extend(self.processes.iter().map(|(pid, process)| format!("process {pid}: {:?}", process.stage)));
        let named = self.inodes.len();
        let known = at_boot.len() + 1;
        if left.is_empty() && named != known {
            left.push(format!("{} inodes that nothing names", named - known));
        }
        if left.is_empty() && self.used_pages != 0 {
            left.push(format!("{} pages that no file has", self.used_pages));
        }
        left
    }

    fn list_names(&self, directory: InodeId, path: &str, into: &mut Vec<String>) {
        for (name, &inode) in self.inode(directory).entries().into_iter().flatten() {
            let path = format!("{path}/{name}");
            into.push(path.clone());
            self.list_names(inode, &path, into);
        }
    }
}
