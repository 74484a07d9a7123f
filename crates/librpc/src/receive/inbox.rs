//! An inbox: what receives. It belongs to one thread at a time, and a slow one delays no other.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use librpc_ring::layout;

use crate::link::inbox_shared::InboxShared;
use crate::name::{Address, BadNodeId, check_node_id};
use crate::node::{Node, Owned};
use crate::policy::Policy;
use crate::receive::message::{Event, Message, OwnedMessage};
use crate::receive::receiver::{Found, Receiver, Until, Wait};
use crate::sys::{OsError, fork};
use crate::topic::{BadTopic, MAX_PATTERNS};

/// The default capacity of each sender's ring, in bytes. Messages of up to 65,472 bytes fit.
pub const DEFAULT_CAPACITY: u64 = 256 * 1024;

/// When a message counts as processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acknowledge {
    /// When the next receive is called, or the inbox is dropped (but not by a panic).
    #[default]
    Implicit,
    /// When [`Inbox::ack`] is called.
    Explicit,
}

/// Why an inbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// A pattern is none.
    #[error(transparent)]
    BadTopic(#[from] BadTopic),
    /// A durable name is none: it must be as a node's id.
    #[error("a durable name must be as a node id: {0}")]
    BadName(#[source] BadNodeId),
    /// There are too many patterns, or none.
    #[error("a subscription to {patterns} patterns: it must be 1 to {MAX_PATTERNS}")]
    Patterns {
        /// How many there are.
        patterns: usize,
    },
    /// The node has such an inbox already: one of its own, or a subscription of the same durable name.
    #[error("node {node:?} has such an inbox already")]
    Taken {
        /// The node.
        node: String,
    },
    /// The capacity is none.
    #[error("a capacity of {bytes} bytes: it must be a power of two from 4,096 to 1,073,741,824")]
    Capacity {
        /// The capacity in bytes.
        bytes: u64,
    },
    /// The node was closed, or belongs to the parent of this forked process.
    #[error("node {node:?} is closed, or was opened before a fork")]
    Closed {
        /// The node.
        node: String,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Why a receive failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The node was closed.
    #[error("node {node:?} is closed")]
    Closed {
        /// The node.
        node: String,
    },
    /// The inbox was opened before a fork, and belongs to the parent.
    #[error("this inbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Sets an inbox up: [`Node::inbox_builder`].
#[derive(Debug)]
pub struct InboxBuilder<'n> {
    node: &'n Node,
    address: Result<Address, InboxError>,
    capacity: u64,
    policy: Policy,
    own: bool,
    durable: Option<String>,
    wait: Wait,
    acknowledge: Acknowledge,
}

impl<'n> InboxBuilder<'n> {
    pub(crate) fn new(node: &'n Node, address: Result<Address, InboxError>) -> Self {
        let (policy, own, durable, wait, acknowledge) = Default::default();
        Self { node, address, capacity: DEFAULT_CAPACITY, policy, own, durable, wait, acknowledge }
    }

    /// Bytes of the ring that each sender gets: a power of two from 4,096 to 2^30, by default [`DEFAULT_CAPACITY`]. It is
    /// touched only as it is used. The longest message is a quarter of it ([`Policy::Latest`]: an eighth), less 64 bytes.
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: bytes, ..self }
    }

    /// What happens to a message that finds the inbox full. By default its sender waits.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Whether a subscription gets what its own node publishes, too. By default it does not.
    pub fn own(self, own: bool) -> Self {
        Self { own, ..self }
    }

    /// Gives a subscription a name, under which a node of the same id takes it up again after it is gone: publishers with
    /// redelivery ([`crate::Outbox::set_redelivery`]) keep for it what it has not processed. A node id as text.
    pub fn durable(self, name: &str) -> Self {
        Self { durable: Some(name.to_owned()), ..self }
    }

    /// How the inbox waits.
    pub fn wait(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// When a message counts as processed.
    pub fn acknowledge(self, acknowledge: Acknowledge) -> Self {
        Self { acknowledge, ..self }
    }

    /// Opens the inbox. Every send or publish that begins after this has returned, in any process, reaches it. Does not
    /// block, but for about a millisecond where a subscription is opened in a shared domain.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn open(self) -> Result<Inbox, InboxError> {
        let Self { node, address, capacity, policy, own, durable, wait, acknowledge } = self;
        let address = address?;
        if let Some(name) = &durable {
            check_node_id(name).map_err(InboxError::BadName)?;
        }
        if !layout::is_valid_capacity(capacity) || capacity < 4096 {
            return Err(InboxError::Capacity { bytes: capacity });
        }
        let node = node.owned().clone();
        let closed = || InboxError::Closed { node: node.id.to_string() };
        let (directory, number) = (node.directory().ok_or_else(closed)?, node.next_inbox());
        let shared = InboxShared::new(number, address, (capacity, policy), (own, durable), directory)?;
        let receiver = Receiver::new(shared.clone(), wait)?;
        // Dropped on an error, it withdraws what was announced.
        let inbox = Inbox { receiver, shared, acknowledge, born: fork::Born::now(), node };
        inbox.node.announce(&inbox.shared)?;
        Ok(inbox)
    }

    /// Opens the inbox and calls `callback` with each message, on a thread of its own, which ends when the handle is
    /// dropped. A message counts as processed when the callback has returned. If it panics, its message stays
    /// unprocessed, the thread ends, the inbox closes, and [`CallbackHandle::stop`] reports it.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn callback(
        self,
        mut callback: impl FnMut(Message<'_>) + Send + 'static,
    ) -> Result<CallbackHandle, InboxError> {
        let node = self.node.id().to_owned();
        let mut inbox = self.acknowledge(Acknowledge::Explicit).open()?;
        let stop = inbox.stop_handle();
        let run = move || -> Result<(), CallbackError> {
            while let Some(message) = inbox.recv()? {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(message))) {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    tracing::error!(node, text, "a callback panicked: its message stays unprocessed, its inbox closes");
                    return Err(CallbackError::Panicked { text });
                }
                inbox.ack();
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("librpc-inbox".into()).spawn(run);
        let thread = thread.map_err(|error| OsError::new("start a thread for callbacks", error))?;
        Ok(CallbackHandle { stop, thread: Some(thread), born: fork::Born::now() })
    }
}

