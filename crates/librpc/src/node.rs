//! A node: a participant with an id, one live holder at a time.

use std::sync::Arc;
use std::time::Duration;

use crate::call::{Client, ClientBuilder, ServeError, Server, ServerBuilder};
use crate::fault::fault;
use crate::link::readers::Readers;
use crate::link::{Admission, Limits};
use crate::name::{Address, Incarnation, check_node_id};
use crate::node_shared::{NodeShared, Owned, Terms};
use crate::place::OpenError;
use crate::receive::{Inbox, InboxBuilder, InboxError, Subscriber};
use crate::registry::Domain;
use crate::rendezvous::{listener, pages};
use crate::send::{ConnectError, Outbox, Publisher, PublisherBuilder, Sender, SenderBuilder};
use crate::stats::NodeStats;
use crate::sys::clock::Instant;
use crate::sys::{barrier, fork};
use crate::text::counted;
use crate::topic::{InvalidTopic, MAX_PATTERNS, Pattern};
use crate::typed::{Typed, TypedClient, TypedInbox, TypedPublisher, TypedSender, TypedServer};

/// What was not processed when a node was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?} was closed before {} processed", counted(*unprocessed, "of its messages was", "of its messages were"))]
pub struct CloseError {
    /// The node.
    pub node: Arc<str>,
    /// How many messages. Receivers still get those that they can reach.
    pub unprocessed: u64,
}

/// Sets up a node: [`Node::builder`].
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    id: String,
    /// `None`: the domain that the environment names.
    domain: Option<Domain>,
    admission: Admission,
    readers: Vec<(String, Admission)>,
    callers: Vec<(String, Admission)>,
    limits: Limits,
}

impl NodeBuilder {
    /// The domain, by default [`Domain::from_env`].
    pub fn domain(self, domain: Domain) -> Self {
        Self { domain: Some(domain), ..self }
    }

    /// Which processes may connect. By default, those of the same user.
    pub fn admit(self, admission: Admission) -> Self {
        Self { admission, ..self }
    }

    /// Which processes may read what this node publishes on the topics that match a pattern ([`crate::Pattern`]). By
    /// default, every process that can subscribe: in a shared domain, every member.
    ///
    /// It may be called several times. A subscription gets a topic only if every entry whose pattern matches the topic
    /// admits the subscriber's process. Topics that match no pattern stay open. The kernel says which process it is
    /// when a channel to it is connected. A subscription that may not read a topic gets none of its messages and does
    /// not count as a subscriber; its node learns why ([`crate::Event::Denied`]) if it admits this node. The decision
    /// is made once for each topic, subscription and channel, by rules only: an admission with a function
    /// ([`Admission::function`]) is an error, because a publish would have to wait for it.
    ///
    /// ```
    /// use librpc::{Admission, Node};
    ///
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_readers_{}", std::process::id()));
    /// let node = Node::builder("door")
    ///     .domain(domain)
    ///     .readers("door/code", Admission::same_user())
    ///     .readers("door/camera/**", Admission::same_user().gid(44))
    ///     .open()?;
    /// # Ok::<(), librpc::OpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A pattern that is not valid ([`OpenError::InvalidTopic`]) and a function ([`OpenError::ReadersFunction`]) are reported by
    /// [`NodeBuilder::open`].
    pub fn readers(mut self, pattern: &str, admission: Admission) -> Self {
        self.readers.push((pattern.to_owned(), admission));
        self
    }

    /// Which processes may call the services of this node whose names match a pattern ([`crate::Pattern`]). By default, those
    /// that the node admits ([`NodeBuilder::admit`]).
    ///
    /// It may be called several times. A service whose name matches is called by the processes that every such entry admits, whether
    /// or not the node admits them otherwise. The same rules as for [`NodeBuilder::readers`]: no function.
    ///
    /// ```
    /// use librpc::{Admission, Node};
    ///
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_callers_{}", std::process::id()));
    /// let node = Node::builder("arm")
    ///     .domain(domain)
    ///     .callers("arm/**", Admission::same_user().gid(44))
    ///     .callers("arm/calibrate", Admission::same_user())
    ///     .open()?;
    /// # Ok::<(), librpc::OpenError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`NodeBuilder::readers`].
    pub fn callers(mut self, pattern: &str, admission: Admission) -> Self {
        self.callers.push((pattern.to_owned(), admission));
        self
    }

