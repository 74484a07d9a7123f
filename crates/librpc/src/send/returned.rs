//! Messages that came back when the wait for their receivers was over, until the application takes them.
//!
//! They are bounded, because an application may never take them. The messages of one wait are kept complete; older
//! messages are dropped to make room for them, and counted.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::text::counted;

/// At most this many messages and bytes of payload are kept from one wait to the next.
const MAX_MESSAGES: usize = 65_536;
const MAX_BYTES: usize = 64 << 20;

/// A message that came back: [`crate::Outbox::take_returned`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// The node that it was for.
    pub node: Arc<str>,
    /// Its topic; empty if it was sent to the node itself.
    pub topic: Arc<str>,
    /// Its number, as in [`crate::Message::sequence`].
    pub sequence: u64,
    /// Whether the receiver was given it, and may have processed it.
    pub was_in_work: bool,
    /// What was sent.
    pub payload: Box<[u8]>,
}

/// Why messages that came back cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnedError {
    /// The outbox has dropped the oldest to make room for newer ones. Reported once; the next call returns the rest.
    #[error("{} dropped: nobody took them, and newer ones needed the room", counted(*messages, "returned message was", "returned messages were"))]
    Dropped {
        /// How many.
        messages: u64,
    },
    /// The outbox was made before a fork, and belongs to the parent.
    #[error("this outbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
}

/// The messages that the application has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct ReturnedMessages {
    list: VecDeque<Returned>,
    bytes: usize,
    dropped: u64,
}

impl ReturnedMessages {
    /// Adds what has come back.
    pub(crate) fn add(&mut self, came_back: Vec<Returned>) {
        let (messages, bytes) = (came_back.len(), payload_bytes(&came_back));
        while self.list.len() + messages > MAX_MESSAGES || self.bytes + bytes > MAX_BYTES {
            let Some(oldest) = self.list.pop_front() else { break };
            self.bytes -= oldest.payload.len();
            self.dropped += 1;
        }
        self.bytes += bytes;
        self.list.extend(came_back);
    }

    /// Takes everything, or reports what was dropped.
    pub(crate) fn take(&mut self) -> Result<Vec<Returned>, ReturnedError> {
        match std::mem::take(&mut self.dropped) {
            0 => {
                self.bytes = 0;
                Ok(std::mem::take(&mut self.list).into())
            }
            messages => Err(ReturnedError::Dropped { messages }),
        }
    }
}

fn payload_bytes(messages: &[Returned]) -> usize {
    messages.iter().map(|returned| returned.payload.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returned(sequences: std::ops::Range<u64>, bytes: usize) -> Vec<Returned> {
        let one = |sequence| {
            let (node, topic, payload) = ("node".into(), "".into(), vec![0; bytes].into());
            Returned { node, topic, sequence, was_in_work: false, payload }
        };
        sequences.map(one).collect()
    }

    #[test]
    fn over_the_bounds_the_oldest_are_dropped_and_counted() {
        let mut messages = ReturnedMessages::default();
        messages.add(returned(0..MAX_MESSAGES as u64, 1));
        messages.add(returned(MAX_MESSAGES as u64..MAX_MESSAGES as u64 + 10, 1));
        assert_eq!(messages.take(), Err(ReturnedError::Dropped { messages: 10 }));
        let taken = messages.take().unwrap();
        assert_eq!((taken.len(), taken[0].sequence), (MAX_MESSAGES, 10), "in order, and reported once");
        messages.add(returned(0..3, MAX_BYTES / 2));
        assert_eq!(messages.take().unwrap().len(), 3, "what came back at once is whole");
        messages.add(returned(0..3, MAX_BYTES / 4));
        messages.add(returned(3..5, MAX_BYTES / 4));
        assert_eq!(messages.take(), Err(ReturnedError::Dropped { messages: 1 }));
        assert_eq!(messages.take().unwrap().len(), 4);
        assert_eq!(messages.take().unwrap(), []);
    }
}
