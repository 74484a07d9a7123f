//! Membership of a domain. The first one in makes the directory, the last one out removes it.
//!
//! Invariant: a process that holds a shared `flock` on the file that `generation` names *now* is a member, and the name leads
//! to one file at a time; so two live registries cannot exist. A process may die at each step:
//!
//! | died after | what is left | who clears it |
//! |---|---|---|
//! | making the unfinished directory of a shared domain | `<path>.new-<hex>`, unlocked | the next one that makes or leaves the domain, or `clean` |
//! | making the directory | an empty directory | the next joiner puts `generation` into it |
//! | linking `generation` (already whole and locked) | a domain without members | the next one that leaves or cleans |
//! | removing `generation`, as the last one | an empty directory | the next joiner or `clean` |

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::registry::change_counter::{self, Watch};
use crate::registry::domain::{Domain, DomainError, PRIVATE_MODE, SHARED_MODE};
use crate::registry::layout::{GenerationHeader, PAGE};
use crate::registry::node_file::make_file;
use crate::registry::sweep;
use crate::sys::clock::Instant;
use crate::sys::file::{self, Access, Errno, Kind, open_directory};
use crate::sys::process::{random, uid};
use crate::sys::{Context, Descriptor, OsError, lock, thread};
use crate::text;

/// The file that counts the members.
pub(crate) const GENERATION: &str = "generation";
/// How long a joiner waits for others that are in its way: a last member that removes the domain, a sweeper of its id.
pub(crate) const JOIN_LIMIT: Duration = Duration::from_secs(2);

/// Waiting for others, up to a limit. The time for which this process itself was stopped or suspended hardly counts: it did
/// not wait for anybody then.
pub(crate) struct Patience {
    left: Duration,
    since: Instant,
    /// How many more looks follow at once, without waiting.
    at_once: u32,
}

impl Patience {
    /// The most that counts of the time between two looks; the rest is not the others' fault.
    const OURS: Duration = Duration::from_millis(100);
    /// A new domain takes two looks: one that makes the directory, one that enters it.
    const AT_ONCE: u32 = 4;

    /// A limit of zero: never waits.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { left: limit, since: Instant::now(), at_once: Self::AT_ONCE }
    }

    /// Waits for a moment; `false`: the limit has come.
    pub(crate) fn waits(&mut self) -> bool {
        if self.at_once > 0 {
            self.at_once -= 1;
            return true;
        }
        if self.left.is_zero() {
            return false;
        }
        thread::sleep(Duration::from_micros(50));
        let passed = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        self.left = self.left.saturating_sub(passed.min(Self::OURS));
        !self.left.is_zero()
    }
}

