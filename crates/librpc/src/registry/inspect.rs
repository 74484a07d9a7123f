//! What anyone who may read a domain's directory can see of it.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::name::Incarnation;
use crate::policy::Policy;
use crate::registry::domain::{Domain, DomainError};
use crate::registry::membership::{GENERATION, check_generation};
use crate::registry::node_file::{self, ReadError, ids};
use crate::registry::target::MAX_SCHEMAS;
use crate::schema::Schema;
use crate::sys::file::{self, Access, Errno, open_directory};
use crate::sys::{Descriptor, OsError};
use crate::text::harmless;
use crate::wire::{ListedAddress, ListedInbox};

/// A node as the registry shows it to anyone who may read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    /// The process that opened it, as that process says.
    pub pid: u32,
    /// The owner of its file.
    pub uid: u32,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// When it was opened, as its process says.
    pub opened: SystemTime,
    /// Whether its process lives; a dead node stays in the registry until somebody sweeps it.
    pub alive: bool,
    /// The addresses of its inboxes: its own id for what is sent to the node, patterns as `a/*`. At most 1,024 inboxes.
    pub inboxes: Vec<String>,
    /// The same, inbox by inbox.
    pub listed: Vec<InboxInfo>,
}

/// An inbox as the registry shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboxInfo {
    /// Its number at its node.
    pub number: u32,
    /// What it receives: its node's id, patterns, or a service.
    pub addresses: Vec<String>,
    /// Whether that is a service.
    pub is_service: bool,
    /// Capacity of each of its channels' rings in bytes.
    pub capacity: u64,
    /// What its messages must be; for a service, its requests and its replies. Empty: anything.
    pub schemas: Vec<Schema>,
    /// What happens to a message when it is full; `None`: this version does not know the policy.
    pub policy: Option<Policy>,
}

/// A file in a domain that is not what its name says: [`Domain::strange_files`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrangeFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Domain {
    /// The nodes of the domain, including dead ones that nobody has swept yet. Creates nothing, joins nothing.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if the directory or a node's file cannot be read just now. If there is no directory: an empty list.
    pub fn nodes(&self) -> Result<Vec<NodeInfo>, DomainError> {
        match open_directory(self.path()) {
            Ok(directory) => Ok(list(&directory)?),
            Err(error) if error.is(Errno::NOENT) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Files with the name of a node's file, or of the domain's own, that are something else: of another version of librpc,
    /// damaged, or planted. Nobody sees such a node. If the file is the domain's own, nobody can join the domain.
    /// Creates nothing, joins nothing.
    ///
    /// # Errors
    ///
    /// As [`Domain::nodes`].
    pub fn strange_files(&self) -> Result<Vec<StrangeFile>, DomainError> {
        let directory = match open_directory(self.path()) {
            Ok(directory) => directory,
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut strange = Vec::new();
        match file::open(&directory, GENERATION, Access::Read) {
            Ok(generation) => match check_generation(&self.path().join(GENERATION), &generation) {
                Err(DomainError::Foreign { path, why }) => strange.push(StrangeFile { path, why }),
                other => other?,
            },
            Err(Errno::NOENT) => {}
            Err(errno @ (Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM)) => {
                strange.push(StrangeFile { path: self.path().join(GENERATION), why: errno.to_string() });
            }
            Err(errno) => return Err(OsError::new("open generation", errno).into()),
        }
        for id in ids(&directory)? {
            match node_file::read(&directory, &id) {
                Err(ReadError::Bad { why, .. }) => {
                    strange.push(StrangeFile { path: self.path().join(node_file::node_file(&id)), why });
                }
                Err(ReadError::Os(error)) => return Err(error.into()),
                Ok(_) => {}
            }
        }
        Ok(strange)
    }
}

/// All nodes. A file that is not valid is nobody's node, and is left out. One that cannot be read just now may be: that is an
/// error.
pub(crate) fn list(directory: &Descriptor) -> Result<Vec<NodeInfo>, OsError> {
    let mut nodes = Vec::new();
    for id in ids(directory)? {
        match node_file::read(directory, &id) {
            Ok(Some(file)) => nodes.push(NodeInfo {
                pid: file.pid,
                uid: file.uid,
                incarnation: file.incarnation,
                opened: UNIX_EPOCH + Duration::from_nanos(file.opened_ns),
                alive: file.alive,
                inboxes: file.inboxes.iter().flat_map(|inbox| addresses(&id, &inbox.address)).collect(),
                listed: file.inboxes.iter().map(|inbox| inbox_info(&id, inbox)).collect(),
                id,
            }),
            Ok(None) => {} // it has left meanwhile
            Err(error @ ReadError::Bad { .. }) => tracing::warn!(%error, "a node's file is passed over"),
            Err(ReadError::Os(error)) => return Err(error),
        }
    }
    Ok(nodes)
}

pub(super) fn inbox_info(id: &str, inbox: &ListedInbox) -> InboxInfo {
    let ListedInbox { number, address, capacity, policy, schemas, .. } = inbox;
    let schemas =
        schemas.iter().flatten().take(MAX_SCHEMAS).cloned().filter_map(|listed| listed.try_into().ok()).collect();
    let (addresses, policy) = (addresses(id, address), Policy::from_number(*policy));
    let is_service = matches!(address, ListedAddress::Service(_));
    InboxInfo { number: *number, addresses, is_service, capacity: *capacity, schemas, policy }
}

fn addresses(id: &str, address: &ListedAddress) -> Vec<String> {
    match address {
        ListedAddress::Node => vec![id.to_owned()],
        ListedAddress::Patterns(patterns) => patterns.iter().map(|pattern| harmless(pattern)).collect(),
        ListedAddress::Service(service) => vec![harmless(service)],
        ListedAddress::Replies => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_lists_means_nothing_to_a_terminal() {
        let patterns = ListedAddress::Patterns(vec!["a/\u{1b}]0;title\u{7}".into(), "b/**".into()]);
        assert_eq!(addresses("node", &patterns), ["a/]0;title", "b/**"]);
        assert_eq!(addresses("node", &ListedAddress::Service("\u{1b}c".into())), ["c"]);
    }
}
