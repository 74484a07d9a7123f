//! Making the calls on this machine.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, MemfdFlags, Mode, RenameFlags, SealFlags, inotify};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::System;
use super::calls::{Call, How, answer};
use super::model::flags;

pub struct Linux {
    directory: PathBuf,
    slots: Vec<Option<OwnedFd>>,
    /// The next descriptor's number: none is used twice, as on the model.
    next: i32,
}

impl Linux {
    pub fn new(seed: u64) -> Self {
        let directory = PathBuf::from(format!("/dev/shm/librpc_sim_{}_{seed}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        rustix::fs::chmod(&directory, Mode::from_raw_mode(0o755)).unwrap();
        Self { directory, slots: Vec::new(), next: 100 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn fd(&self, slot: usize) -> BorrowedFd<'_> {
        self.slots[slot].as_ref().expect("an open slot").as_fd()
    }

    fn made(&mut self, fd: Result<OwnedFd, Errno>) -> String {
        answer(fd.map(|fd| {
            self.keep(fd);
            ""
        }))
    }

    fn keep(&mut self, fd: OwnedFd) {
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, self.next).unwrap();
        self.next = fd.as_raw_fd() + 1;
        self.slots.push(Some(fd));
    }

    fn lock(
        &self,
        slot: usize,
        argument: impl FnOnce(&mut libc::flock) -> i32,
        lock: &mut libc::flock,
    ) -> Result<(), Errno> {
        let command = argument(lock);
        let made = match command {
            libc::F_OFD_SETLK => FcntlArg::F_OFD_SETLK(lock),
            _ => FcntlArg::F_OFD_GETLK(lock),
        };
        fcntl(self.fd(slot), made).map(drop).map_err(|errno| Errno::from_raw_os_error(errno as i32))
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn one_byte(kind: i32, byte: u64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: 0, l_start: byte as i64, l_len: 1, l_pid: 0 }
}

fn kind(exclusive: bool) -> i32 {
    if exclusive { libc::F_WRLCK } else { libc::F_RDLCK }
}

fn none(outcome: Result<(), Errno>) -> String {
    answer(outcome.map(|()| ""))
}

impl System for Linux {
    fn call(&mut self, call: &Call) -> String {
        let path = |name: &str| self.path(name);
        match call {
            Call::Open { name, how } => {
                let name = if *how == How::Unnamed { "." } else { name };
                let made = rustix::fs::openat(CWD, path(name), flags(*how), Mode::from_raw_mode(0o644));
                self.made(made)
            }
            Call::LinkOpen { slot, name } => {
                let from = format!("/proc/self/fd/{}", self.fd(*slot).as_raw_fd());
                none(rustix::fs::linkat(CWD, from, CWD, path(name), AtFlags::SYMLINK_FOLLOW))
            }
            Call::Rename { from, to, replace } => {
                let flags = if *replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
                none(rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags))
            }
            Call::Unlink { name } => none(rustix::fs::unlinkat(CWD, path(name), AtFlags::empty())),
            Call::MakeDirectory { name } => none(rustix::fs::mkdir(path(name), Mode::from_raw_mode(0o755))),
            Call::RemoveDirectory { name } => none(rustix::fs::rmdir(path(name))),
            Call::List => {
                let entries = std::fs::read_dir(&self.directory).unwrap();
                let mut names: Vec<_> =
                    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                names.sort_unstable();
                format!("{names:?}")
            }
            Call::Stat { name } => {
                let found = rustix::fs::statat(CWD, path(name), AtFlags::SYMLINK_NOFOLLOW);
                answer(found.map(|stat| {
                    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                    let size = if kind.is_file() { stat.st_size } else { 0 };
                    let mode = stat.st_mode & 0o7777;
                    format!("{mode:o} {size} {} {} {}", kind.is_file(), kind.is_dir(), kind.is_socket())
                }))
            }
            Call::Write { slot, offset, bytes } => {
                answer(rustix::io::pwrite(self.fd(*slot), &vec![*bytes as u8; *bytes], *offset))
            }
            Call::Read { slot, offset, bytes } => {
                let mut into = vec![0; *bytes];
                let read = rustix::io::pread(self.fd(*slot), &mut into[..], *offset);
                answer(read.map(|read| {
                    format!("{read} bytes, {} of them zero", into[..read].iter().filter(|&&byte| byte == 0).count())
                }))
            }
            Call::Truncate { slot, bytes } => none(rustix::fs::ftruncate(self.fd(*slot), *bytes)),
            Call::Allocate { slot, offset, bytes } => {
                none(rustix::fs::fallocate(self.fd(*slot), FallocateFlags::empty(), *offset, *bytes))
            }
            Call::Flock { slot, exclusive } => {
                let operation = match exclusive {
                    Some(true) => FlockOperation::NonBlockingLockExclusive,
                    Some(false) => FlockOperation::NonBlockingLockShared,
                    None => FlockOperation::NonBlockingUnlock,
                };
                none(rustix::fs::flock(self.fd(*slot), operation))
            }
            Call::Lock { slot, byte, exclusive } => {
                none(self.lock(*slot, |_| libc::F_OFD_SETLK, &mut one_byte(kind(*exclusive), *byte)))
            }
            Call::Unlock { slot, byte } => {
                none(self.lock(*slot, |_| libc::F_OFD_SETLK, &mut one_byte(libc::F_UNLCK, *byte)))
            }
            Call::WhoLocks { slot, byte, exclusive } => {
                let mut lock = one_byte(kind(*exclusive), *byte);
                let found = self.lock(*slot, |_| libc::F_OFD_GETLK, &mut lock);
                answer(found.map(|()| {
                    let found = (lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_type == libc::F_WRLCK as i16);
                    format!("{found:?}")
                }))
            }
            Call::Memory => {
                let made = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
                self.made(made)
            }
            Call::Seal { slot, seals } => {
                none(rustix::fs::fcntl_add_seals(self.fd(*slot), SealFlags::from_bits_retain(*seals)))
            }
            Call::Seals { slot } => answer(rustix::fs::fcntl_get_seals(self.fd(*slot)).map(|seals| seals.bits())),
            Call::Socket => {
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let made = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
                self.made(made)
            }
            Call::Bind { slot, name } => {
                none(rustix::net::bind(self.fd(*slot), &SocketAddrUnix::new(path(name)).unwrap()))
            }
            Call::Listen { slot, backlog } => none(rustix::net::listen(self.fd(*slot), *backlog)),
            Call::Connect { slot, name } => {
                none(rustix::net::connect(self.fd(*slot), &SocketAddrUnix::new(path(name)).unwrap()))
            }
            Call::Accept { slot } => {
                let made = rustix::net::accept_with(self.fd(*slot), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
                self.made(made)
            }
            Call::Send { slot, bytes, descriptors } => {
                let descriptors: Vec<_> = descriptors.iter().map(|&slot| self.fd(slot)).collect();
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
                }
                let message = vec![*bytes as u8; *bytes];
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                answer(rustix::net::sendmsg(self.fd(*slot), &[IoSlice::new(&message)], &mut control, flags))
            }
            Call::Receive { slot, bytes, descriptors, peek } => self.receive(*slot, *bytes, *descriptors, *peek),
            Call::ShutDown { slot } => none(rustix::net::shutdown(self.fd(*slot), rustix::net::Shutdown::Both)),
            Call::Close { slot } => {
                self.slots[*slot] = None;
                none(Ok(()))
            }
            Call::Duplicate { slot } => {
                let made = rustix::io::fcntl_dupfd_cloexec(self.fd(*slot), 0);
                self.made(made)
            }
            Call::Poll => {
                let made = epoll::create(epoll::CreateFlags::CLOEXEC);
                self.made(made)
            }
            Call::PollAdd { poll, slot } => {
                let data = EventData::new_u64(*slot as u64);
                none(epoll::add(self.fd(*poll), self.fd(*slot), data, EventFlags::IN | EventFlags::RDHUP))
            }
            Call::PollRemove { poll, slot } => none(epoll::delete(self.fd(*poll), self.fd(*slot))),
            Call::PollWait { poll } => {
                let mut events = [const { MaybeUninit::<Event>::uninit() }; 64];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                answer(epoll::wait(self.fd(*poll), &mut events, Some(&now)).map(|(events, _)| {
                    let ready = events.iter().map(|event| {
                        let Event { flags, data, .. } = *event;
                        (data.u64(), flags.bits())
                    });
                    let mut ready: Vec<_> = ready.collect();
                    ready.sort_unstable();
                    format!("{ready:?}")
                }))
            }
            Call::Event => {
                let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
                self.made(made)
            }
            Call::Raise { slot } => none(rustix::io::write(self.fd(*slot), &1u64.to_ne_bytes()).map(drop)),
            Call::Clear { slot } => {
                let mut count = [0; 8];
                let read = rustix::io::read(self.fd(*slot), &mut count[..]);
                answer(read.map(|_| u64::from_ne_bytes(count)))
            }
            Call::Watcher => {
                let made = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
                self.made(made)
            }
            Call::Watch { slot, name, changes } => {
                let changes = inotify::WatchFlags::from_bits_retain(*changes);
                answer(inotify::add_watch(self.fd(*slot), path(name), changes))
            }
            Call::ReadEvents { slot } => {
                let mut buffer = [0; 1 << 16];
                answer(rustix::io::read(self.fd(*slot), &mut buffer[..]).map(|_| ""))
            }
        }
    }
}

impl Linux {
    fn receive(&mut self, slot: usize, bytes: usize, descriptors: usize, peek: bool) -> String {
        let mut into = vec![0; bytes];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        // The space for n descriptors is aligned, and so may hold one more: asked for exactly.
        let room = if descriptors == 0 { 0 } else { 16 + 4 * descriptors };
        let mut control = RecvAncillaryBuffer::new(&mut space[..room]);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let flags = if peek { flags | RecvFlags::PEEK } else { flags };
        let mut made = Vec::new();
        let received = rustix::net::recvmsg(self.fd(slot), &mut [IoSliceMut::new(&mut into)], &mut control, flags);
        let received = received.map(|message| {
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = part {
                    made.extend(received);
                }
            }
            let cut = message.flags;
            format!(
                "{} bytes, descriptors {}, cut {} {}",
                message.bytes.min(bytes),
                made.len(),
                cut.contains(ReturnFlags::TRUNC),
                cut.contains(ReturnFlags::CTRUNC)
            )
        });
        made.into_iter().for_each(|fd| self.keep(fd));
        answer(received)
    }
}
