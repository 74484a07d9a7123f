//! The clock that the processes of a machine share, and its moments.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

pub(crate) use super::os::clock::{coarse_ns, now_ns, unix_ns};

/// The kernel's clock is hardly ever further behind than this: two ticks of its slowest timer.
const COARSE: u64 = 20_000_000;

/// A moment of the shared clock, in ns: what a message carries is the same as what a wait compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Instant(u64);

impl Instant {
    #[inline]
    pub(crate) fn now() -> Self {
        Self(now_ns())
    }

    /// A moment ago, when the kernel last looked at the clock: what has not come by long is told apart from what may have.
    #[inline]
    pub(crate) fn coarse() -> Self {
        Self(coarse_ns())
    }

    /// Whether a time, in ns, has come by now, if this moment is a [coarse](Instant::coarse) one. The clock is only read where it is
    /// near.
    #[inline]
    pub(crate) fn has_passed(self, time: u64) -> bool {
        self.0.saturating_add(COARSE) >= time && now_ns() >= time
    }

    /// As other processes understand it.
    pub(crate) fn as_ns(self) -> u64 {
        self.0
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// `None`: centuries from now, which counts as no limit.
    pub(crate) fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(duration.as_nanos()).ok()?).map(Self)
    }

    pub(crate) fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
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
        Self(
            u64::try_from(duration.as_nanos())
                .ok()
                .and_then(|ns| self.0.checked_sub(ns))
                .expect("a moment after the start"),
        )
    }
}
