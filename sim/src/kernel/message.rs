//! The messages on a socket, with their descriptors.

use super::socket::{Socket, State};
use super::{Errno, Kernel, OpenId, Outcome, Pid};

/// How much the kernel counts for a message in addition to its bytes.
const OVERHEAD: usize = 768;
/// The kernel passes at most this many descriptors with one message.
const MAX_DESCRIPTORS: usize = 253;

/// A message that is not read yet.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OpenId>,
    from: OpenId,
}

impl Message {
    fn cost(&self) -> usize {
        OVERHEAD + self.bytes.len().next_multiple_of(256)
    }
}

/// How a message is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Receive {
    /// How many bytes there is room for.
    pub bytes: usize,
    /// How many descriptors there is room for.
    pub descriptors: usize,
    /// The message stays in the queue.
    pub peek: bool,
}

/// A message that was read. Without bytes, it is the end.
#[derive(Debug, Default)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<i32>,
    /// It was longer.
    pub bytes_cut: bool,
    /// It had more descriptors.
    pub descriptors_cut: bool,
}

impl Kernel {
    /// `sendmsg`, without waiting and without SIGPIPE.
    pub fn send(&mut self, pid: Pid, fd: i32, bytes: &[u8], descriptors: &[i32]) -> Outcome<usize> {
        let (from, _) = self.socket(pid, fd)?;
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(Errno::INVAL);
        }
        let descriptors: Vec<OpenId> = descriptors.iter().map(|&fd| self.look_up(pid, fd)).collect::<Outcome<_>>()?;
        let limit = self.machine.send_buffer;
        let socket = self.socket_mut(from);
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let State::Connected { peer } = socket.state else { return Err(Errno::NOTCONN) };
        if socket.shut_to_write {
            return Err(Errno::PIPE);
        }
        let message = Message { bytes: bytes.to_vec(), descriptors, from };
        if bytes.len() > limit {
            return Err(Errno::MSGSIZE);
        }
        if socket.unread_bytes >= limit {
            return Err(Errno::AGAIN);
        }
        if !self.is_open(peer) || self.socket_mut(peer).shut_to_read {
            return Err(Errno::PIPE);
        }
        if !message.descriptors.is_empty() && !self.socket_mut(peer).accepts_descriptors {
            return Err(Errno::PERM);
        }
        self.socket_mut(from).unread_bytes += message.cost();
        message.descriptors.clone().into_iter().for_each(|id| self.refer(id));
        self.socket_mut(peer).queue.push_back(message);
        self.changed();
        Ok(bytes.len())
    }

    /// `recvmsg`, without waiting. Descriptors that come without room for them are closed.
    pub fn receive(&mut self, pid: Pid, fd: i32, how: Receive) -> Outcome<Received> {
        let (id, _) = self.socket(pid, fd)?;
        let socket = self.socket_mut(id);
        if let Some(errno) = socket.error.take() {
            return Err(errno);
        }
        let message = match Self::take(socket)? {
            Some(message) => message,
            None => return Ok(Received::default()),
        };
        let count = message.bytes.len().min(how.bytes);
        let mut received = Received {
            bytes: message.bytes[..count].to_vec(),
            bytes_cut: message.bytes.len() > how.bytes,
            descriptors_cut: message.descriptors.len() > how.descriptors,
            descriptors: Vec::new(),
        };
        for &descriptor in message.descriptors.iter().take(how.descriptors) {
            if self.check_room(pid).is_err() {
                received.descriptors_cut = true;
                break;
            }
            received.descriptors.push(self.install(pid, descriptor));
        }
        if how.peek {
            self.socket_mut(id).queue.push_front(message);
        } else {
            self.release_messages([message]);
            self.changed();
        }
        Ok(received)
    }

    /// The next message; `None`: there will be no more.
    fn take(socket: &mut Socket) -> Outcome<Option<Message>> {
        if !matches!(socket.state, State::Connected { .. }) {
            return Err(Errno::NOTCONN);
        }
        match socket.queue.pop_front() {
            None if socket.shut_to_read => Ok(None),
            None => Err(Errno::AGAIN),
            message => Ok(message),
        }
    }

    /// The sender's buffer has room again.
    pub(super) fn uncharge(&mut self, message: &Message) {
        if self.is_open(message.from) {
            self.socket_mut(message.from).unread_bytes -= message.cost();
        }
    }
}
