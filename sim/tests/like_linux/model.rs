//! Making the calls on the model.

use librpc_sim::kernel::{CWD, Kernel, Lock, LockKind, Machine, Mode, OFlags, Outcome, Pid, Receive, SealFlags, User};

use super::System;
use super::calls::{Call, How, answer};

const PID: Pid = 1;
const POLLED: u32 = 0x1 | 0x2000;

pub struct Model {
    kernel: Kernel,
    slots: Vec<Option<i32>>,
}

impl Model {
    pub fn new() -> Self {
        let mut kernel = Kernel::new(Machine::default());
        kernel.start(PID, User::ROOT, &[]);
        kernel.make_directory(PID, CWD, "/dev/shm/here", Mode::from_raw_mode(0o777)).unwrap();
        Self { kernel, slots: Vec::new() }
    }

    fn fd(&self, slot: usize) -> i32 {
        self.slots[slot].expect("an open slot")
    }

    fn made(&mut self, fd: Outcome<i32>) -> String {
        answer(fd.map(|fd| {
            self.slots.push(Some(fd));
            ""
        }))
    }
}

fn path(name: &str) -> String {
    format!("/dev/shm/here/{name}")
}

fn none(outcome: Outcome<()>) -> String {
    answer(outcome.map(|()| ""))
}

