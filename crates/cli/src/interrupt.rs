//! SIGINT, SIGTERM and SIGHUP as a value to check, a descriptor to wait for, and a call.
//!
//! A command installs this before it opens a node. From then on a signal does not end the process: the command sees the
//! signal, and returns.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::deadline::Deadline;

const LONGEST_POLL: Duration = Duration::from_secs(3600);

type Call = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub(crate) struct Interrupt(Arc<State>);

struct State {
    /// The first signal that came, or 0.
    signal: AtomicI32,
    /// What to do when a signal comes; `None`: it was done.
    calls: Mutex<Option<Vec<Call>>>,
    /// The end of a pipe that hangs up with the first signal.
    hangs_up: OwnedFd,
    /// Its other end, until then.
    held: Mutex<Option<OwnedFd>>,
}

impl State {
    /// The first signal has come.
    fn came(&self, signal: i32) {
        let _ = self.signal.compare_exchange(0, signal, Ordering::Release, Ordering::Relaxed); // pairs with the Acquire in `signal`
        drop(self.held.lock().expect("no panic under this lock").take());
        let calls = self.calls.lock().expect("no panic under this lock").take();
        calls.into_iter().flatten().for_each(|call| call());
    }
}

impl Interrupt {
    /// Installs the handlers.
    pub(crate) fn install() -> anyhow::Result<Self> {
        let this = Self::new()?;
        // Under `nohup`, the end of the terminal must not end the command.
        let wanted = [SIGINT, SIGTERM].into_iter().chain((!is_ignored(SIGHUP)).then_some(SIGHUP));
        let mut signals = Signals::new(wanted).context("cannot install the signal handlers")?;
        let shared = this.0.clone();
        let wait = move || signals.forever().for_each(|signal| shared.came(signal));
        std::thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
        Ok(this)
    }

    /// The same without handlers.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (hangs_up, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        Ok(Self(Arc::new(State {
            signal: AtomicI32::new(0),
            calls: Mutex::new(Some(Vec::new())),
            hangs_up,
            held: Mutex::new(Some(held)),
        })))
    }

    /// The signal that came.
    pub(crate) fn signal(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::Acquire) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// Ends the waits of other threads, as if SIGTERM had come.
    pub(crate) fn stop(&self) {
        self.0.came(SIGTERM);
    }

    /// Waits for a signal.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        while self.signal().is_none() {
            self.poll(None)?;
        }
        Ok(())
    }

    /// Waits for a signal up to a limit.
    pub(crate) fn wait_for(&self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Deadline::after(limit);
        while self.signal().is_none() && !deadline.has_passed() {
            self.poll(Some(deadline.next_wait(LONGEST_POLL)))?;
        }
        Ok(())
    }

    fn poll(&self, limit: Option<Duration>) -> anyhow::Result<()> {
        let limit = limit.map(|limit| Timespec::try_from(limit).expect("it is at most an hour"));
        match poll(&mut [PollFd::new(self, PollFlags::empty())], limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno).context("cannot wait for a signal"),
        }
    }

    /// Calls this when a signal comes, or at once if one has come already.
    pub(crate) fn then(&self, call: impl FnOnce() + Send + 'static) {
        let mut calls = self.0.calls.lock().expect("no panic under this lock");
        match &mut *calls {
            Some(calls) => calls.push(Box::new(call)),
            None => {
                drop(calls);
                call();
            }
        }
    }
}

/// A descriptor that hangs up with the first signal.
impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.hangs_up.as_fd()
    }
}

fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & (1 << (signal - 1)) != 0)
}
