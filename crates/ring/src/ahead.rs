//! A look at what is still to come, for a receiver that wants only the newest.
//!
//! The records after the receiver's position are walked, and nothing of them is taken. What the look says is a hint: in mode Latest they may
//! be overwritten meanwhile. A sender that lies makes the receiver pass over messages of its own, and nothing else.

use std::sync::atomic::Ordering;

use crate::consumer::Consumer;
use crate::layout::WORD;
use crate::memory::{Memory, MemoryMut};
use crate::mode::Mode;
use crate::racing::Racing;
use crate::record::{Commit, lap};

/// One look walks at most this many records.
const RECORDS: u32 = 1024;

/// What a look ahead has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ahead {
    /// Whether as many messages follow as were looked for.
    pub is_followed: bool,
    /// How many records were walked: the work of it.
    pub records: u32,
}

impl<D: Memory, A: MemoryMut> Consumer<D, A> {
    /// Looks whether at least this many messages of a topic follow the one that was taken last, as far as a look at 1,024 records shows.
    pub fn ahead(&self, messages: usize, topic: Option<u64>) -> Ahead {
        let data = Racing(&self.data);
        let (mut position, mut sequence, mut left) = (self.position, self.sequence, messages);
        let end = self.position + self.capacity();
        let mut records = 0;
        while records < RECORDS {
            if left == 0 || position + WORD as u64 > end {
                break;
            }
            let at = self.word_at(position);
            let word = self.commit_word(&data, at);
            let Some(commit) = Commit::decode(word, lap(position, self.capacity())) else { break };
            if commit.record_bytes() > self.max_record_bytes() || data.get(at + 1) != sequence {
                break;
            }
            let mut optional = at + 2;
            let head = commit.head(|| {
                optional += 1;
                data.get(optional - 1)
            });
            if head.kind.is_counted() {
                sequence += 1;
                left -= usize::from(head.topic == topic);
            }
            position += commit.record_bytes();
            records += 1;
        }
        if self.mode() == Mode::Latest {
            // Acquire: pairs with the Release fence in Announced::announce, as in pop_latest.
            self.data.fence(Ordering::Acquire);
            return Ahead { is_followed: left == 0 && !self.is_overtaken(), records };
        }
        Ahead { is_followed: left == 0, records }
    }
}