/// An inbox that receives what is published to topics: [`Node::subscribe`].
pub type Subscriber = Inbox;

/// What an inbox receives messages with.
///
/// It is `Send`, and used by one thread at a time. Dropping it closes it; senders hear that it is gone.
pub struct Inbox {
    receiver: Receiver,
    shared: Arc<InboxShared>,
    acknowledge: Acknowledge,
    born: fork::Born,
    node: Arc<Owned>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("node", &self.node.id).field("address", &self.shared.address).finish()
    }
}

impl Inbox {
    /// Waits for the next message. `None`: a [`StopHandle`] has ended it, for good.
    ///
    /// The message before it counts as processed now, unless acknowledgement is explicit.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.message(Until::Forever)
    }

    /// The next message, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.message(Until::Now)
    }

    /// Waits for the next message up to a limit. `None`: the time is up, or the inbox was stopped.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Option<Message<'_>>, RecvError> {
        self.message(until(limit))
    }

    /// Waits for whatever comes next: a message, or a sender that joins or leaves. `None` as in [`Inbox::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_event(&mut self) -> Result<Option<Event<'_>>, RecvError> {
        self.event(Until::Forever)
    }

    /// What has come, if anything has. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn try_recv_event(&mut self) -> Result<Option<Event<'_>>, RecvError> {
        self.event(Until::Now)
    }

    /// Waits for whatever comes next up to a limit. `None` as in [`Inbox::recv_timeout`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_event_timeout(&mut self, limit: Duration) -> Result<Option<Event<'_>>, RecvError> {
        self.event(until(limit))
    }

    /// The messages as they come, each a value of its own. It ends when the inbox is stopped.
    ///
    /// A message counts as processed when the next one is asked for, unless acknowledgement is explicit.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<OwnedMessage, RecvError>> + '_ {
        std::iter::from_fn(|| self.recv().map(|message| message.map(|message| message.to_owned())).transpose())
    }

    /// Says that every message handed out so far is processed: their senders may know, and use the room.
    pub fn ack(&mut self) {
        if self.born.is_here() {
            self.receiver.consume(false);
        }
    }

    /// Ends this inbox's receives from another thread, or from a signal handler.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.shared.clone())
    }

    #[inline(always)]
    fn message(&mut self, until: Until) -> Result<Option<Message<'_>>, RecvError> {
        if self.goes_on() || self.next_message(until)? {
            return Ok(Some(self.receiver.message()));
        }
        Ok(None)
    }

    #[inline(always)]
    fn event(&mut self, until: Until) -> Result<Option<Event<'_>>, RecvError> {
        let found = if self.goes_on() { Some(Found::Message) } else { self.step(until)? };
        Ok(match found {
            None => None,
            Some(Found::Message) => Some(Event::Message(self.receiver.message())),
            Some(Found::Joined(peer)) => Some(Event::SenderJoined(peer)),
            Some(Found::Left(left)) => Some(Event::SenderLeft(left.0, left.1)),
        })
    }

    /// The hot path: one more message is there, as the last one was. Its caller builds the message around it, so that no
    /// part of that is written and read that nobody asks for.
    #[inline(never)]
    fn goes_on(&mut self) -> bool {
        self.born.is_here() && self.receiver.goes_on(self.acknowledge == Acknowledge::Implicit)
    }

    /// Waits for the next message; `false` as the receives say `None`.
    #[inline(never)]
    fn next_message(&mut self, until: Until) -> Result<bool, RecvError> {
        loop {
            match self.step(until)? {
                None => return Ok(false),
                Some(Found::Message) => return Ok(true),
                Some(Found::Joined(_) | Found::Left(..)) => {}
            }
        }
    }

    #[inline(never)]
    fn step(&mut self, until: Until) -> Result<Option<Found>, RecvError> {
        if !self.born.is_here() {
            return Err(RecvError::Forked);
        }
        if self.acknowledge == Acknowledge::Implicit {
            self.receiver.consume(true);
        }
        match self.receiver.next(until)? {
            None if self.shared.is_closed() => Err(RecvError::Closed { node: self.node.id.to_string() }),
            found => Ok(found),
        }
    }
}

