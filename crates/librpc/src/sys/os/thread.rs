//! A thread that takes no signals: they are the user's, and belong on the user's threads.

pub(crate) use std::hint::spin_loop;
use std::io;
use std::mem::MaybeUninit;
pub(crate) use std::thread::{JoinHandle, sleep, yield_now};

/// Starts a thread of the user's, which takes signals as any other.
pub(crate) fn spawn_joinable<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Whether this is the calling thread, which cannot wait for its own end.
pub(crate) fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    thread.thread().id() == std::thread::current().id()
}

/// Starts a thread with every signal blocked.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set that it is given; `pthread_sigmask` reads it and initialises `before`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    // A new thread inherits the mask of the one that makes it.
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: `before` was initialised above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(drop)
}
