//! Descriptors that go from one process to another through a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::interrupt::Interrupt;

pub(super) fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Listens at a name that is not a file.
pub(super) fn listen(name: &str) -> anyhow::Result<OwnedFd> {
    let listener = socket()?;
    rustix::net::bind(&listener, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    rustix::net::listen(&listener, 1)?;
    Ok(listener)
}

pub(super) fn accept(listener: &OwnedFd) -> anyhow::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// The same, up to a limit, and not after a signal.
pub(super) fn accept_within(listener: &OwnedFd, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<OwnedFd> {
    let limit = Timespec::try_from(limit).context("the limit is too long")?;
    let mut polled = [PollFd::new(listener, PollFlags::IN), PollFd::new(interrupt, PollFlags::empty())];
    // A signal also makes the interrupt ready.
    retry_on_intr(|| poll(&mut polled, Some(&limit))).context("cannot wait for a connection")?;
    anyhow::ensure!(polled[0].revents().contains(PollFlags::IN), "the other process has not connected");
    accept(listener)
}

pub(super) fn connect(name: &str) -> anyhow::Result<OwnedFd> {
    let connected = socket()?;
    rustix::net::connect(&connected, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(connected)
}

pub(super) fn pass(socket: &OwnedFd, descriptor: &OwnedFd) -> anyhow::Result<()> {
    let descriptors: [BorrowedFd<'_>; 1] = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    anyhow::ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
    rustix::net::sendmsg(socket, &[IoSlice::new(b"d")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(super) fn receive(socket: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("no descriptor came")
}
