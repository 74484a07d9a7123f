//! How long a sender polls for room before it sleeps, and how often it looks.

use std::time::Duration;

use crate::sys::clock::Instant;

/// Pauses between two looks at what the receiver has consumed: each look takes the cache line away from it.
const PAUSES: u32 = 32;
const MAX_PAUSES: u32 = 256;
/// How long a sender polls while its receiver makes no progress.
const IDLE: Duration = Duration::from_micros(20);

/// One wait of a sender. It polls while the receiver makes progress, and looks less and less often.
#[derive(Debug)]
pub(crate) struct Polling {
    deadline: Option<Instant>,
    consumed: u64,
    moved: Instant,
    pauses: u32,
}

impl Polling {
    pub(crate) fn new(now: Instant, deadline: Option<Instant>) -> Self {
        Self { deadline, consumed: 0, moved: now, pauses: PAUSES }
    }

    /// Takes the position at which the last look found the receiver. Returns how many pauses to make before the next
    /// look; `None`: stop polling.
    pub(crate) fn next(&mut self, consumed: u64, now: Instant) -> Option<u32> {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return None;
        }
        if consumed > self.consumed {
            (self.consumed, self.moved) = (consumed, now);
        } else if now.saturating_duration_since(self.moved) > IDLE {
            return None;
        }
        let pauses = self.pauses;
        self.pauses = (2 * pauses).min(MAX_PAUSES);
        Some(pauses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICROSECOND: Duration = Duration::from_micros(1);

    #[test]
    fn polling_goes_on_while_the_receiver_does_but_not_past_the_deadline() {
        let begun = Instant::now();
        let mut polling = Polling::new(begun, Some(begun + 1000 * MICROSECOND));
        let looks = (1..).take_while(|&look| polling.next(u64::from(look), begun + look * MICROSECOND).is_some());
        assert_eq!(looks.count(), 999);
        let mut polling = Polling::new(begun, Some(begun));
        assert_eq!(polling.next(1, begun), None, "without patience it does not poll at all");
    }

    #[test]
    fn polling_ends_soon_after_a_receiver_that_does_not_get_on() {
        let begun = Instant::now();
        let mut polling = Polling::new(begun, None);
        let looks = (1..).take_while(|&look| polling.next(8, begun + look * MICROSECOND).is_some());
        assert_eq!(looks.count(), 21);
    }
}
