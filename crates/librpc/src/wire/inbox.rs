//! The list of inboxes in a node's file.

use minicbor::{Decode, Encode};

use crate::name::Address;
use crate::schema::ListedSchema;

/// The longest message that an inbox takes by default, in bytes: 1 GiB.
pub(crate) const DEFAULT_MAX_MESSAGE: u64 = 1 << 30;

/// An inbox, as its node's file lists it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListedInbox {
    #[n(0)]
    pub(crate) number: u32,
    #[n(1)]
    pub(crate) address: ListedAddress,
    #[n(2)]
    pub(crate) capacity: u64,
    #[n(3)]
    pub(crate) policy: u32,
    /// Whether it wants what its own node publishes, too.
    #[n(4)]
    pub(crate) own: bool,
    /// The name under which a subscription may be taken up again.
    #[n(5)]
    pub(crate) durable: Option<String>,
    /// The longest message, in bytes; `None`: [`DEFAULT_MAX_MESSAGE`].
    #[n(6)]
    pub(crate) max_message: Option<u64>,
    /// How many of the messages that a publisher keeps of each topic it wants, at most; `None`: it knows none of that.
    #[n(7)]
    pub(crate) history: Option<u64>,
    /// What its messages must be; for a service, its requests and its replies. Empty: anything. `None`: it knows no types.
    #[n(8)]
    pub(crate) schemas: Option<Vec<ListedSchema>>,
}

/// What an inbox receives, as its node's file says it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum ListedAddress {
    #[n(0)]
    Node,
    #[n(1)]
    Patterns(#[n(0)] Vec<String>),
    #[n(2)]
    Service(#[n(0)] String),
    #[n(3)]
    Replies,
}

impl From<&Address> for ListedAddress {
    fn from(address: &Address) -> Self {
        match address {
            Address::Node => Self::Node,
            Address::Topics(patterns) => Self::Patterns(patterns.iter().map(ToString::to_string).collect()),
            Address::Service(name) => Self::Service(name.to_string()),
            Address::Replies => Self::Replies,
        }
    }
}
