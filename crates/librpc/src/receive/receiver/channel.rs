//! A channel as its inbox polls it.

use crate::sys::clock::Instant;
use std::sync::Arc;

use librpc_ring::{Consumer, Head, SenderCounters};

use crate::fault::fault;
use crate::link::bell::Bell;
use crate::link::ledger::Charge;
use crate::link::segments::Segments;
use crate::name::Peer;
use crate::receive::topic_names::Names;
use crate::receive::turned_away::{Told, TurnedAway};
use crate::stats::channels::ChannelGuard;
use crate::stats::sampling::Stamps;
use crate::sys::memory::{Mapping, Reader, Writer};
use crate::sys::socket::Socket;

/// The receiver's end of a channel.
pub(super) struct InboundChannel {
    /// Its number, which no other channel of the inbox has or has had.
    pub(super) serial: u64,
    pub(super) consumer: Consumer<Reader, Writer>,
    /// Its sender executes no fences, and relies on a barrier whenever the channel is armed.
    pub(super) is_fenced: bool,
    pub(super) peer: Arc<Peer>,
    /// The topics that the sender has declared.
    pub(super) topics: Names,
    /// Messages that were overwritten directly before the next one.
    pub(super) missed: u64,
    pub(super) stamps: Stamps,
    pub(super) connection: u64,
    pub(super) ring: u32,
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) active: bool,
    /// Looks since the last message.
    pub(super) idle_looks: u32,
    /// Whether it is listed in [`super::Receiver::unconsumed`]: something was taken from it that may not be consumed.
    pub(super) is_listed: bool,
    /// Messages consumed since waiting senders were last looked for with a fence.
    pub(super) unsettled: u32,
    pub(super) bells: u64,
    pub(super) told: Told,
    /// The sender is gone. The ring is read until it is empty, but only up to this many bytes, because a hostile ring
    /// never ends.
    pub(super) drain: Option<u64>,
    /// It has hung up and was read to the end, but its node still holds its lock. The node is dying, or has
    /// disconnected.
    pub(super) in_doubt_until: Option<Instant>,
    /// The memories for payloads that its sender has handed over.
    pub(super) segments: Segments,
    /// This side's memory, which has its hold words.
    pub(super) ack: Arc<Mapping>,
    pub(super) _charge: Option<Charge>,
    pub(super) guard: ChannelGuard,
}

impl InboundChannel {
    /// Everything that was taken from it is processed.
    #[inline(always)]
    pub(super) fn consume(&mut self) {
        self.stamps.processed(&mut self.consumer);
        self.consumer.consume();
        fault!("consume.consumed");
    }

    /// What was taken last is not handed out, and is no message to anybody: it is processed at once, unless an earlier message is
    /// unprocessed.
    pub(super) fn pass_over(&mut self, had_unconsumed: bool) {
        if !had_unconsumed {
            self.consumer.consume();
            self.unsettled = self.unsettled.saturating_add(1);
            self.ring_if_seen();
        }
    }

    /// The message that was taken last is still to be received. `payload` is what the ring had.
    #[cold]
    pub(super) fn untake(&mut self, head: &Head, payload: &[u8]) {
        self.consumer.untake(head, payload);
        if let Some(left) = &mut self.drain {
            *left += head.record_bytes(payload.len());
        }
    }

    /// Whether its sender has counted messages that it was not told of: if the channel has messages now, by this time.
    #[inline(always)]
    pub(super) fn has_turned_away(&self, is_busy: bool, now: Instant) -> bool {
        self.told.is_due(self.consumer.turned_away(), is_busy, now)
    }

    /// Messages that did not get into the ring, and that nobody was told of.
    #[cold]
    pub(super) fn turned_away(&mut self) -> Option<TurnedAway> {
        let sum = self.consumer.turned_away();
        if !self.told.is_behind(sum) {
            return None;
        }
        let SenderCounters { too_large, dropped, no_room, no_memory, .. } = self.consumer.sender_counters();
        self.told.tell(&self.peer, sum, [too_large, dropped, no_room, no_memory])
    }

    /// The same for a channel that was read to its end, but only once. Its sender may go on counting after it has hung up, and the channel
    /// must leave all the same.
    #[cold]
    pub(super) fn turned_away_at_last(&mut self) -> Option<TurnedAway> {
        if self.told.ends() { self.turned_away() } else { None }
    }

    /// Wakes a waiting sender if it can be seen without a fence; whether it was.
    #[inline(always)]
    pub(super) fn ring_if_seen(&mut self) -> bool {
        let sees_waiting = self.consumer.sees_waiting();
        if sees_waiting {
            self.ring_bell(Bell::Ring(self.ring));
        }
        sees_waiting
    }

    /// Wakes a sender that waits for what was consumed since the last time.
    pub(super) fn settle(&mut self) {
        if self.unsettled > 0 {
            self.unsettled = 0;
            if self.consumer.must_ring() {
                self.ring_bell(Bell::Ring(self.ring));
            }
        }
    }

    #[cold]
    pub(super) fn ring_bell(&self, bell: Bell) {
        if let Some(socket) = &self.socket {
            bell.ring(socket);
        }
    }
}
