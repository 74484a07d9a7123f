//! Calling a service.

use std::cell::OnceCell;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;

use crate::call::error::{CallError, ServeError};
use crate::call::exchange::Exchange;
use crate::call::options::CallOptions;
use crate::call::outgoing::Payload;
use crate::call::state::{Begun, Calling, New};
use crate::name::Address;
use crate::node_shared::Owned;
use crate::receive::builder::InboxBuilder;
use crate::receive::inbox::RecvError;
use crate::receive::receiver::Until;
use crate::receive::{DEFAULT_CAPACITY, Sample, Wait};
use crate::registry::wait;
use crate::stats::CallFailure;
use crate::sys::clock::Instant;
use crate::topic::check_topic;
use crate::wire::{self, Caller, DEFAULT_MAX_MESSAGE};

/// How many calls of a client may be in flight by default.
const DEFAULT_IN_FLIGHT: usize = 256;
/// How soon a request for which no server has room is tried again, at the latest.
const AGAIN: Duration = Duration::from_millis(1);

/// Sets up a client: [`crate::Node::client_builder`].
#[derive(Debug)]
pub struct ClientBuilder<'n> {
    node: &'n Arc<Owned>,
    service: String,
    capacity: u64,
    max_reply: usize,
    max_in_flight: usize,
    wait: Wait,
}

impl<'n> ClientBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, service: &str) -> Self {
        Self {
            node,
            service: service.to_owned(),
            capacity: DEFAULT_CAPACITY,
            max_reply: DEFAULT_MAX_MESSAGE as usize,
            max_in_flight: DEFAULT_IN_FLIGHT,
            wait: Wait::default(),
        }
    }

    /// How many calls may be in flight, by default 256. Beyond it a call fails at once ([`CallError::Busy`]).
    pub fn max_in_flight(self, calls: usize) -> Self {
        Self { max_in_flight: calls, ..self }
    }

    /// The longest reply, or part of one, in bytes; by default 1 GiB. A longer one is an error of its server's.
    pub fn max_reply(self, bytes: usize) -> Self {
        Self { max_reply: bytes, ..self }
    }

    /// Bytes of the ring in which each server's replies come: see [`crate::InboxBuilder::capacity`].
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: bytes, ..self }
    }

    /// How a call waits for its reply.
    pub fn wait(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// Opens the client. Does not block, and looks for no server.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn open(self) -> Result<Client, ServeError> {
        let Self { node, service, capacity, max_reply, max_in_flight, wait } = self;
        check_topic(&service)?;
        let builder = InboxBuilder::new(node, Ok(Address::Replies));
        let inbox = builder.capacity(capacity).max_message(max_reply).wait(wait).open()?;
        let shared = inbox.shared().clone();
        let caller = Caller { inbox: shared.number, capacity: shared.capacity, max_message: shared.max_message };
        let service: Arc<str> = service.into();
        let calling = Calling::new(node.clone(), service.clone(), shared, wire::encode(&caller), max_in_flight);
        Ok(Client(Arc::new(Shared {
            exchange: Exchange::new(inbox, calling, node.reactor()),
            node: node.clone(),
            service,
        })))
    }
}

/// Calls a service: [`crate::Node::client`].
///
/// Any number of threads may use it, and it can be cloned. A call goes to the server with the fewest unanswered requests. A request
/// that no server had taken when it died goes to another one; one that was taken comes back as [`CallError::ServerDied`], unless
/// it is marked as [idempotent](CallOptions::idempotent): so none is carried out twice.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_client_{}", std::process::id()));
/// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
/// use std::time::Duration;
///
/// let (robot, planner) = (open("robot")?, open("planner")?);
/// let server = planner.serve("plan/route")?;
/// let serving = std::thread::spawn(move || {
///     let request = server.recv().unwrap().expect("nobody stops this server");
///     let reply = request.to_ascii_uppercase();
///     request.reply(&reply)
/// });
/// let client = robot.client("plan/route")?;
/// let reply = client.call(b"to the dock", Duration::from_secs(1))?;
/// assert_eq!(&*reply, b"TO THE DOCK");
/// # serving.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    exchange: Exchange<Calling>,
    node: Arc<Owned>,
    service: Arc<str>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.0.node.id).field("service", &self.0.service).finish()
    }
}