/// A limit as a point in time; one too far to be a point is none.
fn until(limit: Duration) -> Until {
    Instant::now().checked_add(limit).map_or(Until::Forever, Until::Deadline)
}

/// For event loops of others. The descriptor is readable when there may be something to receive; call
/// [`Inbox::try_recv`] (or [`Inbox::try_recv_event`]) until it says `None`, then wait for the descriptor again.
impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.descriptor().as_fd()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return;
        }
        if self.acknowledge == Acknowledge::Implicit && !std::thread::panicking() {
            self.receiver.consume(false);
        }
        self.node.withdraw(&self.shared);
    }
}

/// Ends an inbox's receives: [`Inbox::stop_handle`].
#[derive(Clone)]
pub struct StopHandle(Arc<InboxShared>);

impl StopHandle {
    /// Has the inbox's receives, the one under way and all later ones, return `None`. Async-signal-safe.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl std::fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StopHandle")
    }
}

/// Why a callback's thread has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallbackError {
    /// The callback panicked. Its message stays unprocessed.
    #[error("the callback panicked: {text}")]
    Panicked {
        /// What it said.
        text: String,
    },
    /// Receiving failed.
    #[error(transparent)]
    Recv(#[from] RecvError),
}

/// The thread that calls a callback. Dropping it stops and joins the thread.
#[derive(Debug)]
pub struct CallbackHandle {
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), CallbackError>>>,
    born: fork::Born,
}

impl CallbackHandle {
    /// Stops the thread, waits until a callback that is running has returned, and says how it ended.
    ///
    /// # Errors
    ///
    /// [`CallbackError`].
    pub fn stop(mut self) -> Result<(), CallbackError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), CallbackError> {
        self.stop.stop();
        match self.thread.take() {
            // A forked child has no such thread.
            Some(thread) if !self.born.is_here() => {
                std::mem::forget(thread);
                Ok(())
            }
            Some(thread) => thread.join().expect("the thread catches the callback's panics"),
            None => Ok(()),
        }
    }
}

impl Drop for CallbackHandle {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::warn!(%error, "a callback's thread had failed");
        }
    }
}