    /// How much the peers of one user may cost.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Opens the node. Waits at most 2 s for a last member that is removing the domain.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(self) -> Result<Node, OpenError> {
        let Self { id, domain, admission, readers, callers, limits } = self;
        let domain = domain.unwrap_or_else(Domain::from_env);
        check_node_id(&id)?;
        let (readers, callers) = (by_pattern(readers)?, by_pattern(callers)?);
        let _span = tracing::debug_span!("join", node = id, domain = %domain.path().display()).entered();
        crate::fault::prepare();
        fork::prepare()?;
        barrier::prepare(); // while this process may still have only one thread
        let node = NodeShared::open(&id, &domain, Terms { admission, readers, callers, limits }, listener::listen)?;
        fault!("join.served");
        let domain = domain.path().display();
        tracing::info!(node = &*node.id, %domain, incarnation = %node.incarnation, "a node has joined");
        Ok(Node(Arc::new(Owned::new(node))))
    }
}

fn by_pattern(entries: Vec<(String, Admission)>) -> Result<Readers, OpenError> {
    let entry = |(pattern, admission): (String, Admission)| match admission.has_function() {
        true => Err(OpenError::ReadersFunction { pattern: pattern.into() }),
        false => Ok((pattern.parse()?, admission)),
    };
    Ok(Readers::new(entries.into_iter().map(entry).collect::<Result<_, OpenError>>()?))
}

/// A participant with an id, which one live node holds at a time.
///
/// The node leaves when it, its inboxes and its outboxes are dropped, or when it is closed. Any thread may use it.
///
/// ```
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_node_{}", std::process::id()));
/// let node = librpc::Node::builder("display").domain(domain).open()?;
/// let mut inbox = node.inbox()?;
/// let mut to = node.connect("display")?; // a node may talk to itself
/// to.send(b"hello")?;
/// let message = inbox.recv()?.expect("nobody stops this inbox");
/// assert_eq!((message.sender(), message.payload()), ("display", &b"hello"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Node(Arc<Owned>);

impl Node {
    /// Opens a node with everything at its default. See [`NodeBuilder::open`].
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(id: &str) -> Result<Self, OpenError> {
        Self::builder(id).open()
    }

    /// Sets up a node.
    pub fn builder(id: &str) -> NodeBuilder {
        let (admission, limits) = (Admission::default(), Limits::default());
        let (readers, callers) = (Vec::new(), Vec::new());
        NodeBuilder { id: id.to_owned(), domain: None, admission, readers, callers, limits }
    }

    #[cfg(test)]
    pub(crate) fn owned(&self) -> &Arc<Owned> {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<NodeShared> {
        &self.0
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The incarnation: new each time the id is opened.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// Opens the inbox for messages to the node itself. Does not block.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn inbox(&self) -> Result<Inbox, InboxError> {
        self.inbox_builder().open()
    }

    /// Sets up the inbox for messages to the node itself.
    pub fn inbox_builder(&self) -> InboxBuilder<'_> {
        InboxBuilder::new(&self.0, Ok(Address::Node))
    }

    /// Opens the inbox for messages to the node itself, and receives values of a type ([`crate::Plain`], `Postcard`, `Json`). A sender of
    /// another type, or of none, does not reach it, and the next receive says so: [`crate::RecvError::Mismatch`].
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn inbox_of<T: Typed>(&self) -> Result<TypedInbox<T>, InboxError> {
        self.inbox_builder().open_of()
    }

