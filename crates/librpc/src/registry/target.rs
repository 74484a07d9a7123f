//! An inbox as its node's file describes it, checked.

use std::sync::Arc;

use librpc_ring::is_mappable;

use crate::name::{Address, Incarnation};
use crate::policy::Policy;
use crate::registry::node_file::NodeFile;
use crate::schema::Schema;
use crate::sys::memory::page_size;
use crate::text;
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
            return Err(format!("it lists a capacity of {}, which this system cannot map", text::bytes(capacity)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::inspect::inbox_info;
    use crate::registry::view::Subscription;
    use crate::schema::{ListedSchema, MAX_TYPE_NAME_BYTES};
    use crate::topic::Pattern;
    use crate::wire::ListedAddress;

    fn named(name: &str) -> ListedSchema {
        ListedSchema { name: name.to_owned(), encoding: 3, hash: None, definition: None }
    }

    fn listing(schemas: Option<Vec<ListedSchema>>) -> ListedInbox {
        ListedInbox {
            number: 1,
            address: ListedAddress::Patterns(vec!["t".into()]),
            capacity: page_size() as u64,
            policy: 0,
            own: false,
            durable: None,
            max_message: None,
            history: None,
            schemas,
        }
    }

    fn file(inbox: ListedInbox) -> NodeFile {
        let incarnation = Incarnation::from_bytes([1; 16]);
        NodeFile { incarnation, pid: 1, uid: 1, alive: true, opened_ns: 0, inboxes: vec![inbox], lists_more: false }
    }

    fn target(schemas: Option<Vec<ListedSchema>>) -> Result<Target, String> {
        let (file, patterns) = (file(listing(schemas)), ["t".parse::<Pattern>().unwrap()]);
        Target::new("n".into(), &file, &file.inboxes[0], Address::Topics(patterns.into()))
    }

    #[test]
    fn what_an_inbox_wants_is_what_its_first_types_say() {
        let older = target(None).unwrap();
        assert!(!older.knows_types() && older.wanted().is_none());
        let any = target(Some(vec![])).unwrap();
        assert!(any.knows_types() && any.wanted().is_none());
        let many = (0..10_000).map(|number| named(&format!("T{number}"))).collect::<Vec<_>>();
        let inbox = listing(Some(many.clone()));
        assert_eq!(inbox_info("n", &inbox).schemas.len(), MAX_SCHEMAS);
        let target = target(Some(many)).unwrap();
        assert_eq!(target.schemas.as_ref().unwrap().len(), MAX_SCHEMAS);
        assert_eq!(target.wanted().unwrap().to_string(), "T0/json");
        let file = file(inbox);
        let subscription = Subscription::listed("n", &file, &file.inboxes[0], 1).unwrap();
        assert!(subscription.takes("t", Some(&"T0/json".parse().unwrap())));
        assert!(!subscription.takes("t", Some(&"T1/json".parse().unwrap())) && !subscription.takes("t", None));
    }

    /// It would get what it does not want if its type were left out.
    #[test]
    fn an_inbox_whose_type_is_none_is_passed_over() {
        for bad in ["", "\u{1b}", &"x".repeat(MAX_TYPE_NAME_BYTES + 1), &"x".repeat(1 << 20)] {
            let why = target(Some(vec![named(bad)])).unwrap_err();
            assert!(why.contains("invalid type name") && why.len() < 300, "{} bytes of reason", why.len());
            let (info, file) =
                (inbox_info("n", &listing(Some(vec![named(bad)]))), file(listing(Some(vec![named(bad)]))));
            assert!(info.schemas.is_empty());
            assert!(Subscription::listed("n", &file, &file.inboxes[0], 1).is_none());
        }
    }
}
