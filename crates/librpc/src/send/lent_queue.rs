//! What a channel has lent to its receiver: a share in the slot of each record, until the receiver is done with it.
//!
//! Invariant: records are consumed in order, so those that are not consumed yet are the last ones in the list. The ones before them are
//! held by the receiver.

use std::collections::VecDeque;

use crate::link::lending::{LentOut, Looks};
use crate::sys::slots::Slot;

/// At most this many bytes of lent payloads wait in an inbox; always two payloads.
const WINDOW: u64 = 64 << 20;
const ALWAYS: usize = 2;
/// How many payloads may be consumed, while an earlier one is held, before all of them are looked at. So one loan looks at a part of
/// what is held, however much that is.
const LOOK_EVERY: usize = 32;

/// What is taken back. The kernel is asked whether a receiver is gone: a system call for each memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// What the receiver is done with, up to the first payload that it holds.
    First,
    /// Everything that it is done with.
    Released,
    /// And what a receiver that is gone had held.
    Held,
    /// And what it had not consumed: nobody else will get it.
    Gone,
}

/// Why no more may be lent to an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Too much waits in it, until the receiver has consumed up to this position.
    Until(u64),
    /// The receiver holds too much.
    Held,
}

/// What was lent over one channel.
#[derive(Debug, Default)]
pub(crate) struct LentQueue {
    list: VecDeque<LentOut>,
    /// How many of them, from the first on, are known to be consumed.
    consumed: usize,
    /// How many of those were held when all of them were looked at.
    held: usize,
    /// Bytes of the payloads that are not consumed, and of all.
    queued_bytes: u64,
    bytes: u64,
    #[cfg(test)]
    looks: usize,
}

impl LentQueue {
    pub(crate) fn push(&mut self, lent: LentOut) {
        self.queued_bytes += lent.slot.bytes();
        self.bytes += lent.slot.bytes();
        self.list.push_back(lent);
    }

    /// Notices what was consumed, and takes back what is not held, up to the first payload that is.
    fn advance(&mut self) {
        while let Some(next) = self.list.get(self.consumed)
            && next.is_consumed()
        {
            self.queued_bytes -= next.slot.bytes();
            self.consumed += 1;
        }
        while self.consumed > 0 && self.list.front().is_some_and(LentOut::is_released) {
            self.bytes -= self.list.pop_front().map_or(0, |released| released.slot.bytes());
            self.consumed -= 1;
            self.held = self.held.saturating_sub(1);
        }
    }

    /// Takes back every payload that the receiver is done with.
    pub(crate) fn reap(&mut self, how: Reap) {
        self.advance();
        if how != Reap::First || self.consumed > self.held + LOOK_EVERY {
            self.look_at_all(how);
        }
    }

    fn look_at_all(&mut self, how: Reap) {
        #[cfg(test)]
        (self.looks += 1);
        let (mut looks, mut at, mut consumed) = (Looks::default(), 0, self.consumed);
        let (queued_bytes, bytes) = (&mut self.queued_bytes, &mut self.bytes);
        self.list.retain(|lent| {
            let is_consumed = at < self.consumed;
            at += 1;
            let may_be_gone = how == Reap::Gone || how == Reap::Held && is_consumed;
            let is_over = is_consumed && !looks.is_held(lent) || may_be_gone && looks.is_over(lent);
            if is_over {
                *bytes -= lent.slot.bytes();
                match is_consumed {
                    true => consumed -= 1,
                    false => *queued_bytes -= lent.slot.bytes(),
                }
            }
            !is_over
        });
        (self.consumed, self.held) = (consumed, consumed);
    }

    /// Whether a payload of this length may be lent. `left` is how many more bytes the node may lend. An inbox never gets more than
    /// that, so inboxes that release nothing leave memory for the others.
    pub(crate) fn has_room(&mut self, bytes: u64, left: u64) -> Result<(), NoRoom> {
        // The receiver's counters are looked at only where that matters: they are likely in another core's cache.
        if self.queued_bytes + bytes <= WINDOW && self.bytes + bytes <= left {
            return Ok(());
        }
        self.advance();
        let waiting = self.list.len() - self.consumed;
        let is_too_much = self.list.len() >= ALWAYS && self.bytes + bytes > left;
        match self.list.get(self.consumed) {
            Some(first) if is_too_much || waiting >= ALWAYS && self.queued_bytes + bytes > WINDOW => {
                Err(NoRoom::Until(first.claim.end))
            }
            None if is_too_much => Err(NoRoom::Held),
            _ => Ok(()),
        }
    }

    /// The payload of the message of this number.
    pub(crate) fn slot(&self, sequence: u64) -> Option<&Slot> {
        self.list.iter().rev().find(|lent| lent.claim.sequence == sequence).map(|lent| &lent.slot)
    }

