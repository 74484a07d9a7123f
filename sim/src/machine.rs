//! The simulated machine, as librpc sees it.
//!
//! Each call is listed with the errors that it can return although nothing is wrong: the kernel lacks memory or
//! descriptors at the moment, or a signal came. (A refusal such as EACCES is not among these errors. It is an answer.)

use std::any::Any;
use std::path::PathBuf;

use librpc::simulated::{Answer, Inherit, Machine, Message, OFlags, Peer, SealFlags, Stat};

use crate::kernel::{CWD, Errno, Kernel, Lock, LockKind, Mode, Pid, Receive, RegionId};
use crate::schedule::{self, call};

/// Where `stat` says what kind of file it is.
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SOCKET: u32 = 0o140_000;
const TMPFS: u64 = 0x0102_1994;

const NEW_DESCRIPTOR: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM];
const MEMORY: &[Errno] = &[Errno::NOMEM];
const NOTHING: &[Errno] = &[];

/// The machine of the simulation that runs on this real thread.
struct Simulated;

/// Makes librpc run on simulated machines from now on.
pub fn install() {
    librpc::simulated::install(&Simulated);
    schedule::catch_panics();
}

fn done(_: &()) -> String {
    "0".into()
}

fn descriptor(fd: &i32) -> String {
    fd.to_string()
}

fn debug<T: std::fmt::Debug>(value: &T) -> String {
    format!("{value:?}")
}

fn exclusive(kind: LockKind, exclusive: bool) -> Lock {
    Lock { kind, exclusive }
}

fn stat_of(stat: crate::kernel::Stat) -> Stat {
    let kind = match (stat.is_regular, stat.is_directory, stat.is_socket) {
        (true, _, _) => REGULAR,
        (_, true, _) => DIRECTORY,
        (_, _, true) => SOCKET,
        _ => 0,
    };
    Stat { inode: stat.inode, uid: stat.uid, gid: stat.gid, mode: stat.mode | kind, bytes: stat.size }
}

impl Machine for Simulated {
    fn open_at(&self, at: i32, path: &str, flags: OFlags, mode: u32) -> Answer<i32> {
        const ERRORS: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        let text = || format!("openat({at}, {path:?}, {flags:?}, {mode:o})");
        let mode = Mode::from_raw_mode(mode);
        call("openat", text, ERRORS, |kernel, pid| kernel.open_at(pid, at, path, flags, mode), descriptor)
    }

    fn close(&self, fd: i32) {
        let text = || format!("close({fd})");
        let _ = call("close", text, NOTHING, |kernel, pid| kernel.close(pid, fd), done);
    }

