//! Threads of a simulated process.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::machine::machine;

pub(crate) fn spin_loop() {
    machine().pause();
}

pub(crate) fn yield_now() {
    machine().pause();
}

pub(crate) fn sleep(duration: Duration) {
    machine().sleep(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    machine().spawn(name, Box::new(run))?;
    Ok(())
}

/// A thread that somebody may wait for.
#[derive(Debug)]
pub(crate) struct JoinHandle<T> {
    thread: u64,
    result: Shared<Option<T>>,
}

/// What two simulated threads share: they run on one real thread, and never at the same time.
#[derive(Debug)]
struct Shared<T>(Rc<RefCell<T>>);

// SAFETY: simulated threads stay on the real thread that made them, and so does everything that they have.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

pub(crate) fn spawn_joinable<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let result = Rc::new(RefCell::new(None));
    let to = result.clone();
    let thread = machine().spawn(name, Box::new(move || *to.borrow_mut() = Some(run())))?;
    Ok(JoinHandle { thread, result: Shared(result) })
}

impl<T> JoinHandle<T> {
    pub(crate) fn join(self) -> std::thread::Result<T> {
        machine().join(self.thread);
        self.result.0.borrow_mut().take().ok_or_else(|| Box::new("the thread panicked") as _)
    }
}

pub(crate) fn is_current<T>(thread: &JoinHandle<T>) -> bool {
    thread.thread == machine().thread()
}
