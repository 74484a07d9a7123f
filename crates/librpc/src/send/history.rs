//! What a publisher keeps of a topic for late subscriptions.
//!
//! Invariant: a new subscription gets what is kept when its route is found, before anything newer: its route is not used for a message
//! while something of that is left ([`crate::send::topics::TopicRoute::past`]). A message is kept once it was offered to all routes that were
//! known then. So each subscription gets each message once: as a past one, or as a new one.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::sys::slots::Slot;

/// A message that is kept.
#[derive(Clone, Debug)]
pub(crate) struct PastMessage {
    /// Empty if it is in a slot.
    pub(crate) payload: Arc<[u8]>,
    pub(crate) slot: OnceCell<Slot>,
}

impl PastMessage {
    fn bytes(&self) -> u64 {
        self.slot.get().map_or(self.payload.len() as u64, Slot::bytes)
    }
}

/// The last messages of a topic.
#[derive(Debug)]
pub(crate) struct History {
    messages: VecDeque<PastMessage>,
    /// How many messages and bytes there may be. The newest message is kept in any case.
    most: usize,
    most_bytes: u64,
    bytes: u64,
}

impl History {
    pub(crate) fn new(most: usize, most_bytes: u64) -> Self {
        Self { messages: VecDeque::new(), most, most_bytes, bytes: 0 }
    }

    /// Keeps a message that was offered.
    #[inline]
    pub(crate) fn add(&mut self, payload: &[u8]) {
        let former = if self.messages.len() >= self.most { self.pop() } else { None };
        // Most messages of a topic have one length: the memory of the one that is dropped serves for the next one.
        let mut memory = former.map_or_else(Arc::default, |message| message.payload);
        match Arc::get_mut(&mut memory) {
            Some(bytes) if bytes.len() == payload.len() => bytes.copy_from_slice(payload),
            _ => memory = payload.into(),
        }
        self.push(PastMessage { payload: memory, slot: OnceCell::new() });
    }

    /// Keeps a message whose payload is in a slot.
    pub(crate) fn add_slot(&mut self, slot: &Slot) {
        if self.messages.len() >= self.most {
            self.pop();
        }
        self.push(PastMessage { payload: [].into(), slot: slot.clone().into() });
    }

    fn push(&mut self, message: PastMessage) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
        while self.bytes > self.most_bytes && self.messages.len() > 1 {
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<PastMessage> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        Some(message)
    }

    /// The last ones, at most this many, oldest first.
    pub(crate) fn last(&self, most: usize) -> VecDeque<PastMessage> {
        self.messages.iter().skip(self.messages.len().saturating_sub(most)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(history: &History, most: usize) -> Vec<usize> {
        history.last(most).iter().map(|message| message.payload.len()).collect()
    }

    #[test]
    fn the_last_messages_are_kept_within_both_limits() {
        let mut history = History::new(3, 100);
        for bytes in [10, 20, 30, 40] {
            history.add(&vec![0; bytes]);
        }
        assert_eq!(lengths(&history, usize::MAX), [20, 30, 40]);
        assert_eq!(lengths(&history, 2), [30, 40]);
        assert_eq!(lengths(&history, 0), [0; 0]);
        history.add(&[0; 50]); // 120 bytes would be too many
        assert_eq!(lengths(&history, 3), [40, 50]);
        history.add(&[0; 500]); // the newest one in any case
        assert_eq!(lengths(&history, 3), [500]);
        history.add(&[0; 1]);
        assert_eq!(lengths(&history, 3), [1]);
    }

    #[test]
    fn memory_that_a_subscription_waits_for_is_not_written_again() {
        let mut history = History::new(1, 100);
        history.add(b"first");
        let past = history.last(1);
        history.add(b"other");
        assert_eq!((&*past[0].payload, &*history.last(1)[0].payload), (&b"first"[..], &b"other"[..]));
    }
}
