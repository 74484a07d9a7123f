//! Clearing up by hand: what no node has cleared away, because none came after a death.

use std::mem::MaybeUninit;

use crate::registry::domain::{Domain, DomainError};
use crate::registry::membership::{
    Entered, GENERATION, JOIN_LIMIT, Membership, Missing, open_domain, remove_if_empty, remove_unfinished,
};
use crate::registry::node_file::{node_file, owner_of_socket};
use crate::registry::sweep;
use crate::sys::file::{self, Errno, Stat};
use crate::sys::process::uid;
use crate::sys::{Context, Descriptor, OsError};

/// What [`Domain::clean`] would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// The ids of dead nodes, sorted.
    pub nodes: Vec<String>,
    /// Whether the domain itself would go: nobody is in it, and nothing would be left in its directory.
    pub domain: bool,
}

impl Domain {
    /// Removes what dead nodes have left, and the domain itself if nobody is in it. Returns the ids of the nodes that were
    /// removed. Waits up to 2 s for a member that is removing the domain itself.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if the directory is not ours, or something could not be removed. If there is no directory: an empty
    /// list.
    pub fn clean(&self) -> Result<Vec<String>, DomainError> {
        remove_unfinished(self.path());
        match Membership::enter(self, Missing::Leave, JOIN_LIMIT)? {
            Entered::In(membership) => {
                let removed = sweep::sweep_all(membership.directory());
                membership.leave();
                Ok(removed?)
            }
            // Dead nodes can be told from living ones without `generation`. It goes only if it is empty then.
            Entered::Unused(directory) => {
                let removed = sweep::sweep_all(&directory)?;
                remove_if_empty(self.path());
                Ok(removed)
            }
            Entered::NoDomain => Ok(Vec::new()),
        }
    }

    /// What [`Domain::clean`] would remove now. Removes nothing, joins nothing, does not block.
    ///
    /// # Errors
    ///
    /// As [`Domain::clean`].
    pub fn leftovers(&self) -> Result<Leftovers, DomainError> {
        let Some(directory) = open_domain(self)? else { return Ok(Leftovers::default()) };
        let doing = || format!("look at {}", self.path().display());
        let owner = file::stat(&directory).context(doing)?.uid;
        // The directory is sticky, or ours.
        let is_ours = |file: &Stat| [file.uid, owner].contains(&uid()) || uid() == 0;
        let mut names = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
        file::each_name(&directory, &mut buffer, |name| {
            names.push(name.to_owned());
            true
        })?;
        names.sort();
        let mut leftovers = Leftovers { nodes: Vec::new(), domain: owner == uid() || uid() == 0 };
        for name in names {
            let stat = match file::stat_at(&directory, &name) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(OsError::new(doing(), errno).into()),
            };
            let goes = match &*name {
                "." | ".." | GENERATION => true,
                _ if !is_ours(&stat) => false,
                name => match name.strip_suffix(".node") {
                    Some(id) => {
                        let is_dead = is_dead(&directory, id)?;
                        leftovers.nodes.extend(is_dead.then(|| id.to_owned()));
                        is_dead
                    }
                    None => goes_with_its_node(&directory, name)? || sweep::is_dead_leftover(&directory, name)?,
                },
            };
            leftovers.domain &= goes;
        }
        Ok(leftovers)
    }
}

/// Whether this is the file of a dead node.
fn is_dead(directory: &Descriptor, id: &str) -> Result<bool, OsError> {
    let name = node_file(id);
    let doing = || format!("look at {name}");
    Ok(match sweep::open(directory, &name).context(doing)? {
        Some((file, _)) => sweep::is_dead(&file).context(doing)?,
        None => false,
    })
}

/// Whether this is the socket of a dead node, which is swept with the node's file.
fn goes_with_its_node(directory: &Descriptor, name: &str) -> Result<bool, OsError> {
    let Some((id, inode)) = owner_of_socket(name) else { return Ok(false) };
    match file::stat_at(directory, &node_file(id)) {
        Ok(stat) if stat.identity.1 == inode => is_dead(directory, id),
        Ok(_) | Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(OsError::new(format!("look at {name}"), errno)),
    }
}
