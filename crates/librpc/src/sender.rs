//! A sender: an outbox with one destination.

use std::time::Duration;

use crate::outbox::{DEFAULT_SEND_LIMIT, Destination, FlushError, Outbox, SendError};

/// Sends to one node: [`crate::Node::sender`].
///
/// It is `Send`, and used by one thread at a time. What it sends arrives in order. Dropping it does not wait: what was
/// sent stays with the receiver.
#[derive(Debug)]
pub struct Sender {
    outbox: Outbox,
    to: Destination,
    limit: Duration,
}

impl Sender {
    pub(crate) fn new(outbox: Outbox, to: Destination) -> Self {
        Self { outbox, to, limit: DEFAULT_SEND_LIMIT }
    }

    /// How long [`Sender::send`] waits for room. By default 1 s.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Sends a message, and waits for room up to the limit. See [`Outbox::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.outbox.send_within(self.to, payload, self.limit)
    }

    /// Sends a message if there is room. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.outbox.try_send(self.to, payload)
    }

    /// Waits until everything sent is processed, up to a limit.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed.
    pub fn flush(&mut self, limit: Duration) -> Result<(), FlushError> {
        self.outbox.flush(limit)
    }

    /// The longest message that the receiver takes, in bytes; `None` while it is gone.
    pub fn max_message(&self) -> Option<usize> {
        self.outbox.max_message(self.to)
    }

    /// Whether the receiver is there, as far as is known without asking. See [`Outbox::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.outbox.is_connected(self.to)
    }

    /// How many messages were sent.
    pub fn sent(&mut self) -> u64 {
        self.outbox.progress(self.to).sent
    }

    /// How many messages the receiver has processed. Does not block.
    pub fn acknowledged(&mut self) -> u64 {
        self.outbox.progress(self.to).acknowledged
    }
}
