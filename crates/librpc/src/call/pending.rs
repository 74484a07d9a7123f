//! Calls that are under way, and what comes of them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use crate::call::error::CallError;
use crate::call::in_common::{Limit, Shared};
use crate::call::outgoing::Payload;
use crate::call::state::Calling;
use crate::call::waited::{Waited, WaitedAnswer};
use crate::receive::Sample;
use crate::receive::receiver::Until;
use crate::stats::CallFailure;
use crate::sys::clock::Instant;

/// A call that is under way. Dropping it cancels it.
pub(super) struct Underway {
    client: Arc<Shared>,
    number: u64,
    limit: Limit,
    is_over: bool,
    /// A task may have left its waker.
    was_polled: bool,
    /// How it has ended if it is dropped now.
    dropped: CallFailure,
}

impl Underway {
    pub(super) fn new(client: &Arc<Shared>, number: u64, limit: Limit) -> Self {
        let (is_over, was_polled, dropped) = (false, false, CallFailure::Cancelled);
        Self { client: client.clone(), number, limit, is_over, was_polled, dropped }
    }

    fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { client: self.client.clone(), number: self.number }
    }

    /// Waits until this finds the answer, or the time of the call is up.
    fn wait<T>(
        &mut self,
        until: Until,
        mut find: impl FnMut(&mut Calling, u64) -> Option<Result<T, CallError>>,
    ) -> Option<Result<T, CallError>> {
        let number = self.number;
        if !self.client.exchange.born.is_here() {
            return Some(Err(CallError::Forked));
        }
        let error = match self.client.exchange.wait_for(until, |side| find(side, number)) {
            Ok(Some(found)) => return Some(found),
            Ok(None) if self.limit.is_over() => self.client.not_in_time(number, self.limit),
            Ok(None) => return None,
            Err(error) => self.client.not_received(error),
        };
        self.dropped = error.kind();
        Some(Err(error))
    }

    /// The same for a task, which is woken when it is to look again.
    fn poll<T>(
        &mut self,
        context: &Context<'_>,
        mut find: impl FnMut(&mut Calling, u64) -> Option<Result<T, CallError>>,
    ) -> Poll<Result<T, CallError>> {
        let number = self.number;
        let exchange = &self.client.exchange;
        if !exchange.born.is_here() {
            return Poll::Ready(Err(CallError::Forked));
        }
        self.was_polled = true;
        let error = match exchange.poll_for(context, (number, self.limit.deadline), |side| find(side, number)) {
            Ok(Poll::Ready(found)) => return Poll::Ready(found),
            Ok(Poll::Pending) if self.limit.is_over() => self.client.not_in_time(number, self.limit),
            Ok(Poll::Pending) => return Poll::Pending,
            Err(error) => self.client.not_received(error),
        };
        self.dropped = error.kind();
        Poll::Ready(Err(error))
    }

    /// As a wait set waits for it.
    fn waited(&self) -> Arc<dyn Waited> {
        let Self { client, number, limit, .. } = self;
        Arc::new(WaitedAnswer {
            client: Arc::downgrade(client),
            number: *number,
            limit: *limit,
            visit: client.exchange.visit(),
        })
    }

    /// Up to this limit, but not beyond that of the call.
    fn within(&self, timeout: Duration) -> Until {
        let soon = Instant::now().checked_add(timeout);
        match (soon, self.limit.deadline) {
            (Some(soon), Some(deadline)) => Until::Deadline(soon.min(deadline)),
            (Some(one), None) | (None, Some(one)) => Until::Deadline(one),
            (None, None) => Until::Forever,
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        if !self.client.exchange.born.is_here() {
            return;
        }
        if self.was_polled {
            self.client.exchange.tasks.forget(self.number);
        }
        if !self.is_over {
            self.client.exchange.lock().side.abandon(self.number, self.dropped);
        }
    }
}

/// Cancels a call from another thread, or from a task: [`Pending::cancel_handle`], [`Replies::cancel_handle`].
#[derive(Clone)]
pub struct CancelHandle {
    client: Arc<Shared>,
    number: u64,
}

impl CancelHandle {
    /// The call ends with [`CallError::Cancelled`], unless it has ended already, and its server learns that. Does not block.
    pub fn cancel(&self) {
        let exchange = &self.client.exchange;
        if exchange.born.is_here() {
            exchange.change(|side| side.cancel_call(self.number));
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("service", &self.client.service).field("number", &self.number).finish()
    }
}

/// A call whose reply is waited for: [`crate::Client::start`]. Dropping it cancels the call: nothing is delivered afterwards, and the server
/// learns it.
pub struct Pending(pub(super) Underway);

impl Pending {
    /// As a wait set waits for it.
    pub(crate) fn waited(&self) -> Arc<dyn Waited> {
        self.0.waited()
    }

    /// Waits for the reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait(mut self) -> Result<Reply, CallError> {
        let until = self.0.limit.until();
        loop {
            if let Some(answer) = self.answer(until) {
                return answer;
            }
        }
    }

    /// The reply, if it has come. Does not block. `None`: it has not. Once it has returned an answer, it is not called again.
    pub fn try_wait(&mut self) -> Option<Result<Reply, CallError>> {
        self.answer(Until::Now)
    }

