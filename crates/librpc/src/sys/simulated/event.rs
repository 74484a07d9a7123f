//! epoll and eventfd.

use rustix::io::Errno;

pub(crate) use rustix::event::{EventfdFlags, Timespec};

use super::OwnedFd;
use super::machine::machine;

pub(crate) fn eventfd(_count: u32, _flags: EventfdFlags) -> Result<OwnedFd, Errno> {
    machine().make_event().map(OwnedFd)
}

pub(crate) mod epoll {
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;

    pub(crate) use rustix::event::epoll::{CreateFlags, EventData, EventFlags};
    use rustix::io::Errno;

    use super::super::machine::machine;
    use super::super::{OwnedFd, number};
    use super::Timespec;

    #[derive(Clone, Copy)]
    pub(crate) struct Event {
        pub(crate) flags: EventFlags,
        pub(crate) data: EventData,
    }

    pub(crate) fn create(_flags: CreateFlags) -> Result<OwnedFd, Errno> {
        machine().make_poll().map(OwnedFd)
    }

    pub(crate) fn add(poll: impl AsFd, fd: impl AsFd, data: EventData, events: EventFlags) -> Result<(), Errno> {
        machine().poll_add(number(poll), number(fd), data.u64(), events.bits())
    }

    pub(crate) fn delete(poll: impl AsFd, fd: impl AsFd) -> Result<(), Errno> {
        machine().poll_remove(number(poll), number(fd))
    }

    pub(crate) fn wait(
        poll: impl AsFd,
        events: &mut [MaybeUninit<Event>],
        limit: Option<&Timespec>,
    ) -> Result<(Vec<Event>, ()), Errno> {
        let limit = limit.map(|limit| limit.tv_sec as u64 * 1_000_000_000 + limit.tv_nsec as u64);
        let ready = machine().poll_wait(number(poll), events.len(), limit)?;
        let event =
            |(token, flags)| Event { flags: EventFlags::from_bits_retain(flags), data: EventData::new_u64(token) };
        Ok((ready.into_iter().map(event).collect(), ()))
    }
}
