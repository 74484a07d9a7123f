//! Whether an inbox, or a node, is there.
//!
//! An error is not an answer: it says that the look failed, and nothing about the inbox or node.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::name::{Address, Incarnation};
use crate::registry::node_file::{self, NodeFile, ReadError};
use crate::registry::target::Target;
use crate::sys::clock::Instant;
use crate::sys::{Descriptor, OsError, thread};
use crate::wire::{ListedAddress, ListedInbox};

/// How long an inbox that has hung up may still look alive.
const DYING: Duration = Duration::from_millis(2);

/// The file of a living node. An invalid file counts as no node.
fn living(directory: &Descriptor, node: &str) -> Result<Option<NodeFile>, OsError> {
    match node_file::read(directory, node) {
        Ok(file) => Ok(file.filter(|file| file.alive)),
        Err(ReadError::Bad { .. }) => Ok(None),
        Err(ReadError::Os(error)) => Err(error),
    }
}

/// What distinguishes an inbox from all others of its node's id: its owner, its number, and its terms.
type Terms = (Incarnation, u32, u32, u64, u32);

fn terms_of(target: &Target) -> Terms {
    (target.incarnation, target.uid, target.inbox, target.capacity, target.policy.number())
}

fn terms_listed(file: &NodeFile, inbox: &ListedInbox) -> Terms {
    (file.incarnation, file.uid, inbox.number, inbox.capacity, inbox.policy)
}

/// Whether a living node lists this inbox, with these terms.
pub(crate) fn is_listed(directory: &Descriptor, target: &Target) -> Result<bool, OsError> {
    let Some(file) = living(directory, &target.node)? else { return Ok(false) };
    let is_it = |inbox: &ListedInbox| terms_listed(&file, inbox) == terms_of(target);
    Ok(file.inboxes.iter().filter(|inbox| inbox.number == target.inbox).any(is_it))
}

/// The same, but an inbox whose process is dying, and whose lock the kernel drops in a moment, is not there. Looks for
/// 2 ms at most, and no longer than until the deadline.
pub(crate) fn stays_listed(
    directory: &Descriptor,
    target: &Target,
    deadline: Option<Instant>,
) -> Result<bool, OsError> {
    let dead_by = Instant::now() + DYING;
    let until = deadline.map_or(dead_by, |deadline| deadline.min(dead_by));
    while is_listed(directory, target)? {
        if Instant::now() >= until {
            return Ok(true);
        }
        thread::yield_now();
    }
    Ok(false)
}

/// Whether this incarnation of a node lives.
pub(crate) fn is_alive(directory: &Descriptor, node: &str, incarnation: Incarnation) -> Result<bool, OsError> {
    Ok(living(directory, node)?.is_some_and(|file| file.incarnation == incarnation))
}

/// How an inbox has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Its node has taken it off its list.
    Closed,
    /// Its node still lists it, and is dead.
    Died,
    /// Its node's file is gone, or another incarnation's.
    Gone,
}

/// What a node's file shows.
struct Listed {
    incarnation: Incarnation,
    alive: bool,
    inboxes: HashSet<Terms>,
}

/// Several looks that read each node's file once: a node may list thousands of inboxes.
pub(crate) struct Listings<'d> {
    directory: &'d Descriptor,
    nodes: HashMap<Arc<str>, Option<Listed>>,
}

impl<'d> Listings<'d> {
    pub(crate) fn new(directory: &'d Descriptor) -> Self {
        Self { directory, nodes: HashMap::new() }
    }

    /// As [`is_listed`].
    pub(crate) fn contain(&mut self, target: &Target) -> Result<bool, OsError> {
        let is_it = |listed: &Listed| listed.alive && listed.inboxes.contains(&terms_of(target));
        Ok(self.look(&target.node)?.is_some_and(is_it))
    }

    /// How an inbox has ended; `None`: it has not.
    pub(crate) fn end_of(&mut self, target: &Target) -> Result<Option<End>, OsError> {
        let listed = self.look(&target.node)?.filter(|listed| listed.incarnation == target.incarnation);
        Ok(match listed {
            None => Some(End::Gone),
            Some(Listed { inboxes, .. }) if !inboxes.contains(&terms_of(target)) => Some(End::Closed),
            Some(Listed { alive: false, .. }) => Some(End::Died),
            Some(_) => None,
        })
    }

    /// A node's file; an invalid one counts as none.
    fn look(&mut self, node: &Arc<str>) -> Result<Option<&Listed>, OsError> {
        if !self.nodes.contains_key(node) {
            let listed = match node_file::read(self.directory, node) {
                Ok(file) => file.map(|file| Listed {
                    incarnation: file.incarnation,
                    alive: file.alive,
                    inboxes: file.inboxes.iter().map(|inbox| terms_listed(&file, inbox)).collect(),
                }),
                Err(ReadError::Bad { .. }) => None,
                Err(ReadError::Os(error)) => return Err(error),
            };
            self.nodes.insert(node.clone(), listed);
        }
        Ok(self.nodes[node].as_ref())
    }
}

/// What there is under a node's id.
pub(crate) enum LookedUp {
    /// A living node, and its own inbox.
    Inbox(Target),
    /// A living node without an inbox of its own.
    Alive,
    /// No living node.
    Nobody,
}

/// Finds a node's own inbox.
pub(crate) fn own_inbox(directory: &Descriptor, node: &Arc<str>) -> Result<LookedUp, ReadError> {
    let Some(file) = node_file::read(directory, node)?.filter(|file| file.alive) else { return Ok(LookedUp::Nobody) };
    let Some(inbox) = file.inboxes.iter().find(|inbox| inbox.address == ListedAddress::Node) else {
        return Ok(LookedUp::Alive);
    };
    let bad = |why| ReadError::Bad { id: node.to_string(), why };
    Target::new(node.clone(), &file, inbox, Address::Node).map(LookedUp::Inbox).map_err(bad)
}
