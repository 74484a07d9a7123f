//! The registry: one file per node, written by that node alone, alive as long as the kernel holds its lock.
//!
//! Invariant: a file that `<id>.node` names is whole (it is linked complete and locked), and its node is alive exactly if
//! somebody holds the write lock on it. `<id>.sock` exists only beside its `<id>.node`.
//!
//! | died after | what is left | what others see |
//! |---|---|---|
//! | making the file, before linking it | nothing | nothing |
//! | linking it | `<id>.node`, unlocked by the death, no inboxes | a dead node; the next opener of the id sweeps it |
//! | binding the socket | both, unlocked | the same |
//! | writing a list of inboxes, before selecting it | the old list | the old list |
//! | withdrawing the inboxes, or removing the socket | `<id>.node`, unlocked | a dead node |
//! | any step of a sweep | what is not removed yet, unlocked | a dead node, to be swept again |

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::fault::fault;
use crate::name::{Incarnation, check_node_id};
use crate::policy::Policy;
use crate::registry::domain::{self, DomainError, Membership, Patience};
use crate::registry::layout::{self, NodeHeader, Select};
use crate::sys::{Context, Descriptor, OsError, lock};
use crate::wire::{self, ListedAddress, ListedInbox};

/// How many other nodes a joining one looks at, to sweep those that are dead.
const SWEPT_BY_A_JOIN: usize = 2;
/// How long two openers of one id, or an opener and a sweeper, may stand in each other's way.
const JOIN_LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn node_file(id: &str) -> String {
    format!("{id}.node")
}

fn socket_file(id: &str) -> String {
    format!("{id}.sock")
}

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

/// A node's file, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct NodeFile {
    pub(crate) incarnation: Incarnation,
    pub(crate) pid: u32,
    /// The owner of the file, from the kernel.
    pub(crate) uid: u32,
    pub(crate) alive: bool,
    opened_ns: u64,
    /// Empty while the node is being opened or closed, too.
    pub(crate) inboxes: Vec<ListedInbox>,
}

#[cfg(feature = "hostile")]
impl NodeFile {
    /// A file of which nothing is known but what its owner wrote.
    pub(crate) fn of_stranger(incarnation: Incarnation, pid: u32, inboxes: Vec<ListedInbox>) -> Self {
        Self { incarnation, pid, uid: 0, alive: true, opened_ns: 0, inboxes }
    }
}

/// Why a node's file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("node {id:?} has a file that cannot be: {why}")]
    Bad { id: String, why: String },
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Reads the file of a node; `None` if there is none. Whatever stands there, this returns soon.
pub(crate) fn read(directory: &Descriptor, id: &str) -> Result<Option<NodeFile>, ReadError> {
    let doing = || format!("read the file of node {id:?}");
    let bad = |why: String| ReadError::Bad { id: id.to_owned(), why };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match Descriptor::open(|| rustix::fs::openat(directory, node_file(id), flags, Mode::empty())) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // What passes is our own trouble. A symbolic link, a socket, a file that nobody may read: somebody has planted it.
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR)) => {
            return Err(OsError::new(doing(), errno).into());
        }
        Err(errno) => return Err(bad(format!("it cannot be opened: {errno}"))),
    };
    let stat = rustix::fs::fstat(&file).context(doing)?;
    if !domain::is_regular(&stat) {
        return Err(bad("it is no regular file".into()));
    }
    let (header, inboxes) = parse(id, |into, offset| rustix::io::pread(&file, into, offset).context(doing))?;
    Ok(Some(NodeFile {
        incarnation: Incarnation::from_bytes(header.incarnation),
        pid: header.pid,
        uid: stat.st_uid,
        alive: lock::is_owned(&file).context(doing)?,
        opened_ns: header.opened_ns,
        inboxes,
    }))
}

/// Reads bytes of a file at an offset; fewer at its end.
type Pread<'f> = dyn FnMut(&mut [u8], u64) -> Result<usize, OsError> + 'f;

