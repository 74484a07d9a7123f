//! Waiting without the GIL: until a future is ready, the time is up, or a signal has arrived.
//!
//! A thread that waits sleeps in `poll` for a descriptor that its waker writes. Python's main thread also sleeps for Python's own signal
//! descriptor (`signal.set_wakeup_fd`), which the interpreter's signal handler writes, whichever thread the signal has hit. So a signal ends the
//! wait at once, and nothing wakes up now and then to look.

use std::cell::RefCell;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::handle::process;

/// How long the main thread waits in the library itself, which a signal does not end, before it waits here. What comes in this time wakes it
/// sooner.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// A payload of this many bytes is copied without the GIL.
pub(crate) const LARGE: usize = 32 * 1024;

/// A descriptor that wakes whoever sleeps for it.
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> PyResult<Self> {
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(std::io::Error::from)?))
    }

    pub(crate) fn ring(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes()); // full: it rings already
    }

    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// What a thread sleeps for.
struct Bed {
    process: u64,
    bell: Arc<Bell>,
    waker: Waker,
    signals: Option<Arc<(OwnedFd, OwnedFd)>>,
}

thread_local! {
    static BED: RefCell<Option<Bed>> = const { RefCell::new(None) };
}

/// This thread's bell, and its waker. In a forked child others than the parent's.
fn bell() -> PyResult<(Arc<Bell>, Waker)> {
    BED.with_borrow_mut(|bed| {
        if bed.as_ref().is_none_or(|bed| bed.process != process()) {
            let bell = Arc::new(Bell::new()?);
            *bed = Some(Bed { process: process(), waker: bell.clone().into(), bell, signals: None });
        }
        let bed = bed.as_ref().expect("it was made above");
        Ok((bed.bell.clone(), bed.waker.clone()))
    })
}

/// Whether this is the main thread, which runs Python's signal handlers.
pub(crate) fn is_main_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Python's signal descriptor, as long as this is there.
struct Signals {
    pipe: Arc<(OwnedFd, OwnedFd)>,
    former: i32,
}

impl Signals {
    /// `None`: this thread gets no signals.
    fn new(py: Python<'_>) -> PyResult<Option<Self>> {
        if !is_main_thread() {
            return Ok(None);
        }
        let pipe = BED.with_borrow_mut(|bed| {
            let bed = bed.as_mut().expect("the bell was made before");
            if bed.signals.is_none() {
                let pipe = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC);
                bed.signals = Some(Arc::new(pipe.map_err(std::io::Error::from)?));
            }
            Ok::<_, PyErr>(bed.signals.clone().expect("it was made above"))
        })?;
        match set_wakeup_fd(py, pipe.1.as_raw_fd()) {
            Ok(former) => Ok(Some(Self { pipe, former })),
            Err(error) if error.is_instance_of::<PyValueError>(py) => Ok(None), // another interpreter's main thread
            Err(error) => Err(error),
        }
    }
}

fn set_wakeup_fd(py: Python<'_>, descriptor: i32) -> PyResult<i32> {
    let options = PyDict::new(py);
    options.set_item(intern!(py, "warn_on_full_buffer"), false)?;
    let signal = py.import(intern!(py, "signal"))?;
    signal.call_method(intern!(py, "set_wakeup_fd"), (descriptor,), Some(&options))?.extract()
}

impl Signals {
    /// Passes on to an event loop what has come.
    fn pass_on(&self, py: Python<'_>) {
        let mut signals = [0u8; 64];
        while let Ok(bytes @ 1..) = rustix::io::read(&self.pipe.0, &mut signals) {
            if self.former >= 0
                && let Ok(os) = py.import(intern!(py, "os"))
            {
                let _ = os.call_method1(intern!(py, "write"), (self.former, PyBytes::new(py, &signals[..bytes])));
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        Python::attach(|py| {
            let _ = set_wakeup_fd(py, self.former);
            self.pass_on(py);
        });
    }
}

enum Woken {
    Bell,
    Signal,
    TimeUp,
}

/// Sleeps until the bell rings, a signal arrives, or the time is up.
fn sleep(bell: &Bell, signals: Option<&Signals>, until: Option<Instant>) -> std::io::Result<Woken> {
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
    let signal = signals.map_or(bell.0.as_fd(), |signals| signals.pipe.0.as_fd());
    let mut descriptors =
        [PollFd::from_borrowed_fd(bell.0.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(signal, PollFlags::IN)];
    let watched = if signals.is_some() { &mut descriptors[..] } else { &mut descriptors[..1] };
    match poll(watched, left.as_ref()) {
        Ok(0) => Ok(Woken::TimeUp),
        Ok(_) if signals.is_some() && !descriptors[1].revents().is_empty() => Ok(Woken::Signal),
        Ok(_) => {
            bell.silence();
            Ok(Woken::Bell)
        }
        Err(Errno::INTR) => Ok(Woken::Signal),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a future. `None`: the time is up. An error: a signal handler has raised one, such as `KeyboardInterrupt`; the future is dropped.
///
/// `is_large`: it takes long even if it need not wait.
pub(crate) fn block_on<F>(
    py: Python<'_>,
    future: F,
    until: Option<Instant>,
    is_large: bool,
) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let (bell, waker) = bell()?;
    let mut future = pin!(future);
    let mut look = || future.as_mut().poll(&mut Context::from_waker(&waker));
    let first = if is_large { py.detach(&mut look) } else { look() };
    if let Poll::Ready(output) = first {
        return Ok(Some(output));
    }
    let signals = Signals::new(py)?;
    loop {
        py.check_signals()?;
        let woken = py.detach(|| {
            loop {
                // First of all: a signal handler may have waited with the same bell.
                if let Poll::Ready(output) = look() {
                    return Ok(Ok(output));
                }
                match sleep(&bell, signals.as_ref(), until)? {
                    Woken::Bell if until.is_some_and(|until| Instant::now() >= until) => return Ok(Err(Woken::TimeUp)),
                    Woken::Bell => {}
                    other => return Ok(Err(other)),
                }
            }
        });
        match woken {
            Ok(Ok(output)) => return Ok(Some(output)),
            Ok(Err(Woken::TimeUp)) => return Ok(None),
            Ok(Err(_)) => {
                if let Some(signals) = &signals {
                    signals.pass_on(py);
                }
            }
            Err(error) => return Err(std::io::Error::into(error)),
        }
    }
}

/// Runs what cannot be interrupted, without the GIL. On the main thread a signal ends the wait, and the work goes on elsewhere.
pub(crate) fn run<T: Send + 'static>(py: Python<'_>, work: impl FnOnce() -> T + Send + 'static) -> PyResult<T> {
    if !is_main_thread() {
        return Ok(py.detach(work));
    }
    let shared = Arc::new(std::sync::Mutex::new((None, None::<Waker>)));
    let theirs = shared.clone();
    std::thread::Builder::new().name("librpc-python".into()).spawn(move || {
        let done = work();
        let waker = {
            let mut shared = theirs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            shared.0 = Some(done);
            shared.1.take()
        };
        waker.map(Waker::wake)
    })?;
    let done = std::future::poll_fn(|context| {
        let mut shared = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match shared.0.take() {
            Some(done) => Poll::Ready(done),
            None => {
                shared.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    });
    Ok(block_on(py, done, None, false)?.expect("it has no time limit"))
}
