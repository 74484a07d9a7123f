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

use crate::name::{Incarnation, check_node_id};
use crate::registry::layout::{self, NodeHeader};
use crate::sys::file::{self, Access, Errno};
use crate::sys::{Context, Descriptor, OsError, lock};
use crate::wire::{self, ListedInbox};

pub(crate) fn node_file(id: &str) -> String {
    format!("{id}.node")
}

pub(crate) fn socket_file(id: &str) -> String {
    format!("{id}.sock")
}

/// The path of a node's rendezvous socket, short whatever the domain's path.
pub(crate) fn socket_path(directory: &Descriptor, id: &str) -> PathBuf {
    Path::join(&file::proc_path(directory), socket_file(id))
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
    let file = match file::open(directory, &node_file(id), Access::Read) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // What passes is our own trouble. A symbolic link, a socket, a file that nobody may read: somebody has planted it.
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR)) => {
            return Err(OsError::new(doing(), errno).into());
        }
        Err(errno) => return Err(bad(format!("it cannot be opened: {errno}"))),
    };
    let stat = file::stat(&file).context(doing)?;
    if !stat.is_regular {
        return Err(bad("it is no regular file".into()));
    }
    let (header, inboxes) = parse(id, |into, offset| file::read_at(&file, into, offset).context(doing))?;
    Ok(Some(NodeFile {
        incarnation: Incarnation::from_bytes(header.incarnation),
        pid: header.pid,
        uid: stat.uid,
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
pub(crate) fn ids(directory: &Descriptor) -> Result<Vec<String>, OsError> {
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
pub(crate) fn names(directory: &Descriptor, name: &str, file: &Descriptor) -> bool {
    let named = file::stat_at(directory, name);
    matches!((named, file::stat(file)), (Ok(named), Ok(open)) if named.identity == open.identity)
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
}