/// Takes a node's file apart, which its owner may write at any time.
pub(crate) fn parse(
    id: &str,
    mut pread: impl FnMut(&mut [u8], u64) -> Result<usize, OsError>,
) -> Result<(NodeHeader, Vec<ListedInbox>), ReadError> {
    let bad = |why: String| ReadError::Bad { id: id.to_owned(), why };
    let read_header = |pread: &mut Pread<'_>| {
        let mut bytes = [0; NodeHeader::BYTES];
        pread(&mut bytes, 0)?; // a short read leaves zeros, which are no magic
        NodeHeader::decode(&bytes).map_err(|layout| bad(layout.to_string()))
    };
    // A list is whole if the selecting word is the same behind it as in front of it.
    for _ in 0..100 {
        let header = read_header(&mut pread)?;
        let inboxes = match header.select.area() {
            None => Vec::new(),
            Some((_, bytes)) if bytes > layout::MAX_LIST_BYTES => return Err(bad(format!("a list of {bytes} bytes"))),
            Some((offset, bytes)) => {
                let mut list = vec![0; bytes];
                let read = pread(&mut list, offset)?;
                if read_header(&mut pread)?.select != header.select {
                    continue;
                }
                wire::decode(&list[..read]).map_err(|error| bad(error.to_string()))?
            }
        };
        return Ok((header, inboxes));
    }
    Err(bad("its list of inboxes never stands still".into()))
}

/// The ids of all node files in a directory.
fn ids(directory: &Descriptor) -> Result<Vec<String>, OsError> {
    let mut ids = ids_of(directory, |_| true)?;
    ids.sort();
    Ok(ids)
}

/// The ids of the node files in a directory that are asked for.
pub(crate) fn ids_of(directory: &Descriptor, mut wanted: impl FnMut(&str) -> bool) -> Result<Vec<String>, OsError> {
    let mut ids = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    each_id(directory, &mut buffer, |id| {
        if wanted(id) {
            ids.push(id.to_owned());
        }
        true
    })?;
    Ok(ids)
}

/// Calls `visit` with the ids of node files in a directory until it returns `false`.
fn each_id(
    directory: &Descriptor,
    buffer: &mut [MaybeUninit<u8>],
    mut visit: impl FnMut(&str) -> bool,
) -> Result<(), OsError> {
    let doing = || "list a domain".to_owned();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = match Descriptor::open(|| rustix::fs::openat(directory, ".", flags, Mode::empty())) {
        Ok(own) => own,
        Err(Errno::NOENT) => return Ok(()), // removed in the meantime
        Err(errno) => return Err(OsError::new(doing(), errno)),
    };
    let mut entries = RawDir::new(&own, buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(()),
            entry => entry.context(doing)?,
        };
        let name = entry.file_name().to_str().ok();
        if let Some(id) = name.and_then(|name| name.strip_suffix(".node"))
            && check_node_id(id).is_ok()
            && !visit(id)
        {
            break;
        }
    }
    Ok(())
}

