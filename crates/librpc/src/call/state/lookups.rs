//! Looks at the registry that have failed, for example for lack of descriptors.

use crate::call::error::CallError;
use crate::call::pause::Pause;
use crate::sys::clock::Instant;

/// Why the last look has failed, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    error: CallError,
    pause: Pause,
    due: Instant,
}

impl Lookups {
    /// Whether a look is due.
    pub(super) fn are_due(&self) -> bool {
        self.due().is_none_or(|due| Instant::now() >= due)
    }

    /// When the next look is due; `None`: the last one has not failed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.failed.as_ref().map(|failed| failed.due)
    }

    /// Why the last look has failed.
    pub(super) fn error(&self) -> Option<&CallError> {
        self.failed.as_ref().map(|failed| &failed.error)
    }

    /// Takes down how a look has ended.
    pub(super) fn ended(&mut self, how: Result<(), CallError>) {
        let Err(error) = how else {
            self.failed = None;
            return;
        };
        let mut pause = self.failed.take().map(|failed| failed.pause).unwrap_or_default();
        let due = Instant::now() + pause.next();
        tracing::debug!(%error, "servers could not be looked up");
        self.failed = Some(Failed { error, pause, due });
    }
}