    /// Waits for the reply, at most this long. `None`: it has not come.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<Result<Reply, CallError>> {
        self.answer(self.0.within(timeout))
    }

    /// Cancels the call from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.0.cancel_handle()
    }

    fn answer(&mut self, until: Until) -> Option<Result<Reply, CallError>> {
        if self.0.is_over {
            return None;
        }
        let answer = self.0.wait(until, Calling::reply)?;
        Some(self.ended(answer))
    }

    fn ended(&mut self, answer: Result<Sample, CallError>) -> Result<Reply, CallError> {
        // One that is over in another way is still known: it is cancelled when this is dropped.
        self.0.is_over =
            !matches!(answer, Err(CallError::Deadline { .. } | CallError::Lookup { .. } | CallError::Receive { .. }));
        answer.map(|sample| Reply(Payload::new(sample)))
    }
}

/// A task waits for the reply without a thread: the process's background thread wakes it, in any executor. After it has returned an
/// answer, it is not polled again.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_future_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// # use std::task::{Context, Poll, Waker};
/// # fn block_on<T>(future: impl Future<Output = T>) -> T {
/// #     let mut future = std::pin::pin!(future);
/// #     loop {
/// #         if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) { return done; }
/// #     }
/// # }
/// use std::time::Duration;
///
/// let (robot, planner) = (open("robot")?, open("planner")?);
/// let server = planner.serve("plan/route")?;
/// let client = robot.client("plan/route")?;
/// let call = async { client.start(b"to the dock", Duration::from_secs(5))?.await };
/// # let serving = std::thread::spawn(move || server.recv().unwrap().unwrap().reply(b"north"));
/// assert_eq!(&*block_on(call)?, b"north"); // any executor's
/// # serving.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Future for Pending {
    type Output = Result<Reply, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.0.is_over, "a call that has returned its answer is not polled again");
        let answer = ready!(self.0.poll(context, Calling::reply));
        Poll::Ready(self.ended(answer))
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("service", &self.0.client.service).field("number", &self.0.number).finish()
    }
}

/// The parts of a reply, as they come: [`crate::Client::call_stream`]. It ends after the last part, or with an error. Dropping it cancels the
/// call.
pub struct Replies(pub(super) Underway);

impl Replies {
    /// As a wait set waits for it.
    pub(crate) fn waited(&self) -> Arc<dyn Waited> {
        self.0.waited()
    }

    /// The next part, if it has come. Does not block. `None`: it has not, or the reply is over ([`Replies::is_over`]).
    pub fn try_next(&mut self) -> Option<Result<Reply, CallError>> {
        self.part(Until::Now)
    }

    /// Waits for the next part, at most this long. `None`: it has not come, or the reply is over ([`Replies::is_over`]).
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<Reply, CallError>> {
        self.part(self.0.within(timeout))
    }

    /// Cancels the call from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.0.cancel_handle()
    }

    /// Whether the last part, or an error, was returned.
    pub fn is_over(&self) -> bool {
        self.0.is_over
    }

    fn part(&mut self, until: Until) -> Option<Result<Reply, CallError>> {
        if self.0.is_over {
            return None;
        }
        let part = self.0.wait(until, Calling::next_part)?;
        self.taken(part)
    }

    fn taken(&mut self, part: Result<Option<Sample>, CallError>) -> Option<Result<Reply, CallError>> {
        match part {
            Ok(Some(sample)) => Some(Ok(Reply(Payload::new(sample)))),
            Ok(None) => {
                self.0.is_over = true;
                None
            }
            Err(error) => {
                if self.0.client.exchange.born.is_here() {
                    self.0.client.exchange.lock().side.abandon(self.0.number, self.0.dropped);
                }
                self.0.is_over = true;
                Some(Err(error))
            }
        }
    }
}

/// A task takes the parts without a thread, as it waits for a [`Pending`].
impl Stream for Replies {
    type Item = Result<Reply, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0.is_over {
            return Poll::Ready(None);
        }
        let part = ready!(self.0.poll(context, Calling::next_part));
        Poll::Ready(self.taken(part))
    }
}

impl Iterator for Replies {
    type Item = Result<Reply, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let until = self.0.limit.until();
        loop {
            let part = self.part(until);
            if part.is_some() || self.0.is_over {
                return part;
            }
        }
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("service", &self.0.client.service).field("number", &self.0.number).finish()
    }
}

/// A reply, or a part of one: its bytes. A long one is copied out of its server's memory when it is first read as a slice; as a
/// [`Sample`] it is read in place.
pub struct Reply(Payload);

impl Reply {
    /// The node of the server.
    pub fn server(&self) -> &str {
        self.0.sample().sender()
    }

    /// Its bytes, to be read where they are.
    pub fn sample(&self) -> &Sample {
        self.0.sample()
    }

    /// The same, without the reply.
    pub fn into_sample(self) -> Sample {
        self.0.into_sample()
    }
}

impl std::ops::Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("server", &self.server()).field("bytes", &self.0.sample().len()).finish()
    }
}