/// All nodes. A file that cannot be read is left out: it is nobody's node.
pub(crate) fn list(directory: &Descriptor) -> Result<Vec<NodeInfo>, OsError> {
    let read = |id: String| match read(directory, &id) {
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
pub(crate) fn strange(directory: &Descriptor) -> Result<Vec<(String, String)>, OsError> {
    let why = |id: String| match read(directory, &id) {
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

/// What a stranger wrote, without what would mean something to a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn addresses(id: &str, address: &ListedAddress) -> Vec<String> {
    match address {
        ListedAddress::Node => vec![id.to_owned()],
        ListedAddress::Patterns(patterns) => patterns.iter().map(|pattern| harmless(pattern)).collect(),
        ListedAddress::Service(service) => vec![harmless(service)],
    }
}

/// Removes what a dead node has left. `false`: it lives, is not there, or its files are not ours to remove.
pub(crate) fn sweep(directory: &Descriptor, id: &str) -> Result<bool, OsError> {
    let doing = || format!("sweep node {id:?}");
    let name = node_file(id);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match Descriptor::open(|| rustix::fs::openat(directory, &name, flags, Mode::empty())) {
        Ok(file) => file,
        // Nobody's node, or another user's.
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::AGAIN) => {
            return Ok(false);
        }
        Err(errno) => return Err(OsError::new(doing(), errno)),
    };
    if !domain::is_regular(&rustix::fs::fstat(&file).context(doing)?) {
        return Ok(false);
    }
    // A file that has a name never gets an owner again: what is dead now stays so.
    let is_dead = || -> Result<bool, OsError> { Ok(!lock::is_owned(&file).context(doing)?) };
    if !is_dead()? || !lock::try_sweep(&file).context(doing)? || !domain::names(directory, &name, &file) {
        return Ok(false);
    }
    let _span = tracing::debug_span!("sweep", node = id).entered();
    fault!("sweep.locked");
    remove(directory, &socket_file(id))?;
    fault!("sweep.socket-removed");
    if !domain::names(directory, &name, &file) {
        return Ok(false);
    }
    let removed = remove(directory, &name)?;
    fault!("sweep.file-removed");
    if removed {
        tracing::info!(node = id, "what a dead node has left is swept");
    }
    Ok(removed)
}

/// Sweeps the dead among a few nodes other than this one: what one join owes to the domain.
fn sweep_a_few(directory: &Descriptor, joining: &str) -> Result<(), OsError> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut some = Vec::new();
    each_id(directory, &mut buffer, |id| {
        if id != joining {
            some.push(id.to_owned());
        }
        some.len() < SWEPT_BY_A_JOIN
    })?;
    some.iter().try_for_each(|id| sweep(directory, id).map(drop))
}

/// Sweeps every dead node, and returns their ids.
pub(crate) fn sweep_all(directory: &Descriptor) -> Result<Vec<String>, OsError> {
    let mut swept = Vec::new();
    for id in ids(directory)? {
        match sweep(directory, &id) {
            Ok(true) => swept.push(id),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "what cannot be swept is left"),
        }
    }
    Ok(swept)
}

fn remove(directory: &Descriptor, name: &str) -> Result<bool, OsError> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // Another user's file in a shared domain waits for its owner.
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(OsError::new(format!("remove {name}"), errno)),
    }
}

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
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            opened_ns: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
            select: Select::default(),
        };
        let mode = membership.file_mode() & !Mode::WGRP;
        let directory = membership.directory();
        let make = || domain::make_file(directory, &header.encode(), mode);
        let file = match make() {
            // What the dead have left may be just the space that is missing.
            Err(Errno::NOSPC) if !sweep_all(directory)?.is_empty() => make(),
            made => made,
        }
        .context(doing)?;
        let locked = lock::try_own(&file).context(doing)?;
        assert!(locked, "nobody else can know a file without a name");
        fault!("join.locked");
        let mut patience = Patience::new(JOIN_LIMIT);
        loop {
            match domain::link_file(directory, &file, &node_file(id)) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(OsError::new(doing(), errno).into()),
            }
            if !sweep(directory, id)? {
                match read(directory, id) {
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
        if let Err(error) = sweep_a_few(directory, id) {
            tracing::debug!(%error, "a joining node has swept nothing");
        }
        Ok(file)
    }

    /// Whether the domain and the node's file are still what their names lead to. Not so: somebody has removed them.
    pub(crate) fn is_current(&self) -> bool {
        let membership = &self.membership;
        membership.is_current() && domain::names(membership.directory(), &node_file(&self.id), &self.file)
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
        rustix::fs::chmodat(directory, socket_file(&self.id), mode, AtFlags::empty())
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
            let flags = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&self.file, flags, lists.file_bytes, size).context(doing)?;
            lists.areas[next] = (lists.file_bytes, size);
            lists.file_bytes += size;
        }
        let offset = lists.areas[next].0;
        rustix::io::pwrite(&self.file, &bytes, offset).context(doing)?;
        fault!("announce.written");
        lists.sequence += 1;
        let select = Select::new(lists.sequence, offset, bytes.len());
        rustix::io::pwrite(&self.file, &select.0.to_le_bytes(), layout::SELECT_OFFSET).context(doing)?;
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
        if domain::names(directory, &node_file(&self.id), &self.file) {
            let _ = remove(directory, &node_file(&self.id)).map_err(warn);
        }
        fault!("leave.file-removed");
        self.membership.bump(&self.id);
        drop(self.file);
        self.membership.leave();
    }
}

