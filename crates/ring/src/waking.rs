//! Sleep and wake-up in both directions, with no wake-up lost.
//!
//! Two mirror images of one protocol (Dekker's: each side stores, fences, then loads what the other side stores):
//!
//! ```text
//! a receiver that goes to sleep        a sender that commits          a sender that waits          a receiver that consumes
//! armed ← new epoch                    commit word                    waiting ← new epoch          consumed ← position
//! fence                                fence                          fence                        fence
//! look at the ring once more           look at armed                  look at consumed once more   look at waiting
//! nothing: sleep                       new epoch: ring the bell       not enough: sleep            new epoch: ring the bell
//! ```
//!
//! The side whose fence comes second sees the other side's store. So either the sleeper finds the change, or the other side
//! rings the bell. The sender's fence after a commit waits until the receiver has given up the cache line, which costs more
//! than the rest of a send. Where the kernel can execute a fence in another process (`membarrier`), the receiver uses that
//! between announcing its sleep and its second look, and the sender needs no fence of its own.
//!
//! An epoch is never used twice, and each is rung for once: while the bell is on its way, a message costs no system call.
//! The death of a process between store and bell is noticed as a hang-up, which wakes the sleeper as well.

use std::sync::atomic::{Ordering, compiler_fence};

use crate::consumer::Consumer;
use crate::layout::{ack, data};
use crate::memory::{Memory, MemoryMut};

/// Remembers for which epoch the other side was last rung.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    last_rung: u64,
    /// The receiver's fence covers this side, too.
    pub(crate) is_fenced_by_receiver: bool,
}

impl Bell {
    /// Whether the receiver sleeps, and the bell has not been rung for this sleep yet.
    #[inline]
    pub(crate) fn must_ring(&mut self, data: &impl MemoryMut, ack: &impl Memory) -> bool {
        // Pairs with the fence in Consumer::look_again: the commit is seen there, or the epoch is seen here.
        if self.is_fenced_by_receiver {
            // Pairs with the receiver's barrier, which takes effect before the load or after the commit, in program order.
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

/// What a receiver that wants to sleep found when it looked once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// Nothing: sleep.
    Sleep,
    /// Something to do: a record, corruption, or the sender has left.
    Awake,
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Announces sleep under a new epoch, and looks at the ring once more.
    pub fn arm(&mut self) -> Armed {
        self.announce();
        self.look_again()
    }

    /// The first half of [`Consumer::arm`]: announces sleep under a new epoch. If the sender has no fence of its own
    /// ([`crate::Producer::set_fenced_by_receiver`]), execute the barrier between the two halves.
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

    /// Withdraws the announcement: this ring is polled again.
    pub fn disarm(&mut self) {
        // Relaxed: if it is seen late, the sender rings once for nothing.
        self.ack.store(ack::ARMED, 0, Ordering::Relaxed);
    }

    /// How often this ring was armed. An honest sender does not ring more often.
    pub fn epochs(&self) -> u64 {
        self.epoch
    }

    /// After [`Consumer::consume`]: whether the sender waits and must be woken. True once per wait.
    #[inline]
    pub fn must_ring(&mut self) -> bool {
        // Pairs with the fence in wait_for_receiver: consumed is seen there, or the epoch is seen here.
        self.ack.fence(Ordering::SeqCst);
        self.sees_waiting()
    }

    /// [`Consumer::must_ring`] without the fence, for use between two calls of that: it may miss a sender that goes to sleep
    /// at this moment, which the next call with the fence finds.
    #[inline]
    pub fn sees_waiting(&mut self) -> bool {
        // Relaxed: the fence of must_ring orders it, if it is called from there.
        let epoch = self.data.load(data::WAITING, Ordering::Relaxed);
        if epoch == 0 || epoch == self.answered {
            return false;
        }
        self.answered = epoch;
        true
    }
}

/// Announces that the sender waits under this epoch (never used before on this ring, not 0), and returns the consumed position,
/// read once more. The sender may sleep only if this position has not reached the one that it *needs*
/// ([`crate::PushError::Full`]). Whether it has moved since an earlier look does not matter.
pub fn wait_for_receiver(data: &impl MemoryMut, ack: &impl Memory, epoch: u64) -> u64 {
    // Relaxed: the fence orders it.
    data.store(data::WAITING, epoch, Ordering::Relaxed);
    // Pairs with the fence in Consumer::must_ring.
    data.fence(Ordering::SeqCst);
    // Relaxed: it only decides about sleep. The next push reads it again, with Acquire.
    ack.load(ack::CONSUMED, Ordering::Relaxed)
}

/// Announces that the sender no longer waits.
pub fn stop_waiting(data: &impl MemoryMut) {
    // Relaxed: if it is seen late, the receiver rings once for nothing.
    data.store(data::WAITING, 0, Ordering::Relaxed);
}
