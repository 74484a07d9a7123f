//! Removing what dead nodes have left.
//!
//! A sweeper that dies at any step leaves what it has not removed, unlocked, to be swept again.

use std::mem::MaybeUninit;

use crate::fault::fault;
use crate::registry::node_file::{each_id, ids, names, node_file, socket_file};
use crate::sys::file::{self, Access, Errno};
use crate::sys::{Context, Descriptor, OsError, lock};

/// How many other nodes a joining one looks at, to sweep those that are dead.
const SWEPT_BY_A_JOIN: usize = 2;

/// Removes what a dead node has left. `false`: it lives, is not there, or its files are not ours to remove.
pub(crate) fn sweep(directory: &Descriptor, id: &str) -> Result<bool, OsError> {
    let doing = || format!("sweep node {id:?}");
    let name = node_file(id);
    let file = match file::open(directory, &name, Access::ReadWrite) {
        Ok(file) => file,
        // Nobody's node, or another user's.
        Err(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::AGAIN) => {
            return Ok(false);
        }
        Err(errno) => return Err(OsError::new(doing(), errno)),
    };
    if !file::stat(&file).context(doing)?.is_regular {
        return Ok(false);
    }
    // A file that has a name never gets an owner again: what is dead now stays so.
    let is_dead = || -> Result<bool, OsError> { Ok(!lock::is_owned(&file).context(doing)?) };
    if !is_dead()? || !lock::try_sweep(&file).context(doing)? || !names(directory, &name, &file) {
        return Ok(false);
    }
    let _span = tracing::debug_span!("sweep", node = id).entered();
    fault!("sweep.locked");
    remove(directory, &socket_file(id))?;
    fault!("sweep.socket-removed");
    if !names(directory, &name, &file) {
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
pub(crate) fn sweep_a_few(directory: &Descriptor, joining: &str) -> Result<(), OsError> {
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

pub(crate) fn remove(directory: &Descriptor, name: &str) -> Result<bool, OsError> {
    match file::unlink(directory, name) {
        Ok(()) => Ok(true),
        // Another user's file in a shared domain waits for its owner.
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(OsError::new(format!("remove {name}"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::layout::{LISTS_OFFSET, NodeHeader, Select};

    fn front(select: Select) -> Vec<u8> {
        let header = NodeHeader { incarnation: [1; 16], pid: 2, uid: 3, opened_ns: 4, select };
        let mut bytes = header.encode().to_vec();
        bytes.resize(LISTS_OFFSET as usize, 0);
        bytes
    }

    #[test]
    fn who_sweeps_is_alone() {
        let path = std::path::PathBuf::from(format!("/dev/shm/librpc_unit_sweep_{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("dead.node"), front(Select(0))).unwrap();
        let directory = file::open_directory(&path).unwrap();
        let other = std::fs::File::options().read(true).write(true).open(path.join("dead.node")).unwrap();
        assert!(lock::try_sweep(&other).unwrap());
        let swept_beside_it = sweep(&directory, "dead").unwrap();
        drop(other);
        let swept_alone = swept_beside_it || sweep(&directory, "dead").unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(!swept_beside_it && swept_alone);
    }
}
