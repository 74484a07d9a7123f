//! `SOCK_SEQPACKET` sockets: bind, listen, connect, accept.
//!
//! A connection is made by `connect` alone: the accepting side exists from then on, in the listener's queue, and takes
//! messages. So a client may have spoken and died before it is accepted, and everything it said is there.

use std::collections::VecDeque;

use super::inode::{Inode, Kind as InodeKind, WRITE};
use super::message::Message;
use super::open_file::Kind;
use super::{Errno, Kernel, OpenId, Outcome, Pid};

/// What the kernel says of a process at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub pid: Pid,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) state: State,
    pub(super) queue: VecDeque<Message>,
    pub(super) shut_to_read: bool,
    pub(super) shut_to_write: bool,
    /// Reported once, before anything else.
    pub(super) error: Option<Errno>,
    /// Bytes of its messages that others have not read.
    pub(super) unread_bytes: usize,
    pub(super) accepts_descriptors: bool,
    peer_credentials: Option<Credentials>,
    is_bound: bool,
}

#[derive(Debug)]
pub(super) enum State {
    Unconnected,
    Listens { backlog: usize, waiting: VecDeque<OpenId>, credentials: Credentials },
    Connected { peer: OpenId },
}

impl Socket {
    fn new() -> Self {
        Self {
            state: State::Unconnected,
            queue: VecDeque::new(),
            shut_to_read: false,
            shut_to_write: false,
            error: None,
            unread_bytes: 0,
            accepts_descriptors: true,
            peer_credentials: None,
            is_bound: false,
        }
    }
}

impl Kernel {
    pub(super) fn socket(&self, pid: Pid, fd: i32) -> Outcome<(OpenId, &Socket)> {
        let id = self.look_up(pid, fd)?;
        match &self.open_file(id).kind {
            Kind::Socket(socket) => Ok((id, socket)),
            _ => Err(Errno::NOTSOCK),
        }
    }

    pub(super) fn socket_mut(&mut self, id: OpenId) -> &mut Socket {
        match &mut self.open_file_mut(id).kind {
            Kind::Socket(socket) => socket,
            _ => unreachable!("it was looked up as a socket"),
        }
    }

    fn credentials_of(&self, pid: Pid) -> Credentials {
        let process = self.process(pid);
        Credentials { pid, uid: process.user.uid, gid: process.user.gid, groups: process.groups.clone() }
    }

    /// `socket`: a new one.
    pub fn make_socket(&mut self, pid: Pid) -> Outcome<i32> {
        self.check_room(pid)?;
        let id = self.new_open_file(Kind::Socket(Box::new(Socket::new())));
        Ok(self.install(pid, id))
    }

    /// `bind`: a new file with this path is the socket's address.
    pub fn bind(&mut self, pid: Pid, fd: i32, path: &str) -> Outcome<()> {
        let (id, socket) = self.socket(pid, fd)?;
        let is_bound = socket.is_bound;
        let found = self.walk(pid, super::CWD, path, false)?;
        if found.inode.is_some() {
            return Err(Errno::ADDRINUSE);
        }
        self.check_entry(pid, found.directory)?;
        if is_bound {
            self.notify(found.directory, super::watch::CREATED); // the file was made, and is removed
            return Err(Errno::INVAL);
        }
        let (user, mode) = self.owner_in(pid, found.directory, 0o777, false);
        let inode = self.new_inode(Inode::new(InodeKind::Socket(id), user, mode));
        self.add_name(found.directory, &found.name, inode);
        self.socket_mut(id).is_bound = true;
        Ok(())
    }

    /// `listen`.
    pub fn listen(&mut self, pid: Pid, fd: i32, backlog: usize) -> Outcome<()> {
        let (backlog, credentials) = (backlog.min(self.machine.backlog), self.credentials_of(pid));
        let (id, socket) = self.socket(pid, fd)?;
        if !socket.is_bound {
            return Err(Errno::INVAL);
        }
        match &mut self.socket_mut(id).state {
            State::Listens { backlog: now, .. } => *now = backlog,
            state @ State::Unconnected => *state = State::Listens { backlog, waiting: VecDeque::new(), credentials },
            State::Connected { .. } => return Err(Errno::INVAL),
        }
        Ok(())
    }

