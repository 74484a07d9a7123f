//! `SOCK_SEQPACKET` sockets: listen, connect, messages with descriptors, and what the kernel knows of the peer.
//!
//! Nothing here blocks, and nothing raises SIGPIPE.

use std::io::{IoSlice, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::os::io::Errno;
use super::os::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

pub(crate) use super::os::option::Credentials;
use super::os::{self, OwnedFd, option};
use super::{Context, Descriptor, OsError};

/// The longest message, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4096;
/// The kernel passes at most this many descriptors with one message.
const MAX_DESCRIPTORS: usize = 253;
/// How sending a message without waiting went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Done,
    /// The peer has not read what was sent before.
    QueueFull,
    /// The kernel lacks memory just now.
    NoMemory,
    /// The peer is gone.
    HungUp,
}

/// What was cut off a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Nothing,
    /// It was longer than the buffer.
    Bytes,
    /// There was no room for its descriptors: more than may be, or this process has none left.
    Descriptors,
}

/// A message that has arrived.
#[derive(Debug)]
pub(crate) enum Received {
    Message { bytes: usize, descriptors: Vec<OwnedFd>, cut: Cut },
    Nothing,
    HungUp,
}

/// A connected or listening socket.
///
/// Invariant: one that does not *hold strangers'* has no unread descriptors in it, so that its close cannot block. One that
/// may hold some is closed on an expendable thread.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: ManuallyDrop<Descriptor>,
    holds_strangers: AtomicBool,
    listens: AtomicBool,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether the kernel knows sockets that take no descriptors.
pub(crate) fn can_refuse_descriptors() -> bool {
    Socket::spare().is_ok_and(|socket| option::accept_descriptors(&socket, false).is_ok())
}

