//! What a simulated machine has to offer: the system calls, words, locks, threads and the clock, each as seen by the
//! simulated thread that calls. Any of them may switch to another simulated thread before it returns.
#![allow(missing_docs, reason = "most are the system calls that bear their names")]

use std::any::Any;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::OnceLock;

pub use rustix::fs::{OFlags, SealFlags};
pub use rustix::io::Errno;

/// The machine's answer.
pub type Answer<T> = Result<T, Errno>;

/// What the machine says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    /// The access mode and the file's type, as `st_mode`.
    pub mode: u32,
    pub bytes: u64,
}

/// Who is at the other end of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// A message that was received. Without bytes: the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<RawFd>,
    pub bytes_cut: bool,
    pub descriptors_cut: bool,
}

/// What a forked child has instead of a value that its parent has once.
pub type Inherit = fn(&dyn Any) -> Box<dyn Any>;

/// The machine.
pub trait Machine: Sync {
    // Files.
    fn open_at(&self, at: RawFd, path: &str, flags: OFlags, mode: u32) -> Answer<RawFd>;
    fn close(&self, fd: RawFd);
    fn link(&self, from: &str, at: RawFd, name: &str) -> Answer<()>;
    fn unlink_at(&self, at: RawFd, name: &str) -> Answer<()>;
    fn rename(&self, from: (RawFd, &str), to: (RawFd, &str)) -> Answer<()>;
    fn make_directory(&self, path: &str, mode: u32) -> Answer<()>;
    fn remove_directory(&self, path: &str) -> Answer<()>;
    fn names(&self, fd: RawFd) -> Answer<Vec<String>>;
    fn stat(&self, fd: RawFd) -> Answer<Stat>;
    fn stat_at(&self, at: RawFd, path: &str) -> Answer<Stat>;
    fn set_mode(&self, fd: RawFd, mode: u32) -> Answer<()>;
    fn set_mode_at(&self, at: RawFd, path: &str, mode: u32) -> Answer<()>;
    fn set_group(&self, fd: RawFd, gid: u32) -> Answer<()>;
    fn file_system(&self, fd: RawFd) -> Answer<u64>;
    fn read_at(&self, fd: RawFd, into: &mut [u8], offset: u64) -> Answer<usize>;
    fn write_at(&self, fd: RawFd, from: &[u8], offset: u64) -> Answer<usize>;
    fn allocate(&self, fd: RawFd, offset: u64, bytes: u64) -> Answer<()>;
    fn truncate(&self, fd: RawFd, bytes: u64) -> Answer<()>;
    fn text(&self, path: &str) -> Answer<String>;

    // Locks of files. `None` as a lock: give it up.
    fn flock(&self, fd: RawFd, exclusive: Option<bool>) -> Answer<()>;
    fn lock_byte(&self, fd: RawFd, byte: u64, exclusive: bool) -> Answer<()>;
    /// Whether a lock is in the way, and whether that one is exclusive.
    fn byte_lock_in_the_way(&self, fd: RawFd, byte: u64, exclusive: bool) -> Answer<Option<bool>>;

    // Memory.
    fn make_memory(&self) -> Answer<RawFd>;
    fn add_seals(&self, fd: RawFd, seals: SealFlags) -> Answer<()>;
    fn seals(&self, fd: RawFd) -> Answer<SealFlags>;
    /// Maps parts of a file, each an offset and a length in bytes, side by side; a child does not inherit them.
    fn map(&self, fd: RawFd, parts: &[(u64, usize)], writable: bool) -> Answer<u32>;
    fn unmap(&self, region: u32);
    /// Loads a word: a synchronising one, at which others may come in between, or a plain one.
    fn load(&self, region: u32, word: usize, synchronising: bool) -> u64;
    fn store(&self, region: u32, word: usize, value: u64, synchronising: bool);
    fn fence(&self);
    /// A private word that a forked child finds wiped.
    fn map_wiped_word(&self) -> Answer<u32>;
    fn load_private(&self, region: u32) -> u64;
    fn store_private(&self, region: u32, value: u64);
    /// `membarrier`; negative if it fails.
    fn membarrier(&self, command: i64) -> i64;

