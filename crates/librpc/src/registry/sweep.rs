//! Removing what dead nodes have left.
//!
//! A file that `<id>.node` names never gets an owner again: what is dead stays dead. What has to be ruled out is that the id
//! gets a new owner, with a new file, between the last look at the name and its removal:
//!
//! - A sweeper that may write the file takes the lock of sweepers on it. Until the name is gone, nobody else can remove it or take
//!   the id. (Somebody may do so by hand: the node that loses its name by that restores itself.)
//! - A sweeper that may only remove it (the owner of a shared domain's directory) first takes the name away, then checks what
//!   it got: a living node gets its name back.
//!
//! The name of a socket is never used twice, and goes with the file whose inode number it carries.
//!
//! | died after | what is left |
//! |---|---|
//! | taking the lock, or removing the socket | the rest, unlocked, to be swept again |
//! | taking the name away | a dead file under a name that any sweep removes; a living node restores itself |

use std::io;
use std::mem::MaybeUninit;

use crate::fault::fault;
use crate::name::check_node_id;
use crate::registry::node_file::{each_id, ids, names, node_file, owner_of_socket, path_in, socket_file};
use crate::sys::file::{self, Access, Errno, Kind};
use crate::sys::process::random;
use crate::sys::socket::Socket;
use crate::sys::{Context, Descriptor, OsError, lock};

/// How many other nodes a joining one looks at, to sweep those that are dead.
const SWEPT_BY_A_JOIN: usize = 2;
/// How the name begins that a file has while it is being removed.
const TAKEN_AWAY: &str = ".swept-";

/// Removes what a dead node has left. `false`: it lives, does not exist, or its files are not ours to remove.
pub(crate) fn sweep(directory: &Descriptor, id: &str) -> Result<bool, OsError> {
    let doing = || format!("sweep node {id:?}");
    let name = node_file(id);
    let Some((file, may_lock)) = open(directory, &name).context(doing)? else { return Ok(false) };
    if !is_dead(&file).context(doing)? {
        return Ok(false);
    }
    let is_named = || names(directory, &name, &file).context(doing);
    if may_lock && !lock::try_sweep(&file).context(doing)? || !is_named()? {
        return Ok(false);
    }
    let _span = tracing::debug_span!("sweep", node = id).entered();
    fault!("sweep.locked");
    remove(directory, &socket_file(id, &file::stat(&file).context(doing)?))?;
    fault!("sweep.socket-removed");
    let removed = is_named()? && if may_lock { remove(directory, &name)? } else { take_away(directory, &name, &file)? };
    fault!("sweep.file-removed");
    if removed {
        tracing::info!(node = id, "what a dead node has left is swept");
    }
    Ok(removed)
}

