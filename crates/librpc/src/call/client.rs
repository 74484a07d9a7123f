//! Calling a service.

use std::cell::OnceCell;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::call::error::{CallError, ServeError};
use crate::call::exchange::Exchange;
use crate::call::in_common::{Limit, Shared};
use crate::call::options::CallOptions;
use crate::call::pause::AGAIN;
use crate::call::pending::{Pending, Replies, Reply, Underway};
use crate::call::state::{Begun, Calling, New};
use crate::name::Address;
use crate::node_shared::Owned;
use crate::receive::Wait;
use crate::receive::builder::InboxBuilder;
use crate::receive::receiver::Until;
use crate::registry::wait;
use crate::schema::{CallSchemas, Schema};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::topic::check_topic;
use crate::wire::{self, Caller};

/// How many calls of a client may be in flight by default.
const DEFAULT_IN_FLIGHT: usize = 256;

/// Sets up a client: [`crate::Node::client_builder`].
#[derive(Debug)]
pub struct ClientBuilder<'n> {
    node: &'n Arc<Owned>,
    service: String,
    inbox: InboxBuilder<'n>,
    max_in_flight: usize,
    schemas: Vec<Schema>,
    any: bool,
}

impl<'n> ClientBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, service: &str) -> Self {
        let inbox = InboxBuilder::new(node, Ok(Address::Replies));
        Self {
            node,
            service: service.to_owned(),
            inbox,
            max_in_flight: DEFAULT_IN_FLIGHT,
            schemas: Vec::new(),
            any: false,
        }
    }

    /// How many calls may be in flight, by default 256. Beyond it a call fails at once ([`CallError::Busy`]).
    pub fn max_in_flight(self, calls: usize) -> Self {
        Self { max_in_flight: calls, ..self }
    }

    /// The longest reply, or part of one, in bytes; by default 1 GiB. A longer one is an error of its server's.
    pub fn max_reply(self, bytes: usize) -> Self {
        Self { inbox: self.inbox.max_message(bytes), ..self }
    }

    /// Bytes of the ring in which each server's replies come: see [`crate::InboxBuilder::capacity`].
    pub fn capacity(self, bytes: u64) -> Self {
        Self { inbox: self.inbox.capacity(bytes), ..self }
    }

    /// What the requests and the replies are. A server of other types is not called; if there is no other, a call fails with
    /// [`CallError::Mismatch`]. By default they are bytes without a type, which only reach servers without one. See
    /// [`crate::Node::client_of`].
    pub fn schemas(self, request: Schema, reply: Schema) -> Self {
        Self { schemas: vec![request, reply], ..self }
    }

    /// Calls every server, whatever the types of its requests and replies are: for tools and gateways, which pass bytes on.
    pub fn any_types(self) -> Self {
        Self { any: true, ..self }
    }

    /// How a call waits for its reply.
    pub fn wait(self, wait: Wait) -> Self {
        Self { inbox: self.inbox.wait(wait), ..self }
    }

    /// Opens the client. Does not block, and looks for no server.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn open(self) -> Result<Client, ServeError> {
        let Self { node, service, inbox, max_in_flight, schemas, any } = self;
        check_topic(&service)?;
        let inbox = inbox.open()?;
        let shared = inbox.shared().clone();
        let caller = Caller {
            inbox: shared.number,
            capacity: shared.capacity,
            max_message: shared.max_message,
            schemas: Some(schemas.iter().map(|schema| (&schema.short()).into()).collect())
                .filter(|_| !schemas.is_empty()),
            any: any.then_some(true),
        };
        let schemas = CallSchemas::listed(&schemas, any);
        let service: Arc<str> = service.into();
        let calling =
            Calling::new(node.clone(), service.clone(), shared, (wire::encode(&caller), schemas), max_in_flight);
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

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("node", &self.0.node.id).field("service", &self.0.service).finish()
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
        Ok(Pending(Underway::new(&self.0, number, limit)))
    }

    /// Calls the service, whose reply comes in parts. A server sends 16 parts ahead, and waits until some of them are taken: so a reply
    /// that nobody reads holds up no other. The time limit holds for all parts together.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub fn call_stream(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Replies, CallError> {
        let (number, limit) = self.begin(request, &options.into(), true)?;
        Ok(Replies(Underway::new(&self.0, number, limit)))
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
        let domain = self.0.node.domain().ok_or_else(|| self.closed())?;
        let deadline = Instant::now().checked_add(timeout);
        let look = || Ok::<_, CallError>((!self.servers()?.is_empty()).then_some(()));
        Ok(wait::wait_for(&self.0.node.process().lookout, domain.path(), deadline, look)?.is_some())
    }

    /// Calls the service in a task. As [`Client::call`]. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call_async(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Reply, CallError> {
        self.start_async(request, options).await?.await
    }

    /// Sends a request in a task. As [`Client::start`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn start_async(&self, request: &[u8], options: impl Into<CallOptions>) -> Result<Pending, CallError> {
        let (number, limit) = self.begin_async(request, options.into(), false).await?;
        Ok(Pending(Underway::new(&self.0, number, limit)))
    }

    /// Calls the service in a task; the reply comes in parts. As [`Client::call_stream`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn call_stream_async(
        &self,
        request: &[u8],
        options: impl Into<CallOptions>,
    ) -> Result<Replies, CallError> {
        let (number, limit) = self.begin_async(request, options.into(), true).await?;
        Ok(Replies(Underway::new(&self.0, number, limit)))
    }

    /// Waits in a task until somebody serves the service. As [`Client::wait_for_server`].
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn wait_for_server_async(&self, timeout: Duration) -> Result<bool, CallError> {
        self.wait_for_servers(timeout, |servers| !servers.is_empty()).await
    }

    /// Waits in a task until this node serves the service: see [`CallOptions::to`]. `false`: the time is up.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn wait_for_server_at_async(&self, node: &str, timeout: Duration) -> Result<bool, CallError> {
        self.wait_for_servers(timeout, |servers| servers.iter().any(|server| **server == *node)).await
    }

    async fn wait_for_servers(
        &self,
        timeout: Duration,
        mut are_there: impl FnMut(&[Arc<str>]) -> bool,
    ) -> Result<bool, CallError> {
        let (deadline, mut waiting) = (Instant::now().checked_add(timeout), None);
        poll_fn(|context| {
            let domain = self.0.node.domain().ok_or_else(|| self.closed())?;
            let lookout = &self.0.node.process().lookout;
            let look = || Ok::<_, CallError>(are_there(&self.servers()?).then_some(()));
            wait::poll_for((lookout, domain.path()), &mut waiting, context, deadline, look)
                .map_ok(|found| found.is_some())
        })
        .await
    }

    /// Why servers cannot be looked up.
    fn closed(&self) -> CallError {
        match self.0.exchange.born.is_here() {
            true => CallError::Closed { node: self.0.node.id.clone() },
            false => CallError::Forked,
        }
    }

    async fn begin_async(
        &self,
        request: &[u8],
        options: CallOptions,
        is_stream: bool,
    ) -> Result<(u64, Limit), CallError> {
        let (limit, mut slot, visit) = (Limit::new(options.timeout), OnceCell::new(), self.0.exchange.visit());
        poll_fn(|context| {
            if let Some(number) = self.try_begin(request, &mut slot, &options, limit, is_stream)? {
                return Poll::Ready(Ok((number, limit)));
            }
            let soon = Instant::now() + AGAIN;
            // Replies are taken meanwhile: a server that waits for room for them can go on.
            match self.0.exchange.poll_visit(context, &visit, Some(soon), |_| None::<()>) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.0.not_received(error))),
                Poll::Ready(Ok(_)) => context.waker().wake_by_ref(),
                Poll::Pending => {}
            }
            Poll::Pending
        })
        .await
    }

    /// Sends a request if a server has room for it. `None`: none has just now.
    fn try_begin(
        &self,
        request: &[u8],
        slot: &mut OnceCell<Slot>,
        options: &CallOptions,
        limit: Limit,
        is_stream: bool,
    ) -> Result<Option<u64>, CallError> {
        if !self.0.exchange.born.is_here() {
            return Err(CallError::Forked);
        }
        let new = New { payload: request, slot, options, begun: limit.begun, deadline: limit.as_ns(), is_stream };
        if let Begun::As(number) = self.0.exchange.lock().side.begin(&new)? {
            return Ok(Some(number));
        }
        if limit.is_over() {
            let error = self.0.too_late(limit);
            self.0.exchange.lock().side.not_begun(&error);
            return Err(error);
        }
        Ok(None)
    }

    fn begin(&self, request: &[u8], options: &CallOptions, is_stream: bool) -> Result<(u64, Limit), CallError> {
        let (limit, mut slot) = (Limit::new(options.timeout), OnceCell::new());
        loop {
            if let Some(number) = self.try_begin(request, &mut slot, options, limit, is_stream)? {
                return Ok((number, limit));
            }
            // Replies are taken meanwhile: a server that waits for room for them can go on.
            let soon = Instant::now() + AGAIN;
            let until = limit.deadline.map_or(soon, |deadline| deadline.min(soon));
            self.0
                .exchange
                .wait_for(Until::Deadline(until), |_| None::<()>)
                .map_err(|error| self.0.not_received(error))?;
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
