//! A sender: an outbox with one destination.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::node_shared::Owned;
use crate::schema::Schema;
use crate::send::account::{Account, ReachedInbox};
use crate::send::dial::ConnectError;
use crate::send::error::{FlushError, LoanError, SendError};
use crate::send::loan::{Loan, LoanSlice, UnsentLoan};
use crate::send::outbox::{DEFAULT_SEND_TIMEOUT, Destination, Outbox};
use crate::send::rate::Rate;
use crate::send::returned::{Returned, ReturnedError};

/// How long a sender waits for its node to appear by default.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// Sets up a sender: [`crate::Node::sender_builder`].
#[derive(Debug)]
pub struct SenderBuilder<'n> {
    node: &'n Arc<Owned>,
    to: String,
    schema: Option<Schema>,
    wait: Duration,
    stamps_all: bool,
}

impl<'n> SenderBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, to: &str) -> Self {
        Self { node, to: to.to_owned(), schema: None, wait: DEFAULT_WAIT, stamps_all: false }
    }

    /// Says of what type the messages are. A node whose inbox is of another type is not reached ([`ConnectError::Mismatch`],
    /// [`SendError::Mismatch`]); one whose inbox has no type takes everything. By default the messages are bytes without a type, which
    /// only reach inboxes without one. See [`crate::Node::connect_of`], which also encodes.
    pub fn schema(self, schema: Schema) -> Self {
        Self { schema: Some(schema), ..self }
    }

    /// Has each message say when it was sent, as [`crate::PublisherBuilder::stamp_all`] does.
    pub fn stamp_all(self) -> Self {
        Self { stamps_all: true, ..self }
    }

    /// How long to wait for the node to appear, as in [`crate::Node::connect_timeout`]. By default 10 s.
    pub fn wait(self, limit: Duration) -> Self {
        Self { wait: limit, ..self }
    }

    /// Connects to the node. As [`crate::Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn open(self) -> Result<Sender, ConnectError> {
        let mut outbox = Outbox::new(self.node.clone());
        outbox.routes.stamp_all(self.stamps_all);
        let to = outbox.connect_as(&self.to, self.schema.as_ref(), self.wait)?;
        Ok(Sender::new(outbox, to))
    }

    /// Connects to the node, in a task. As [`crate::Node::connect_async`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn open_async(self) -> Result<Sender, ConnectError> {
        let mut outbox = Outbox::new(self.node.clone());
        outbox.routes.stamp_all(self.stamps_all);
        let to = outbox.connect_as_async(&self.to, self.schema.as_ref(), self.wait).await?;
        Ok(Sender::new(outbox, to))
    }
}

/// Sends to one node: [`crate::Node::connect`].
///
/// It is `Send`, and used by one thread at a time. What it sends arrives in order. Dropping it does not wait: what was
/// sent stays with the receiver.
pub struct Sender {
    pub(super) outbox: Outbox,
    pub(super) to: Destination,
    pub(super) timeout: Duration,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = &self.outbox.routes.list[self.to.0].to;
        f.debug_struct("Sender").field("node", &self.outbox.node.id).field("to", to).finish()
    }
}

impl Sender {
    pub(crate) fn new(outbox: Outbox, to: Destination) -> Self {
        Self { outbox, to, timeout: DEFAULT_SEND_TIMEOUT }
    }

    /// How long [`Sender::send`] waits for room. By default 1 s.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends a message, and waits for room up to the limit. See [`Outbox::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.outbox.send_timeout(self.to, payload, self.timeout)
    }

    /// Takes memory for a message, all zero, to be filled in place and then sent: see [`crate::Outbox::loan`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        self.outbox.loan(self.to, bytes)
    }

    /// The same without setting the bytes to zero, for those who write all of them: see [`crate::Outbox::loan_uninit`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_uninit(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        self.outbox.loan_uninit(self.to, bytes)
    }

    /// Takes memory for this many plain values, all zero: see [`crate::Outbox::loan_slice`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_slice<T>(&mut self, values: usize) -> Result<LoanSlice<T>, LoanError>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        self.outbox.loan_slice(self.to, values)
    }

    /// Sends a loan without copying it: see [`crate::Outbox::send_loan`].
    ///
    /// # Errors
    ///
    /// [`UnsentLoan`] has the loan, which was not sent.
    pub fn send_loan(&mut self, loan: impl Into<Loan>) -> Result<(), UnsentLoan> {
        self.outbox.send_loan(self.to, loan, self.timeout)
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

    /// Sends a message, and waits for room up to this limit. See [`Outbox::send_timeout`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.outbox.send_timeout(self.to, payload, timeout)
    }

    /// Waits until everything sent is processed, up to a limit.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), FlushError> {
        self.outbox.flush(timeout)
    }

    /// The longest message that the receiver takes, in bytes; `None` while it is gone. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError`] if it could not be looked up.
    pub fn max_message(&mut self) -> Result<Option<usize>, SendError> {
        self.outbox.max_message(self.to)
    }

    /// Whether the receiver is there, as far as is known without asking. See [`Outbox::is_connected`].
    pub fn is_connected(&self) -> bool {
        self.outbox.is_connected(self.to)
    }

    /// Limits how fast messages are sent; `None`: no limit.
    pub fn limit_rate(&mut self, rate: Option<Rate>) {
        self.outbox.limit_rate(self.to, rate);
    }

    /// How many messages were accepted for delivery. Does not block.
    pub fn sent(&mut self) -> u64 {
        self.account().accepted
    }

    /// How many messages the receiver has processed. Does not block.
    pub fn acknowledged(&mut self) -> u64 {
        self.account().processed
    }

    /// What happened to the messages. Does not block.
    pub fn account(&mut self) -> Account {
        self.outbox.account(self.to)
    }

    /// Marks an inbox as high from a part of its ring on. See [`Outbox::set_high_water`].
    pub fn set_high_water(&mut self, part: Option<f64>) {
        self.outbox.set_high_water(part);
    }

    /// The next inbox that has passed the high-water mark. See [`Outbox::next_high_water_change`].
    pub fn next_high_water_change(&mut self) -> Option<ReachedInbox> {
        self.outbox.next_high_water_change()
    }

    /// Lets this sender survive its receivers. See [`Outbox::set_redelivery`].
    pub fn set_redelivery(&mut self, limit: Option<Duration>) {
        self.outbox.set_redelivery(limit);
    }

    /// The messages that came back when the wait for a receiver was over. See [`Outbox::take_returned`].
    ///
    /// # Errors
    ///
    /// [`ReturnedError`]: the oldest were dropped.
    pub fn take_returned(&mut self) -> Result<Vec<Returned>, ReturnedError> {
        self.outbox.take_returned()
    }
}