/// Opens a file that is to be swept, and says whether its lock can be taken; `None`: it is nobody's, or not ours.
pub(crate) fn open(directory: &Descriptor, name: &str) -> Result<Option<(Descriptor, bool)>, Errno> {
    let opened = match file::open(directory, name, Access::ReadWrite) {
        Err(Errno::ACCESS | Errno::PERM) => file::open(directory, name, Access::Read).map(|file| (file, false)),
        opened => opened.map(|file| (file, true)),
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(
            Errno::NOENT
            | Errno::ACCESS
            | Errno::PERM
            | Errno::LOOP
            | Errno::ISDIR
            | Errno::NXIO
            | Errno::NODEV
            | Errno::AGAIN,
        ) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether this is a node's file without an owner.
pub(crate) fn is_dead(file: &Descriptor) -> io::Result<bool> {
    Ok(file::stat(file)?.kind == Kind::Regular && !lock::is_owned(file)?)
}

/// Removes a name if it leads to this file, by taking it away first.
fn take_away(directory: &Descriptor, name: &str, file: &Descriptor) -> Result<bool, OsError> {
    let doing = || format!("remove {name}");
    let taken = format!("{TAKEN_AWAY}{:016x}", u64::from_ne_bytes(random()));
    match file::rename_at(directory, name, &taken) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => return Ok(false),
        Err(errno) => return Err(OsError::new(doing(), errno)),
    }
    fault!("sweep.taken-away");
    let is_it = names(directory, &taken, file);
    if let Ok(true) = is_it {
        return remove(directory, &taken);
    }
    match file::rename_at(directory, &taken, name) {
        // Removed, or replaced, by others: the node that lost it restores itself.
        Ok(()) | Err(Errno::NOENT | Errno::EXIST) => is_it.context(doing),
        Err(errno) => Err(OsError::new(format!("give {name} back"), errno)),
    }
}

/// Sweeps the dead among a few nodes other than this one: a join's share of the work.
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

/// Sweeps every dead node, and everything else that deaths have left; returns the ids of the nodes. What cannot be swept
/// does not keep the rest from being swept, and is returned as an error afterwards.
pub(crate) fn sweep_all(directory: &Descriptor) -> Result<Vec<String>, OsError> {
    let mut failed = None;
    let mut keep = |error: OsError| {
        tracing::warn!(%error, "what cannot be swept is left");
        failed.get_or_insert(error);
    };
    let mut swept = ids(directory)?;
    swept.retain(|id| {
        sweep(directory, id).unwrap_or_else(|error| {
            keep(error);
            false
        })
    });
    for name in leftovers(directory)? {
        if let Err(error) = is_dead_leftover(directory, &name).and_then(|dead| Ok(dead && remove(directory, &name)?)) {
            keep(error);
        }
    }
    failed.map_or(Ok(swept), Err)
}

/// The names of sockets, and of what sweepers have taken away.
fn leftovers(directory: &Descriptor) -> Result<Vec<String>, OsError> {
    let mut leftovers = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    file::each_name(directory, &mut buffer, |name| {
        let is_nodes = |(id, _): (&str, u64)| check_node_id(id).is_ok();
        if name.starts_with(TAKEN_AWAY) || owner_of_socket(name).is_some_and(is_nodes) {
            leftovers.push(name.to_owned());
        }
        true
    })?;
    leftovers.sort();
    Ok(leftovers)
}

/// Whether this is a socket without its node's file, on which nobody listens, or the file of a dead node that a sweeper has
/// taken away.
pub(crate) fn is_dead_leftover(directory: &Descriptor, name: &str) -> Result<bool, OsError> {
    let doing = || format!("look at {name}");
    let Some((id, inode)) = owner_of_socket(name) else {
        if !name.starts_with(TAKEN_AWAY) {
            return Ok(false);
        }
        return match file::open(directory, name, Access::Read) {
            Ok(file) => Ok(!lock::is_owned(&file).context(doing)?),
            Err(Errno::NOENT | Errno::ACCESS | Errno::LOOP | Errno::NXIO) => Ok(false),
            Err(errno) => Err(OsError::new(doing(), errno)),
        };
    };
    // Its file is there before the socket is, and longer: without it, the socket is nobody's.
    match file::stat_at(directory, &node_file(id)) {
        Ok(file) if file.identity.1 == inode => return Ok(false),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(OsError::new(doing(), errno)),
    }
    match Socket::connect(&path_in(directory, name)) {
        Err(error) if error.is(Errno::CONNREFUSED) => match file::stat_at(directory, name) {
            Ok(stat) => Ok(stat.kind == Kind::Socket),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(OsError::new(doing(), errno)),
        },
        // Somebody listens; or it is gone; or it is not for us, or not for anybody.
        Ok(_) => Ok(false),
        Err(error)
            if [Errno::NOENT, Errno::ACCESS, Errno::AGAIN, Errno::PROTOTYPE, Errno::LOOP]
                .iter()
                .any(|&errno| error.is(errno)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Removes a name. `false`: it is gone already, or another user's.
pub(crate) fn remove(directory: &Descriptor, name: &str) -> Result<bool, OsError> {
    match file::unlink(directory, name) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::PERM | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(OsError::new(format!("remove {name}"), errno)),
    }
}
