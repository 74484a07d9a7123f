//! Threads of this crate. They are made with pthreads, and not with std: std takes a lock of its own when a thread begins and when it
//! ends (the table for its message on stack overflow), and a child that is forked at that moment could never start a thread.

use std::ffi::{CString, c_void};
pub(crate) use std::hint::spin_loop;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
pub(crate) use std::thread::{sleep, yield_now};
use std::{io, ptr, thread};

use super::sync::Mutex;

/// As std gives its threads.
const STACK_BYTES: usize = 2 << 20;

/// Starts a thread with every signal blocked: signals are the user's, and belong on the user's threads.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` initialises the set that it is given; `pthread_sigmask` reads it and initialises `before`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    // A new thread inherits the mask of the one that makes it.
    let started = start(name, Box::new(run));
    // SAFETY: `before` was initialised above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    started.map(drop)
}

/// A thread that somebody may wait for. If this is dropped, the thread goes on by itself.
#[derive(Debug)]
pub(crate) struct JoinHandle<T> {
    thread: Joinable,
    result: Arc<Mutex<Option<thread::Result<T>>>>,
}

/// Starts a thread of the user's, which takes signals as any other.
pub(crate) fn spawn_joinable<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let result = Arc::new(Mutex::new(None));
    let to = Arc::clone(&result);
    let run = move || *to.lock() = Some(catch_unwind(AssertUnwindSafe(run)));
    Ok(JoinHandle { thread: start(name, Box::new(run))?, result })
}

impl<T> JoinHandle<T> {
    /// Waits for the thread's end.
    pub(crate) fn join(self) -> thread::Result<T> {
        self.thread.join();
        self.result.lock().take().unwrap_or_else(|| Err(Box::new("the thread was ended from outside")))
    }
}

/// Whether this is the calling thread, which cannot wait for its own end.
pub(crate) fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    // SAFETY: asks for a number.
    thread.thread.0 == unsafe { libc::pthread_self() }
}

/// A thread that is neither joined nor detached yet.
#[derive(Debug)]
struct Joinable(libc::pthread_t);

impl Joinable {
    fn join(self) {
        // SAFETY: a thread is joined or detached once: both take `self`.
        unsafe { libc::pthread_join(ManuallyDrop::new(self).0, ptr::null_mut()) };
    }
}

impl Drop for Joinable {
    fn drop(&mut self) {
        // SAFETY: as in `join`.
        unsafe { libc::pthread_detach(self.0) };
    }
}

/// What a new thread begins with.
struct Start {
    name: CString,
    run: Box<dyn FnOnce() + Send>,
}

fn start(name: &str, run: Box<dyn FnOnce() + Send>) -> io::Result<Joinable> {
    let start = Box::into_raw(Box::new(Start { name: CString::new(name)?, run }));
    let mut thread = MaybeUninit::uninit();
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised before they are used, and destroyed once; `begin` takes what it is given.
    let failed = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK_BYTES);
        let failed = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), begin, start.cast());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    if failed != 0 {
        // SAFETY: no thread was made that would take it.
        drop(unsafe { Box::from_raw(start) });
        return Err(io::Error::from_raw_os_error(failed));
    }
    // SAFETY: initialised by the call that succeeded.
    Ok(Joinable(unsafe { thread.assume_init() }))
}

extern "C" fn begin(start: *mut c_void) -> *mut c_void {
    // SAFETY: a box of `start`, given to this thread alone.
    let Start { name, run } = *unsafe { Box::from_raw(start.cast::<Start>()) };
    let _ = rustix::thread::set_name(&name); // without it, the thread bears its parent's
    let _ = catch_unwind(AssertUnwindSafe(run)); // the panic's message was printed when it began
    ptr::null_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_returns_what_it_has_made_or_its_panic() {
        assert_eq!(spawn_joinable("test", || 7).expect("it starts").join().expect("it does not panic"), 7);
        // Without the message that a panic prints.
        let panics = || std::panic::resume_unwind(Box::new("on purpose"));
        let panic = spawn_joinable::<()>("test", panics).expect("it starts").join().expect_err("it panics");
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }

    #[test]
    fn a_thread_has_its_name_and_takes_no_signals() {
        let (says, said) = std::sync::mpsc::channel();
        spawn("librpc-test", move || {
            says.send(std::fs::read_to_string("/proc/thread-self/status").expect("it can be read"))
                .expect("it is read");
        })
        .expect("it starts");
        let status = said.recv().expect("it says so");
        assert!(status.contains("Name:\tlibrpc-test\n"), "{status}");
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("it is in there");
        let blocked = u64::from_str_radix(blocked, 16).expect("a number");
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM] {
            assert_ne!(blocked & 1 << (signal - 1), 0, "signal {signal} is blocked: {blocked:x}");
        }
    }
}
