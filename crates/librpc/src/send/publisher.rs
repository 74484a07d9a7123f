//! A publisher: an outbox with one topic.

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::send::account::{Account, ReachedInbox};
use crate::send::error::FlushError;
use crate::send::error::{LoanError, PublishError};
use crate::send::loan::{Loan, LoanSlice, UnsentLoan};
use crate::send::outbox::{DEFAULT_SEND_TIMEOUT, Outbox};
use crate::send::publish::Receipt;
use crate::send::rate::Rate;
use crate::send::returned::{Returned, ReturnedError};
use crate::send::topics::Topic;

/// Publishes on one topic: [`crate::Node::publisher`].
///
/// It is `Send`, and used by one thread at a time. Each subscription gets what it publishes in order.
#[derive(Debug)]
pub struct Publisher {
    pub(super) outbox: Outbox,
    pub(super) topic: Topic,
    pub(super) timeout: Duration,
}

impl Publisher {
    pub(crate) fn new(outbox: Outbox, topic: Topic) -> Self {
        Self { outbox, topic, timeout: DEFAULT_SEND_TIMEOUT }
    }

    /// How long [`Publisher::publish`] waits for full inboxes, all together. By default 1 s.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Publishes a message, and waits for full inboxes up to the limit. See [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.outbox.publish_timeout(self.topic, payload, self.timeout)
    }

    /// Takes memory for a message, all zero, to be filled in place and then published: see [`crate::Outbox::loan`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        self.outbox.loan(self.topic, bytes)
    }

    /// The same without setting the bytes to zero, for those who write all of them: see [`crate::Outbox::loan_uninit`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_uninit(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        self.outbox.loan_uninit(self.topic, bytes)
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
        self.outbox.loan_slice(self.topic, values)
    }

    /// Publishes a loan without copying it: see [`crate::Outbox::publish_loan`].
    ///
    /// # Errors
    ///
    /// [`UnsentLoan`] has the loan, if no subscription got it.
    pub fn publish_loan(&mut self, loan: impl Into<Loan>) -> Result<Receipt<'_>, UnsentLoan<PublishError>> {
        self.outbox.publish_loan(self.topic, loan, self.timeout)
    }

    /// Publishes a message to those inboxes that have room. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.outbox.publish_timeout(self.topic, payload, Duration::ZERO)
    }

    /// Publishes a message, and waits for full inboxes up to this limit. See [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    #[inline]
    pub fn publish_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<Receipt<'_>, PublishError> {
        self.outbox.publish_timeout(self.topic, payload, timeout)
    }

    /// Waits until everything published is processed, up to a limit.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed, each counted once per inbox.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), FlushError> {
        self.outbox.flush(timeout)
    }

    /// How many subscriptions want the topic just now. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn subscribers(&mut self) -> Result<usize, PublishError> {
        self.outbox.subscribers(self.topic)
    }

    /// Waits up to a limit until a subscription wants the topic. `false`: the time is up.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn wait_for_subscriber(&mut self, timeout: Duration) -> Result<bool, PublishError> {
        self.outbox.wait_for_subscriber(self.topic, timeout)
    }

    /// Limits how fast messages are published; `None`: no limit.
    pub fn limit_rate(&mut self, rate: Option<Rate>) {
        self.outbox.limit_topic_rate(self.topic, rate);
    }

    /// The longest message that every subscription takes, in bytes; `None`: there is no subscription. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn max_message(&mut self) -> Result<Option<usize>, PublishError> {
        self.outbox.max_topic_message(self.topic)
    }

    /// What happened to the messages, each counted once per inbox. Does not block.
    pub fn account(&mut self) -> Account {
        self.outbox.total()
    }

    /// Marks an inbox as high from a part of its ring on. See [`Outbox::set_high_water`].
    pub fn set_high_water(&mut self, part: Option<f64>) {
        self.outbox.set_high_water(part);
    }

    /// The next inbox that has passed the high-water mark. See [`Outbox::next_high_water_change`].
    pub fn next_high_water_change(&mut self) -> Option<ReachedInbox> {
        self.outbox.next_high_water_change()
    }

    /// Every inbox that this publisher reaches. See [`Outbox::inboxes`].
    pub fn inboxes(&mut self) -> Vec<ReachedInbox> {
        self.outbox.inboxes()
    }

    /// Lets this publisher survive its receivers. See [`Outbox::set_redelivery`].
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
