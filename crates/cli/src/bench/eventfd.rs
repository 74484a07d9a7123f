//! Limit: an eventfd that carries a number, and epoll on the other side. This is the cheapest way to wake a process that may
//! wait for more than one thing.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::Context;
use rustix::event::{EventfdFlags, epoll};

use super::descriptors::{accept_within, connect, pass, receive};
use crate::interrupt::Interrupt;

/// How long the other side may take to connect.
const LIMIT: Duration = Duration::from_secs(10);

/// One end of a pair of eventfds.
pub(super) struct Line {
    ours: OwnedFd,
    theirs: OwnedFd,
    poll: OwnedFd,
}

impl Line {
    /// The side that listens.
    pub(super) fn accept(listener: &OwnedFd, interrupt: &Interrupt) -> anyhow::Result<Self> {
        Self::open(&accept_within(listener, LIMIT, interrupt)?, interrupt)
    }

    /// The other one.
    pub(super) fn connect(socket: &str, interrupt: &Interrupt) -> anyhow::Result<Self> {
        Self::open(&connect(socket)?, interrupt)
    }

    /// Exchanges the eventfds through a connected socket: each side waits for its own, and rings the other's.
    fn open(socket: &OwnedFd, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let ours = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        pass(socket, &ours)?;
        let theirs = receive(socket)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        // That one hangs up.
        epoll::add(&poll, interrupt, epoll::EventData::new_u64(1), epoll::EventFlags::empty())?;
        Ok(Self { ours, theirs, poll })
    }

    /// Sends a number that is not 0.
    pub(super) fn send(&self, number: u64) -> anyhow::Result<()> {
        rustix::io::write(&self.theirs, &number.to_ne_bytes()).context("cannot ring an eventfd")?;
        Ok(())
    }

    /// Sleeps until a number comes. `None`: the run is interrupted.
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
