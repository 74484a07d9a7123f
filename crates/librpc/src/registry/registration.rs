//! A node's place in the registry: its file, and the lock on it that says that it lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::name::Incarnation;
use crate::registry::domain::DomainError;
use crate::registry::layout::{self, MAX_INBOXES, NodeHeader, PAGE, Select};
use crate::registry::membership::{GENERATION, Membership, Patience};
use crate::registry::node_file::{self, NodeFile, ReadError, make_file, names, node_file, path_in, socket_file};
use crate::registry::sweep::{self, remove};
use crate::sys::file::{self, Errno};
use crate::sys::socket::Socket;
use crate::sys::{Context, Descriptor, OsError, clock, lock, process};
use crate::wire::{self, ListedInbox};

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

/// Why a list of inboxes could not be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    #[error("{inboxes} inboxes; a node has at most {MAX_INBOXES}")]
    TooMany { inboxes: usize },
    #[error("the list of inboxes takes {bytes} bytes; the limit is {max}", max = layout::MAX_LIST_BYTES)]
    TooLong { bytes: usize },
    #[error(transparent)]
    Os(#[from] OsError),
}

/// What is still in place of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Current,
    /// All but the socket.
    WithoutSocket,
    /// The node's file, and perhaps the socket, but not `generation`.
    WithoutGeneration,
    Removed,
}

/// A place in the registry, held by the lock on the file. Dropped without [`Registration::leave`], it is given up as by a
/// death.
#[derive(Debug)]
pub(crate) struct Registration {
    membership: Membership,
    id: String,
    /// Holds the lock: never mapped, never sent, closed in a forked child.
    file: Descriptor,
    /// The name of the socket that belongs to the file.
    socket: String,
    /// The file of the socket that is served; `None`: none is.
    served: Option<(u64, u64)>,
    lists: Lists,
}

/// Where in the file the lists of inboxes are.
#[derive(Debug)]
struct Lists {
    areas: [(u64, u64); 2],
    selected: usize,
    sequence: u64,
    file_bytes: u64,
}

impl Registration {
    /// Takes an id in a domain. Nobody can connect yet. Waits, up to a limit, for another process that is sweeping what a dead
    /// node of this id has left.
    pub(crate) fn join(
        membership: Membership,
        id: &str,
        incarnation: Incarnation,
        limit: Duration,
    ) -> Result<Self, JoinError> {
        match Self::link(&membership, id, incarnation, limit) {
            Ok((file, socket)) => {
                let half = (PAGE - layout::LISTS_OFFSET) / 2;
                let areas = [(layout::LISTS_OFFSET, half), (layout::LISTS_OFFSET + half, half)];
                let lists = Lists { areas, selected: 0, sequence: 0, file_bytes: PAGE };
                Ok(Self { membership, id: id.to_owned(), file, socket, served: None, lists })
            }
            Err(error) => {
                membership.leave();
                Err(error)
            }
        }
    }

    /// Makes the node's file, and gives it its name; returns it with the name of its socket.
    fn link(
        membership: &Membership,
        id: &str,
        incarnation: Incarnation,
        limit: Duration,
    ) -> Result<(Descriptor, String), JoinError> {
        let doing = || format!("open node {id:?}, whose file takes {PAGE} bytes");
        let header = NodeHeader {
            incarnation: *incarnation.bytes(),
            pid: process::pid(),
            uid: process::uid(),
            opened_ns: clock::unix_ns(),
            select: Select::default(),
        };
        let mode = membership.file_mode() & !0o020;
        let directory = membership.directory();
        let make = || make_file(directory, &header.encode(), mode);
        let file = match make() {
            // What the dead have left may be just the space that is missing. If it cannot be swept, that is still what is.
            Err(Errno::NOSPC) if sweep::sweep_all(directory).is_ok_and(|swept| !swept.is_empty()) => make(),
            made => made,
        }
        .context(doing)?;
        let locked = lock::try_own(&file).context(doing)?;
        assert!(locked, "nobody else can know a file without a name");
        let socket = socket_file(id, &file::stat(&file).context(doing)?);
        fault!("join.locked");
        let mut patience = Patience::new(limit);
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
                        return Err(DomainError::Foreign { path, why: "it is not a node's file".into() }.into());
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
        Ok((file, socket))
    }

