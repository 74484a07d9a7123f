//! Membership of a domain. First in makes the directory, last out removes it.
//!
//! Invariant: whoever holds a shared `flock` on the file that `generation` names *now* is a member, and only one inode
//! bears that name at a time; so two live registries cannot exist. Every step is one that a process may die at:
//!
//! | died after | what is left | who clears it |
//! |---|---|---|
//! | making the unfinished directory of a shared domain | `<path>.new-<hex>`, unlocked | the next one that makes or leaves the domain, or `clean` |
//! | making the directory | an empty directory | the next joiner puts `generation` into it |
//! | linking `generation` (already whole and locked) | a domain without members | the next one that leaves or cleans |
//! | removing `generation`, as the last one | an empty directory | the next joiner or `clean` |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::registry::change_counter::{self, Watch};
use crate::registry::domain::{Domain, DomainError, PRIVATE_MODE, SHARED_MODE};
use crate::registry::layout::GenerationHeader;
use crate::registry::node_file::make_file;
use crate::registry::sweep;
use crate::sys::clock::Instant;
use crate::sys::file::{self, Access, Errno, open_directory};
use crate::sys::process::{random, uid};
use crate::sys::{Context, Descriptor, OsError, lock, thread};

/// The file that counts the members.
pub(crate) const GENERATION: &str = "generation";
/// How long a joiner waits for a last member that is clearing up.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Waiting for others, up to a limit. A time for which this process itself was stopped or suspended hardly counts: in it,
/// nobody else was waited for.
pub(crate) struct Patience {
    left: Duration,
    since: Instant,
}

impl Patience {
    /// What is longer between two looks is our own doing: so much of it counts.
    const OURS: Duration = Duration::from_millis(100);

    pub(crate) fn new(limit: Duration) -> Self {
        Self { left: limit, since: Instant::now() }
    }

    /// Waits for a moment; `false`: the limit has come.
    pub(crate) fn waits(&mut self) -> bool {
        thread::sleep(Duration::from_micros(50));
        let passed = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        self.left = self.left.saturating_sub(passed.min(Self::OURS));
        !self.left.is_zero()
    }
}

/// Whether a change counter's file is one of this version, made since the machine was started.
pub(crate) fn check_generation(path: &Path, generation: &Descriptor) -> Result<(), DomainError> {
    let foreign = |why: String| DomainError::Foreign { path: path.to_owned(), why };
    let mut bytes = [0; GenerationHeader::BYTES];
    match file::read_at(generation, &mut bytes, 0).context(|| format!("read {}", path.display()))? {
        GenerationHeader::BYTES => {}
        read => return Err(foreign(format!("it has only {read} bytes"))),
    }
    let header = GenerationHeader::decode(&bytes).map_err(|bad| foreign(bad.to_string()))?;
    if header.boot_id != file::boot_id()? {
        return Err(foreign("it was made before the machine was started".into()));
    }
    Ok(())
}

/// A place among the members of a domain. Dropped without [`Membership::leave`], it is given up as by a death.
#[derive(Debug)]
pub(crate) struct Membership {
    domain: Domain,
    directory: Arc<Descriptor>,
    generation: Descriptor,
}

impl Membership {
    /// Enters the domain; `None` if there is none and none is to be made.
    pub(crate) fn enter(domain: &Domain, make: bool) -> Result<Option<Self>, DomainError> {
        let mut patience = Patience::new(BUSY_LIMIT);
        loop {
            match Self::try_enter(domain, make)? {
                Attempt::In(membership) => return Ok(Some(membership)),
                Attempt::NoDomain => return Ok(None),
                Attempt::Again => {}
            }
            if !patience.waits() {
                return Err(DomainError::Busy { path: domain.path().to_owned() });
            }
        }
    }

