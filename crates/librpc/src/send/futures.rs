//! Sending in a task, which waits without a thread.
//!
//! Nothing is sent after the future is dropped. A message to a node is sent then, or is not. One that is published may have reached some
//! inboxes, as after a time limit.

use std::cell::OnceCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_sink::Sink;

use crate::link::channel_shared::Failure;
use crate::registry::lookout::Waiting;
use crate::registry::wait;
use crate::schema::Schema;
use crate::send::dial::{ANSWER_LIMIT, ConnectError};
use crate::send::error::{FlushError, PublishError, SendError};
use crate::send::latched::Latch;
use crate::send::message::{Message, Patience};
use crate::send::outbox::{DEFAULT_SEND_TIMEOUT, Destination, Flush, Outbox};
use crate::send::publish::{Publication, Receipt};
use crate::send::publisher::{Handle, Publisher};
use crate::send::routes::Flushed;
use crate::send::sender::Sender;
use crate::send::task::Task;
use crate::send::topics::{Topic, TopicRoute};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::wire::Reason;

/// In a task, as a future: see [`crate::Inbox::recv_async`]. A future that is dropped sends nothing more; what it has sent stays sent.
impl Outbox {
    /// Connects to a node. As [`Outbox::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_async(&mut self, node: &str) -> Result<Destination, ConnectError> {
        self.connect_timeout_async(node, Duration::from_secs(10)).await
    }

    /// Connects to a node, and waits up to a limit for it to appear. As [`Outbox::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_timeout_async(&mut self, node: &str, timeout: Duration) -> Result<Destination, ConnectError> {
        self.connect_as_async(node, None, timeout).await
    }

    pub(super) async fn connect_as_async(
        &mut self,
        node: &str,
        schema: Option<&Schema>,
        timeout: Duration,
    ) -> Result<Destination, ConnectError> {
        let (deadline, mut waiting) = (Instant::now().checked_add(timeout), None);
        let is_known = self.routes.reaches(node, schema);
        let to = poll_fn(|context| self.poll_connect(context, (node, schema), deadline, &mut waiting)).await?;
        drop(waiting);
        if !is_known {
            let until = Instant::now() + timeout.min(ANSWER_LIMIT);
            poll_fn(|context| self.poll_answer(context, to, until)).await?;
        }
        Ok(to)
    }

    fn poll_connect(
        &mut self,
        context: &Context<'_>,
        (node, schema): (&str, Option<&Schema>),
        deadline: Option<Instant>,
        waiting: &mut Option<Waiting>,
    ) -> Poll<Result<Destination, ConnectError>> {
        let closed = || ConnectError::Closed { node: self.node.id.clone() };
        let domain = self.node.domain().ok_or_else(closed)?;
        let (owner, mut missing) = (self.node.clone(), ConnectError::NotFound { node: node.into() });
        let found =
            wait::poll_for((&owner.process().lookout, domain.path()), waiting, context, deadline, || {
                match self.connect_as(node, schema, Duration::ZERO) {
                    Ok(to) => Ok(Some(to)),
                    Err(error @ (ConnectError::NotFound { .. } | ConnectError::NoInbox { .. })) => {
                        missing = error;
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            });
        Poll::Ready(ready!(found)?.ok_or(missing))
    }

    fn poll_disconnected(&mut self, context: &Context<'_>, to: Destination) -> Poll<()> {
        if !self.born.is_here() {
            return Poll::Ready(());
        }
        let tasks = self.tasks();
        let task = Task::new(&tasks, context.waker(), None);
        let route = &mut self.routes.list[to.0];
        if let Some(channel) = route.channel() {
            channel.is_unanswered(&task); // from now on the task is woken
        }
        if route.is_connected() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Waits a while for the answer to a new channel. A later send finds out what becomes of one that is not answered in that time.
    fn poll_answer(
        &mut self,
        context: &Context<'_>,
        to: Destination,
        until: Instant,
    ) -> Poll<Result<(), ConnectError>> {
        let tasks = self.tasks();
        let task = Task::new(&tasks, context.waker(), Some(until));
        let route = &mut self.routes.list[to.0];
        let node = route.to.clone();
        let Some(channel) = route.channel() else { return Poll::Ready(Ok(())) };
        if channel.is_unanswered(&task) && Instant::now() < until {
            return Poll::Pending;
        }
        let error = match channel.failure() {
            None | Some(Failure::Gone) => return Poll::Ready(Ok(())),
            Some(Failure::Refused { reason, text }) => {
                ConnectError::Refused { node, reason: Reason::from_number(reason), text }
            }
            Some(Failure::Broken(why)) => ConnectError::Broken { node, why },
            Some(Failure::Mismatch(mismatch)) => ConnectError::Mismatch(mismatch),
            Some(Failure::NodeClosed) => ConnectError::Closed { node: self.node.id.clone() },
        };
        route.close();
        Poll::Ready(Err(error))
    }

    /// Sends a message. As [`Outbox::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    pub async fn send_async(&mut self, to: Destination, payload: &[u8]) -> Result<(), SendError> {
        self.send_timeout_async(to, payload, DEFAULT_SEND_TIMEOUT).await
    }

    /// Sends a message, and waits up to a limit for room. As [`Outbox::send_timeout`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    pub async fn send_timeout_async(
        &mut self,
        to: Destination,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), SendError> {
        if self.send_at_once(to, payload)? {
            return Ok(());
        }
        let mut sending = Sending::new(self, to, timeout);
        poll_fn(|context| self.poll_send(context, to, payload, &mut sending)).await
    }

    fn poll_send(
        &mut self,
        context: &Context<'_>,
        to: Destination,
        payload: &[u8],
        sending: &mut Sending,
    ) -> Poll<Result<(), SendError>> {
        if !self.born.is_here() {
            return Poll::Ready(Err(SendError::Forked));
        }
        let Sending { way, slot, patience } = sending;
        let tasks = self.tasks();
        let task = Task::new(&tasks, context.waker(), patience.end());
        let route = &mut self.routes.list[to.0];
        let pause = route.pace.as_mut().map_or(Ok(None), |pace| pace.pause(payload.len(), patience.deadline));
        let sent = match pause {
            Err(wait) => Err(SendError::RateLimited { to: route.to.clone(), wait }),
            Ok(Some(pause)) => {
                task.look_after(pause);
                return Poll::Pending;
            }
            Ok(None) => {
                let message = Message { topic: None, call: None, payload, slot: Some(slot), past: false };
                let delivery = ready!(self.routes.poll_deliver(way, message, &self.topics.names, *patience, &task));
                self.delivered(to, delivery)
            }
        };
        Poll::Ready(self.sent(to, payload.len(), sent))
    }

    /// Publishes a message. As [`Outbox::publish`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, that is not an error: the receipt names them.
    pub async fn publish_async(&mut self, topic: Topic, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        self.publish_timeout_async(topic, payload, DEFAULT_SEND_TIMEOUT).await
    }

    /// Publishes a message, and waits up to a limit where inboxes are full. As [`Outbox::publish_timeout`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, that is not an error: the receipt names them.
    pub async fn publish_timeout_async(
        &mut self,
        topic: Topic,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Receipt<'_>, PublishError> {
        let (inboxes, pending) = match self.publish_plain(topic, payload) {
            Some(inboxes) => (inboxes, 0),
            None => {
                let mut publishing = Publishing::new(&mut *self, topic, payload, timeout);
                let inboxes = poll_fn(|context| publishing.poll(context)).await?;
                drop(publishing);
                (inboxes, self.pending)
            }
        };
        Ok(Receipt::new(inboxes, pending, &self.undelivered))
    }

    /// Waits up to a limit until a subscription wants a topic. As [`Outbox::wait_for_subscriber`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn wait_for_subscriber_async(&mut self, topic: Topic, timeout: Duration) -> Result<bool, PublishError> {
        let (deadline, mut waiting) = (Instant::now().checked_add(timeout), None);
        poll_fn(|context| self.poll_subscriber(context, topic, deadline, &mut waiting)).await
    }

    fn poll_subscriber(
        &mut self,
        context: &Context<'_>,
        topic: Topic,
        deadline: Option<Instant>,
        waiting: &mut Option<Waiting>,
    ) -> Poll<Result<bool, PublishError>> {
        let domain = self.node.domain().ok_or_else(|| self.closed())?;
        let node = self.node.clone();
        let found = wait::poll_for((&node.process().lookout, domain.path()), waiting, context, deadline, || {
            Ok::<_, PublishError>(Some(self.subscribers(topic)?).filter(|&subscribers| subscribers > 0))
        });
        Poll::Ready(Ok(ready!(found)?.is_some()))
    }

    /// Waits until everything sent and published is processed, up to a limit. As [`Outbox::flush`].
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are lost, and how many are not processed yet.
    pub async fn flush_async(&mut self, timeout: Duration) -> Result<(), FlushError> {
        if !self.born.is_here() {
            return Err(FlushError::Forked);
        }
        let (deadline, mut flush, mut at) = (Instant::now().checked_add(timeout), self.begin_flush(), 0);
        poll_fn(|context| self.poll_flush(context, deadline, &mut at, &mut flush)).await?;
        flush.end()
    }

    fn poll_flush(
        &mut self,
        context: &Context<'_>,
        deadline: Option<Instant>,
        at: &mut usize,
        flush: &mut Flush,
    ) -> Poll<Result<(), FlushError>> {
        if !self.born.is_here() {
            return Poll::Ready(Err(FlushError::Forked));
        }
        let tasks = self.tasks();
        let task = Task::new(&tasks, context.waker(), deadline);
        while *at < self.routes.list.len() {
            flush.add(ready!(self.routes.poll_flush(*at, deadline, &self.topics.names, &task)));
            *at += 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl Outbox {
    /// The same for an outbox whose background thread serves late subscriptions: waits until they have been served, too.
    fn poll_flush_late(
        &mut self,
        context: &Context<'_>,
        deadline: Option<Instant>,
        at: &mut usize,
        flush: &mut Flush,
    ) -> Poll<Result<(), FlushError>> {
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.past_left() > 0 && !is_over {
            let tasks = self.tasks();
            Task::new(&tasks, context.waker(), deadline).look_after(Duration::from_millis(1));
            return Poll::Pending;
        }
        flush.add(Flushed { unprocessed: self.past_left(), loss: None });
        ready!(self.poll_flush(context, deadline, at, flush))?;
        Poll::Ready(Ok(()))
    }
}

/// A message to a node that a task is sending.
struct Sending {
    way: TopicRoute,
    slot: OnceCell<Slot>,
    patience: Patience,
}

impl Sending {
    fn new(outbox: &Outbox, to: Destination, timeout: Duration) -> Self {
        Self { way: TopicRoute::new(outbox.routes.id(to.0)), slot: OnceCell::new(), patience: Patience::new(timeout) }
    }
}

/// An outbox, as each poll reaches it.
pub(super) trait Reach {
    /// `None`: it belongs to the process that forked this one.
    fn with<R>(&mut self, act: impl FnOnce(&mut Outbox) -> R) -> Option<R>;
}

impl Reach for &mut Outbox {
    fn with<R>(&mut self, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        Some(act(self))
    }
}

/// Between two polls, the background thread may use it.
impl Reach for &mut Latch {
    fn with<R>(&mut self, act: impl FnOnce(&mut Outbox) -> R) -> Option<R> {
        Latch::with(self, act)
    }
}

/// A message that a task is publishing.
pub(super) struct Publishing<'p, R: Reach> {
    outbox: R,
    topic: Topic,
    payload: &'p [u8],
    slot: OnceCell<Slot>,
    patience: Patience,
    /// How many inboxes have got it, once it was offered to all.
    inboxes: Option<usize>,
}

impl<'p, R: Reach> Publishing<'p, R> {
    pub(super) fn new(outbox: R, topic: Topic, payload: &'p [u8], timeout: Duration) -> Self {
        Self { outbox, topic, payload, slot: OnceCell::new(), patience: Patience::new(timeout), inboxes: None }
    }

    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<usize, PublishError>> {
        let Self { outbox, topic, payload, slot, patience, inboxes } = self;
        let publication = Publication { topic: *topic, payload, slot, patience: *patience };
        let polled = outbox.with(|outbox| outbox.poll_publish(context, publication, inboxes));
        polled.unwrap_or(Poll::Ready(Err(PublishError::Forked)))
    }
}

impl<R: Reach> Drop for Publishing<'_, R> {
    fn drop(&mut self) {
        let topic = self.topic;
        self.outbox.with(|outbox| outbox.end_publication(topic));
    }
}