    /// What somebody else has left in place.
    pub(crate) fn standing(&self) -> Result<Standing, OsError> {
        let doing = || format!("look for the files of node {:?}", self.id);
        let directory = self.membership.directory();
        if !names(directory, &node_file(&self.id), &self.file).context(doing)? {
            return Ok(Standing::Removed);
        }
        if !self.membership.is_current()? {
            return Ok(Standing::WithoutGeneration);
        }
        match file::stat_at(directory, &self.socket) {
            Ok(found) if Some(found.identity) == self.served => Ok(Standing::Current),
            // Nobody listens on another one.
            Ok(_) | Err(Errno::NOENT) => Ok(Standing::WithoutSocket),
            Err(errno) => Err(OsError::new(doing(), errno)),
        }
    }

    /// The files without which nobody finds the node.
    pub(crate) fn files(&self) -> (Arc<Descriptor>, Vec<PathBuf>) {
        let directory = self.membership.directory();
        let files = [&*node_file(&self.id), &self.socket, GENERATION].map(|name| path_in(directory, name));
        (directory.clone(), files.to_vec())
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Changes to a new membership of the same directory, and returns the former one.
    pub(crate) fn change_membership(&mut self, membership: Membership) -> Membership {
        std::mem::replace(&mut self.membership, membership)
    }

    /// Binds the node's rendezvous socket, lets the members that may connect do so, and has it served. Where that fails, the
    /// next look finds the node without a socket.
    pub(crate) fn listen(&mut self, serve: impl FnOnce(Socket) -> Result<(), OsError>) -> Result<(), OsError> {
        self.served = None;
        let (socket, identity) = self.bind()?;
        serve(socket)?;
        self.served = Some(identity);
        Ok(())
    }

    fn bind(&self) -> Result<(Socket, (u64, u64)), OsError> {
        let (directory, path) = (self.membership.directory(), path_in(self.membership.directory(), &self.socket));
        let socket = match Socket::bind(&path) {
            // Whatever has the name that belongs to our file was left there: inode numbers come back in the end.
            Err(error) if error.is(Errno::ADDRINUSE) && remove(directory, &self.socket)? => Socket::bind(&path)?,
            bound => bound?,
        };
        fault!("join.bound");
        let doing = || format!("let others connect to node {:?}", self.id);
        file::set_mode_at(directory, &self.socket, self.membership.file_mode()).context(doing)?;
        let identity = file::stat_at(directory, &self.socket).context(doing)?.identity;
        Ok((socket, identity))
    }

    /// Publishes the list of inboxes. Once this has returned, every lookup that begins afterwards finds it.
    pub(crate) fn announce(&mut self, inboxes: &[ListedInbox]) -> Result<(), AnnounceError> {
        if inboxes.len() > MAX_INBOXES {
            return Err(AnnounceError::TooMany { inboxes: inboxes.len() });
        }
        let bytes = wire::encode(&inboxes);
        if bytes.len() > layout::MAX_LIST_BYTES {
            return Err(AnnounceError::TooLong { bytes: bytes.len() });
        }
        let doing = || format!("list the inboxes of node {:?}, which takes {} bytes", self.id, bytes.len());
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
        Ok(self.membership.bump(&self.id)?)
    }

    /// Gives the id up, and leaves the domain; the last one removes it.
    pub(crate) fn leave(self) {
        fault!("leave.begun");
        let directory = self.membership.directory();
        let warn = |error: OsError| tracing::warn!(%error, node = self.id, "a leaving node has left something behind");
        if let Err(error) = remove(directory, &self.socket) {
            warn(error);
        }
        fault!("leave.socket-removed");
        let name = node_file(&self.id);
        // While the name leads to our file, which we hold, nobody else can take the id.
        let is_named = names(directory, &name, &self.file).context(|| format!("look for {name}"));
        if let Err(error) = is_named.and_then(|is_named| Ok(is_named && remove(directory, &name)?)) {
            warn(error);
        }
        fault!("leave.file-removed");
        if let Err(error) = self.membership.bump(&self.id) {
            warn(error);
        }
        drop(self.file);
        self.membership.leave();
    }
}
