//! A publisher: an outbox with one topic.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::node_shared::Owned;
use crate::schema::{Schema, SchemaMismatch};
use crate::send::account::{Account, ReachedInbox};
use crate::send::error::{FlushError, LoanError, PublishError, SendError};
use crate::send::history::History;
use crate::send::latched::Latch;
use crate::send::loan::{Loan, LoanSlice, UnsentLoan};
use crate::send::outbox::{DEFAULT_SEND_TIMEOUT, Outbox};
use crate::send::publish::Receipt;
use crate::send::rate::Rate;
use crate::send::returned::{Returned, ReturnedError};
use crate::send::topics::Topic;
use crate::sys::clock::Instant;
use crate::sys::thread;
use crate::topic::InvalidTopic;

/// How long a publisher that never waits for room waits for a receiver that answers, or maps new memory.
pub(crate) const LENDING_GRACE: Duration = Duration::from_millis(10);
/// How many bytes of messages a publisher keeps by default.
const DEFAULT_HISTORY_BYTES: u64 = 64 << 20;
/// How long a flush keeps the lock at once, and how long it leaves it to the background thread.
const FLUSHED_AT_ONCE: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_millis(1);

/// Sets up a publisher: [`crate::Node::publisher_builder`].
#[derive(Debug)]
pub struct PublisherBuilder<'n> {
    node: &'n Arc<Owned>,
    topic: String,
    history: usize,
    history_bytes: u64,
    schema: Option<Schema>,
    timeout: Duration,
    stamps_all: bool,
    lending_grace: Duration,
}

impl<'n> PublisherBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, topic: &str) -> Self {
        let (history_bytes, timeout) = (DEFAULT_HISTORY_BYTES, DEFAULT_SEND_TIMEOUT);
        Self {
            node,
            topic: topic.to_owned(),
            history: 0,
            history_bytes,
            schema: None,
            timeout,
            stamps_all: false,
            lending_grace: Duration::ZERO,
        }
    }

    /// Never waits for a subscription: a message for which an inbox has no room just now is not delivered there, and the receipt says so
    /// ([`SendError::Full`]). For cameras and other sources that must keep their rate whatever their viewers do. By default a publish
    /// waits for full inboxes up to 1 s, so one that is slow, but gets on, slows the publisher down. See [`Publisher::set_timeout`].
    ///
    /// It does wait up to 10 ms for a new inbox that is to get a large payload, and for inboxes that are mapping new memory for large payloads:
    /// a few times in the life of a publisher. One that has not answered by then misses messages until it has ([`SendError::Unanswered`]).
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_never_waits_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (camera, viewer) = (open("camera")?, open("viewer")?);
    /// let slow = viewer.subscriber_builder(["camera/front"]).capacity(4096).open()?;
    /// let mut publisher = camera.publisher_builder("camera/front").never_waits().open()?;
    /// let delivered = (0..1000).map(|_| publisher.publish(b"a frame").map(|receipt| receipt.inboxes())).sum::<Result<usize, _>>();
    /// assert!(delivered? < 1000, "the ring of 4,096 bytes is full");
    /// # drop(slow);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn never_waits(self) -> Self {
        Self { timeout: Duration::ZERO, lending_grace: LENDING_GRACE, ..self }
    }

    /// For tests on a machine that is busy: how long a publisher that never waits waits for receivers that answer, or map new memory.
    #[cfg(test)]
    pub(crate) fn lending_grace(self, grace: Duration) -> Self {
        Self { lending_grace: grace, ..self }
    }

    /// Keeps the last messages of the topic, this many, for subscriptions that are opened later. By default 0: none.
    ///
    /// A late subscription gets them before anything newer, also while nothing is published: in order, each once, and marked
    /// ([`crate::Message::is_past`]). It may ask for fewer ([`crate::InboxBuilder::history`]). What is kept ends with the publisher, and
    /// each publisher of a topic keeps its own. A publish copies its payload once more then, and takes about a fifth longer.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_history_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// # let (robot, display) = (open("robot")?, open("display")?);
    /// let mut publisher = robot.publisher_builder("map").history(1).open()?;
    /// assert_eq!(publisher.publish(b"a map")?.inboxes(), 0); // nobody is there
    /// let mut maps = display.subscribe("map")?;
    /// let map = maps.recv()?.expect("nobody stops this inbox");
    /// assert_eq!((map.payload(), map.is_past()), (&b"a map"[..], true));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn history(self, messages: usize) -> Self {
        Self { history: messages, ..self }
    }

    /// Keeps at most this many bytes of payloads, by default 64 MiB. The newest message is kept in any case. Large payloads stay in the
    /// node's memory for payloads ([`crate::Limits::payload_bytes`]), of which at most half is used for this.
    pub fn history_bytes(self, bytes: u64) -> Self {
        Self { history_bytes: bytes, ..self }
    }

    /// Has each message say when it was sent ([`crate::Message::sent_at`]). By default about one in 64 does. Reading the clock adds some 20 to 30
    /// ns to each inbox's message.
    pub fn stamp_all(self) -> Self {
        Self { stamps_all: true, ..self }
    }

    /// Says of what type the messages are. Subscriptions of another type are not reached ([`SendError::Mismatch`],
    /// [`Publisher::mismatches`]); those without a type take everything. By default the messages are bytes without a type, which only
    /// reach subscriptions without one. See [`crate::Node::publisher_of`], which also encodes.
    pub fn schema(self, schema: Schema) -> Self {
        Self { schema: Some(schema), ..self }
    }

    /// Opens the publisher. Does not block.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`].
    pub fn open(self) -> Result<Publisher, InvalidTopic> {
        let Self { node, topic, history, history_bytes, schema, timeout, stamps_all, lending_grace } = self;
        let mut outbox = Outbox::new(node.clone());
        outbox.routes.stamp_all(stamps_all);
        outbox.routes.lending_grace = lending_grace;
        let topic = outbox.topics.declare(&topic, schema)?;
        let handle = match history {
            0 => Handle::Own(outbox),
            most => {
                let most_bytes = history_bytes.min(outbox.routes.payload_bytes() / 2);
                outbox.topics.list[topic.0].history = Some(Box::new(History::new(most, most_bytes)));
                Handle::Latched(Latch::new(outbox, topic))
            }
        };
        Ok(Publisher { handle, topic, timeout, undelivered: Vec::new() })
    }
}

