//! The sockets of an attacker: messages with any descriptors, and answers.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg,
};

/// A new socket of the kind that nodes listen on.
pub(crate) fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A connection to this path.
pub(crate) fn connect(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Sends a message with descriptors, without waiting.
pub(crate) fn send(to: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)), "there is space");
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

/// The next message, without its descriptors; `None` after a second without one, or a hang-up.
pub(crate) fn receive(from: &OwnedFd) -> Option<Vec<u8>> {
    receive_all(from).map(|(bytes, _)| bytes)
}

/// The same, with its descriptors.
pub(crate) fn receive_all(from: &OwnedFd) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let mut ready = [PollFd::new(from, PollFlags::IN)];
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut ready, Some(&second)).ok()?;
    let mut bytes = vec![0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let message = recvmsg(from, into, &mut control, RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC).ok()?;
    let descriptors = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    bytes.truncate(message.bytes);
    (!bytes.is_empty()).then_some((bytes, descriptors))
}

/// The first bytes of an answer, or why there are none.
pub(crate) enum Answer {
    NotYet,
    HungUp,
    Is([u8; 16]),
}

/// The next answer, without waiting. Its descriptors are closed.
pub(crate) fn answer(socket: &OwnedFd) -> Answer {
    let mut bytes = [0; 16];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut read = || recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
    // Where the other side has closed its end before it read everything, that is said first, and once.
    let message = match read() {
        Err(Errno::CONNRESET) => read(),
        message => message,
    };
    match message {
        Ok(message) if message.bytes == 0 => Answer::HungUp,
        Ok(_) => Answer::Is(bytes),
        Err(Errno::AGAIN) => Answer::NotYet,
        Err(_) => Answer::HungUp,
    }
}
