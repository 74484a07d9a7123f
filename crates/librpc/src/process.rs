//! What all nodes of a process share: the background thread, and the lookout.

use std::sync::Arc;

use crate::registry::lookout::Lookout;
use crate::sys::reactor::Reactor;
use crate::sys::{OsError, fork, process};

/// What all nodes of this process share. The background thread ends when the last node is gone.
pub(crate) struct Process {
    pub(crate) reactor: Arc<Reactor>,
    /// What is watched in its domains.
    pub(crate) lookout: Arc<Lookout>,
    born: fork::Born,
}

impl Process {
    /// That of this process. Made on first use.
    pub(crate) fn get() -> Result<Arc<Self>, OsError> {
        if let Some(process) = process::shared() {
            return Ok(process);
        }
        let reserved = Lookout::reserve();
        let reactor = Reactor::start()?;
        let lookout = Lookout::new(&reactor, reserved);
        // Another thread may have started one at the same time. Then ours stops again.
        Ok(process::share(Arc::new(Self { reactor, lookout, born: fork::Born::now() })))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.reactor.stop();
        }
    }
}
