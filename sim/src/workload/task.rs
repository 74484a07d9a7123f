//! An executor of one task. It polls a future again only once its waker was called, so a wake-up that is lost shows: nobody can go on, or
//! a message comes late.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::schedule;

/// A task, as its waker knows it.
struct Task {
    key: u64,
    is_woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed); // all simulated threads share one real one
        schedule::notify(self.key, true);
    }
}

/// Runs a future to its end. `None`: it was not ready within the limit, and is dropped.
pub fn run<F: Future>(future: F, limit: Option<Duration>) -> Option<F::Output> {
    let key = KEYS | schedule::thread().number();
    let task = Arc::new(Task { key, is_woken: AtomicBool::new(false) });
    let waker = Waker::from(task.clone());
    let until = limit.map(|limit| schedule::clock_ns() + limit.as_nanos() as u64);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        while !task.is_woken.swap(false, Ordering::Relaxed) {
            if !schedule::wait(key, until, "its waker") {
                return None;
            }
        }
    }
}

/// What a thread's task waits for has this number and the thread's.
const KEYS: u64 = 0x7461_736b << 32;
