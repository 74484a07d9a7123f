//! The directory in which nodes find one another.

pub(crate) mod change_counter;
pub(crate) mod domain;
pub(crate) mod layout;
pub(crate) mod node_file;
pub(crate) mod view;
pub(crate) mod wait;

pub use domain::{Domain, DomainError, StrangeFile};
pub use node_file::{InboxInfo, NodeInfo};
