//! An inbox, which receives messages. It belongs to one thread at a time, and a slow one delays no other.

use crate::sys::clock::Instant;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Head, Kind};

use crate::link::inbox_shared::InboxShared;
use crate::name::{Address, Peer};
use crate::node_shared::Owned;
use crate::receive::message::{Departure, Event, Message, OwnedMessage};
use crate::receive::receiver::{Found, Receiver, Until, Wanted, WatchedBy};
use crate::receive::sample::Sample;
use crate::schema::SchemaMismatch;
use crate::sys::poll::Poll;
use crate::sys::runtime::Runtime;
use crate::sys::tasks::Tasks;
use crate::sys::{OsError, fork};

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

/// Why a receive failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The node was closed.
    #[error("node {node:?} is closed")]
    Closed {
        /// The node.
        node: Arc<str>,
    },
    /// The inbox was opened before a fork, and belongs to the parent process.
    #[error("this inbox belongs to the process that forked this one: open a node of its own here")]
    Forked,
    /// The inbox holds as many samples with large payloads of one sender as it can.
    #[error("node {node:?} holds too many samples with large payloads of one sender: drop some of them first")]
    TooManyHeld {
        /// The node.
        node: Arc<str>,
    },
    /// A publisher's topic is of another type than the subscription wants ([`crate::InboxBuilder::schema`]): none of its messages come.
    /// The next receive goes on with the others.
    #[error("a publisher is not received: {0}")]
    Mismatch(Arc<SchemaMismatch>),
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// What an inbox for calls hears.
pub(crate) enum Heard {
    Record(Spoken),
    Joined(Arc<Peer>),
    /// A sender has left: who, how, and the serial number of its channel.
    Left(Arc<Peer>, Departure, u64),
    /// Its owner is to look at something: [`InboxShared::nudge`].
    Nudged,
}

/// A record that belongs to a call.
pub(crate) struct Spoken {
    /// The serial number of its channel.
    pub(crate) channel: u64,
    pub(crate) kind: Kind,
    /// Which call it belongs to. (A `Caller` belongs to none.)
    pub(crate) number: u64,
    /// Until when a request is of use.
    pub(crate) deadline: Option<u64>,
    pub(crate) sample: Sample,
}

/// An inbox that receives messages on topics: [`crate::Node::subscribe`].
pub type Subscriber = Inbox;

/// Receives messages.
///
/// It is `Send`, and used by one thread at a time. Dropping it closes it, and its senders learn that it is gone. In a forked
/// child it belongs to the parent: each receive fails with [`RecvError::Forked`], and nothing else has an effect.
pub struct Inbox {
    pub(super) receiver: Receiver,
    pub(super) shared: Arc<InboxShared>,
    pub(super) acknowledge: Acknowledge,
    pub(super) born: fork::Born,
    /// The task that waits for it, if one has.
    pub(super) tasks: Option<Arc<Tasks>>,
    /// Which runtime watches it, instead of the background thread.
    pub(super) runtime: Option<Runtime>,
    pub(super) node: Arc<Owned>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("node", &self.node.id).field("address", &self.shared.address).finish()
    }
}

