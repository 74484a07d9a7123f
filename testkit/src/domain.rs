//! A domain of one test's own. Dropping it removes it.
//!
//! Invariant: every domain made here is at `/dev/shm/librpc_test_<pid>_<name>`. So the leftovers of a process can be
//! found, and those of killed processes can be distinguished from domains in use.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const SHM: &str = "/dev/shm";
const PREFIX: &str = "librpc_test_";

/// What dropping a domain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    /// Clean up as `librpc clean` does, then assert that nothing is left.
    Clean,
    /// Assert that nothing is left, without any cleaning.
    AssertGone,
    /// Remove whatever is there.
    Remove,
}

/// A domain of one test's own, which does not exist until a node opens it.
///
/// Dropping it cleans up after killed processes and asserts that nothing is left. If the test has failed already, whatever
/// is there is removed.
#[derive(Debug)]
pub struct TestDomain {
    path: PathBuf,
    at_end: AtEnd,
}

impl TestDomain {
    /// A new domain under `/dev/shm`.
    #[expect(clippy::new_without_default, reason = "each one is different")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self::named(&COUNT.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A new domain under `/dev/shm` with this name, which no other test of the process may use.
    pub fn named(test: &str) -> Self {
        Self::at(format!("{}{test}", prefix()))
    }

    /// A domain at a path of the test's choice.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), at_end: AtEnd::Clean }
    }

    /// Dropping it asserts that nothing is left, without any cleaning: every node must have left the domain properly.
    #[must_use]
    pub fn without_cleaning(mut self) -> Self {
        self.at_end = AtEnd::AssertGone;
        self
    }

    /// Dropping it removes whatever is there. For programs that report what is left instead of panicking.
    #[must_use]
    pub fn without_assertions(mut self) -> Self {
        self.at_end = AtEnd::Remove;
        self
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The domain, for the library.
    pub fn domain(&self) -> librpc::Domain {
        librpc::Domain::at(&self.path)
    }

    /// The names of what is in the directory, sorted; none if there is no directory.
    pub fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> = list(&self.path).iter().map(|path| name(path)).collect();
        names.sort();
        names
    }

    /// The path of a node's rendezvous socket.
    pub fn socket_of(&self, id: &str) -> PathBuf {
        socket_of(&self.path, id).expect("the node is there")
    }

    /// The names that are in the directory if exactly these nodes are there, sorted.
    pub fn entries_with(&self, ids: &[&str]) -> Vec<String> {
        let names = |id| [format!("{id}.node"), name(&self.socket_of(id))];
        let mut names: Vec<String> = ids.iter().copied().flat_map(names).chain(["generation".to_owned()]).collect();
        names.sort();
        names
    }

    /// What is left of the domain: see [`left_of`].
    pub fn left(&self) -> Vec<PathBuf> {
        left_of(&self.path)
    }

    /// Asserts that nothing is left.
    #[track_caller]
    pub fn assert_gone(&self) {
        assert_eq!(self.left(), [] as [&Path; 0], "something is left behind");
    }

    /// Cleans up after processes that were killed, then asserts that nothing is left.
    #[track_caller]
    pub fn assert_cleanable(&self) {
        self.domain().clean().expect("the domain can be cleaned up");
        self.assert_gone();
    }
}

impl Drop for TestDomain {
    fn drop(&mut self) {
        let has_failed = std::thread::panicking();
        let cleaned = match self.at_end {
            AtEnd::Clean if !has_failed => self.domain().clean().map(drop),
            _ => Ok(()),
        };
        let left = self.left();
        left.iter().for_each(|path| remove(path));
        if !has_failed && self.at_end != AtEnd::Remove {
            cleaned.expect("the domain can be cleaned up");
            assert_eq!(left, [] as [&Path; 0], "something is left behind");
        }
    }
}

/// The path of a node's rendezvous socket in a domain. Its name contains the inode number of the node's file.
pub fn socket_of(domain: &Path, id: &str) -> std::io::Result<PathBuf> {
    let file = std::fs::metadata(domain.join(format!("{id}.node")))?;
    Ok(domain.join(format!("{id}.{:x}.sock", file.ino())))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn prefix() -> String {
    format!("{SHM}/{PREFIX}{}_", std::process::id())
}

/// The paths in a directory; none if there is no directory.
fn list(directory: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.expect("an entry").path()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("cannot list {}: {error}", directory.display()),
    }
}

/// Removes a file, or a directory with all that is in it. Ignores what is gone already or cannot be removed.
fn remove(path: &Path) {
    if std::fs::remove_dir_all(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}

/// The paths of all that is left of a domain: the directory, what is in it, and what is next to it with its name and an
/// extension (a domain that was never finished, for example).
pub fn left_of(domain: &Path) -> Vec<PathBuf> {
    let extended = format!("{}.", domain.display());
    let is_of_it = |path: &PathBuf| path == domain || path.to_string_lossy().starts_with(&extended);
    let beside = domain.parent().map(list).unwrap_or_default().into_iter().filter(is_of_it);
    list(domain).into_iter().chain(beside).collect()
}

/// What is left under `/dev/shm` of the domains that this process made.
pub fn left_by_this_process() -> Vec<PathBuf> {
    let own = prefix();
    list(Path::new(SHM)).into_iter().filter(|path| path.to_string_lossy().starts_with(&own)).collect()
}

/// Removes the domains of processes that no longer run: a killed process could not do it itself.
pub fn remove_what_killed_runs_left() {
    for path in list(Path::new(SHM)) {
        let name = name(&path);
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Leaves a domain with a file in it and a file beside it.
    fn leave_something(domain: &TestDomain) {
        std::fs::create_dir(domain.path()).unwrap();
        std::fs::write(domain.path().join("left"), "").unwrap();
        std::fs::write(domain.path().with_extension("new-1"), "").unwrap();
        assert_eq!(domain.left().len(), 3);
        assert!(left_by_this_process().contains(&domain.path().to_owned()));
    }

    #[test]
    fn a_test_that_leaves_something_behind_fails_and_it_is_removed() {
        for make in [TestDomain::new, || TestDomain::new().without_cleaning()] {
            let domain = make();
            leave_something(&domain);
            let path = domain.path().to_owned();
            assert!(catch_unwind(AssertUnwindSafe(|| drop(domain))).is_err());
            TestDomain::at(path).assert_gone();
        }
    }

    #[test]
    fn a_domain_without_assertions_is_removed_with_all_that_is_in_it() {
        let domain = TestDomain::new().without_assertions();
        leave_something(&domain);
        let path = domain.path().to_owned();
        drop(domain);
        TestDomain::at(path).assert_gone();
    }
}