impl Outbox {
    /// `inboxes`: how many have got it, once it was offered to all.
    fn poll_publish(
        &mut self,
        context: &Context<'_>,
        publication: Publication<'_>,
        inboxes: &mut Option<usize>,
    ) -> Poll<Result<usize, PublishError>> {
        let Publication { topic, patience, .. } = publication;
        if !self.born.is_here() {
            return Poll::Ready(Err(PublishError::Forked));
        }
        let tasks = self.tasks();
        let task = Task::new(&tasks, context.waker(), patience.end());
        let inboxes = match inboxes {
            Some(inboxes) => inboxes,
            None => {
                if !self.is_offered(topic) {
                    let state = &mut self.topics.list[topic.0];
                    let bytes = publication.bytes();
                    let pause = state.pace.as_mut().map_or(Ok(None), |pace| pace.pause(bytes, patience.deadline));
                    let pause =
                        pause.map_err(|wait| PublishError::RateLimited { topic: state.name.name().clone(), wait })?;
                    if let Some(pause) = pause {
                        task.look_after(pause);
                        return Poll::Pending;
                    }
                    self.offer(publication)?;
                }
                inboxes.insert(self.reached(topic))
            }
        };
        *inboxes += self.pass(publication, |routes, leg, message, names| {
            match routes.poll_deliver(leg, message, names, patience, &task) {
                Poll::Ready(delivery) => Some(delivery),
                Poll::Pending => None,
            }
        })?;
        if self.is_behind(topic) {
            return Poll::Pending;
        }
        self.published(publication, *inboxes);
        Poll::Ready(Ok(*inboxes))
    }
}