/// Checks that a change counter's file is of this version, and was made since the machine was started.
pub(crate) fn check_generation(path: &Path, generation: &Descriptor) -> Result<(), DomainError> {
    let foreign = |why: String| DomainError::Foreign { path: path.to_owned(), why };
    let mut bytes = [0; GenerationHeader::BYTES];
    match file::read_at(generation, &mut bytes, 0).context(|| format!("read {}", path.display()))? {
        GenerationHeader::BYTES => {}
        read => return Err(foreign(format!("it has only {}", text::bytes(read)))),
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

/// What to do if there is no domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Make,
    Leave,
}

/// What [`Membership::enter`] found.
pub(crate) enum Entered {
    In(Membership),
    /// The directory is there, but nobody has been a member of it since `generation` was removed.
    Unused(Descriptor),
    NoDomain,
}

impl Membership {
    /// Enters the domain. Waits for a last member that is removing it, up to a limit. With [`Missing::Make`] the result is
    /// always [`Entered::In`].
    pub(crate) fn enter(domain: &Domain, missing: Missing, limit: Duration) -> Result<Entered, DomainError> {
        let mut patience = Patience::new(limit);
        loop {
            if let Some(entered) = Self::try_enter(domain, missing)? {
                return Ok(entered);
            }
            if !patience.waits() {
                return Err(DomainError::Busy { path: domain.path().to_owned() });
            }
        }
    }

    /// `None`: others were in the way, or the directory was just made.
    fn try_enter(domain: &Domain, missing: Missing) -> Result<Option<Entered>, DomainError> {
        let path = domain.path();
        let Some(directory) = open_domain(domain)? else {
            if missing == Missing::Leave {
                return Ok(Some(Entered::NoDomain));
            }
            make_directory(domain)?;
            return Ok(None);
        };
        let generation = match file::open(&directory, GENERATION, Access::ReadWrite) {
            Ok(generation) => generation,
            Err(Errno::NOENT) if missing == Missing::Leave => return Ok(Some(Entered::Unused(directory))),
            Err(Errno::NOENT) => match link_generation(domain, &directory) {
                Ok(Some(generation)) => generation,
                Ok(None) => return Ok(None),
                Err(error) => {
                    remove_if_empty(path);
                    return Err(error);
                }
            },
            Err(errno) => return Err(OsError::new(format!("open {}/generation", path.display()), errno).into()),
        };
        let doing = || format!("lock {}/generation", path.display());
        if !lock::try_share(&generation).context(doing)? {
            return Ok(None);
        }
        fault!("join.member");
        let membership = Self { domain: domain.clone(), directory: Arc::new(directory), generation };
        if !membership.is_current()? {
            return Ok(None);
        }
        match check_generation(&domain.path().join(GENERATION), &membership.generation) {
            Ok(()) => Ok(Some(Entered::In(membership))),
            Err(error) => {
                membership.leave();
                Err(error)
            }
        }
    }

    /// Joins the domain, which is made if there is none.
    pub(crate) fn join(domain: &Domain, limit: Duration) -> Result<Self, DomainError> {
        match Self::enter(domain, Missing::Make, limit)? {
            Entered::In(membership) => Ok(membership),
            Entered::Unused(_) | Entered::NoDomain => unreachable!("what is missing is made"),
        }
    }

    /// Whether the domain's path still leads to what we are members of.
    pub(crate) fn is_current(&self) -> Result<bool, OsError> {
        let path = self.domain.path().join(GENERATION);
        let doing = || format!("look at {}", path.display());
        match file::stat_path(&path) {
            Ok(named) => Ok(named.identity == file::stat(&self.generation).context(doing)?.identity),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(errno) => Err(OsError::new(doing(), errno)),
        }
    }

    /// Whether this is a membership by the same directory.
    pub(crate) fn shares_directory_with(&self, other: &Self) -> Result<bool, OsError> {
        let identity = |membership: &Self| file::stat(&membership.directory).map(|stat| stat.identity);
        let doing = || format!("look at {}", self.domain.path().display());
        Ok(identity(self).context(doing)? == identity(other).context(doing)?)
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
    pub(crate) fn bump(&self, id: &str) -> Result<(), OsError> {
        let doing = || format!("announce in {} that node {id:?} has changed", self.domain.path().display());
        change_counter::bump(&self.generation, id).context(doing)
    }

    /// Watches the domain for changes.
    pub(crate) fn watch(&self) -> Result<Watch, OsError> {
        Watch::new(&self.generation, self.domain.group().is_none())
    }

    /// Leaves. The last one removes what the dead have left, and the domain. Never waits. A failure is only logged, because
    /// the next process cleans up.
    pub(crate) fn leave(self) {
        let path = self.domain.path();
        let is_last = match lock::try_last(&self.generation).context(|| format!("lock {}/generation", path.display())) {
            Ok(true) => self.is_current(), // otherwise somebody has removed it, and others may be in its place
            other => other,
        };
        match is_last {
            Ok(true) => {
                if let Err(error) = self.remove_domain() {
                    tracing::debug!(%error, domain = %path.display(), "the last member could not remove the domain");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, domain = %path.display(), "cannot tell whether anybody else is there"),
        }
        if let Err(error) = lock::release(&self.generation) {
            tracing::warn!(%error, domain = %path.display(), "a membership lasts until its descriptor is closed");
        }
    }

    fn remove_domain(&self) -> Result<(), OsError> {
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

/// Opens the domain's directory, and checks that it may be a domain; `None`: there is none.
pub(crate) fn open_domain(domain: &Domain) -> Result<Option<Descriptor>, DomainError> {
    let path = domain.path();
    if !path.is_absolute() {
        return Err(DomainError::Relative { path: path.to_owned() });
    }
    let directory = match open_directory(path) {
        Ok(directory) => directory,
        Err(error) => {
            return match file::stat_path(path) {
                Err(Errno::NOENT) => Ok(None),
                Ok(found) if found.kind != Kind::Directory => {
                    Err(DomainError::not_a_directory(path, found.kind, found.uid))
                }
                Ok(found) if error.is(Errno::ACCESS) && found.uid != uid() && domain.group().is_none() => {
                    Err(DomainError::OtherOwner { path: path.to_owned(), owner: found.uid, uid: uid() })
                }
                _ if error.is(Errno::NOENT) => Ok(None), // made at this moment
                _ => Err(error.into()),
            };
        }
    };
    check_directory(domain, &directory)?;
    Ok(Some(directory))
}

/// The mode of files that the members of a domain read, and of sockets that they connect to.
fn file_mode(domain: &Domain) -> u32 {
    if domain.group().is_some() { 0o660 } else { 0o600 }
}

fn check_directory(domain: &Domain, directory: &Descriptor) -> Result<(), DomainError> {
    let path = domain.path().to_owned();
    let stat = file::stat(directory).context(|| format!("look at {}", path.display()))?;
    let found = stat.mode;
    match domain.group() {
        None if stat.uid != uid() => return Err(DomainError::OtherOwner { path, owner: stat.uid, uid: uid() }),
        // A directory made in a set-group-id one gets that bit, too: without rights for the group it means nothing.
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

/// Makes the directory, complete from the moment it can be seen. If somebody else is faster, that is as good.
fn make_directory(domain: &Domain) -> Result<(), DomainError> {
    let path = domain.path();
    let doing = || format!("make domain {}", path.display());
    // Looked at before anything is made: a domain that is refused leaves nothing.
    if !file::is_path_on_tmpfs(path.parent().unwrap_or(path)).context(doing)? {
        return Err(DomainError::NotTmpfs { path: path.to_owned() });
    }
    let made = match domain.group() {
        // One call makes it with owner and mode, except for what an odd umask takes away.
        None => match file::make_directory(path, PRIVATE_MODE) {
            Ok(()) => match file::set_mode_of_path(path, PRIVATE_MODE) {
                Err(Errno::NOENT) => return Ok(()), // a leaver has removed it, because it was empty: begin again
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
                Err(error) if error.is(Errno::NOENT) => return Ok(()), // removed as below
                opened => opened?,
            };
            fault!("domain.unfinished");
            // Not locked: another process took it for a leftover, and has removed it. Begin again.
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
                remove_if_empty(&unfinished);
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
        // Our unfinished one was removed as above.
        Err(Errno::NOENT) if domain.group().is_some() => Ok(()),
        Err(errno) => Err(OsError::new(doing(), errno).into()),
    }
}

const UNFINISHED: &str = ".new-";

/// Removes directories that a process was making when it died.
pub(crate) fn remove_unfinished(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let mut unfinished = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let listed = open_directory(parent).and_then(|parent| {
        file::each_name(&parent, &mut buffer, |entry| {
            if entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(UNFINISHED)) {
                unfinished.push(entry.to_owned());
            }
            true
        })
    });
    if let Err(error) = listed {
        tracing::debug!(%error, "unfinished domains are not looked for");
    }
    for unfinished in unfinished.into_iter().map(|entry| parent.join(entry)) {
        // Locked: it is being made. A link, or another user's: the kernel lets only its owner remove it, and only while it
        // is empty.
        if let Ok(held) = open_directory(&unfinished)
            && matches!(lock::try_last(&held), Ok(true))
        {
            remove_if_empty(&unfinished);
        }
    }
}

/// Removes a directory if it is empty, and ours.
pub(crate) fn remove_if_empty(path: &Path) {
    match file::remove_directory(path) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => tracing::debug!(%error, directory = %path.display(), "an empty directory cannot be removed"),
    }
}

/// Makes `generation`, complete and with our membership on it before it has a name; `None` if there is one already.
fn link_generation(domain: &Domain, directory: &Descriptor) -> Result<Option<Descriptor>, DomainError> {
    let doing = || format!("make {}/generation ({PAGE} bytes)", domain.path().display());
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
