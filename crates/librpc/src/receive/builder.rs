//! Opening an inbox.

use std::num::NonZero;
use std::sync::Arc;

use librpc_ring::is_mappable;

use crate::link::inbox_shared::{InboxShared, Settings};
use crate::name::{Address, InvalidNodeId, check_node_id};
use crate::node_shared::{NotListed, Owned};
use crate::place::OpenError;
use crate::policy::Policy;
use crate::receive::inbox::{Acknowledge, Inbox};
use crate::receive::receiver::{Receiver, Wait};
use crate::registry::layout::{MAX_INBOXES, MAX_LIST_BYTES};
use crate::registry::registration::AnnounceError;
use crate::schema::{InvalidSchema, Schema};
use crate::sys::memory::{Trust, page_size};
use crate::sys::{OsError, fork};
use crate::text;
use crate::topic::{InvalidTopic, MAX_PATTERNS};
use crate::wire::DEFAULT_MAX_MESSAGE;

/// The smallest capacity that can be asked for, in bytes.
const MIN_CAPACITY: usize = 4096;
/// The default capacity of each sender's ring, in bytes. Messages of up to 65,472 bytes fit into it.
pub const DEFAULT_CAPACITY: u64 = 256 * 1024;

/// Why an inbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// A pattern is not valid.
    #[error(transparent)]
    InvalidTopic(#[from] InvalidTopic),
    /// The type of its messages has no valid name.
    #[error(transparent)]
    Type(#[from] InvalidSchema),
    /// A durable name is invalid: it follows the rules of node ids.
    #[error("invalid durable name, which follows the rules of node ids: {0}")]
    InvalidName(#[source] InvalidNodeId),
    /// There are too many patterns, or none.
    #[error("a subscription has 1 to {MAX_PATTERNS} patterns, not {patterns}")]
    Patterns {
        /// How many there are.
        patterns: usize,
    },
    /// The node has this inbox already: its own, or a subscription with the same durable name.
    #[error("node {node:?} already has this inbox: its own, or a subscription of this durable name")]
    Taken {
        /// The node.
        node: Arc<str>,
    },
    /// The capacity is not valid.
    #[error("invalid capacity of {}: it must be a power of two from 4,096 to 1,073,741,824", text::bytes(*bytes))]
    Capacity {
        /// The capacity in bytes.
        bytes: u64,
    },
    /// The node has as many inboxes as others believe it to have.
    #[error("node {node:?} already has {MAX_INBOXES} inboxes, the limit of a node: open another node")]
    TooMany {
        /// The node.
        node: Arc<str>,
    },
    /// The addresses of all inboxes of the node, and the durable names, do not fit in its file.
    #[error(
        "the list of node {node:?}'s inboxes would take {bytes} bytes; the limit is {MAX_LIST_BYTES}: use fewer or shorter \
         patterns, or another node"
    )]
    ListTooLong {
        /// The node.
        node: Arc<str>,
        /// The length of the list with this inbox, in bytes.
        bytes: usize,
    },
    /// The domain was removed under the node, and the node cannot join it again: nobody would find the inbox.
    #[error("node {node:?} was removed from its domain, and cannot join again: {source}")]
    Removed {
        /// The node.
        node: Arc<str>,
        /// Why it cannot.
        source: Box<OpenError>,
    },
    /// The node was closed, or belongs to the parent of this forked process.
    #[error("node {node:?} is closed, or was opened before a fork")]
    Closed {
        /// The node.
        node: Arc<str>,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Sets up an inbox: [`crate::Node::inbox_builder`].
#[derive(Debug)]
pub struct InboxBuilder<'n> {
    pub(super) node: &'n Arc<Owned>,
    address: Result<Address, InboxError>,
    capacity: u64,
    max_message: u64,
    trust: Option<Trust>,
    policy: Policy,
    keep_last: Option<NonZero<usize>>,
    receive_own: bool,
    durable: Option<String>,
    history: usize,
    schemas: Vec<Schema>,
    wait: Wait,
    acknowledge: Acknowledge,
}

impl<'n> InboxBuilder<'n> {
    pub(crate) fn new(node: &'n Arc<Owned>, address: Result<Address, InboxError>) -> Self {
        Self {
            node,
            address,
            capacity: DEFAULT_CAPACITY,
            max_message: DEFAULT_MAX_MESSAGE,
            trust: None,
            policy: Policy::default(),
            keep_last: None,
            receive_own: false,
            durable: None,
            history: usize::MAX,
            schemas: Vec::new(),
            wait: Wait::default(),
            acknowledge: Acknowledge::default(),
        }
    }

    /// Bytes of the ring that each sender gets: a power of two from 4,096 to 2^30, by default [`DEFAULT_CAPACITY`]. The ring
    /// has at least one page of the system, so on systems with pages of 16 or 64 KiB a smaller capacity is rounded up to that.
    /// It is touched only as it is used. A message of up to a quarter of it ([`Policy::DropOldest`]: an eighth), less 64 bytes, is copied
    /// into the ring; a longer one stays in memory of its sender's, and takes 64 bytes of the ring.
    pub fn capacity(self, bytes: u64) -> Self {
        Self { capacity: bytes, ..self }
    }

    /// The longest message that the inbox takes, in bytes; by default 1 GiB. A longer one is an error of its sender's.
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes as u64, ..self }
    }

    /// Reads large payloads where their senders have put them, without a copy: [`crate::Message::payload`],
    /// [`crate::Sample::payload`] and [`crate::Sample::slice`] are slices of the sender's memory then.
    ///
    /// # Safety
    ///
    /// Every process that sends to this inbox must leave a payload as it is while it is lent. This library does, in a process that
    /// is not corrupted. Never trust processes of other users, or programs with other libraries: they can change what a slice
    /// shows while it is read, which is undefined behaviour. A forked child must not use a slice that its parent has got: the memory
    /// is not mapped there.
    #[allow(unsafe_code)]
    pub unsafe fn trust_publishers(self) -> Self {
        // SAFETY: the caller promises it.
        Self { trust: Some(unsafe { Trust::promise() }), ..self }
    }

    /// What happens to a message when the inbox is full. By default its sender waits.
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Receives at most this many messages of a topic from each of its senders at once, the newest: 1 for a detector that wants the frame
    /// that is there now. Older ones are passed over, and [`crate::Message::missed`] counts them. 0 counts as 1.
    ///
    /// The policy becomes [`Policy::DropOldest`], so no sender waits for the inbox; another one can be set afterwards. The ring must have room
    /// for as many messages ([`InboxBuilder::capacity`]).
    pub fn keep_last(self, messages: usize) -> Self {
        let keep_last = NonZero::new(messages).unwrap_or(NonZero::<usize>::MIN);
        Self { keep_last: Some(keep_last), policy: Policy::DropOldest, ..self }
    }

    /// Whether a subscription gets what its own node publishes, too. By default it does not.
    pub fn receive_own(self, own: bool) -> Self {
        Self { receive_own: own, ..self }
    }

    /// Gives a subscription a name, so that a node of the same id can take it up again after it is gone: publishers with
    /// redelivery ([`crate::Outbox::set_redelivery`]) keep what it has not processed. The rules for a name are those of a node
    /// id.
    pub fn durable(self, name: &str) -> Self {
        Self { durable: Some(name.to_owned()), ..self }
    }

    /// How many messages of each topic a subscription wants from before it was opened, at most, from each publisher that keeps some
    /// ([`crate::PublisherBuilder::history`]). By default all that are kept; 0: none. They come before anything newer, in order, and say
    /// so ([`crate::Message::is_past`]). A [durable](InboxBuilder::durable) subscription that was taken up again gets none:
    /// nothing has passed it by.
    pub fn history(self, most: usize) -> Self {
        Self { history: most, ..self }
    }

    /// What the messages must be. A publisher whose topic is of another type, or of none, does not reach the inbox, and neither does
    /// such a sender: the next receive fails with [`crate::RecvError::Mismatch`], once for each topic of a publisher and each sender,
    /// and the receives after it go on. By default, everything reaches it. See [`crate::Node::subscriber_of`] and
    /// [`crate::Node::inbox_of`].
    pub fn schema(self, schema: Schema) -> Self {
        Self { schemas: vec![schema], ..self }
    }

    /// What the requests and the replies of a service must be.
    pub(crate) fn schemas(self, schemas: Vec<Schema>) -> Self {
        Self { schemas, ..self }
    }

    /// How the inbox waits.
    pub fn wait(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// When a message counts as processed.
    pub fn acknowledge(self, acknowledge: Acknowledge) -> Self {
        Self { acknowledge, ..self }
    }

    /// Opens the inbox. Every send or publish that begins after this has returned, in any process, reaches it. Does not block,
    /// except for about a millisecond when a subscription is opened in a shared domain.
    ///
    /// # Errors
    ///
    /// [`InboxError`].
    pub fn open(self) -> Result<Inbox, InboxError> {
        let Self {
            node,
            address,
            capacity,
            max_message,
            trust,
            policy,
            keep_last,
            receive_own,
            durable,
            history,
            schemas,
            wait,
            acknowledge,
        } = self;
        let address = address?;
        if let Some(name) = &durable {
            check_node_id(name).map_err(InboxError::InvalidName)?;
        }
        if !is_mappable(capacity, MIN_CAPACITY) {
            return Err(InboxError::Capacity { bytes: capacity });
        }
        let capacity = capacity.max(page_size() as u64);
        let node = node.clone();
        let closed = || InboxError::Closed { node: node.id.clone() };
        let (directory, number) = (node.directory().ok_or_else(closed)?, node.next_inbox());
        let by_invitation = address == Address::Replies;
        let settings = Settings {
            address,
            capacity,
            max_message,
            policy,
            receive_own,
            durable,
            history,
            schemas: schemas.into(),
            by_invitation,
        };
        let shared = InboxShared::new(number, settings, directory, node.ended_incoming.clone())?;
        let mut receiver = Receiver::new(shared.clone(), wait, trust)?;
        receiver.keep_last = keep_last;
        // If this is dropped on an error, it withdraws the announcement.
        let born = fork::Born::now();
        let inbox = Inbox { receiver, shared, acknowledge, born, tasks: None, runtime: None, node };
        inbox.node.announce(&inbox.shared).map_err(|error| match error {
            NotListed::Closed => InboxError::Closed { node: inbox.node.id.clone() },
            NotListed::Taken => InboxError::Taken { node: inbox.node.id.clone() },
            NotListed::Removed(source) => InboxError::Removed { node: inbox.node.id.clone(), source: Box::new(source) },
            NotListed::Failed(AnnounceError::TooMany { .. }) => InboxError::TooMany { node: inbox.node.id.clone() },
            NotListed::Failed(AnnounceError::TooLong { bytes }) => {
                InboxError::ListTooLong { node: inbox.node.id.clone(), bytes }
            }
            NotListed::Failed(AnnounceError::Os(error)) => error.into(),
        })?;
        Ok(inbox)
    }
}
