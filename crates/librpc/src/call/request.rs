//! A request at its server, and its answer.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use librpc_ring::Kind;

use crate::call::caller::{Arrived, WorkId};
use crate::call::error::ReplyError;
use crate::call::exchange::Exchange;
use crate::call::outgoing::Payload;
use crate::call::work::Serving;
use crate::name::Peer;
use crate::receive::Sample;
use crate::receive::inbox::RecvError;
use crate::receive::receiver::Until;
use crate::sys::clock::{Instant, now_ns};
use crate::wire::Cause;

/// Which request it is, and whether it was answered.
struct Answering {
    exchange: Arc<Exchange<Serving>>,
    caller: u64,
    number: u64,
    work: WorkId,
    deadline: Option<u64>,
    is_answered: bool,
}

impl Answering {
    fn answer(&mut self, kind: Kind, payload: &[u8]) -> Result<bool, ReplyError> {
        if !self.exchange.born.is_here() {
            return Err(ReplyError::Forked);
        }
        self.is_answered |= kind != Kind::Part;
        self.exchange.lock().side.answered((self.caller, self.number, self.work), kind, payload)
    }

    fn fail(&mut self, cause: Cause, code: i32, text: &str) -> Result<(), ReplyError> {
        if !self.exchange.born.is_here() {
            return Err(ReplyError::Forked);
        }
        self.is_answered = true;
        let request = (self.caller, self.number, self.work);
        self.exchange.lock().side.failed(request, (cause, code, text)).map(drop)
    }

    /// Whether the client no longer waits. What has come at the server is taken in first, unless another thread does that.
    fn is_cancelled(&self) -> bool {
        if !self.exchange.born.is_here() {
            return false;
        }
        let look = |side: &mut Serving| side.is_cancelled(self.work).then_some(());
        match self.exchange.wait_for(Until::Now, look) {
            Ok(found) => found.is_some(),
            Err(error) => {
                tracing::debug!(%error, "whether a request was cancelled is not known");
                self.exchange.lock().side.is_cancelled(self.work)
            }
        }
    }

    fn time_left(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.deadline?.saturating_sub(now_ns())))
    }
}

impl Drop for Answering {
    /// Its client is never left without an answer.
    fn drop(&mut self) {
        if self.is_answered || !self.exchange.born.is_here() {
            return;
        }
        let text = match std::thread::panicking() {
            true => "the server panicked over the request",
            false => "the server dropped the request unanswered",
        };
        let _ = self.fail(Cause::Dropped, 0, text); // a client that is gone needs none
    }
}

/// A request: [`crate::Server::recv`]. Any thread may answer it, and requests may be answered in any order. Its bytes are those of the
/// client: a long one is copied out of the client's memory when it is first read as a slice.
///
/// Dropping it unanswered, also by a panic, gives the client [`crate::CallError::Failed`].
pub struct Request {
    answering: Answering,
    payload: Payload,
}

impl Request {
    pub(super) fn new(exchange: Arc<Exchange<Serving>>, arrived: Arrived) -> Self {
        let Arrived { caller, number, work, sample, deadline } = arrived;
        let answering = Answering { exchange, caller, number, work, deadline, is_answered: false };
        Self { answering, payload: Payload::new(sample) }
    }

    /// The id of the client's node.
    pub fn client(&self) -> &str {
        &self.peer().node
    }

    /// Who asks, as the kernel and the registry know it.
    pub fn peer(&self) -> &Arc<Peer> {
        self.payload.sample().peer()
    }

    /// Its bytes, to be read where they are.
    pub fn sample(&self) -> &Sample {
        self.payload.sample()
    }

    /// How long the client still waits; `None`: without a limit. A call made on its behalf can pass this on as its own limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.answering.time_left()
    }

    /// Whether the client no longer waits: its time is up, it has cancelled the call, or it is gone. An answer has no effect then.
    pub fn is_cancelled(&self) -> bool {
        self.answering.is_cancelled() || self.time_left().is_some_and(|left| left.is_zero())
    }

    /// Answers the request. Does not block, except for up to 10 ms where a client is mapping new memory for long replies, a few times in
    /// its life: what a client has no room for waits here, up to 64 MiB for each client, and
    /// [`crate::Limits::waiting_bytes_per_user`] for all clients of a user. A client that no longer waits, or is gone, is no error.
    ///
    /// # Errors
    ///
    /// [`ReplyError`]. The client gets [`crate::CallError::Failed`] then.
    pub fn reply(mut self, reply: &[u8]) -> Result<(), ReplyError> {
        self.answering.answer(Kind::Reply, reply).map(drop)
    }

    /// Says that the request has failed: [`crate::CallError::Failed`]. Does not block.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub fn fail(mut self, code: i32, message: &str) -> Result<(), ReplyError> {
        self.answering.fail(Cause::Program, code, message)
    }

    /// Says that the server does not know such requests: [`crate::CallError::Unimplemented`]. Does not block.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub fn unimplemented(mut self, message: &str) -> Result<(), ReplyError> {
        self.answering.fail(Cause::Unimplemented, 0, message)
    }

    /// Answers in parts.
    pub fn stream(self) -> ReplyStream {
        let peer = self.payload.sample().peer().clone();
        ReplyStream { answering: self.answering, peer }
    }
}

