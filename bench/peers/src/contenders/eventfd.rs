//! Limit: a word in shared memory, an eventfd that announces it, and epoll on the other side. This is the cheapest way
//! to wake a process that may wait for more than one thing.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use anyhow::Context;
use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::contender::{Contender, Job, Side, eventually};
use crate::contenders::line::Lines;
use crate::payload::LAST;

pub(crate) struct Eventfd {
    lines: Lines,
    ours: OwnedFd,
    theirs: OwnedFd,
    poll: OwnedFd,
    /// The number that is expected next.
    next: u64,
}

impl Contender for Eventfd {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let path = job.place.join("socket");
        let socket = match job.side {
            Side::B => UnixListener::bind(path)?.accept()?.0,
            Side::A => eventually("B does not listen", || UnixStream::connect(&path))?,
        };
        // Each side waits for its own, and rings the other's.
        let ours = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        pass(&socket, &ours)?;
        let theirs = passed(&socket)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        Ok(Self { lines: Lines::open(job)?, ours, theirs, poll, next: 0 })
    }

    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        self.lines.store(number + 1);
        rustix::io::write(&self.theirs, &1u64.to_ne_bytes())?;
        Ok(())
    }

    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 1];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let (ready, _) = epoll::wait(&self.poll, &mut events, Some(&second))?;
        if !ready.is_empty() {
            rustix::io::read(&self.ours, &mut [0; 8])?;
            // A receiver that wakes late finds only the last number. It answers for all earlier ones.
            let now = self.lines.load() - 1;
            for number in self.next..now & !LAST {
                take(&number.to_le_bytes());
            }
            if now & !LAST >= self.next {
                take(&now.to_le_bytes());
            }
            self.next = (now & !LAST) + 1;
        }
        Ok(())
    }
}

fn pass(socket: &UnixStream, descriptor: &OwnedFd) -> anyhow::Result<()> {
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    anyhow::ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
    rustix::net::sendmsg(socket, &[IoSlice::new(b"e")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn passed(socket: &UnixStream) -> anyhow::Result<OwnedFd> {
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
