//! Receiving: an inbox and its receiver.

pub(crate) mod builder; //      opens an inbox
pub(crate) mod inbox; //        the public side of receiving
mod callback; //                receiving on a separate thread
mod futures; //                 receiving in a task
mod newest; //                  receiving only the newest
pub(crate) mod receiver; //     how an inbox finds its next message, and sleeps
pub(crate) mod topic_names; //  what the numbers of topics mean on a channel
pub(crate) mod sample; //       messages that are kept, with their payloads in place
pub(crate) mod message; //      messages and events that are handed out
mod turned_away; //             messages that did not get into an inbox

pub use builder::{DEFAULT_CAPACITY, InboxBuilder, InboxError};
pub use callback::{CallbackError, CallbackHandle};
pub use inbox::{Acknowledge, Inbox, RecvError, StopHandle, Subscriber};
pub use message::{Departure, Event, Message, OwnedMessage};
pub use receiver::Wait;
pub use sample::{Sample, SliceError, View};
pub use turned_away::TurnedAway;
