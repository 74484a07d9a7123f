//! An outbox, which sends messages. It owns one channel per inbox that it reaches, and belongs to one thread at a time.

use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::Head;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::aligned::AlignedBytes;
use crate::name::check_node_id;
use crate::node_shared::Owned;
use crate::schema::Schema;
use crate::send::account::{Account, ReachedInbox};
use crate::send::channel::Pushed;
use crate::send::dial::ConnectError;
use crate::send::error::{FlushError, LoanError, SendError};
use crate::send::loan::{DEFAULT_LOAN_TIMEOUT, Loan, LoanMemory, LoanSlice, SHORT, UnsentLoan, bytes_of};
use crate::send::matching::Matching;
use crate::send::message::{Delivery, Message, Patience};
use crate::send::rate::{Pace, Rate};
use crate::send::returned::{Returned, ReturnedError};
use crate::send::route::{Loss, Way};
use crate::send::routes::{Flushed, Routes};
use crate::send::topics::{Topic, TopicRoute, Topics};
use crate::sys::clock::Instant;
use crate::sys::fork;
use crate::sys::tasks::Tasks;

/// How long a send waits for room by default.
pub const DEFAULT_SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A node that an outbox sends to. Valid with that outbox only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination(pub(super) usize);

/// What a loan is for: [`Outbox::loan`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LoanFor {
    /// A message to a node.
    Destination(Destination),
    /// A message on a topic.
    Topic(Topic),
}

impl From<Destination> for LoanFor {
    fn from(to: Destination) -> Self {
        Self::Destination(to)
    }
}

impl From<Topic> for LoanFor {
    fn from(topic: Topic) -> Self {
        Self::Topic(topic)
    }
}

/// What a flush has found so far.
pub(super) struct Flush {
    unprocessed: u64,
    losses: Vec<Loss>,
}

impl Flush {
    pub(super) fn add(&mut self, Flushed { unprocessed, loss }: Flushed) {
        self.unprocessed += unprocessed;
        self.losses.extend(loss);
    }

    pub(super) fn end(self) -> Result<(), FlushError> {
        let Self { unprocessed, losses } = self;
        let lost = losses.iter().map(|loss| loss.messages).sum();
        let causes: Vec<_> = losses.into_iter().map(|loss| loss.error).collect();
        match unprocessed {
            _ if !causes.is_empty() => Err(FlushError::Lost { lost, unprocessed, causes }),
            0 => Ok(()),
            _ => Err(FlushError::TimedOut { unprocessed }),
        }
    }
}

/// Sends messages to any number of inboxes: in order, without a lock, over one channel per inbox.
///
/// It is `Send`, and used by one thread at a time. What it sends to one inbox arrives in the order in which it was sent,
/// whatever the topic.
pub struct Outbox {
    pub(crate) node: Arc<Owned>,
    /// The inboxes that it reaches: nodes' own, and subscriptions.
    pub(crate) routes: Routes,
    pub(crate) topics: Topics,
    /// What the last publish did not deliver, and for how many inboxes it is pending.
    pub(crate) undelivered: Vec<SendError>,
    pub(crate) pending: usize,
    pub(crate) born: fork::Born,
    /// The task that waits for it, if one has.
    tasks: Option<Arc<Tasks>>,
    /// What was said of the subscriptions, if somebody asks for that.
    pub(super) matching: Option<Box<Matching>>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("node", &self.node.id).finish()
    }
}

impl Outbox {
    pub(crate) fn new(node: Arc<Owned>) -> Self {
        let (routes, topics) = (Routes::new((**node).clone()), Topics::new(node.published.clone()));
        let born = node.born; // a forked child can make outboxes of an inherited node, but send nothing
        Self { node, routes, topics, undelivered: Vec::new(), pending: 0, born, tasks: None, matching: None }
    }

