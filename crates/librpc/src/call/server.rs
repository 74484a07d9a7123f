//! Serving a service.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::call::caller::Arrived;
use crate::call::error::ServeError;
use crate::call::exchange::{Exchange, Visit};
use crate::call::request::Request;
use crate::call::waited::{Waited, WaitedRequest};
use crate::call::work::Serving;
use crate::name::Address;
use crate::node_shared::Owned;
use crate::receive::builder::InboxBuilder;
use crate::receive::inbox::RecvError;
use crate::receive::receiver::Until;
use crate::receive::{StopHandle, Wait};
use crate::schema::Schema;
use crate::send::publisher::LENDING_GRACE;
use crate::sys::clock::Instant;
use crate::topic::check_topic;

/// How many requests may be in flight by default, of all clients and of each.
const DEFAULT_IN_FLIGHT: usize = 4096;
const DEFAULT_PER_CLIENT: usize = 256;
/// How long a server that is dropped waits for clients that have no room for their answers.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Sets up a server: [`crate::Node::server_builder`].
#[derive(Debug)]
pub struct ServerBuilder<'n> {
    node: &'n Arc<Owned>,
    service: Arc<str>,
    inbox: InboxBuilder<'n>,
    max_in_flight: usize,
    max_per_client: usize,
    schemas: Vec<Schema>,
    lending_grace: Duration,
}

impl<'n> ServerBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, service: &str) -> Self {
        let service: Arc<str> = service.into();
        let inbox = InboxBuilder::new(node, Ok(Address::Service(service.clone())));
        Self {
            node,
            service,
            inbox,
            max_in_flight: DEFAULT_IN_FLIGHT,
            max_per_client: DEFAULT_PER_CLIENT,
            schemas: Vec::new(),
            lending_grace: LENDING_GRACE,
        }
    }

    /// For tests on a machine that is busy: how long a reply waits for a client that is mapping new memory.
    #[cfg(test)]
    pub(crate) fn lending_grace(self, grace: Duration) -> Self {
        Self { lending_grace: grace, ..self }
    }

    /// How many requests may be taken and not answered, by default 4,096. Those beyond it fail at once
    /// ([`crate::CallError::Busy`]).
    pub fn max_in_flight(self, requests: usize) -> Self {
        Self { max_in_flight: requests, ..self }
    }

    /// The same for each client, by default 256.
    pub fn max_per_client(self, requests: usize) -> Self {
        Self { max_per_client: requests, ..self }
    }

    /// The longest request in bytes, by default 1 GiB. A longer one is an error of its client's.
    pub fn max_request(self, bytes: usize) -> Self {
        Self { inbox: self.inbox.max_message(bytes), ..self }
    }

    /// Bytes of the ring in which each client's requests come: see [`crate::InboxBuilder::capacity`].
    pub fn capacity(self, bytes: u64) -> Self {
        Self { inbox: self.inbox.capacity(bytes), ..self }
    }

    /// What the requests and the replies are. A client of other types, or of none, does not reach the server: its call fails with
    /// [`crate::CallError::Mismatch`]. By default, every client without types reaches it. See [`crate::Node::serve_of`].
    pub fn schemas(self, request: Schema, reply: Schema) -> Self {
        Self { schemas: vec![request, reply], ..self }
    }

    /// How the server waits.
    pub fn wait(self, wait: Wait) -> Self {
        Self { inbox: self.inbox.wait(wait), ..self }
    }

    /// Opens the server. Every call that begins after this has returned, in any process, finds it. Does not block, except for about a
    /// millisecond in a shared domain.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn open(self) -> Result<Server, ServeError> {
        let Self { node, service, inbox, max_in_flight, max_per_client, schemas, lending_grace } = self;
        check_topic(&service)?;
        let inbox = inbox.schemas(schemas).open()?;
        let (stop, shared) = (inbox.stop_handle(), inbox.shared().clone());
        let mut serving = Serving::new(node.clone(), service.clone(), shared, (max_in_flight, max_per_client));
        serving.wait_for_memory(lending_grace);
        Ok(Server {
            exchange: Arc::new(Exchange::new(inbox, serving, node.reactor())),
            node: node.clone(),
            service,
            stop,
        })
    }
}