impl Inbox {
    /// Waits for the next message. `None`: a [`StopHandle`] has stopped the inbox, for good.
    ///
    /// The previous message counts as processed now, unless acknowledgement is explicit.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.message(|| Until::Forever)
    }

    /// The next message, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_>>, RecvError> {
        self.message(|| Until::Now)
    }

    /// Waits for the next message, at most this long: with a limit of 0 as [`Inbox::try_recv`]. `None`: the time is up, or the inbox was
    /// stopped.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Message<'_>>, RecvError> {
        self.message(|| until(timeout))
    }

    /// For bindings of other languages: the payload of the next message, if it is like the last one and at hand. It is compiled into its
    /// caller, which saves a call. `None`: any other receive.
    #[doc(hidden)]
    #[inline(always)]
    pub fn recv_at_hand(&mut self) -> Option<&[u8]> {
        self.goes_on_here().then_some(self.receiver.payload())
    }

    /// For bindings: the message that the last receive has returned. Only if it has returned one.
    #[doc(hidden)]
    pub fn received(&self) -> Message<'_> {
        self.receiver.message_found()
    }

    /// Waits for what comes next: a message, a sender that joins or leaves, or a topic that is denied. `None` as in
    /// [`Inbox::recv`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_event(&mut self) -> Result<Option<Event<'_>>, RecvError> {
        self.event(|| Until::Forever)
    }

    /// The next event, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn try_recv_event(&mut self) -> Result<Option<Event<'_>>, RecvError> {
        self.event(|| Until::Now)
    }

    /// Waits for what comes next, at most this long. `None` as in [`Inbox::recv_timeout`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    #[inline]
    pub fn recv_event_timeout(&mut self, timeout: Duration) -> Result<Option<Event<'_>>, RecvError> {
        self.event(|| until(timeout))
    }

    /// Waits for the next message, as a sample: owned, and with a large payload where its sender has put it. `None` as in
    /// [`Inbox::recv`]. The message counts as processed when the next receive is called, as any other, but its payload stays until
    /// the sample is dropped.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooManyHeld`] if 511 samples with large payloads of this sender are held: the message is received once one of
    /// them is dropped. Otherwise any other [`RecvError`].
    pub fn recv_sample(&mut self) -> Result<Option<Sample>, RecvError> {
        self.sample(Until::Forever)
    }

    /// The next message as a sample, if there is one. Does not block. See [`Inbox::recv_sample`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn try_recv_sample(&mut self) -> Result<Option<Sample>, RecvError> {
        self.sample(Until::Now)
    }

    /// Waits for the next message, at most this long, and returns it as a sample. `None` as in [`Inbox::recv_timeout`]. See
    /// [`Inbox::recv_sample`].
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_sample_timeout(&mut self, timeout: Duration) -> Result<Option<Sample>, RecvError> {
        self.sample(until(timeout))
    }

    fn sample(&mut self, until: Until) -> Result<Option<Sample>, RecvError> {
        if !self.goes_on() && self.step(until, Wanted::Messages)?.is_none() {
            return Ok(None);
        }
        match self.receiver.sample() {
            Some(sample) => Ok(Some(sample)),
            None => Err(RecvError::TooManyHeld { node: self.node.id.clone() }),
        }
    }

    /// The messages as they come, each as a copy. It ends when the inbox is stopped.
    ///
    /// A message counts as processed when the next one is requested, unless acknowledgement is explicit.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<OwnedMessage, RecvError>> + '_ {
        std::iter::from_fn(|| self.recv().map(|message| message.map(|message| message.to_owned())).transpose())
    }

    /// Acknowledges every message handed out so far: it is processed, and its room in the ring is free.
    pub fn ack(&mut self) {
        if self.born.is_here() {
            self.receiver.consume(false);
        }
    }

    /// Stops this inbox's receives from another thread, or from a signal handler.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.shared.clone())
    }

    /// The limit is asked for only where the hot path ends: it may read the clock.
    #[inline(always)]
    fn message(&mut self, until: impl FnOnce() -> Until) -> Result<Option<Message<'_>>, RecvError> {
        if self.goes_on() {
            return Ok(Some(self.receiver.message()));
        }
        Ok(self.next_message(until())?.then(|| self.receiver.message_found()))
    }

    #[inline(always)]
    fn event(&mut self, until: impl FnOnce() -> Until) -> Result<Option<Event<'_>>, RecvError> {
        Ok(self.find_event(until)?.and_then(|found| self.event_found(found)))
    }

    #[inline(always)]
    pub(super) fn find_event(&mut self, until: impl FnOnce() -> Until) -> Result<Option<Found>, RecvError> {
        if self.goes_on() { Ok(Some(Found::Message)) } else { self.step(until(), Wanted::Events) }
    }

    #[inline(always)]
    pub(super) fn event_found(&mut self, found: Found) -> Option<Event<'_>> {
        Some(match found {
            Found::Message => {
                self.receiver.copy_lent();
                Event::Message(self.receiver.message_found())
            }
            Found::Joined(peer) => Event::SenderJoined(peer),
            Found::Denied(denial) => match &denial.mismatch {
                Some(mismatch) => Event::Mismatch(mismatch.clone()),
                None => Event::Denied(denial),
            },
            Found::TurnedAway(away) => Event::TurnedAway(*away),
            Found::Refused(refused) => Event::Refused(refused),
            Found::Left(left) => Event::SenderLeft(left.0, left.1),
            Found::Nudged => return None,
        })
    }

    /// What comes next at an inbox for calls, at most until then. The record before counts as processed.
    pub(crate) fn hear(&mut self, until: Until) -> Result<Option<Heard>, RecvError> {
        if self.born.is_here() {
            self.receiver.consume(true);
            if self.receiver.finds_of_call(until != Until::Now) {
                return Ok(Some(self.record()));
            }
        }
        self.hear_slowly(until)
    }

    #[inline(never)]
    fn hear_slowly(&mut self, until: Until) -> Result<Option<Heard>, RecvError> {
        Ok(match self.step(until, Wanted::Events)? {
            None => None,
            // A client of other types is no call. Nothing would say that there is nothing more.
            Some(Found::Nudged | Found::Denied(_) | Found::TurnedAway(_) | Found::Refused(_)) => Some(Heard::Nudged),
            Some(Found::Joined(peer)) => Some(Heard::Joined(peer)),
            Some(Found::Left(left)) => Some(Heard::Left(left.0, left.1, left.2)),
            Some(Found::Message) => Some(self.record()),
        })
    }

    #[inline(always)]
    fn record(&mut self) -> Heard {
        let Head { kind, correlation, deadline, .. } = self.receiver.head;
        let (channel, number) = (self.receiver.serial(), correlation.unwrap_or_default());
        Heard::Record(Spoken { channel, kind, number, deadline, sample: self.receiver.sample_or_copy() })
    }

    /// Ends the channel of this serial number, because its sender has written what no honest one would.
    pub(crate) fn expel(&mut self, channel: u64, why: String) {
        self.receiver.expel(channel, why);
    }

    /// Takes in every channel that has arrived. `true`: nothing about them is left to be heard.
    pub(crate) fn take_in_arrivals(&mut self) -> bool {
        self.receiver.take_in_arrivals()
    }

    /// What becomes ready when there may be something to hear: see [`AsFd`] of [`Inbox`]. From then on, a look that finds nothing leaves
    /// the inbox so that its descriptor announces all that comes.
    pub(crate) fn watch(&self) -> &Arc<Poll> {
        self.receiver.descriptor(WatchedBy::Library)
    }

    /// The descriptor, for a time when it may be [watched](Inbox::watch).
    pub(crate) fn poll(&self) -> Arc<Poll> {
        self.receiver.poll.clone()
    }

    /// The part that other threads reach.
    pub(crate) fn shared(&self) -> &Arc<InboxShared> {
        &self.shared
    }

    /// The hot path: one more message like the last one. The caller builds the message, so that no unused part of it is
    /// written and read again.
    #[inline(never)]
    pub(super) fn goes_on(&mut self) -> bool {
        self.goes_on_here()
    }

    #[inline(always)]
    fn goes_on_here(&mut self) -> bool {
        self.born.is_here() && self.receiver.goes_on(self.acknowledge == Acknowledge::Implicit)
    }

    /// Waits for the next message. `false`: the receive returns `None`.
    #[inline(never)]
    pub(super) fn next_message(&mut self, until: Until) -> Result<bool, RecvError> {
        let found = self.step(until, Wanted::Messages)?.is_some();
        self.receiver.copy_lent();
        Ok(found)
    }

    #[inline(always)]
    fn step(&mut self, until: Until, wanted: Wanted) -> Result<Option<Found>, RecvError> {
        if !self.born.is_here() {
            return Err(RecvError::Forked);
        }
        if self.acknowledge == Acknowledge::Implicit {
            self.receiver.consume(true);
        }
        match self.receiver.next(until, wanted)? {
            Some(Found::Denied(denial)) if wanted == Wanted::Messages => {
                let mismatch = denial.mismatch.as_ref().expect("others are for those who ask for events");
                Err(RecvError::Mismatch(mismatch.clone()))
            }
            None if self.shared.is_closed() => Err(RecvError::Closed { node: self.node.id.clone() }),
            found => Ok(found),
        }
    }
}

