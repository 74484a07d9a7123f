//! A simulated thread.

use super::fiber::Fiber;
use crate::kernel::Pid;

/// Names a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadId(pub(super) usize);

impl ThreadId {
    pub fn number(self) -> u64 {
        self.0 as u64
    }

    pub fn from_number(number: u64) -> Self {
        Self(number as usize)
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Somebody notifies this key.
    Key(u64),
    /// This epoll set of its process has something.
    Poll(i32),
    /// Time.
    Time,
    /// Nobody: a lock whose holder a forked child does not have.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Waits { on: Wait, until: Option<u64> },
    Ended,
}

pub(super) struct Thread {
    pub(super) pid: Pid,
    pub(super) name: String,
    pub(super) state: State,
    /// Not there while it runs.
    pub(super) fiber: Option<Fiber>,
    pub(super) priority: u64,
    pub(super) timed_out: bool,
    /// How many steps it has made.
    pub(super) steps: u64,
    /// At this step of its own it loses its core, for this many ns.
    pub(super) loses_core: Option<(u64, u64)>,
    /// The kernel's changes when it last found nothing.
    pub(super) seen: u64,
    /// For what, in words.
    pub(super) why: &'static str,
}
