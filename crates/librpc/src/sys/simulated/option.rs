//! Options of sockets.

use std::io;
use std::os::fd::AsFd;

use super::machine::machine;
use super::number;

/// What the kernel says of the process at the other end, from when it connected or began to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) fn accept_descriptors(socket: impl AsFd, accept: bool) -> io::Result<()> {
    Ok(machine().accept_descriptors(number(socket), accept)?)
}

pub(crate) fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = machine().peer(number(socket))?;
    Ok(Credentials { pid: peer.pid, uid: peer.uid, gid: peer.gid })
}

pub(crate) fn peer_groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    Ok(machine().peer(number(socket))?.groups)
}
