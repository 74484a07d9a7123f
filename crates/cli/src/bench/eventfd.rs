//! Limit: an eventfd that carries a number, and epoll on the other side. This is the cheapest way to wake a process that may
//! wait for more than one thing.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::event::{EventfdFlags, epoll};

use super::descriptors::{pass, receive};

/// One end of a pair of eventfds.
pub(super) struct Line {
    ours: OwnedFd,
    theirs: OwnedFd,
    poll: OwnedFd,
}

impl Line {
    /// Exchanges the eventfds through a connected socket: each side waits for its own, and rings the other's.
    pub(super) fn open(socket: &OwnedFd) -> anyhow::Result<Self> {
        let ours = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        pass(socket, &ours)?;
        let theirs = receive(socket)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { ours, theirs, poll })
    }

    /// Makes `wait` also return when this descriptor hangs up.
    pub(super) fn also(&self, descriptor: impl std::os::fd::AsFd) -> anyhow::Result<()> {
        Ok(epoll::add(&self.poll, descriptor, epoll::EventData::new_u64(1), epoll::EventFlags::empty())?)
    }

    /// Sends a number that is not 0.
    pub(super) fn send(&self, number: u64) -> anyhow::Result<()> {
        rustix::io::write(&self.theirs, &number.to_ne_bytes()).context("cannot ring an eventfd")?;
        Ok(())
    }

    /// Sleeps until a number comes. `None`: the other descriptor has hung up.
    pub(super) fn wait(&self) -> anyhow::Result<Option<u64>> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 2];
        let (ready, _) = loop {
            match epoll::wait(&self.poll, &mut events, None) {
                Err(rustix::io::Errno::INTR) => {}
                ready => break ready.context("cannot wait for an eventfd")?,
            }
        };
        if ready.iter().any(|event| event.data.u64() != 0) {
            return Ok(None);
        }
        let mut number = [0; 8];
        rustix::io::read(&self.ours, &mut number).context("cannot read an eventfd")?;
        Ok(Some(u64::from_ne_bytes(number)))
    }
}
