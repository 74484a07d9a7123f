//! A run: messages in a row from one channel, while nothing else is checked.
//!
//! This is the hot path of a receive. It begins after a message that the slow path found. It lasts until the ring is
//! empty, a record is more than a plain message, or something else is due: the turn of other channels, a look at the
//! clock and the bells, a waiting sender. All of that is counted at the end of the run, not for each message.

use librpc_ring::Head;

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
    /// Takes one more message of the run: [`Receiver::message`]. `false`: call [`Receiver::next`], which checks
    /// everything.
    #[inline(always)]
    pub(crate) fn goes_on(&mut self, consume: bool) -> bool {
        self.run.left > 0 && self.take_in_run(consume)
    }

    #[inline(always)]
    pub(super) fn take_in_run(&mut self, consume: bool) -> bool {
        let index = self.run.channel;
        let Some(Some(channel)) = self.channels.get_mut(index) else { return false };
        if consume {
            channel.consume();
            channel.ring_if_seen();
        }
        self.payload.clear();
        let topics = &channel.topics;
        let found = channel.consumer.pop_plain(&mut self.payload, |topic| topics.has(topic));
        let Some(plain) = found else { return false };
        fault!("consume.taken");
        if !channel.is_listed {
            channel.is_listed = true;
            self.unconsumed.push(index);
        }
        self.run.left = self.run.left.saturating_sub(1);
        self.taken = Taken {
            channel: index,
            sequence: plain.sequence,
            topic: plain.topic,
            redelivered: false,
            past: false,
            missed: 0,
            sent: 0,
        };
        !self.shared.has_ended_in_run() || self.untake()
    }

    /// The message that was taken last is not handed out.
    #[cold]
    #[inline(never)]
    fn untake(&mut self) -> bool {
        if let Some(channel) = &mut self.channels[self.taken.channel] {
            let head = Head { topic: self.taken.topic, ..Head::MESSAGE };
            channel.untake(&head, &self.payload);
        }
        false
    }

    /// A message was found in this channel, and others may follow. The caller ensures that they cannot be overwritten,
    /// that they need no fence, and that the ring is not being read to its end. Otherwise messages are taken one by
    /// one.
    pub(super) fn begin_run(&mut self, channel: usize) {
        let length = self.quantum.min(POLLS_PER_CLOCK.saturating_sub(self.polls));
        self.run = Run { channel, length, left: length };
    }

    /// Does what has become due during the run.
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
            if let Err(error) = self.look_if_due() {
                tracing::warn!(%error, "an inbox cannot look at its bells");
            }
        }
    }
}
