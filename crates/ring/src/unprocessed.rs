//! The messages that a receiver left unprocessed when it was gone, as its sender finds them in its own ring.
//!
//! ```text
//!        consumed             taken                committed
//! ───────────┼──────────────────┼──────────────────────┼────────▶ position
//!  processed │ in work: flagged │ never handed out     │
//! ```
//!
//! Invariant: a message that may have been handed out and is not consumed is flagged as redelivered. The receiver
//! stores `taken` before a message leaves [`crate::Consumer::pop`]. So at whichever instruction it dies, every message
//! that was handed out is before `taken`.
//!
//! A receiver may also be gone while its process lives, because its inbox was closed. Then `taken` must no longer move
//! once the sender reads it. Ensuring that is the receiver's part of the agreement:
//!
//! ```text
//! receiver                                  the thread that closes the inbox       sender
//! pop: taken ← end                          ended ← true
//! fence                                     fence                                  sees the hang-up
//! ended? do not hand it out: untake         hang up                                reads taken: unprocessed
//! ```
//!
//! Either the receiver sees the end, or the sender sees `taken`. What is not handed out is taken back, so that the receiver
//! cannot say later that it is processed. Both fences may be one barrier of the closing thread
//! (`membarrier`), which spares the receiver its own: [`crate::Consumer::pop`] keeps the order in the program.

use std::sync::atomic::Ordering;

use crate::counters::settled;
use crate::layout::ack;
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::producer::Producer;
use crate::record::{Commit, Head, lap};

impl<D: MemoryMut, A: Memory> Producer<D, A> {
    /// Calls `each` with every message that the receiver has not processed, in order: its head, its number, its payload.
    /// Messages that may have been handed out are flagged as redelivered. Returns how many further messages cannot be found,
    /// because the position that the receiver claims is not the beginning of a record: 0 if the receiver was honest.
    ///
    /// Call it when the receiver is gone. In mode Latest nothing is kept.
    pub fn unprocessed(&mut self, mut each: impl FnMut(Head, u64, &[u8])) -> u64 {
        if self.mode == Mode::Latest {
            return 0;
        }
        let before = self.depth.cached_consumed;
        let claimed = self.consumed().ok();
        let Some(begin) = claimed.into_iter().chain([before]).find(|&begin| self.walk(begin, |_, _| {})) else {
            return self.counters.messages.saturating_sub(settled(&self.ack));
        };
        // Relaxed: the receiver is gone, and the caller knows that from the kernel.
        let taken = match self.ack.load(ack::TAKEN, Ordering::Relaxed) {
            taken if claimed == Some(begin) && taken >= begin => taken,
            // The receiver's words contradict each other: it may have handed out anything.
            _ => u64::MAX,
        };
        let mut payload = Vec::new();
        self.walk(begin, |position, commit| {
            let at = self.word_at(position);
            let mut word = at + 2;
            let head = commit.head(|| {
                word += 1;
                self.data.get(word - 1)
            });
            if head.kind.is_counted() {
                payload.clear();
                self.data.read(word, commit.payload_bytes, &mut payload);
                let redelivered = head.redelivered || position < taken;
                each(Head { redelivered, ..head }, self.data.get(at + 1), &payload);
            }
        });
        0
    }

    /// Goes through our own records from a position to the last one. Returns `false` if no record begins at the
    /// position. The words at a false position may belong to a payload, so they may have any value.
    fn walk(&self, begin: u64, mut each: impl FnMut(u64, Commit)) -> bool {
        let (mut position, mut sequence) = (begin, None);
        while position < self.counters.committed {
            let at = self.word_at(position);
            let (word, found) = (self.data.get(at), self.data.get(at + 1));
            let Some(commit) = Commit::decode(word, lap(position, self.capacity)) else { return false };
            if sequence.is_some_and(|expected| found != expected) {
                return false;
            }
            let Some(next) = found.checked_add(u64::from(commit.kind.is_counted())) else { return false };
            sequence = Some(next);
            each(position, commit);
            position += commit.record_bytes();
        }
        position == self.counters.committed && sequence.is_none_or(|next| next == self.sequence())
    }
}
