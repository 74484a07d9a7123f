//! One wait for a future, a signal, and what else is in a wait set. Nothing is looked at in steps.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use anyhow::Context as _;
use librpc::WaitSet;
use rustix::event::{EventfdFlags, eventfd};

use crate::interrupt::Interrupt;

const SIGNAL: u64 = 0;
const WOKEN: u64 = 1;
/// The first token for what callers add.
pub(crate) const OTHERS: u64 = 2;

pub(crate) struct Wait {
    interrupt: Interrupt,
    pub(crate) set: WaitSet,
    woken: Arc<Woken>,
    waker: Waker,
}

/// An eventfd that is readable once the future is to be polled.
struct Woken(OwnedFd);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes()); // it fails only if it is readable
    }
}

impl Wait {
    pub(crate) fn new(interrupt: &Interrupt) -> anyhow::Result<Self> {
        let woken = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("cannot make an eventfd")?;
        let (woken, mut set) = (Arc::new(Woken(woken)), WaitSet::new()?);
        set.add_descriptor(SIGNAL, interrupt)?;
        set.add_descriptor(WOKEN, &woken.0)?;
        let waker = Waker::from(woken.clone());
        Ok(Self { interrupt: interrupt.clone(), set, woken, waker })
    }

    /// Polls a future. If it is not over, waits until it may be, the set has something, a signal has come, or the time is up.
    pub(crate) fn step<T>(
        &mut self,
        future: Pin<&mut impl Future<Output = T>>,
        limit: Option<Duration>,
    ) -> anyhow::Result<Option<T>> {
        if let Poll::Ready(output) = future.poll(&mut Context::from_waker(&self.waker)) {
            return Ok(Some(output));
        }
        match limit {
            Some(limit) => self.set.wait_timeout(limit)?,
            None => self.set.wait()?,
        };
        let _ = rustix::io::read(&self.woken.0, &mut [0; 8]); // it may have been something else
        Ok(None)
    }

    /// Waits for a future. `None`: a signal came first.
    fn run<T>(&mut self, future: impl Future<Output = T>) -> anyhow::Result<Option<T>> {
        let mut future = pin!(future);
        loop {
            if let Some(output) = self.step(future.as_mut(), None)? {
                return Ok(Some(output));
            }
            if self.interrupt.signal().is_some() {
                return Ok(None);
            }
        }
    }
}

/// Waits for a future. `Err`: this signal came first.
pub(crate) fn run<T>(future: impl Future<Output = T>, interrupt: &Interrupt) -> anyhow::Result<Result<T, i32>> {
    let output = Wait::new(interrupt)?.run(future)?;
    Ok(output.ok_or_else(|| interrupt.signal().unwrap_or_default()))
}
