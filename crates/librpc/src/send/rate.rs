//! Rate limits of a destination: token buckets for messages and for bytes. (The buckets are `governor`'s GCRA.)

use crate::sys::clock::Instant;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Shorter waits are not slept but polled: sleeping is not more exact than this.
const POLLED: Duration = Duration::from_micros(150);
/// Where the burst allows it, a wait is this long, and what has become due meanwhile follows at once.
const NAP: Duration = Duration::from_millis(1);

/// How fast an outbox may send to one destination.
///
/// ```
/// use std::num::NonZeroU32;
/// let per_second = |n| NonZeroU32::new(n).expect("not 0");
/// // 10,000 messages/s, at most 100 of them at once; and 1 MB/s, at most 64 KiB at once.
/// let rate = librpc::Rate::messages(per_second(10_000), per_second(100))
///     .and_bytes(per_second(1_000_000), per_second(65_536));
/// let rather_an_error = rate.or_fail();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    messages: Option<Quota>,
    bytes: Option<Quota>,
    waits: bool,
}

impl Rate {
    /// So many messages per second, and at most `burst` of them at once. What is over it waits, up to the send's limit.
    pub fn messages(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { messages: Some(Quota::per_second(per_second).allow_burst(burst)), bytes: None, waits: true }
    }

    /// So many bytes of payload per second, and at most `burst` of them at once; a message longer than that waits for
    /// several bursts.
    pub fn bytes(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { messages: None, bytes: Some(Quota::per_second(per_second).allow_burst(burst)), waits: true }
    }

    /// A limit of bytes beside the one of messages, as in [`Rate::bytes`].
    pub fn and_bytes(self, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { bytes: Self::bytes(per_second, burst).bytes, ..self }
    }

    /// What is over the rate does not wait, but is an error at once.
    pub fn or_fail(self) -> Self {
        Self { waits: false, ..self }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>,
    burst: u32,
    nap: Duration,
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        Self {
            tokens: RateLimiter::direct_with_clock(quota, MonotonicClock),
            burst: quota.burst_size().get(),
            nap: NAP.min(quota.burst_size_replenished_in() / 4),
        }
    }

    /// Takes so many tokens, no more than a burst. `Err`: how long to wait for them.
    fn take(&self, tokens: u32) -> Result<(), Duration> {
        let Some(tokens) = NonZeroU32::new(tokens) else { return Ok(()) };
        let taken = self.tokens.check_n(tokens).expect("no more than a burst is asked for at once");
        taken.map_err(|not_yet| not_yet.wait_time_from(MonotonicClock.now()))
    }
}

/// A rate as it is being used.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    waits: bool,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { messages: rate.messages.map(Bucket::new), bytes: rate.bytes.map(Bucket::new), waits: rate.waits }
    }

    /// Takes the tokens of one message, and waits for them if that is wanted, up to a deadline. `Err`: how much longer it
    /// would have to wait.
    pub(crate) fn take(&self, payload_bytes: usize, deadline: Option<Instant>) -> Result<(), Duration> {
        if let Some(messages) = &self.messages {
            self.wait(messages, 1, deadline)?;
        }
        if let Some(bytes) = &self.bytes {
            let mut left = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
            while left > 0 {
                let some = left.min(bytes.burst);
                self.wait(bytes, some, deadline)?;
                left -= some;
            }
        }
        Ok(())
    }

    fn wait(&self, bucket: &Bucket, tokens: u32, deadline: Option<Instant>) -> Result<(), Duration> {
        while let Err(wait) = bucket.take(tokens) {
            if !self.waits || deadline.is_some_and(|deadline| Instant::now() + wait > deadline) {
                return Err(wait);
            }
            match wait.max(bucket.nap) {
                long if long > POLLED => crate::sys::thread::sleep(long),
                _ => std::hint::spin_loop(),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_burst_is_bounded_and_what_is_over_it_fails() {
        let pace = Pace::new(Rate::messages(number(1), number(5)).or_fail());
        let taken = (0..100).take_while(|_| pace.take(0, None).is_ok()).count();
        assert_eq!(taken, 5);
        let wait = pace.take(0, None).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn bytes_are_counted_beside_messages() {
        let pace = Pace::new(Rate::messages(number(1), number(100)).and_bytes(number(1), number(10)).or_fail());
        assert!(pace.take(8, None).is_ok());
        assert!(pace.take(8, None).is_err(), "only 2 bytes are left");
        assert!(pace.take(2, None).is_ok());
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let pace = Pace::new(Rate::messages(number(1), number(1)));
        let soon = Some(Instant::now() + Duration::from_millis(10));
        assert!(pace.take(0, soon).is_ok());
        assert!(pace.take(0, soon).is_err());
    }
}
