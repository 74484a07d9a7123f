//! How many messages are due by the clock, in small batches, and never more than a batch at once.

use std::time::{Duration, Instant};

/// The shortest time between two batches: shorter sleeps cost more than they gain.
const BATCH: Duration = Duration::from_micros(100);
/// The most messages between two looks at the clock.
const BETWEEN_LOOKS: u64 = 64;
/// A sender that is at most this late at the end of its time still catches up. A later one was held back by its
/// receiver.
const CATCH_UP: Duration = Duration::from_millis(2);
/// Catching up takes no longer than this, however high the rate.
const CATCHING_UP: Duration = Duration::from_millis(20);

const SECOND_NS: u128 = 1_000_000_000;

pub(crate) struct Pace {
    /// Messages per second; 0: as fast as possible.
    rate: u64,
    time: Duration,
    begun: Instant,
    sent: u64,
}

/// What a sender must do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// This many messages, at least one.
    Messages(u64),
    /// Nothing for this long.
    Nothing(Duration),
    /// The time is over.
    Over,
}

impl Pace {
    pub(crate) fn new(rate: u64, time: Duration) -> Self {
        Self { rate, time, begun: Instant::now(), sent: 0 }
    }

    /// What is due now. The caller does it before it asks again.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        let due = self.due_after(now - self.begun);
        if let Due::Messages(messages) = due {
            self.sent += messages;
        }
        due
    }

    fn due_after(&self, elapsed: Duration) -> Due {
        if self.rate == 0 {
            return if elapsed < self.time { Due::Messages(BETWEEN_LOOKS) } else { Due::Over };
        }
        let due = self.by(elapsed.min(self.time));
        let late = due.saturating_sub(self.sent);
        let is_over = late == 0 || late > self.by(CATCH_UP).max(1) || elapsed >= self.time.saturating_add(CATCHING_UP);
        if elapsed >= self.time && is_over {
            return Due::Over;
        }
        if late > 0 {
            return Due::Messages(late.min(BETWEEN_LOOKS));
        }
        let next_ns = (u128::from(self.sent + 1) * SECOND_NS).div_ceil(u128::from(self.rate));
        let next = Duration::from_nanos(u64::try_from(next_ns).unwrap_or(u64::MAX)).min(self.time);
        Due::Nothing(next.saturating_sub(elapsed).max(BATCH))
    }

    /// How many messages are due after this time.
    fn by(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() * u128::from(self.rate) / SECOND_NS).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many messages a sender has sent at the end of its time if each takes `each`.
    fn sent(rate: u64, time: Duration, each: Duration) -> u64 {
        let mut pace = Pace::new(rate, time);
        let mut elapsed = Duration::ZERO;
        loop {
            assert!(elapsed < time + Duration::from_secs(1), "it does not end");
            match pace.due(pace.begun + elapsed) {
                Due::Messages(messages) => elapsed += each * messages as u32,
                Due::Nothing(time) => elapsed += time,
                Due::Over => return pace.sent,
            }
        }
    }

    #[test]
    fn a_fast_sender_sends_exactly_what_was_asked_for() {
        let each = Duration::from_nanos(100);
        for rate in [1, 3, 1000, 9_999, 1_000_000] {
            assert_eq!(sent(rate, Duration::from_secs(2), each), 2 * rate, "{rate}/s");
        }
    }

    #[test]
    fn a_slow_sender_ends_in_time() {
        let sent = sent(1_000_000, Duration::from_secs(1), Duration::from_micros(10));
        assert!((99_000..=100_200).contains(&sent), "{sent}");
    }

    #[test]
    fn a_rate_that_nobody_can_send_ends_in_time() {
        let sent = sent(u64::MAX, Duration::from_millis(1), Duration::from_micros(1));
        assert!((20_000..30_000).contains(&sent), "{sent}: a millisecond, and what catching up takes");
    }

    #[test]
    fn without_a_rate_only_the_time_counts() {
        assert!(sent(0, Duration::from_secs(1), Duration::from_micros(1)) >= 1_000_000);
    }
}