    /// How many payloads wait in the inbox, how many the receiver holds, and how many bytes they are together.
    pub(crate) fn counts(&mut self) -> (usize, usize, u64) {
        self.reap(Reap::Released);
        (self.list.len() - self.consumed, self.consumed, self.bytes)
    }

    /// How many payloads are lent, and their bytes, as of the last look.
    pub(crate) fn total(&self) -> (u64, u64) {
        (self.list.len() as u64, self.bytes)
    }

    /// Everything that is still lent.
    pub(crate) fn take(&mut self) -> VecDeque<LentOut> {
        std::mem::take(self).list
    }
}

#[cfg(all(test, not(feature = "simulated")))]
mod tests {
    use std::sync::Arc;

    use librpc_ring::{Consumer, Head, Lent, Mode, Producer, release};

    use super::*;
    use crate::link::lending::Lending;
    use crate::sys::memory::{Mapping, Reader, Shape, Writer};
    use crate::sys::slots::Slots;
    use crate::sys::socket::Socket;

    const CAPACITY: u64 = 1 << 20;
    const BYTES: u64 = 4096;

    /// A channel on which everything is lent.
    struct Channel {
        producer: Producer<Writer, Reader>,
        consumer: Consumer<Reader, Writer>,
        ack: Writer,
        slots: Arc<Slots>,
        lending: Arc<Lending>,
        queue: LentQueue,
        _receivers: Socket,
    }

    impl Channel {
        fn new() -> Self {
            let mapping = |shape| Arc::new(Mapping::create(shape).expect("there is memory").0);
            let (data, ack) = (mapping(Shape::Data { capacity: CAPACITY }), mapping(Shape::Ack));
            let producer = Producer::new(data.writer(), ack.reader(), CAPACITY, Mode::Lossless);
            let consumer = Consumer::new(data.reader(), ack.writer(), CAPACITY, Mode::Lossless).expect("it is valid");
            let slots = Slots::create(600, BYTES, ()).expect("there is memory");
            let (ours, _receivers) = Socket::pair();
            let lending = Arc::new(Lending::done(slots.number, data, ack.clone(), ours));
            Self { producer, consumer, ack: ack.writer(), slots, lending, queue: LentQueue::default(), _receivers }
        }

        fn lend(&mut self) {
            let slot = (0..self.slots.slots()).find_map(|at| self.slots.take(at, BYTES)).expect("one is free").share();
            let lent = Lent { segment: self.slots.number, offset: slot.offset(), bytes: BYTES };
            let claim = self.producer.push_lent(Head::MESSAGE, &lent).expect("there is room");
            self.queue.push(LentOut { claim, slot, lending: self.lending.clone() });
        }

        /// Lends a payload, which the receiver consumes. Returns its hold, if it is to be held.
        fn lend_and_receive(&mut self, is_held: bool) -> Option<usize> {
            self.lend();
            self.consumer.pop(&mut Vec::new()).expect("it is valid").expect("it was lent");
            let hold = is_held.then(|| self.consumer.keep().expect("there is a hold"));
            self.consumer.let_go();
            self.consumer.consume();
            hold
        }
    }

    #[test]
    fn a_receiver_that_holds_much_costs_each_loan_a_part_of_a_look() {
        let mut channel = Channel::new();
        for _ in 0..511 {
            channel.lend_and_receive(true);
            channel.queue.reap(Reap::First);
        }
        channel.queue.looks = 0;
        for _ in 0..10 * LOOK_EVERY {
            channel.lend_and_receive(false);
            channel.queue.reap(Reap::First);
            assert!(channel.queue.list.len() <= 511 + LOOK_EVERY, "what is released comes back");
        }
        assert!(channel.queue.looks <= 10, "it was looked at everything {} times", channel.queue.looks);
    }

    #[test]
    fn what_is_released_behind_a_held_payload_comes_back() {
        let mut channel = Channel::new();
        let holds: Vec<_> = (0..8).filter_map(|_| channel.lend_and_receive(true)).collect();
        channel.lend();
        assert_eq!(channel.queue.counts(), (1, 8, 9 * BYTES));
        for &hold in &holds[1..6] {
            release(&channel.ack, hold);
        }
        channel.queue.reap(Reap::First);
        assert_eq!(channel.queue.total(), (9, 9 * BYTES), "the first one is held");
        channel.queue.reap(Reap::Released);
        assert_eq!((channel.queue.total(), channel.slots.in_use()), ((4, 4 * BYTES), 4));
        release(&channel.ack, holds[0]);
        channel.queue.reap(Reap::First);
        assert_eq!((channel.queue.counts(), channel.queue.held), ((1, 2, 3 * BYTES), 2));
    }
}