/// The path of a node's rendezvous socket, short whatever the domain's path.
pub(crate) fn socket_path(directory: &Descriptor, id: &str) -> PathBuf {
    Path::join(&domain::proc_path(directory), socket_file(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::layout::LISTS_OFFSET;

    #[test]
    fn what_a_stranger_lists_means_nothing_to_a_terminal() {
        let patterns = ListedAddress::Patterns(vec!["a/\u{1b}]0;title\u{7}".into(), "b/**".into()]);
        assert_eq!(addresses("node", &patterns), ["a/]0;title", "b/**"]);
        assert_eq!(addresses("node", &ListedAddress::Service("\u{1b}c".into())), ["c"]);
    }

    fn front(select: Select) -> Vec<u8> {
        let header = NodeHeader { incarnation: [1; 16], pid: 2, uid: 3, opened_ns: 4, select };
        let mut bytes = header.encode().to_vec();
        bytes.resize(LISTS_OFFSET as usize, 0);
        bytes
    }

    fn pread(file: &[u8], into: &mut [u8], offset: u64) -> Result<usize, OsError> {
        let from = (offset as usize).min(file.len());
        let read = into.len().min(file.len() - from);
        into[..read].copy_from_slice(&file[from..from + read]);
        Ok(read)
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read() {
        let select = Select(Select::new(1, LISTS_OFFSET, layout::MAX_LIST_BYTES).0 + (1 << 24));
        let file = front(select);
        let read = parse("n", |into, offset| {
            assert!(into.len() <= layout::MAX_LIST_BYTES, "{} bytes are read", into.len());
            pread(&file, into, offset)
        });
        assert!(matches!(read, Err(ReadError::Bad { .. })), "{read:?}");
    }

    #[test]
    fn a_list_that_changes_under_its_reader_is_read_again() {
        let list = |number: u32| {
            let (address, capacity) = (ListedAddress::Node, 4096);
            wire::encode(&vec![ListedInbox { number, address, capacity, policy: 0, own: false, durable: None }])
        };
        let (first, second) = (list(1), list(2));
        let mut file = front(Select::new(1, LISTS_OFFSET, first.len()));
        file.extend(first);
        let mut reads = 0;
        let (_, inboxes) = parse("n", |into, offset| {
            if offset == LISTS_OFFSET {
                reads += 1;
                if reads == 1 {
                    // Its owner has written the next one elsewhere by now, and the one after that over this one.
                    let elsewhere = LISTS_OFFSET + 64;
                    let changed = front(Select::new(2, elsewhere, second.len()));
                    file.resize(elsewhere as usize, 0);
                    file.extend(&second);
                    file[..changed.len()].copy_from_slice(&changed);
                    file[LISTS_OFFSET as usize..][..8].fill(0xff);
                }
            }
            pread(&file, into, offset)
        })
        .unwrap();
        assert_eq!(inboxes.iter().map(|inbox| inbox.number).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn who_sweeps_is_alone() {
        let path = std::path::PathBuf::from(format!("/dev/shm/librpc_unit_sweep_{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("dead.node"), front(Select(0))).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = Descriptor::open(|| rustix::fs::open(&path, flags, Mode::empty())).unwrap();
        let other = std::fs::File::options().read(true).write(true).open(path.join("dead.node")).unwrap();
        assert!(lock::try_sweep(&other).unwrap());
        let swept_beside_it = sweep(&directory, "dead").unwrap();
        drop(other);
        let swept_alone = swept_beside_it || sweep(&directory, "dead").unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(!swept_beside_it && swept_alone);
    }
}
