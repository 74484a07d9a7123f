//! What a process has once, as long as it has a node: the background thread, and the lookout.

use std::sync::{Arc, Weak};

use crate::registry::lookout::Lookout;
use crate::sys::reactor::Reactor;
use crate::sys::sync::Mutex;
use crate::sys::{OsError, fork};

/// What this process has once. Its thread ends when the last node is gone.
pub(crate) struct Process {
    pub(crate) reactor: Arc<Reactor>,
    /// What is watched in its domains.
    pub(crate) lookout: Arc<Lookout>,
    born: u64,
}

static CURRENT: Mutex<Option<(u64, Weak<Process>)>> = Mutex::new(None);

impl Process {
    /// This process's; made if there is none.
    pub(crate) fn get() -> Result<Arc<Self>, OsError> {
        let generation = fork::generation();
        let running = || -> Option<Arc<Self>> {
            let _gate = fork::gate();
            match &*CURRENT.lock() {
                Some((born, process)) if *born == generation => process.upgrade(),
                _ => None,
            }
        };
        if let Some(process) = running() {
            return Ok(process);
        }
        let reserved = Lookout::reserve();
        let reactor = Reactor::start()?;
        let lookout = Lookout::new(&reactor, reserved);
        let process = Arc::new(Self { reactor, lookout, born: generation });
        let _gate = fork::gate();
        let mut current = CURRENT.lock();
        if let Some((born, other)) = &*current
            && *born == generation
            && let Some(other) = other.upgrade()
        {
            return Ok(other); // started at the same time; ours stops again
        }
        *current = Some((generation, Arc::downgrade(&process)));
        Ok(process)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.born == fork::generation() {
            self.reactor.stop();
        }
    }
}