/// Until when a call may wait.
#[derive(Clone, Copy, Debug)]
struct Limit {
    begun: Instant,
    timeout: Duration,
    deadline: Option<Instant>,
}

impl Limit {
    fn new(timeout: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, timeout, deadline: begun.checked_add(timeout) }
    }

    fn until(self) -> Until {
        self.deadline.map_or(Until::Forever, Until::Deadline)
    }

    fn is_over(self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// As a request carries it.
    fn as_ns(self) -> Option<u64> {
        self.deadline.map(Instant::as_ns)
    }
}

impl Client {
    /// The service.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// Calls the service, and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn call(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Reply, CallError> {
        self.start(request, options)?.wait()
    }

    /// Sends a request, and waits only where no server has room for it. The reply is taken from what this returns; dropping that
    /// cancels the call.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn start(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Pending, CallError> {
        let (number, limit) = self.begin(request, &options.into(), false)?;
        Ok(Pending(Underway::new(self, number, limit)))
    }

    /// Calls the service, whose reply comes in parts. A server sends 16 parts ahead, and waits until some of them are taken: so a reply
    /// that nobody reads holds up no other. The time limit holds for all parts together.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn call_stream(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Replies, CallError> {
        let (number, limit) = self.begin(request, &options.into(), true)?;
        Ok(Replies(Underway::new(self, number, limit)))
    }

    /// Calls every server of the service, and waits for all replies.
    ///
    /// # Errors
    ///
    /// [`CallError`] if the servers could not be looked up. What a server has not answered is in the list.
    pub fn call_all(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Vec<Answer>, CallError> {
        let options = options.into();
        let limit = Limit::new(options.timeout);
        let start = |node: Arc<str>| {
            let left =
                limit.deadline.map_or(options.timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            let begun = self.start(request, CallOptions { timeout: left, ..options.clone() }.to(&node));
            (node, begun)
        };
        let begun: Vec<_> = self.servers()?.into_iter().map(start).collect();
        Ok(begun.into_iter().map(|(node, begun)| Answer { node, reply: begun.and_then(Pending::wait) }).collect())
    }

    /// The nodes that serve the service just now. Does not block.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn servers(&self) -> Result<Vec<Arc<str>>, CallError> {
        if !self.0.exchange.born.is_here() {
            return Err(CallError::Forked);
        }
        self.0.exchange.lock().side.server_nodes()
    }

    /// Waits up to a limit until somebody serves the service. `false`: the time is up.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn wait_for_server(&self, timeout: Duration) -> Result<bool, CallError> {
        let closed = || match self.0.exchange.born.is_here() {
            true => CallError::Closed { node: self.0.node.id.clone() },
            false => CallError::Forked,
        };
        let domain = self.0.node.domain().ok_or_else(closed)?;
        let deadline = Instant::now().checked_add(timeout);
        let look = || Ok::<_, CallError>((!self.servers()?.is_empty()).then_some(()));
        Ok(wait::wait_for(&self.0.node.process().lookout, domain.path(), deadline, look)?.is_some())
    }

    fn begin(&self, request: &[u8], options: &CallOptions, is_stream: bool) -> Result<(u64, Limit), CallError> {
        if !self.0.exchange.born.is_here() {
            return Err(CallError::Forked);
        }
        let (limit, slot) = (Limit::new(options.timeout), OnceCell::new());
        let new =
            New { payload: request, slot: &slot, options, begun: limit.begun, deadline: limit.as_ns(), is_stream };
        loop {
            if let Begun::As(number) = self.0.exchange.lock().side.begin(&new)? {
                return Ok((number, limit));
            }
            if limit.is_over() {
                let error = self.too_late(limit);
                self.0.exchange.lock().side.not_begun(&error);
                return Err(error);
            }
            // Replies are taken meanwhile: a server that waits for room for them can go on.
            let soon = Instant::now() + AGAIN;
            let until = limit.deadline.map_or(soon, |deadline| deadline.min(soon));
            self.0
                .exchange
                .wait_for(Until::Deadline(until), |_| None::<()>)
                .map_err(|error| self.not_received(error))?;
        }
    }

    fn too_late(&self, limit: Limit) -> CallError {
        CallError::Deadline { service: self.0.service.clone(), timeout: limit.timeout }
    }

    fn not_received(&self, error: RecvError) -> CallError {
        match error {
            RecvError::Closed { node } => CallError::Closed { node },
            RecvError::Forked => CallError::Forked,
            source => CallError::Receive { service: self.0.service.clone(), source: Arc::new(source) },
        }
    }
}

