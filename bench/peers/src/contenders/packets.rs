//! A Unix packet socket (`SOCK_SEQPACKET`) there and back: the least that a call between two processes costs through the
//! kernel. Nothing says which reply belongs to which request.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, sockopt};

use crate::contender::{Contender, Job, Side, eventually};
use crate::payload;

pub(crate) struct Packets {
    socket: OwnedFd,
    polls: bool,
    message: Vec<u8>,
}

impl Contender for Packets {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let address = SocketAddrUnix::new(&job.place.join("packets"))?;
        let socket = || rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
        let socket = match job.side {
            Side::B => {
                let listener = socket()?;
                rustix::net::bind(&listener, &address)?;
                rustix::net::listen(&listener, 1)?;
                rustix::net::accept(&listener)?
            }
            Side::A => {
                let socket = socket()?;
                eventually("B does not listen", || rustix::net::connect(&socket, &address))?;
                socket
            }
        };
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Self { socket, polls: !job.sleeps(), message: vec![0; job.bytes] })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        payload::write(number, &mut self.message);
        rustix::net::send(&self.socket, &self.message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        let flags = if self.polls { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let mut space = [MaybeUninit::uninit(); crate::contender::LARGE];
        let into = &mut space[..self.message.len()];
        match rustix::net::recv(&self.socket, into, flags) {
            Ok(((message, _), _)) if !message.is_empty() => take(message),
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