/// How a publisher has its outbox.
#[expect(
    clippy::large_enum_variant,
    reason = "most publishers have an outbox of their own, and each publish looks at it"
)]
pub(super) enum Handle {
    Own(Outbox),
    /// It has a history, and shares the outbox with the background thread.
    Latched(Latch),
}

impl Handle {
    /// `None`: it belongs to the process that forked this one.
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        match self {
            Self::Own(outbox) => Some(act(outbox)),
            Self::Latched(latch) => latch.with(act),
        }
    }
}

/// Publishes on one topic: [`crate::Node::publisher`].
///
/// It is `Send`, and used by one thread at a time. Each subscription gets what it publishes in order.
pub struct Publisher {
    pub(super) handle: Handle,
    pub(super) topic: Topic,
    pub(super) timeout: Duration,
    /// What the last publish did not deliver, if the outbox is shared.
    pub(super) undelivered: Vec<SendError>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, topic) = match &self.handle {
            Handle::Own(outbox) => (&outbox.node.id, outbox.topics.list[self.topic.0].name.name()),
            Handle::Latched(latch) => latch.names(),
        };
        f.debug_struct("Publisher").field("node", node).field("topic", topic).finish()
    }
}

impl Publisher {
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
        self.publish_timeout(payload, self.timeout)
    }

    /// Publishes a message to those inboxes that have room. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.publish_timeout(payload, Duration::ZERO)
    }

    /// Publishes a message, and waits for full inboxes up to this limit. See [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    #[inline]
    pub fn publish_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<Receipt<'_>, PublishError> {
        let topic = self.topic;
        let inboxes = match &mut self.handle {
            Handle::Own(outbox) => outbox.publish_plain(topic, payload),
            Handle::Latched(latch) => latch.publish_plain(topic, payload),
        };
        match inboxes {
            Some(inboxes) => Ok(Receipt::new(inboxes, 0, &[])),
            None => self.publish_fully(payload, timeout),
        }
    }

    #[cold]
    #[inline(never)]
    fn publish_fully(&mut self, payload: &[u8], timeout: Duration) -> Result<Receipt<'_>, PublishError> {
        let Self { handle, topic, undelivered, .. } = self;
        match handle {
            Handle::Own(outbox) => {
                let inboxes = outbox.publish_fully(*topic, payload, timeout)?;
                Ok(Receipt::new(inboxes, outbox.pending, &outbox.undelivered))
            }
            Handle::Latched(latch) => latch.publish_fully(*topic, payload, timeout, undelivered),
        }
    }

    /// Takes memory for a message, all zero, to be filled in place and then published: see [`crate::Outbox::loan`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.loan(topic, bytes)).unwrap_or(Err(LoanError::Forked))
    }

    /// The same without setting the bytes to zero, for those who write all of them: see [`crate::Outbox::loan_uninit`].
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_uninit(&mut self, bytes: usize) -> Result<Loan, LoanError> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.loan_uninit(topic, bytes)).unwrap_or(Err(LoanError::Forked))
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
        let topic = self.topic;
        self.handle.with(|outbox| outbox.loan_slice(topic, values)).unwrap_or(Err(LoanError::Forked))
    }

    /// Publishes a loan without copying it: see [`crate::Outbox::publish_loan`].
    ///
    /// # Errors
    ///
    /// [`UnsentLoan`] has the loan, if no subscription got it.
    pub fn publish_loan(&mut self, loan: impl Into<Loan>) -> Result<Receipt<'_>, UnsentLoan<PublishError>> {
        let Self { handle, topic, timeout, undelivered } = self;
        match handle {
            Handle::Own(outbox) => outbox.publish_loan(*topic, loan, *timeout),
            Handle::Latched(latch) => latch.publish_loan(*topic, loan.into(), *timeout, undelivered),
        }
    }

    /// Waits until everything published is processed, up to a limit, also by subscriptions that have come late
    /// ([`PublisherBuilder::history`]).
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed, each counted once per inbox.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), FlushError> {
        let latch = match &mut self.handle {
            Handle::Own(outbox) => return outbox.flush(timeout),
            Handle::Latched(latch) => latch,
        };
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            let flushed = latch.flush(left.min(FLUSHED_AT_ONCE));
            match flushed {
                Err(FlushError::TimedOut { .. }) if left > FLUSHED_AT_ONCE => {
                    thread::sleep(PAUSE); // the background thread may serve late subscriptions
                }
                flushed => return flushed,
            }
        }
    }

    /// How many subscriptions want the topic just now. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn subscribers(&mut self) -> Result<usize, PublishError> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.subscribers(topic)).unwrap_or(Err(PublishError::Forked))
    }

    /// The subscriptions that want the topic as another type. See [`Outbox::mismatches`].
    pub fn mismatches(&mut self) -> Vec<Arc<SchemaMismatch>> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.mismatches(topic)).unwrap_or_default()
    }

    /// Waits up to a limit until a subscription wants the topic. `false`: the time is up.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn wait_for_subscriber(&mut self, timeout: Duration) -> Result<bool, PublishError> {
        let topic = self.topic;
        match &mut self.handle {
            Handle::Own(outbox) => outbox.wait_for_subscriber(topic, timeout),
            Handle::Latched(latch) => latch.wait_for_subscriber(topic, timeout),
        }
    }

    /// Limits how fast messages are published; `None`: no limit.
    pub fn limit_rate(&mut self, rate: Option<Rate>) {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.limit_topic_rate(topic, rate));
    }

    /// The longest message that every subscription takes, in bytes; `None`: there is no subscription. Does not block.
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub fn max_message(&mut self) -> Result<Option<usize>, PublishError> {
        let topic = self.topic;
        self.handle.with(|outbox| outbox.max_topic_message(topic)).unwrap_or(Err(PublishError::Forked))
    }

    /// What happened to the messages, each counted once per inbox. Does not block.
    pub fn account(&mut self) -> Account {
        self.handle.with(Outbox::total).unwrap_or_default()
    }

    /// Marks an inbox as high from a part of its ring on. See [`Outbox::set_high_water`].
    pub fn set_high_water(&mut self, part: Option<f64>) {
        self.handle.with(|outbox| outbox.set_high_water(part));
    }

    /// The next inbox that has passed the high-water mark. See [`Outbox::next_high_water_change`].
    pub fn next_high_water_change(&mut self) -> Option<ReachedInbox> {
        self.handle.with(Outbox::next_high_water_change).flatten()
    }

    /// Every inbox that this publisher reaches. See [`Outbox::inboxes`].
    pub fn inboxes(&mut self) -> Vec<ReachedInbox> {
        self.handle.with(Outbox::inboxes).unwrap_or_default()
    }

    /// Lets this publisher survive its receivers. See [`Outbox::set_redelivery`].
    pub fn set_redelivery(&mut self, limit: Option<Duration>) {
        self.handle.with(|outbox| outbox.set_redelivery(limit));
    }

    /// The messages that came back when the wait for a receiver was over. See [`Outbox::take_returned`].
    ///
    /// # Errors
    ///
    /// [`ReturnedError`]: the oldest were dropped.
    pub fn take_returned(&mut self) -> Result<Vec<Returned>, ReturnedError> {
        self.handle.with(Outbox::take_returned).unwrap_or(Err(ReturnedError::Forked))
    }

    /// The errors of the last publish, which its receipt has shown.
    pub(super) fn take_undelivered(&mut self) -> Vec<SendError> {
        std::mem::take(match &mut self.handle {
            Handle::Own(outbox) => &mut outbox.undelivered,
            Handle::Latched(_) => &mut self.undelivered,
        })
    }
}
