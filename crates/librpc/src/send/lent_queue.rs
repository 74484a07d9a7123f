//! What a channel has lent to its receiver: a share in the slot of each record, until the receiver is done with it.
//!
//! Invariant: records are consumed in order, so those that are not consumed yet are the last ones in the list. The ones before them are
//! held by the receiver.

use std::collections::VecDeque;

use crate::link::lending::LentOut;
use crate::sys::slots::Slot;

/// At most this many bytes of lent payloads wait in an inbox; always two payloads.
const WINDOW: u64 = 64 << 20;
const ALWAYS: usize = 2;
/// How many released payloads may wait behind one that is held.
const LOOK_THROUGH: usize = 32;

/// What is taken back. The kernel is asked whether a receiver is gone: a system call for each payload.
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
    /// Bytes of the others, and of all.
    queued_bytes: u64,
    bytes: u64,
}

impl LentQueue {
    pub(crate) fn push(&mut self, lent: LentOut) {
        self.queued_bytes += lent.slot.bytes();
        self.bytes += lent.slot.bytes();
        self.list.push_back(lent);
    }

    /// Notices what was consumed, and takes back what is not held.
    pub(crate) fn advance(&mut self) {
        while let Some(next) = self.list.get(self.consumed)
            && next.is_consumed()
        {
            self.queued_bytes -= next.slot.bytes();
            self.consumed += 1;
        }
        while self.consumed > 0 && self.list.front().is_some_and(LentOut::is_released) {
            self.bytes -= self.list.pop_front().map_or(0, |released| released.slot.bytes());
            self.consumed -= 1;
        }
        if self.consumed > LOOK_THROUGH {
            self.take_back(|lent, _| lent.is_released());
        }
    }

    /// Takes back every payload that the receiver is done with.
    pub(crate) fn reap(&mut self, how: Reap) {
        self.advance();
        if how == Reap::First {
            return;
        }
        self.take_back(|lent, is_consumed| match how {
            Reap::Gone => lent.is_over(),
            Reap::Held if is_consumed => lent.is_over(),
            Reap::Held | Reap::Released | Reap::First => lent.is_released(),
        });
    }

    fn take_back(&mut self, is_over: impl Fn(&LentOut, bool) -> bool) {
        let (mut at, mut consumed) = (0, self.consumed);
        let (queued_bytes, bytes) = (&mut self.queued_bytes, &mut self.bytes);
        self.list.retain(|lent| {
            let is_consumed = at < self.consumed;
            at += 1;
            let is_over = is_over(lent, is_consumed);
            if is_over {
                *bytes -= lent.slot.bytes();
                match is_consumed {
                    true => consumed -= 1,
                    false => *queued_bytes -= lent.slot.bytes(),
                }
            }
            !is_over
        });
        self.consumed = consumed;
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
        self.advance();
        (self.list.len() - self.consumed, self.consumed, self.bytes)
    }

    /// How many payloads are lent, and their bytes, as of the last look.
    pub(crate) fn total(&self) -> (u64, u64) {
        (self.list.len() as u64, self.bytes)
    }

    /// Everything that is still lent.
    pub(crate) fn take(&mut self) -> VecDeque<LentOut> {
        (self.consumed, self.queued_bytes, self.bytes) = (0, 0, 0);
        std::mem::take(&mut self.list)
    }
}
