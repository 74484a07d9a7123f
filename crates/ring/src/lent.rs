//! Payloads that are lent: they are in memory of the sender's outside of the ring, and the ring says where.
//!
//! Invariant: the sender leaves a lent payload as it is for as long as its record is unconsumed, or a *hold word* of the receiver
//! names the record. So no counter is shared, and each word has one writer:
//!
//! ```text
//! receiver                                          sender: may the memory be used again?
//! pop: hold 0 ← number + 1                          consumed (acquire): not past the record: no
//! to keep the payload: hold i ← number + 1,         hold 0, then the words in use, in order (acquire):
//!                      hold 0 ← 0 (release)           one names the record: no
//! consumed ← position (release)                     otherwise: yes
//! later, in any thread: hold i ← 0 (release)
//! ```
//!
//! A sender that sees the record consumed also sees what holds it, because that was stored before. In mode Latest a record may be
//! overwritten instead of being consumed, and the two sides meet as in `waking.rs`: the receiver stores the hold, fences, and
//! looks at the intent once more; the sender has stored the intent, fences, and looks at the holds. Either the receiver finds that it
//! was overtaken, and gives the payload back unread, or the sender finds the hold.
//!
//! A receiver that dies leaves its words as they are. The sender learns from the kernel that nobody maps the memory any more.

use std::sync::atomic::Ordering;

use crate::consumer::Consumer;
use crate::fault::fault;
use crate::layout::{ack, data};
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::producer::Producer;
use crate::push_error::PushError;
use crate::record::{Head, Lent};

/// A record that was committed with a lent payload: what the payload's memory waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The number of its message.
    pub sequence: u64,
    /// The positions at which it begins and ends.
    pub begin: u64,
    /// See `begin`.
    pub end: u64,
    mode: Mode,
    capacity: u64,
}

impl Claim {
    /// Whether the receiver, whose ack memory this is, is done with the record: consumed it, or was overtaken in mode Latest.
    /// It may still hold the payload.
    pub fn is_consumed(&self, data: &impl Memory, ack: &impl Memory) -> bool {
        // Acquire: pairs with the Release in Consumer::consume; what holds the payload is seen below.
        ack.load(ack::CONSUMED, Ordering::Acquire) >= self.end
            // Relaxed: this side's own word.
            || self.mode == Mode::Latest && data.load(data::INTENT, Ordering::Relaxed) > self.begin + self.capacity
    }

    /// Whether the payload's memory may be used again, as far as this receiver is concerned. To be called by the thread that
    /// pushes. Any value that a peer claims only harms what was sent to that peer.
    pub fn is_released(&self, data: &impl Memory, ack: &impl Memory) -> bool {
        if !self.is_consumed(data, ack) {
            return false;
        }
        self.hold_words(data, ack).is_some_and(|mut words| words.all(|word| word != self.hold_word()))
    }

    /// What a hold word says that holds the payload.
    fn hold_word(&self) -> u64 {
        self.sequence.wrapping_add(1)
    }

    /// The receiver's hold words that are in use, each looked at once. `None`: they are not there yet.
    fn hold_words(&self, data: &impl Memory, ack: &impl Memory) -> Option<impl Iterator<Item = u64>> {
        if self.mode == Mode::Latest {
            // A receiver that has answered may hold what was overwritten, before this side looks at its memory instead of zeros.
            if ack.get(ack::MAGIC) == 0 {
                return None;
            }
            // Pairs with the fence in Consumer::pop_latest: the hold is seen here, or the intent there.
            data.fence(Ordering::SeqCst);
        }
        // Acquire, here and below: pairs with the Release in Consumer::keep and `release`; the receiver has finished reading
        // what it no longer holds. A hold that moves is seen in its old place or in its new one, because the old one is
        // looked at before.
        let in_use = || ack.load(ack::HOLDS_USED, Ordering::Acquire).min(ack::HOLD_WORDS as u64) as usize;
        let mut used = in_use();
        Some((0..ack::HOLD_WORDS).map_while(move |hold| {
            if hold == 1 {
                used = in_use();
            }
            (hold < used).then(|| ack.load(ack::HOLDS + hold, Ordering::Acquire))
        }))
    }
}

/// What a receiver holds, as of one look at it: for senders that lend it much.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    /// Its hold words, in order. `None`: it has not answered, so it may hold anything.
    words: Option<Vec<u64>>,
}

