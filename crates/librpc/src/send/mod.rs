//! What a node sends with: an outbox reaches inboxes over routes, each route has a channel.

pub(crate) mod account;
pub(crate) mod backlog;
pub(crate) mod channel;
pub(crate) mod dial;
pub(crate) mod error;
pub(crate) mod outbox;
pub(crate) mod publish;
pub(crate) mod publisher;
pub(crate) mod rate;
pub(crate) mod redelivery;
pub(crate) mod route;
pub(crate) mod sender;
pub(crate) mod topics;

pub use account::{Account, Reached};
pub use dial::ConnectError;
pub use error::{FlushError, PublishError, SendError};
pub use outbox::{DEFAULT_SEND_LIMIT, Destination, Outbox};
pub use publish::Receipt;
pub use publisher::Publisher;
pub use rate::Rate;
pub use redelivery::Returned;
pub use sender::Sender;
pub use topics::Topic;
