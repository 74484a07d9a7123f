//! Where the files of a run are: a directory in memory, removed at the end of the run. The next run removes what killed
//! runs left.

use std::path::{Path, PathBuf};

use anyhow::Context;

const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "librpc-peers-";

/// The directory of a run. Dropping it removes it, and everything else in memory that carries its name.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn make() -> anyhow::Result<Self> {
        clear_leftovers();
        let path = Path::new(MEMORY).join(format!("{PREFIX}{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Makes a directory for one measurement.
    pub(crate) fn inner(&self, number: usize) -> anyhow::Result<PathBuf> {
        let path = self.0.join(number.to_string());
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// Removes what a measurement left.
    pub(crate) fn forget(&self, number: usize) {
        clear(&self.0.join(number.to_string()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        clear(&self.0);
    }
}

/// The prefix of the names of files that a measurement has to make outside its directory.
pub(crate) fn prefix_of(path: &Path) -> String {
    let below = path.strip_prefix(MEMORY).unwrap_or(path);
    format!("{}_", below.to_string_lossy().replace('/', "_"))
}

/// Removes a directory, and what carries its name elsewhere in memory.
fn clear(path: &Path) {
    let _ = std::fs::remove_dir_all(path); // a measurement may have removed its own
    let prefix = prefix_of(path);
    for entry in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path()); // as above
        }
    }
}

/// Removes the directories of runs that have ended.
fn clear_leftovers() {
    for entry in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            clear(&entry.path());
        }
    }
}