/// What one of several servers has answered: [`Client::call_all`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The server's node.
    pub node: Arc<str>,
    /// Its reply, or the error with which the call ended.
    pub reply: Result<Reply, CallError>,
}

/// A call that is under way. Dropping it cancels it.
struct Underway {
    client: Client,
    number: u64,
    limit: Limit,
    is_over: bool,
    /// How it has ended if it is dropped now.
    dropped: CallFailure,
}

impl Underway {
    fn new(client: &Client, number: u64, limit: Limit) -> Self {
        Self { client: client.clone(), number, limit, is_over: false, dropped: CallFailure::Cancelled }
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
        if !self.client.0.exchange.born.is_here() {
            return Some(Err(CallError::Forked));
        }
        let error = match self.client.0.exchange.wait_for(until, |side| find(side, number)) {
            Ok(Some(found)) => return Some(found),
            Ok(None) if self.limit.is_over() => self.client.too_late(self.limit),
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
        let exchange = &self.client.0.exchange;
        if !exchange.born.is_here() {
            return Poll::Ready(Err(CallError::Forked));
        }
        let error = match exchange.poll_for(context, (number, self.limit.deadline), |side| find(side, number)) {
            Ok(Poll::Ready(found)) => return Poll::Ready(found),
            Ok(Poll::Pending) if self.limit.is_over() => self.client.too_late(self.limit),
            Ok(Poll::Pending) => return Poll::Pending,
            Err(error) => self.client.not_received(error),
        };
        self.dropped = error.kind();
        Poll::Ready(Err(error))
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
        if !self.client.0.exchange.born.is_here() {
            return;
        }
        self.client.0.exchange.tasks.forget(self.number);
        if !self.is_over {
            self.client.0.exchange.lock().side.abandon(self.number, self.dropped);
        }
    }
}

/// Cancels a call from another thread, or from a task: [`Pending::cancel_handle`], [`Replies::cancel_handle`].
#[derive(Clone)]
pub struct CancelHandle {
    client: Client,
    number: u64,
}

impl CancelHandle {
    /// The call ends with [`CallError::Cancelled`], unless it has ended already, and its server learns that. Does not block.
    pub fn cancel(&self) {
        let exchange = &self.client.0.exchange;
        if exchange.born.is_here() {
            exchange.change(|side| side.cancel_call(self.number));
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("service", &self.client.0.service).field("number", &self.number).finish()
    }
}

/// A call whose reply is waited for: [`Client::start`]. Dropping it cancels the call: nothing is delivered afterwards, and the server
/// learns it.
pub struct Pending(Underway);

impl Pending {
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
        self.0.is_over = !matches!(answer, Err(CallError::Deadline { .. } | CallError::Receive { .. }));
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
        f.debug_struct("Pending").field("service", &self.0.client.0.service).field("number", &self.0.number).finish()
    }
}

/// The parts of a reply, as they come: [`Client::call_stream`]. It ends after the last part, or with an error. Dropping it cancels the
/// call.
pub struct Replies(Underway);

impl Replies {
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
                if self.0.client.0.exchange.born.is_here() {
                    self.0.client.0.exchange.lock().side.abandon(self.0.number, CallFailure::Cancelled);
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
        f.debug_struct("Replies").field("service", &self.0.client.0.service).field("number", &self.0.number).finish()
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
