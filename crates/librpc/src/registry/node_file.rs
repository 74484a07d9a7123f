//! The registry: one file per node, written by that node alone, alive as long as the kernel holds its lock.
//!
//! Invariant: a file that `<id>.node` names is whole (it is linked complete and locked), and its node is alive exactly if
//! somebody holds the write lock on it. A node's socket carries the inode number of the node's file in its name,
//! `<id>.<inode>.sock`: the name says whose it is, and nobody else ever binds or removes it.
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

use crate::name::{Incarnation, check_node_id};
use crate::registry::layout::{self, MAX_INBOXES, NodeHeader};
use crate::sys::file::{self, Access, Errno, Kind, Stat};
use crate::sys::{Context, Descriptor, OsError, lock};
use crate::wire::{self, ListedInbox};

pub(crate) fn node_file(id: &str) -> String {
    format!("{id}.node")
}

/// The name of the rendezvous socket that belongs to a node's file.
pub(crate) fn socket_file(id: &str, file: &Stat) -> String {
    format!("{id}.{:x}.sock", file.identity.1)
}

/// The node and the inode number of its file that the name of a socket carries; `None`: no node has such a socket.
pub(crate) fn owner_of_socket(name: &str) -> Option<(&str, u64)> {
    let (id, inode) = name.strip_suffix(".sock")?.rsplit_once('.')?;
    Some((id, u64::from_str_radix(inode, 16).ok()?))
}

/// The path of a node's rendezvous socket, short whatever the domain's path. `NOENT`: there is no such node.
pub(crate) fn socket_path(directory: &Descriptor, id: &str) -> Result<PathBuf, OsError> {
    let file = file::stat_at(directory, &node_file(id)).context(|| format!("look at the file of node {id:?}"))?;
    Ok(path_in(directory, &socket_file(id, &file)))
}

/// The path of a name in an open directory.
pub(crate) fn path_in(directory: &Descriptor, name: &str) -> PathBuf {
    Path::join(&file::proc_path(directory), name)
}

/// A node's file, read and checked.
#[derive(Clone, Debug)]
pub(crate) struct NodeFile {
    pub(crate) incarnation: Incarnation,
    pub(crate) pid: u32,
    /// The owner of the file, from the kernel.
    pub(crate) uid: u32,
    pub(crate) alive: bool,
    pub(crate) opened_ns: u64,
    /// At most [`MAX_INBOXES`]. Empty also while the node is being opened or closed.
    pub(crate) inboxes: Vec<ListedInbox>,
    /// It lists more, which are passed over.
    pub(crate) lists_more: bool,
}

#[cfg(feature = "hostile")]
impl NodeFile {
    /// A file of which nothing is known but what its owner wrote.
    pub(crate) fn of_stranger(incarnation: Incarnation, pid: u32, inboxes: Vec<ListedInbox>) -> Self {
        Self { incarnation, pid, uid: 0, alive: true, opened_ns: 0, inboxes, lists_more: false }
    }
}

/// Why a node's file could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("node {id:?} has an invalid file: {why}")]
    Bad { id: String, why: String },
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Which incarnation of a node a file is of, and whether it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) incarnation: Incarnation,
    pub(crate) alive: bool,
}

/// Reads the file of a node; `None` if there is none. Whatever the name leads to, this returns soon.
pub(crate) fn read(directory: &Descriptor, id: &str) -> Result<Option<NodeFile>, ReadError> {
    let Some((file, stat)) = open(directory, id)? else { return Ok(None) };
    let (header, inboxes, lists_more) =
        parse(id, |into, offset| file::read_at(&file, into, offset).context(|| reading(id)))?;
    Ok(Some(NodeFile {
        incarnation: Incarnation::from_bytes(header.incarnation),
        pid: header.pid,
        uid: stat.uid,
        alive: lock::is_owned(&file).context(|| reading(id))?,
        opened_ns: header.opened_ns,
        inboxes,
        lists_more,
    }))
}

/// Reads whether a node lives, and nothing of what it lists, which may be long; `None` if it has no file.
pub(crate) fn read_life(directory: &Descriptor, id: &str) -> Result<Option<Life>, ReadError> {
    let Some((file, _)) = open(directory, id)? else { return Ok(None) };
    let header = read_header(id, &mut |into, offset| file::read_at(&file, into, offset).context(|| reading(id)))?;
    let alive = lock::is_owned(&file).context(|| reading(id))?;
    Ok(Some(Life { incarnation: Incarnation::from_bytes(header.incarnation), alive }))
}

fn reading(id: &str) -> String {
    format!("read the file of node {id:?}")
}

