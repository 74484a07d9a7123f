//! Waiting for something to appear in a domain.
//!
//! A thread or a task that waits watches the directory, and looks again at each change of it. Where the kernel gives no watch, it
//! looks every 20 ms instead.
//!
//! Invariant: a thread or a task that sleeps watches the directory that the path leads to, and has looked since that watch began. A look
//! may find that the domain was removed, and make it again; the former directory, still watched, reports nothing more.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::registry::lookout::{Lookout, Waiting};
use crate::sys::clock::Instant;

const SLOW_POLL: Duration = Duration::from_millis(20);
/// Longer waits look once a day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Looks until there is something to return or the deadline has come: at once, and whenever the directory has changed.
pub(crate) fn wait_for<T, E>(
    lookout: &Arc<Lookout>,
    directory: &Path,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    let mut waiting = Waiting::begin(lookout, directory);
    loop {
        let seen = waiting.changes();
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if waiting.watches_another() {
            continue;
        }
        let left = deadline.map_or(LONGEST, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(None);
        }
        waiting.wait(seen, left.min(if waiting.is_watching() { LONGEST } else { SLOW_POLL }));
    }
}

/// The same for a task. `waiting` is kept for it from one poll to the next.
pub(crate) fn poll_for<T, E>(
    (lookout, directory): (&Arc<Lookout>, &Path),
    waiting: &mut Option<Waiting>,
    context: &Context<'_>,
    deadline: Option<Instant>,
    mut look: impl FnMut() -> Result<Option<T>, E>,
) -> Poll<Result<Option<T>, E>> {
    if let Some(found) = look()? {
        return Poll::Ready(Ok(Some(found)));
    }
    let waiting = waiting.get_or_insert_with(|| Waiting::begin(lookout, directory));
    loop {
        let now = Instant::now();
        let pause = if waiting.is_watching() { LONGEST } else { SLOW_POLL };
        let until = deadline.into_iter().chain([now + pause]).min().expect("there is at least one");
        // Before the last look: what changes after it wakes the task.
        waiting.wake(context.waker(), Some(until));
        if let Some(found) = look()? {
            return Poll::Ready(Ok(Some(found)));
        }
        if waiting.watches_another() {
            continue;
        }
        return match deadline.is_some_and(|deadline| now >= deadline) {
            true => Poll::Ready(Ok(None)),
            false => Poll::Pending,
        };
    }
}
