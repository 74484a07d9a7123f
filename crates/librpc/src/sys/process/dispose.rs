//! Closing what may block: strangers' descriptors, sockets that may hold some, inotify instances.
//!
//! The last close of a lingering socket blocks, each close of a FUSE file may, and that of an inotify instance waits for the
//! kernel. They are closed on expendable threads; what is open meanwhile is on its user's account.

use super::fork;
use crate::sys::{OwnedFd, thread};

/// At most this many threads are blocked by what they close.
const THREADS: u32 = 8;

/// The descriptors that wait, and the threads that close them.
pub(super) struct Closing {
    pub(super) waiting: Vec<Leftover>,
    pub(super) threads: u32,
}

/// What is closed together, and what is held until it is, such as a place on its user's account.
pub(super) struct Leftover {
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) until_closed: Box<dyn Send>,
}

impl Closing {
    pub(super) const fn new() -> Self {
        Self { waiting: Vec::new(), threads: 0 }
    }

    /// A forked child has none of its parent's threads. It closes its copies of what waited when it first closes anything.
    pub(super) fn enter_child(&mut self) {
        self.threads = 0;
    }
}

/// Closes descriptors that a stranger sent, or may have left unread in a socket. `until_closed` is dropped afterwards.
pub(crate) fn dispose(descriptors: Vec<OwnedFd>, until_closed: impl Send + 'static) {
    if descriptors.is_empty() {
        return;
    }
    let leftover = Leftover { descriptors, until_closed: Box::new(until_closed) };
    let mut gated = fork::gate();
    let closing = &mut gated.closing;
    // Something waits: the threads that there are may be blocked.
    let needs_thread = closing.threads < THREADS && (closing.threads == 0 || !closing.waiting.is_empty());
    closing.waiting.push(leftover);
    closing.threads += u32::from(needs_thread);
    drop(gated);
    if needs_thread {
        start_thread();
    }
}

/// Closes what still waits because there was no thread to close it on. `false`: there is still none.
pub(crate) fn go_on() -> bool {
    let mut gated = fork::gate();
    let closing = &mut gated.closing;
    if closing.waiting.is_empty() || closing.threads > 0 {
        return true;
    }
    closing.threads = 1;
    drop(gated);
    start_thread()
}

/// Starts a thread that is counted already; `false`: it cannot be started just now.
fn start_thread() -> bool {
    let started = thread::spawn("librpc-close", close);
    if let Err(error) = &started {
        fork::gate().closing.threads -= 1;
        tracing::warn!(%error, "no thread to close a stranger's descriptors on: they are closed later");
    }
    started.is_ok()
}

fn close() {
    loop {
        let mut gated = fork::gate();
        let closing = &mut gated.closing;
        let Some(Leftover { descriptors, until_closed }) = closing.waiting.pop() else {
            closing.threads -= 1;
            return;
        };
        drop(gated);
        drop(descriptors);
        drop(until_closed);
    }
}