/// In a task, as a future: see [`Outbox::send_async`].
impl Sender {
    /// Sends a message, and waits for room up to the limit. As [`Sender::send`].
    ///
    /// # Errors
    ///
    /// [`SendError`]; the message was not sent then.
    pub async fn send_async(&mut self, payload: &[u8]) -> Result<(), SendError> {
        let (to, timeout) = (self.to, self.timeout);
        self.outbox.send_timeout_async(to, payload, timeout).await
    }

    /// Waits until everything sent is processed, up to a limit. As [`Sender::flush`].
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed.
    pub async fn flush_async(&mut self, timeout: Duration) -> Result<(), FlushError> {
        self.outbox.flush_async(timeout).await
    }

    /// Waits until the receiver is gone: until [`Sender::is_connected`] says so. At once, if it does already. That costs the receiver nothing.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_disconnected_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// let (display, camera) = (open("display")?, open("camera")?);
    /// let inbox = display.inbox()?;
    /// let mut to_display = camera.connect("display")?;
    /// drop(inbox);
    /// pollster::block_on(to_display.disconnected_async());
    /// assert!(!to_display.is_connected());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn disconnected_async(&mut self) {
        poll_fn(|context| self.outbox.poll_disconnected(context, self.to)).await;
    }

    /// Takes messages and sends each of them, as [`Sender::send_async`]. A message that was taken is sent when the sink was flushed, or
    /// takes the next one; that it was processed is told by [`Sender::flush_async`].
    pub fn sink<'s, M: AsRef<[u8]> + Unpin + 's>(&'s mut self) -> impl Sink<M, Error = SendError> + Unpin + 's {
        SenderSink { sender: self, taken: None }
    }
}

