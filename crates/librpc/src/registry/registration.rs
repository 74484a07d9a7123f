//! A node's place in the registry: its file, and the lock on it that says that it lives.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::fault;
use crate::name::Incarnation;
use crate::registry::domain::DomainError;
use crate::registry::layout::{self, NodeHeader, Select};
use crate::registry::membership::{Membership, Patience};
use crate::registry::node_file::{self, NodeFile, ReadError, make_file, names, node_file, socket_file, socket_path};
use crate::registry::sweep::{self, remove};
use crate::sys::file::{self, Errno};
use crate::sys::{Context, Descriptor, OsError, lock, process};
use crate::wire::{self, ListedInbox};

/// How long two openers of one id, or an opener and a sweeper, may stand in each other's way.
const JOIN_LIMIT: Duration = Duration::from_secs(2);

/// Why a node id could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("held by pid {pid}, uid {uid}")]
    InUse { pid: u32, uid: u32 },
    #[error("being swept")]
    BeingSwept,
    #[error("left behind by uid {uid}")]
    NotOurs { uid: u32 },
    #[error(transparent)]
    Domain(#[from] DomainError),
    #[error(transparent)]
    Os(#[from] OsError),
}

/// A place in the registry, held by the lock on the file. Dropped without [`Registration::leave`], it is given up as by a
/// death.
#[derive(Debug)]
pub(crate) struct Registration {
    membership: Membership,
    id: String,
    /// Holds the lock: never mapped, never sent, closed in a forked child.
    file: Descriptor,
    lists: Lists,
}

/// Where in the file the lists of inboxes stand.
#[derive(Debug)]
struct Lists {
    areas: [(u64, u64); 2],
    selected: usize,
    sequence: u64,
    file_bytes: u64,
}

impl Registration {
    /// Takes an id in a domain. Nobody can connect yet.
    pub(crate) fn join(membership: Membership, id: &str, incarnation: Incarnation) -> Result<Self, JoinError> {
        match Self::link(&membership, id, incarnation) {
            Ok(file) => {
                let half = (layout::PAGE - layout::LISTS_OFFSET) / 2;
                let areas = [(layout::LISTS_OFFSET, half), (layout::LISTS_OFFSET + half, half)];
                let lists = Lists { areas, selected: 0, sequence: 0, file_bytes: layout::PAGE };
                Ok(Self { membership, id: id.to_owned(), file, lists })
            }
            Err(error) => {
                membership.leave();
                Err(error)
            }
        }
    }

    fn link(membership: &Membership, id: &str, incarnation: Incarnation) -> Result<Descriptor, JoinError> {
        let doing = || format!("open node {id:?}");
        let header = NodeHeader {
            incarnation: *incarnation.bytes(),
            pid: process::pid(),
            uid: process::uid(),
            opened_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            select: Select::default(),
        };
        let mode = membership.file_mode() & !0o020;
        let directory = membership.directory();
        let make = || make_file(directory, &header.encode(), mode);
        let file = match make() {
            // What the dead have left may be just the space that is missing.
            Err(Errno::NOSPC) if !sweep::sweep_all(directory)?.is_empty() => make(),
            made => made,
        }
        .context(doing)?;
        let locked = lock::try_own(&file).context(doing)?;
        assert!(locked, "nobody else can know a file without a name");
        fault!("join.locked");
        let mut patience = Patience::new(JOIN_LIMIT);
        loop {
            match file::give_name(directory, &file, &node_file(id)) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(OsError::new(doing(), errno).into()),
            }
            if !sweep::sweep(directory, id)? {
                match node_file::read(directory, id) {
                    Ok(Some(NodeFile { alive: true, pid, uid, .. })) => return Err(JoinError::InUse { pid, uid }),
                    Ok(Some(NodeFile { uid, .. })) if uid != header.uid => return Err(JoinError::NotOurs { uid }),
                    Ok(_) => {}
                    Err(ReadError::Os(error)) => return Err(error.into()),
                    Err(ReadError::Bad { .. }) => {
                        let path = membership.domain().path().join(node_file(id));
                        return Err(DomainError::Foreign { path, why: "it is no node's file".into() }.into());
                    }
                }
                if !patience.waits() {
                    return Err(JoinError::BeingSwept);
                }
            }
        }
        fault!("join.linked");
        if let Err(error) = sweep::sweep_a_few(directory, id) {
            tracing::debug!(%error, "a joining node has swept nothing");
        }
        Ok(file)
    }

    /// Whether the domain and the node's file are still what their names lead to. Not so: somebody has removed them.
    pub(crate) fn is_current(&self) -> bool {
        let membership = &self.membership;
        membership.is_current() && names(membership.directory(), &node_file(&self.id), &self.file)
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The path at which to bind the rendezvous socket, free.
    pub(crate) fn socket_path(&self) -> Result<PathBuf, OsError> {
        remove(self.membership.directory(), &socket_file(&self.id))?;
        Ok(socket_path(self.membership.directory(), &self.id))
    }

    /// Lets the members that may connect do so.
    pub(crate) fn open_socket(&self) -> Result<(), OsError> {
        let (directory, mode) = (self.membership.directory(), self.membership.file_mode());
        file::set_mode_at(directory, &socket_file(&self.id), mode)
            .context(|| format!("open the socket of node {:?}", self.id))
    }

    /// Publishes the list of inboxes. Once this has returned, every lookup that begins afterwards finds it.
    pub(crate) fn announce(&mut self, inboxes: &[ListedInbox]) -> Result<(), OsError> {
        let doing = || format!("list the inboxes of node {:?}", self.id);
        let bytes = wire::encode(&inboxes);
        if bytes.len() > layout::MAX_LIST_BYTES {
            return Err(OsError::new(doing(), std::io::Error::from(std::io::ErrorKind::FileTooLarge)));
        }
        let lists = &mut self.lists;
        let next = 1 - lists.selected;
        if lists.areas[next].1 < bytes.len() as u64 {
            let size = (bytes.len() as u64).next_power_of_two().max(layout::PAGE);
            file::allocate(&self.file, lists.file_bytes, size).context(doing)?;
            lists.areas[next] = (lists.file_bytes, size);
            lists.file_bytes += size;
        }
        let offset = lists.areas[next].0;
        file::write_at(&self.file, &bytes, offset).context(doing)?;
        fault!("announce.written");
        lists.sequence += 1;
        let select = Select::new(lists.sequence, offset, bytes.len());
        file::write_at(&self.file, &select.0.to_le_bytes(), layout::SELECT_OFFSET).context(doing)?;
        lists.selected = next;
        fault!("announce.selected");
        self.membership.bump(&self.id);
        Ok(())
    }

    /// Gives the id up, and leaves the domain; the last one removes it.
    pub(crate) fn leave(self) {
        fault!("leave.begun");
        let directory = self.membership.directory();
        let warn = |error: OsError| tracing::warn!(%error, node = self.id, "a leaving node could not remove a file");
        let _ = remove(directory, &socket_file(&self.id)).map_err(warn);
        fault!("leave.socket-removed");
        if names(directory, &node_file(&self.id), &self.file) {
            let _ = remove(directory, &node_file(&self.id)).map_err(warn);
        }
        fault!("leave.file-removed");
        self.membership.bump(&self.id);
        drop(self.file);
        self.membership.leave();
    }
}
