//! Rate limits of a destination: token buckets for messages and for bytes.
//!
//! A message waits until its tokens are there. They are taken once it is accepted, so a message that is not accepted
//! costs nothing.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::sys::clock::Instant;
use crate::sys::thread;

/// Waits shorter than this are polled, because a sleep is no more precise.
const POLLED: Duration = Duration::from_micros(150);
/// A sleep lasts at least this long if the burst allows it: messages that become due during the sleep follow at once.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quota {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

impl Rate {
    /// At most this many messages per second, and at most `burst` of them at once. A message over the rate waits, up to the
    /// send's time limit.
    pub fn messages(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { messages: Some(Quota { per_second, burst }), bytes: None, waits: true }
    }

    /// At most this many bytes of payload per second, and at most `burst` of them at once. A message longer than a burst
    /// waits for several bursts.
    pub fn bytes(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { messages: None, bytes: Some(Quota { per_second, burst }), waits: true }
    }

    /// Adds a limit of bytes to the limit of messages, as in [`Rate::bytes`].
    pub fn and_bytes(self, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { bytes: Some(Quota { per_second, burst }), ..self }
    }

    /// A message over the rate does not wait, but fails at once. The error says when to try again.
    pub fn or_fail(self) -> Self {
        Self { waits: false, ..self }
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    burst: f64,
    /// The tokens for the message that waits or was refused last. The bucket may hold this many, even if that is more
    /// than the burst.
    wanted: f64,
    tokens: f64,
    /// When `tokens` was computed.
    at: Instant,
}

impl Bucket {
    fn new(quota: Quota, now: Instant) -> Self {
        let burst = f64::from(quota.burst.get());
        Self { per_second: f64::from(quota.per_second.get()), burst, wanted: 0.0, tokens: burst, at: now }
    }

    /// How long to wait for this many tokens.
    fn wait(&mut self, tokens: f64, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst.max(self.wanted));
        (self.at, self.wanted) = (now, tokens);
        let seconds = ((tokens - self.tokens) / self.per_second).max(0.0);
        // Rounded up: after this wait the tokens are there.
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        if wait.is_zero() { wait } else { wait.saturating_add(Duration::from_nanos(1)) }
    }

    fn take(&mut self, tokens: f64) {
        // A rounding error is not a debt.
        (self.tokens, self.wanted) = ((self.tokens - tokens).max(0.0), 0.0);
    }

    /// The shortest sleep that costs no throughput.
    fn nap(&self) -> Duration {
        NAP.min(Duration::from_secs_f64(self.burst / self.per_second / 4.0))
    }
}

