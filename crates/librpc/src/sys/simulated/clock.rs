//! The simulated clock.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use super::machine::machine;

pub(crate) fn now_ns() -> u64 {
    machine().now_ns()
}

pub(crate) fn unix_ns() -> u64 {
    1_700_000_000_000_000_000 + machine().now_ns()
}

/// A moment: as much of the standard library's as is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(Duration::from_nanos(now_ns()))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    pub(crate) fn checked_add(&self, duration: Duration) -> Option<Self> {
        // The real one ends with the seconds that an i64 holds.
        let sum = self.0.checked_add(duration)?;
        (sum.as_secs() < i64::MAX as u64).then_some(Self(sum))
    }

    pub(crate) fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }

    pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        self.checked_add(duration).expect("overflow when adding duration to instant")
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.checked_sub(duration).expect("overflow when subtracting duration from instant"))
    }
}