fn bad(id: &str, why: String) -> ReadError {
    ReadError::Bad { id: id.to_owned(), why }
}

fn open(directory: &Descriptor, id: &str) -> Result<Option<(Descriptor, Stat)>, ReadError> {
    let file = match file::open(directory, &node_file(id), Access::Read) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // A symbolic link, a socket, a device, a file that may not be read: somebody has planted it. Anything else is our
        // own trouble, and says nothing about the node.
        Err(errno @ (Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM | Errno::AGAIN)) => {
            return Err(bad(id, format!("it cannot be opened: {errno}")));
        }
        Err(errno) => return Err(OsError::new(reading(id), errno).into()),
    };
    let stat = file::stat(&file).context(|| reading(id))?;
    if stat.kind != Kind::Regular {
        return Err(bad(id, format!("it is {}", stat.kind)));
    }
    Ok(Some((file, stat)))
}

/// Reads bytes of a file at an offset; fewer at its end.
type Pread<'f> = dyn FnMut(&mut [u8], u64) -> Result<usize, OsError> + 'f;

fn read_header(id: &str, pread: &mut Pread<'_>) -> Result<NodeHeader, ReadError> {
    let mut bytes = [0; NodeHeader::BYTES];
    pread(&mut bytes, 0)?; // a short read leaves zeros, which are not the magic
    NodeHeader::decode(&bytes).map_err(|layout| bad(id, layout.to_string()))
}

/// Takes a node's file apart, which its owner may write at any time: the header, the inboxes, and whether there are more
/// than [`MAX_INBOXES`].
pub(crate) fn parse(
    id: &str,
    mut pread: impl FnMut(&mut [u8], u64) -> Result<usize, OsError>,
) -> Result<(NodeHeader, Vec<ListedInbox>, bool), ReadError> {
    let bad = |why: String| bad(id, why);
    // A list is whole if the selecting word is the same after reading it as before.
    for _ in 0..100 {
        let header = read_header(id, &mut pread)?;
        let (inboxes, more) = match header.select.area() {
            None => (Vec::new(), false),
            Some((_, bytes)) if bytes > layout::MAX_LIST_BYTES => return Err(bad(format!("a list of {bytes} bytes"))),
            Some((offset, bytes)) => {
                let mut list = vec![0; bytes];
                let read = pread(&mut list, offset)?;
                if read_header(id, &mut pread)?.select != header.select {
                    continue;
                }
                wire::decode_list(&list[..read], MAX_INBOXES).map_err(|error| bad(error.to_string()))?
            }
        };
        return Ok((header, inboxes, more));
    }
    Err(bad("its list of inboxes changes all the time".into()))
}

/// The ids of all node files in a directory.
pub(crate) fn ids(directory: &Descriptor) -> Result<Vec<String>, OsError> {
    let mut ids = ids_of(directory, |_| true)?;
    ids.sort();
    Ok(ids)
}

/// The ids of those node files in a directory that are asked for.
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
pub(crate) fn each_id(
    directory: &Descriptor,
    buffer: &mut [MaybeUninit<u8>],
    mut visit: impl FnMut(&str) -> bool,
) -> Result<(), OsError> {
    file::each_name(directory, buffer, |name| match name.strip_suffix(".node") {
        Some(id) if check_node_id(id).is_ok() => visit(id),
        _ => true,
    })
}

/// Makes a file of one page, its space allocated, that has no name yet: a process that dies now leaves nothing.
pub(crate) fn make_file(directory: &Descriptor, front: &[u8], mode: u32) -> Result<Descriptor, Errno> {
    let file = file::make_nameless(directory, mode)?;
    file::allocate(&file, 0, layout::PAGE)?;
    file::write_at(&file, front, 0)?;
    Ok(file)
}

/// Whether a name in a directory leads to this open file.
pub(crate) fn names(directory: &Descriptor, name: &str, file: &Descriptor) -> Result<bool, Errno> {
    match file::stat_at(directory, name) {
        Ok(named) => Ok(named.identity == file::stat(file)?.identity),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::layout::{LISTS_OFFSET, Select};
    use crate::wire::ListedAddress;

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
            wire::encode(&vec![ListedInbox {
                number,
                address,
                capacity,
                policy: 0,
                own: false,
                durable: None,
                history: None,
                schemas: None,
                max_message: None,
            }])
        };
        let (first, second) = (list(1), list(2));
        let mut file = front(Select::new(1, LISTS_OFFSET, first.len()));
        file.extend(first);
        let mut reads = 0;
        let (_, inboxes, _) = parse("n", |into, offset| {
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
}
