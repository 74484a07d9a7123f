//! The simulated clock.

use super::machine::machine;

pub(crate) fn now_ns() -> u64 {
    machine().now_ns()
}

pub(crate) fn coarse_ns() -> u64 {
    now_ns()
}

pub(crate) fn unix_ns() -> u64 {
    1_700_000_000_000_000_000 + machine().now_ns()
}
