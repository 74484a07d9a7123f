//! Which messages carry a time stamp, and what their receiver counts from it.
//!
//! Reading the clock costs as much as half a message. So only some messages are stamped: one in 64, the first one of a
//! channel, and each one after a message that found its receiver asleep. A channel with little traffic stamps nearly
//! all. The sender stamps just before the commit, and the receiver reads the clock when the message is processed.

use librpc_ring::Consumer;

use crate::sys::clock::now_ns;
use crate::sys::memory::{Reader, Writer};

/// One message in this many carries a time stamp.
const EVERY: u32 = 64;
/// At most this many stamped messages of a channel are remembered until they are processed. Further ones are not
/// counted.
const PENDING: usize = 256;

/// Which messages a sender stamps.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// Messages to send before the next stamp.
    left: u32,
    /// Each is stamped.
    is_for_all: bool,
}

impl Sampler {
    /// Whether to stamp the next message. The first one is always stamped.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        self.left == 0
    }

    /// Counts a message that is sent without a stamp, when none is due.
    #[inline(always)]
    pub(crate) fn tick(&mut self) {
        self.left -= 1;
    }

    /// A message was stamped.
    pub(crate) fn restart(&mut self) {
        self.left = if self.is_for_all { 0 } else { EVERY - 1 };
    }

    /// Stamps each message, or not.
    pub(crate) fn set_for_all(&mut self, is_for_all: bool) {
        (self.is_for_all, self.left) = (is_for_all, 0);
    }

    /// Stamps the next message, because this one found its receiver asleep.
    pub(crate) fn make_due(&mut self) {
        self.left = 0;
    }
}

/// The time stamps of a channel's messages that were handed out and are not processed yet.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Vec<u64>);

impl Stamps {
    /// Remembers the time stamp of a message that is being handed out.
    #[inline(always)]
    pub(crate) fn taken(&mut self, time: Option<u64>) {
        if let Some(time) = time {
            self.keep(time);
        }
    }

    #[cold]
    fn keep(&mut self, time: u64) {
        if self.0.len() < PENDING {
            self.0.push(time);
        }
    }

    /// Everything that was handed out is processed now.
    #[inline(always)]
    pub(crate) fn processed(&mut self, consumer: &mut Consumer<Reader, Writer>) {
        if !self.0.is_empty() {
            self.count(consumer);
        }
    }

    #[cold]
    fn count(&mut self, consumer: &mut Consumer<Reader, Writer>) {
        let now = now_ns();
        consumer.note_received_at(now);
        // A stamp from the future is a lie, or comes from a process whose clock has another zero (a time namespace).
        self.0.drain(..).filter_map(|sent| now.checked_sub(sent)).for_each(|ns| consumer.note_latency(ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the next messages are stamped.
    fn stamped(sampler: &mut Sampler, messages: usize) -> Vec<usize> {
        let mut stamped = Vec::new();
        for number in 0..messages {
            if sampler.is_due() {
                sampler.restart();
                stamped.push(number);
            } else {
                sampler.tick();
            }
        }
        stamped
    }

    #[test]
    fn one_message_in_64_is_stamped_and_each_that_follows_a_sleep() {
        let mut sampler = Sampler::default();
        assert_eq!(stamped(&mut sampler, 150), [0, 64, 128]);
        assert!(!sampler.is_due());
        sampler.make_due();
        assert_eq!(stamped(&mut sampler, 10), [0]);
    }
}
