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

mod admission; //    who may connect, and how much of it
mod appear; //       waiting for a node to appear
mod arrivals; //     finished channels on their way to the inbox
mod bell; //         what wakes whoever sleeps at the other end
mod channel; //      the sender's end of a channel, as one thread uses it
mod domain; //       the directory in which nodes find one another
mod fault; //        steps at which a test kills the process
mod inbox; //        what receives
mod incoming; //     the receiver's side of a handshake
mod layout; //       the bytes of the registry's files
mod link; //         one connection from this process to an inbox
mod message; //      what an inbox hands out
mod name; //         node ids, incarnations, addresses, peers
mod node; //         a participant with an id
mod outbox; //       what sends: one channel per inbox that it reaches
mod outgoing; //     the sender's side of a handshake
mod reactor; //      the one background thread of a process
mod receiver; //     how an inbox finds its next message, and sleeps
mod registry; //     one file per node, alive as long as its lock is held
mod ring; //         the sender's end of a channel, as threads share it
mod sender; //       an outbox with one destination
mod sys;
mod wire; //         the messages of a handshake //          the operating system

pub use admission::{Admission, Limits};
pub use domain::{Domain, DomainError};
pub use inbox::{
    Acknowledge, CallbackError, CallbackHandle, DEFAULT_CAPACITY, Inbox, InboxBuilder, InboxError, RecvError,
    StopHandle,
};
pub use incoming::Reason;
pub use message::{Event, Message, OwnedMessage};
pub use name::{Address, BadNodeId, Incarnation, MAX_NODE_ID_BYTES, Peer};
pub use node::{CloseError, Node, NodeBuilder, OpenError};
pub use outbox::{ConnectError, DEFAULT_SEND_LIMIT, Destination, FlushError, Outbox, Progress, SendError};
pub use receiver::{Departure, Wait};
pub use registry::NodeInfo;
pub use sender::Sender;
pub use sys::OsError;