    // Sockets.
    fn make_socket(&self) -> Answer<RawFd>;
    fn bind(&self, fd: RawFd, path: &str) -> Answer<()>;
    fn listen(&self, fd: RawFd, backlog: usize) -> Answer<()>;
    fn connect(&self, fd: RawFd, path: &str) -> Answer<()>;
    fn accept(&self, fd: RawFd) -> Answer<RawFd>;
    fn send(&self, fd: RawFd, bytes: &[u8], descriptors: &[RawFd]) -> Answer<usize>;
    fn receive(&self, fd: RawFd, bytes: usize, descriptors: usize, peek: bool) -> Answer<Message>;
    fn shut_down(&self, fd: RawFd) -> Answer<()>;
    fn accept_descriptors(&self, fd: RawFd, accept: bool) -> Answer<()>;
    fn peer(&self, fd: RawFd) -> Answer<Peer>;

    // Waiting for descriptors.
    fn make_poll(&self) -> Answer<RawFd>;
    fn poll_add(&self, poll: RawFd, fd: RawFd, token: u64, events: u32) -> Answer<()>;
    fn poll_remove(&self, poll: RawFd, fd: RawFd) -> Answer<()>;
    /// Waits until something is ready, at most this many ns: tokens and events.
    fn poll_wait(&self, poll: RawFd, at_most: usize, limit_ns: Option<u64>) -> Answer<Vec<(u64, u32)>>;
    fn make_event(&self) -> Answer<RawFd>;
    fn make_watcher(&self) -> Answer<RawFd>;
    fn watch(&self, fd: RawFd, path: &str, changes: u32) -> Answer<i32>;
    fn unwatch(&self, fd: RawFd, watch: i32) -> Answer<()>;
    /// Reads an eventfd or an inotify instance.
    fn read(&self, fd: RawFd) -> Answer<()>;
    /// Writes to an eventfd.
    fn write(&self, fd: RawFd) -> Answer<()>;

    // The process.
    fn pid(&self) -> u32;
    fn uid(&self) -> u32;
    fn page_size(&self) -> usize;
    fn random(&self, into: &mut [u8]);
    fn executable(&self, pid: u32) -> Answer<PathBuf>;
    fn is_stopped(&self, pid: u32, uid: u32) -> bool;
    fn file_size_limit(&self) -> Option<u64>;
    fn now_ns(&self) -> u64;
    fn sleep(&self, ns: u64);
    /// Others may come in between.
    fn point(&self);
    /// The caller gets on only when others do.
    fn pause(&self);
    /// A named step at which the process may die.
    fn reach(&self, step: &str);
    fn spawn(&self, name: &str, run: Box<dyn FnOnce()>) -> Answer<u64>;
    fn join(&self, thread: u64);
    fn thread(&self) -> u64;
    /// What the running process has once under this key, and how a child inherits it.
    fn per_process(&self, key: usize, make: &dyn Fn() -> Box<dyn Any>, inherit: Inherit) -> &'static dyn Any;
    fn at_fork(&self, calls: [extern "C" fn(); 3]);

    // Locks of memory, by address.
    /// A lock is about to be taken.
    fn before_lock(&self, lock: usize);
    fn took_lock(&self, lock: usize);
    fn released_lock(&self, lock: usize);
    /// Waits until this key is notified, at most this many ns. `false`: the time is up.
    fn wait(&self, key: usize, limit_ns: Option<u64>, why: &'static str) -> bool;
    fn notify_all(&self, key: usize);
}

static MACHINE: OnceLock<&'static dyn Machine> = OnceLock::new();

/// Sets the machine, once.
pub fn install(machine: &'static dyn Machine) {
    assert!(MACHINE.set(machine).is_ok(), "the machine is installed once");
}

#[inline]
pub(crate) fn machine() -> &'static dyn Machine {
    *MACHINE.get().expect("a machine was installed")
}

/// A named step at which the process may die.
pub(crate) fn reach(step: &str) {
    machine().reach(step);
}
