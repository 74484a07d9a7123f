//! What a channel lends: payloads that stay in the sender's memory.

use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Head, Lent};

use super::{OutboundChannel, Pushed};
use crate::fault::fault;
use crate::link::channel_shared;
use crate::link::lending::{self, Lending, LentOut, Outcome};
use crate::policy::Policy;
use crate::send::lent_queue::{NoRoom, Reap};
use crate::sys::clock::{Instant, now_ns};
use crate::sys::slots::{Slot, Slots};
use crate::sys::thread;

/// How often a sender looks whether a receiver has let go of something: nothing tells it.
pub(super) const RELEASE_PAUSE: Duration = Duration::from_millis(1);

impl OutboundChannel {
    /// Before [`OutboundChannel::push_slot`], and before a declaration that is for this message: makes the receiver map the slot's
    /// memory, and makes room. `Err`: why the slot cannot be pushed yet, or at all.
    pub(crate) fn prepare_slot(&mut self, slot: &Slot) -> Result<(), Pushed> {
        if slot.bytes() > self.max_message as u64 {
            return Err(Pushed::TooLarge { bytes: slot.bytes() as usize, max: self.max_message });
        }
        if self.shared.status() != self.seen || self.seen != channel_shared::OPEN {
            self.refresh();
        }
        match self.shared.status() {
            channel_shared::OPEN => {}
            channel_shared::FAILED => return Err(Pushed::Failed),
            _ => return Err(Pushed::Unlent), // nothing can be handed to a receiver that has not answered
        }
        if self.lending(slot).is_none() {
            self.hand_over(slot)?;
        }
        let mut has_room = self.has_room(slot.bytes());
        if matches!(has_room, Err(NoRoom::Until(_))) && self.policy() == Policy::DropOldest {
            // What is declared from here on holds for what follows.
            self.producer.skip_all();
            has_room = self.has_room(slot.bytes());
        }
        has_room.map_err(|no_room| match no_room {
            NoRoom::Until(room_at) => Pushed::Full { room_at },
            NoRoom::Held => Pushed::Held,
        })
    }

    fn has_room(&mut self, bytes: u64) -> Result<(), NoRoom> {
        self.lent.has_room(bytes, self.payloads.left()).or_else(|_| {
            self.reap(Reap::Released); // what has come back meanwhile
            self.lent.has_room(bytes, self.payloads.left())
        })
    }

    /// Commits a message whose payload is in a slot that was prepared, and wakes the receiver if it sleeps.
    pub(crate) fn push_slot(&mut self, head: Head, slot: &Slot) -> Pushed {
        if let Err(undeclared) = self.declare_type(false) {
            return undeclared;
        }
        // Shares are counted after the commit: the receiver does not wait for that.
        let Some(at) = self.lending(slot) else { return Pushed::Unlent };
        let time = self.sampler.is_due().then(now_ns);
        let lent = Lent { segment: slot.slots().number, offset: slot.offset(), bytes: slot.bytes() };
        let is_open = self.shared.begin_push() == channel_shared::OPEN;
        let pushed = is_open.then(|| self.producer.push_lent(Head { time, ..head }, &lent));
        self.shared.end_push();
        fault!("lend.pushed");
        match pushed {
            Some(Ok(claim)) => {
                self.lent.push(LentOut { claim, slot: slot.clone(), lending: self.lendings[at].1.clone() });
                self.note_lent();
                if time.is_some() {
                    self.sampler.restart()
                } else {
                    self.sampler.tick()
                }
                if self.producer.must_ring() {
                    self.ring_bell();
                }
                Pushed::Yes
            }
            Some(Err(error)) => self.not_pushed(error),
            None => {
                self.refresh();
                Pushed::Failed
            }
        }
    }

    /// Where the hand-over of a slot's memory is, if the receiver maps it.
    fn lending(&self, slot: &Slot) -> Option<usize> {
        let wanted = slot.slots().number;
        self.lendings.iter().position(|(segment, _)| *segment == wanted)
    }