impl std::ops::Deref for Request {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("client", &self.client()).field("payload", &self.payload).finish()
    }
}

/// An answer in parts: [`Request::stream`]. Dropping it before [`ReplyStream::finish`] gives the client
/// [`crate::CallError::Failed`].
pub struct ReplyStream {
    answering: Answering,
    peer: Arc<Peer>,
}

impl ReplyStream {
    /// Sends a part, and waits until the client takes it, at most until the time of the call is up. A client takes 16 parts ahead.
    ///
    /// # Errors
    ///
    /// [`ReplyError::Cancelled`] and [`ReplyError::Deadline`] say that nobody waits any more. Otherwise any other [`ReplyError`].
    pub fn send(&mut self, part: &[u8]) -> Result<(), ReplyError> {
        let until = match self.answering.time_left() {
            Some(left) => Instant::now().checked_add(left).map_or(Until::Forever, Until::Deadline),
            None => Until::Forever,
        };
        self.send_until(part, until)?.ok_or_else(|| ReplyError::Deadline { node: self.peer.node.clone() })
    }

    /// Sends a part, if the client takes it now. Does not block. `false`: it does not.
    ///
    /// # Errors
    ///
    /// As [`ReplyStream::send`].
    pub fn try_send(&mut self, part: &[u8]) -> Result<bool, ReplyError> {
        Ok(self.send_until(part, Until::Now)?.is_some())
    }

    fn send_until(&mut self, part: &[u8], until: Until) -> Result<Option<()>, ReplyError> {
        if !self.answering.exchange.born.is_here() {
            return Err(ReplyError::Forked);
        }
        let exchange = self.answering.exchange.clone();
        let may_send = exchange.wait_for(until, |side| side.may_send_part(self.answering.work));
        self.send_if(part, may_send)
    }

    /// Sends a part in a task. As [`ReplyStream::send`]. A future that is dropped has not sent it.
    ///
    /// # Errors
    ///
    /// As [`ReplyStream::send`].
    pub async fn send_async(&mut self, part: &[u8]) -> Result<(), ReplyError> {
        let until = self.time_left().and_then(|left| Instant::now().checked_add(left));
        let exchange = self.answering.exchange.clone();
        let visit = exchange.visit();
        let look = |context: &mut Context<'_>| match exchange.born.is_here() {
            true => exchange.poll_visit(context, &visit, until, |side| side.may_send_part(self.answering.work)),
            false => Poll::Ready(Err(RecvError::Forked)),
        };
        let may_send = poll_fn(look).await;
        self.send_if(part, may_send)?.ok_or_else(|| ReplyError::Deadline { node: self.peer.node.clone() })
    }

    fn send_if(&mut self, part: &[u8], may_send: Result<Option<bool>, RecvError>) -> Result<Option<()>, ReplyError> {
        let may_send = may_send.map_err(|error| match error {
            RecvError::Forked => ReplyError::Forked,
            error => ReplyError::Receive(Arc::new(error)),
        })?;
        match may_send {
            None => Ok(None),
            Some(true) if self.answering.answer(Kind::Part, part)? => Ok(Some(())),
            Some(_) => Err(ReplyError::Cancelled { node: self.peer.node.clone() }),
        }
    }

    /// As [`Request::is_cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.answering.is_cancelled() || self.time_left().is_some_and(|left| left.is_zero())
    }

    /// As [`Request::time_left`].
    pub fn time_left(&self) -> Option<Duration> {
        self.answering.time_left()
    }

    /// Ends the answer. Does not block.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub fn finish(mut self) -> Result<(), ReplyError> {
        self.answering.answer(Kind::End, &[]).map(drop)
    }

    /// Says that the request has failed. The parts that were sent are delivered before. Does not block.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    pub fn fail(mut self, code: i32, message: &str) -> Result<(), ReplyError> {
        self.answering.fail(Cause::Program, code, message)
    }
}

impl fmt::Debug for ReplyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyStream").field("client", &self.peer.node).finish()
    }
}
