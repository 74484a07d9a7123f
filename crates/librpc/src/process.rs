//! What all nodes of a process share: the background thread, and the threads that wait for a node to appear.

use std::sync::Arc;

use crate::registry::wait::Waiters;
use crate::sys::reactor::Reactor;
use crate::sys::{OsError, fork, process};

/// What all nodes of this process share. The background thread ends when the last node is gone.
pub(crate) struct Process {
    pub(crate) reactor: Arc<Reactor>,
    /// The threads that wait for something to appear in a domain.
    pub(crate) waiters: Arc<Waiters>,
    born: fork::Born,
}

impl Process {
    /// This process's; made if there is none.
    pub(crate) fn get() -> Result<Arc<Self>, OsError> {
        if let Some(process) = process::shared() {
            return Ok(process);
        }
        let reactor = Reactor::start()?;
        let waiters = Waiters::new(&reactor);
        // Another thread may have started one at the same time: then ours stops again.
        Ok(process::share(Arc::new(Self { reactor, waiters, born: fork::Born::now() })))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.reactor.stop();
        }
    }
}
