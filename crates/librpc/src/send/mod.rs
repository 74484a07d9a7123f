//! What a node sends with: an outbox reaches inboxes over routes, each route has a channel.

pub(crate) mod account;
pub(crate) mod backlog;
pub(crate) mod channel;
pub(crate) mod outbox;
pub(crate) mod publish;
pub(crate) mod publisher;
pub(crate) mod rate;
pub(crate) mod redelivery;
pub(crate) mod route;
pub(crate) mod sender;

pub use account::{Account, Reached};
pub use outbox::{DEFAULT_SEND_LIMIT, Destination, FlushError, Outbox, SendError};
pub use publish::{PublishError, Receipt, Topic};
pub use publisher::Publisher;
pub use rate::Rate;
pub use redelivery::Returned;
pub use sender::Sender;
