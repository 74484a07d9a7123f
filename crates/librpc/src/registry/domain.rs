//! A domain: a directory on tmpfs, in which nodes find one another. First in makes it, last out removes it.
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

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::fault::fault;
use crate::name::random;
use crate::registry::change_counter::{self, Watch};
use crate::registry::layout::{self, GenerationHeader};
use crate::registry::node_file;
use crate::sys::{Context, Descriptor, OsError, lock, memory};

const PRIVATE_MODE: u32 = 0o700;
const SHARED_MODE: u32 = 0o3770;
const GENERATION: &str = "generation";
/// How long a joiner waits for a last member that is clearing up.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Where nodes find one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    path: PathBuf,
    group: Option<u32>,
}

impl Domain {
    /// The domain that the environment names: `LIBRPC_DOMAIN` as in [`Domain::parse`], or else the user's private one,
    /// `/dev/shm/librpc_<uid>`.
    pub fn from_env() -> Self {
        match std::env::var_os("LIBRPC_DOMAIN") {
            Some(text) if !text.is_empty() => Self::parse(&text.to_string_lossy()),
            _ => Self::at(format!("/dev/shm/librpc_{}", uid())),
        }
    }

    /// The domain of this name: with a `/` in it a path, otherwise `/dev/shm/librpc_<uid>.<name>`.
    ///
    /// ```
    /// assert!(librpc::Domain::parse("robot").path().to_str().unwrap().ends_with(".robot"));
    /// assert_eq!(librpc::Domain::parse("/dev/shm/robot").path().to_str(), Some("/dev/shm/robot"));
    /// ```
    pub fn parse(name: &str) -> Self {
        if name.contains('/') { Self::at(name) } else { Self::at(format!("/dev/shm/librpc_{}.{name}", uid())) }
    }

    /// The private domain in this directory, which must be on tmpfs. Only its owner's processes get in.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), group: None }
    }

    /// The same directory as a *shared* domain: the members of this group get in, too. Whom a node then admits is its
    /// own choice ([`crate::Admission`]).
    pub fn shared_with_group(self, gid: u32) -> Self {
        Self { group: Some(gid), ..self }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The group of a shared domain.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// The nodes of the domain, dead ones that nobody has swept yet included. Creates nothing, joins nothing.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if there is a directory, but it cannot be read. No directory: an empty list.
    pub fn nodes(&self) -> Result<Vec<node_file::NodeInfo>, DomainError> {
        match open_directory(&self.path) {
            Ok(directory) => Ok(node_file::list(&directory)?),
            Err(error) if error.is(Errno::NOENT) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The files whose names say that they are nodes', or the domain's own, and that cannot be: of another version of
    /// librpc, damaged, or planted. Nobody sees such a node; with such a file of its own the domain cannot be joined.
    /// Creates nothing, joins nothing.
    ///
    /// # Errors
    ///
    /// As [`Domain::nodes`].
    pub fn strange_files(&self) -> Result<Vec<StrangeFile>, DomainError> {
        let directory = match open_directory(&self.path) {
            Ok(directory) => directory,
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut strange = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match Descriptor::open(|| rustix::fs::openat(&directory, GENERATION, flags, Mode::empty())) {
            Ok(generation) => match check_generation(&self.path.join(GENERATION), &generation) {
                Err(DomainError::Foreign { path, why }) => strange.push(StrangeFile { path, why }),
                other => other?,
            },
            Err(Errno::NOENT) => {}
            Err(errno) => strange.push(StrangeFile { path: self.path.join(GENERATION), why: errno.to_string() }),
        }
        let nodes = node_file::strange(&directory)?.into_iter();
        strange.extend(nodes.map(|(id, why)| StrangeFile { path: self.path.join(node_file::node_file(&id)), why }));
        Ok(strange)
    }

    /// Removes what dead nodes have left, and the domain itself if nobody else is in it. Returns the ids that were
    /// removed. Waits up to 2 s for a member that is clearing up itself.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if the directory is none of ours. No directory: an empty list.
    pub fn clean(&self) -> Result<Vec<String>, DomainError> {
        remove_unfinished(&self.path);
        let Some(membership) = Membership::enter(self, false)? else { return Ok(Vec::new()) };
        let removed = node_file::sweep_all(membership.directory());
        membership.leave();
        removed.map_err(DomainError::Os)
    }
}

/// A file in a domain that is not what its name says: [`Domain::strange_files`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StrangeFile {
    /// Where it is.
    pub path: PathBuf,
    /// Why it cannot be.
    pub why: String,
}

/// Why a domain could not be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// It belongs to another user.
    #[error("domain {} belongs to uid {owner}, not to uid {uid}: choose another with LIBRPC_DOMAIN, or share one by group", path.display())]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who wanted to enter.
        uid: u32,
    },
    /// The access mode is not what it should be.
    #[error("domain {} has mode {found:o}, not {expected:o}{}", path.display(), shared_hint(*found))]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// It belongs to another group.
    #[error("domain {} belongs to gid {found}, not to gid {expected}", path.display())]
    OtherGroup {
        /// The directory.
        path: PathBuf,
        /// Its group.
        found: u32,
        /// What it should be.
        expected: u32,
    },
    /// It is not on tmpfs, where files vanish with the machine.
    #[error("domain {} is not on tmpfs: choose a directory under /dev/shm", path.display())]
    NotTmpfs {
        /// The directory.
        path: PathBuf,
    },
    /// A file in it is not what its name says.
    #[error("{}: {why}: remove it if no node uses it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The last member has been clearing up for longer than 2 s.
    #[error("domain {} has been closing for over 2 s: is the process that closes it stopped?", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

fn shared_hint(mode: u32) -> &'static str {
    if mode == SHARED_MODE { " (it is a shared one: name its group to join it)" } else { "" }
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

pub(crate) fn open_directory(path: &Path) -> Result<Descriptor, OsError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Descriptor::open(|| rustix::fs::open(path, flags, Mode::empty())).context(|| format!("open {}", path.display()))
}

