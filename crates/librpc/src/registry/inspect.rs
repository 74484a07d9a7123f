//! What anyone who may read a domain's directory can see of it, and `clean`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::name::Incarnation;
use crate::policy::Policy;
use crate::registry::domain::{Domain, DomainError};
use crate::registry::membership::{GENERATION, Membership, check_generation, remove_unfinished};
use crate::registry::node_file::{self, ReadError, ids};
use crate::registry::sweep;
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
    /// The addresses of its inboxes: its own id for what is sent to the node, patterns as `a/*`.
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
    /// What it receives: its node's id, or patterns.
    pub addresses: Vec<String>,
    /// Capacity of each of its channels' rings in bytes.
    pub capacity: u64,
    /// What happens to a message that finds it full; `None`: a policy of a later version.
    pub policy: Option<Policy>,
}

/// A file in a domain that is not what its name says: [`Domain::strange_files`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrangeFile {
    /// Where it is.
    pub path: PathBuf,
    /// Why it cannot be.
    pub why: String,
}

impl Domain {
    /// The nodes of the domain, dead ones that nobody has swept yet included. Creates nothing, joins nothing.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if there is a directory, but it cannot be read. No directory: an empty list.
    pub fn nodes(&self) -> Result<Vec<NodeInfo>, DomainError> {
        match open_directory(self.path()) {
            Ok(directory) => Ok(list(&directory)?),
            Err(error) if error.is(Errno::NOENT) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The files whose names say that they are nodes', or the domain's own, and that cannot be: of another version of
    /// librpc, damaged, or planted. Nobody sees such a node; with such a file of its own the domain cannot be joined.
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
            Err(errno) => strange.push(StrangeFile { path: self.path().join(GENERATION), why: errno.to_string() }),
        }
        let nodes = strange_nodes(&directory)?.into_iter();
        strange.extend(nodes.map(|(id, why)| StrangeFile { path: self.path().join(node_file::node_file(&id)), why }));
        Ok(strange)
    }

    /// Removes what dead nodes have left, and the domain itself if nobody else is in it. Returns the ids that were
    /// removed. Waits up to 2 s for a member that is clearing up itself.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if the directory is none of ours. No directory: an empty list.
    pub fn clean(&self) -> Result<Vec<String>, DomainError> {
        remove_unfinished(self.path());
        let Some(membership) = Membership::enter(self, false)? else { return Ok(Vec::new()) };
        let removed = sweep::sweep_all(membership.directory());
        membership.leave();
        removed.map_err(DomainError::Os)
    }
}

/// All nodes. A file that cannot be read is left out: it is nobody's node.
pub(crate) fn list(directory: &Descriptor) -> Result<Vec<NodeInfo>, OsError> {
    let read = |id: String| match node_file::read(directory, &id) {
        Ok(file) => file.map(|file| NodeInfo {
            pid: file.pid,
            uid: file.uid,
            incarnation: file.incarnation,
            opened: UNIX_EPOCH + Duration::from_nanos(file.opened_ns),
            alive: file.alive,
            inboxes: file.inboxes.iter().flat_map(|inbox| addresses(&id, &inbox.address)).collect(),
            listed: file.inboxes.iter().map(|inbox| inbox_info(&id, inbox)).collect(),
            id,
        }),
        Err(error) => {
            tracing::warn!(%error, "a node's file is passed over");
            None
        }
    };
    Ok(ids(directory)?.into_iter().filter_map(read).collect())
}

/// The ids of files that cannot be nodes', and why.
fn strange_nodes(directory: &Descriptor) -> Result<Vec<(String, String)>, OsError> {
    let why = |id: String| match node_file::read(directory, &id) {
        Err(ReadError::Bad { why, .. }) => Some((id, why)),
        _ => None,
    };
    Ok(ids(directory)?.into_iter().filter_map(why).collect())
}

fn inbox_info(id: &str, inbox: &ListedInbox) -> InboxInfo {
    let ListedInbox { number, address, capacity, policy, .. } = inbox;
    let (addresses, policy) = (addresses(id, address), Policy::from_number(*policy));
    InboxInfo { number: *number, addresses, capacity: *capacity, policy }
}

fn addresses(id: &str, address: &ListedAddress) -> Vec<String> {
    match address {
        ListedAddress::Node => vec![id.to_owned()],
        ListedAddress::Patterns(patterns) => patterns.iter().map(|pattern| harmless(pattern)).collect(),
        ListedAddress::Service(service) => vec![harmless(service)],
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