/// A rate in use.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    waits: bool,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        let now = Instant::now();
        let bucket = |quota| Bucket::new(quota, now);
        Self { messages: rate.messages.map(bucket), bytes: rate.bytes.map(bucket), waits: rate.waits }
    }

    /// Waits until a message may be sent, up to a deadline, unless the rate is set to fail at once. Takes no tokens:
    /// [`Pace::take`] does.
    ///
    /// # Errors
    ///
    /// How much longer the message would have to wait.
    pub(crate) fn wait(&mut self, payload_bytes: usize, deadline: Option<Instant>) -> Result<(), Duration> {
        while let Some(pause) = self.pause(payload_bytes, deadline)? {
            match pause {
                long if long > POLLED => thread::sleep(long),
                _ => crate::sys::thread::spin_loop(),
            }
        }
        Ok(())
    }

    /// How long to wait until the next look; `None`: a message may be sent now.
    ///
    /// # Errors
    ///
    /// As [`Pace::wait`].
    pub(crate) fn pause(
        &mut self,
        payload_bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<Option<Duration>, Duration> {
        let now = Instant::now();
        let wait = self.ready_after(payload_bytes, now);
        if wait.is_zero() {
            return Ok(None);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        if !self.waits || left.is_some_and(|left| wait > left) {
            return Err(wait);
        }
        Ok(Some(wait.max(self.nap()).min(left.unwrap_or(Duration::MAX))))
    }

    fn ready_after(&mut self, payload_bytes: usize, now: Instant) -> Duration {
        let messages = self.messages.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(1.0, now));
        let bytes = self.bytes.as_mut().map_or(Duration::ZERO, |bucket| bucket.wait(payload_bytes as f64, now));
        messages.max(bytes)
    }

    fn nap(&self) -> Duration {
        self.messages.iter().chain(&self.bytes).map(Bucket::nap).min().unwrap_or_default()
    }

    /// Takes the tokens of a message that was accepted.
    pub(crate) fn take(&mut self, payload_bytes: usize) {
        self.messages.iter_mut().for_each(|bucket| bucket.take(1.0));
        self.bytes.iter_mut().for_each(|bucket| bucket.take(payload_bytes as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    fn millis(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends if the tokens are there.
    fn try_send(pace: &mut Pace, payload_bytes: usize) -> Result<(), Duration> {
        pace.wait(payload_bytes, None).map(|()| pace.take(payload_bytes))
    }

    #[test]
    fn a_burst_is_bounded_and_what_is_over_it_fails() {
        let mut pace = Pace::new(Rate::messages(number(1), number(5)).or_fail());
        let taken = (0..100).take_while(|_| try_send(&mut pace, 0).is_ok()).count();
        assert_eq!(taken, 5);
        let wait = try_send(&mut pace, 0).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn bytes_are_counted_beside_messages() {
        let mut pace = Pace::new(Rate::messages(number(1), number(100)).and_bytes(number(1), number(10)).or_fail());
        assert!(try_send(&mut pace, 8).is_ok());
        assert!(try_send(&mut pace, 8).is_err(), "only 2 bytes are left");
        assert!(try_send(&mut pace, 2).is_ok());
    }

    #[test]
    fn waiting_ends_at_the_deadline() {
        let mut pace = Pace::new(Rate::messages(number(1), number(1)));
        let soon = Some(Instant::now() + millis(10));
        assert!(pace.wait(0, soon).is_ok());
        pace.take(0);
        assert!(pace.wait(0, soon).is_err());
    }

    #[test]
    fn a_message_that_is_not_accepted_costs_nothing() {
        let mut pace = Pace::new(Rate::messages(number(1), number(1)).or_fail());
        for _ in 0..10 {
            assert!(pace.wait(0, None).is_ok(), "nothing was taken");
        }
    }

    #[test]
    fn a_message_longer_than_a_burst_waits_for_several_bursts_and_the_wait_is_true() {
        let begun = Instant::now();
        let mut bucket = Bucket::new(Quota { per_second: number(1000), burst: number(100) }, begun);
        // Idle time gathers one burst, no more.
        let now = begun + Duration::from_secs(60);
        let wait = bucket.wait(800.0, now);
        assert!(wait >= millis(700) && wait < millis(701), "{wait:?}");
        // Asking again costs nothing, and the first answer still holds.
        let later = now + millis(300);
        let rest = bucket.wait(800.0, later);
        assert!(rest >= millis(400) && rest < millis(401), "{rest:?}");
        assert_eq!(bucket.wait(800.0, later + rest), Duration::ZERO);
        bucket.take(800.0);
        // Then the bucket is empty, and holds a burst again.
        let now = later + rest;
        let wait = bucket.wait(50.0, now);
        assert!(wait > millis(49) && wait < millis(51), "{wait:?}");
        bucket.take(0.0);
        let wait = bucket.wait(150.0, now + Duration::from_secs(60));
        assert!(wait > millis(49) && wait < millis(51), "{wait:?}");
    }

    #[test]
    fn the_largest_rates_and_messages_are_counted_without_overflow() {
        let mut bucket = Bucket::new(Quota { per_second: number(1), burst: number(u32::MAX) }, Instant::now());
        assert!(bucket.wait(usize::MAX as f64, Instant::now()) > Duration::from_secs(1 << 40));
        bucket.take(usize::MAX as f64);
        let mut pace = Pace::new(Rate::bytes(number(u32::MAX), number(1)).or_fail());
        assert!(try_send(&mut pace, usize::MAX).is_err());
    }
}
