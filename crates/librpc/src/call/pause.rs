//! How soon what could not be done is tried again: at once, and then less and less often.

use std::time::Duration;

/// How soon at first.
pub(super) const AGAIN: Duration = Duration::from_millis(1);
/// How soon at last.
const MOST: Duration = Duration::from_millis(100);

/// How long to wait before the next attempt.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(AGAIN)
    }
}

impl Pause {
    /// The pause before the next attempt. Each is twice as long as the one before.
    pub(super) fn next(&mut self) -> Duration {
        let next = (2 * self.0).min(MOST);
        std::mem::replace(&mut self.0, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut pause = Pause::default();
        let pauses: Vec<u128> = std::iter::repeat_with(|| pause.next().as_millis()).take(10).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 100, 100, 100]);
    }
}