    fn try_enter(domain: &Domain, make: bool) -> Result<Attempt, DomainError> {
        let path = domain.path();
        let directory = match open_directory(path) {
            Ok(directory) => directory,
            Err(error) if error.is(Errno::NOENT) && make => {
                make_directory(domain)?;
                return Ok(Attempt::Again);
            }
            Err(error) if error.is(Errno::NOENT) => return Ok(Attempt::NoDomain),
            Err(error) => return Err(error.into()),
        };
        check_directory(domain, &directory)?;
        let generation = match file::open(&directory, GENERATION, Access::ReadWrite) {
            Ok(generation) => generation,
            Err(Errno::NOENT) if make => match link_generation(domain, &directory) {
                Ok(Some(generation)) => generation,
                Ok(None) => return Ok(Attempt::Again),
                Err(error) => {
                    let _ = file::remove_directory(path); // goes only if it is empty
                    return Err(error);
                }
            },
            Err(Errno::NOENT) => {
                // A last member died just before it removed the directory. It goes only if it is empty.
                let _ = file::remove_directory(path);
                return Ok(Attempt::NoDomain);
            }
            Err(errno) => return Err(OsError::new(format!("open {}/generation", path.display()), errno).into()),
        };
        let doing = || format!("lock {}/generation", path.display());
        if !lock::try_share(&generation).context(doing)? {
            return Ok(Attempt::Again);
        }
        fault!("join.member");
        let membership = Self { domain: domain.clone(), directory: Arc::new(directory), generation };
        if !membership.is_current() {
            return Ok(Attempt::Again);
        }
        match check_generation(&domain.path().join(GENERATION), &membership.generation) {
            Ok(()) => Ok(Attempt::In(membership)),
            Err(error) => {
                membership.leave();
                Err(error)
            }
        }
    }

