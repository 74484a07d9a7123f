//! Mode Latest: the sender never waits, and overwrites what the receiver may be reading.
//!
//! The ring is divided into eight *chunks*; no record is longer than one. Two words say what is being overwritten:
//!
//! ```text
//! sender: a record of n bytes at p                       receiver at r
//! if p + n + 8 > intent:                                 commit word (acquire), sequence number, payload: copied as
//!   intent ← p + n + 8, rounded up to chunks (release)   relaxed atomic words, not trusted yet
//!   release fence                                        acquire fence
//! sequence number, payload, zero word (relaxed)          load intent (acquire)
//! commit word (release)                                  intent ≤ r + capacity: the copy is whole. A zero commit word
//! if it is the first that begins in its chunk:             means empty, an invalid one means corrupt
//!   mark ← p (release)                                   otherwise: drop the copy, continue at mark (acquire)
//! ```
//!
//! Invariant: every byte that is being written lies before `intent`, and `intent − 3 chunks ≤ mark`, which is the beginning
//! of a record. So if the copy holds one word that was overwritten, the fences make the intent to do so visible. An overtaken
//! receiver finds a committed record at `mark`, with most of the ring before it. (A sender that makes it skip everything sets `mark` to
//! the end of the last record, and `intent` to a whole ring after that.) It has missed the messages between the two
//! sequence numbers.
//!
//! One call looks at most twice, whatever the sender does meanwhile. A sender that dies here leaves at worst an `intent`
//! ahead of what it has written. Then the receiver skips records that are still whole, and continues at others that are.

use std::sync::atomic::Ordering;

use crate::consumer::Consumer;
use crate::corrupt::Corrupt;
use crate::layout::{WORD, data};
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::racing::Racing;
use crate::record::{MIN_RECORD_BYTES, Record};

/// How often one call looks at the ring: at the next record and, if the receiver was overtaken, at the mark.
const LOOKS: usize = 2;
/// No position is greater than this one: a ring that moves 10 GB/s reaches it in 29 years.
const MAX_POSITION: u64 = u64::MAX / 2;

/// What the sender has announced to overwrite.
#[derive(Debug)]
pub(crate) struct Announced {
    chunk_bytes: u64,
    intent: u64,
    marked_chunk: u64,
    /// How often the receiver was made to skip everything.
    skips: u64,
}

impl Announced {
    pub(crate) fn new(capacity: u64, mode: Mode) -> Self {
        match mode {
            // One endless chunk, announced once.
            Mode::Lossless => Self { chunk_bytes: 1 << 63, intent: u64::MAX, marked_chunk: 0, skips: 0 },
            // The mark of the first chunk is zero, as the memory is.
            Mode::Latest => Self { chunk_bytes: capacity / 8, intent: 0, marked_chunk: 0, skips: 0 },
        }
    }

    /// Distinguishes the parts of the ring in which a declaration holds: chunks, and what follows a skip.
    #[inline(always)]
    pub(crate) fn part(&self, position: u64) -> u64 {
        self.chunk(position) | self.skips << 48
    }

    /// The number of the chunk that contains this position.
    #[inline(always)]
    fn chunk(&self, position: u64) -> u64 {
        position >> self.chunk_bytes.trailing_zeros()
    }

    /// A record at this position that ends past the returned one, including its zero word, needs an announcement or a mark.
    pub(crate) fn check_at(&self, position: u64) -> u64 {
        if self.chunk(position) != self.marked_chunk {
            return position;
        }
        // After a skip, the intent is a whole ring ahead. Each chunk needs its mark all the same.
        self.intent.min((self.marked_chunk + 1) * self.chunk_bytes)
    }

    /// Before a record is written: announces that everything before its end, including its zero word, may be overwritten.
    #[inline(always)]
    pub(crate) fn announce(&mut self, data: &impl MemoryMut, end: u64) {
        if end > self.intent {
            self.intent = end.next_multiple_of(self.chunk_bytes);
            // Release: pairs with the Acquire in Consumer::overtaken; the mark is at most 3 chunks older.
            data.store(data::INTENT, self.intent, Ordering::Release);
            // Release: pairs with the Acquire fence in Consumer::pop_latest; a reader of what is written next sees the intent.
            data.fence(Ordering::Release);
        }
    }

