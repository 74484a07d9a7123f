//! `membarrier(2)`.

use super::machine::machine;

pub(crate) const QUERY: i64 = 0;
pub(crate) const GLOBAL_EXPEDITED: i64 = 1 << 1;
pub(crate) const REGISTER_GLOBAL_EXPEDITED: i64 = 1 << 2;

/// Negative if it failed.
pub(crate) fn membarrier(command: i64) -> i64 {
    machine().membarrier(command)
}