    /// Connects to a node and waits up to 10 s for it to appear. See [`crate::Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(&mut self, node: &str) -> Result<Destination, ConnectError> {
        self.connect_timeout(node, Duration::from_secs(10))
    }

    /// Connects to a node that must be there, without waiting for its answer. See [`crate::Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn try_connect(&mut self, node: &str) -> Result<Destination, ConnectError> {
        self.connect_timeout(node, Duration::ZERO)
    }

    /// Connects to a node and waits up to a limit for it to appear. See [`crate::Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect_timeout(&mut self, node: &str, timeout: Duration) -> Result<Destination, ConnectError> {
        self.connect_as(node, None, timeout)
    }

    /// Connects to a node for messages of this type, and waits up to a limit for it to appear. An outbox can reach a node with several
    /// types, as several destinations, if its inbox takes them. See [`crate::SenderBuilder::schema`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`]; [`ConnectError::Mismatch`] if the node's inbox is of another type.
    pub fn typed_connect(
        &mut self,
        node: &str,
        schema: Schema,
        timeout: Duration,
    ) -> Result<Destination, ConnectError> {
        self.connect_as(node, Some(&schema), timeout)
    }

    pub(super) fn connect_as(
        &mut self,
        node: &str,
        schema: Option<&Schema>,
        timeout: Duration,
    ) -> Result<Destination, ConnectError> {
        check_node_id(node)?;
        if !self.born.is_here() {
            return Err(ConnectError::Closed { node: self.node.id.clone() });
        }
        self.routes.node_route(node, schema, timeout).map(Destination)
    }

    /// Limits how fast this outbox sends to a node; `None`: no limit.
    pub fn limit_rate(&mut self, to: Destination, rate: Option<Rate>) {
        self.routes.list[to.0].pace = rate.map(|rate| Box::new(Pace::new(rate)));
    }

    /// Sends a message, and waits up to [`DEFAULT_SEND_TIMEOUT`] for room.
    ///
    /// Once this has returned `Ok`, the message reaches the receiver even if this process ends or is killed, whether the
    /// receiver is running, stopped, or has not answered yet.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send(&mut self, to: Destination, payload: &[u8]) -> Result<(), SendError> {
        self.send_timeout(to, payload, DEFAULT_SEND_TIMEOUT)
    }

    /// Sends a message if there is room. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn try_send(&mut self, to: Destination, payload: &[u8]) -> Result<(), SendError> {
        self.send_timeout(to, payload, Duration::ZERO)
    }

    /// Sends a message, and waits up to a limit for room.
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    #[inline]
    pub fn send_timeout(&mut self, to: Destination, payload: &[u8], timeout: Duration) -> Result<(), SendError> {
        match self.send_at_once(to, payload)? {
            true => Ok(()),
            false => self.send_slowly(to, payload, timeout),
        }
    }

    /// The hot path. `false`: nothing was sent.
    #[inline(always)]
    pub(super) fn send_at_once(&mut self, to: Destination, payload: &[u8]) -> Result<bool, SendError> {
        if !self.born.is_here() {
            return Err(SendError::Forked);
        }
        let route = &mut self.routes.list[to.0];
        Ok(route.pace.is_none()
            && match &mut route.way {
                Way::Open(channel) => {
                    channel.push_plain(None, payload) || matches!(channel.push(Head::MESSAGE, payload), Pushed::Yes)
                }
                _ => false,
            })
    }

    #[cold]
    fn send_slowly(&mut self, to: Destination, payload: &[u8], timeout: Duration) -> Result<(), SendError> {
        let slot = OnceCell::new();
        self.send_message(
            to,
            Message { topic: None, call: None, payload, slot: Some(&slot), past: false },
            Patience::new(timeout),
        )
    }

    fn send_message(&mut self, to: Destination, message: Message<'_>, patience: Patience) -> Result<(), SendError> {
        let (route, bytes) = (&mut self.routes.list[to.0], message.bytes());
        let paced = route.pace.as_mut().map_or(Ok(()), |pace| pace.wait(bytes, patience.deadline));
        let paced = paced.map_err(|wait| SendError::RateLimited { to: route.to.clone(), wait });
        let sent = paced.and_then(|()| {
            let mut way = TopicRoute::new(self.routes.id(to.0));
            let delivery = self.routes.deliver(&mut way, message, &self.topics.names, patience);
            self.delivered(to, delivery)
        });
        self.sent(to, bytes, sent)
    }

    pub(super) fn delivered(&self, to: Destination, delivery: Delivery) -> Result<(), SendError> {
        match delivery {
            Delivery::Delivered | Delivery::Pending => Ok(()),
            Delivery::Lost(error) | Delivery::Failed(error) => Err(error),
            Delivery::Ended | Delivery::Denied => Err(self.routes.list[to.0].refusal()),
        }
    }

    /// A message was sent, or was not.
    pub(super) fn sent(&mut self, to: Destination, bytes: usize, sent: Result<(), SendError>) -> Result<(), SendError> {
        let route = &mut self.routes.list[to.0];
        match &sent {
            Ok(()) => route.pace.iter_mut().for_each(|pace| pace.take(bytes)),
            Err(error) => route.count_undelivered(error, false),
        }
        sent
    }

    /// Where the task that waits for it leaves its waker.
    pub(super) fn tasks(&mut self) -> Arc<Tasks> {
        self.tasks.get_or_insert_with(|| Tasks::new(self.node.reactor(), None)).clone()
    }

    /// Takes memory for a message to a node or on a topic, to be filled in place and then sent with [`Outbox::send_loan`] or published
    /// with [`Outbox::publish_loan`]. All its bytes are 0. Waits up to a second where all of the node's memory for payloads is in
    /// use ([`crate::Limits::payload_bytes`]). A new memory, which takes milliseconds for each ten megabytes, is made where there
    /// is no free one of this size.
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan(&mut self, to: impl Into<LoanFor>, bytes: usize) -> Result<Loan, LoanError> {
        let mut loan = self.loan_uninit(to, bytes)?;
        if let LoanMemory::Slot(slot) = &mut loan.memory {
            slot.fill(0);
        }
        Ok(loan)
    }

    /// The same without setting the bytes, which takes a tenth of a millisecond for each megabyte: they are what an earlier message
    /// to the same readers has left there. For those who write all of them.
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_uninit(&mut self, to: impl Into<LoanFor>, bytes: usize) -> Result<Loan, LoanError> {
        self.loan_for(to.into(), bytes, bytes > SHORT)
    }

    /// The same as [`Outbox::loan`] for this many plain values, all of them 0.
    ///
    /// # Errors
    ///
    /// [`LoanError`].
    pub fn loan_slice<T>(&mut self, to: impl Into<LoanFor>, values: usize) -> Result<LoanSlice<T>, LoanError>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let (bytes, is_aligned) = bytes_of::<T>(values);
        let mut loan = self.loan_for(to.into(), bytes, bytes > SHORT || !is_aligned)?;
        loan.fill(0);
        Ok(loan.into_slice().expect("it is aligned, and has as many bytes as the values"))
    }

    fn loan_for(&mut self, to: LoanFor, bytes: usize, in_slot: bool) -> Result<Loan, LoanError> {
        if !self.born.is_here() {
            return Err(LoanError::Forked);
        }
        if self.node.directory().is_none() {
            return Err(LoanError::Closed { node: self.node.id.clone() });
        }
        let audience = match to {
            LoanFor::Destination(to) => self.routes.audience(to.0, None),
            LoanFor::Topic(topic) => self.routes.audience(0, Some(topic.number())),
        };
        let memory = match in_slot {
            true => LoanMemory::Slot(self.routes.slot(audience, bytes, Patience::new(DEFAULT_LOAN_TIMEOUT))?),
            false => LoanMemory::Private(AlignedBytes::zeroed(bytes)),
        };
        Ok(Loan { memory, audience })
    }

    /// Sends a loan, and waits up to a limit for room. It is not copied, unless it was made for another destination or by
    /// another outbox where not everybody may read everything.
    ///
    /// # Errors
    ///
    /// [`UnsentLoan`] has the loan, which was not sent.
    pub fn send_loan(&mut self, to: Destination, loan: impl Into<Loan>, timeout: Duration) -> Result<(), UnsentLoan> {
        self.send_whole_loan(to, loan.into(), timeout)
    }

    fn send_whole_loan(&mut self, to: Destination, loan: Loan, timeout: Duration) -> Result<(), UnsentLoan> {
        if !self.born.is_here() {
            return Err(UnsentLoan { error: SendError::Forked, loan: Some(loan) });
        }
        let audience = self.routes.audience(to.0, None);
        let patience = Patience::new(timeout);
        let Loan { memory, audience: made_for } = loan;
        match memory {
            LoanMemory::Slot(slot) if self.routes.may_lend(&slot, audience) => {
                let cell = OnceCell::from(slot.share());
                let sent = self.send_message(
                    to,
                    Message { topic: None, call: None, payload: &[], slot: Some(&cell), past: false },
                    patience,
                );
                sent.map_err(|error| UnsentLoan::from_slot(error, cell, made_for))
            }
            memory => {
                let loan = Loan { memory, audience: made_for };
                let cell = OnceCell::new();
                let sent = self.send_message(
                    to,
                    Message { topic: None, call: None, payload: &loan, slot: Some(&cell), past: false },
                    patience,
                );
                sent.map_err(|error| UnsentLoan { error, loan: Some(loan) })
            }
        }
    }

    /// Waits until everything sent and published is processed, up to a limit for all inboxes together.
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are lost, and how many are not processed yet.
    pub fn flush(&mut self, timeout: Duration) -> Result<(), FlushError> {
        if !self.born.is_here() {
            return Err(FlushError::Forked);
        }
        let deadline = Instant::now().checked_add(timeout);
        let mut flush = self.begin_flush();
        for at in 0..self.routes.list.len() {
            flush.add(self.routes.flush(at, deadline, &self.topics.names));
        }
        flush.end()
    }

    pub(super) fn begin_flush(&mut self) -> Flush {
        let losses = self.routes.take_losses();
        self.routes.give_back_unused();
        Flush { unprocessed: 0, losses }
    }

    /// Lets this outbox survive its receivers. When a receiver is gone, the outbox keeps what it had not processed and
    /// what is sent meanwhile, up to the capacity of its ring. Everything is delivered when the same node opens its
    /// inbox again within this time, or a subscription with the same durable name. Messages arrive in order, each with
    /// its number, and those that were in work are flagged ([`crate::Message::is_redelivered`]). If the next
    /// incarnation does not take a message, what follows it is delivered once everything ahead of it is processed.
    /// `None`, the default: what is not processed is reported at once.
    ///
    /// Redelivery happens in this outbox's own calls: sending, publishing, flushing. The time starts when the receiver
    /// is found gone, and starts again only once it has returned and processed something. When the time is up, the next
    /// call reports [`SendError::ReceiverGone`] with the number of messages, and [`Outbox::take_returned`] returns
    /// them. They also come back if the inbox returns with [`crate::Policy::DropOldest`], which would overwrite them.
    /// Messages that are kept end with this outbox: flush it before you drop it.
    pub fn set_redelivery(&mut self, limit: Option<Duration>) {
        self.routes.redelivery = limit;
    }

    /// The messages that came back when the wait for their receivers was over, each once, oldest first. Does not block.
    ///
    /// # Errors
    ///
    /// [`ReturnedError`] if the oldest were dropped because they were not taken in time. The next call returns the
    /// rest.
    pub fn take_returned(&mut self) -> Result<Vec<Returned>, ReturnedError> {
        if !self.born.is_here() {
            return Err(ReturnedError::Forked);
        }
        self.routes.take_returned()
    }

    /// The longest message that a destination takes, in bytes; `None` while it is gone. Does not block.
    ///
    /// # Errors
    ///
    /// [`SendError`] if it could not be looked up.
    pub fn max_message(&mut self, to: Destination) -> Result<Option<usize>, SendError> {
        if !self.born.is_here() {
            return Err(SendError::Forked);
        }
        self.routes.max_message(to.0)
    }

    /// Whether a destination's receiver is there, or has not answered yet, as far as is known without asking. The death
    /// of its process is known within milliseconds. Does not block.
    pub fn is_connected(&self, to: Destination) -> bool {
        self.born.is_here() && self.routes.list[to.0].is_connected()
    }

    /// What happened to the messages to a destination. Does not block.
    pub fn account(&mut self, to: Destination) -> Account {
        if !self.born.is_here() {
            return Account::default();
        }
        self.routes.list[to.0].account()
    }

    /// Every inbox that this outbox reaches now: how full it is, and what happened to the messages to it. Does not
    /// block.
    pub fn inboxes(&mut self) -> Vec<ReachedInbox> {
        if !self.born.is_here() {
            return Vec::new();
        }
        self.routes.inboxes()
    }

    /// Has each message say when it was sent, from now on, or only about one in 64, which is the default. See
    /// [`crate::PublisherBuilder::stamp_all`].
    pub fn stamp_all(&mut self, all: bool) {
        if self.born.is_here() {
            self.routes.stamp_all(all);
        }
    }

    /// Makes an inbox count as *high* once its ring is filled to this part (0 to 1), until it is filled to half of
    /// that. `None`: no such mark. Below the mark it costs nothing; above it, each send looks at what the receiver has
    /// processed.
    pub fn set_high_water(&mut self, part: Option<f64>) {
        if self.born.is_here() {
            self.routes.set_high_water(part);
        }
    }

    /// The next inbox that has passed the high-water mark in either direction since the last call. Does not block.
    pub fn next_high_water_change(&mut self) -> Option<ReachedInbox> {
        if !self.born.is_here() {
            return None;
        }
        self.routes.next_high_water_change()
    }

    /// What happened to everything that was sent and published. Does not block.
    pub fn total(&mut self) -> Account {
        if !self.born.is_here() {
            return Account::default();
        }
        self.routes.total()
    }
}

/// Delivers what was kept to receivers that are back. It does not wait for the others.
impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return;
        }
        if let Some(tasks) = &self.tasks {
            tasks.close();
        }
        if let Some(news) = self.routes.news.get() {
            news.close();
        }
        let messages = self.routes.finish(&self.topics.names);
        if messages > 0 {
            let node = &*self.node.id;
            tracing::warn!(
                node,
                messages,
                "an outbox is dropped, and messages that it kept for receivers that are gone"
            );
        }
    }
}
