//! epoll and eventfd.

use crate::sys::clock::Instant;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::os::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use super::os::event::{EventfdFlags, Timespec, eventfd};
use super::os::io::Errno;

use super::{Context, Descriptor, OsError, os};

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: u64,
    /// The other side is gone.
    pub(crate) hung_up: bool,
}

/// How many descriptors one wait reports at most. Those that it leaves are reported by the next one.
pub(crate) const AT_ONCE: usize = 64;

/// A set of descriptors to wait for, level-triggered. Any thread may add and remove.
#[derive(Debug)]
pub(crate) struct Poll(Descriptor);

impl Poll {
    pub(crate) fn new() -> Result<Self, OsError> {
        Descriptor::open(|| epoll::create(CreateFlags::CLOEXEC)).context(|| "make an epoll set".into()).map(Self)
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> Result<(), OsError> {
        epoll::add(&self.0, fd, EventData::new_u64(token), EventFlags::IN | EventFlags::RDHUP)
            .context(|| "add to an epoll set".into())
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        // It fails only for a descriptor that is not in the set: then it is as it should be.
        let _ = epoll::delete(&self.0, fd);
    }

    /// Waits until something is ready or `until` has come (`None`: without limit). A signal ends the wait early.
    pub(crate) fn wait(&self, until: Option<Instant>, into: &mut Vec<Ready>) -> Result<(), OsError> {
        into.clear();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
        let mut events = [const { MaybeUninit::<Event>::uninit() }; AT_ONCE];
        match epoll::wait(&self.0, &mut events, timeout.as_ref()) {
            Ok((events, _)) => into.extend(events.iter().map(|event| {
                let Event { flags, data, .. } = *event;
                Ready {
                    token: data.u64(),
                    hung_up: flags.intersects(EventFlags::HUP | EventFlags::RDHUP | EventFlags::ERR),
                }
            })),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(OsError::new("wait on an epoll set", errno)),
        }
        Ok(())
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Longer waits than a day end after a day: the caller looks at its clock again anyway.
fn timespec(duration: Duration) -> Timespec {
    let duration = duration.min(Duration::from_secs(86_400));
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

/// An eventfd that one side waits for in a [`Poll`] and any thread signals.
#[derive(Debug)]
pub(crate) struct Signal(Descriptor);

impl Signal {
    pub(crate) fn new() -> Result<Self, OsError> {
        Descriptor::open(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))
            .context(|| "make an eventfd".into())
            .map(Self)
    }

    /// Makes it readable. Allowed in a signal handler.
    pub(crate) fn raise(&self) {
        if self.0.is_ours() {
            // It fails only if the count is at its maximum: then it is readable already.
            let _ = os::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        if self.0.is_ours() {
            // It fails only if it is unreadable already.
            let _ = os::io::read(&self.0, &mut [0; 8]);
        }
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
