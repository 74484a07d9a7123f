//! What a node receives with.

pub(crate) mod builder; //      opens an inbox
pub(crate) mod inbox; //        what receives
mod callback; //                receiving on a thread of its own
pub(crate) mod receiver; //     how an inbox finds its next message, and sleeps
pub(crate) mod topic_names; //  what the numbers of topics mean on a channel
pub(crate) mod message; //      what an inbox hands out

pub use builder::{DEFAULT_CAPACITY, InboxBuilder, InboxError};
pub use callback::{CallbackError, CallbackHandle};
pub use inbox::{Acknowledge, Inbox, RecvError, StopHandle, Subscriber};
pub use message::{Departure, Event, Message, OwnedMessage};
pub use receiver::Wait;