impl Holds {
    /// Looks at the receiver to which a message was pushed. Each of its words is read once. To be called by the thread that pushes.
    pub fn of_receiver(claim: &Claim, data: &impl Memory, ack: &impl Memory) -> Self {
        let words = claim.hold_words(data, ack).map(|words| {
            let mut words: Vec<u64> = words.collect();
            words.sort_unstable();
            words
        });
        Self { words }
    }

    /// Whether the payload of a message to that receiver, which had been consumed before the look, is held. If not, it is released.
    pub fn holds(&self, claim: &Claim) -> bool {
        self.words.as_ref().is_none_or(|words| words.binary_search(&claim.hold_word()).is_ok())
    }
}

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// [`Producer::push`] of a message whose payload is lent. The payload, and the memory's hand-over to the receiver, must be
    /// complete.
    ///
    /// # Errors
    ///
    /// [`PushError`]: nothing was written.
    pub fn push_lent(&mut self, head: Head, lent: &Lent) -> Result<Claim, PushError> {
        let begin = self.committed();
        // Counted before it is published, as any message is: here what the ring does not have.
        let more = lent.bytes.wrapping_sub(Lent::BYTES as u64);
        self.counters.bytes = self.counters.bytes.wrapping_add(more);
        let pushed = self.push(Head { lent: true, ..head }, &lent.encode());
        if pushed.is_err() {
            self.counters.bytes = self.counters.bytes.wrapping_sub(more);
        }
        let (end, mode, capacity) = (self.committed(), self.mode(), self.capacity());
        Ok(Claim { sequence: pushed?, begin, end, mode, capacity })
    }

    /// Mode Latest: the receiver is to skip every message that it has not taken yet, as if they had been overwritten. Their
    /// payloads' memory may be used again, unless the receiver holds it. Topics must be declared again: [`Producer::chunk`]
    /// changes.
    pub fn skip_all(&mut self) {
        if self.mode() == Mode::Latest {
            self.announced.skip_to(&self.data, self.counters.committed, self.capacity);
        }
    }
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Holds the payload of the message of this number, which is being popped.
    pub(crate) fn hold(&mut self, sequence: u64) {
        self.use_holds(1);
        // Release: as in `keep`.
        self.ack.store(ack::HOLDS, sequence + 1, Ordering::Release);
    }

    /// The payload that was popped last is of no further use, or was copied.
    pub fn let_go(&mut self) {
        release(&self.ack, 0);
    }

    /// Whether [`Consumer::keep`] would keep one payload more.
    pub fn can_keep(&self) -> bool {
        self.free_hold().is_some()
    }

    /// Keeps the payload that was popped last, until [`release`] is called with the returned number, in any thread. `None`: too
    /// many are kept. The message must not be consumed yet.
    pub fn keep(&mut self) -> Option<usize> {
        let hold = self.free_hold()?;
        // Relaxed: this side's own word.
        let held = self.ack.load(ack::HOLDS, Ordering::Relaxed);
        debug_assert!(held != 0, "a payload was popped, and not let go");
        self.use_holds(hold as u64 + 1);
        // Release: pairs with the Acquire in Claim::hold_words. What another thread has read from the payload that this word
        // held before is read, because `free_hold` has seen it released.
        self.ack.store(ack::HOLDS + hold, held, Ordering::Release);
        fault!("hold.kept");
        release(&self.ack, 0);
        Some(hold)
    }

    fn free_hold(&self) -> Option<usize> {
        // Acquire: pairs with the Release in `release`.
        (1..ack::HOLD_WORDS).find(|hold| self.ack.load(ack::HOLDS + hold, Ordering::Acquire) == 0)
    }

    /// Announces that this many hold words are in use.
    fn use_holds(&mut self, holds: u64) {
        if self.holds_used < holds {
            self.holds_used = holds;
            // Release: pairs with the Acquire in Claim::hold_words, as the hold itself, which is stored afterwards.
            self.ack.store(ack::HOLDS_USED, holds, Ordering::Release);
        }
    }
}

/// A payload that was kept is no longer needed. In the process that keeps it, in any thread.
pub fn release(ack: &impl MemoryMut, hold: usize) {
    // Release: pairs with the Acquire in Claim::hold_words and Consumer::free_hold; the payload was read before.
    ack.store(ack::HOLDS + hold, 0, Ordering::Release);
}

/// How many payloads the receiver holds, whoever has written its memory.
pub fn held(ack: &impl Memory) -> usize {
    // Relaxed: a number to look at.
    let used = ack.load(ack::HOLDS_USED, Ordering::Relaxed).min(ack::HOLD_WORDS as u64) as usize;
    (0..used).filter(|hold| ack.load(ack::HOLDS + hold, Ordering::Relaxed) != 0).count()
}