impl Socket {
    fn new() -> Result<Self, OsError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Descriptor::open(|| os::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None))
            .context(|| "make a socket".into())
            .map(|descriptor| Self::of(descriptor, false))
    }

    fn of(descriptor: Descriptor, holds_strangers: bool) -> Self {
        let descriptor = ManuallyDrop::new(descriptor);
        Self { descriptor, holds_strangers: holds_strangers.into(), listens: false.into() }
    }

    /// A socket of no use but its descriptor.
    pub(crate) fn spare() -> Result<Self, OsError> {
        Self::new()
    }

    /// Two sockets that are connected to each other.
    #[cfg(test)]
    pub(crate) fn pair() -> (Self, Self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = os::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("two sockets");
        let of = |fd| Self::of(Descriptor::open(|| Ok::<_, Errno>(fd)).expect("it is open"), false);
        (of(pair.0), of(pair.1))
    }

    /// A socket bound to a path, not listening yet.
    pub(crate) fn bind(path: &Path) -> Result<Self, OsError> {
        let doing = || format!("bind {}", path.display());
        let socket = Self::new()?;
        let address = SocketAddrUnix::new(path).context(doing)?;
        os::net::bind(&socket, &address).context(doing)?;
        Ok(socket)
    }

    /// Listens. What is accepted takes descriptors with its first message, or only where a handshake expects them.
    pub(crate) fn listen(&self, with_descriptors: bool) -> Result<(), OsError> {
        self.accept_descriptors(with_descriptors);
        self.listens.store(true, Ordering::Relaxed);
        os::net::listen(self, 4096).context(|| "listen on a socket".into())
    }

    /// Takes the next connection; `None` if nobody is waiting.
    pub(crate) fn accept(&self) -> Result<Option<Self>, OsError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match Descriptor::open(|| os::net::accept_with(self, flags)) {
            Ok(descriptor) => Ok(Some(Self::of(descriptor, self.holds_strangers.load(Ordering::Relaxed)))),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(OsError::new("accept a connection", errno)),
        }
    }

    /// Connects to a path. `Err(AGAIN)`: the listener's queue is full.
    pub(crate) fn connect(path: &Path) -> Result<Self, OsError> {
        let doing = || format!("connect to {}", path.display());
        let socket = Self::new()?;
        let address = SocketAddrUnix::new(path).context(doing)?;
        socket.accept_descriptors(false);
        os::net::connect(&socket, &address).context(doing)?;
        Ok(socket)
    }

    /// Sends a message, with or without a descriptor.
    pub(crate) fn send(&self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> Result<Sent, OsError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.as_slice();
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "there is space for one");
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match os::net::sendmsg(self, &[IoSlice::new(message)], &mut control, flags) {
            Ok(_) => Ok(Sent::Done),
            Err(Errno::AGAIN) => Ok(Sent::QueueFull),
            Err(Errno::NOBUFS | Errno::NOMEM) => Ok(Sent::NoMemory),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Sent::HungUp),
            Err(errno) => Err(OsError::new("send to a peer", errno)),
        }
    }

    /// Takes the next message and every descriptor that came with it.
    pub(crate) fn receive(&self, into: &mut [u8]) -> Result<Received, OsError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        self.take(into, &mut space, RecvFlags::empty())
    }

    /// Looks at the next message, which stays until [`Socket::skip`], and at the descriptors that came with it: at most
    /// two, `Cut::Descriptors` if there are more. What is not wanted is closed with the socket, where that may block.
    pub(crate) fn peek(&self, into: &mut [u8]) -> Result<Received, OsError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        self.take(into, &mut space, RecvFlags::PEEK)
    }

    /// Drops the message that was looked at. Its descriptors close here, unless they are open elsewhere: so only a message
    /// without any, or with checked memory, is skipped.
    pub(crate) fn skip(&self) {
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut none = RecvAncillaryBuffer::default();
        // It fails only if nothing is there.
        let _ = after_a_reset(|| os::net::recvmsg(self, &mut [IoSliceMut::new(&mut [0])], &mut none, flags));
    }

    fn take(&self, into: &mut [u8], space: &mut [MaybeUninit<u8>], how: RecvFlags) -> Result<Received, OsError> {
        let mut control = RecvAncillaryBuffer::new(space);
        let flags = how | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let read = || os::net::recvmsg(self, &mut [IoSliceMut::new(into)], &mut control, flags);
        let message = match after_a_reset(read) {
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::HungUp),
            Err(errno) => return Err(OsError::new("receive from a peer", errno)),
        };
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        if message.bytes == 0 {
            super::dispose::dispose(descriptors, ());
            return Ok(Received::HungUp);
        }
        let cut = match message.flags {
            flags if flags.contains(ReturnFlags::TRUNC) => Cut::Bytes,
            flags if flags.contains(ReturnFlags::CTRUNC) => Cut::Descriptors,
            _ => Cut::Nothing,
        };
        Ok(Received::Message { bytes: message.bytes, descriptors, cut })
    }

    /// Has the other side see a hang-up, although this descriptor stays open.
    pub(crate) fn hang_up(&self) {
        // It fails only where the other side was faster.
        let _ = os::net::shutdown(self, os::net::Shutdown::Both);
    }

    /// Closes it together with descriptors that came through it, where that may block. `until_closed` is held until then.
    pub(crate) fn dispose(mut self, with: Vec<OwnedFd>, until_closed: impl Send + 'static) {
        self.hang_up();
        let mut all = with;
        all.extend(self.take_queued());
        if *self.holds_strangers.get_mut() {
            all.push(self.take_descriptor().into_owned());
            std::mem::forget(self);
        }
        super::dispose::dispose(all, until_closed);
    }

    /// Says whether descriptors may come. Without effect before Linux 6.16, where they always may.
    pub(crate) fn accept_descriptors(&self, accept: bool) {
        // An older kernel refuses the option, which is what "without effect" means.
        let has_effect = option::accept_descriptors(self, accept).is_ok();
        if accept || !has_effect {
            self.holds_strangers.store(true, Ordering::Relaxed);
        }
    }

    /// Takes no descriptors from here on, and says whether nothing is there that was not read: then none lies in it.
    pub(crate) fn shut_to_descriptors(&self) -> bool {
        let has_effect = option::accept_descriptors(self, false).is_ok();
        // A send checks that option under a lock, and asking for the peer's name takes the same lock: a send that found the
        // old value has ended by now.
        let _ = os::net::getpeername(self);
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let next = after_a_reset(|| os::net::recv(self, &mut [0; 1][..], flags));
        // A peer that is gone says nothing more.
        let is_empty = matches!(next, Err(Errno::AGAIN | Errno::CONNRESET) | Ok((0, _)));
        if is_empty {
            self.holds_strangers.store(!has_effect, Ordering::Relaxed);
        }
        is_empty
    }

    /// Whether the peer has closed its end, or says something, on a socket on which nothing more is said.
    pub(crate) fn has_hung_up(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let next = os::net::recv(self, &mut [0; 1][..], flags);
        !matches!(next, Err(Errno::AGAIN | Errno::INTR | Errno::NOMEM | Errno::NOBUFS))
    }

    /// Hangs up on everybody who waits in a listener's queue, and takes their sockets. Its close would do that, too, but may be
    /// a long time coming.
    fn take_queued(&self) -> Vec<OwnedFd> {
        let mut queued = Vec::new();
        while self.listens.load(Ordering::Relaxed)
            && let Ok(Some(mut socket)) = self.accept()
        {
            socket.hang_up();
            queued.push(socket.take_descriptor().into_owned());
            std::mem::forget(socket);
        }
        queued
    }

    fn take_descriptor(&mut self) -> Descriptor {
        // SAFETY: called by `dispose`, which forgets the socket, and by `drop`: once.
        unsafe { ManuallyDrop::take(&mut self.descriptor) }
    }

    /// Who is at the other end.
    pub(crate) fn credentials(&self) -> Result<Credentials, OsError> {
        option::peer_credentials(self).context(|| "ask who the peer is".into())
    }

    /// The supplementary groups of the process at the other end; empty if there are more than 1,024.
    pub(crate) fn peer_groups(&self) -> Vec<u32> {
        option::peer_groups(self).unwrap_or_default()
    }
}

/// Reads from a socket. Where the peer has closed its end before it read everything, the kernel first says so, once; what the
/// peer had sent is still there.
fn after_a_reset<T>(mut read: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    match read() {
        Err(Errno::CONNRESET) => read(),
        other => other,
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = self.descriptor.is_ours();
        let may_block = *self.holds_strangers.get_mut() || *self.listens.get_mut();
        if !may_block || !is_ours {
            return drop(self.take_descriptor());
        }
        self.hang_up();
        let mut all = self.take_queued();
        all.push(self.take_descriptor().into_owned());
        super::dispose::dispose(all, ());
    }
}
