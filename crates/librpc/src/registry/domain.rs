//! A domain: the directory in which nodes find one another.

use std::path::{Path, PathBuf};

use crate::sys::OsError;
use crate::sys::process::uid;

/// The mode of a private domain's directory.
pub(crate) const PRIVATE_MODE: u32 = 0o700;
/// The mode of a shared domain's directory: sticky, so that nobody removes another's files.
pub(crate) const SHARED_MODE: u32 = 0o3770;

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
