//! The processes of one machine exchange messages through shared memory, as equal nodes, with no broker.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = librpc::Node::open("display")?; //        in one process
//! let mut inbox = node.inbox()?;
//! while let Some(message) = inbox.recv()? {
//!     println!("{}: {:?}", message.from(), message.payload());
//! }
//!
//! let node = librpc::Node::open("camera")?; //         in another
//! let mut to = node.sender("display")?; //             waits for it to appear
//! to.send(b"hello")?; //                               in shared memory: this process may die now
//! to.flush(std::time::Duration::from_secs(1))?; //     processed
//! # Ok(()) }
//! ```
//!
//! The modules, in the order in which data flows:
#[cfg(not(target_os = "linux"))]
compile_error!("librpc runs on Linux only: it stands on memfd seals, open-file-description locks and epoll");

// A participant, and what it sends with: node, sender or publisher, outbox, route, channel, ring.
mod account; //      what became of the messages
mod backlog; //      what waits for a receiver's next incarnation
mod channel; //      the sender's end of a channel, as one thread uses it
mod node; //         a participant with an id
mod outbox; //       what sends: one channel per inbox that it reaches
mod policy; //       what happens to a message whose inbox is full
mod publisher; //    an outbox with one topic
mod rate; //         rate limits of a destination
mod redelivery; //   going on when a receiver is back
mod ring; //         the sender's end of a channel, as threads share it
mod route; //        one inbox that an outbox reaches
mod sender; //       an outbox with one destination
mod topics; //       publishing: which subscriptions a topic reaches

// What receives: receiver, inbox, message.
mod arrivals; //     finished channels on their way to the inbox
mod inbox; //        what receives
mod message; //      what an inbox hands out
mod names; //        what the topics' numbers on a channel mean
mod receiver; //     how an inbox finds its next message, and sleeps

// Finding one another: names, domain, registry, view.
mod appear; //       waiting for a node to appear
mod domain; //       the directory in which nodes find one another
mod generation; //   the domain's change counter
mod layout; //       the bytes of the registry's files
mod name; //         node ids, incarnations, addresses, peers
mod registry; //     one file per node, alive as long as its lock is held
mod topic; //        topics and patterns
mod view; //         the subscriptions of a domain

// Connecting: connect, link, outgoing, incoming, and what wakes whoever sleeps at the other end.
mod admission; //    who may connect, and how much of it
mod bell; //         what wakes
mod connect; //      finding an inbox, and beginning to connect
mod incoming; //     the receiver's side of a handshake
mod link; //         one connection from this process to an inbox
mod outgoing; //     the sender's side of a handshake
mod reactor; //      the one background thread of a process
mod wire; //         the messages of a handshake

// Seeing it: sample, roll, stats, census, observer.
mod census; //       a node's statistics, page by page
mod observer; //     asking nodes about themselves, from outside
mod roll; //         the channels of an inbox, as its statistics see them
mod sample; //       which messages bear a time stamp, and what comes of it
mod stats; //        what a node says about itself

// The operating system.
mod fault; //        steps at which a test kills the process
#[cfg(feature = "hostile")]
#[doc(hidden)]
pub mod hostile; //  the doors through which a stranger's bytes come, for a fuzzer
mod kernel; //       what it has of what can be done without
mod sys; //          the only unsafe code here

#[cfg(test)]
mod strangers; //    peers that say what they like

pub use account::{Account, Reached};
pub use admission::{Admission, Limits};
pub use connect::ConnectError;
pub use domain::{Domain, DomainError, StrangeFile};
pub use inbox::{
    Acknowledge, CallbackError, CallbackHandle, DEFAULT_CAPACITY, Inbox, InboxBuilder, InboxError, RecvError,
    StopHandle, Subscriber,
};
pub use incoming::Reason;
pub use kernel::Kernel;
pub use librpc_ring::{Bucket, Histogram};
pub use message::{Event, Message, OwnedMessage};
pub use name::{Address, BadNodeId, Incarnation, MAX_NODE_ID_BYTES, Peer};
pub use node::{CloseError, Node, NodeBuilder, OpenError};
pub use observer::{Observed, Observer, Unobserved};
pub use outbox::{DEFAULT_SEND_LIMIT, Destination, FlushError, Outbox, SendError};
pub use policy::Policy;
pub use publisher::Publisher;
pub use rate::Rate;
pub use receiver::{Departure, Wait};
pub use redelivery::Returned;
pub use registry::{InboxInfo, NodeInfo};
pub use sender::Sender;
pub use stats::{ChannelState, ChannelStats, InboxStats, NodeStats, Totals};
pub use sys::OsError;
pub use topic::{BadTopic, MAX_PATTERNS, MAX_TOPIC_BYTES, MAX_TOPICS, Pattern};
pub use topics::{PublishError, Receipt, Topic};