    /// `connect`, without waiting where the listener's queue is full.
    pub fn connect(&mut self, pid: Pid, fd: i32, path: &str) -> Outcome<()> {
        let (id, socket) = self.socket(pid, fd)?;
        let state = match socket.state {
            State::Unconnected => Ok(()),
            State::Connected { .. } => Err(Errno::ISCONN),
            State::Listens { .. } => Err(Errno::INVAL),
        };
        let inode = self.walk(pid, super::CWD, path, true)?.existing()?;
        self.may(pid, inode, WRITE)?;
        let InodeKind::Socket(listener) = self.inode(inode).kind else { return Err(Errno::CONNREFUSED) };
        if !self.is_open(listener) {
            return Err(Errno::CONNREFUSED);
        }
        let listening = self.socket_mut(listener);
        let (accepts_descriptors, is_shut) = (listening.accepts_descriptors, listening.shut_to_read);
        let State::Listens { backlog, waiting, credentials } = &listening.state else { return Err(Errno::CONNREFUSED) };
        if is_shut {
            return Err(Errno::CONNREFUSED);
        }
        if waiting.len() > *backlog {
            return Err(Errno::AGAIN);
        }
        let of_listener = credentials.clone();
        state?;
        let accepted = Socket {
            state: State::Connected { peer: id },
            accepts_descriptors,
            is_bound: true, // it has the listener's address
            peer_credentials: Some(self.credentials_of(pid)),
            ..Socket::new()
        };
        let accepted = self.new_open_file(Kind::Socket(Box::new(accepted)));
        self.refer(accepted);
        if let State::Listens { waiting, .. } = &mut self.socket_mut(listener).state {
            waiting.push_back(accepted);
        }
        let connecting = self.socket_mut(id);
        connecting.state = State::Connected { peer: accepted };
        connecting.peer_credentials = Some(of_listener);
        self.changed();
        Ok(())
    }

    /// `accept`, without waiting.
    pub fn accept(&mut self, pid: Pid, fd: i32) -> Outcome<i32> {
        let (id, socket) = self.socket(pid, fd)?;
        let State::Listens { waiting, .. } = &socket.state else { return Err(Errno::INVAL) };
        let is_empty = waiting.is_empty();
        self.check_room(pid)?;
        if is_empty {
            return Err(Errno::AGAIN);
        }
        let State::Listens { waiting, .. } = &mut self.socket_mut(id).state else { unreachable!("as before") };
        let accepted = waiting.pop_front().expect("it is not empty");
        let fd = self.install(pid, accepted);
        self.open_file_mut(accepted).references -= 1; // the queue's
        Ok(fd)
    }

    /// `SO_PEERCRED`, and the peer's groups.
    pub fn peer(&self, pid: Pid, fd: i32) -> Outcome<Credentials> {
        self.socket(pid, fd)?.1.peer_credentials.clone().ok_or(Errno::NOTCONN)
    }

    /// `SO_PASSRIGHTS`.
    pub fn accept_descriptors(&mut self, pid: Pid, fd: i32, accept: bool) -> Outcome<()> {
        let (id, _) = self.socket(pid, fd)?;
        if !self.machine.refuses_descriptors {
            return Err(Errno::NOPROTOOPT);
        }
        self.socket_mut(id).accepts_descriptors = accept;
        Ok(())
    }

    /// `shutdown` of both directions.
    pub fn shut_down(&mut self, pid: Pid, fd: i32) -> Outcome<()> {
        let (id, socket) = self.socket(pid, fd)?;
        let peer = match socket.state {
            State::Connected { peer } => Some(peer),
            State::Listens { .. } | State::Unconnected => None,
        };
        for side in [Some(id), peer.filter(|&peer| self.is_open(peer))].into_iter().flatten() {
            let socket = self.socket_mut(side);
            (socket.shut_to_read, socket.shut_to_write) = (true, true);
        }
        self.changed();
        Ok(())
    }

    /// The last close. `unaccepted`: nobody has ever had it.
    pub(super) fn close_socket(&mut self, mut socket: Socket, unaccepted: bool) {
        match std::mem::replace(&mut socket.state, State::Unconnected) {
            State::Connected { peer } if self.is_open(peer) => {
                let has_unread = !socket.queue.is_empty();
                let peer = self.socket_mut(peer);
                (peer.shut_to_read, peer.shut_to_write) = (true, true);
                if has_unread || unaccepted {
                    peer.error = Some(Errno::CONNRESET);
                }
            }
            State::Listens { waiting, .. } => {
                for accepted in waiting {
                    let file = self.open_files.remove(accepted.0).expect("only the queue had it");
                    let Kind::Socket(socket) = file.kind else { unreachable!("a connection is a socket") };
                    self.close_socket(*socket, true);
                }
            }
            State::Connected { .. } | State::Unconnected => {}
        }
        self.release_messages(socket.queue);
        self.changed();
    }

    /// Sets up two sockets that are connected to each other.
    pub fn socket_pair(&mut self, pid: Pid) -> Outcome<(i32, i32)> {
        let (one, other) = (self.make_socket(pid)?, self.make_socket(pid)?);
        let ids = (self.look_up(pid, one)?, self.look_up(pid, other)?);
        let credentials = self.credentials_of(pid);
        for (of, peer) in [(ids.0, ids.1), (ids.1, ids.0)] {
            let socket = self.socket_mut(of);
            socket.state = State::Connected { peer };
            socket.peer_credentials = Some(credentials.clone());
        }
        Ok((one, other))
    }
}
