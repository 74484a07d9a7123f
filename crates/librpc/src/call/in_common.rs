//! What a client and its calls have in common.

use std::sync::Arc;
use std::time::Duration;

use crate::call::error::CallError;
use crate::call::exchange::Exchange;
use crate::call::state::Calling;
use crate::node_shared::Owned;
use crate::receive::inbox::RecvError;
use crate::receive::receiver::Until;
use crate::sys::clock::Instant;

/// A client, as its calls know it.
pub(super) struct Shared {
    pub(super) exchange: Exchange<Calling>,
    pub(super) node: Arc<Owned>,
    pub(super) service: Arc<str>,
}

impl Shared {
    pub(super) fn too_late(&self, limit: Limit) -> CallError {
        CallError::Deadline { service: self.service.clone(), timeout: limit.timeout }
    }

    /// Why a call has not ended in time.
    pub(super) fn not_in_time(&self, number: u64, limit: Limit) -> CallError {
        let stuck = self.exchange.lock().side.not_looked_up(number);
        stuck.unwrap_or_else(|| self.too_late(limit))
    }

    pub(super) fn not_received(&self, error: RecvError) -> CallError {
        match error {
            RecvError::Closed { node } => CallError::Closed { node },
            RecvError::Forked => CallError::Forked,
            source => CallError::Receive { service: self.service.clone(), source: Arc::new(source) },
        }
    }
}

/// Until when a call may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) begun: Instant,
    timeout: Duration,
    pub(super) deadline: Option<Instant>,
}

impl Limit {
    pub(super) fn new(timeout: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, timeout, deadline: begun.checked_add(timeout) }
    }

    pub(super) fn until(self) -> Until {
        self.deadline.map_or(Until::Forever, Until::Deadline)
    }

    pub(super) fn is_over(self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// As a request carries it.
    pub(super) fn as_ns(self) -> Option<u64> {
        self.deadline.map(Instant::as_ns)
    }
}
