//! epoll and eventfd. Level-triggered: what is ready is reported each time.

use std::collections::BTreeMap;

use super::open_file::Kind;
use super::socket::State;
use super::{Errno, Kernel, OpenId, Outcome, Pid};

/// There is something to read.
pub const IN: u32 = 0x1;
const OUT: u32 = 0x4;
/// An error is to be reported.
pub const ERR: u32 = 0x8;
/// Both directions are closed.
pub const HUP: u32 = 0x10;
/// The other side sends no more.
pub const RDHUP: u32 = 0x2000;

/// A set of open files to wait for.
#[derive(Debug, Default)]
pub(super) struct Epoll {
    entries: BTreeMap<(i32, OpenId), Entry>,
    /// Where the next look begins, so that none is always last.
    turn: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    token: u64,
    events: u32,
}

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    /// Bits: [`IN`], [`ERR`], [`HUP`], [`RDHUP`].
    pub events: u32,
}

impl Kernel {
    /// `epoll_create`.
    pub fn make_poll(&mut self, pid: Pid) -> Outcome<i32> {
        self.check_room(pid)?;
        let id = self.new_open_file(Kind::Epoll(Epoll::default()));
        Ok(self.install(pid, id))
    }

    fn poll_mut(&mut self, pid: Pid, poll: i32) -> Outcome<&mut Epoll> {
        let id = self.look_up(pid, poll)?;
        match &mut self.open_file_mut(id).kind {
            Kind::Epoll(epoll) => Ok(epoll),
            _ => Err(Errno::INVAL),
        }
    }

    /// What a descriptor refers to, if a set may hold it.
    fn pollable(&self, pid: Pid, poll: i32, fd: i32) -> Outcome<OpenId> {
        let (set, id) = (self.look_up(pid, poll)?, self.look_up(pid, fd)?);
        match &self.open_file(id).kind {
            Kind::File(_) => Err(Errno::PERM),
            _ if set == id => Err(Errno::INVAL),
            _ => Ok(id),
        }
    }

    /// `EPOLL_CTL_ADD`.
    pub fn poll_add(&mut self, pid: Pid, poll: i32, fd: i32, token: u64, events: u32) -> Outcome<()> {
        let id = self.pollable(pid, poll, fd)?;
        let epoll = self.poll_mut(pid, poll)?;
        if epoll.entries.contains_key(&(fd, id)) {
            return Err(Errno::EXIST);
        }
        epoll.entries.insert((fd, id), Entry { token, events: events | ERR | HUP });
        self.changed();
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub fn poll_remove(&mut self, pid: Pid, poll: i32, fd: i32) -> Outcome<()> {
        let id = self.pollable(pid, poll, fd)?;
        self.poll_mut(pid, poll)?.entries.remove(&(fd, id)).map(drop).ok_or(Errno::NOENT)
    }

    /// Takes a file that is closed out of every set.
    pub(super) fn forget_polled(&mut self, id: OpenId) {
        self.open_files.for_each_mut(|file| {
            if let Kind::Epoll(epoll) = &mut file.kind {
                epoll.entries.retain(|&(_, of), _| of != id);
            }
        });
    }

    /// What an open file is ready for.
    fn events(&self, id: OpenId) -> u32 {
        match &self.open_file(id).kind {
            Kind::File(_) => IN | OUT,
            Kind::Event(count) => {
                if *count > 0 {
                    IN | OUT
                } else {
                    OUT
                }
            }
            Kind::Watcher(watcher) => {
                if watcher.has_news() {
                    IN
                } else {
                    0
                }
            }
            Kind::Epoll(epoll) => {
                if self.ready_entries(epoll).next().is_some() {
                    IN
                } else {
                    0
                }
            }
            Kind::Socket(socket) => {
                let mut events = OUT;
                if socket.error.is_some() {
                    events |= ERR;
                }
                if socket.shut_to_read {
                    events |= RDHUP | IN;
                }
                if socket.shut_to_read && socket.shut_to_write {
                    events |= HUP;
                }
                let has_news = match &socket.state {
                    State::Listens { waiting, .. } => !waiting.is_empty(),
                    State::Connected { .. } => !socket.queue.is_empty(),
                    State::Unconnected => {
                        events |= HUP;
                        false
                    }
                };
                if has_news { events | IN } else { events }
            }
        }
    }

    fn ready_entries<'k>(&'k self, epoll: &'k Epoll) -> impl Iterator<Item = Ready> + 'k {
        epoll.entries.iter().filter_map(|(&(_, id), entry)| {
            let events = self.events(id) & entry.events;
            (events != 0).then_some(Ready { token: entry.token, events })
        })
    }

    /// What an epoll set would say now. Nothing: its caller is to wait.
    pub fn ready(&mut self, pid: Pid, poll: i32, at_most: usize) -> Outcome<Vec<Ready>> {
        let id = self.look_up(pid, poll)?;
        let Kind::Epoll(epoll) = &self.open_file(id).kind else { return Err(Errno::INVAL) };
        let mut ready: Vec<Ready> = self.ready_entries(epoll).collect();
        if !ready.is_empty() {
            let by = epoll.turn % ready.len();
            ready.rotate_left(by);
            ready.truncate(at_most);
            self.poll_mut(pid, poll)?.turn += 1;
        }
        Ok(ready)
    }

    /// Whether waiting on an epoll set would end at once.
    pub fn is_ready(&self, pid: Pid, poll: i32) -> bool {
        self.look_up(pid, poll).map_or(true, |id| self.events(id) & IN != 0)
    }

    /// `eventfd`.
    pub fn make_event(&mut self, pid: Pid) -> Outcome<i32> {
        self.check_room(pid)?;
        let id = self.new_open_file(Kind::Event(0));
        Ok(self.install(pid, id))
    }

    /// Writes to an eventfd, or fails with `EAGAIN` where its count would pass the end.
    pub fn raise_event(&mut self, pid: Pid, fd: i32, by: u64) -> Outcome<()> {
        let id = self.look_up(pid, fd)?;
        let Kind::Event(count) = &mut self.open_file_mut(id).kind else { return Err(Errno::INVAL) };
        *count = count.checked_add(by).filter(|&sum| sum < u64::MAX).ok_or(Errno::AGAIN)?;
        self.changed();
        Ok(())
    }

    /// Reads an eventfd, or fails with `EAGAIN`.
    pub fn clear_event(&mut self, pid: Pid, fd: i32) -> Outcome<u64> {
        let id = self.look_up(pid, fd)?;
        match &mut self.open_file_mut(id).kind {
            Kind::Event(0) => Err(Errno::AGAIN),
            Kind::Event(count) => Ok(std::mem::take(count)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Reads an eventfd or an inotify instance empty.
    pub fn read_any(&mut self, pid: Pid, fd: i32) -> Outcome<()> {
        match self.clear_event(pid, fd) {
            Err(Errno::INVAL) => self.read_events(pid, fd, 64).map(drop),
            other => other.map(drop),
        }
    }
}
