//! A domain: the directory in which nodes find one another.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::sys::OsError;
use crate::sys::file::{self, Kind};
use crate::sys::process;

/// The mode of a private domain's directory.
pub(crate) const PRIVATE_MODE: u32 = 0o700;
/// The mode of a shared domain's directory: sticky, so that nobody removes another user's files.
pub(crate) const SHARED_MODE: u32 = 0o3770;

/// Where nodes find one another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    path: PathBuf,
    group: Option<u32>,
}

impl Domain {
    /// The domain that the environment names: `LIBRPC_DOMAIN` as in [`Domain::parse`], or otherwise the user's private one,
    /// `/dev/shm/librpc_<uid>`.
    ///
    /// In a user namespace `<uid>` is the user's number outside of it: the `root` of a namespace must not take the name of
    /// the machine's root.
    pub fn from_env() -> Self {
        match std::env::var_os("LIBRPC_DOMAIN") {
            Some(name) if !name.is_empty() => Self::parse(name),
            _ => Self::at(format!("/dev/shm/librpc_{}", process::outer_uid())),
        }
    }

    /// The domain of this name: with a `/` in it a path, otherwise `/dev/shm/librpc_<uid>.<name>`.
    ///
    /// ```
    /// assert!(librpc::Domain::parse("robot").path().to_str().unwrap().ends_with(".robot"));
    /// assert_eq!(librpc::Domain::parse("/dev/shm/robot").path().to_str(), Some("/dev/shm/robot"));
    /// ```
    pub fn parse(name: impl AsRef<OsStr>) -> Self {
        let name = name.as_ref();
        if name.as_encoded_bytes().contains(&b'/') {
            return Self::at(name);
        }
        let mut path = std::ffi::OsString::from(format!("/dev/shm/librpc_{}.", process::outer_uid()));
        path.push(name);
        Self::at(path)
    }

    /// The private domain in this directory, which must be on tmpfs. Only its owner's processes get in.
    ///
    /// A relative path is made absolute at once: a later change of the current directory has no effect.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // Without a current directory a relative path stays as it is, and joining says so.
        let path = file::absolute(&path).unwrap_or(path);
        Self { path, group: None }
    }

    /// The same directory as a *shared* domain: the members of this group get in, too. Each node decides whom it admits
    /// ([`crate::Admission`]).
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
    #[error(
        "domain {} belongs to uid {owner}, not to uid {uid}: {}, or share one by group",
        path.display(), choose_another()
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// The user to whom it belongs.
        owner: u32,
        /// The user who wanted to enter.
        uid: u32,
    },
    /// Something else has its name.
    #[error(
        "domain {} is not a directory but {what} of uid {owner}: remove that, or {}",
        path.display(), choose_another()
    )]
    NotADirectory {
        /// The path.
        path: PathBuf,
        /// What is there, such as `a symbolic link`.
        what: String,
        /// The user to whom that belongs.
        owner: u32,
    },
    /// The access mode is wrong.
    #[error("domain {} has mode {found:o}, not {expected:o}{}", path.display(), shared_hint(*found))]
    Mode {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        found: u32,
        /// What it must be.
        expected: u32,
    },
    /// It belongs to another group.
    #[error("domain {} belongs to gid {found}, not to gid {expected}", path.display())]
    OtherGroup {
        /// The directory.
        path: PathBuf,
        /// Its group.
        found: u32,
        /// What it must be.
        expected: u32,
    },
    /// It is not on tmpfs, where files vanish with the machine.
    #[error("domain {} is not on tmpfs: choose a directory under /dev/shm", path.display())]
    NotTmpfs {
        /// The directory.
        path: PathBuf,
    },
    /// Its path is relative, and the process has no current directory.
    #[error("domain {} is a relative path, and this process has no current directory: name an absolute one", path.display())]
    Relative {
        /// The path.
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
    /// The last member has been removing the domain for more than 2 s.
    #[error("domain {} has been closing for over 2 s: is the process that closes it stopped?", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
}

impl DomainError {
    pub(crate) fn not_a_directory(path: &Path, kind: Kind, owner: u32) -> Self {
        Self::NotADirectory { path: path.to_owned(), what: kind.to_string(), owner }
    }
}

fn shared_hint(mode: u32) -> &'static str {
    if mode == SHARED_MODE { " (it is a shared one: name its group to join it)" } else { "" }
}

/// Where nobody else can take the name first: in the directory that the login manager makes for the user.
fn choose_another() -> String {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|runtime| runtime.is_absolute()) {
        Some(runtime) => format!("choose another, such as LIBRPC_DOMAIN={}", runtime.join("librpc").display()),
        None => "choose another with LIBRPC_DOMAIN".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_made_absolute_at_once() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(Domain::at("./dom").path(), here.join("dom"));
        assert_eq!(Domain::parse("a/dom").path(), here.join("a/dom"));
    }

    #[test]
    fn a_path_that_could_not_be_made_absolute_is_an_error() {
        let domain = Domain { path: "dom".into(), group: None };
        assert!(matches!(domain.leftovers(), Err(DomainError::Relative { .. })));
        assert!(matches!(domain.clean(), Err(DomainError::Relative { .. })));
    }
}