    /// Subscribes to the topics that match a pattern: an inbox of its own, so that a slow one delays no other. Every
    /// publish that begins after this has returned, in any process, reaches it. Dropping it unsubscribes. See
    /// [`crate::Pattern`], [`crate::InboxBuilder::open`], and for several patterns [`Node::subscriber_builder`].
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_subscribe_{}", std::process::id()));
    /// # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
    /// let (display, kitchen) = (open("display")?, open("kitchen")?);
    /// let mut temperatures = display.subscribe("sensor/*/temperature")?;
    /// let mut publisher = kitchen.publisher("sensor/kitchen/temperature")?;
    /// assert_eq!(publisher.publish(b"21.5")?.inboxes(), 1);
    /// let message = temperatures.recv()?.expect("nobody stops this inbox");
    /// assert_eq!((message.topic(), message.payload()), (Some("sensor/kitchen/temperature"), &b"21.5"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn subscribe(&self, pattern: &str) -> Result<Subscriber, InboxError> {
        self.subscriber_builder([pattern]).open()
    }

    /// Subscribes to the topics that match a pattern, and receives values of a type ([`crate::Plain`], `Postcard`, `Json`). A publisher
    /// of another type, or of none, does not reach it, and the next receive says so: [`crate::RecvError::Mismatch`].
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn subscriber_of<T: Typed>(&self, pattern: &str) -> Result<TypedInbox<T>, InboxError> {
        self.subscriber_builder([pattern]).open_of()
    }

    /// Sets up a subscription to the topics that match any of these patterns, at most [`crate::MAX_PATTERNS`].
    pub fn subscriber_builder(&self, patterns: impl IntoIterator<Item = impl AsRef<str>>) -> InboxBuilder<'_> {
        let patterns: Result<Vec<Pattern>, InvalidTopic> =
            patterns.into_iter().map(|pattern| pattern.as_ref().parse()).collect();
        let address = patterns.map_err(InboxError::from).and_then(|patterns| match patterns.len() {
            1..=MAX_PATTERNS => Ok(Address::Topics(patterns.into())),
            patterns => Err(InboxError::Patterns { patterns }),
        });
        InboxBuilder::new(&self.0, address)
    }

    /// Publishes on a topic, from an outbox of its own. Does not block. See [`Publisher`], and for many topics
    /// [`Outbox::topic`].
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`].
    pub fn publisher(&self, topic: &str) -> Result<Publisher, InvalidTopic> {
        self.publisher_builder(topic).open()
    }

    /// Publishes values of a type on a topic: plain data, postcard or JSON ([`crate::Plain`], `Postcard`, `Json`). Only subscriptions
    /// of the same type, and those without a type, are reached. Does not block.
    ///
    /// # Errors
    ///
    /// [`InvalidTopic`].
    pub fn publisher_of<T: Typed>(&self, topic: &str) -> Result<TypedPublisher<T>, InvalidTopic> {
        self.publisher_builder(topic).open_of()
    }

    /// Sets up a publisher: how much it keeps for late subscriptions.
    pub fn publisher_builder(&self, topic: &str) -> PublisherBuilder<'_> {
        PublisherBuilder::new(&self.0, topic)
    }

    /// Serves a service: receives the requests of its clients, and answers them. Its name follows the rules of topics. See
    /// [`Server`].
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn serve(&self, service: &str) -> Result<Server, ServeError> {
        self.server_builder(service).open()
    }

    /// Serves a service whose requests are of type `Q` and whose replies are of type `A`. Clients of other types, or of none, do not
    /// reach it.
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn serve_of<Q: Typed, A: Typed>(&self, service: &str) -> Result<TypedServer<Q, A>, ServeError> {
        self.server_builder(service).open_of()
    }

    /// Sets up a server of a service.
    pub fn server_builder(&self, service: &str) -> ServerBuilder<'_> {
        ServerBuilder::new(&self.0, service)
    }

    /// A client of a service, which need not be served yet. Does not block. See [`Client`].
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn client(&self, service: &str) -> Result<Client, ServeError> {
        self.client_builder(service).open()
    }

    /// A client of a service whose requests are of type `Q` and whose replies are of type `A`. Does not block. See [`TypedClient`].
    ///
    /// # Errors
    ///
    /// [`ServeError`].
    pub fn client_of<Q: Typed, A: Typed>(&self, service: &str) -> Result<TypedClient<Q, A>, ServeError> {
        self.client_builder(service).open_of()
    }

    /// Sets up a client of a service.
    pub fn client_builder(&self, service: &str) -> ClientBuilder<'_> {
        ClientBuilder::new(&self.0, service)
    }

    /// An outbox, from which one thread at a time can send to any number of nodes. Does not block.
    pub fn outbox(&self) -> Outbox {
        Outbox::new(self.0.clone())
    }

    /// Connects to a node, and waits up to 10 s for it to appear. See [`Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect(&self, to: &str) -> Result<Sender, ConnectError> {
        self.connect_timeout(to, Duration::from_secs(10))
    }

    /// Connects to a node that must be there, without waiting for its answer: see [`Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn try_connect(&self, to: &str) -> Result<Sender, ConnectError> {
        self.connect_timeout(to, Duration::ZERO)
    }

    /// Connects to a node, and waits up to a limit for it to open its inbox, and then up to 1 s for its answer. A node
    /// that is there but does not answer, because it is stopped or slow, gets its messages when it goes on. Until then the
    /// sender is *pending*, and a refusal comes back as the error of a later send or flush.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect_timeout(&self, to: &str, timeout: Duration) -> Result<Sender, ConnectError> {
        let mut outbox = self.outbox();
        let destination = outbox.connect_timeout(to, timeout)?;
        Ok(Sender::new(outbox, destination))
    }

    /// Connects to a node, and sends values of a type: plain data, postcard or JSON ([`crate::Plain`], `Postcard`, `Json`). A node whose
    /// inbox is of another type is not reached ([`ConnectError::Mismatch`]); one whose inbox has no type takes everything. Waits up to
    /// 10 s for the node to appear. See [`Node::connect_timeout`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub fn connect_of<T: Typed>(&self, to: &str) -> Result<TypedSender<T>, ConnectError> {
        self.sender_builder(to).open_of()
    }

    /// Sets up a sender: of what type its messages are, and how long to wait for the node.
    pub fn sender_builder(&self, to: &str) -> SenderBuilder<'_> {
        SenderBuilder::new(&self.0, to)
    }

    /// Connects to a node in a task. As [`Node::connect`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect_async(&self, to: &str) -> Result<Sender, ConnectError> {
        let mut outbox = self.outbox();
        let destination = outbox.connect_async(to).await?;
        Ok(Sender::new(outbox, destination))
    }

    /// What the node's inboxes and outboxes have counted, channel by channel. Does not block, and costs those who send and
    /// receive nothing.
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_stats_{}", std::process::id()));
    /// # let node = librpc::Node::builder("display").domain(domain).open()?;
    /// let mut inbox = node.inbox()?;
    /// node.connect("display")?.send(b"hello")?;
    /// inbox.recv()?;
    /// let stats = node.stats();
    /// let channel = &stats.inboxes[0].channels[0];
    /// assert_eq!((&*channel.peer, channel.sent, channel.received), ("display", 1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> NodeStats {
        pages::whole(&self.0)
    }

    /// Waits, up to a limit, until everything that the node's existing senders and outboxes have sent is processed. Then it
    /// leaves, and closes its inboxes and outboxes: a thread that is receiving from one gets an error.
    ///
    /// # Errors
    ///
    /// [`CloseError`] says how many messages were not processed. The node has left nevertheless.
    pub fn close(self, timeout: Duration) -> Result<(), CloseError> {
        if !self.0.born.is_here() {
            return Ok(());
        }
        let unprocessed = self.0.close(Instant::now().checked_add(timeout));
        match unprocessed {
            0 => Ok(()),
            unprocessed => Err(CloseError { node: self.0.id.clone(), unprocessed }),
        }
    }
}
