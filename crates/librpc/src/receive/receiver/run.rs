//! A run: messages in a row from one channel, while which nothing but its ring is looked at.
//!
//! This is the hot path of a receive. It begins with a message that was found in any other way, and lasts until the ring is
//! empty, a record is more than a plain message, or something else is due: the turn of other channels, a look at the clock and
//! at the bells, a sender that waits. All that is counted when the run has ended, not for each message.

use super::{POLLS_PER_CLOCK, Receiver, SETTLE_EVERY};
use crate::fault::fault;
use crate::receive::message::Taken;

/// How far a run has got.
#[derive(Debug, Default)]
pub(super) struct Run {
    channel: usize,
    length: u32,
    left: u32,
}

impl Receiver {
    /// The run has one more message: [`Receiver::taken`]. `false`: everything is to be looked at, with [`Receiver::next`].
    #[inline(always)]
    pub(crate) fn goes_on(&mut self, consume: bool) -> bool {
        if self.run.left == 0 || self.shared.has_ended() {
            return false;
        }
        let index = self.run.channel;
        let Some(Some(channel)) = self.channels.get_mut(index) else { return false };
        if consume {
            channel.consume();
            channel.ring_if_seen();
        }
        self.payload.clear();
        let (topics, address) = (&channel.topics, &self.shared.address);
        let found = channel.consumer.pop_plain(&mut self.payload, |topic| topics.has(address, topic));
        let Some(plain) = found else { return false };
        fault!("consume.taken");
        if !channel.is_listed {
            channel.is_listed = true;
            self.unconsumed.push(index);
        }
        self.run.left -= 1;
        self.taken =
            Taken { channel: index, sequence: plain.sequence, topic: plain.topic, redelivered: false, missed: 0 };
        true
    }

    /// A message was found in this channel: others may follow. Of one that may be overwritten, or is read to its end, each is
    /// looked at as if it were the first.
    pub(super) fn begin_run(&mut self, channel: usize) {
        let length = self.quantum.min(POLLS_PER_CLOCK.saturating_sub(self.polls));
        self.run = Run { channel, length, left: length };
    }

    /// What was due meanwhile is done now.
    pub(super) fn end_run(&mut self) {
        let Run { channel, length, left } = std::mem::take(&mut self.run);
        let taken = length - left;
        self.stream.came(taken);
        self.quantum -= taken;
        self.polls += taken;
        if let Some(Some(channel)) = self.channels.get_mut(channel) {
            channel.unsettled += taken;
            if channel.unsettled >= SETTLE_EVERY {
                channel.settle();
            }
        }
        if self.polls >= POLLS_PER_CLOCK {
            self.polls = 0;
            self.look_if_due();
        }
    }
}
