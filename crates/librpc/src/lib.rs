//! The processes of one machine exchange messages through shared memory, as equal nodes, with no broker.
//!
//! # The first message
//!
//! One process receives:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = librpc::Node::open("display")?;
//! let mut inbox = node.inbox()?;
//! while let Some(message) = inbox.recv()? {
//!     println!("{}: {:?}", message.sender(), message.payload());
//! }
//! # Ok(()) }
//! ```
//!
//! Another sends:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = librpc::Node::open("camera")?;
//! let mut to_display = node.connect("display")?; // waits for it to appear
//! to_display.send(b"hello")?; //                    accepted: this process may die now
//! to_display.flush(std::time::Duration::from_secs(1))?; // processed
//! # Ok(()) }
//! ```
//!
//! A [`Node`] is a participant with an id. It receives with an [`Inbox`] and sends with a [`Sender`]. Nodes meet in a
//! [`Domain`], a directory in shared memory. Nothing has to be started first, and the last node removes the domain.
//!
//! # Topics
//!
//! A node can also publish, for every subscription whose pattern matches the topic:
//!
//! ```
//! # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_topics_{}", std::process::id()));
//! # let open = |id| librpc::Node::builder(id).domain(domain.clone()).open();
//! # let (display, kitchen) = (open("display")?, open("kitchen")?);
//! let mut temperatures = display.subscribe("sensor/*/temperature")?;
//! let mut publisher = kitchen.publisher("sensor/kitchen/temperature")?;
//! let receipt = publisher.publish(b"21.5")?;
//! assert_eq!(receipt.inboxes(), 1); // accepted by one inbox
//! assert_eq!(temperatures.recv()?.expect("nobody stops this inbox").payload(), b"21.5");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! A message is *accepted* when `send` returns `Ok`: it survives its sender from then on. It is *processed* when its
//! receiver asks for the next one, or calls [`Inbox::ack`] under [`Acknowledge::Explicit`]; [`Sender::flush`] waits for
//! that.
//!
//! # What else there is
//!
//! | subject | in short | begin with |
//! |---|---|---|
//! | subscriptions | A pattern has `*` for one level and `**` for any number. Each subscription has its own inbox, so a slow one delays no other. A receipt says which inboxes got the message. | [`Node::subscribe`], [`Node::subscriber_builder`], [`Receipt`], [`Pattern`] |
//! | many topics and nodes | One outbox reaches all of them, with one channel per inbox. | [`Node::outbox`], [`Outbox`] |
//! | late subscribers | A publisher keeps its last messages for subscriptions that are opened later. | [`PublisherBuilder::history`], [`InboxBuilder::history`], [`Message::is_past`] |
//! | calls | A client sends a request to a service and gets a reply, which may come in parts. Threads and tasks wait for it. Several servers share the calls. | [`Node::serve`], [`Node::client`], [`Client`], [`Pending`], [`Request`], [`CallError`] |
//! | types | A topic, a service and a node's inbox may have a type. Both sides compare it before anything is sent, and values are encoded and decoded. | [`Node::publisher_of`], [`Node::subscriber_of`], [`Node::connect_of`], [`Node::inbox_of`], [`Node::serve_of`], [`Node::client_of`], [`Typed`], [`Schema`], [`Describe`] |
//! | large payloads | A message of any size is written once for all inboxes, and read where it is: a loan is filled in place, a sample is kept. | [`Publisher::loan`], [`Inbox::recv_sample`], [`Sample`], [`InboxBuilder::max_message`] |
//! | keeping messages | A message borrows the inbox. It can be copied, or received as a copy. | [`Message::to_owned`], [`Inbox::iter`] |
//! | full inboxes | The inbox chooses: its senders wait, new messages are dropped and counted, or old ones are overwritten. A publisher may promise never to wait. | [`Policy`], [`InboxBuilder::policy`], [`PublisherBuilder::never_waits`] |
//! | the newest | A receiver takes only the newest message of each topic and sender, or the last few. | [`Inbox::recv_latest`], [`InboxBuilder::keep_last`] |
//! | time limits | Each call that waits has a form with a limit, and one that does not wait. | [`Sender::send_timeout`], [`Sender::try_send`], [`Inbox::recv_timeout`], [`Inbox::try_recv`] |
//! | slowing down | A limit of messages or bytes per second; a mark that reports when inboxes fill up. | [`Rate`], [`Sender::limit_rate`], [`Sender::set_high_water`] |
//! | redelivery | Messages that a receiver did not process go to its next incarnation, in order, or come back. | [`Sender::set_redelivery`], [`InboxBuilder::durable`], [`Message::is_redelivered`], [`Sender::take_returned`] |
//! | events | An inbox reports senders that join, leave or die. A publisher reports subscriptions that come, go or get stuck. | [`Inbox::recv_event`], [`Event`], [`Departure`], [`Publisher::try_event`], [`PublisherEvent`] |
//! | what cannot arrive | An inbox is told of messages that were too large, dropped, or had no room, and of senders that were refused. | [`Event::TurnedAway`], [`Event::Refused`], [`SendError::kind`] |
//! | times | A message says when it was sent, each one if its sender wants that. | [`Message::sent_at`], [`PublisherBuilder::stamp_all`] |
//! | callbacks | The inbox calls a function for each message, on its own thread. | [`InboxBuilder::callback`], [`CallbackHandle`] |
//! | tasks | Whatever waits has a form for tasks, in any executor, without a thread of its own. A message is taken only in the poll that returns it. | [`Inbox::recv_async`], [`Inbox::stream`], [`Sender::send_async`], [`Client::call_async`] |
//! | several threads | A sender or a publisher that threads share, under one lock. | [`SharedSender`], [`SharedPublisher`] |
//! | several things at once | One wait for inboxes, servers, calls, publishers' events and other descriptors. | [`WaitSet`] |
//! | event loops | An inbox is a descriptor for other event loops. By itself, it sleeps, or spins for the lowest latency. | `AsFd` of [`Inbox`], [`Wait`] |
//! | stopping | Another thread or a signal handler can stop an inbox. A node that closes can wait until its messages are processed. | [`Inbox::stop_handle`], [`Node::close`] |
//! | several users | A group shares a domain. Each node admits senders by uid, gid, pid, executable or a function, and the kernel says who they are. | [`Domain::shared_with_group`], [`NodeBuilder::admit`], [`Admission`] |
//! | readers | A publisher chooses which processes may read a topic. | [`NodeBuilder::readers`], [`Event::Denied`] |
//! | limits | How much the peers of one user may cost a node. | [`Limits`], [`NodeBuilder::limits`] |
//! | statistics | Every channel, client and server always counts. The counts can be read by the node itself, or from outside without a node. | [`Sender::account`], [`Node::stats`], [`Domain::observe`], [`Observer`] |
//! | cleaning up | Each node that opens removes what dead ones left. It can also be done on demand. | [`Domain::clean`], [`Domain::leftovers`], [`Domain::nodes`] |
//! | the machine | Which optional kernel features are in use. | [`Kernel::probe`] |
//!
//! # Threads, and what blocks
//!
//! Several threads may use a [`Node`] at once. An [`Inbox`], an [`Outbox`], a [`Sender`] and a [`Publisher`] are used
//! by one thread at a time, so no message takes a lock. Threads that share one use a [`SharedSender`] or a
//! [`SharedPublisher`]. Each function that may block says so, with its limit. One background thread per process makes
//! connections, notices when peers go, and wakes tasks. It takes no signals, and runs none of your code but the wakers of
//! your executor.
//!
//! # Fork
//!
//! A forked child cannot use what it inherits: each inherited handle fails with an error that says so, or reports nothing.
//! The child does not keep its parent's nodes alive, and may open its own.
//!
//! # Errors and logs
//!
//! Each operation has its own error type, which names the peer, the value and the limit. What a peer wrote is never
//! trusted: if a peer lies, its channel ends, and you get an error value. The library prints nothing. It reports what
//! happens through `tracing`, but not individual messages. To see that in your own program, install a subscriber, such as
//! `tracing_subscriber::fmt().with_env_filter("librpc=info").init()`. The variable `LIBRPC_LOG` belongs to the command line; the
//! library does not read it.
//!
//! The [guide](https://github.com/librpc/librpc/tree/main/docs/guide) has a page for each subject, with programs.