impl System for Model {
    fn call(&mut self, call: &Call) -> String {
        let fd = |slot: &usize| self.fd(*slot);
        match call {
            Call::Open { name, how } => {
                let name = if *how == How::Unnamed { "." } else { name };
                let made = self.kernel.open_at(PID, CWD, &path(name), flags(*how), Mode::from_raw_mode(0o644));
                self.made(made)
            }
            Call::LinkOpen { slot, name } => {
                let from = format!("/proc/self/fd/{}", fd(slot));
                none(self.kernel.link(PID, (CWD, &from), (CWD, &path(name))))
            }
            Call::Rename { from, to, replace } => {
                none(self.kernel.rename(PID, (CWD, &path(from)), (CWD, &path(to)), *replace))
            }
            Call::Unlink { name } => none(self.kernel.unlink(PID, CWD, &path(name))),
            Call::MakeDirectory { name } => {
                none(self.kernel.make_directory(PID, CWD, &path(name), Mode::from_raw_mode(0o755)))
            }
            Call::RemoveDirectory { name } => none(self.kernel.remove_directory(PID, CWD, &path(name))),
            Call::List => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = self.kernel.open_at(PID, CWD, &path("."), flags, Mode::empty()).unwrap();
                let names = self.kernel.list(PID, fd).unwrap();
                self.kernel.close(PID, fd).unwrap();
                format!("{names:?}")
            }
            Call::Stat { name } => answer(self.kernel.stat_at(PID, CWD, &path(name), false).map(|stat| {
                format!("{:o} {} {} {} {}", stat.mode, stat.size, stat.is_regular, stat.is_directory, stat.is_socket)
            })),
            Call::Write { slot, offset, bytes } => {
                let from = vec![*bytes as u8; *bytes];
                let fd = fd(slot);
                answer(self.kernel.write_at(PID, fd, &from, *offset))
            }
            Call::Read { slot, offset, bytes } => {
                let mut into = vec![0; *bytes];
                let read = self.kernel.read_at(PID, fd(slot), &mut into, *offset);
                answer(read.map(|read| {
                    format!("{read} bytes, {} of them zero", into[..read].iter().filter(|&&byte| byte == 0).count())
                }))
            }
            Call::Truncate { slot, bytes } => {
                let fd = fd(slot);
                none(self.kernel.truncate(PID, fd, *bytes))
            }
            Call::Allocate { slot, offset, bytes } => {
                let fd = fd(slot);
                none(self.kernel.allocate(PID, fd, *offset, *bytes))
            }
            Call::Flock { slot, exclusive } => {
                let (fd, kind) = (fd(slot), LockKind::Whole);
                none(match exclusive {
                    Some(exclusive) => self.kernel.lock(PID, fd, Lock { exclusive: *exclusive, kind }),
                    None => self.kernel.unlock(PID, fd, kind),
                })
            }
            Call::Lock { slot, byte, exclusive } => {
                let (fd, kind) = (fd(slot), LockKind::Byte(*byte));
                none(self.kernel.lock(PID, fd, Lock { exclusive: *exclusive, kind }))
            }
            Call::Unlock { slot, byte } => {
                let fd = fd(slot);
                none(self.kernel.unlock(PID, fd, LockKind::Byte(*byte)))
            }
            Call::WhoLocks { slot, byte, exclusive } => {
                let lock = Lock { exclusive: *exclusive, kind: LockKind::Byte(*byte) };
                let found = self.kernel.blocking_lock(PID, fd(slot), lock);
                answer(found.map(|found| format!("{:?}", found.map(|lock| lock.exclusive))))
            }
            Call::Memory => {
                let made = self.kernel.make_memory(PID);
                self.made(made)
            }
            Call::Seal { slot, seals } => {
                let fd = fd(slot);
                none(self.kernel.add_seals(PID, fd, SealFlags::from_bits_retain(*seals)))
            }
            Call::Seals { slot } => answer(self.kernel.seals(PID, fd(slot)).map(|seals| seals.bits())),
            Call::Socket => {
                let made = self.kernel.make_socket(PID);
                self.made(made)
            }
            Call::Bind { slot, name } => {
                let fd = fd(slot);
                none(self.kernel.bind(PID, fd, &path(name)))
            }
            Call::Listen { slot, backlog } => {
                let fd = fd(slot);
                none(self.kernel.listen(PID, fd, *backlog as usize))
            }
            Call::Connect { slot, name } => {
                let fd = fd(slot);
                none(self.kernel.connect(PID, fd, &path(name)))
            }
            Call::Accept { slot } => {
                let fd = fd(slot);
                let made = self.kernel.accept(PID, fd);
                self.made(made)
            }
            Call::Send { slot, bytes, descriptors } => {
                let descriptors: Vec<i32> = descriptors.iter().map(fd).collect();
                let fd = fd(slot);
                answer(self.kernel.send(PID, fd, &vec![*bytes as u8; *bytes], &descriptors))
            }
            Call::Receive { slot, bytes, descriptors, peek } => {
                let how = Receive { bytes: *bytes, descriptors: *descriptors, peek: *peek };
                let fd = fd(slot);
                let received = self.kernel.receive(PID, fd, how);
                answer(received.map(|received| {
                    let count = received.descriptors.len();
                    self.slots.extend(received.descriptors.into_iter().map(Some));
                    format!(
                        "{} bytes, descriptors {count}, cut {} {}",
                        received.bytes.len(),
                        received.bytes_cut,
                        received.descriptors_cut
                    )
                }))
            }
            Call::ShutDown { slot } => {
                let fd = fd(slot);
                none(self.kernel.shut_down(PID, fd))
            }
            Call::Close { slot } => {
                let fd = fd(slot);
                self.slots[*slot] = None;
                none(self.kernel.close(PID, fd))
            }
            Call::Duplicate { slot } => {
                let fd = fd(slot);
                let made = self.kernel.duplicate(PID, fd);
                self.made(made)
            }
            Call::Poll => {
                let made = self.kernel.make_poll(PID);
                self.made(made)
            }
            Call::PollAdd { poll, slot } => {
                let (poll, fd) = (fd(poll), fd(slot));
                none(self.kernel.poll_add(PID, poll, fd, *slot as u64, POLLED))
            }
            Call::PollRemove { poll, slot } => {
                let (poll, fd) = (fd(poll), fd(slot));
                none(self.kernel.poll_remove(PID, poll, fd))
            }
            Call::PollWait { poll } => {
                let fd = fd(poll);
                answer(self.kernel.ready(PID, fd, 64).map(|ready| {
                    let mut ready: Vec<_> = ready.into_iter().map(|ready| (ready.token, ready.events)).collect();
                    ready.sort_unstable();
                    format!("{ready:?}")
                }))
            }
            Call::Event => {
                let made = self.kernel.make_event(PID);
                self.made(made)
            }
            Call::Raise { slot } => {
                let fd = fd(slot);
                none(self.kernel.raise_event(PID, fd, 1))
            }
            Call::Clear { slot } => {
                let fd = fd(slot);
                answer(self.kernel.clear_event(PID, fd))
            }
            Call::Watcher => {
                let made = self.kernel.make_watcher(PID);
                self.made(made)
            }
            Call::Watch { slot, name, changes } => {
                let fd = fd(slot);
                answer(self.kernel.watch(PID, fd, &path(name), *changes))
            }
            Call::ReadEvents { slot } => {
                let fd = fd(slot);
                answer(self.kernel.read_events(PID, fd, u64::MAX).map(|_| ""))
            }
        }
    }
}

pub fn flags(how: How) -> OFlags {
    let flags = match how {
        How::Read => OFlags::RDONLY,
        How::Write => OFlags::RDWR,
        How::Create => OFlags::RDWR | OFlags::CREATE,
        How::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        How::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        How::Unnamed => OFlags::RDWR | OFlags::TMPFILE,
    };
    flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC
}
