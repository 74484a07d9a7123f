//! The directory in which nodes find one another.

pub(crate) mod layout; //          the bytes of its files
pub(crate) mod domain; //          the directory's path and group
pub(crate) mod change_counter; //  says that something has changed, and where
pub(crate) mod node_file; //       one file per node
mod sweep; //                      removing what dead nodes have left
pub(crate) mod membership; //      first in makes the directory, last out removes it
pub(crate) mod registration; //    a node's place
pub(crate) mod lookout; //         noticing that files were removed, or have appeared
mod clean; //                      clearing up by hand
mod inspect; //                    what anyone can see of a domain
pub(crate) mod target; //          an inbox that a node's file lists
pub(crate) mod lookup; //          whether an inbox or a node is there
pub(crate) mod view; //            the subscriptions of a domain
pub(crate) mod wait; //            waiting for something to appear

pub use clean::Leftovers;
pub use domain::{Domain, DomainError};
pub(crate) use inspect::list;
pub use inspect::{InboxInfo, NodeInfo, StrangeFile};
pub(crate) use sweep::sweep;