    /// Whether the domain's path still leads to what we are members of.
    pub(crate) fn is_current(&self) -> bool {
        let named = file::stat_path(&self.domain.path().join(GENERATION));
        let ours = file::stat(&self.generation);
        matches!((named, ours), (Ok(named), Ok(ours)) if named.identity == ours.identity)
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(crate) fn directory(&self) -> &Arc<Descriptor> {
        &self.directory
    }

    /// The mode of files that the members read, and of sockets that they connect to.
    pub(crate) fn file_mode(&self) -> u32 {
        file_mode(&self.domain)
    }

    /// Says that a node's entry has changed.
    pub(crate) fn bump(&self, id: &str) {
        if let Err(error) = change_counter::bump(&self.generation, id) {
            tracing::warn!(%error, domain = %self.domain.path().display(), "cannot bump the change counter");
        }
    }

    /// Watches the domain for changes.
    pub(crate) fn watch(&self) -> Result<Watch, OsError> {
        Watch::new(&self.generation, self.domain.group().is_none())
    }

    /// Leaves. The last one removes what the dead have left, and the domain. Never waits; a failure is only logged, for
    /// whoever comes next clears it.
    pub(crate) fn leave(self) {
        let path = self.domain.path();
        match lock::try_last(&self.generation) {
            Ok(true) if self.is_current() => {
                if let Err(error) = self.turn_off_the_light() {
                    tracing::debug!(%error, domain = %path.display(), "the last member could not remove the domain");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, domain = %path.display(), "cannot tell whether anybody else is there"),
        }
        if let Err(error) = lock::release(&self.generation) {
            tracing::warn!(%error, domain = %path.display(), "a membership lasts until its descriptor is closed");
        }
    }

    fn turn_off_the_light(&self) -> Result<(), OsError> {
        fault!("last.locked");
        sweep::sweep_all(&self.directory)?;
        fault!("last.swept");
        let path = self.domain.path();
        file::unlink(&self.directory, GENERATION).context(|| format!("remove {}/generation", path.display()))?;
        fault!("last.generation-removed");
        remove_unfinished(path);
        file::remove_directory(path).context(|| format!("remove {}", path.display()))
    }
}

/// The mode of files that the members of a domain read, and of sockets that they connect to.
fn file_mode(domain: &Domain) -> u32 {
    if domain.group().is_some() { 0o660 } else { 0o600 }
}

enum Attempt {
    In(Membership),
    NoDomain,
    Again,
}

fn check_directory(domain: &Domain, directory: &Descriptor) -> Result<(), DomainError> {
    let path = domain.path().to_owned();
    let stat = file::stat(directory).context(|| format!("look at {}", path.display()))?;
    let found = stat.mode;
    match domain.group() {
        None if stat.uid != uid() => return Err(DomainError::OtherOwner { path, owner: stat.uid, uid: uid() }),
        // A directory made in a set-group-id one bears that bit, too: without rights for the group it means nothing.
        None if found & !0o2000 != PRIVATE_MODE => {
            return Err(DomainError::Mode { path, found, expected: PRIVATE_MODE });
        }
        Some(_) if found != SHARED_MODE => return Err(DomainError::Mode { path, found, expected: SHARED_MODE }),
        Some(expected) if stat.gid != expected => {
            return Err(DomainError::OtherGroup { path, found: stat.gid, expected });
        }
        _ => {}
    }
    if !file::is_tmpfs(directory).context(|| format!("look at {}", path.display()))? {
        return Err(DomainError::NotTmpfs { path });
    }
    Ok(())
}

/// Makes the directory, whole from the moment it can be seen. Somebody else being faster is as good.
fn make_directory(domain: &Domain) -> Result<(), DomainError> {
    let path = domain.path();
    let doing = || format!("make domain {}", path.display());
    let made = match domain.group() {
        // One call makes it with owner and mode, but for what an odd umask takes away.
        None => match file::make_directory(path, PRIVATE_MODE) {
            Ok(()) => match file::set_mode_of_path(path, PRIVATE_MODE) {
                Err(Errno::NOENT) => return Ok(()), // empty, it was cleared away by a leaver: then again
                changed => changed,
            },
            failed => failed,
        },
        Some(gid) => {
            remove_unfinished(path);
            let suffix = u64::from_ne_bytes(random());
            let mut unfinished = path.as_os_str().to_owned();
            unfinished.push(format!("{UNFINISHED}{suffix:016x}"));
            let unfinished = PathBuf::from(unfinished);
            file::make_directory(&unfinished, PRIVATE_MODE).context(doing)?;
            let held = match open_directory(&unfinished) {
                Err(error) if error.is(Errno::NOENT) => return Ok(()), // cleared away as below
                opened => opened?,
            };
            fault!("domain.unfinished");
            // Not locked: somebody who clears up took it for left behind, and has removed it. Then again.
            if !lock::try_last(&held).context(doing)? {
                return Ok(());
            }
            let finish = || -> Result<(), Errno> {
                file::set_group(&held, gid)?;
                file::set_mode(&held, SHARED_MODE)?;
                file::rename(&unfinished, path)
            };
            let finished = finish();
            if finished.is_err() {
                let _ = file::remove_directory(&unfinished);
            }
            finished
        }
    };
    match made {
        Ok(()) => {
            fault!("domain.made");
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        // Our unfinished one was cleared away as above.
        Err(Errno::NOENT) if domain.group().is_some() => Ok(()),
        Err(errno) => Err(OsError::new(doing(), errno).into()),
    }
}

const UNFINISHED: &str = ".new-";

/// Removes directories that a process was making when it died.
pub(crate) fn remove_unfinished(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = |entry: &str| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(UNFINISHED));
        if entry.file_name().to_str().is_some_and(is_ours)
            && let Ok(held) = open_directory(&entry.path())
            && matches!(lock::try_last(&held), Ok(true))
        {
            // The kernel lets only its owner do this, and only while it is empty.
            let _ = file::remove_directory(&entry.path());
        }
    }
}

/// Makes `generation`, whole and with our membership on it before it has a name; `None` if there is one already.
fn link_generation(domain: &Domain, directory: &Descriptor) -> Result<Option<Descriptor>, DomainError> {
    let doing = || format!("make {}/generation", domain.path().display());
    let file = make_file(directory, &GenerationHeader { boot_id: file::boot_id()? }.encode(), file_mode(domain))
        .context(doing)?;
    if !lock::try_share(&file).context(doing)? {
        return Ok(None);
    }
    let linked = file::give_name(directory, &file, GENERATION);
    fault!("domain.generation-linked");
    match linked {
        Ok(()) => Ok(Some(file)),
        Err(Errno::EXIST | Errno::NOENT) => Ok(None),
        Err(errno) => Err(OsError::new(doing(), errno).into()),
    }
}
