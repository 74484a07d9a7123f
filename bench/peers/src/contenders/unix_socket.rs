//! A Unix stream socket. The sender blocks while the socket is full; a polling receiver never blocks.
//!
//! It is a stream because its reader can take many messages with one call: packets (`SOCK_SEQPACKET`) cost a call each.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::sockopt;

use crate::contender::{Contender, Job, Side, eventually};
use crate::contenders::stream::{Incoming, Outgoing};

/// As a rule the kernel's limit. Requesting more does no harm.
const BUFFER_BYTES: usize = 1 << 20;

pub(crate) struct UnixSocket {
    outgoing: Outgoing<UnixStream>,
    incoming: Incoming<Polled>,
}

impl Contender for UnixSocket {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let path = job.place.join("socket");
        let stream = match job.side {
            Side::B => UnixListener::bind(path)?.accept()?.0,
            Side::A => eventually("B does not listen", || UnixStream::connect(&path))?,
        };
        sockopt::set_socket_send_buffer_size(&stream, BUFFER_BYTES)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let polled = Polled { stream: stream.try_clone()?, polls: !job.sleeps() };
        Ok(Self { outgoing: Outgoing::new(stream, job.bytes), incoming: Incoming::new(polled) })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        self.outgoing.send(number)
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.incoming.receive(take)
    }
}

/// Reads without blocking, although writes to the socket block.
struct Polled {
    stream: UnixStream,
    polls: bool,
}

impl std::io::Read for Polled {
    #[inline]
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        use rustix::net::{RecvFlags, recv};
        let flags = if self.polls { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        Ok(recv(&self.stream, into, flags)?.0)
    }
}
