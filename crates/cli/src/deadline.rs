//! A point in time to wait for. A limit that is too long for the clock counts as no limit.

use std::time::{Duration, Instant};

/// The longest single wait. Between two waits, a command checks for signals and for the other side.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// The time at which this limit is over.
    pub(crate) fn after(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// How long to wait next: the rest of the time, but at most this long.
    pub(crate) fn next_wait(self, most: Duration) -> Duration {
        self.0.map_or(most, |deadline| deadline.saturating_duration_since(Instant::now()).min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_too_long_to_be_a_point_in_time_is_no_limit() {
        for limit in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            let deadline = Deadline::after(limit);
            assert!(!deadline.has_passed());
            assert_eq!(deadline.next_wait(SLICE), SLICE);
        }
        let over = Deadline::after(Duration::ZERO);
        assert!(over.has_passed());
        assert_eq!(over.next_wait(SLICE), Duration::ZERO);
    }
}
