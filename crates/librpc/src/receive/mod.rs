//! What a node receives with.

pub(crate) mod inbox;
pub(crate) mod message;
pub(crate) mod receiver;
pub(crate) mod topic_names;

pub use inbox::{
    Acknowledge, CallbackError, CallbackHandle, DEFAULT_CAPACITY, Inbox, InboxBuilder, InboxError, RecvError,
    StopHandle, Subscriber,
};
pub use message::{Event, Message, OwnedMessage};
pub use receiver::{Departure, Wait};
