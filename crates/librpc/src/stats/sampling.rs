//! Which messages bear a time stamp, and what their receiver counts from it.
//!
//! A clock costs as much as half a message, so one message in 64 is stamped, the first of a channel, and each that follows
//! one which found its receiver asleep: a channel with little traffic stamps nearly all. The sender stamps just before the
//! commit, the receiver looks at the clock when the message is processed.

use librpc_ring::Consumer;

use crate::sys::clock::now_ns;
use crate::sys::memory::{Reader, Writer};

/// So many messages, then one bears a time stamp.
const EVERY: u32 = 64;
/// So many stamped messages of one channel are kept in mind until they are processed; further ones are not counted.
const PENDING: usize = 256;

/// When a sender stamps its next message.
#[derive(Debug)]
pub(crate) struct Countdown(u32);

impl Countdown {
    /// The first message is stamped.
    pub(crate) fn new() -> Self {
        Self(1)
    }

    /// Whether the message that is sent now is to be stamped.
    #[inline(always)]
    pub(crate) fn is_due(&mut self) -> bool {
        self.0 -= 1;
        self.0 == 0
    }

    /// The same before it is sure that a message is sent: [`Countdown::sent`].
    #[inline(always)]
    pub(crate) fn would_be_due(&self) -> bool {
        self.0 <= 1
    }

    /// A message was sent without a stamp.
    #[inline(always)]
    pub(crate) fn sent(&mut self) {
        self.0 -= 1;
    }

    /// A message is being stamped.
    pub(crate) fn restart(&mut self) {
        self.0 = EVERY;
    }

    /// The next message is to be stamped: this one was not sent, or has found its receiver asleep.
    pub(crate) fn next(&mut self) {
        self.0 = 1;
    }
}

/// The time stamps of a channel's messages that were handed out, but are not processed.
#[derive(Debug, Default)]
pub(crate) struct Stamps(Vec<u64>);

impl Stamps {
    /// Keeps the time stamp of a message in mind that is being handed out.
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
        // A stamp from the future is a lie, or of a process whose clock has another zero (a time namespace).
        self.0.drain(..).filter_map(|sent| now.checked_sub(sent)).for_each(|ns| consumer.note_latency(ns));
    }
}
