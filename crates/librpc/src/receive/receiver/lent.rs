//! Payloads that are not in the rings: where they are, and how they are handed out.

use librpc_ring::{Head, Record};

use super::Receiver;
use super::channel::InboundChannel;
use crate::aligned::AlignedBytes;
use crate::fault::fault;
use crate::link::segments::{Located, Segment};
use crate::receive::message::{Message, Taken};
use crate::receive::sample::{Hold, LentSample, Sample, SamplePayload};
use crate::sys::fork;
use crate::sys::process::random;

/// A buffer that is longer than this is given back once a message needs much less of it.
const LONG_BUFFER: usize = 1 << 20;

/// The message that was found last: its payload is lent.
pub(super) struct LentMessage {
    located: Located,
    head: Head,
}

impl Receiver {
    /// Finds out where the payload of a record that was just taken is, and checks that. `Err`: it is no honest sender's.
    #[cold]
    pub(super) fn locate(&mut self, index: usize, record: &Record) -> Result<(), String> {
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        let (poll, watched) = (&self.poll, &mut self.watched);
        let watch = |segment: &Segment| {
            let token = u64::from_ne_bytes(random());
            match poll.add(segment.socket(), token) {
                Ok(()) => drop(watched.insert(token, index)),
                Err(error) => tracing::warn!(%error, "a memory for payloads stays mapped until its channel ends"),
            }
            token
        };
        let located = channel.segments.locate(&self.payload, self.shared.max_message, watch)?;
        self.lent = Some(LentMessage { located, head: record.head });
        Ok(())
    }

    /// Copies the payload of the message that was found last, if it is lent, unless it is read where it is.
    #[inline(always)]
    pub(crate) fn copy_lent(&mut self) {
        if self.trust.is_none() && self.lent.is_some() || self.payload.capacity() > LONG_BUFFER {
            self.copy_out();
        }
    }

    #[cold]
    fn copy_out(&mut self) {
        let needed = self.lent.as_ref().map_or(self.payload.len(), |lent| lent.located.bytes as usize);
        if self.payload.capacity() > LONG_BUFFER && needed < self.payload.capacity() / 4 {
            self.payload.shrink_to(needed.max(LONG_BUFFER));
        }
        let Some(LentMessage { located: Located { segment, offset, bytes }, .. }) = self.lent.take() else { return };
        self.payload.clear();
        segment.append_to(offset, bytes, &mut self.payload);
        fault!("hold.copied");
        if let Some(channel) = &mut self.channels[self.taken.channel] {
            channel.consumer.let_go();
        }
    }

    /// The message that was found last. Its payload may be lent, and be read where it is.
    pub(crate) fn message_found(&self) -> Message<'_> {
        let channel = self.channels[self.taken.channel].as_ref().expect("a channel stays until the next look");
        let payload = match (&self.lent, &self.trust) {
            (Some(LentMessage { located: Located { segment, offset, bytes }, .. }), Some(trust)) => {
                segment.mapping().trusted(*offset, *bytes, trust)
            }
            _ => &self.payload,
        };
        Message::new(&channel.peer, &channel.topics, payload, &self.taken)
    }

    /// The payload that was read where it is, is of no further use.
    #[cold]
    pub(super) fn let_go(&mut self) {
        self.lent = None;
        if let Some(channel) = &mut self.channels[self.taken.channel] {
            channel.consumer.let_go();
        }
    }

    /// The message that was found last, as a sample. `None`: the inbox holds as many lent payloads of its sender as it can. The
    /// message is not taken then.
    pub(crate) fn sample(&mut self) -> Option<Sample> {
        if let Some(LentMessage { located, head }) = self.lent.take() {
            return match self.sample_in_place(located) {
                Ok(sample) => Some(sample),
                Err(_) => {
                    let channel =
                        self.channels[self.taken.channel].as_mut().expect("a channel stays until the next look");
                    channel.untake(&head, &self.payload);
                    channel.missed += self.taken.missed;
                    None
                }
            };
        }
        Some(self.sample_of(SamplePayload::Copy(AlignedBytes::copy_of(&self.payload))))
    }

    /// The same. What the inbox cannot hold is copied.
    pub(crate) fn sample_or_copy(&mut self) -> Sample {
        if let Some(payload) = self.of_calls.as_mut().and_then(|of_calls| of_calls.payload.take()) {
            return self.sample_of(SamplePayload::Copy(payload));
        }
        if let Some(LentMessage { located, head }) = self.lent.take() {
            match self.sample_in_place(located) {
                Ok(sample) => return sample,
                Err(located) => self.lent = Some(LentMessage { located, head }),
            }
            self.copy_out();
        }
        self.sample_of(SamplePayload::Copy(AlignedBytes::copy_of(&self.payload)))
    }

    /// A payload that stays where it is. `Err`: no hold word is free.
    fn sample_in_place(&mut self, located: Located) -> Result<Sample, Located> {
        let channel = self.channels[self.taken.channel].as_mut().expect("a channel stays until the next look");
        if !channel.consumer.can_keep() {
            return Err(located);
        }
        // The hold word is stored last of all. The sender has looked at its line, so the store takes a while, and each count of shares
        // would wait for it.
        let hold = Hold { ack: channel.ack.clone(), word: 0, born: fork::Born::now() };
        let lent = Box::new(LentSample { located, hold, trust: self.trust });
        let mut sample = self.sample_of(SamplePayload::Lent(lent));
        let channel = self.channels[self.taken.channel].as_mut().expect("a channel stays until the next look");
        let word = channel.consumer.keep().expect("only this thread keeps payloads");
        if let SamplePayload::Lent(lent) = &mut sample.payload {
            lent.hold.word = word;
        }
        fault!("hold.sampled");
        Ok(sample)
    }

    #[inline(always)]
    fn sample_of(&mut self, payload: SamplePayload) -> Sample {
        let channel = self.channels[self.taken.channel].as_mut().expect("a channel stays until the next look");
        let topic = channel.topics.shared(self.taken.topic);
        let Taken { sequence, missed, redelivered, past, sent, .. } = self.taken;
        Sample { peer: channel.peer.clone(), topic, sequence, missed, redelivered, past, sent, payload }
    }

    /// A sender has hung up on a memory: it has retired it, or is gone.
    pub(super) fn memory_retired(&mut self, token: u64) {
        let Some(index) = self.watched.remove(&token) else { return };
        let Some(channel) = &mut self.channels[index] else { return };
        if let Some(segment) = channel.segments.retired(token) {
            self.poll.remove(segment.socket());
        }
        // Once its ring is found empty, the memory is unmapped; with a channel whose sender is gone, when that leaves.
        if channel.drain.is_none() {
            self.activate(index);
        }
    }

    /// A channel leaves. What its samples hold stays mapped, and is watched no more.
    pub(super) fn unwatch_memories(&mut self, channel: &InboundChannel) {
        for (token, segment) in channel.segments.watched() {
            if self.watched.remove(&token).is_some() {
                self.poll.remove(segment.socket());
            }
        }
    }
}
