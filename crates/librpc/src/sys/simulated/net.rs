//! Sockets.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;
pub(crate) use rustix::net::{
    AddressFamily, RecvFlags, ReturnFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use super::machine::machine;
use super::{OwnedFd, number};

pub(crate) fn socket_with(
    _family: AddressFamily,
    _kind: SocketType,
    _flags: SocketFlags,
    _protocol: Option<rustix::net::Protocol>,
) -> Result<OwnedFd, Errno> {
    machine().make_socket().map(OwnedFd)
}

fn path(address: &SocketAddrUnix) -> Result<String, Errno> {
    address.path().and_then(|path| path.to_str().ok().map(str::to_owned)).ok_or(Errno::INVAL)
}

pub(crate) fn bind(fd: impl AsFd, address: &SocketAddrUnix) -> Result<(), Errno> {
    machine().bind(number(fd), &path(address)?)
}

pub(crate) fn listen(fd: impl AsFd, backlog: i32) -> Result<(), Errno> {
    machine().listen(number(fd), backlog as usize)
}

pub(crate) fn connect(fd: impl AsFd, address: &SocketAddrUnix) -> Result<(), Errno> {
    machine().connect(number(fd), &path(address)?)
}

pub(crate) fn accept_with(fd: impl AsFd, _flags: SocketFlags) -> Result<OwnedFd, Errno> {
    machine().accept(number(fd)).map(OwnedFd)
}

pub(crate) fn shutdown(fd: impl AsFd, how: Shutdown) -> Result<(), Errno> {
    assert_eq!(how, Shutdown::Both, "nothing here closes one direction");
    machine().shut_down(number(fd))
}

pub(crate) fn getpeername(fd: impl AsFd) -> Result<(), Errno> {
    machine().peer(number(fd)).map(drop)
}

/// Descriptors to be sent.
#[derive(Default)]
pub(crate) struct SendAncillaryBuffer(Vec<RawFd>);

pub(crate) enum SendAncillaryMessage<'m> {
    ScmRights(&'m [BorrowedFd<'m>]),
}

impl SendAncillaryBuffer {
    pub(crate) fn new(_space: &mut [MaybeUninit<u8>]) -> Self {
        Self::default()
    }

    pub(crate) fn push(&mut self, message: SendAncillaryMessage<'_>) -> bool {
        let SendAncillaryMessage::ScmRights(descriptors) = message;
        self.0.extend(descriptors.iter().map(|fd| fd.as_raw_fd()));
        true
    }
}

pub(crate) fn sendmsg(
    fd: impl AsFd,
    message: &[IoSlice<'_>],
    control: &mut SendAncillaryBuffer,
    _flags: SendFlags,
) -> Result<usize, Errno> {
    machine().send(number(fd), &message[0], &control.0)
}

/// Room for descriptors, and those that came.
#[derive(Default)]
pub(crate) struct RecvAncillaryBuffer {
    room: usize,
    received: Vec<OwnedFd>,
}

pub(crate) enum RecvAncillaryMessage {
    ScmRights(Vec<OwnedFd>),
    /// So that it is matched as the real one is.
    #[allow(dead_code, reason = "nothing else comes here")]
    Other,
}

impl RecvAncillaryBuffer {
    pub(crate) fn new(space: &mut [MaybeUninit<u8>]) -> Self {
        // A header of 16 bytes, and 4 bytes for each descriptor.
        Self { room: space.len().saturating_sub(16) / 4, received: Vec::new() }
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = RecvAncillaryMessage> {
        let received = std::mem::take(&mut self.received);
        Some(received).filter(|received| !received.is_empty()).map(RecvAncillaryMessage::ScmRights).into_iter()
    }
}

pub(crate) struct RecvMsg {
    pub(crate) bytes: usize,
    pub(crate) flags: ReturnFlags,
}

pub(crate) fn recvmsg(
    fd: impl AsFd,
    into: &mut [IoSliceMut<'_>],
    control: &mut RecvAncillaryBuffer,
    flags: RecvFlags,
) -> Result<RecvMsg, Errno> {
    let into = &mut into[0];
    let message = machine().receive(number(fd), into.len(), control.room, flags.contains(RecvFlags::PEEK))?;
    into[..message.bytes.len()].copy_from_slice(&message.bytes);
    control.received.extend(message.descriptors.into_iter().map(OwnedFd));
    let mut flags = ReturnFlags::empty();
    flags.set(ReturnFlags::TRUNC, message.bytes_cut);
    flags.set(ReturnFlags::CTRUNC, message.descriptors_cut);
    Ok(RecvMsg { bytes: message.bytes.len(), flags })
}

pub(crate) fn recv(fd: impl AsFd, into: &mut [u8], flags: RecvFlags) -> Result<(usize, usize), Errno> {
    let message = machine().receive(number(fd), into.len(), 0, flags.contains(RecvFlags::PEEK))?;
    into[..message.bytes.len()].copy_from_slice(&message.bytes);
    Ok((message.bytes.len(), message.bytes.len()))
}