/// The name of an open file, for calls that take only paths. It holds whatever happens to the directories above.
pub(crate) fn proc_path(fd: impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

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
        std::thread::sleep(Duration::from_micros(50));
        let passed = std::mem::replace(&mut self.since, Instant::now()).elapsed();
        self.left = self.left.saturating_sub(passed.min(Self::OURS));
        !self.left.is_zero()
    }
}

/// Whether a change counter's file is one of this version, made since the machine was started.
fn check_generation(path: &Path, generation: &Descriptor) -> Result<(), DomainError> {
    let foreign = |why: String| DomainError::Foreign { path: path.to_owned(), why };
    let mut bytes = [0; GenerationHeader::BYTES];
    match rustix::io::pread(generation, &mut bytes, 0).context(|| format!("read {}", path.display()))? {
        GenerationHeader::BYTES => {}
        read => return Err(foreign(format!("it has only {read} bytes"))),
    }
    let header = GenerationHeader::decode(&bytes).map_err(|bad| foreign(bad.to_string()))?;
    if header.boot_id != boot_id()? {
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
                return Err(DomainError::Busy { path: domain.path.clone() });
            }
        }
    }

    fn try_enter(domain: &Domain, make: bool) -> Result<Attempt, DomainError> {
        let path = &domain.path;
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
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = Descriptor::open(|| rustix::fs::openat(&directory, GENERATION, flags, Mode::empty()));
        let generation = match opened {
            Ok(generation) => generation,
            Err(Errno::NOENT) if make => match link_generation(domain, &directory) {
                Ok(Some(generation)) => generation,
                Ok(None) => return Ok(Attempt::Again),
                Err(error) => {
                    let _ = rustix::fs::rmdir(path); // goes only if it is empty
                    return Err(error);
                }
            },
            Err(Errno::NOENT) => {
                // A last member died just before it removed the directory. It goes only if it is empty.
                let _ = rustix::fs::rmdir(path);
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
        match check_generation(&domain.path.join(GENERATION), &membership.generation) {
            Ok(()) => Ok(Attempt::In(membership)),
            Err(error) => {
                membership.leave();
                Err(error)
            }
        }
    }

    /// Whether the domain's path still leads to what we are members of.
    pub(crate) fn is_current(&self) -> bool {
        let named = rustix::fs::statat(CWD, self.domain.path.join(GENERATION), AtFlags::SYMLINK_NOFOLLOW);
        let ours = rustix::fs::fstat(&self.generation);
        matches!((named, ours), (Ok(named), Ok(ours)) if same_file(&named, &ours))
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(crate) fn directory(&self) -> &Arc<Descriptor> {
        &self.directory
    }

    /// The mode of files that the members read, and of sockets that they connect to.
    pub(crate) fn file_mode(&self) -> Mode {
        Mode::from_raw_mode(if self.domain.group.is_some() { 0o660 } else { 0o600 })
    }

    /// Says that a node's entry has changed.
    pub(crate) fn bump(&self, id: &str) {
        if let Err(error) = change_counter::bump(&self.generation, id) {
            tracing::warn!(%error, domain = %self.domain.path.display(), "cannot bump the change counter");
        }
    }

    /// Watches the domain for changes.
    pub(crate) fn watch(&self) -> Result<Watch, OsError> {
        Watch::new(&self.generation, self.domain.group.is_none())
    }

    /// Leaves. The last one removes what the dead have left, and the domain. Never waits; a failure is only logged, for
    /// whoever comes next clears it.
    pub(crate) fn leave(self) {
        let path = &self.domain.path;
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
        node_file::sweep_all(&self.directory)?;
        fault!("last.swept");
        let path = &self.domain.path;
        rustix::fs::unlinkat(&self.directory, GENERATION, AtFlags::empty())
            .context(|| format!("remove {}/generation", path.display()))?;
        fault!("last.generation-removed");
        remove_unfinished(path);
        rustix::fs::rmdir(path).context(|| format!("remove {}", path.display()))
    }
}

enum Attempt {
    In(Membership),
    NoDomain,
    Again,
}

fn check_directory(domain: &Domain, directory: &Descriptor) -> Result<(), DomainError> {
    let path = domain.path.clone();
    let stat = rustix::fs::fstat(directory).context(|| format!("look at {}", path.display()))?;
    let found = mode_of(&stat);
    match domain.group {
        None if stat.st_uid != uid() => return Err(DomainError::OtherOwner { path, owner: stat.st_uid, uid: uid() }),
        // A directory made in a set-group-id one bears that bit, too: without rights for the group it means nothing.
        None if found & !0o2000 != PRIVATE_MODE => {
            return Err(DomainError::Mode { path, found, expected: PRIVATE_MODE });
        }
        Some(_) if found != SHARED_MODE => return Err(DomainError::Mode { path, found, expected: SHARED_MODE }),
        Some(expected) if stat.st_gid != expected => {
            return Err(DomainError::OtherGroup { path, found: stat.st_gid, expected });
        }
        _ => {}
    }
    if !memory::is_tmpfs(directory).context(|| format!("look at {}", path.display()))? {
        return Err(DomainError::NotTmpfs { path });
    }
    Ok(())
}

/// Makes the directory, whole from the moment it can be seen. Somebody else being faster is as good.
fn make_directory(domain: &Domain) -> Result<(), DomainError> {
    let path = &domain.path;
    let doing = || format!("make domain {}", path.display());
    let made = match domain.group {
        // One call makes it with owner and mode, but for what an odd umask takes away.
        None => match rustix::fs::mkdir(path, Mode::from_raw_mode(PRIVATE_MODE)) {
            Ok(()) => match rustix::fs::chmod(path, Mode::from_raw_mode(PRIVATE_MODE)) {
                Err(Errno::NOENT) => return Ok(()), // empty, it was cleared away by a leaver: then again
                changed => changed,
            },
            failed => failed,
        },
        Some(gid) => {
            remove_unfinished(path);
            let suffix = u64::from_ne_bytes(random());
            let mut unfinished = path.clone().into_os_string();
            unfinished.push(format!("{UNFINISHED}{suffix:016x}"));
            let unfinished = PathBuf::from(unfinished);
            rustix::fs::mkdir(&unfinished, Mode::from_raw_mode(PRIVATE_MODE)).context(doing)?;
            let held = match open_directory(&unfinished) {
                Err(error) if error.is(Errno::NOENT) => return Ok(()), // cleared away as below
                opened => opened?,
            };
            fault!("domain.unfinished");
            // Not locked: somebody who clears up took it for left behind, and has removed it. Then again.
            if !lock::try_last(&held).context(doing)? {
                return Ok(());
            }
            let finish = || -> rustix::io::Result<()> {
                rustix::fs::fchown(&held, None, Some(rustix::process::Gid::from_raw(gid)))?;
                rustix::fs::fchmod(&held, Mode::from_raw_mode(SHARED_MODE))?;
                rustix::fs::renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE)
            };
            let finished = finish();
            if finished.is_err() {
                let _ = rustix::fs::rmdir(&unfinished);
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
        Err(Errno::NOENT) if domain.group.is_some() => Ok(()),
        Err(errno) => Err(OsError::new(doing(), errno).into()),
    }
}

const UNFINISHED: &str = ".new-";

/// Removes directories that a process was making when it died.
fn remove_unfinished(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_ours = |entry: &str| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(UNFINISHED));
        if entry.file_name().to_str().is_some_and(is_ours)
            && let Ok(held) = open_directory(&entry.path())
            && matches!(lock::try_last(&held), Ok(true))
        {
            // The kernel lets only its owner do this, and only while it is empty.
            let _ = rustix::fs::rmdir(entry.path());
        }
    }
}

/// Makes `generation`, whole and with our membership on it before it has a name; `None` if there is one already.
fn link_generation(domain: &Domain, directory: &Descriptor) -> Result<Option<Descriptor>, DomainError> {
    let doing = || format!("make {}/generation", domain.path.display());
    let mode = Mode::from_raw_mode(if domain.group.is_some() { 0o660 } else { 0o600 });
    let file = make_file(directory, &GenerationHeader { boot_id: boot_id()? }.encode(), mode).context(doing)?;
    if !lock::try_share(&file).context(doing)? {
        return Ok(None);
    }
    let linked = link_file(directory, &file, GENERATION);
    fault!("domain.generation-linked");
    match linked {
        Ok(()) => Ok(Some(file)),
        Err(Errno::EXIST | Errno::NOENT) => Ok(None),
        Err(errno) => Err(OsError::new(doing(), errno).into()),
    }
}

/// Makes a file of one page, its space allocated, that has no name yet: a process that dies now leaves nothing.
pub(crate) fn make_file(directory: &Descriptor, front: &[u8], mode: Mode) -> rustix::io::Result<Descriptor> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = Descriptor::open(|| rustix::fs::openat(directory, ".", flags, mode))?;
    rustix::fs::fchmod(&file, mode)?; // whatever the umask
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, layout::PAGE)?;
    rustix::io::pwrite(&file, front, 0)?;
    Ok(file)
}

/// Gives a file its name, unless the name is taken.
pub(crate) fn link_file(directory: &Descriptor, file: &Descriptor, name: &str) -> rustix::io::Result<()> {
    rustix::fs::linkat(CWD, proc_path(file), directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Whether a name in a directory leads to this open file.
pub(crate) fn names(directory: &Descriptor, name: &str, file: &Descriptor) -> bool {
    let named = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    matches!((named, rustix::fs::fstat(file)), (Ok(named), Ok(open)) if same_file(&named, &open))
}

/// Whether an open file is a regular one.
pub(crate) fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn boot_id() -> Result<[u8; 16], OsError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    let digits = text.trim().replace('-', "");
    let id = u128::from_str_radix(&digits, 16).map_err(|_| {
        OsError::new(
            format!("read {path}"),
            std::io::Error::new(std::io::ErrorKind::InvalidData, "no hexadecimal number"),
        )
    })?;
    Ok(id.to_be_bytes())
}
