//! Sending: an outbox reaches inboxes over routes, and each route has a channel.

pub(crate) mod account; //    what happened to the messages
pub(crate) mod backlog; //    messages that wait for a receiver's return
pub(crate) mod bringing; //   delivering them to a receiver that is back
pub(crate) mod channel; //    the sender's end of a channel
pub(crate) mod delivery; //   delivering a message to one inbox, step by step
pub(crate) mod denial; //     subscriptions that may not read a topic
pub(crate) mod dial; //       connecting to an inbox
pub(crate) mod direct; //     what is sent to a node itself: its type
pub(crate) mod error; //      why a message was not sent
mod events; //                what happens at a publisher
mod futures; //               sending in a task
mod hearing; //               asking for it
mod history; //               what is kept of a topic for late subscriptions
mod latched; //               an outbox that serves late subscriptions by itself
pub(crate) mod lent_queue; // what a channel has lent
pub(crate) mod loan; //       a payload that is filled in place
mod look; //                  finding it out
pub(crate) mod matching; //   what was said of it
pub(crate) mod message; //    a message on its way, and how far it has come
pub(crate) mod news; //       those that wait for it
pub(crate) mod notice; //     telling an inbox's node why it does not get something
pub(crate) mod outbox; //     any number of destinations and topics
pub(crate) mod pool; //       the memory for large payloads
pub(crate) mod polling; //    how long a sender polls for room
pub(crate) mod publish; //    getting a message to all subscriptions of a topic
pub(crate) mod publisher; //  an outbox with one topic
pub(crate) mod rate; //       how fast a destination may be sent to
pub(crate) mod redelivery; // what happens to messages whose receiver is gone
pub(crate) mod returned; //   messages that came back
pub(crate) mod route; //      one inbox that an outbox reaches
pub(crate) mod routes; //     all of them
pub(crate) mod sender; //     an outbox with one destination
mod shared; //                senders and publishers that several threads share
pub(crate) mod task; //       a task that waits until it can send
pub(crate) mod topic_name; // a topic as it is declared
pub(crate) mod topics; //     the topics of an outbox
mod vectored; //              messages from several slices

pub use account::{Account, ReachedInbox};
pub use dial::ConnectError;
pub use error::{FlushError, Holder, LoanError, PublishError, SendError, SendErrorKind};
pub use events::{MatchedInbox, PublisherEvent, SubscriptionEnd};
pub(crate) use hearing::Happens;
pub use loan::{Loan, LoanSlice, UnsentLoan};
pub use outbox::{DEFAULT_SEND_TIMEOUT, Destination, LoanFor, Outbox};
pub use publish::Receipt;
pub use publisher::{Publisher, PublisherBuilder};
pub use rate::Rate;
pub use returned::{Returned, ReturnedError};
pub use sender::{Sender, SenderBuilder};
pub use shared::{OwnedReceipt, SharedPublisher, SharedSender};
pub use topics::Topic;
