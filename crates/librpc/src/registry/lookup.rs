//! Whether an inbox, or a node, is there.

use std::sync::Arc;
use std::time::Duration;

use crate::name::{Address, Incarnation};
use crate::registry::node_file::{self, NodeFile, ReadError};
use crate::registry::target::Target;
use crate::sys::clock::Instant;
use crate::sys::{Descriptor, thread};
use crate::wire::ListedAddress;

/// How long an inbox that has hung up may still look alive.
const DYING: Duration = Duration::from_millis(2);

/// Whether a node of this incarnation lives and lists this inbox.
pub(crate) fn is_listed(directory: &Descriptor, target: &Target) -> bool {
    let is_there = |file: &NodeFile| {
        let listed = file.inboxes.iter().any(|inbox| inbox.number == target.inbox);
        file.alive && file.incarnation == target.incarnation && listed
    };
    matches!(node_file::read(directory, &target.node), Ok(Some(file)) if is_there(&file))
}

/// The same, but an inbox whose process is dying, and whose lock the kernel drops in a moment, is none.
pub(crate) fn stays_listed(directory: &Descriptor, target: &Target) -> bool {
    let begun = Instant::now();
    while is_listed(directory, target) {
        if begun.elapsed() > DYING {
            return true;
        }
        thread::yield_now();
    }
    false
}

/// Whether this incarnation of a node lives.
pub(crate) fn is_alive(directory: &Descriptor, node: &str, incarnation: Incarnation) -> bool {
    matches!(node_file::read(directory, node), Ok(Some(file)) if file.alive && file.incarnation == incarnation)
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
