//! The processes of one machine exchange messages through shared memory, as equal nodes, with no broker.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = librpc::Node::open("display")?; //        in one process
//! let mut inbox = node.inbox()?;
//! while let Some(message) = inbox.recv()? {
//!     println!("{}: {:?}", message.sender(), message.payload());
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

mod fault; //       steps at which a test kills the process
mod kept; //        how many messages wait for receivers that are gone
mod link; //        one connection from a process to an inbox, and the channels that use it
mod name; //        node ids, incarnations, addresses, peers
mod node; //        a participant with an id
mod observe; //     asking nodes about themselves, from outside
mod policy; //      what happens to a message whose inbox is full
mod receive; //     what a node receives with: inbox, receiver, message
mod registry; //    the directory in which nodes find one another
mod node_shared; // a node, as its parts share it
mod place; //       a node's files and its listener, kept in place
mod process; //     what a process has once
mod rendezvous; //  finding an inbox, and being found: dialing, listening, admission
mod send; //        what a node sends with: outbox, route, channel
mod stats; //       what a node reports about itself
mod sys;
mod text; //        texts that strangers wrote
mod topic; //       topics and patterns
mod wire; //        the messages of a handshake, and the list of inboxes in a node's file //         the operating system, and the only unsafe code about it

#[cfg(feature = "hostile")]
#[doc(hidden)]
pub mod fuzzing; // where a stranger's bytes come in, for a fuzzer
#[cfg(test)]
mod tests;

pub use librpc_ring::{Bucket, Histogram};
pub use link::{Admission, Limits, Rule};
pub use name::{Address, BadNodeId, Incarnation, MAX_NODE_ID_BYTES, Peer};
pub use node::{CloseError, Node, NodeBuilder};

pub use observe::{Observed, Observer, Unobserved};
pub use place::OpenError;
pub use policy::Policy;
pub use receive::{
    Acknowledge, CallbackError, CallbackHandle, DEFAULT_CAPACITY, Departure, Event, Inbox, InboxBuilder, InboxError,
    Message, OwnedMessage, RecvError, StopHandle, Subscriber, Wait,
};
pub use registry::{Domain, DomainError, InboxInfo, Leftovers, NodeInfo, StrangeFile};
pub use send::{
    Account, ConnectError, DEFAULT_SEND_LIMIT, Destination, FlushError, Outbox, PublishError, Publisher, Rate, Reached,
    Receipt, Returned, ReturnedError, SendError, Sender, Topic,
};
pub use stats::{ChannelState, ChannelStats, EndedChannels, InboxStats, NodeStats, Totals};
pub use sys::{Kernel, OsError};
pub use topic::{BadTopic, MAX_PATTERNS, MAX_TOPIC_BYTES, MAX_TOPICS, Pattern};
pub use wire::Reason;