    /// Begins to hand over a slot's memory, or sees what has become of that.
    #[cold]
    fn hand_over(&mut self, slot: &Slot) -> Result<(), Pushed> {
        let segment = slot.slots().number;
        let at = self.under_way.iter().position(|lending| lending.segment == segment).unwrap_or_else(|| {
            self.begin_lending(slot.slots());
            self.under_way.len() - 1
        });
        match self.under_way[at].outcome() {
            Outcome::Done => {
                self.lendings.push((segment, self.under_way.swap_remove(at)));
                Ok(())
            }
            Outcome::UnderWay => Err(Pushed::Unlent),
            Outcome::Refused(reason, why) => {
                self.under_way.swap_remove(at); // it may be asked again
                match self.is_connected() {
                    true => Err(Pushed::NotLent(reason, why)),
                    false => Err(Pushed::Failed),
                }
            }
        }
    }

    /// Begins to hand over a memory of which a payload is being written, to a receiver that maps others: it is mapped by the time at which
    /// the payload is there.
    pub(crate) fn lend_ahead(&mut self, slots: &Arc<Slots>) {
        let has_it = |lending: &Arc<Lending>| lending.segment == slots.number;
        // A refusal that nobody has heard of is of another time.
        self.under_way.retain(|lending| !(has_it(lending) && matches!(lending.outcome(), Outcome::Refused(..))));
        let has_mapped_it = self.lendings.iter().any(|(segment, _)| *segment == slots.number);
        let is_wanted = !self.lendings.is_empty() && !has_mapped_it && !self.under_way.iter().any(has_it);
        if is_wanted && self.shared.status() == channel_shared::OPEN {
            self.begin_lending(slots);
        }
    }

    #[cold]
    fn begin_lending(&mut self, slots: &Arc<Slots>) {
        // What was handed over ahead and is not used stays under way, and is not waited for.
        if !self.is_lending() {
            self.lends_since = Instant::now();
        }
        self.under_way.push(lending::begin(&self.link, &self.shared, slots, self.is_private));
    }

    /// Since when it is waited for that the receiver answers, or maps a memory.
    pub(crate) fn lends_since(&self) -> Option<Instant> {
        self.is_lending().then_some(self.lends_since)
    }

    /// Waits until the receiver has answered something that is under way, or has failed, up to a deadline.
    pub(super) fn wait_until_lent(&self, deadline: Option<Instant>) {
        let before = self.unanswered();
        self.shared.wait_while(deadline, |shared| match before {
            0 => shared.status() != channel_shared::OPEN,
            _ => self.unanswered() == before,
        });
    }

    /// How many memories the receiver has not answered for.
    fn unanswered(&self) -> usize {
        self.under_way.iter().filter(|lending| lending.outcome() == Outcome::UnderWay).count()
    }

    /// Whether the receiver has not answered yet, or a memory is being handed over.
    pub(super) fn is_lending(&self) -> bool {
        let is_under_way = |lending: &Arc<Lending>| lending.outcome() == Outcome::UnderWay;
        self.shared.status() != channel_shared::OPEN || self.under_way.iter().any(is_under_way)
    }

    /// Takes back what the receiver is done with.
    pub(crate) fn reap(&mut self, how: Reap) {
        self.lent.reap(how);
        self.note_lent();
    }

    fn note_lent(&mut self) {
        let (payloads, bytes) = self.lent.total();
        self.shared.note_lent((payloads, bytes));
        self.payloads.note_lent(std::mem::replace(&mut self.noted, bytes), bytes);
    }

    /// Waits a moment for the receiver to let go of something, at most up to a deadline.
    pub(super) fn wait_for_release(&mut self, deadline: Option<Instant>) {
        let left = deadline.map_or(RELEASE_PAUSE, |deadline| deadline.saturating_duration_since(Instant::now()));
        thread::sleep(left.min(RELEASE_PAUSE));
        self.reap(Reap::Released);
    }

    /// The memories of which `is_there` says no are retired: the receiver unmaps them.
    pub(crate) fn forget_memories(&mut self, is_there: impl Fn(u64) -> bool) {
        self.lendings.retain(|(segment, _)| is_there(*segment));
        self.under_way.retain(|lending| is_there(lending.segment));
    }

    /// What is lent: how many payloads wait in the inbox, how many the receiver holds, and their bytes.
    pub(crate) fn lent(&mut self) -> (usize, usize, u64) {
        self.lent.counts()
    }

    /// The slot of a message that the receiver has not processed.
    pub(crate) fn slot(&self, sequence: u64) -> Option<Slot> {
        self.lent.slot(sequence).cloned()
    }
}
