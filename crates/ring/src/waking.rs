//! Sleeping and waking in both directions without losing a wake-up.
//!
//! Two mirror images of one protocol (Dekker's: each side stores, fences, then loads what the other side stores):
//!
//! ```text
//! a receiver that goes to sleep        a sender that commits          a sender that waits          a receiver that consumes
//! armed ← new epoch                    commit word                    waiting ← new epoch          consumed ← position
//! fence                                fence                          fence                        fence
//! look at the ring once more           look at armed                  look at consumed once more   look at waiting
//! nothing: sleep                       new epoch: ring the bell       no change: sleep             new epoch: ring the bell
//! ```
//!
//! Whichever fence comes second sees the other's store, so either the sleeper finds the change or the other side rings.
//! The sender's fence behind a commit waits until the receiver has given the line away, which costs more than the rest of a
//! send. Where the kernel can put a fence into another process (`membarrier`), the receiver has it do so between announcing
//! its sleep and its second look, and the sender has none.
//!
//! An epoch is never used twice, and each is rung for once: a message costs no system call while the bell is on its way.
//! A process that dies between store and bell is noticed by its hang-up, which wakes the sleeper as well.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::consumer::Consumer;
use crate::layout::{ack, data};
use crate::memory::{Memory, MemoryMut};

/// Remembers for which epoch the other side was last rung.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    last_rung: u64,
    /// The receiver's fence is one for this side, too.
    pub(crate) is_fenced_by_receiver: bool,
}

impl Bell {
    /// Whether the receiver sleeps and has not been rung for this sleep yet.
    #[inline]
    pub(crate) fn must_ring(&mut self, data: &impl MemoryMut, ack: &impl Memory) -> bool {
        // Pairs with the fence in Consumer::arm: the commit is seen there, or the epoch is seen here.
        if self.is_fenced_by_receiver {
            // The receiver's barrier falls behind the commit, or in front of the load, as they stand in the program.
            compiler_fence(Ordering::SeqCst);
        } else {
            data.fence(Ordering::SeqCst);
        }
        // Relaxed: the fence orders it.
        self.new_epoch(ack.load(ack::ARMED, Ordering::Relaxed))
    }

    fn new_epoch(&mut self, epoch: u64) -> bool {
        if epoch == 0 || epoch == self.last_rung {
            return false;
        }
        self.last_rung = epoch;
        true
    }
}

/// What the second look of a receiver that wants to sleep has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// Nothing is there: sleep.
    Sleep,
    /// There is something to do: a record, a sender that has left, or corruption.
    Awake,
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Announces sleep under a new epoch, and looks at the ring once more.
    pub fn arm(&mut self) -> Armed {
        self.announce();
        self.look_again()
    }

    /// The first half of [`Consumer::arm`]: announces sleep under a new epoch. Between the halves a receiver of a sender
    /// without a fence of its own ([`crate::Producer::set_fenced_by_receiver`]) has its barrier.
    pub fn announce(&mut self) {
        self.epoch += 1;
        // Relaxed: the fence orders it.
        self.ack.store(ack::ARMED, self.epoch, Ordering::Relaxed);
    }

    /// The second half of [`Consumer::arm`]: looks at the ring once more.
    pub fn look_again(&self) -> Armed {
        // Pairs with the fence in Bell::must_ring.
        self.ack.fence(Ordering::SeqCst);
        if self.has_record() || self.is_closed() { Armed::Awake } else { Armed::Sleep }
    }

    /// Takes the announcement back: this ring is polled again.
    pub fn disarm(&mut self) {
        // Relaxed: seen late, it costs the sender one bell too many.
        self.ack.store(ack::ARMED, 0, Ordering::Relaxed);
    }

    /// How often this ring was armed: no honest sender rings more often than that.
    pub fn epochs(&self) -> u64 {
        self.epoch
    }

    /// After [`Consumer::consume`]: whether the sender waits for it and must be rung. True once per wait.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        // Pairs with the fence in wait_for_receiver: consumed is seen there, or the epoch is seen here.
        self.ack.fence(Ordering::SeqCst);
        self.sees_waiting()
    }

    /// The same without the fence, between two calls of [`Consumer::must_ring`]: it may miss a sender that goes to sleep
    /// at this very moment, and that the next call then finds.
    #[inline]
    pub fn sees_waiting(&mut self) -> bool {
        // Relaxed: the caller's fence orders it, if it is to be ordered.
        let epoch = self.data.load(data::WAITING, Ordering::Relaxed);
        if epoch == 0 || epoch == self.answered {
            return false;
        }
        self.answered = epoch;
        true
    }
}

/// Announces that the sender waits under this epoch (never used before on this ring, not 0), and reads the consumed
/// position once more: the sender may sleep only if that has not reached what it *needs* ([`crate::PushError::Full`]), which
/// is not the same as having moved since an earlier look.
pub fn wait_for_receiver(data: &impl MemoryMut, ack: &impl Memory, epoch: u64) -> u64 {
    // Relaxed: the fence orders it.
    data.store(data::WAITING, epoch, Ordering::Relaxed);
    // Pairs with the fence in Consumer::must_ring.
    data.fence(Ordering::SeqCst);
    // Relaxed: it only decides about sleeping. What relies on it looks again, with Acquire.
    ack.load(ack::CONSUMED, Ordering::Relaxed)
}

/// The sender waits no longer.
pub fn stop_waiting(data: &impl MemoryMut) {
    // Relaxed: seen late, it costs the receiver one bell too many.
    data.store(data::WAITING, 0, Ordering::Relaxed);
}
