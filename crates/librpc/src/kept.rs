//! How many messages the outboxes of a node keep for receivers that are gone: the node's close waits for them.
//!
//! The messages belong to their outboxes. Only these can deliver them, so this is just a count.

use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::sync::{Condvar, Mutex};

/// A count of messages that wait for their receivers.
#[derive(Debug)]
pub(crate) struct KeptCount {
    messages: Mutex<u64>,
    fell: Condvar,
    born: fork::Born,
}

impl KeptCount {
    pub(crate) fn new() -> Self {
        Self { messages: Mutex::default(), fell: Condvar::default(), born: fork::Born::now() }
    }

    pub(crate) fn add(&self, messages: u64) {
        if self.born.is_here() {
            *self.messages.lock() += messages;
        }
    }

    pub(crate) fn remove(&self, messages: u64) {
        // In a forked child the lock may be held by a thread that does not exist there.
        if messages > 0 && self.born.is_here() {
            *self.messages.lock() -= messages;
            self.fell.notify_all();
        }
    }

    /// Waits until no more messages are kept, up to a deadline. Returns how many still are.
    pub(crate) fn wait_for_none(&self, deadline: Option<Instant>) -> u64 {
        let mut messages = self.messages.lock();
        while *messages > 0 {
            messages = match deadline {
                None => self.fell.wait_while(messages, |messages| *messages > 0),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    None => break,
                    Some(left) => self.fell.wait_timeout_while(messages, left, |messages| *messages > 0),
                },
            };
        }
        *messages
    }
}
