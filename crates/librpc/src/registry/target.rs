//! An inbox as its node's file describes it, checked.

use std::sync::Arc;

use librpc_ring::is_mappable;

use crate::name::{Address, Incarnation};
use crate::policy::Policy;
use crate::registry::node_file::NodeFile;
use crate::schema::Schema;
use crate::sys::memory::page_size;
use crate::wire::{DEFAULT_MAX_MESSAGE, ListedInbox};

/// Those of a service: its requests and its replies.
pub(crate) const MAX_SCHEMAS: usize = 2;

/// An inbox as its node's file describes it. Equal are only the same inbox with the same terms.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    pub(crate) node: Arc<str>,
    pub(crate) incarnation: Incarnation,
    /// The owner of the node's file: the listener must be this user's.
    pub(crate) uid: u32,
    pub(crate) inbox: u32,
    pub(crate) address: Address,
    pub(crate) capacity: u64,
    pub(crate) policy: Policy,
    /// The longest message that it takes, in bytes.
    pub(crate) max_message: u64,
    /// What its messages must be; for a service, its requests and its replies. Empty: anything. `None`: it knows no types.
    pub(crate) schemas: Option<Arc<[Schema]>>,
}

impl Target {
    /// An inbox that a living node's file lists, checked; otherwise why it is not valid.
    pub(crate) fn new(node: Arc<str>, file: &NodeFile, inbox: &ListedInbox, address: Address) -> Result<Self, String> {
        let capacity = inbox.capacity;
        if !is_mappable(capacity, page_size()) {
            return Err(format!("it lists a capacity of {capacity} bytes, which this system cannot map"));
        }
        let policy = Policy::from_number(inbox.policy);
        let policy = policy.ok_or_else(|| format!("it lists policy {}, of a later version", inbox.policy))?;
        let NodeFile { incarnation, uid, .. } = *file;
        let max_message = inbox.max_message.unwrap_or(DEFAULT_MAX_MESSAGE);
        let schemas = inbox.schemas.iter().flatten().take(MAX_SCHEMAS).cloned().map(Schema::try_from);
        let schemas: Arc<[Schema]> = schemas.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let schemas = inbox.schemas.as_ref().map(|_| schemas);
        Ok(Self { node, incarnation, uid, inbox: inbox.number, address, capacity, policy, max_message, schemas })
    }

    /// Whether both are the same inbox. Numbers are not enough: another node's file can list the same ones.
    pub(crate) fn is_same_inbox(&self, other: &Self) -> bool {
        let key = |target: &Self| (target.uid, target.incarnation, target.inbox);
        key(self) == key(other) && self.node == other.node
    }

    /// What its messages must be, or the requests of its service; `None`: anything.
    pub(crate) fn wanted(&self) -> Option<&Schema> {
        self.schemas.as_ref()?.first()
    }

    /// Whether a topic may be declared to it with its type.
    pub(crate) fn knows_types(&self) -> bool {
        self.schemas.is_some()
    }

    /// The longest message that it takes, in bytes.
    pub(crate) fn max_message(&self) -> usize {
        usize::try_from(self.max_message).unwrap_or(usize::MAX)
    }
}