#[cfg(not(target_os = "linux"))]
compile_error!("librpc runs on Linux only: it needs memfd seals, open-file-description locks and epoll");

// The modules, in the order in which a message meets them. ARCHITECTURE.md has their floors, and its way as functions.
mod node; //        a participant with an id
mod wait_set; //    waiting for several things at once
mod typed; //       messages of a type
mod call; //        requests to services, and their replies
mod send; //        sending: outbox, route, channel
mod rendezvous; //  being found: a node's listener, and the handshakes that it answers
mod link; //        one connection from a node to an inbox, and the channels that use it
mod receive; //     receiving: inbox, receiver, message
// What they share:
mod node_shared; // a node, as its parts share it
mod place; //       a node's files and its listener, kept in place
mod kept; //        how many messages wait for receivers that are gone
mod process; //     what a process has once
mod observe; //     asking nodes about themselves, from outside
mod registry; //    the directory in which nodes find one another
mod stats; //       what a node reports about itself
mod wire; //        the messages of a handshake, and the list of inboxes in a node's file
mod aligned; //     private bytes that can be read as plain data
mod name; //        node ids, incarnations, addresses, peers
mod topic; //       topics and patterns
mod schema; //      what the messages of a topic are
mod policy; //      what happens to a message whose inbox is full
mod text; //        texts that other processes wrote
mod fault; //       steps at which a test kills the process
mod sys; //         the operating system, and the only unsafe code about it