/// A sender as a sink.
struct SenderSink<'s, M> {
    sender: &'s mut Sender,
    /// What was taken, and is not sent.
    taken: Option<(M, Sending)>,
}

impl<M: AsRef<[u8]> + Unpin> Sink<M> for SenderSink<'_, M> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_flush(context)
    }

    fn start_send(mut self: Pin<&mut Self>, message: M) -> Result<(), SendError> {
        let Sender { outbox, to, timeout } = &mut *self.sender;
        if !outbox.send_at_once(*to, message.as_ref())? {
            let sending = Sending::new(outbox, *to, *timeout);
            self.taken = Some((message, sending));
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Self { sender, taken } = &mut *self;
        let Some((message, sending)) = taken else { return Poll::Ready(Ok(())) };
        let sent = ready!(sender.outbox.poll_send(context, sender.to, message.as_ref(), sending));
        self.taken = None;
        Poll::Ready(sent)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_flush(context)
    }
}

/// In a task, as a future: see [`Outbox::send_async`].
impl Publisher {
    /// Publishes a message, and waits for full inboxes up to the limit. As [`Publisher::publish`].
    ///
    /// # Errors
    ///
    /// [`PublishError`] if no subscription got it. If only some did not, the receipt names them.
    pub async fn publish_async(&mut self, payload: &[u8]) -> Result<Receipt<'_>, PublishError> {
        let Self { handle, topic, timeout, undelivered } = self;
        match handle {
            Handle::Own(outbox) => outbox.publish_timeout_async(*topic, payload, *timeout).await,
            Handle::Latched(latch) => {
                let mut publishing = Publishing::new(&mut *latch, *topic, payload, *timeout);
                let inboxes = poll_fn(|context| publishing.poll(context)).await?;
                drop(publishing);
                Ok(latch.receipt(inboxes, undelivered))
            }
        }
    }

    /// Waits until everything published is processed, up to a limit. As [`Publisher::flush`].
    ///
    /// # Errors
    ///
    /// [`FlushError`] says how many messages are not processed, each counted once per inbox.
    pub async fn flush_async(&mut self, timeout: Duration) -> Result<(), FlushError> {
        match &mut self.handle {
            Handle::Own(outbox) => outbox.flush_async(timeout).await,
            Handle::Latched(latch) => {
                let mut flush = latch.with(Outbox::begin_flush).ok_or(FlushError::Forked)?;
                let (deadline, mut at) = (Instant::now().checked_add(timeout), 0);
                poll_fn(|context| {
                    let polled = latch.with(|outbox| outbox.poll_flush_late(context, deadline, &mut at, &mut flush));
                    polled.unwrap_or(Poll::Ready(Err(FlushError::Forked)))
                })
                .await?;
                flush.end()
            }
        }
    }

    /// Waits up to a limit until a subscription wants the topic. As [`Publisher::wait_for_subscriber`].
    ///
    /// # Errors
    ///
    /// [`PublishError`].
    pub async fn wait_for_subscriber_async(&mut self, timeout: Duration) -> Result<bool, PublishError> {
        let topic = self.topic;
        match &mut self.handle {
            Handle::Own(outbox) => outbox.wait_for_subscriber_async(topic, timeout).await,
            Handle::Latched(latch) => {
                let (deadline, mut waiting) = (Instant::now().checked_add(timeout), None);
                poll_fn(|context| {
                    let polled = latch.with(|outbox| outbox.poll_subscriber(context, topic, deadline, &mut waiting));
                    polled.unwrap_or(Poll::Ready(Err(PublishError::Forked)))
                })
                .await
            }
        }
    }
}