/// A limit as a point in time. None at all does not wait; one that is too far away counts as no limit.
pub(super) fn until(limit: Duration) -> Until {
    if limit.is_zero() {
        return Until::Now;
    }
    Instant::now().checked_add(limit).map_or(Until::Forever, Until::Deadline)
}

/// For other event loops: `poll`, `epoll`, mio. The descriptor is readable while there may be something to receive, until a receive that
/// does not wait has found nothing ([`Inbox::try_recv`], [`Inbox::try_recv_event`], [`Inbox::try_recv_sample`]). So a loop that is told of the
/// state (`poll`, level-triggered `epoll`) may take one message at a time. One that is told only of changes (edge-triggered `epoll`, mio) takes
/// messages until there are none, as with any descriptor. In a forked child it is the number of no open file: waiting for it fails.
///
/// While it is used, a receive that finds the first of several messages makes one more system call, and so does the one that finds nothing.
impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.descriptor(WatchedBy::Program).as_fd()
    }
}

/// As [`AsFd`], for libraries that want the number.
impl AsRawFd for Inbox {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if !self.born.is_here() {
            let _ = ManuallyDrop::new(self.runtime.take()); // another thread may have had its locks when the process forked
            return;
        }
        if let Some(tasks) = &self.tasks {
            tasks.close();
        }
        if self.acknowledge == Acknowledge::Implicit && !std::thread::panicking() {
            self.receiver.consume(false);
        }
        self.node.withdraw(&self.shared);
    }
}

/// Stops the receives of an inbox, or of a server: [`Inbox::stop_handle`], [`crate::Server::stop_handle`].
#[derive(Clone)]
pub struct StopHandle(Arc<InboxShared>);

impl StopHandle {
    /// Makes the receives return `None`: the one in progress and all later ones. Async-signal-safe. In a forked child it
    /// has no effect.
    pub fn stop(&self) {
        match self.0.address {
            Address::Service(_) => self.0.wind_down(),
            _ => self.0.stop(),
        }
    }
}

impl std::fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StopHandle")
    }
}