    fn link(&self, from: &str, at: i32, name: &str) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOSPC, Errno::NOMEM];
        let text = || format!("linkat({from:?}, {at}, {name:?})");
        call("linkat", text, ERRORS, |kernel, pid| kernel.link(pid, (CWD, from), (at, name)), done)
    }

    fn unlink_at(&self, at: i32, name: &str) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOMEM];
        let text = || format!("unlinkat({at}, {name:?})");
        call("unlinkat", text, ERRORS, |kernel, pid| kernel.unlink(pid, at, name), done)
    }

    fn rename(&self, from: (i32, &str), to: (i32, &str)) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOSPC, Errno::NOMEM];
        let text = || format!("rename({from:?}, {to:?})");
        call("rename", text, ERRORS, |kernel, pid| kernel.rename(pid, from, to, false), done)
    }

    fn make_directory(&self, path: &str, mode: u32) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOSPC, Errno::NOMEM];
        let text = || format!("mkdir({path:?}, {mode:o})");
        let mode = Mode::from_raw_mode(mode);
        call("mkdir", text, ERRORS, |kernel, pid| kernel.make_directory(pid, CWD, path, mode), done)
    }

    fn remove_directory(&self, path: &str) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOMEM, Errno::BUSY];
        let text = || format!("rmdir({path:?})");
        call("rmdir", text, ERRORS, |kernel, pid| kernel.remove_directory(pid, CWD, path), done)
    }

    fn names(&self, fd: i32) -> Answer<Vec<String>> {
        call("getdents", || format!("getdents({fd})"), MEMORY, |kernel, pid| kernel.list(pid, fd), debug)
    }

    fn stat(&self, fd: i32) -> Answer<Stat> {
        let stat = |kernel: &mut Kernel, pid| kernel.stat(pid, fd).map(stat_of);
        call("fstat", || format!("fstat({fd})"), MEMORY, stat, debug)
    }

    fn stat_at(&self, at: i32, path: &str) -> Answer<Stat> {
        const ERRORS: &[Errno] = &[Errno::NOMEM];
        let stat = |kernel: &mut Kernel, pid| kernel.stat_at(pid, at, path, false).map(stat_of);
        call("fstatat", || format!("fstatat({at}, {path:?})"), ERRORS, stat, debug)
    }

    fn set_mode(&self, fd: i32, mode: u32) -> Answer<()> {
        let to = Mode::from_raw_mode(mode);
        call("fchmod", || format!("fchmod({fd}, {mode:o})"), MEMORY, |kernel, pid| kernel.chmod(pid, fd, to), done)
    }

    fn set_mode_at(&self, at: i32, path: &str, mode: u32) -> Answer<()> {
        let text = || format!("fchmodat({at}, {path:?}, {mode:o})");
        let mode = Mode::from_raw_mode(mode);
        call("fchmodat", text, MEMORY, |kernel, pid| kernel.chmod_at(pid, at, path, mode), done)
    }

    fn set_group(&self, fd: i32, gid: u32) -> Answer<()> {
        call("fchown", || format!("fchown({fd}, {gid})"), MEMORY, |kernel, pid| kernel.chgrp(pid, fd, gid), done)
    }

    fn file_system(&self, fd: i32) -> Answer<u64> {
        let look = |kernel: &mut Kernel, pid| kernel.stat(pid, fd).map(|_| TMPFS);
        call("fstatfs", || format!("fstatfs({fd})"), MEMORY, look, debug)
    }

    fn read_at(&self, fd: i32, into: &mut [u8], offset: u64) -> Answer<usize> {
        const ERRORS: &[Errno] = &[Errno::INTR, Errno::NOMEM, Errno::IO];
        let text = || format!("pread({fd}, at {offset})");
        call("pread", text, ERRORS, |kernel, pid| kernel.read_at(pid, fd, into, offset), debug)
    }

    fn write_at(&self, fd: i32, from: &[u8], offset: u64) -> Answer<usize> {
        const ERRORS: &[Errno] = &[Errno::INTR, Errno::NOSPC, Errno::NOMEM];
        let text = || format!("pwrite({fd}, {} bytes at {offset})", from.len());
        call("pwrite", text, ERRORS, |kernel, pid| kernel.write_at(pid, fd, from, offset), debug)
    }

    fn allocate(&self, fd: i32, offset: u64, bytes: u64) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::INTR, Errno::NOSPC, Errno::NOMEM];
        let text = || format!("fallocate({fd}, {bytes} bytes at {offset})");
        call("fallocate", text, ERRORS, |kernel, pid| kernel.allocate(pid, fd, offset, bytes), done)
    }

    fn truncate(&self, fd: i32, bytes: u64) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::INTR, Errno::NOMEM];
        let text = || format!("ftruncate({fd}, {bytes})");
        call("ftruncate", text, ERRORS, |kernel, pid| kernel.truncate(pid, fd, bytes), done)
    }

    fn text(&self, path: &str) -> Answer<String> {
        let read = |_: &mut Kernel, _: Pid| match path {
            "/proc/sys/kernel/random/boot_id" => Ok("01234567-89ab-cdef-0123-456789abcdef\n".to_owned()),
            _ => Err(Errno::NOENT),
        };
        call("read", || format!("read {path}"), NEW_DESCRIPTOR, read, debug)
    }

    fn flock(&self, fd: i32, lock: Option<bool>) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOLCK, Errno::NOMEM];
        let text = || format!("flock({fd}, {lock:?})");
        let take = |kernel: &mut Kernel, pid| match lock {
            Some(kind) => kernel.lock(pid, fd, exclusive(LockKind::Whole, kind)),
            None => kernel.unlock(pid, fd, LockKind::Whole),
        };
        call("flock", text, if lock.is_some() { ERRORS } else { NOTHING }, take, done)
    }

    fn lock_byte(&self, fd: i32, byte: u64, kind: bool) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOLCK];
        let text = || format!("fcntl({fd}, F_OFD_SETLK, {byte}, exclusive {kind})");
        let lock = exclusive(LockKind::Byte(byte), kind);
        call("setlk", text, ERRORS, |kernel, pid| kernel.lock(pid, fd, lock), done)
    }

    fn byte_lock_in_the_way(&self, fd: i32, byte: u64, kind: bool) -> Answer<Option<bool>> {
        let text = || format!("fcntl({fd}, F_OFD_GETLK, {byte}, exclusive {kind})");
        let lock = exclusive(LockKind::Byte(byte), kind);
        let look = |kernel: &mut Kernel, pid| Ok(kernel.blocking_lock(pid, fd, lock)?.map(|found| found.exclusive));
        call("getlk", text, MEMORY, look, debug)
    }

    fn make_memory(&self) -> Answer<i32> {
        call("memfd", || "memfd_create()".into(), NEW_DESCRIPTOR, |kernel, pid| kernel.make_memory(pid), descriptor)
    }

    fn add_seals(&self, fd: i32, seals: SealFlags) -> Answer<()> {
        let text = || format!("fcntl({fd}, F_ADD_SEALS, {seals:?})");
        call("add_seals", text, MEMORY, |kernel, pid| kernel.add_seals(pid, fd, seals), done)
    }

    fn seals(&self, fd: i32) -> Answer<SealFlags> {
        let text = || format!("fcntl({fd}, F_GET_SEALS)");
        call("seals", text, NOTHING, |kernel, pid| kernel.seals(pid, fd), debug)
    }

    fn map(&self, fd: i32, parts: &[(u64, usize)], writable: bool) -> Answer<u32> {
        let parts: Vec<(u64, u64)> = parts.iter().map(|&(offset, bytes)| (offset, bytes as u64)).collect();
        let map = |kernel: &mut Kernel, pid| {
            let region = kernel.map(pid, fd, &parts, writable)?;
            kernel.keep_from_children(pid, region);
            Ok(region.0)
        };
        call("mmap", || format!("mmap({fd}, {parts:?}, writable {writable})"), MEMORY, map, debug)
    }

    fn unmap(&self, region: u32) {
        let unmap = |kernel: &mut Kernel, pid| {
            kernel.unmap(pid, RegionId(region));
            Ok(())
        };
        let _ = call("munmap", || format!("munmap({region})"), NOTHING, unmap, done);
    }

    fn load(&self, region: u32, word: usize, synchronising: bool) -> u64 {
        match synchronising {
            true => schedule::word(|kernel, pid| kernel.load(pid, RegionId(region), word)),
            false => schedule::plain_word(|kernel, pid| kernel.load(pid, RegionId(region), word)),
        }
    }

    fn store(&self, region: u32, word: usize, value: u64, synchronising: bool) {
        match synchronising {
            true => schedule::word(|kernel, pid| kernel.store(pid, RegionId(region), word, value)),
            false => schedule::plain_word(|kernel, pid| kernel.store(pid, RegionId(region), word, value)),
        }
    }

    fn fence(&self) {
        schedule::word(|_, _| ());
    }

    fn map_wiped_word(&self) -> Answer<u32> {
        let map = |kernel: &mut Kernel, pid| {
            let region = kernel.map_private(pid, 8);
            kernel.wipe_in_children(pid, region);
            Ok(region.0)
        };
        call("mmap", || "mmap(private, wiped on fork)".into(), MEMORY, map, debug)
    }

    fn load_private(&self, region: u32) -> u64 {
        schedule::plain_word(|kernel, pid| kernel.load(pid, RegionId(region), 0))
    }

    fn store_private(&self, region: u32, value: u64) {
        schedule::plain_word(|kernel, pid| kernel.store(pid, RegionId(region), 0, value));
    }

    fn membarrier(&self, command: i64) -> i64 {
        let barrier = |kernel: &mut Kernel, _: Pid| match (kernel.machine.has_barriers, command) {
            (true, 0) => Ok(2 | 4),
            (true, _) => Ok(0),
            (false, _) => Err(Errno::NOSYS),
        };
        call("membarrier", || format!("membarrier({command})"), NOTHING, barrier, debug).unwrap_or(-1)
    }

    fn make_socket(&self) -> Answer<i32> {
        const ERRORS: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
        call("socket", || "socket()".into(), ERRORS, |kernel, pid| kernel.make_socket(pid), descriptor)
    }

    fn bind(&self, fd: i32, path: &str) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOSPC, Errno::NOMEM];
        call("bind", || format!("bind({fd}, {path:?})"), ERRORS, |kernel, pid| kernel.bind(pid, fd, path), done)
    }

    fn listen(&self, fd: i32, backlog: usize) -> Answer<()> {
        call(
            "listen",
            || format!("listen({fd}, {backlog})"),
            NOTHING,
            |kernel, pid| kernel.listen(pid, fd, backlog),
            done,
        )
    }

    fn connect(&self, fd: i32, path: &str) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::AGAIN, Errno::NOMEM, Errno::NFILE];
        call(
            "connect",
            || format!("connect({fd}, {path:?})"),
            ERRORS,
            |kernel, pid| kernel.connect(pid, fd, path),
            done,
        )
    }

    fn accept(&self, fd: i32) -> Answer<i32> {
        const ERRORS: &[Errno] = &[Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::CONNABORTED];
        call("accept", || format!("accept({fd})"), ERRORS, |kernel, pid| kernel.accept(pid, fd), descriptor)
    }

    fn send(&self, fd: i32, bytes: &[u8], descriptors: &[i32]) -> Answer<usize> {
        const BELL: &[Errno] = &[Errno::NOMEM, Errno::NOBUFS];
        const DESCRIPTORS: &[Errno] = &[Errno::NOMEM, Errno::NOBUFS, Errno::TOOMANYREFS];
        let text = || format!("sendmsg({fd}, {} bytes, {descriptors:?})", bytes.len());
        let errors = if descriptors.is_empty() { BELL } else { DESCRIPTORS };
        call("sendmsg", text, errors, |kernel, pid| kernel.send(pid, fd, bytes, descriptors), debug)
    }

    fn receive(&self, fd: i32, bytes: usize, descriptors: usize, peek: bool) -> Answer<Message> {
        // Linux receives into one buffer without allocating anything.
        let how = Receive { bytes, descriptors, peek };
        let receive = |kernel: &mut Kernel, pid| {
            let received = kernel.receive(pid, fd, how)?;
            Ok(Message {
                bytes: received.bytes,
                descriptors: received.descriptors,
                bytes_cut: received.bytes_cut,
                descriptors_cut: received.descriptors_cut,
            })
        };
        let show = |message: &Message| format!("{} bytes, {:?}", message.bytes.len(), message.descriptors);
        call("recvmsg", || format!("recvmsg({fd}, peek {peek})"), NOTHING, receive, show)
    }

    fn shut_down(&self, fd: i32) -> Answer<()> {
        call("shutdown", || format!("shutdown({fd})"), NOTHING, |kernel, pid| kernel.shut_down(pid, fd), done)
    }

    fn accept_descriptors(&self, fd: i32, accept: bool) -> Answer<()> {
        let text = || format!("setsockopt({fd}, SO_PASSRIGHTS, {accept})");
        call("passrights", text, NOTHING, |kernel, pid| kernel.accept_descriptors(pid, fd, accept), done)
    }

    fn peer(&self, fd: i32) -> Answer<Peer> {
        let look = |kernel: &mut Kernel, pid| {
            let peer = kernel.peer(pid, fd)?;
            Ok(Peer { pid: peer.pid, uid: peer.uid, gid: peer.gid, groups: peer.groups })
        };
        call("peercred", || format!("getsockopt({fd}, SO_PEERCRED)"), NOTHING, look, debug)
    }

    fn make_poll(&self) -> Answer<i32> {
        call("epoll", || "epoll_create()".into(), NEW_DESCRIPTOR, |kernel, pid| kernel.make_poll(pid), descriptor)
    }

    fn poll_add(&self, poll: i32, fd: i32, token: u64, events: u32) -> Answer<()> {
        const ERRORS: &[Errno] = &[Errno::NOMEM, Errno::NOSPC];
        let text = || format!("epoll_ctl({poll}, ADD, {fd}, {token})");
        call("epoll_add", text, ERRORS, |kernel, pid| kernel.poll_add(pid, poll, fd, token, events), done)
    }

    fn poll_remove(&self, poll: i32, fd: i32) -> Answer<()> {
        let text = || format!("epoll_ctl({poll}, DEL, {fd})");
        call("epoll_del", text, NOTHING, |kernel, pid| kernel.poll_remove(pid, poll, fd), done)
    }

    fn poll_wait(&self, poll: i32, at_most: usize, limit_ns: Option<u64>) -> Answer<Vec<(u64, u32)>> {
        let until = limit_ns.map(|limit| schedule::clock_ns().saturating_add(limit));
        loop {
            let ready = |kernel: &mut Kernel, pid| {
                let ready = kernel.ready(pid, poll, at_most)?;
                Ok(ready.into_iter().map(|ready| (ready.token, ready.events)).collect::<Vec<_>>())
            };
            let ready =
                call("epoll_wait", || format!("epoll_wait({poll}, {limit_ns:?})"), &[Errno::INTR], ready, debug)?;
            if !ready.is_empty() || until.is_some_and(|until| schedule::clock_ns() >= until) {
                return Ok(ready);
            }
            schedule::wait_for_poll(poll, until);
        }
    }

    fn make_event(&self) -> Answer<i32> {
        call("eventfd", || "eventfd()".into(), NEW_DESCRIPTOR, |kernel, pid| kernel.make_event(pid), descriptor)
    }

    fn make_watcher(&self) -> Answer<i32> {
        call("inotify", || "inotify_init()".into(), NEW_DESCRIPTOR, |kernel, pid| kernel.make_watcher(pid), descriptor)
    }

    fn unwatch(&self, fd: i32, watch: i32) -> Answer<()> {
        let text = || format!("inotify_rm_watch({fd}, {watch})");
        call("unwatch", text, NOTHING, |kernel, pid| kernel.unwatch(pid, fd, watch), done)
    }

    fn watch(&self, fd: i32, path: &str, changes: u32) -> Answer<i32> {
        const ERRORS: &[Errno] = &[Errno::NOMEM, Errno::NOSPC];
        let text = || format!("inotify_add_watch({fd}, {path:?}, {changes:x})");
        call("watch", text, ERRORS, |kernel, pid| kernel.watch(pid, fd, path, changes), debug)
    }

    fn read(&self, fd: i32) -> Answer<()> {
        call("read", || format!("read({fd})"), NOTHING, |kernel, pid| kernel.read_any(pid, fd), done)
    }

    fn write(&self, fd: i32) -> Answer<()> {
        call("write", || format!("write({fd})"), NOTHING, |kernel, pid| kernel.raise_event(pid, fd, 1), done)
    }

    fn pid(&self) -> u32 {
        schedule::pid()
    }

    fn uid(&self) -> u32 {
        schedule::kernel(|kernel, pid| kernel.user(pid).uid)
    }

    fn page_size(&self) -> usize {
        schedule::kernel(|kernel, _| kernel.machine.page as usize)
    }

    fn random(&self, into: &mut [u8]) {
        schedule::random(|random| random.fill(into));
    }

    fn executable(&self, pid: u32) -> Answer<PathBuf> {
        Ok(format!("/usr/bin/program-{pid}").into())
    }

    fn is_stopped(&self, pid: u32, uid: u32) -> bool {
        schedule::kernel(|kernel, _| kernel.is_stopped(pid, uid))
    }

    fn file_size_limit(&self) -> Option<u64> {
        schedule::kernel(|kernel, pid| kernel.file_limit(pid))
    }

    fn now_ns(&self) -> u64 {
        schedule::now_ns()
    }

    fn sleep(&self, ns: u64) {
        schedule::sleep_until(schedule::clock_ns().saturating_add(ns));
    }

    fn point(&self) {
        schedule::point();
    }

    fn pause(&self) {
        schedule::pause();
    }

    fn reach(&self, step: &str) {
        schedule::fault_point(step);
    }

    fn spawn(&self, name: &str, run: Box<dyn FnOnce()>) -> Answer<u64> {
        const ERRORS: &[Errno] = &[Errno::AGAIN];
        call("clone", || format!("clone({name:?})"), ERRORS, |_, _| Ok(()), done)?;
        Ok(schedule::spawn(name, run).number())
    }

    fn join(&self, thread: u64) {
        schedule::join(schedule::ThreadId::from_number(thread));
    }

    fn thread(&self) -> u64 {
        schedule::thread().number()
    }

    fn per_process(&self, key: usize, make: &dyn Fn() -> Box<dyn Any>, inherit: Inherit) -> &'static dyn Any {
        schedule::process_static(key, make, inherit)
    }

    fn at_fork(&self, calls: [extern "C" fn(); 3]) {
        schedule::at_fork(calls);
    }

    fn before_lock(&self, lock: usize) {
        schedule::before_lock(lock);
    }

    fn took_lock(&self, lock: usize) {
        schedule::took_lock(lock);
    }

    fn released_lock(&self, lock: usize) {
        schedule::released_lock(lock);
    }

    fn wait(&self, key: usize, limit_ns: Option<u64>, why: &'static str) -> bool {
        let until = limit_ns.map(|limit| schedule::clock_ns().saturating_add(limit));
        schedule::wait(key as u64, until, why)
    }

    fn notify_all(&self, key: usize) {
        schedule::notify(key as u64, true);
    }
}