pub mod shape; //   what a type is made of

#[cfg(feature = "hostile")]
#[doc(hidden)]
pub mod fuzzing; // where bytes of other processes come in, for a fuzzer
#[cfg(feature = "simulated")]
#[doc(hidden)]
pub use sys::machine as simulated; // what replaces the kernel
#[cfg(test)]
mod tests;

pub use call::{
    Answer, CallError, CallOptions, CancelHandle, Client, ClientBuilder, Pending, Replies, Reply, ReplyError,
    ReplyStream, Request, ServeError, Server, ServerBuilder,
};
#[cfg(feature = "derive")]
pub use librpc_derive::Describe;
pub use librpc_ring::{Bucket, Histogram};
pub use link::{Admission, Limits, Rule};
pub use name::{Address, Incarnation, InvalidNodeId, MAX_NODE_ID_BYTES, Peer};
pub use node::{CloseError, Node, NodeBuilder};
pub use observe::{ObserveError, Observed, Observer};
pub use place::OpenError;
pub use policy::Policy;
pub use receive::{
    Acknowledge, CallbackError, CallbackHandle, DEFAULT_CAPACITY, Departure, Event, Inbox, InboxBuilder, InboxError,
    Message, OwnedMessage, RecvError, Sample, SliceError, StopHandle, Subscriber, TurnedAway, View, Wait,
};
pub use registry::{Domain, DomainError, InboxInfo, Leftovers, NodeInfo, StrangeFile};
pub use schema::{Encoding, InvalidSchema, MAX_DEFINITION_BYTES, MAX_TYPE_NAME_BYTES, Schema, SchemaMismatch};
pub use send::{
    Account, ConnectError, DEFAULT_SEND_TIMEOUT, Destination, FlushError, Holder, Loan, LoanError, LoanFor, LoanSlice,
    MatchedInbox, Outbox, OwnedReceipt, PublishError, Publisher, PublisherBuilder, PublisherEvent, Rate, ReachedInbox,
    Receipt, Returned, ReturnedError, SendError, SendErrorKind, Sender, SenderBuilder, SharedPublisher, SharedSender,
    SubscriptionEnd, Topic, UnsentLoan,
};
pub use shape::{Describe, Shape};
pub use stats::{CallFailure, CallFailures, CallSide, CallStats};
pub use stats::{
    ChannelState, ChannelStats, Denial, EndedChannels, InboxStats, NodeStats, PublishedTopic, Refused, Totals,
};
pub use sys::{Kernel, OsError};
pub use topic::{InvalidTopic, MAX_PATTERNS, MAX_TOPIC_BYTES, MAX_TOPICS, Pattern};
#[cfg(feature = "json")]
pub use typed::Json;
#[cfg(feature = "postcard")]
pub use typed::Postcard;
pub use typed::{
    DecodeError, EncodeError, Plain, Typed, TypedCallError, TypedClient, TypedInbox, TypedMessage, TypedPending,
    TypedPublishError, TypedPublisher, TypedReplies, TypedReply, TypedReplyError, TypedReplyStream, TypedRequest,
    TypedSample, TypedSendError, TypedSender, TypedServer,
};
pub use wait_set::{WaitSet, WaitSetError, Waitable};
pub use wire::Reason;
pub use zerocopy;