    /// A receiver that has not reached this position, the end of the last record, is to continue there.
    pub(crate) fn skip_to(&mut self, data: &impl MemoryMut, position: u64, capacity: u64) {
        self.skips += 1;
        // Release: pairs with the Acquire in Consumer::overtaken; there is a zero word or a committed record.
        data.store(data::MARK, position, Ordering::Release);
        self.intent = self.intent.max(position + capacity);
        // Release: pairs with the Acquire in Consumer::overtaken; the mark is there first.
        data.store(data::INTENT, self.intent, Ordering::Release);
        // Release: as in `announce`; a reader of what is written next to a lent payload sees the intent.
        data.fence(Ordering::Release);
    }

    /// After the record at this position was committed: announces that a receiver may continue here.
    #[inline(always)]
    pub(crate) fn mark(&mut self, data: &impl MemoryMut, position: u64) {
        if self.chunk(position) != self.marked_chunk {
            self.marked_chunk = self.chunk(position);
            // Release: pairs with the Acquire in Consumer::overtaken; the record is there first.
            data.store(data::MARK, position, Ordering::Release);
        }
    }
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// [`Consumer::pop`] in mode Latest.
    pub(crate) fn pop_latest(&mut self, into: &mut Vec<u8>) -> Result<Option<Record>, Corrupt> {
        let begin = into.len();
        for _ in 0..LOOKS {
            let data = Racing(&self.data);
            let at = self.word_at(self.position);
            let found = self.find(&data, at, self.commit_word(&data, at));
            let mut lent = None;
            if let Ok(Some(found)) = &found {
                data.read(found.payload_word, found.payload_bytes, into);
                lent = found.head.lent.then_some(found.sequence);
            }
            if let Some(sequence) = lent {
                self.hold(sequence);
                // Pairs with the fence in Claim::hold_words: the intent is seen below, or the hold there.
                self.ack.fence(Ordering::SeqCst);
            }
            // Acquire: pairs with the Release fence in Announced::announce; if any word of this was overwritten, it shows.
            self.data.fence(Ordering::Acquire);
            let overtaken = self.overtaken();
            if overtaken != Ok(None) {
                into.truncate(begin);
                if lent.is_some() {
                    self.let_go();
                }
            }
            let Some(mark) = overtaken? else {
                let Some(found) = found? else { return Ok(None) };
                return self.take(&found, &into[begin..]).inspect_err(|_| into.truncate(begin)).map(Some);
            };
            self.continue_at(mark);
        }
        Ok(None)
    }

    /// Where to continue if the words at the receiver's position may have been overwritten; `None` if they are whole.
    fn overtaken(&self) -> Result<Option<u64>, Corrupt> {
        let position = self.position;
        // Acquire: pairs with the Release in Announced::announce; a mark of one of the last chunks is visible.
        let intent = self.data.load(data::INTENT, Ordering::Acquire);
        if intent <= position + self.capacity() {
            return Ok(None);
        }
        // Acquire: pairs with the Release in Announced::mark; there is a committed record at the mark.
        let mark = self.data.load(data::MARK, Ordering::Acquire);
        if mark < position + MIN_RECORD_BYTES || mark > MAX_POSITION || !mark.is_multiple_of(WORD as u64) {
            return Err(Corrupt::Mark { position, intent, mark });
        }
        Ok(Some(mark))
    }

    /// Whether the sender has announced to overwrite the words at the receiver's position.
    #[cold]
    pub(crate) fn is_overtaken(&self) -> bool {
        // Acquire: pairs with the Release fence in Announced::announce, as in pop_latest.
        self.data.fence(Ordering::Acquire);
        // Relaxed: pop looks again, with Acquire.
        self.data.load(data::INTENT, Ordering::Relaxed) > self.position + self.capacity()
    }

    fn continue_at(&mut self, mark: u64) {
        // Each skipped message took at least as much room as the shortest record.
        self.may_miss += (mark - self.position) / MIN_RECORD_BYTES;
        self.position = mark;
    }
}