/// Serves a service: [`crate::Node::serve`]. Several nodes may serve the same one, and several threads may receive its requests.
///
/// Dropping it ends it: requests that it has handed out can still be answered, those that it has not are left to other servers.
pub struct Server {
    exchange: Arc<Exchange<Serving>>,
    node: Arc<Owned>,
    service: Arc<str>,
    stop: StopHandle,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("node", &self.node.id).field("service", &self.service).finish()
    }
}

impl Server {
    /// The service.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Waits for the next request. `None`: a [`StopHandle`] has stopped the server, for good.
    ///
    /// Requests whose time is up, or that were cancelled, are passed over.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv(&self) -> Result<Option<Request>, RecvError> {
        self.next(Until::Forever)
    }

    /// The next request, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn try_recv(&self) -> Result<Option<Request>, RecvError> {
        self.next(Until::Now)
    }

    /// Waits for the next request, at most this long. `None`: the time is up, or the server was stopped.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<Request>, RecvError> {
        self.next(Instant::now().checked_add(timeout).map_or(Until::Forever, Until::Deadline))
    }

    /// How many requests have come and are not answered.
    pub fn in_flight(&self) -> usize {
        if !self.exchange.born.is_here() {
            return 0;
        }
        self.exchange.lock().side.in_flight()
    }

    /// Stops the server's receives from another thread, or from a signal handler. Requests that it has handed out can still be answered,
    /// and learn when they are cancelled.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Waits for the next request, in a task. As [`Server::recv`]. Dropping the future loses nothing, and several tasks may wait at
    /// once.
    ///
    /// # Errors
    ///
    /// [`RecvError`].
    pub async fn recv_async(&self) -> Result<Option<Request>, RecvError> {
        let visit = self.exchange.visit();
        poll_fn(|context| self.poll_next_request(context, &visit)).await
    }

    /// The requests as they come, in a task. It ends when the server is stopped.
    pub fn stream(&self) -> impl Stream<Item = Result<Request, RecvError>> + Unpin + '_ {
        Requests { server: self, visit: self.exchange.visit() }
    }

    /// As a wait set waits for it.
    pub(crate) fn waited(&self) -> Arc<dyn Waited> {
        Arc::new(WaitedRequest { exchange: Arc::downgrade(&self.exchange), visit: self.exchange.visit() })
    }

    fn poll_next_request(&self, context: &Context<'_>, visit: &Visit) -> Poll<Result<Option<Request>, RecvError>> {
        if !self.exchange.born.is_here() {
            return Poll::Ready(Err(RecvError::Forked));
        }
        let arrived = self.exchange.poll_visit(context, visit, None, |side| self.look(side));
        arrived.map_ok(|arrived| self.request(arrived.flatten()))
    }

    fn next(&self, until: Until) -> Result<Option<Request>, RecvError> {
        if !self.exchange.born.is_here() {
            return Err(RecvError::Forked);
        }
        let arrived = self.exchange.wait_for(until, |side| self.look(side))?;
        Ok(self.request(arrived.flatten()))
    }

    /// `Some(None)`: the server was stopped.
    fn look(&self, side: &mut Serving) -> Option<Option<Arrived>> {
        if self.exchange.inbox.is_winding_down() { Some(None) } else { side.next().map(Some) }
    }

    fn request(&self, arrived: Option<Arrived>) -> Option<Request> {
        arrived.map(|arrived| Request::new(self.exchange.clone(), arrived))
    }
}

/// A server's requests, as they come.
struct Requests<'s> {
    server: &'s Server,
    visit: Visit,
}

impl Stream for Requests<'_> {
    type Item = Result<Request, RecvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.server.poll_next_request(context, &self.visit).map(Result::transpose)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.exchange.born.is_here() {
            return;
        }
        self.exchange.lock().side.close();
        // A client that has no room must not lose an answer because its server ends a moment later.
        let last = Until::Deadline(Instant::now() + LAST_ANSWERS);
        let sent = self.exchange.wait_for(last, |side| (!side.has_backlog()).then_some(()));
        if !matches!(sent, Ok(Some(()))) {
            tracing::warn!(
                node = &*self.node.id,
                service = &*self.service,
                "a server ends before all its answers are sent"
            );
        }
        self.exchange.close();
    }
}
